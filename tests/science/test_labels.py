"""What the labelers say of hydrogen transfers, beside what is known of them."""

import csv
import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from scipy.optimize import minimize

from surefoot.label.labeler import Labeler
from surefoot.label.pyscf import Pyscf
from surefoot.label.xtb import Xtb
from surefoot.units import KCAL_PER_MOL

DATA = os.environ.get("SUREFOOT_DATA")
GFN2, SPIN_POLARIZED = Xtb(method="GFN2-xTB"), Xtb(method="spGFN2-xTB")


def methyl(bond: float) -> Atoms:
    turns = 2 * np.pi / 3 * np.arange(3)
    hydrogens = bond * np.stack([np.cos(turns), np.sin(turns), np.zeros(3)], 1)
    return Atoms("CH3", [np.zeros(3), *hydrogens])


def methane(bond: float) -> Atoms:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return Atoms("CH4", [np.zeros(3), *(bond * corners)])


def saddle(halfway: float, bond: float, angle: float) -> Atoms:
    """CH3···H···CH3, staggered: C–H on the way and beside it in Å, angle between them in rad."""
    turns = 2 * np.pi / 3 * np.arange(3)
    across = bond * np.sin(angle) * np.stack([np.cos(turns), np.sin(turns), np.zeros(3)], 1)
    away = halfway - bond * np.cos(angle)
    across[:, 2] = away
    half = np.array([[0, 0, halfway], *across])
    return Atoms("HCH3CH3", [np.zeros(3), *half, *(-half)])


def lowest(labeler: Labeler, build: Callable[..., Atoms], start: list[float], spin: int) -> float:
    """Lowest energy of a family of structures; its saddle where the family has its symmetry."""

    def energy(shape: np.ndarray) -> float:
        return labeler.label(build(*shape), 0, spin).energy

    found = minimize(energy, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-5})
    assert found.success
    return float(found.fun)


@pytest.mark.parametrize(("labeler", "expected"), [(GFN2, -0.8), (SPIN_POLARIZED, 3.5)])
def test_methyl_takes_a_hydrogen_from_methane_too_easily(labeler: Xtb, expected: float) -> None:
    # Coupled cluster says 18.1 kcal/mol.
    apart = lowest(labeler, methyl, [1.08], 2) + lowest(labeler, methane, [1.09], 1)
    top = lowest(labeler, saddle, [1.32, 1.09, 1.83], 2)
    assert (top - apart) / KCAL_PER_MOL == pytest.approx(expected, abs=0.2)


@pytest.mark.slow
def test_density_functional_theory_is_near_coupled_cluster() -> None:
    # 15.6 at its own saddle with the same basis; these geometries are near it.
    shapes = (saddle(1.345, 1.091, 1.83), 2), (methyl(1.092), 2), (methane(1.1), 1)
    labels = [Pyscf().label(atoms, 0, spin) for atoms, spin in shapes]
    top, *apart = (one.energy for one in labels)
    assert (top - sum(apart)) / KCAL_PER_MOL == pytest.approx(15.6, abs=0.3)
    assert np.abs(labels[0].forces).max() < 0.3


def errors(labeler: Labeler) -> np.ndarray:
    """Errors of the barriers of class 4 of BH9 that the data hold, kcal/mol."""
    folder = Path(str(DATA)) / "barriers"
    packed = (folder / "gscdb_shared_species.extxyz.gz").read_bytes()
    text = io.StringIO(gzip.decompress(packed).decode())
    species = {atoms.info["name"]: atoms for atoms in ase.io.read(text, ":", format="extxyz")}
    rows = csv.DictReader((folder / "gscdb_shared_reactions.csv").read_text().splitlines())
    energies: dict[str, float] = {}
    found = []
    for row in rows:
        if "BH9_04_" not in row["stoichiometry"]:
            continue
        barrier = 0.0
        for term in row["stoichiometry"].split():
            count, name = term.split("*")
            if name not in energies:
                info = species[name].info
                state = int(info["charge"]), int(info["spin_multiplicity"])
                energies[name] = labeler.label(species[name], *state).energy
            barrier += int(count) * energies[name]
        found.append(barrier / KCAL_PER_MOL - float(row["ref_kcal_per_mol"]))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="SUREFOOT_DATA does not name the data sets")
def test_tight_binding_is_no_truth_about_hydrogen_transfers() -> None:
    # Over all 180 barriers of the set the mean absolute errors are 17.9 and 16.0.
    plain, polarized = errors(GFN2), errors(SPIN_POLARIZED)
    assert len(plain) == len(polarized) == 130
    assert np.abs(plain).mean() == pytest.approx(17.9, abs=0.5)
    assert np.abs(polarized).mean() == pytest.approx(16.0, abs=0.5)
    assert plain.mean() == pytest.approx(-np.abs(plain).mean(), abs=0.1)
