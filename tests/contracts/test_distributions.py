"""Laws of every distribution a head may return; a new family needs a row in `FAMILIES`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from surefoot.distributions.bins import Bins, even_bins
from surefoot.distributions.components import Components
from surefoot.distributions.densities import Distribution, Normal, Point, Rule, VectorNormal
from surefoot.distributions.histograms import Histogram, Lengths, Residuals


@dataclass(frozen=True)
class Family:
    """How a family is made, and what it is able to do.

    Attributes:
        make: a distribution of this shape, from a generator.
        rules: training scores it has that are lowest at the mean.
        has_density: whether `log_prob` is a density.
        shape: of its mean.
        vectors: whether its elements are vectors, with a covariance each.
        steps: whether it is made of bins: its density jumps, and one scale holds for all axes.
    """

    make: Callable[[torch.Generator, tuple[int, ...]], Distribution]
    rules: tuple[Rule, ...]
    has_density: bool
    shape: tuple[int, ...] = (3, 4)
    vectors: bool = False
    steps: bool = False


def point(generator: torch.Generator, shape: tuple[int, ...]) -> Point:
    return Point(torch.randn(shape, generator=generator, dtype=torch.float64))


def independent(generator: torch.Generator, shape: tuple[int, ...]) -> Normal:
    mean, log_variance = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    return Normal(mean, log_variance)


def vectors(generator: torch.Generator, shape: tuple[int, ...]) -> VectorNormal:
    roots = torch.randn((*shape, 3), generator=generator, dtype=torch.float64)
    whitening = torch.linalg.cholesky(roots @ roots.mT + torch.eye(3))
    mean = torch.randn(shape, generator=generator, dtype=torch.float64)
    return VectorNormal(mean, whitening, -2 * torch.logdet(whitening))


def histogram(generator: torch.Generator, shape: tuple[int, ...]) -> Histogram:
    logits = torch.randn((*shape, BINS.count), generator=generator, dtype=torch.float64)
    shift = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Histogram(bins=BINS, logits=logits, scale=1 + 0.1 * shift.tanh(), shift=shift)


def residuals(generator: torch.Generator, shape: tuple[int, ...]) -> Residuals:
    """Without a bias: with one the mean of the samples is not the mean that is given."""
    shown = histogram(generator, shape)
    logits = shown.logits + shown.logits.flip(-1)
    return Residuals(mean=-shown.mean, bins=BINS, logits=logits, scale=shown.scale)


def lengths(generator: torch.Generator, shape: tuple[int, ...]) -> Lengths:
    bins = Bins(edges=(0.0, 0.2, 0.5, 1.0), upper=0.15)
    logits = torch.randn((*shape[:-1], bins.count), generator=generator, dtype=torch.float64)
    mean = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Lengths(mean=mean, bins=bins, logits=logits, scale=1.3)


def components(generator: torch.Generator, shape: tuple[int, ...]) -> Components:
    frames = torch.linalg.qr(torch.randn((*shape, 3), generator=generator, dtype=torch.float64))[0]
    logits = torch.randn((*shape, BINS.count), generator=generator, dtype=torch.float64)
    return Components(bins=BINS, logits=logits, frames=frames, scale=0.7, shift=0.2)


BINS = even_bins(1.0, 12)
OF_THE_MEAN = ("squared", "absolute", "huber", "norm")
OF_A_DENSITY = ("nll", "mahalanobis")
FAMILIES = {
    "point": Family(point, OF_THE_MEAN, has_density=False),
    "normal": Family(independent, OF_THE_MEAN + OF_A_DENSITY, has_density=True),
    "vectors": Family(
        vectors, OF_THE_MEAN + OF_A_DENSITY, has_density=True, shape=(4, 3), vectors=True
    ),
    "histogram": Family(histogram, OF_THE_MEAN, has_density=True, steps=True),
    "residuals": Family(residuals, OF_THE_MEAN, has_density=True, steps=True),
    "lengths": Family(
        lengths, OF_THE_MEAN, has_density=True, shape=(4, 3), vectors=True, steps=True
    ),
    "components": Family(
        components, OF_THE_MEAN, has_density=True, shape=(4, 3), vectors=True, steps=True
    ),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def distribution(family, generator) -> Distribution:
    return family.make(generator, family.shape)


def variances(family: Family, distribution: Distribution) -> Tensor:
    """Of each number: the diagonals of covariances."""
    variance = distribution.variance
    return variance.diagonal(dim1=-2, dim2=-1) if family.vectors else variance


def test_shapes_and_spread(family, distribution) -> None:
    assert isinstance(distribution, Distribution)
    assert distribution.mean.shape == family.shape
    assert distribution.variance.shape == family.shape + (3,) * family.vectors
    assert bool((variances(family, distribution) >= 0).all())
    assert distribution.spread in ("none", "noise", "residual")
    assert bool((distribution.variance == 0).all()) == (distribution.spread == "none")


def test_samples_have_the_mean_and_the_variance(family, distribution) -> None:
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([distribution.sample(generator) for _ in range(4000)])
    variance = variances(family, distribution)
    error = 5 * (variance / 4000).sqrt() + 1e-12
    assert bool(((draws.mean(0) - distribution.mean).abs() <= error).all())
    torch.testing.assert_close(draws.var(0), variance, rtol=0.2, atol=1e-12)
    if family.vectors:
        deviation = draws - distribution.mean
        found = (deviation.unsqueeze(-1) * deviation.unsqueeze(-2)).mean(0)
        assert float((found - distribution.variance).abs().max() / variance.max()) < 0.1


def test_same_generator_same_sample(distribution) -> None:
    first, second = (distribution.sample(torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, second)


def test_affine_moves_mean_and_spread(family, distribution) -> None:
    before = distribution.mean.clone()
    scale = torch.linspace(0.5, 2.0, family.shape[-1], dtype=torch.float64)
    if family.vectors and family.steps:
        scale = scale[:1].expand(3)
    moved = distribution.affine(scale[0] if family.vectors and family.steps else scale, -3.0)
    torch.testing.assert_close(moved.mean, distribution.mean * scale - 3.0)
    square = scale[:, None] * scale if family.vectors else scale**2
    torch.testing.assert_close(moved.variance, distribution.variance * square)
    assert moved.spread == distribution.spread
    assert torch.equal(distribution.mean, before)


def test_scores_are_lowest_at_the_mean(family, distribution) -> None:
    for rule in family.rules:
        whole = rule == "norm" or (family.vectors and rule in OF_A_DENSITY)
        expected = family.shape[:-1] if whole else family.shape
        best = distribution.score(distribution.mean, rule)
        assert best.shape == expected
        for shift in (-0.3, 1e-3, 2.0):
            assert bool((distribution.score(distribution.mean + shift, rule) > best).all())


def slopes(distribution: Distribution, rule: Rule, target: Tensor) -> Tensor:
    moved = torch.zeros(distribution.mean.shape, dtype=torch.float64, requires_grad=True)
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
    if family.vectors and family.steps:
        return  # too coarse a grid for the jumps; integrated over shells in the unit tests
    width = variances(family, distribution).sqrt().max()
    points = torch.linspace(-7, 7, 49 if family.vectors else 4001, dtype=torch.float64)
    axes = torch.meshgrid([points] * (3 if family.vectors else 1), indexing="ij")
    grid = width * torch.stack([axis.flatten() for axis in axes], dim=-1)
    targets = distribution.mean + grid.reshape(-1, *[1] * (len(family.shape) - 1), grid.shape[-1])
    total = distribution.log_prob(targets).exp().sum(0)
    cell = (width * (points[1] - points[0])) ** len(axes)
    assert np.allclose(total * cell, 1.0, atol=1e-2 if family.steps else 1e-3)
