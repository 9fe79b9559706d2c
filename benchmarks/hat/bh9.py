"""Hydrogen transfers of BH9 (class 4) with every labeler and every kept potential."""

import csv
import gzip
import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from hat.peptides import ensemble_of
from hat.work import Piece, Setting, sha256
from surefoot.blocks.conditioning import UnknownState
from surefoot.blocks.reference import UnknownElement
from surefoot.calculator import predict_atoms
from surefoot.label.labeler import LabelingFailed
from surefoot.label.xtb import Xtb
from surefoot.posteriors.predictor import load_predictor
from surefoot.units import KCAL_PER_MOL

CLASS = "BH9_04_"
METHODS = ("GFN1-xTB", "GFN2-xTB", "spGFN1-xTB", "spGFN2-xTB")
ROOT = Path(__file__).parents[1]

Energy = Callable[[Atoms, int, int], float]


def list_pieces(_: Setting) -> Iterator[tuple[str, Piece]]:
    for method in METHODS:
        yield f"bh9_{method}", partial(judge_labeler, method=method)
    yield "bh9_potentials", judge_potentials


def read_reactions(setting: Setting) -> tuple[dict[str, Atoms], list[dict[str, Any]]]:
    """Species by name, and barriers with what they are made of."""
    folder = Path(os.environ["SUREFOOT_DATA"]) / "barriers"
    packed = (folder / "gscdb_shared_species.extxyz.gz").read_bytes()
    text = io.StringIO(gzip.decompress(packed).decode())
    species = {atoms.info["name"]: atoms for atoms in ase.io.read(text, ":", format="extxyz")}
    rows = csv.DictReader((folder / "gscdb_shared_reactions.csv").read_text().splitlines())
    chosen = [
        {
            "terms": [
                (int(count), name)
                for count, name in (one.split("*") for one in row["stoichiometry"].split())
            ],
            "reference": float(row["ref_kcal_per_mol"]),
        }
        for row in rows
        if CLASS in row["stoichiometry"]
    ]
    return species, chosen[: setting.scale["bh9"]["reactions"]]


def judge(setting: Setting, energy: Energy) -> dict[str, Any]:
    """Errors of barriers by pair of elements, kcal/mol; why some have none.

    Args:
        setting: which reactions.
        energy: of a structure, its charge and its multiplicity, eV.
    """
    species, reactions = read_reactions(setting)
    energies: dict[str, float | str] = {}
    errors: list[float] = []
    pairs: list[str] = []
    why: dict[str, int] = {}
    negative = 0
    for reaction in reactions:
        for _, name in reaction["terms"]:
            if name not in energies:
                energies[name] = _ask(energy, species[name])
        values = [energies[name] for _, name in reaction["terms"]]
        failed = [value for value in values if isinstance(value, str)]
        if failed:
            why[failed[0]] = why.get(failed[0], 0) + 1
            continue
        found = sum(
            count * float(value)
            for (count, _), value in zip(reaction["terms"], values, strict=True)
        )
        errors.append(found / KCAL_PER_MOL - reaction["reference"])
        negative += found < 0
        pairs.append(find_pair(species[next(name for n, name in reaction["terms"] if n > 0)]))
    wrong = np.array(errors)
    return {
        "reactions": len(reactions),
        "judged": len(errors),
        "negative": int(negative),
        "mae": _round(np.abs(wrong)),
        "mean": _round(wrong),
        "by_pair": {
            pair: [_round(wrong[own]), _round(np.abs(wrong[own])), int(own.sum())]
            for pair in sorted(set(pairs))
            for own in [np.array(pairs) == pair]
        },
        "without": why,
    }


def _ask(energy: Energy, atoms: Atoms) -> float | str:
    """The energy, or why there is none, in few words."""
    try:
        return energy(atoms, int(atoms.info["charge"]), int(atoms.info["spin_multiplicity"]))
    except UnknownElement:
        return "an element that it does not know"
    except UnknownState:
        return "a charge or spin that it does not know"
    except LabelingFailed:
        return "the labeler failed"


def _round(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 3) if len(values) else None


def find_pair(saddle: Atoms) -> str:
    """Elements of the two atoms next to the hydrogen with the most even distances to both."""
    heavy = np.flatnonzero(saddle.numbers > 1)
    found = []
    for hydrogen in np.flatnonzero(saddle.numbers == 1):
        lengths = np.linalg.norm(saddle.positions[heavy] - saddle.positions[hydrogen], axis=1)
        first, second = np.argsort(lengths)[:2]
        found.append((lengths[second], sorted(saddle.symbols[heavy[[first, second]]])))
    return "–".join(min(found)[1])


def judge_labeler(setting: Setting, method: str) -> dict[str, Any]:
    labeler = Xtb(method=method)
    found = judge(setting, lambda atoms, *state: labeler.label(atoms, *state).energy)
    return {"method": method, **found}


def judge_potentials(setting: Setting) -> dict[str, Any]:
    """Each potential that is kept, and the ensemble where it is there."""
    kept = [
        *sorted((ROOT / "accuracy").glob("*.safetensors")),
        ROOT / "demo" / "potential.safetensors",
    ][: setting.scale["bh9"]["potentials"]]
    named = {file.stem if file.stem != "potential" else "demo": file for file in kept}
    if ensemble_of(setting).exists():
        named["ensemble"] = ensemble_of(setting)
    return {"potentials": {name: _judge_potential(setting, file) for name, file in named.items()}}


def _judge_potential(setting: Setting, file: Path) -> dict[str, Any]:
    predictor = load_predictor(file)

    def energy(atoms: Atoms, charge: int, spin: int) -> float:
        asked = Atoms(atoms.numbers, atoms.positions, info={"charge": charge, "spin": spin})
        return float(predict_atoms(predictor, [asked])[0]["energy"])

    return {"sha256": sha256(file), **judge(setting, energy)}
