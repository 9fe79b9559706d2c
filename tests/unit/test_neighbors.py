import itertools
import resource

import numpy as np
import pytest
import torch

from surefoot import neighbors
from surefoot.blocks.reference import Baseline
from surefoot.graph import build_graph
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.neighbors import CoincidentAtoms, find_neighbors
from surefoot.potential import Potential

CUTOFF = 4.0
SKEWED = np.array([[3.1, 0.0, 0.0], [1.4, 2.9, 0.0], [-0.9, 0.7, 3.3]])
NOWHERE = np.zeros((3, 3))


def lattice_sum(positions, cell, pbc, cutoff) -> set[tuple[int, ...]]:
    """Every pair by brute force, over more images than the cutoff can reach."""
    reach = [0, 0, 0]
    if pbc.any():
        # The height of a cell over a face is 1 / |row of its inverse|, here among periodic axes.
        inverse = np.linalg.pinv(cell[pbc])
        spread = np.ptp(positions, axis=0)
        for column, axis in enumerate(np.flatnonzero(pbc)):
            distance = cutoff + np.linalg.norm(spread)
            reach[axis] = int(np.ceil(distance * np.linalg.norm(inverse[:, column])))
    found = set()
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        vectors = positions[None, :] + np.array(shift) @ cell - positions[:, None]
        distances = np.linalg.norm(vectors, axis=-1)
        for i, j in np.argwhere(distances < cutoff):
            if i != j or any(shift):
                found.add((int(i), int(j), *shift))
    return found


def as_set(edge_index, edge_shift) -> set[tuple[int, ...]]:
    rows = np.concatenate([edge_index, edge_shift.T]).T
    assert len(np.unique(rows, axis=0)) == len(rows)
    return {tuple(row) for row in rows.tolist()}


@pytest.mark.parametrize("pbc", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("outside", [False, True])
def test_pairs_of_a_skewed_cell_below_the_cutoff(pbc, outside, rng) -> None:
    """All eight choices of periodic axes; with `outside` atoms stand cells away from the cell."""
    positions = rng.uniform(0, 1, (5, 3)) @ SKEWED
    if outside:
        positions += rng.integers(-2, 3, (5, 3)) @ SKEWED
    periodic = np.array(pbc)
    found = find_neighbors(positions, SKEWED, periodic, CUTOFF)
    assert as_set(*found) == lattice_sum(positions, SKEWED, periodic, CUTOFF)


def test_pairs_of_molecules(rng) -> None:
    positions = rng.uniform(-5, 5, (40, 3))
    found = find_neighbors(positions, NOWHERE, np.zeros(3, bool), CUTOFF)
    pairs = as_set(*found)
    assert pairs == lattice_sum(positions, NOWHERE, np.zeros(3, bool), CUTOFF)
    assert 40 < len(pairs) < 40 * 39


@pytest.mark.parametrize("cutoff", [1.0, 12.0])
def test_cutoffs_much_smaller_and_larger_than_the_cell(cutoff, rng) -> None:
    positions = rng.uniform(0, 1, (3, 3)) @ SKEWED
    periodic = np.ones(3, bool)
    found = find_neighbors(positions, SKEWED, periodic, cutoff)
    assert as_set(*found) == lattice_sum(positions, SKEWED, periodic, cutoff)


def test_vectors_of_axes_that_are_not_periodic_do_not_matter(rng) -> None:
    """A slab's third vector may be zero, short, or parallel to the surface."""
    positions = rng.uniform(0, 1, (6, 3)) @ np.diag([3.0, 3.0, 9.0])
    periodic = np.array([True, True, False])
    expected = None
    for third in ([0.0, 0.0, 0.0], [0.0, 0.0, 0.1], [3.0, 3.0, 0.0], [5.0, 0.0, 20.0]):
        cell = np.array([[3.0, 0.0, 0.0], [1.0, 3.0, 0.0], third])
        pairs = as_set(*find_neighbors(positions, cell, periodic, CUTOFF))
        expected = expected or pairs
        assert pairs == expected
    assert expected == lattice_sum(positions, cell, periodic, CUTOFF)


def test_one_atom_sees_its_images() -> None:
    cell = np.diag([2.0, 2.0, 2.0])
    edge_index, edge_shift = find_neighbors(np.zeros((1, 3)), cell, np.ones(3, bool), 2.1)
    assert np.array_equal(edge_index, np.zeros((2, 6)))
    lengths = np.linalg.norm(edge_shift @ cell, axis=1)
    assert np.allclose(lengths, 2.0)


def test_second_half_is_the_first_reversed(rng) -> None:
    """Images of an atom itself included: each image and its opposite stand in different halves."""
    positions = rng.uniform(0, 1, (5, 3)) @ SKEWED
    edge_index, edge_shift = find_neighbors(positions, SKEWED, np.ones(3, bool), CUTOFF)
    pairs = edge_index.shape[1] // 2
    assert edge_index.shape[1] == 2 * pairs
    assert (edge_index[0] == edge_index[1]).any()
    assert np.array_equal(edge_index[:, :pairs], edge_index[::-1, pairs:])
    assert np.array_equal(edge_shift[:pairs], -edge_shift[pairs:])


def test_same_order_in_every_call(rng) -> None:
    positions = rng.uniform(0, 20, (300, 3))
    cell, periodic = 20 * np.eye(3), np.ones(3, bool)
    first = find_neighbors(positions, cell, periodic, CUTOFF)
    second = find_neighbors(positions, cell, periodic, CUTOFF)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_no_atoms_no_edges() -> None:
    edge_index, edge_shift = find_neighbors(np.zeros((0, 3)), NOWHERE, np.zeros(3, bool), CUTOFF)
    assert edge_index.shape == (2, 0)
    assert edge_shift.shape == (0, 3)


def test_input_is_not_changed(rng) -> None:
    positions = rng.uniform(0, 30, (4, 3))
    cell, periodic = np.diag([3.0, 3.0, 0.0]), np.array([True, True, False])
    copies = positions.copy(), cell.copy(), periodic.copy()
    find_neighbors(positions, cell, periodic, CUTOFF)
    for now, before in zip((positions, cell, periodic), copies, strict=True):
        assert np.array_equal(now, before)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_cutoff_must_be_positive(cutoff) -> None:
    with pytest.raises(ValueError, match=r"cutoff is .* must be positive"):
        find_neighbors(np.zeros((1, 3)), NOWHERE, np.zeros(3, bool), cutoff)


def test_periodic_axis_needs_a_vector() -> None:
    with pytest.raises(ValueError, match="axis 2 is periodic but its cell vector is zero"):
        find_neighbors(np.zeros((1, 3)), np.diag([3.0, 3.0, 0.0]), np.ones(3, bool), CUTOFF)


def test_periodic_vectors_must_be_independent() -> None:
    cell = np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [3.0, 3.0, 0.0]])
    with pytest.raises(ValueError, match="linearly dependent"):
        find_neighbors(np.zeros((1, 3)), cell, np.ones(3, bool), CUTOFF)


