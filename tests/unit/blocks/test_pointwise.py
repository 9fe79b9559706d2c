"""Networks over the sphere: against plain loops over points, and under rotation."""

from itertools import pairwise

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import silu

from surefoot.blocks.angular import wigner
from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.pointwise import gated, init_gated, init_grid, on_grid
from surefoot.blocks.sphere import gauss

CHANNELS, ATOMS = 3, 4


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def noisy(weights: Weights, generator: torch.Generator) -> Weights:
    return {name: w + 0.3 * random(generator, *w.shape) for name, w in weights.items()}


def whole(matrix: Tensor, lmax: int) -> Tensor:
    return torch.block_diag(*(wigner(matrix, degree) for degree in range(lmax + 1)))


@pytest.mark.parametrize("bands", [1, 2])
@pytest.mark.parametrize("lmax", [1, 3])
def test_on_grid_against_its_three_layers(lmax, bands, generator) -> None:
    """Values of both functions, and without the highest degree, side by side at each point."""
    weights = noisy(init_grid(generator, CHANNELS, bands), generator)
    grid = gauss(lmax + 2, 2 * lmax + 4)
    tables = grid.synthesis(lmax), grid.analysis(lmax)
    x, messages = (random(generator, ATOMS, (lmax + 1) ** 2, CHANNELS) for _ in range(2))
    seen = []
    for function in (x, messages):
        for band in range(bands):
            kept = (lmax + 1 - band) ** 2
            seen.append(tables[0][:, :kept] @ function[:, :kept])
    values = torch.cat(seen, dim=-1)
    for layer in ("first", "second"):
        values = silu(values @ weights[f"{layer}.weight"] + weights[f"{layer}.bias"])
    values = values @ weights["third.weight"] + weights["third.bias"]
    found = on_grid(x, messages, weights, *tables, bands)
    torch.testing.assert_close(found, tables[1] @ values, rtol=0, atol=1e-13)


def test_on_grid_turns_as_well_as_the_grid_resolves(generator) -> None:
    lmax = 2
    weights = init_grid(generator, CHANNELS, 1)
    x, messages = (random(generator, ATOMS, (lmax + 1) ** 2, CHANNELS) for _ in range(2))
    turn = whole(torch.tensor(Rotation.from_rotvec([0.5, -1.0, 0.3]).as_matrix()), lmax)
    errors = []
    for rings in (3, 5, 9, 16):
        grid = gauss(rings, 2 * rings)
        tables = grid.synthesis(lmax), grid.analysis(lmax)
        here = on_grid(x, messages, weights, *tables, 1)
        there = on_grid(turn @ x, turn @ messages, weights, *tables, 1)
        errors.append(float((there - turn @ here).abs().max() / here.abs().max()))
    assert errors[0] > 1e-3
    assert all(after < before / 3 for before, after in pairwise(errors))


@pytest.mark.parametrize("lmax", [0, 1, 4])
def test_gates_turn_exactly(lmax, generator) -> None:
    weights = noisy(init_gated(generator, CHANNELS, lmax), generator)
    x, messages = (random(generator, ATOMS, (lmax + 1) ** 2, CHANNELS) for _ in range(2))
    turn = whole(-torch.tensor(Rotation.from_rotvec([0.5, -1.0, 0.3]).as_matrix()), lmax)
    here = gated(x, messages, weights, lmax)
    there = gated(turn @ x, turn @ messages, weights, lmax)
    torch.testing.assert_close(there, turn @ here, rtol=0, atol=1e-13)
    assert here[:, 0].abs().max() > 1e-2


def test_members_equal_a_loop(generator) -> None:
    grid = gauss(4, 8)
    tables = grid.synthesis(2), grid.analysis(2)
    x, messages = (random(generator, 2, ATOMS, 9, CHANNELS) for _ in range(2))
    grids = [init_grid(generator, CHANNELS, 2) for _ in range(2)]
    gates = [init_gated(generator, CHANNELS, 2) for _ in range(2)]
    together = on_grid(x, messages, stack(grids), *tables, 2), gated(x, messages, stack(gates), 2)
    for index in range(2):
        one = on_grid(x[index], messages[index], grids[index], *tables, 2)
        other = gated(x[index], messages[index], gates[index], 2)
        torch.testing.assert_close(together[0][index], one, rtol=0, atol=1e-13)
        torch.testing.assert_close(together[1][index], other, rtol=0, atol=1e-13)
