import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from surefoot.blocks.radial import (
    CUTOFFS,
    Bessel,
    CosineCutoff,
    Gaussians,
    PolynomialCutoff,
    expand,
)

CUTOFF = 5.0
FUNCTIONS = {
    "gaussians": Gaussians(CUTOFF, 7),
    "bessel": Bessel(CUTOFF, 6),
    "cosine": CosineCutoff(CUTOFF),
    "polynomial": PolynomialCutoff(CUTOFF),
    "polynomial, p = 2": PolynomialCutoff(CUTOFF, 2),
    "polynomial, p = 5": PolynomialCutoff(CUTOFF, 5),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def lengths_inside(generator: torch.Generator, count: int = 12) -> torch.Tensor:
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    return 0.05 + (CUTOFF - 0.1) * uniform


def closed_form(name: str, r: torch.Tensor) -> torch.Tensor:
    """The functions written out from their definitions, by plain torch operations."""
    if name == "gaussians":
        spacing = CUTOFF / 6
        centres = torch.arange(7, dtype=r.dtype) * spacing
        return torch.exp(-((r[..., None] - centres) ** 2) / (2 * spacing**2))
    x = r[..., None] / CUTOFF
    if name == "bessel":
        # sin(k r) / r = k ∫_0^1 cos(k r t) dt, which is quick to differentiate four times
        nodes, shares = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(40))
        k = torch.arange(1, 7, dtype=r.dtype) * math.pi / CUTOFF
        waves = torch.cos((0.5 * (nodes + 1)) * (k * r[..., None])[..., None])
        return math.sqrt(2 / CUTOFF) * k * (waves @ (0.5 * shares))
    if name == "cosine":
        return (1 + torch.cos(math.pi * x)) / 2
    if name == "polynomial, p = 2":
        return 1 - 6 * x**2 + 8 * x**3 - 3 * x**4
    if name == "polynomial, p = 5":
        return 1 - 21 * x**5 + 35 * x**6 - 15 * x**7
    return 1 - 28 * x**6 + 48 * x**7 - 21 * x**8


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_orders_zero_to_four(name, generator) -> None:
    """Against autograd through the closed form, differentiated once per order."""
    r = lengths_inside(generator).requires_grad_()
    expected = closed_form(name, r)
    for order in range(5):
        found = FUNCTIONS[name].derivative(r.detach(), order)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-10)
        expected = torch.stack(
            [
                torch.autograd.grad(column.sum(), r, create_graph=True)[0]
                for column in expected.unbind(-1)
            ],
            dim=-1,
        )


@every_function
def test_gradients_of_expand_to_second_order(function, generator) -> None:
    r = lengths_inside(generator, 4).requires_grad_()
    assert gradcheck(lambda x: expand(x, function), r)
    assert gradgradcheck(lambda x: expand(x, function), r)


