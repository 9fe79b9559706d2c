"""Lists with a skin hold the edges of fresh ones, always, and are made anew only when needed."""

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from surefoot.data.convert import to_graph
from surefoot.graph import Graph, edge_vectors
from surefoot.motion.skin import NeighborLists, NoNeighbors, _two_largest
from surefoot.motion.systems import Configuration, join_systems, to_atoms

CUTOFF = 4.0


def edges(graph: Graph) -> set[tuple[int, int, int, int, int]]:
    """Receivers, senders and shifts, whatever their order."""
    return {tuple(row) for row in torch.cat([graph.edge_index, graph.edge_shift.T]).T.tolist()}


def require_whole(graph: Graph) -> None:
    """All segments of a batch fit each other."""
    receiver, sender = graph.edge_index
    count = len(graph.numbers)
    assert torch.equal(receiver, receiver.sort().values)
    assert torch.equal(graph.receiver_offsets.diff(), torch.bincount(receiver, minlength=count))
    assert torch.equal(sender[graph.sender_order], sender.sort().values)
    assert torch.equal(graph.sender_offsets.diff(), torch.bincount(sender, minlength=count))
    first, second = graph.pair_edges
    assert torch.equal(receiver[first], sender[second])
    assert torch.equal(graph.edge_shift[first], -graph.edge_shift[second])
    assert torch.equal(graph.pair_index[first], torch.arange(len(first)))
    assert torch.equal(graph.pair_index[second], torch.arange(len(first)))


@pytest.mark.parametrize("skin", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("stretch", [0.0, 0.004])
def test_no_pair_is_ever_missing(small_structures, rng, skin: float, stretch: float) -> None:
    """Random walks, each with a hop now and then, in cells that breathe and shear."""
    names = ("ethanol", "skewed_cell", "slab", "atom", "far_atoms")
    structures = [small_structures[name] for name in names]
    systems, now = join_systems(structures)
    lists = NeighborLists(systems, CUTOFF, skin)
    for step in range(16):
        graph = lists.graph(now)
        require_whole(graph)
        assert len(edge_vectors(graph)) == 0 or edge_vectors(graph).norm(dim=-1).max() < CUTOFF
        offsets = systems.atoms.offsets.tolist()
        for number, atoms in enumerate(structures):
            of = slice(offsets[number], offsets[number + 1])
            fresh = to_graph(to_atoms(atoms, now.positions[of], now.cell[number]), CUTOFF)
            mine = (graph.edge_index[0] >= of.start) & (graph.edge_index[0] < of.stop)
            moved = {
                (a - of.start, b - of.start, *s)
                for a, b, *s in torch.cat(
                    [graph.edge_index[:, mine], graph.edge_shift[mine].T]
                ).T.tolist()
            }
            assert moved == edges(fresh), (step, number)
        positions = now.positions + 0.03 * torch.tensor(rng.normal(size=now.positions.shape))
        if step % 5 == 3:
            positions[rng.integers(len(positions))] += 1.3
        strain = torch.eye(3) + stretch * torch.tensor(rng.normal(size=(3, 3)))
        full = systems.pbc.all(-1)
        cell = torch.where(full[:, None, None], now.cell @ strain, now.cell)
        carried = torch.where(full[systems.owner, None], positions @ strain, positions)
        now = Configuration(positions=carried, cell=cell)
    most = 16 * systems.count
    assert lists.builds == most if skin == 0 else lists.builds < most
    if skin == 1.0 and stretch == 0:
        assert lists.builds < most / 2


def test_a_list_is_kept_until_the_two_fastest_could_meet(small_structures) -> None:
    systems, start = join_systems([small_structures["ethanol"]])
    lists = NeighborLists(systems, CUTOFF, skin=1.0)
    lists.graph(start)
    step = torch.zeros_like(start.positions)
    step[0, 0], step[1, 0] = 0.6, -0.39
    lists.graph(Configuration(positions=start.positions + step, cell=start.cell))
    assert lists.builds == 1
    step[1, 0] = -0.41
    lists.graph(Configuration(positions=start.positions + step, cell=start.cell))
    assert lists.builds == 2


def test_a_shrinking_cell_brings_new_neighbours(small_structures) -> None:
    """No atom moves in fractions of the cell, and yet pairs come within the cutoff."""
    crystal = small_structures["skewed_cell"]
    systems, now = join_systems([crystal])
    lists = NeighborLists(systems, CUTOFF)
    for _ in range(14):
        now = Configuration(positions=0.98 * now.positions, cell=0.98 * now.cell)
        fresh = to_graph(to_atoms(crystal, now.positions, now.cell[0]), CUTOFF)
        assert edges(lists.graph(now)) == edges(fresh)
    assert 1 < lists.builds < 7


def test_restored_lists_give_the_same_order_of_edges(small_structures, rng) -> None:
    """So a restart adds in the same order, to the bit."""
    structures = [small_structures["skewed_cell"], small_structures["water_cluster"]]
    systems, now = join_systems(structures)
    lists = NeighborLists(systems, CUTOFF)
    for _ in range(5):
        lists.graph(now)
        drift = torch.tensor(rng.normal(size=now.positions.shape)) * 0.05
        now = Configuration(positions=now.positions + drift, cell=now.cell)
    again = NeighborLists(systems, CUTOFF)
    again.restore(lists.reference)
    one, other = lists.graph(now), again.graph(now)
    assert all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in Graph.__annotations__
    )