@pytest.mark.slow
@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, True), (True, True, False)])
def test_a_hundred_thousand_atoms(pbc, rng) -> None:
    """Neighbours, graph, energy and forces of one large structure: anything N² would not end."""
    count = 100_000
    edge = (count / 0.1) ** (1 / 3)
    positions = rng.uniform(0, edge, (count, 3))
    periodic = np.array(pbc)
    edge_index, edge_shift = find_neighbors(positions, edge * np.eye(3), periodic, 4.0)
    graph = build_graph(
        positions=torch.tensor(positions),
        numbers=torch.ones(count, dtype=torch.int64),
        cell=edge * torch.eye(3, dtype=torch.float64),
        pbc=torch.tensor(periodic),
        edge_index=torch.tensor(edge_index),
        edge_shift=torch.tensor(edge_shift),
    )
    density = 0.1 * 4 / 3 * np.pi * 4.0**3
    assert edge_index.shape[1] == pytest.approx(count * density, rel=0.1)
    if not all(pbc):
        return
    potential = Potential(
        model=Schnet(name="schnet", cutoff=4.0, features=8, interactions=1, gaussians=8),
        head=Scalar(),
        baseline=Baseline(elements=(1,), energies=(-1.0,), scale=1.0, neighbors=26.8),
    )
    output = potential(potential.init(0, torch.float32), graph)
    assert output.forces is not None
    assert bool(output.forces.mean.isfinite().all())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 1024**2  # KiB


