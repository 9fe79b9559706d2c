"""The page of a campaign: what it has reached, and what was chosen in each round and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from surefoot.active.campaign import Campaign
from surefoot.active.folder import Round, find_rounds, read_json, read_structures
from surefoot.active.judge import LEVEL, Figures
from surefoot.active.rules import UNITS
from surefoot.active.summary import SECONDS, STAGES, share_of_choice
from surefoot.label.output import beside
from surefoot.report.page import (
    document,
    download,
    folded,
    heading,
    paragraph,
    plots,
    table,
    verbatim,
)
from surefoot.report.svg import Axis, Line, colour, plot
from surefoot.train.checkpoint import write_atomically

PAGE = "report.html"
MOST_ROWS = 40  # of what was chosen in a round; all are in its files
ERRORS = {
    "energy_rmse": "energy RMSE (meV/atom)",
    "forces_rmse": "forces RMSE (meV/Å)",
    "barrier_mae": "barrier MAE (kcal/mol)",
}
COVERAGES = {
    "energy_coverage": "energy",
    "forces_coverage": "forces",
    "barrier_coverage": "barriers",
}


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """What the files of a round tell; None or nothing of stages that are not done.

    Attributes:
        number: of the round.
        before: new labels that its potential has learnt from or was calibrated by.
        figures: on the test frames.
        choice: as `summary.record_choice` keeps it.
        chosen: structures to be labelled.
        labelled: how many have labels.
        failed: reason → how many have none.
        seconds: of each stage.
    """

    number: int
    before: int
    figures: Figures | None
    choice: dict[str, Any] | None
    chosen: list[Atoms]
    labelled: int
    failed: dict[str, int]
    seconds: dict[str, float]


def write_report(campaign: Campaign, ended: str | None) -> Path:
    """Write the page of a campaign into its folder, as far as it is.

    Args:
        campaign: whose folder is read.
        ended: the sentence that ended it; None where it goes on.
    """
    file = campaign.folder / PAGE
    write_atomically(file, make_page(campaign, read_chapters(campaign.folder), ended).encode())
    return file


def read_chapters(folder: Path) -> list[Chapter]:
    """All rounds of a folder, the last of them perhaps not whole."""
    chapters, before = [], 0
    for this in find_rounds(folder):
        chapter = _read_chapter(this, before)
        chapters.append(chapter)
        before += chapter.labelled
    return chapters


def _read_chapter(this: Round, before: int) -> Chapter:
    failed = beside(this.labels, "failed.json")
    reasons = [one["reason"] for one in read_json(failed)] if failed.exists() else []
    seconds = this.folder / SECONDS
    return Chapter(
        number=this.number,
        before=before,
        figures=read_json(this.figures) if this.figures.exists() else None,
        choice=read_json(this.choice) if this.choice.exists() else None,
        chosen=read_structures(this.chosen) if this.chosen.exists() else [],
        labelled=len(read_structures(this.labels)) if this.labels.exists() else 0,
        failed=dict(Counter(reasons).most_common()),
        seconds=read_json(seconds) if seconds.exists() else {},
    )


def make_page(campaign: Campaign, chapters: Sequence[Chapter], ended: str | None) -> str:
    """The whole page as HTML.

    Args:
        campaign: whose goals and config are shown.
        chapters: its rounds.
        ended: the sentence that ended it; None where it goes on.
    """
    labels = sum(one.labelled for one in chapters)
    minutes = sum(sum(one.seconds.values()) for one in chapters) / 60
    state = "It goes on." if ended is None else f"It has ended: {ended}."
    body = [
        heading(f"Active learning: {campaign.folder.resolve().name}", 1),
        paragraph(
            f"{len(chapters)} rounds, {labels} new labels by {campaign.labeler.describe()}, "
            f"{minutes:.1f} minutes. {state}"
        ),
        heading("What the test frames say"),
        paragraph(
            "Errors on test frames that no round learns from and no choice looks at, over the "
            "labels made so far; dashed: what is to be reached. Coverage: the share of labels "
            f"inside their {LEVEL:.0%} interval; below the dashed line error bars are too small."
        ),
        plots(_curves(campaign, chapters)),
        table(_figure_rows(chapters)),
        heading("Time"),
        paragraph("Choosing is the prediction and comparison of candidates; all else is the rest."),
        table(_time_rows(chapters)),
    ]
    for chapter in reversed(chapters):
        if chapter.choice is not None:
            body += _tell_choice(chapter, chapter.choice)
    body += [
        folded("Config", [verbatim(json.dumps(campaign.config, indent=1, ensure_ascii=False))]),
        download("figures.json", [_figures(one) for one in chapters]),
    ]
    return document(f"Campaign {campaign.folder.resolve().name}", body)


def _curves(campaign: Campaign, chapters: Sequence[Chapter]) -> list[str]:
    judged = [(one.before, one.figures) for one in chapters if one.figures is not None]
    if not judged:
        return []
    count = Axis(label="new labels")
    ends = [float(judged[0][0]), float(judged[-1][0])]
    drawn = []
    for name, label in ERRORS.items():
        lines = [_line(judged, name, "error", 0)]
        if name == "forces_rmse":
            lines.append(_line(judged, "forces_std", "mean σ", 1))
        goal = campaign.rules.goals.get(name)
        if goal is not None:
            lines.append(_level(ends, goal))
        if lines[0].x:
            highest = max(float(value) for line in lines for value in line.y if value is not None)
            # From zero, with room for the legend.
            axis = Axis(label=label, limits=(0.0, 1.3 * highest or 1.0))
            drawn.append(plot(label, count, axis, lines))
    covered = [
        _line(judged, name, label, number)
        for number, (name, label) in enumerate(COVERAGES.items())
        if name in judged[0][1]
    ]
    if covered:
        axis = Axis(label="share", limits=(0.0, 1.0))
        drawn.append(plot("Coverage", count, axis, [*covered, _level(ends, LEVEL)]))
    return drawn


def _line(judged: Sequence[tuple[int, Figures]], key: str, name: str, number: int) -> Line:
    held = [(before, figures[key]) for before, figures in judged if key in figures]
    x, y = [float(before) for before, _ in held], [value for _, value in held]
    return Line(name=name, x=x, y=y, colour=colour(number), points=True)


def _level(ends: list[float], value: float) -> Line:
    return Line(name="", x=ends, y=[value, value], colour="#999", dashed=True)


def _figure_rows(chapters: Sequence[Chapter]) -> list[dict[str, str]]:
    judged = [one for one in chapters if one.figures is not None]
    names = dict.fromkeys(name for one in judged for name in one.figures or {})
    return [
        {"round": str(one.number), "new labels": str(one.before)}
        | {_title(name): _number((one.figures or {}).get(name)) for name in names}
        for one in judged
    ]


def _title(name: str) -> str:
    """The name of a figure with its unit."""
    quantity, _, kind = name.partition("_")
    if kind == "coverage":
        return f"{quantity} in {LEVEL:.0%} interval"
    unit = f" ({UNITS[quantity]})" if quantity in UNITS else ""
    return f"{quantity} {'σ' if kind == 'std' else kind.upper()}{unit}"


def _time_rows(chapters: Sequence[Chapter]) -> list[dict[str, str]]:
    rows = []
    for one in chapters:
        total = sum(one.seconds.values())
        parts = {f"{name} (s)": f"{one.seconds.get(name, 0.0):.1f}" for name in STAGES}
        rows.append(
            {"round": str(one.number), **parts, "all (s)": f"{total:.1f}"}
            | {"choice, share": f"{share_of_choice(one.seconds):.1%}"}
        )
    return rows


def _tell_choice(chapter: Chapter, choice: dict[str, Any]) -> list[str]:
    found = ", ".join(f"{count} by {name}" for name, count in choice["found_by"].items())
    told = [f"Candidates: {found}.", f"Chosen: {len(chapter.chosen)}; labels: {chapter.labelled}."]
    told += [f"Not chosen, {count}: {reason}." for reason, count in choice["refused"].items()]
    told += [f"Not labelled, {count}: {reason}." for reason, count in chapter.failed.items()]
    rows = _choice_rows(chapter, choice)
    left = len(chapter.chosen) - len(rows)
    return [
        heading(f"Round {chapter.number}: what was chosen, and why", 3),
        paragraph(" ".join(told)),
        plots(_ranks(choice)),
        folded(
            f"the {len(rows)} structures" + (f", and {left} more in its files" if left else ""),
            [table(rows)],
        ),
    ]


def _ranks(choice: dict[str, Any]) -> list[str]:
    """Scores of all candidates in order, and where those are that were chosen."""
    taken = {one["candidate"] for one in choice["chosen"]}
    drawn = []
    for name, values in choice["scores"].items():
        held = [(value, place in taken) for place, value in enumerate(values) if value is not None]
        held.sort(key=lambda one: -one[0])
        x = [float(rank) for rank in range(1, len(held) + 1)]
        lines = [Line(name="candidates", x=x, y=[v for v, _ in held], colour=colour(0))]
        marked = [(rank, v) for rank, (v, chosen) in zip(x, held, strict=True) if chosen]
        lines.append(
            Line(
                name="chosen",
                x=[rank for rank, _ in marked],
                y=[v for _, v in marked],
                colour=colour(1),
                points=True,
                joined=False,
            )
        )
        title = name.replace("_", " ")
        drawn.append(plot(title, Axis(label="rank"), Axis(label="score"), lines))
    return drawn


def _choice_rows(chapter: Chapter, choice: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    for one, atoms in zip(choice["chosen"][:MOST_ROWS], chapter.chosen, strict=False):
        place = one["candidate"]
        rows.append(
            {
                "candidate": str(place),
                "found by": str(atoms.info.get("config_type", "–")),
                "formula": atoms.get_chemical_formula(),
                "chosen by": one["by"].replace("_", " "),
                **{
                    name.replace("_", " "): _number(values[place])
                    for name, values in choice["scores"].items()
                },
                "distance": _number(choice["distances"][place]),
            }
        )
    return rows


def _figures(chapter: Chapter) -> dict[str, Any]:
    return {
        "round": chapter.number,
        "labels_before": chapter.before,
        "figures": chapter.figures,
        "chosen": len(chapter.chosen),
        "labelled": chapter.labelled,
        "failed": chapter.failed,
        "seconds": chapter.seconds,
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
