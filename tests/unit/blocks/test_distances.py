"""Maps of distances: known values, limits, slopes, and the radii they take."""

import ase.data
import numpy as np
import pytest
import torch

from surefoot.blocks.distances import COVALENT_RADII, TRANSFORMS, agnesi, bond_lengths, soft
from surefoot.data.convert import to_graph
from surefoot.graph import Geometry, edge_vectors, find_kinds

BOND = torch.tensor([1.42], dtype=torch.float64)


def column(*lengths: float) -> torch.Tensor:
    return torch.tensor(lengths, dtype=torch.float64)


def test_radii_are_those_of_ase() -> None:
    assert np.allclose(COVALENT_RADII, ase.data.covalent_radii[1:119], atol=1e-12)


def test_agnesi() -> None:
    # At r = half the sum of the radii s = 1, and x = 1 / (1 + a / 2).
    assert agnesi(column(0.71), BOND).item() == pytest.approx(1 / (1 + 1.0805 / 2), rel=1e-14)
    assert agnesi(column(1e-4), BOND).item() == pytest.approx(1.0, abs=1e-9)
    far = agnesi(column(1e6), BOND).item()
    assert far == pytest.approx(1 / (1 + 1.0805 * (1e6 / 0.71) ** 0.9183), rel=1e-9)


def test_soft() -> None:
    low, high = 0.75 * 1.42, 4 / 3 * 1.42
    middle = 0.5 * (low + high)
    found = soft(column(middle), BOND).item()
    assert found == pytest.approx(low + 0.5 * (middle - low), rel=1e-14)
    assert soft(column(9.0), BOND).item() == pytest.approx(9.0, rel=1e-12)
    assert soft(column(0.05), BOND).item() == pytest.approx(low, abs=1e-3)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_slopes(name: str, rng: np.random.Generator) -> None:
    lengths = torch.tensor(rng.uniform(0.6, 5.0, size=(2, 6)), requires_grad=True)
    bonds = torch.tensor(rng.uniform(0.6, 3.0, size=6))
    assert torch.autograd.gradcheck(lambda r: TRANSFORMS[name](r, bonds), lengths)
    assert torch.autograd.gradgradcheck(lambda r: TRANSFORMS[name](r, bonds), lengths)


def test_bonds_of_pairs(small_structures) -> None:
    graph = to_graph(small_structures["ethanol"], 3.0)
    vectors = edge_vectors(graph)
    lengths = torch.linalg.vector_norm(vectors[graph.pair_edges[0]], dim=-1)
    geometry = Geometry(
        graph=graph, kinds=find_kinds(graph.numbers), vectors=vectors, lengths=lengths
    )
    bonds = bond_lengths(geometry)
    assert bonds.dtype == torch.float64
    expected = [
        sum(ase.data.covalent_radii[int(graph.numbers[atom])] for atom in graph.edge_index[:, edge])
        for edge in graph.pair_edges[0]
    ]
    assert np.allclose(bonds, expected, rtol=1e-14)
