"""The page and the plot of the JSON files beside it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scn.judge import FINE, mean_error
from scn.plot import scatter

Entries = Mapping[str, list[dict[str, Any]]]
DRAWN = 2000  # bootstrap samples of systems
PLAIN = {
    "epochs": ("epochs",),
    "CPU s": ("cpu_seconds",),
    "cosine": ("trained", "test", "forces_cosine"),
    "ΔE by turning, meV": ("trained", "rotations", "energy_mae"),
    "ΔF by turning": ("trained", "rotations", "forces_relative"),
    "the same, fine": ("fine", "rotations", "forces_relative"),
    "forces, fine": ("fine", "test", "forces_mae"),
}
"""Columns with a mean and a standard deviation over seeds."""
JUDGED = {
    "energy, meV": ("test", "energy"),
    "forces, meV/Å": ("test", "forces"),
    "energy, unseen": ("ood_ads", "energy"),
    "forces, unseen": ("ood_ads", "forces"),
}
"""Columns that have an interval from the systems as well."""


def describe(labels: Iterable[tuple[str, str]], kept: Path) -> None:
    """Write the table and the plot.

    Args:
        labels: name of each run, and the row it belongs to.
        kept: where the JSON files are.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name, label in labels:
        file = kept / f"{name}.json"
        if file.exists():
            found.setdefault(label, []).append(json.loads(file.read_text()))
    columns = [*JUDGED, *PLAIN]
    lines = ["# SCN as a dial of equivariance", "", *INTRODUCTION, ""]
    lines += [f"| variant | seeds | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for label, entries in found.items():
        cells = [show_judged(entries, *path) for path in JUDGED.values()]
        cells += [show([look(entry, path) for entry in entries]) for path in PLAIN.values()]
        lines.append(f"| {label} | {len(entries)} | {' | '.join(cells)} |")
    example = next(iter(found.values()), [None])[0]
    if example:
        told = f"{example['budget'] / 60:g} minutes on one core of {example['processor']}"
        lines += ["", f"Time of a training: {told}; those called *twice* have twice of it.", ""]
        lines.append(nothing_line(example))
    lines += ["", "![rotation error against accuracy](dial.svg)"]
    (kept / "README.md").write_text("\n".join(lines) + "\n")
    draw(found, kept / "dial.svg")


def nothing_line(entry: Mapping[str, Any]) -> str:
    """Errors of those who see no structure."""
    test, unseen = (entry["knowing_nothing"][part] for part in ("test", "ood_ads"))
    told = {
        "who always says the mean energy of the training set is off by": ("mean", "meV"),
        "who knows the number of atoms of each element alone by": ("elements", "meV"),
        "who says no force by": ("no_force", "meV/Å"),
    }
    parts = [
        f"{words} {test[key]:.0f} {unit} ({unseen[key]:.0f} unseen)"
        for words, (key, unit) in told.items()
    ]
    return "For comparison: " + ", ".join(parts) + "."


def look(entry: Any, path: tuple[str, ...]) -> float:
    """One figure of a run."""
    for name in path:
        entry = entry[name]
    return float(entry)


def show(values: list[float]) -> str:
    """Three digits of the mean, and two of the standard deviation over seeds."""
    mean = f"{np.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({np.std(values, ddof=1):.2g})"


def show_judged(entries: list[dict[str, Any]], part: str, of: str) -> str:
    """The same, and 95 % of what other systems of the same kind would have given."""
    tables = [entry["trained"][part]["systems"] for entry in entries]
    names = list(tables[0])
    rows = np.mean([[table[name] for name in names] for table in tables], axis=0)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(names), size=(DRAWN, len(names)))
    low, high = np.percentile([mean_error(rows[some], of) for some in drawn], [2.5, 97.5])
    values = [look(entry, ("trained", part, f"{of}_mae")) for entry in entries]
    return f"{show(values)} [{low:.3g}, {high:.3g}]"


def draw(found: Entries, target: Path) -> None:
    """Force error against rotation error with fine points, both axes logarithmic."""
    paths = (("fine", "rotations", "forces_relative"), ("fine", "test", "forces_mae"))
    points = [
        (label, *(look(entry, path) for path in paths))
        for label, entries in found.items()
        for entry in entries
    ]
    if points:
        axes = "rotation error of forces, relative", "force MAE, meV/Å, free atoms"
        target.write_text(scatter(points, *axes))  # type: ignore[arg-type]


INTRODUCTION = [
    "Written by `python benchmarks/scn.py table` from the JSON files beside this page, one for each"
    " run; variants: `variants.yaml`; data: `slabs` (GFN1-xTB, made by `scn_slabs.py`).",
    "",
    "Every run of a table row has the same CPU time on one thread, start and compilation not"
    " counted; *CPU s* is what it took with them. Errors are mean absolute ones, of adsorption"
    " energies and of forces on free atoms: mean over seeds, (standard deviation over seeds),"
    " [95 % from a bootstrap over systems]. **Only 18 systems judge, and 15 of *unseen***, an"
    " adsorbate that was not learned from: differences within the brackets are none. *Turning*:"
    " what changes when a structure is turned at random, of forces on free atoms relative to their"
    f" size. *Fine*: the same weights asked with `samples: {FINE['samples']}, rings:"
    f" {FINE['rings']}`, so that the points of read-out and grid do not hide what the messages do;"
    " the plot shows these. `scn_…`, `schnet` and `mace` have forces that are gradients; the others"
    " direct ones. *twice*: with twice the time. *rate*: with another learning rate.",
]
