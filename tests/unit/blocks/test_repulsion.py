"""The screened nuclear repulsion against a loop over pairs."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor

from surefoot.blocks.repulsion import Repulsion
from surefoot.data.convert import to_graph
from surefoot.graph import Geometry, collate, edge_vectors, find_kinds

ELEMENTS = (1, 6, 26)
RADII = (0.31, 0.76, 1.32)
CUTOFF = 3.0
REPULSION = Repulsion(radii=RADII, power=5, strength=1.3, prefactor=0.47, exponent=0.26)


def clusters() -> list[Atoms]:
    """Close pairs, pairs beyond their radii, an atom alone, and an atom that sees its images."""
    return [
        Atoms("FeCH", positions=[[0, 0, 0], [1.1, 0.4, 0], [0.2, 0.3, 1.2]]),
        Atoms("H", positions=[[0.3, 0.1, 0]]),
        Atoms("HC", positions=[[0, 0, 0], [1.2, 0.4, 0]]),
        Atoms("Fe", positions=[[0, 0, 0]], cell=[1.7, 2.4, 9.0], pbc=True),
    ]


def geometry_of(structures: list[Atoms], members: int | None = None) -> Geometry:
    graph = collate([to_graph(atoms, CUTOFF) for atoms in structures])
    vectors = edge_vectors(graph)
    lengths = torch.linalg.vector_norm(vectors[graph.pair_edges[0]], dim=-1)
    if members:
        vectors, lengths = vectors.expand(members, -1, -1), lengths.expand(members, -1)
    return Geometry(
        graph=graph,
        kinds=find_kinds(torch.tensor([ELEMENTS.index(int(number)) for number in graph.numbers])),
        vectors=vectors,
        lengths=lengths.clone().requires_grad_(),
    )


def pair(distance: float, first: int, second: int, repulsion: Repulsion) -> float:
    """V(r) of two atoms written out: 14.3996 Z Z' / r · φ(r / a) · f(r / (R + R'))."""
    sum_of_radii = sum(repulsion.radii[ELEMENTS.index(number)] for number in (first, second))
    x, p = distance / sum_of_radii, repulsion.power
    if x >= 1:
        return 0.0
    size = first**repulsion.exponent + second**repulsion.exponent
    a = repulsion.prefactor * 0.529 / size
    phi = (
        0.1818 * math.exp(-3.2 * distance / a)
        + 0.5099 * math.exp(-0.9423 * distance / a)
        + 0.2802 * math.exp(-0.4028 * distance / a)
        + 0.02817 * math.exp(-0.2016 * distance / a)
    )
    envelope = (
        1
        - (p + 1) * (p + 2) / 2 * x**p
        + p * (p + 2) * x ** (p + 1)
        - p * (p + 1) / 2 * x ** (p + 2)
    )
    return repulsion.strength * 14.3996 * first * second / distance * phi * envelope


def loop(atoms: Atoms, repulsion: Repulsion) -> float:
    """Half the sum over all ordered pairs, images included."""
    cells = [(0, 0, 0)]
    if atoms.pbc.any():
        cells = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
    total = 0.0
    for i in atoms:
        for j in atoms:
            for cell in cells:
                distance = float(
                    np.linalg.norm(j.position + np.array(cell) @ atoms.cell.array - i.position)
                )
                if distance > 0:
                    total += 0.5 * pair(distance, i.number, j.number, repulsion)
    return total


@pytest.mark.parametrize("repulsion", [REPULSION, Repulsion(radii=RADII)])
def test_loop_over_pairs(repulsion) -> None:
    structures = clusters()
    found = repulsion.energy(geometry_of(structures))
    expected = [loop(atoms, repulsion) for atoms in structures]
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert expected[1] == expected[2] == 0  # alone, and beyond the radii
    assert min(expected[0], expected[3]) > 0.01


def energy_at(distances: list[float]) -> Tensor:
    """C and Fe this far apart; one graph for each distance."""
    structures = [Atoms("CFe", positions=[[0, 0, 0], [0, 0, r]]) for r in distances]
    return REPULSION.energy(geometry_of(structures)).detach()


@pytest.mark.parametrize("distance", [0.2, 0.8, 1.5, 2.07, 2.09])
def test_slope_is_that_of_finite_differences(distance) -> None:
    geometry = geometry_of([Atoms("CFe", positions=[[0, 0, 0], [0, 0, distance]])])
    energy = REPULSION.energy(geometry)
    (slope,) = torch.autograd.grad(energy.sum(), geometry.lengths, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), geometry.lengths)
    step = 1e-4
    low, here, high = energy_at([distance - step, distance, distance + step]).tolist()
    assert slope.item() == pytest.approx((high - low) / (2 * step), rel=1e-5, abs=1e-6)
    assert bend.item() == pytest.approx((high - 2 * here + low) / step**2, rel=1e-3, abs=1e-2)


def test_nothing_is_left_at_the_sum_of_the_radii() -> None:
    reach = RADII[1] + RADII[2]
    energies = energy_at([reach - 1e-3, reach, reach + 1e-9, reach + 0.5])
    assert 0 < energies[0] < 1e-4
    assert not energies[1:].any()


def test_energy_falls_with_the_distance() -> None:
    energies = energy_at(np.linspace(0.05, 2.0, 60).tolist())
    assert (energies.diff() < 0).all()
    assert energies[0] > 1e3


def test_members_share_values_and_keep_their_gradients() -> None:
    alone, together = geometry_of(clusters()), geometry_of(clusters(), members=3)
    energy, energies = REPULSION.energy(alone), REPULSION.energy(together)
    assert torch.equal(energies, energy.expand(3, -1))
    factors = torch.tensor([[1.0], [-2.0], [0.0]], dtype=torch.float64)
    (slope,) = torch.autograd.grad(energy.sum(), alone.lengths)
    (slopes,) = torch.autograd.grad((factors * energies).sum(), together.lengths)
    torch.testing.assert_close(slopes, factors * slope, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("members", [None, 2])
def test_no_pairs(members) -> None:
    energy = REPULSION.energy(geometry_of([Atoms("H"), Atoms("C")], members))
    assert energy.shape == ((2,) if members is None else (2, 2))
    assert not energy.any()


def test_single_precision_lengths_are_summed_in_double() -> None:
    geometry = geometry_of(clusters())
    rough = Geometry(
        graph=geometry.graph,
        kinds=geometry.kinds,
        vectors=geometry.vectors.float(),
        lengths=geometry.lengths.float(),
    )
    energy = REPULSION.energy(rough)
    assert energy.dtype == torch.float64
    torch.testing.assert_close(energy, REPULSION.energy(geometry), rtol=1e-5, atol=1e-6)
