"""Splines of curves: how near, how smooth, and their derivatives."""

import itertools
import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from surefoot.blocks import splines as module
from surefoot.blocks.native import plain_only
from surefoot.blocks.splines import LOWEST, interpolate, place_knots, tabulate

CUTOFF = 5.0
RATES = torch.linspace(0.5, 4.0, 19, dtype=torch.float64)  # more outputs than a vector holds


def waves(lengths: Tensor) -> Tensor:
    return torch.sin(lengths.unsqueeze(-1) * RATES) / lengths.unsqueeze(-1)


def spread(count: int) -> Tensor:
    return torch.linspace(LOWEST, CUTOFF, count, dtype=torch.float64)


@pytest.mark.parametrize("form", [nullcontext, plain_only])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-10), (torch.float32, 1e-6)])
def test_values_and_slopes(form, dtype, tolerance) -> None:
    table = place_knots(waves, CUTOFF, 128).to(dtype)
    for curve in (waves, lambda r: module._slope(waves(r.requires_grad_()), r)):
        lengths = spread(997)
        expected = curve(lengths).detach()
        if curve is waves:
            with form():
                found = interpolate(lengths.to(dtype), table, CUTOFF)
        else:
            inputs = lengths.detach().to(dtype).requires_grad_()
            with form():
                found = module._slope(interpolate(inputs, table, CUTOFF), inputs)
            tolerance *= 100
        assert found.dtype == dtype
        assert float((found.detach() - expected).abs().max()) < tolerance * expected.abs().max()


def test_the_error_is_of_sixth_order() -> None:
    errors = []
    for knots in (33, 65, 129):
        found = interpolate(spread(2001), place_knots(waves, CUTOFF, knots), CUTOFF)
        errors.append(float((found - waves(spread(2001))).abs().max()))
    orders = [math.log2(one / other) for one, other in itertools.pairwise(errors)]
    assert min(orders) > 5.5


def test_curvature_is_continuous_at_the_knots() -> None:
    table = place_knots(waves, CUTOFF, 9)
    knots = spread(9)[1:-1]
    sides = []
    for shift in (-1e-9, 1e-9):
        lengths = (knots + shift).requires_grad_()
        slope = module._slope(interpolate(lengths, table, CUTOFF), lengths)
        sides.append(module._slope(slope, lengths).detach())
    torch.testing.assert_close(*sides, rtol=1e-6, atol=1e-6)


def test_derivatives_to_second_order() -> None:
    table = place_knots(waves, CUTOFF, 9)
    lengths = torch.tensor([0.1, 0.9, 2.33, 4.7], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda r: interpolate(r, table, CUTOFF), lengths)
    assert gradgradcheck(lambda r: interpolate(r, table, CUTOFF), lengths)


def test_members_equal_a_loop() -> None:
    tables = [place_knots(lambda r, f=f: f * waves(r), CUTOFF, 17) for f in (1.0, -2.0, 0.5)]
    lengths = spread(11)
    together = interpolate(lengths.expand(3, -1), torch.stack(tables), CUTOFF)
    for one, table in zip(together, tables, strict=True):
        assert torch.equal(one, interpolate(lengths, table, CUTOFF))


def test_shapes_that_do_not_fit_are_refused() -> None:
    """Never read past the end of anything."""
    index, table = torch.zeros(4, dtype=torch.int64), torch.zeros(6, 19)
    with pytest.raises(ValueError, match="19 outputs"):
        module._run("spline_out", index, torch.zeros(4, 5), table)
    with pytest.raises(ValueError, match="19 outputs"):
        module._run("spline_in", index, torch.zeros(3, 19), table)


def test_as_many_knots_as_it_takes() -> None:
    """Members get as many as the one that bends most; what bends too much is refused."""
    sharp = partial(waves_of, 12.0)
    tables = tabulate([waves, sharp], CUTOFF)
    assert tables.shape[0] == 2
    assert tables.shape[1] > tabulate([waves], CUTOFF).shape[1]
    found = interpolate(spread(2001), tables[1], CUTOFF)
    assert float((found - sharp(spread(2001))).abs().max()) < 1e-7
    with pytest.raises(ValueError, match="bends too much"):
        tabulate([partial(waves_of, 1e5)], CUTOFF)


def waves_of(rate: float, lengths: Tensor) -> Tensor:
    return torch.sin(rate * lengths.unsqueeze(-1)) * torch.ones_like(RATES)
