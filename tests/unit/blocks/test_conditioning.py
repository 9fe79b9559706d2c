"""The table of states, and what each atom begins from."""

import pytest
import torch
from ase import Atoms

from surefoot.blocks.conditioning import (
    States,
    UnknownState,
    embed,
    find_states,
    init_conditioning,
)
from surefoot.blocks.dense import init_table, lookup
from surefoot.data.convert import to_graph
from surefoot.graph import Geometry, Graph, collate, find_kinds

STATES = States(((-1, 1), (0, 0), (0, 3)))
SPECIES = {1: 0, 8: 1}


def graph_of(*states: tuple[int | None, int | None]) -> Graph:
    """Waters and a lone oxygen in these states."""
    water = Atoms("OH2", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    structures = [water, Atoms("O"), water]
    return collate(
        [
            to_graph(structures[number % 3], 2.0, charge, spin)
            for number, (charge, spin) in enumerate(states)
        ]
    )


def geometry_of(graph: Graph, states: States | None) -> Geometry:
    return Geometry(
        graph=graph,
        kinds=find_kinds(torch.tensor([SPECIES[int(number)] for number in graph.numbers])),
        vectors=torch.zeros((graph.edge_index.shape[1], 3), dtype=torch.float64),
        lengths=torch.zeros(graph.pair_edges.shape[1], dtype=torch.float64),
        state=None if states is None else states.index(graph)[graph.graph_index],
    )


def tables(generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "embedding": init_table(generator, 2, 5),
        "conditioning": init_conditioning(generator, 3, 2, 5),
    }


MIXED = ((0, 3), (-1, 1), (None, None), (0, 3))


def test_position_of_each_state() -> None:
    graph = graph_of(*MIXED, (1, 2), (0, 1))
    assert STATES.index(graph).tolist() == [2, 0, 1, 2, -1, -1]


def test_table_holds_each_state_once_in_order() -> None:
    assert find_states([graph_of(*MIXED), graph_of((0, 3))]) == STATES
    assert find_states([graph_of((None, 2))]).pairs == ((0, 2),)


def test_without_states_only_the_element_counts(generator) -> None:
    geometry = geometry_of(graph_of(*MIXED), None)
    weights = {"embedding": tables(generator)["embedding"]}
    assert torch.equal(embed(weights, geometry), lookup(weights["embedding"], geometry.species))


def test_row_of_the_element_plus_row_of_the_state(generator) -> None:
    geometry = geometry_of(graph_of(*MIXED), STATES)
    weights = tables(generator)
    found = embed(weights, geometry)
    expected = []
    for (charge, spin), numbers in zip(MIXED, ([8, 1, 1], [8], [8, 1, 1], [8, 1, 1]), strict=True):
        state = STATES.pairs.index((charge or 0, spin or 0))
        for number in numbers:
            row = SPECIES[number]
            expected.append(weights["embedding"][row] + weights["conditioning"][state, row])
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=0)


def test_members_equal_a_loop(generator) -> None:
    geometry = geometry_of(graph_of(*MIXED), STATES)
    members = [tables(generator) for _ in range(3)]
    stacked = {name: torch.stack([member[name] for member in members]) for name in members[0]}
    together = embed(stacked, geometry)
    assert together.shape == (3, 10, 5)
    for index, member in enumerate(members):
        assert torch.equal(together[index], embed(member, geometry))


def test_rows_that_no_data_teach_keep_their_values(generator) -> None:
    weights = {name: value.requires_grad_() for name, value in tables(generator).items()}
    embed(weights, geometry_of(graph_of((0, 3), (-1, 1)), STATES)).sum().backward()
    slope = weights["conditioning"].grad
    assert slope is not None
    taught = slope.abs().sum(-1) > 0
    assert taught.tolist() == [[False, True], [False, False], [True, True]]


def test_fresh_rows_are_small_and_differ(generator) -> None:
    table = init_conditioning(generator, 4, 20, 30)
    assert table.shape == (4, 20, 30)
    assert table.dtype == torch.float64
    assert 0.09 < table.std() < 0.11
    assert table.flatten().unique().numel() == table.numel()


def test_an_unknown_position_is_never_a_row(generator) -> None:
    """Not even by wrapping around: `require` is there for the sentence, this for the number."""
    with pytest.raises((IndexError, RuntimeError)):
        embed(tables(generator), geometry_of(graph_of((5, 1)), STATES))


@pytest.mark.parametrize("state", [(-1, 1), (0, None), (None, None), (0, 3), (None, 3)])
def test_known_states(state) -> None:
    STATES.require(*state, "a.xyz, frame 3")


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ((1, 2), "charge 1 and spin 2 is not"),
        ((-1, None), "charge -1 and a spin that is not stated is not"),
        ((None, 1), r"charge 0 \(not stated\) and spin 1 is not"),
        ((0, 0), "charge 0 and spin 0 is not"),  # a stated 0 is no multiplicity, nor unstated
    ],
)
def test_unknown_states_are_named_with_the_known_ones(state, named) -> None:
    known = r"charge -1 and spin 1, charge 0 and spin not stated, charge 0 and spin 3\); state"
    with pytest.raises(UnknownState, match=rf"^a\.xyz, frame 3: {named} .*\({known}"):
        STATES.require(*state, "a.xyz, frame 3")
