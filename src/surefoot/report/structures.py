"""Structures in a page: a view that turns, with forces as arrows and colours by uncertainty.

The view is `viewer.js`, one file without dependencies, see decision 0025. Without JavaScript the
table of the structures remains.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from jaxtyping import Float
from scipy.spatial import KDTree

STOPS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""From low to high: rising in lightness, so that it reads in grey too (viridis)."""
BOND = 1.25  # of the sum of two covalent radii
LONGEST_ARROW = 2.0  # Å, of the largest force of a structure
MOST_ATOMS = 1500  # of a structure that is shown
MILLI = 1000.0
NAMES = {
    "std": ("force σ", "meV/Å"),
    "error": ("force error", "meV/Å"),
    "ood": ("ood", ""),
    "predicted": ("predicted force", "eV/Å"),
    "label": ("label force", "eV/Å"),
    "residual": ("label − prediction", "eV/Å"),
}
STYLE = """
#viewer canvas { width: 100%; height: min(420px, 70vh); touch-action: none; cursor: grab;
  border: 1px solid var(--line); border-radius: 4px; background: var(--card) }
#viewer .controls { display: flex; flex-wrap: wrap; gap: 0.4em 1em; margin: 0.4em 0 }
#viewer select, #viewer button { font: inherit; max-width: 100%; min-height: 2em }
#viewer label { max-width: 100% } #viewer [data-part="status"] { min-height: 1.5em }
#viewer .ramp { display: inline-block; width: 8em; height: 0.8em; vertical-align: middle;
  margin: 0 0.4em; print-color-adjust: exact; background: linear-gradient(to right, RAMP) }
@media print { #viewer .controls { display: none } }
""".replace("RAMP", ", ".join(STOPS))


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One structure of the view.

    Attributes:
        name: what chooses it.
        note: one sentence with its figures.
        atoms: the structure.
        values: by a name of `NAMES`, one number per atom, in the unit there.
        vectors: by a name of `NAMES`, one vector per atom in eV/Å.
    """

    name: str
    note: str
    atoms: Atoms
    values: Mapping[str, Float[np.ndarray, " atoms"]] = field(default_factory=dict)
    vectors: Mapping[str, Float[np.ndarray, "atoms 3"]] = field(default_factory=dict)


def show_forces(
    name: str,
    note: str,
    atoms: Atoms,
    *,
    predicted: Float[np.ndarray, "atoms 3"] | None = None,
    std: Float[np.ndarray, " atoms"] | None = None,
    label: Float[np.ndarray, "atoms 3"] | None = None,
    ood: Float[np.ndarray, " atoms"] | None = None,
) -> Shown:
    """A structure with what is known of its forces.

    Args:
        name: what chooses it.
        note: one sentence with its figures.
        atoms: the structure.
        predicted: forces, eV/Å.
        std: of the force vector of each atom, eV/Å.
        label: forces, eV/Å.
        ood: distance of each atom to the training data.
    """
    values, vectors = {}, {}
    if std is not None:
        values["std"] = MILLI * std
    if predicted is not None and label is not None:
        values["error"] = MILLI * np.linalg.norm(label - predicted, axis=1)
        vectors["residual"] = label - predicted
    if label is not None:
        vectors["label"] = label
    if predicted is not None:
        vectors["predicted"] = predicted
    if ood is not None:
        values["ood"] = ood
    return Shown(name=name, note=note, atoms=atoms, values=values, vectors=vectors)


def fits(atoms: Atoms) -> bool:
    """Whether a structure is small enough for the view."""
    return len(atoms) <= MOST_ATOMS


def viewer(structures: Sequence[Shown]) -> str:
    """The view with its controls, its data and its program; nothing without structures."""
    if not structures:
        return ""
    symbols = sorted({symbol for one in structures for symbol in one.atoms.symbols})
    data = {
        "structures": [_pack(one) for one in structures],
        "elements": {symbol: _element(symbol) for symbol in symbols},
        "stops": STOPS,
        "names": {name: told for name, (told, _) in NAMES.items()},
        "units": {name: unit for name, (_, unit) in NAMES.items()},
    }
    values = list(dict.fromkeys(name for one in structures for name in one.values))
    vectors = list(dict.fromkeys(name for one in structures for name in one.vectors))
    program = resources.files("surefoot.report").joinpath("viewer.js").read_text("utf-8")
    return (
        f'<style>{STYLE}</style><section id="viewer" aria-label="Structures in 3D">'
        '<div class="controls">'
        + _select("structure", "Structure", {str(n): s.name for n, s in enumerate(structures)})
        + _select("colour", "Colour", _options(values, "element"), first=1)
        + _select("arrows", "Arrows", _options(vectors, "none"), first=1)
        + '<span><button type="button" data-part="closer" aria-label="Zoom in">+</button> '
        '<button type="button" data-part="farther" aria-label="Zoom out">−</button> '
        '<button type="button" data-part="reset">Reset</button></span></div>'
        '<canvas data-part="canvas" tabindex="0" role="img" aria-label="Structure"></canvas>'
        '<p data-part="legend" hidden><span data-end="low"></span><span class="ramp"></span>'
        '<span data-end="high"></span></p>'
        '<p class="note" data-part="note"></p><p data-part="status" aria-live="polite"></p>'
        '<p class="note">Drag or arrow keys turn it, + and − zoom; a click, or the keys n and p, '
        "tells the numbers of an atom; r starts again.</p>"
        "<noscript><p>The view needs JavaScript; the tables below do not.</p></noscript></section>"
        f'<script type="application/json" id="structures">{_embed(data)}</script>'
        f"<script>{program}</script>"
    )


def _options(names: Sequence[str], without: str) -> dict[str, str]:
    return {"": without} | {name: NAMES[name][0] for name in names}


def _select(part: str, label: str, options: Mapping[str, str], first: int = 0) -> str:
    chosen = min(first, len(options) - 1)
    held = "".join(
        f'<option value="{html.escape(value)}"{" selected" if number == chosen else ""}>'
        f"{html.escape(text)}</option>"
        for number, (value, text) in enumerate(options.items())
    )
    return f'<label>{label} <select data-part="{part}">{held}</select></label>'


def _embed(data: Any) -> str:
    """JSON that can stand inside of a script element: nothing in it ends the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _element(symbol: str) -> dict[str, Any]:
    number = Atoms(symbol).numbers[0]
    colour = [round(255 * share) for share in jmol_colors[number]]
    return {"colour": colour, "radius": round(float(covalent_radii[number]), 3)}


