"""Structures in a notebook: the view of the reports, in a frame of its own."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from surefoot.calculator import SurefootCalculator
from surefoot.data.read import PREDICTED
from surefoot.report.page import document, paragraph
from surefoot.report.structures import MOST_ATOMS, Shown, fits, show_forces, viewer

MOST = 200  # structures in one view
HEIGHT = 680  # pixels


@dataclass(frozen=True, kw_only=True)
class View:
    """What a notebook shows as a view that turns; nothing is fetched for it.

    Attributes:
        structures: of the view.
        note: what is missing; empty where nothing is.
    """

    structures: Sequence[Shown]
    note: str = ""

    def _repr_html_(self) -> str:
        """A frame, so that several of them in one notebook do not meet."""
        parts = [viewer(self.structures), *([paragraph(self.note)] if self.note else [])]
        page = html.escape(document("Structures", parts), quote=True)
        return (
            f'<iframe srcdoc="{page}" title="Structures in 3D" '
            f'style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
        )

    def __repr__(self) -> str:
        """Where no HTML is shown."""
        return f"<{len(self.structures)} structures, to be shown in a notebook>"


def show_structures(
    images: Atoms | Sequence[Atoms], results: Sequence[Mapping[str, Any]] | None = None
) -> View:
    """A view of structures, coloured by uncertainty, with forces as arrows.

    Args:
        images: one or several. What they carry is shown: what their calculator has found already,
            which are labels where it is not ours, and what `surefoot predict` writes.
        results: predictions, as `predict_atoms` gives them; what images carry are labels then.
    Raises:
        ValueError: if there are not as many results as images, or no structure can be shown.
    """
    images = [images] if isinstance(images, Atoms) else list(images)
    if results is not None and len(results) != len(images):
        raise ValueError(f"{len(results)} results for {len(images)} structures; give one for each.")
    fitting = [number for number, atoms in enumerate(images) if fits(atoms)]
    if not fitting:
        raise ValueError(f"there is no structure of at most {MOST_ATOMS} atoms to show.")
    shown = [
        _show(number, images[number], None if results is None else results[number])
        for number in fitting[:MOST]
    ]
    left = len(images) - len(shown)
    note = f"{left} more structures are not shown: large ones, or beyond the first {MOST}."
    return View(structures=shown, note=note if left else "")


def _show(number: int, atoms: Atoms, results: Mapping[str, Any] | None) -> Shown:
    carried = {**dict(getattr(atoms.calc, "results", None) or {}), **atoms.info, **atoms.arrays}
    label = carried.get("REF_forces")
    if results is None:
        predicted = PREDICTED in atoms.info or isinstance(atoms.calc, SurefootCalculator)
        results = carried if predicted else {"energy": carried.get("energy")}
    if label is None and results is not carried:
        label = carried.get("forces")
    told = [
        f"{name} {value:.4g}" + (f" ± {error:.2g}" if error is not None else "") + unit
        for name, unit in (("energy", " eV"), ("ood", ""))
        if isinstance(value := results.get(name), float | np.floating)
        for error in [results.get(f"{name}_uncertainty")]
    ]
    formula = atoms.get_chemical_formula()
    return show_forces(
        f"{number}: {formula}",
        "; ".join([formula, *told]) + ".",
        atoms,
        predicted=results.get("forces"),
        std=results.get("forces_uncertainty_norm"),
        label=label,
        ood=results.get("ood_atoms"),
    )
