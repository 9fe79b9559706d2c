"""What is kept of a round beside its structures: why these, how long, and what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from surefoot.active.choose import Chosen
from surefoot.active.folder import (
    OtherCampaign,
    Round,
    find_rounds,
    read_json,
    read_structures,
    write_json,
)
from surefoot.active.judge import Figures
from surefoot.active.teach import POTENTIAL

SECONDS = "seconds.json"
ENDLESS = 1e12  # s
STAGES = ("train", "judge", "explore", "choose", "label")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How far a campaign is.

    Attributes:
        rounds: the summary of each round that is whole.
        ended: the sentence that ended it; None where it was asked to stop.
        potential: the last one.
    """

    rounds: list[dict[str, Any]]
    ended: str | None
    potential: Path | None


def record_choice(chosen: Chosen, candidates: Sequence[Atoms]) -> dict[str, Any]:
    """What was chosen and why, and the scores of all that was not."""

    def numbers(values: np.ndarray) -> list[float | None]:
        return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]

    return {
        "chosen": [
            {"candidate": int(index), "by": by}
            for index, by in zip(chosen.indices, chosen.by, strict=True)
        ],
        "refused": chosen.refused,
        "found_by": dict(Counter(str(atoms.info["config_type"]) for atoms in candidates)),
        "scores": {name: numbers(values) for name, values in chosen.scores.items()},
        "distances": numbers(chosen.distances),
    }


def share_of_choice(seconds: Mapping[str, float]) -> float:
    """Share of the time of a round that choosing among the candidates took.

    Args:
        seconds: by stage; candidates are predicted, described and compared in `choose`.
    """
    total = sum(seconds.values())
    return seconds.get("choose", 0.0) / total if total else 0.0


def summarize(this: Round, figures: Figures) -> dict[str, Any]:
    """Counts, figures and seconds of a round."""
    labelled = chosen = 0
    if this.chosen.exists():
        chosen = len(read_structures(this.chosen))
    if this.labels.exists():
        labelled = len(read_structures(this.labels))
    seconds = read_seconds(this.folder / SECONDS)
    return {
        "round": this.number,
        "figures": figures,
        "chosen": chosen,
        "labelled": labelled,
        "seconds": seconds,
        "choice_share": round(share_of_choice(seconds), 4),
    }


def count_whole(folder: Path) -> int:
    """Rounds that are whole and did not end the campaign; the next one is to be gone on with."""
    for place, one in enumerate(find_rounds(folder)):
        if not one.summary.exists() or read_json(one.summary)["ended"] is not None:
            return place
    return len(find_rounds(folder))


def count_labels(folder: Path, number: int) -> int:
    """Structures labelled in all rounds before one of them.

    Labels of the round itself do not count: it would end elsewhere when it is gone on with.
    """
    return sum(
        len(read_structures(one.labels))
        for one in find_rounds(folder)
        if one.number < number and one.labels.exists()
    )


@contextmanager
def clock(this: Round, stage: str) -> Iterator[None]:
    """Add the time inside to that of the stage, also where it does not come to its end."""
    file, begin = this.folder / SECONDS, time.monotonic()
    try:
        yield
    finally:
        spent = read_seconds(file) if file.exists() else {}
        spent[stage] = round(spent.get(stage, 0.0) + time.monotonic() - begin, 3)
        write_json(file, spent)


def count_seconds(folder: Path) -> float:
    """Seconds of all stages of all rounds so far."""
    files = [one.folder / SECONDS for one in find_rounds(folder)]
    return sum(sum(read_seconds(file).values()) for file in files if file.exists())


def read_seconds(file: Path) -> dict[str, float]:
    """Seconds of each stage.

    Args:
        file: of a round.
    Raises:
        OtherCampaign: if the file is damaged.
    """
    held = read_json(file)
    numbers = held.values() if isinstance(held, dict) else [None]
    if not all(isinstance(one, int | float) and 0 <= one < ENDLESS for one in numbers):
        raise OtherCampaign(
            f"{file}: damaged (no seconds of stages); remove it: only time is lost."
        )
    return held


def show_figures(figures: Figures) -> str:
    """The figures of a round in a line."""
    names = {
        "energy_rmse": "E {:.2f} meV/atom",
        "forces_rmse": "F {:.1f} meV/Å",
        "barrier_mae": "barriers {:.2f} kcal/mol",
        "forces_coverage": "{:.0%} of forces in their 90 % interval",
    }
    return ", ".join(text.format(figures[name]) for name, text in names.items() if name in figures)


def report(folder: Path, ended: str | None) -> Outcome:
    """How far the campaign of a folder is."""
    potential = folder / POTENTIAL
    whole = [read_json(one.summary) for one in find_rounds(folder) if one.summary.exists()]
    return Outcome(rounds=whole, ended=ended, potential=potential if potential.exists() else None)