def test_atoms_at_one_place_are_named(rng) -> None:
    """A distance of zero would make every number of the structure not a number."""
    positions = rng.uniform(0, 9, (6, 3))
    positions[4] = positions[1]
    with pytest.raises(CoincidentAtoms, match=r"^atoms 1 and 4 are 0\.000 Å apart; correct"):
        find_neighbors(positions, NOWHERE, np.zeros(3, bool), CUTOFF)
    positions[4] += SKEWED[1] - SKEWED[2]  # at one place in the crystal, but not in the file
    with pytest.raises(CoincidentAtoms, match="atoms 1 and 4 are"):
        find_neighbors(positions, SKEWED, np.ones(3, bool), CUTOFF)
    positions[4, 0] += 1e-4
    index, _ = find_neighbors(positions, SKEWED, np.ones(3, bool), CUTOFF)
    assert index.shape[1] > 0


@pytest.mark.parametrize("pbc", [(False, False, False), (True, False, False), (True, False, True)])
@pytest.mark.parametrize("far", [60.0, 900.0, 1e6, 9e8])
def test_an_atom_that_has_flown_off_costs_nothing(pbc, far: float, rng) -> None:
    """The engine would look through all that is empty, and its counts overflow: SIGFPE."""
    periodic = np.array(pbc)
    positions = rng.uniform(0, 1, (5, 3)) @ SKEWED
    near = find_neighbors(positions, SKEWED, periodic, CUTOFF)
    # Along what is normal to all periodic vectors, so that no image of it is near.
    normal = np.linalg.svd(SKEWED[periodic])[2][-1] if periodic.any() else np.ones(3)
    found = find_neighbors(np.vstack([positions, far * normal]), SKEWED, periodic, CUTOFF)
    both = (found[0] < 5).all(0)
    assert as_set(found[0][:, both], found[1][both]) == as_set(*near)
    others = as_set(found[0][:, ~both], found[1][~both])
    assert all(one[0] == one[1] == 5 for one in others)  # its own images


@pytest.mark.parametrize(
    ("positions", "cell", "words"),
    [
        (np.array([[0, 0, 0], [0, np.nan, 0]]), 5 * np.eye(3), "position of atom 1 is not finite"),
        (np.array([[0, 0, 0], [0, 1e12, 0]]), 5 * np.eye(3), r"beyond 1e\+09 Å"),
        (np.zeros((1, 3)), np.diag([5, np.inf, 5]), "cell vector is not finite"),
        (np.zeros((3, 3)), 1e-3 * np.eye(3), "its 3 atoms would have neighbours without end"),
        (np.zeros((1, 3)), np.diag([5.0, 1e-8, 5.0]), "neighbours without end"),
    ],
)
def test_what_would_crash_or_never_end_is_refused(positions, cell, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        find_neighbors(positions, cell, np.ones(3, bool), CUTOFF)


@pytest.mark.parametrize("pbc", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("outside", [False, True])
def test_trees_find_what_the_engine_finds(pbc, outside, rng) -> None:
    positions = rng.uniform(0, 1, (5, 3)) @ SKEWED
    if outside:
        positions += rng.integers(-2, 3, (5, 3)) @ SKEWED
    periodic = np.array(pbc)
    box, _ = neighbors._complete_cell(SKEWED, periodic)
    engine, tree = (
        search(positions, box, periodic, CUTOFF)
        for search in (neighbors._search_cells, neighbors._search_tree)
    )
    both = []
    for first, second, shifts, lengths in (engine, tree):
        pairs = np.stack([first, second]).astype(int), shifts.astype(int)
        half = as_set(*pairs) | as_set(pairs[0][::-1], -pairs[1])
        both.append((half, np.sort(lengths)))
        assert len(half) == 2 * len(first)
    assert both[0][0] == both[1][0] == lattice_sum(positions, SKEWED, periodic, CUTOFF)
    np.testing.assert_allclose(both[0][1], both[1][1], rtol=1e-12)


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        (np.diag([1e4, 1e4, 7.0]), (True, True, True)),
        (np.diag([1e4, 1e4, 0.0]), (True, True, False)),
        (np.array([[5.0, 0, 0], [0, 6, 3e8], [0, 0, 7]]), (True, True, False)),
        (np.diag([9e8, 5.0, 7.0]), (True, True, True)),
    ],
)
def test_flat_cells_do_not_end_the_interpreter(cell, pbc, rng) -> None:
    """The engine divides by the number of its cells along the short axis, of which none is left."""
    periodic, positions = np.array(pbc), rng.uniform(0, 3, (4, 3))
    found = find_neighbors(positions, cell, periodic, CUTOFF)
    # Images along the long axes are far away.
    short = periodic & (np.linalg.norm(cell, axis=1) < 100)
    assert as_set(*found) == lattice_sum(positions, cell, short, CUTOFF)
