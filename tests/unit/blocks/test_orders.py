"""Networks in the frame of an edge: against plain copies, and what they do under turns."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from surefoot.blocks import orders as blocks_orders
from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.frames import orders, turn_table
from surefoot.blocks.orders import (
    Layout,
    circular,
    init_circular,
    init_dense,
    init_tapped,
    tapped,
)

CHANNELS, HIDDEN, EDGE, EDGES = 3, 5, 4, 7
LAYOUTS = [
    Layout(4, 0),
    Layout(4, 1),
    Layout(4, 1, 4),
    Layout(3, 2, 4),
    Layout(3, 2, 5, 2),
    Layout(3, 3, 7, 2),
    Layout(0, 0, 4, 2),
]


def turns(mmax: int, taps: int, mirrors: int) -> Tensor:
    """The matrices of all orders, (orders, copies, 2, 2)."""
    found = [turn_table(order, taps, mirrors) for order in range(1, mmax + 1)]
    return torch.tensor(found, dtype=torch.float64).reshape(mmax, taps * mirrors, 2, 2)


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def noisy(weights: Weights, generator: torch.Generator) -> Weights:
    """With biases that are not zero."""
    return {name: w + 0.3 * random(generator, *w.shape) for name, w in weights.items()}


def whole_turn(layout: Layout, matrices: Tensor) -> Tensor:
    """What a turn does to all rows, from what it does to the two signs of each order."""
    rows = orders(layout.lmax, layout.mmax)
    whole = torch.zeros((len(rows), len(rows)), dtype=torch.float64)
    for i, (degree, m) in enumerate(rows):
        for j, (other, n) in enumerate(rows):
            if degree == other and abs(m) == abs(n):
                whole[i, j] = 1.0 if m == 0 else matrices[abs(m) - 1, int(m > 0), int(n > 0)]
    return whole


def plain(x: Tensor, gate: Tensor, weights: Weights, layout: Layout) -> Tensor:
    """Copy by copy."""
    matrices = turns(layout.mmax, layout.taps, layout.mirrors)
    total = torch.zeros(())
    for copy in range(layout.copies):
        turn = whole_turn(layout, matrices[:, copy])
        hidden = (turn @ x).flatten(-2) @ weights["inwards.weight"] + weights["inwards.bias"]
        hidden = silu(hidden) * gate
        hidden = silu(hidden @ weights["hidden.weight"] + weights["hidden.bias"])
        found = silu(hidden @ weights["outwards.weight"] + weights["outwards.bias"])
        total = total + turn.mT @ found.unflatten(-1, (layout.rows, CHANNELS))
    return total / layout.copies


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_tapped_against_copies(layout, generator) -> None:
    weights = noisy(init_tapped(generator, layout, CHANNELS, HIDDEN, EDGE), generator)
    x, gate = random(generator, EDGES, layout.rows, 2 * CHANNELS), random(generator, EDGES, HIDDEN)
    found = tapped(x, gate, weights, layout)
    torch.testing.assert_close(found, plain(x, gate, weights, layout), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "layout",
    [Layout(4, 0), Layout(4, 1), Layout(4, 1, 4), Layout(3, 2, 4, 2), Layout(2, 2, 6)],
    ids=str,
)
def test_taps_of_a_network_that_does_nothing(layout, generator, monkeypatch) -> None:
    """Turned, passed on, turned back and averaged, all of it is what it was."""
    monkeypatch.setattr(blocks_orders, "silu", lambda values: values)
    size = layout.rows * CHANNELS
    x = random(generator, EDGES, layout.rows, CHANNELS)
    # The sender's half is passed on, and the receiver's is not looked at.
    chosen = torch.eye(size, dtype=torch.float64).reshape(layout.rows, CHANNELS, size)
    maps = {"inwards": torch.cat([chosen, torch.zeros_like(chosen)], 1).flatten(0, 1),
            "hidden": torch.eye(size, dtype=torch.float64),
            "outwards": torch.eye(size, dtype=torch.float64)}  # fmt: skip
    weights = {f"{name}.weight": matrix for name, matrix in maps.items()}
    weights |= {f"{name}.bias": torch.zeros(size, dtype=torch.float64) for name in maps}
    both = torch.cat([x, random(generator, EDGES, layout.rows, CHANNELS)], dim=-1)
    found = tapped(both, torch.ones((EDGES, size), dtype=torch.float64), weights, layout)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("layout", [Layout(4, 1, 4, 2), Layout(3, 2, 4, 2)], ids=str)
def test_taps_commute_with_their_own_turns_and_mirrors_only(layout, generator) -> None:
    weights = noisy(init_tapped(generator, layout, CHANNELS, HIDDEN, EDGE), generator)
    x, gate = random(generator, EDGES, layout.rows, 2 * CHANNELS), random(generator, EDGES, HIDDEN)
    here = tapped(x, gate, weights, layout)

    def error(matrices: Tensor) -> float:
        turn = whole_turn(layout, matrices)
        there = tapped(turn @ x, gate, weights, layout)
        return float((there - turn @ here).abs().max() / here.abs().max())

    own = turns(layout.mmax, 4, 2)
    assert max(error(own[:, copy]) for copy in range(8)) < 1e-12
    others = turns(layout.mmax, 7, 1)
    assert error(others[:, 1]) > 1e-6


@pytest.mark.parametrize("layout", [Layout(4, 0), Layout(4, 1), Layout(3, 3)], ids=str)
def test_circular_commutes_with_every_turn_and_mirror(layout, generator) -> None:
    weights = noisy(init_circular(generator, layout, CHANNELS, HIDDEN, EDGE), generator)
    x = random(generator, EDGES, layout.rows, 2 * CHANNELS)
    gate = random(generator, EDGES, HIDDEN * (layout.mmax + 1))
    here = circular(x, gate, weights, layout)
    assert here.shape == (EDGES, layout.rows, CHANNELS)
    any_turns = turns(layout.mmax, 13, 2)
    for copy in range(26):
        turn = whole_turn(layout, any_turns[:, copy])
        there = circular(turn @ x, gate, weights, layout)
        torch.testing.assert_close(there, turn @ here, rtol=0, atol=1e-13)


@pytest.mark.parametrize("init", [init_tapped, init_circular])
def test_members_equal_a_loop(init, generator) -> None:
    layout = Layout(3, 2, 4, 2) if init is init_tapped else Layout(3, 2)
    network = tapped if init is init_tapped else circular
    members = [noisy(init(generator, layout, CHANNELS, HIDDEN, EDGE), generator) for _ in range(2)]
    x = random(generator, 2, EDGES, layout.rows, 2 * CHANNELS)
    gate = random(generator, 2, EDGES, members[0]["gate.bias"].shape[0])
    together = network(x, gate, stack(members), layout)
    for index, weights in enumerate(members):
        alone = network(x[index], gate[index], weights, layout)
        torch.testing.assert_close(together[index], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("layout", [Layout(2, 0), Layout(2, 1, 4, 2)], ids=str)
def test_without_edges(layout, generator) -> None:
    weights = init_tapped(generator, layout, CHANNELS, HIDDEN, EDGE)
    empty = torch.zeros((0, layout.rows, 2 * CHANNELS), dtype=torch.float64)
    found = tapped(empty, empty.new_zeros((0, HIDDEN)), weights, layout)
    assert found.shape == (0, layout.rows, CHANNELS)


def test_fresh_weights_keep_the_mean_square(generator) -> None:
    weights = init_dense(generator, 400, 300, gain=2.0)
    x = random(generator, 50, 400) / 2
    assert float((x @ weights["weight"]).square().mean()) == pytest.approx(1.0, rel=0.1)
    assert not weights["bias"].any()
