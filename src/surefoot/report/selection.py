"""Which structures a page shows: those of the largest errors, and those of the largest σ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from surefoot.data.convert import Sample
from surefoot.data.read import Frame
from surefoot.posteriors.judge import Judged, compare_structures, find_common_errors
from surefoot.report.page import paragraph, table
from surefoot.report.structures import MILLI, MOST_ATOMS, Shown, fits, show_forces, viewer

EACH = 5
"""Structures of the largest error of a set, and as many of the largest uncertainty."""
SCORES = {
    "force σ, rms of atoms": ("force σ, rms of atoms (meV/Å)", MILLI),
    "energy σ per atom": ("energy σ per atom (meV)", MILLI),
    "ood": ("ood", 1.0),
}
"""What tells the uncertainty of a structure: the first that there is, and how it is shown."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """A structure, why it is shown, and its figures.

    Attributes:
        shown: for the view.
        row: of the table.
    """

    shown: Shown
    row: dict[str, str]


def score_structures(
    judged: Judged, samples: Sequence[Sample]
) -> tuple[str, Float[np.ndarray, " structures"]] | None:
    """The uncertainty of each structure with its name and unit, NaN of those without labels."""
    kind = find_common_errors(samples, samples)
    if kind is None:
        return None
    held = compare_structures(judged, samples, kind)
    for name, (told, factor) in SCORES.items():
        if name in held.scores:
            values = np.full(len(samples), np.nan)
            values[held.counted] = factor * held.scores[name]
            return told, values
    return None


def select(
    part: str, frames: Sequence[Frame], samples: Sequence[Sample], judged: Judged
) -> list[Selected]:
    """The structures of the largest errors, then those of the largest uncertainties.

    Args:
        part: name of the set.
        frames: with atoms and labels.
        samples: the same as graphs.
        judged: predictions beside labels.
    """
    kind = find_common_errors(samples, samples)
    if kind is None:
        return []
    held = compare_structures(judged, samples, kind)
    errors = np.full(len(samples), np.nan)
    errors[held.counted] = held.errors
    orders = {"largest error": errors}
    scored = score_structures(judged, samples)
    if scored is not None:
        orders["most uncertain"] = scored[1]
    unit = "forces RMSE (meV/Å)" if kind == "forces" else "energy error (meV/atom)"
    found = []
    for why, values in orders.items():
        order = np.argsort(np.where(np.isfinite(values), -values, np.inf), kind="stable")
        few = [int(i) for i in order if np.isfinite(values[i]) and fits(frames[i].atoms)][:EACH]
        for rank, number in enumerate(few, 1):
            row = {"structure": frames[number].place, "why": f"{part}, {why} {rank}"}
            row |= {"formula": frames[number].atoms.get_chemical_formula()}
            row[unit] = f"{errors[number]:.2f}"
            if scored is not None:
                row[scored[0]] = f"{scored[1][number]:.2f}"
            found.append(Selected(shown=_show(frames[number], judged, number, row), row=row))
    return found


def _show(frame: Frame, judged: Judged, number: int, row: dict[str, str]) -> Shown:
    start = int(judged.sizes[:number].sum())
    atoms = slice(start, start + int(judged.sizes[number]))
    prediction, mean, std = judged.prediction, None, None
    if prediction.forces is not None:
        mean = prediction.forces.mean.double().numpy()[atoms]
        if prediction.forces.total is not None:
            variance = prediction.forces.total.diagonal(dim1=-2, dim2=-1).sum(-1)
            std = variance.sqrt().double().numpy()[atoms]
    far = prediction.ood_atoms
    figures = [f"{name} {value}" for name, value in row.items() if name not in ("why", "structure")]
    return show_forces(
        f"{row['why']}: {frame.place}",
        "; ".join(figures) + ".",
        frame.atoms,
        predicted=mean,
        std=std,
        label=None if mean is None else frame.forces,
        ood=None if far is None else far.double().numpy()[atoms],
    )


def show_selected(chosen: Sequence[Selected]) -> list[str]:
    """The view of these structures and their table; nothing without structures."""
    if not chosen:
        return []
    columns = dict.fromkeys(column for one in chosen for column in one.row)
    rows = [{column: one.row.get(column, "–") for column in columns} for one in chosen]
    return [
        viewer([one.shown for one in chosen]),
        table(rows, "Structures of the view"),
        paragraph(f"Structures of more than {MOST_ATOMS} atoms are not shown."),
    ]
