"""The page of figures: what each strategy reaches, and how many labels it needs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from active.campaigns import Setting

FIGURE = "forces_rmse"
DRAWS = 4000  # of the bootstrap
AHEAD = 20, 100  # labels at which errors are told
LEVEL = 0.95


@dataclass(frozen=True)
class Curve:
    """Errors of one campaign over its labels.

    Attributes:
        labels: of each round.
        figures: likewise.
        chosen: candidates of its first round.
        share: of the choice in the time of the rounds that chose.
    """

    labels: list[int]
    figures: list[dict[str, float]]
    chosen: frozenset[int]
    share: float

    def at(self, count: int, figure: str = FIGURE) -> float | None:
        """The figure after so many labels; None if it never had them."""
        if count not in self.labels:
            return None
        return self.figures[self.labels.index(count)].get(figure)


Curves = dict[tuple[str, str], dict[int, Curve]]
"""(posterior, strategy) → repetition → curve."""


def write_page(setting: Setting) -> None:
    """README.md from all JSON files that are there."""
    lines = ["# Does choosing what is labelled save labels?", "", *INTRODUCTION]
    curves = read_curves(setting.kept / "pool")
    if curves:
        lines += tell_errors(curves) + tell_ratios(curves) + tell_overlap(curves)
    live = read_curves(setting.kept / "live")
    if live:
        lines += tell_live(live)
    kill = setting.kept / "kill.json"
    if kill.exists():
        lines += tell_kill(json.loads(kill.read_text()))
    (setting.kept / "README.md").write_text("\n".join(lines) + "\n")


def read_curves(folder: Path) -> Curves:
    """All campaigns that are through."""
    found: Curves = {}
    for file in sorted(folder.glob("*.json")):
        held = json.loads(file.read_text())
        if "strategy" not in held:
            continue
        rounds = held["rounds"]
        choosing = [one for one in rounds if "chosen" in one]
        curve = Curve(
            labels=[one["labels"] for one in rounds],
            figures=[one["figures"] for one in rounds],
            chosen=frozenset(choosing[0]["chosen"]) if choosing else frozenset(),
            share=float(np.mean([one["choice_share"] for one in choosing])) if choosing else 0.0,
        )
        key = held.get("posterior", "ensemble"), held["strategy"]
        found.setdefault(key, {})[held["repetition"]] = curve
    return found


def tell_errors(curves: Curves) -> list[str]:
    lines = ["", "## Errors on the test half", ""]
    titles = ["posterior", "strategy", "runs", "F at 0"]
    titles += [f"F at +{count}" for count in AHEAD] + [f"E at +{count}" for count in AHEAD]
    titles += [f"F − random at +{AHEAD[0]}", f"at +{AHEAD[1]}", "90 % interval of F", "choice"]
    lines += [row(titles), row(["---"] * len(titles))]
    for (posterior, strategy), held in curves.items():
        random = curves.get((posterior, "random"), {})
        last = [one.figures[-1].get("forces_coverage") for one in held.values()]
        cells = [posterior, strategy, str(len(held))]
        cells += [spread([one.at(0) for one in held.values()])]
        cells += [spread([one.at(count) for one in held.values()]) for count in AHEAD]
        cells += [
            spread([one.at(count, "energy_rmse") for one in held.values()], ".2f")
            for count in AHEAD
        ]
        cells += [paired(held, random, count) if strategy != "random" else "–" for count in AHEAD]
        cells += [spread(last, ".0%"), f"{np.mean([one.share for one in held.values()]):.1%}"]
        lines.append(row(cells))
    return lines


def paired(held: Mapping[int, Curve], random: Mapping[int, Curve], count: int) -> str:
    """Mean difference of runs that began alike, and its bootstrap interval."""
    differences = [
        held[number].at(count) - random[number].at(count)  # type: ignore[operator]
        for number in sorted(held.keys() & random.keys())
        if held[number].at(count) is not None and random[number].at(count) is not None
    ]
    if len(differences) < 2:
        return spread(differences, "+.1f")
    generator = np.random.default_rng(0)
    drawn = generator.choice(differences, (DRAWS, len(differences))).mean(1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return f"{np.mean(differences):+.1f} [{low:+.1f}, {high:+.1f}]"


def labels_needed(labels: Sequence[float], errors: Sequence[float], goal: float) -> float:
    """Labels at which a curve first is at an error, between its points linearly; inf if never.

    Args:
        labels: of each point, ascending.
        errors: likewise; where one is above the one before, the lower one counts.
        goal: the error.
    """
    lowest = np.minimum.accumulate(np.asarray(errors, float))
    if lowest[-1] > goal:
        return float("inf")
    place = int(np.argmax(lowest <= goal))
    if place == 0:
        return float(labels[0])
    before, after = lowest[place - 1], lowest[place]
    share = (before - goal) / (before - after)
    return float(labels[place - 1] + share * (labels[place] - labels[place - 1]))


def ratio(held: Sequence[Curve], random: Sequence[Curve]) -> float:
    """Labels that a strategy needs for the error random has at its end, over those random needs."""
    mean, goals = (
        np.mean([[figures[FIGURE] for figures in one.figures] for one in some], 0)
        for some in (held, random)
    )
    goal = float(goals.min())
    needed = labels_needed(random[0].labels, goals.tolist(), goal)
    if needed == 0.0:  # labels were of no use to it
        return float("nan")
    return labels_needed(held[0].labels, mean.tolist(), goal) / needed


def tell_ratios(curves: Curves) -> list[str]:
    random = curves.get(("ensemble", "random"), {})
    random = {n: one for n, one in random.items() if one.at(AHEAD[1]) is not None}
    others = {
        strategy: {n: one for n, one in held.items() if one.at(AHEAD[1]) is not None}
        for (posterior, strategy), held in curves.items()
        if posterior == "ensemble" and strategy != "random"
    }
    lines = ["", "## Labels for the force error that random has at its end", ""]
    lines += [row(["strategy", "runs", f"labels / labels of random ({LEVEL:.0%} interval)"])]
    lines += [row(["---"] * 3)]
    generator = np.random.default_rng(0)
    for strategy, held in others.items():
        numbers = sorted(held.keys() & random.keys())
        if len(numbers) < 2:
            continue
        whole = ratio([held[n] for n in numbers], [random[n] for n in numbers])
        drawn = [
            ratio([held[n] for n in places], [random[n] for n in places])
            for places in generator.choice(numbers, (DRAWS // 4, len(numbers))).tolist()
        ]
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
        interval = f"{beyond(whole)} [{beyond(low)}, {beyond(high)}]"
        lines.append(row([strategy, str(len(numbers)), interval]))
    return lines


def beyond(value: float) -> str:
    """A ratio; one of a strategy that does not get there within the labels it has."""
    if np.isnan(value):
        return "–"
    return f"{value:.2f}" if np.isfinite(value) else "> 1"


def tell_overlap(curves: Curves) -> list[str]:
    """How many of the first choice two strategies share: they chose with the same potential."""
    held = {name: runs for (posterior, name), runs in curves.items() if posterior == "ensemble"}
    other = held.get("forces_variance")
    lines = ["", "## How far from the largest variance", ""]
    if other is None:
        return []
    lines += [row(["strategy", "share of the first choice that the largest force variance makes"])]
    lines += [row(["---"] * 2)]
    for name, runs in held.items():
        numbers = runs.keys() & other.keys()
        shares = [
            len(runs[n].chosen & other[n].chosen) / len(runs[n].chosen)
            for n in numbers
            if runs[n].chosen
        ]
        if name != "forces_variance" and shares:
            lines.append(row([name, spread(shares, ".0%")]))
    return lines


def tell_live(curves: Curves) -> list[str]:
    lines = ["", "## Live: barriers of unseen scans (MAE, kcal/mol)", ""]
    rounds = max(len(one.labels) for held in curves.values() for one in held.values())
    titles = ["strategy", "runs", *(f"round {number}" for number in range(rounds))]
    lines += [row(titles), row(["---"] * len(titles))]
    for (_, strategy), held in curves.items():
        cells = []
        for number in range(rounds):
            there = [one for one in held.values() if number < len(one.labels)]
            errors = [one.figures[number].get("barrier_mae") for one in there]
            labels = f", {np.mean([one.labels[number] for one in there]):.0f} labels"
            cells.append(spread(errors, ".2f") + (labels if there else ""))
        lines.append(row([strategy, str(len(held)), *cells]))
    return lines


def tell_kill(found: dict[str, Any]) -> list[str]:
    stages = found["reached_when_killed"].items()
    return [
        "",
        "## Killed at random moments",
        "",
        f"{found['kills']} times SIGKILL at a random moment of a campaign of "
        f"{found['seconds_uninterrupted']:.0f} s "
        f"({'; '.join(f'{stage}: {count}' for stage, count in stages)}). "
        f"Of {found['campaigns']} campaigns that were gone on with, {found['with_the_same_end']} "
        "came to the same choices, labels, figures and weights as one that nobody interrupted; of "
        f"{found['labels']} labels {found['labels_calculated_twice']} were calculated twice.",
    ]


def spread(values: Sequence[float | None], form: str = ".1f") -> str:
    """Mean and standard deviation over runs; a dash where there is none."""
    held = [value for value in values if value is not None]
    if not held:
        return "–"
    mean = format(float(np.mean(held)), form)
    if len(held) == 1:
        return mean
    return f"{mean} ({format(float(np.std(held, ddof=1)), form.lstrip('+'))})"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


INTRODUCTION = [
    "Written by `python benchmarks/active.py table` from the JSON files beside this page, one for"
    " each run; configs: `pool.yaml`, `live.yaml`, `kill.yaml`.",
    "",
    "3BPA: begun with 80 frames at 300 K and 20 that judge, drawn anew for each repetition; the"
    " pool is every other block of a tenth of the 600 K file, the test frames are from the blocks"
    " between. All strategies of a repetition begin from the same potential, and rounds have 20"
    " labels, so that +20 and +100 are points of one curve. F and E are root mean squares in meV/Å"
    " and meV/atom, means over runs with their standard deviation in brackets; differences are"
    f" between runs that began alike, with the {LEVEL:.0%} interval of a bootstrap over"
    " repetitions. *choice* is its share of the time of a round. SWAG, IVON and Laplace train from"
    " scratch in both rounds.",
]