def _pack(one: Shown) -> dict[str, Any]:
    atoms = one.atoms
    lengths = [np.linalg.norm(v, axis=1).max(initial=0.0) for v in one.vectors.values()]
    longest = max(lengths, default=0.0)
    periodic = bool(atoms.pbc.any()) and bool(atoms.cell.rank == 3)
    return {
        "name": one.name,
        "note": one.note,
        "formula": atoms.get_chemical_formula(),
        "symbols": list(atoms.symbols),
        "positions": np.round(atoms.positions, 3).tolist(),
        "cell": np.round(atoms.cell.array, 3).tolist() if periodic else None,
        "bonds": find_bonds(atoms),
        "values": {name: [_short(v) for v in values] for name, values in one.values.items()},
        "vectors": {name: np.round(v, 4).tolist() for name, v in one.vectors.items()},
        "arrow": LONGEST_ARROW / longest if longest > 0 else 0.0,
    }


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None


def find_bonds(atoms: Atoms) -> list[list[int]]:
    """Pairs of atoms closer than 1.25 times the sum of their covalent radii; no periodic images."""
    radii = covalent_radii[atoms.numbers]
    if len(atoms) < 2:
        return []
    pairs = KDTree(atoms.positions).query_pairs(2 * BOND * radii.max(), output_type="ndarray")
    i, j = pairs.T
    length = np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1)
    return np.sort(pairs[length < BOND * (radii[i] + radii[j])], axis=1).tolist()