@pytest.mark.parametrize("name", CUTOFFS)
def test_cutoffs_are_one_at_zero_and_vanish_beyond(name) -> None:
    function = CUTOFFS[name](CUTOFF)
    r = torch.tensor([0.0, CUTOFF, CUTOFF + 1e-9, 2 * CUTOFF], dtype=torch.float64)
    assert function.derivative(r, 0)[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
    for order in (1, 2, 3):
        assert function.derivative(r[1:], order).abs().max() == 0


@pytest.mark.parametrize(("name", "orders"), [("cosine", 1), ("polynomial", 2)])
def test_smooth_at_the_cutoff(name, orders) -> None:
    """All derivatives that are continuous there fall with the distance to the cutoff."""
    function = CUTOFFS[name](CUTOFF)
    for order in range(orders + 1):
        near, nearer = (
            function.derivative(torch.tensor([CUTOFF - gap], dtype=torch.float64), order).abs()
            for gap in (1e-3, 1e-5)
        )
        assert nearer < 2e-2 * near
    jump = function.derivative(torch.tensor([CUTOFF - 1e-9], dtype=torch.float64), orders + 1)
    assert jump.abs() > 1e-3


@every_function
def test_members_share_values_and_keep_their_gradients(function, generator) -> None:
    members, r = 3, lengths_inside(generator, 5)
    shared = r.expand(members, -1).detach().requires_grad_()
    values = expand(shared, function)
    count = values.shape[-1]
    weights = torch.randn((members, 5, count), generator=generator, dtype=torch.float64)
    # A member's own gradient, then the gradient of its square: two orders through the shared view.
    (slope,) = torch.autograd.grad((weights * values).sum(), shared, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), shared)
    for member in range(members):
        alone = r.clone().requires_grad_()
        value = expand(alone, function)
        assert torch.equal(value, values[member])
        (own,) = torch.autograd.grad((weights[member] * value).sum(), alone, create_graph=True)
        (own_second,) = torch.autograd.grad(own.square().sum(), alone)
        torch.testing.assert_close(slope[member], own, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(second[member], own_second, rtol=1e-13, atol=1e-13)


@every_function
@pytest.mark.parametrize("members", [(), (2,)])
def test_no_edges(function, members) -> None:
    r = torch.zeros((*members, 0), dtype=torch.float64, requires_grad=True)
    values = expand(r, function)
    assert values.shape[:-1] == (*members, 0)
    (slope,) = torch.autograd.grad(values.sum(), r)
    assert slope.shape == r.shape


@every_function
def test_precision_is_that_of_the_lengths(function, generator) -> None:
    r = lengths_inside(generator)
    single = expand(r.float(), function)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expand(r, function), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("power", [2, 5, 6, 12])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_float32_is_exact_to_rounding_near_the_cutoff(power, order) -> None:
    """Relative to values that vanish there: a sum of the terms is wrong by 4e-6 everywhere."""
    function = PolynomialCutoff(CUTOFF, power)
    r = (CUTOFF * (1 - torch.logspace(-5, -1.5, 40, dtype=torch.float64))).float()
    expected = function.derivative(r.double(), order)
    found = function.derivative(r, order).double()
    torch.testing.assert_close(found, expected, rtol=5e-6, atol=0)
    middle = torch.linspace(0, CUTOFF, 60, dtype=torch.float64).float()
    expected = function.derivative(middle.double(), order)
    error = function.derivative(middle, order).double() - expected
    assert error.abs().max() < 2e-6 * expected.abs().max()


def test_bessel_functions_are_orthonormal_and_vanish_at_the_cutoff() -> None:
    """∫ b_n b_m r² dr = δ_nm over the sphere of the cutoff, by the midpoint rule."""
    count = 4000
    r = (torch.arange(count, dtype=torch.float64) + 0.5) * CUTOFF / count
    values = Bessel(CUTOFF, 6).derivative(r, 0) * r[:, None]
    overlap = values.T @ values * CUTOFF / count
    torch.testing.assert_close(overlap, torch.eye(6).double(), rtol=0, atol=1e-9)
    at_cutoff = Bessel(CUTOFF, 6).derivative(torch.tensor([CUTOFF]).double(), 0)
    assert at_cutoff.abs().max() < 1e-14


@pytest.mark.parametrize("power", [2, 3, 5, 8, 12])
def test_a_higher_power_is_flatter_at_zero_and_steeper_at_the_end(power) -> None:
    """One at zero with p − 1 vanishing derivatives; zero at the cutoff with two."""
    function = PolynomialCutoff(CUTOFF, power)
    ends = torch.tensor([0.0, CUTOFF * (1 - 1e-9)], dtype=torch.float64)
    assert function.derivative(ends, 0)[0, 0] == 1
    for order in range(1, 3):
        assert function.derivative(ends, order)[1].abs().max() < 1e-5
    for order in range(1, power):
        assert function.derivative(ends, order)[0, 0] == 0
    assert function.derivative(ends, power)[0, 0] != 0
    r = torch.linspace(0, CUTOFF, 50, dtype=torch.float64)
    assert function.derivative(r, 0).diff(dim=0).max() < 1e-15
    steeper = PolynomialCutoff(CUTOFF, power + 1)
    assert (steeper.derivative(r, 0) - function.derivative(r, 0)).min() > -1e-12


@pytest.mark.parametrize("width", [0.7, 2.0])
def test_gaussians_of_another_width(width) -> None:
    lengths = torch.linspace(0.1, 5.9, 37, dtype=torch.float64)
    smearing, spacing = Gaussians(6.0, 13, width), 0.5
    centres = spacing * torch.arange(13)
    expected = torch.exp(-(((lengths[:, None] - centres) / (width * spacing)) ** 2) / 2)
    torch.testing.assert_close(smearing.derivative(lengths, 0), expected)
    for order in range(3):
        ahead, behind = (smearing.derivative(lengths + s, order) for s in (1e-5, -1e-5))
        slope = (ahead - behind) / 2e-5
        found = smearing.derivative(lengths, order + 1)
        torch.testing.assert_close(found, slope, rtol=1e-7, atol=1e-7)
