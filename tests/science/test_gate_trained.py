"""The gate of a trained potential, on bonds that are pressed together."""

import gzip
import io
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from surefoot.calculator import predict_atoms
from surefoot.posteriors.predictor import Predictor, load_predictor

DEMO = Path(__file__).parents[2] / "benchmarks" / "demo"
SHARES = np.linspace(1.0, 0.6, 9)  # of the length of the bond


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_predictor(DEMO / "potential.safetensors")


def far_side(atoms: Atoms, first: int, second: int) -> np.ndarray | None:
    """Atoms that go with the second when the bond is pressed; None of a bond in a ring."""
    one, other = neighbor_list("ij", atoms, natural_cutoffs(atoms, 1.1))
    stays = ~np.isin(one * len(atoms) + other, (first * len(atoms) + second,
                                                second * len(atoms) + first))  # fmt: skip
    bonds = coo_matrix((np.ones(stays.sum()), (one[stays], other[stays])), (len(atoms), len(atoms)))
    _, part = connected_components(bonds, directed=False)
    return None if part[first] == part[second] else part == part[second]


def pressed(atoms: Atoms) -> dict[str, list[Atoms]]:
    """Images of one bond of each pair of elements, from its length to 0.6 of it."""
    found: dict[str, list[Atoms]] = {}
    for first, second in zip(*neighbor_list("ij", atoms, natural_cutoffs(atoms, 1.1)), strict=True):
        pair = "".join(sorted(atoms.symbols[[first, second]]))
        side = far_side(atoms, first, second)
        if pair in found or side is None:
            continue
        images = [atoms.copy() for _ in SHARES]
        for image, share in zip(images, SHARES, strict=True):
            image.positions[side] -= (1 - share) * (
                atoms.positions[second] - atoms.positions[first]
            )
        found[pair] = images
    return found


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("number", [0, 7])
def test_ood_rises_along_a_compression_of_every_kind_of_bond(
    predictor: Predictor, number: int
) -> None:
    """From 0.9 of its length on at each step; beyond the edge before 0.7, far beyond at 0.6."""
    text = gzip.decompress((DEMO / "test.xyz.gz").read_bytes()).decode()
    atoms = ase.io.read(io.StringIO(text), number, format="extxyz")
    paths = pressed(atoms)
    assert len(paths) >= 4
    for pair, images in paths.items():
        ood = np.array([one["ood"] for one in predict_atoms(predictor, images)])
        assert ood[0] < 1.0, pair
        assert (np.diff(ood[SHARES <= 0.901]) > 0).all(), pair
        assert ood[SHARES < 0.701].min() > 1.5, pair
        assert ood[-1] > 4.0, pair
