"""Laws of every distribution a head may return; a new family needs a row in `FAMILIES`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from surefoot.prediction import Distribution, Point, Rule

SHAPE = (3, 4)


@dataclass(frozen=True)
class Family:
    """How a family is made, and what it is able to do.

    Attributes:
        make: a distribution of this shape, from a generator.
        rules: training scores it has.
        has_density: whether `log_prob` is a density.
    """

    make: Callable[[torch.Generator, tuple[int, ...]], Distribution]
    rules: tuple[Rule, ...]
    has_density: bool


def point(generator: torch.Generator, shape: tuple[int, ...]) -> Point:
    return Point(torch.randn(shape, generator=generator, dtype=torch.float64))


FAMILIES = {
    "point": Family(point, ("squared", "absolute", "huber", "norm"), has_density=False),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def distribution(family, generator) -> Distribution:
    return family.make(generator, SHAPE)


def test_shapes_and_spread(distribution) -> None:
    assert isinstance(distribution, Distribution)
    assert distribution.mean.shape == SHAPE
    assert distribution.variance.shape == SHAPE
    assert bool((distribution.variance >= 0).all())
    assert distribution.spread in ("none", "noise", "residual")
    assert bool((distribution.variance == 0).all()) == (distribution.spread == "none")


def test_samples_have_the_mean_and_the_variance(distribution) -> None:
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([distribution.sample(generator) for _ in range(4000)])
    error = 5 * (distribution.variance / 4000).sqrt() + 1e-12
    assert bool(((draws.mean(0) - distribution.mean).abs() <= error).all())
    torch.testing.assert_close(draws.var(0), distribution.variance, rtol=0.2, atol=1e-12)


def test_same_generator_same_sample(distribution) -> None:
    first, second = (distribution.sample(torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, second)


def test_affine_moves_mean_and_spread(distribution) -> None:
    before = distribution.mean.clone()
    scale = torch.linspace(0.5, 2.0, SHAPE[1], dtype=torch.float64)
    moved = distribution.affine(scale, -3.0)
    torch.testing.assert_close(moved.mean, distribution.mean * scale - 3.0)
    torch.testing.assert_close(moved.variance, distribution.variance * scale**2)
    assert moved.spread == distribution.spread
    assert torch.equal(distribution.mean, before)


def test_scores_are_lowest_at_the_mean(family, distribution) -> None:
    for rule in family.rules:
        expected = SHAPE[:-1] if rule == "norm" else SHAPE
        best = distribution.score(distribution.mean, rule)
        assert best.shape == expected
        for shift in (-0.3, 1e-3, 2.0):
            assert bool((distribution.score(distribution.mean + shift, rule) > best).all())


def slopes(distribution: Distribution, rule: Rule, target: Tensor) -> Tensor:
    moved = torch.zeros(SHAPE, dtype=torch.float64, requires_grad=True)
    score = distribution.affine(1.0, moved).score(target, rule)
    return torch.autograd.grad(score.sum(), moved)[0]


def test_scores_have_finite_slopes_everywhere(family, distribution) -> None:
    for rule in family.rules:
        for target in (distribution.mean, distribution.mean + 0.5, distribution.mean - 1e-9):
            assert bool(slopes(distribution, rule, target).isfinite().all())


def test_density_integrates_to_one(family, distribution) -> None:
    if not family.has_density:
        with pytest.raises(TypeError, match="no density"):
            distribution.log_prob(distribution.mean)
        return
    width = distribution.variance.sqrt().max()
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    values = torch.stack([distribution.log_prob(distribution.mean + width * x) for x in grid])
    integral = np.trapezoid(values.exp().numpy(), (width * grid).numpy(), axis=0)
    assert np.allclose(integral, 1.0, atol=1e-3)