def test_systems_come_and_go(small_structures) -> None:
    structures = [small_structures[n] for n in ("ethanol", "slab", "skewed_cell")]
    systems, start = join_systems(structures)
    lists = NeighborLists(systems, CUTOFF)
    lists.graph(start)
    keep = torch.tensor([True, False, True])
    fewer = Configuration(positions=start.positions[keep[systems.owner]], cell=start.cell[keep])
    lists.select(keep)
    assert edges(lists.graph(fewer)) == edges(
        NeighborLists(systems.select(keep), CUTOFF).graph(fewer)
    )
    assert lists.builds == 3


def test_positions_that_are_not_finite_are_named(small_structures) -> None:
    systems, start = join_systems([small_structures["ethanol"]])
    lists = NeighborLists(systems, CUTOFF)
    lists.graph(start)
    start.positions[2, 1] = torch.nan
    with pytest.raises(NoNeighbors, match="structure 0 has a position that is not finite"):
        lists.graph(start)


def test_a_collapse_names_the_system_and_spares_the_others(small_structures) -> None:
    structures = [small_structures["ethanol"], molecule("H2O"), molecule("H2")]
    systems, start = join_systems(structures)
    lists = NeighborLists(systems, CUTOFF)
    lists.graph(start)
    start.positions[10] = start.positions[9] + torch.tensor([0.0, 0.0, 0.0])
    start.positions[9:11] += 2.0
    with pytest.raises(NoNeighbors, match="structure 1 has collapsed: atoms 0 and 1") as found:
        lists.graph(start)
    assert found.value.number == 1
    keep = torch.tensor([True, False, True])
    lists.select(keep)
    left = Configuration(positions=start.positions[keep[systems.owner]], cell=start.cell[keep])
    fresh = NeighborLists(systems.select(keep), CUTOFF)
    assert edges(lists.graph(left)) == edges(fresh.graph(left))


def test_two_largest_counts_equal_ones_twice() -> None:
    systems, _ = join_systems([molecule("H2O"), molecule("H2"), Atoms("H", [[0, 0, 0]])])
    values = torch.tensor([1.0, 2.0, 2.0, 0.0, 0.5, 0.7], dtype=torch.float64)
    assert _two_largest(values, systems).tolist() == [4.0, 0.5, 0.7]
