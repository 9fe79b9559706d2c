"""The page of figures and the picture of one trajectory."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from guard.choice import (
    Limits,
    Outcome,
    Trajectory,
    choose,
    driven_stop,
    false_stops,
    find_near,
    halves,
    outcome,
    passed,
    rate_interval,
    share_interval,
)
from guard.cost import BASE
from surefoot.report.svg import Axis, Line, colour, plot

STYLE = """<style>
.title{font:bold 13px sans-serif}.label,.tick{font:11px sans-serif}.tick{font-size:10px}
.mid{text-anchor:middle}.end{text-anchor:end}.grid{stroke:#ddd}.box{fill:none;stroke:#555}
</style>"""


def write_page(kept: Path, config: dict[str, Any]) -> None:
    """README.md and stopped.svg from all JSON files that are there."""
    data = json.loads((kept / "data.json").read_text())
    lines = ["# Does the guard stop in time?", "", *INTRODUCTION, ""]
    for posterior in config["posteriors"]:
        if (kept / posterior / "cost.json").exists():
            lines += describe(kept / posterior, posterior, config, data["atoms"])
    (kept / "README.md").write_text("\n".join(lines) + "\n")


def read_pieces(folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    pieces = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    driven = {name: pieces[name] for name in config["driven"] if name in pieces}
    return pieces, driven


def describe(folder: Path, posterior: str, config: dict[str, Any], atoms: int) -> list[str]:
    pieces, driven = read_pieces(folder, config)
    quiet = [piece for name, piece in pieces.items() if name.startswith("quiet_")]
    trajectories = [one for piece in quiet for one in piece["trajectories"]]
    checks = [count for piece in quiet for count in piece["checks"]]
    limit, fs = pieces["train"]["limit"], next(iter(driven.values()))["fs"]
    cost, train = pieces["cost"], pieces["train"]
    near_energy = find_near(trajectories, "energy") if train["closed"] else None
    near = find_near(trajectories)
    rules = choose(halves(trajectories)[0], checks[::2], fs, atoms, near, near_energy)
    every = [one for piece in driven.values() for one in piece["trajectories"]]
    still = halves(trajectories)[1], checks[1::2], atoms
    lines = [
        f"## {posterior}",
        "",
        f"{train['draws']} draws. RMS error of forces in distribution "
        f"{train['rms_force_error']:.3f} eV/Å; of the worst atom of a frame the 95th percentile is "
        f"{train['worst_95']:.3f} eV/Å, so that {limit:.3f} eV/Å must not be passed.",
        "",
    ]
    headline = config["headline"]
    if headline["posterior"] == posterior:
        rule = rules[headline["rule"]]
        spent = cost["over_base"][headline["cost"]] - 1
        lines += say_marks(outcome(every, rule, limit, fs), rule, still, fs, spent, config)
    lines += [
        "| guard | limits | passed | stopped before (95 %) | or with it | missed "
        "| median delay, fs (10th, 90th percentile) | stopped, never passed "
        "| false stops per 10 ps × 100 atoms (95 %) | per ns |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [row(name, limits, every, limit, fs, still) for name, limits in rules.items()]
    shown = rules[headline["rule"]]
    lines += ["", f"By what drove them, with {headline['rule']}:", ""]
    lines += ["| driven by | trajectories | passed | stopped before (95 %) | or with it |"]
    lines += ["|---|---|---|---|---|"]
    for name, piece in driven.items():
        found = outcome(piece["trajectories"], shown, limit, fs)
        lines.append(
            f"| {name} | {found.total} | {found.passed} | {share(found.before, found.passed)} "
            f"| {share(found.by, found.passed)} |"
        )
    lines += ["", *say_cost(cost, config["every"])]
    figure = picture(every, shown, limit, fs)
    if figure:
        (folder.parent / f"stopped_{posterior}.svg").write_text(figure)
        lines += ["", f"![a stopped trajectory](stopped_{posterior}.svg)", ""]
    return lines


Quiet = tuple[list[Trajectory], list[int], int]
"""Quiet trajectories, their checks, and atoms of each."""


def say_marks(
    found: Outcome, rule: Limits, quiet: Quiet, fs: float, spent: float, config: dict[str, Any]
) -> list[str]:
    """The headline, which was named beforehand, beside its marks."""
    marks = config["marks"]
    _, false, exposed = false_stops(quiet[0], quiet[1], rule, fs, quiet[2])
    stopped, rate = found.before / max(found.passed, 1), false / exposed
    low, high = rate_interval(false, exposed)
    rows = [
        (
            "stopped before",
            f"≥ {marks['stopped']:.0%}",
            share(found.before, found.passed),
            stopped >= marks["stopped"] and found.passed > 0,
        ),
        (
            "false stops per 10 ps × 100 atoms",
            f"≤ {marks['false_stops']:g}",
            f"{rate:.2f} ({low:.2f}–{high:.2f})",
            rate <= marks["false_stops"],
        ),
        ("cost of the run", f"≤ {marks['cost']:.0%}", f"{spent:+.1%}", spent <= marks["cost"]),
    ]
    lines = [
        f"The headline, named in `config.yaml` beforehand: {config['headline']['rule']}.",
        "",
        "| figure | mark | found (95 %) | |",
        "|---|---|---|---|",
    ]
    lines += [f"| {a} | {b} | {c} | {'met' if met else 'not met'} |" for a, b, c, met in rows]
    return [*lines, ""]


def row(
    name: str,
    limits: Limits,
    driven: list[Trajectory],
    limit: float,
    fs: float,
    quiet: Quiet,
) -> str:
    found = outcome(driven, limits, limit, fs)
    _, false, exposed = false_stops(quiet[0], quiet[1], limits, fs, quiet[2])
    nanoseconds = exposed / quiet[2]  # 1000 ps × atoms over atoms
    low, middle, high = np.quantile(found.delays, [0.1, 0.5, 0.9]) if found.delays else [np.nan] * 3
    told = [f"{limits.norm:.3g} eV/Å"] if np.isfinite(limits.norm) else []
    told += [f"ood {limits.ood_atoms:.3g}"] if np.isfinite(limits.ood_atoms) else []
    told += [f"asked from ood {limits.near:.3g} on"] if limits.near is not None else []
    if limits.near_energy is not None:
        told.append(f"asked from {1000 * limits.near_energy:.3g} meV/√atoms on")
    bounds = rate_interval(false, exposed)
    cells = [
        name,
        ", ".join(told),
        f"{found.passed} of {found.total}",
        share(found.before, found.passed),
        share(found.by, found.passed),
        str(found.missed),
        f"{middle:.0f} ({low:.0f}, {high:.0f})",
        str(found.early),
        f"{false / exposed:.2f} ({bounds[0]:.2f}–{bounds[1]:.2f}; {false} in {exposed:.2f})",
        f"{false / nanoseconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def share(part: int, whole: int) -> str:
    if not whole:
        return "–"
    low, high = share_interval(part, whole)
    return f"{part / whole:.0%} ({low:.0%}–{high:.0%})"


def say_cost(cost: dict[str, Any], every: int) -> list[str]:
    """Over a run on the first draw without guard and gate."""
    lines = [
        f"Cost at n = {every}, of a run on the first draw with neither guard nor gate "
        f"({cost['draws']} draws; all are asked from ood {cost['near_ood']:.2f} on with the "
        "shortcut):",
        "",
        "| guard | cost | checks with all draws |",
        "|---|---|---|",
    ]
    for name, ratio in cost["over_base"].items():
        if name != BASE:
            asked = f"{cost['asked'][name]:.0%}" if name in cost["asked"] else "–"
            lines.append(f"| {name} | {ratio - 1:+.1%} | {asked} |")
    return lines


def picture(driven: list[Trajectory], limits: Limits, limit: float, fs: float) -> str:
    """σ and the true error of a trajectory that was stopped before it passed, over time."""
    for one in sorted(driven, key=lambda one: -len(one["error"])):
        at, stop = passed(one, limit), driven_stop(one, limits)
        if at is not None and stop is not None and stop < at:
            break
    else:
        return ""
    time = [fs * number for number in range(len(one["error"]))]
    ends = [0.0, time[-1]]
    blue, red, green = (colour(number) for number in range(3))
    top = max(3 * limit, limits.norm)
    lines = [
        Line(name="largest σ of an atom", x=time, y=one["norm"], colour=blue),
        Line(name="largest true error", x=time, y=one["error"], colour=red),
        Line(name="not to be passed", x=ends, y=[limit] * 2, colour=red, dashed=True),
        Line(name="limit of σ", x=ends, y=[limits.norm] * 2, colour=blue, dashed=True),
        Line(name="the guard stops", x=[fs * stop] * 2, y=[1e-2, top], colour=green),
    ]
    axis = Axis(label="eV/Å", logarithmic=True)
    body = plot("A stopped trajectory", Axis(label="time, fs"), axis, lines)
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    return body.replace("<svg ", head, 1).replace(">", f">{STYLE}", 1) + "\n"


INTRODUCTION = [
    "Written by `python benchmarks/guard.py table` from the JSON files beside this page; config:"
    " `config.yaml`.",
    "",
    "Acetylacetone. The truth is GFN2-xTB throughout: the potential learned from dynamics at 300 K"
    " on it, and it labels every frame of the test. The first draw moves the atoms; a check every"
    " ten steps of 0.5 fs. A trajectory has *passed* when the force on its worst atom is wrong by"
    " more than three times the 95th percentile of that error at 300 K, or when GFN2-xTB has no"
    " answer. Limits were chosen at 300 K on the quiet trajectories with even numbers, for half of"
    " the false stops that are allowed; false stops are counted on those with odd numbers,"
    " everything else on all that were driven, which have chosen nothing. False stops in"
    " the row of the shortcut are those without it, which can only be more.",
]
