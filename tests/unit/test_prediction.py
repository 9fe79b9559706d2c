from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.autograd import gradcheck

from surefoot.prediction import (
    HUBER_WIDTH,
    Moments,
    Point,
    Prediction,
    Rule,
    Spread,
    mix,
    normal_quantile,
)


@dataclass(frozen=True)
class Spreading:
    """A distribution with a variance of its own, to see what `mix` makes of it."""

    mean: Tensor
    variance: Tensor
    spread: Spread = "noise"

    def log_prob(self, target: Tensor) -> Tensor:
        raise NotImplementedError

    def sample(self, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        raise NotImplementedError

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> "Spreading":
        raise NotImplementedError


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_points_mix_to_mean_and_unbiased_variance(generator) -> None:
    draws = normal(generator, 6, 4)
    moments = mix(Point(draws))
    assert moments.aleatoric is None
    assert moments.residual is None
    assert np.allclose(moments.mean, draws.numpy().mean(0), rtol=1e-14)
    assert np.allclose(moments.epistemic, draws.numpy().var(0, ddof=1), rtol=1e-13)
    assert torch.equal(moments.total, moments.epistemic)


def test_noise_mixes_by_the_law_of_total_variance(generator) -> None:
    """Against moments of the mixture, which divides by the draws and not by one less."""
    draws = 5
    means, variances = normal(generator, draws, 3), normal(generator, draws, 3).square()
    moments = mix(Spreading(means, variances))
    assert moments.epistemic is not None
    second = (variances + means.square()).mean(0) - means.mean(0).square()
    mixture = moments.aleatoric + moments.epistemic * (draws - 1) / draws
    torch.testing.assert_close(mixture, second, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.total, moments.aleatoric + moments.epistemic)


def test_residual_is_the_total_and_has_no_parts(generator) -> None:
    means, variances = normal(generator, 5, 3), normal(generator, 5, 3).square()
    moments = mix(Spreading(means, variances, spread="residual"))
    assert moments.aleatoric is None
    assert moments.epistemic is None
    torch.testing.assert_close(moments.total, variances.mean(0))


def test_one_draw_has_no_epistemic_part(generator) -> None:
    value = normal(generator, 1, 3)
    moments = mix(Point(value))
    assert moments.epistemic is None
    assert moments.total is None
    assert torch.equal(moments.mean, value[0])


def test_covariance_of_vectors(generator) -> None:
    draws = normal(generator, 7, 5, 3)
    moments = mix(Point(draws), vector=True)
    assert moments.epistemic is not None
    assert moments.mean.shape == (5, 3)
    assert moments.epistemic.shape == (5, 3, 3)
    for atom in range(5):
        expected = np.cov(draws[:, atom].numpy(), rowvar=False, ddof=1)
        assert np.allclose(moments.epistemic[atom], expected, rtol=1e-12)


def test_variance_of_a_large_energy_is_not_lost_to_rounding(generator) -> None:
    spread = 1e-4 * normal(generator, 8, 2)
    moments = mix(Point(spread - 1e6))
    expected = (spread - 1e6).numpy().var(0, ddof=1)
    assert np.allclose(moments.epistemic, expected, rtol=1e-12)
    assert np.allclose(moments.epistemic, spread.numpy().var(0, ddof=1), rtol=1e-5)


def test_mixture_is_detached(generator) -> None:
    draws = normal(generator, 3, 2).requires_grad_()
    moments = mix(Point(draws * 2))
    assert moments.epistemic is not None
    assert not moments.mean.requires_grad
    assert not moments.epistemic.requires_grad


def test_scaled_moves_standard_deviations_only() -> None:
    moments = Moments(mean=torch.ones(2), epistemic=torch.full((2,), 4.0)).scaled(1.5)
    assert moments.mean.tolist() == [1.0, 1.0]
    assert moments.epistemic is not None
    assert moments.epistemic.sqrt().tolist() == [3.0, 3.0]
    assert moments.aleatoric is None


def test_squared_and_absolute_scores() -> None:
    point, target = Point(torch.tensor([1.0, -2.0])), torch.tensor([3.0, -2.0])
    assert point.score(target, "squared").tolist() == [4.0, 0.0]
    assert point.score(target, "absolute").tolist() == [2.0, 0.0]


def test_huber_score_is_a_parabola_then_a_line() -> None:
    width = HUBER_WIDTH
    errors = torch.tensor([0.0, 0.5 * width, width, 10 * width, -10 * width], dtype=torch.float64)
    expected = [0.0, 0.125 * width, 0.5 * width, 9.5 * width, 9.5 * width]
    found = Point(errors).score(torch.zeros_like(errors), "huber")
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_norm_score_and_its_derivative_at_zero() -> None:
    force = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    force.requires_grad_()
    score = Point(force).score(torch.zeros_like(force), "norm")
    assert score.tolist() == [5.0, 0.0]
    (slope,) = torch.autograd.grad(score.sum(), force, create_graph=True)
    assert slope[0].tolist() == pytest.approx([0.6, 0.0, 0.8])
    assert slope[1].tolist() == [0.0, 0.0, 0.0]
    (curvature,) = torch.autograd.grad(slope.sum(), force)
    assert bool(curvature.isfinite().all())


@pytest.mark.parametrize("rule", ["squared", "absolute", "huber", "norm"])
def test_score_gradients(rule, generator) -> None:
    values, target = 0.02 * normal(generator, 4, 3), 0.02 * normal(generator, 4, 3)
    assert gradcheck(lambda x: Point(x).score(target, rule), values.requires_grad_())


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_interval_is_the_normal_one(level) -> None:
    variance = torch.tensor([4.0, 0.25], dtype=torch.float64)
    mean = torch.tensor([1.0, -3.0], dtype=torch.float64)
    prediction = Prediction(energy=Moments(mean=mean, epistemic=variance))
    low, high = prediction.interval(level)
    expected = norm.interval(level, loc=mean.numpy(), scale=variance.sqrt().numpy())
    assert np.allclose(low, expected[0], rtol=1e-12)
    assert np.allclose(high, expected[1], rtol=1e-12)
    assert normal_quantile(0.5 + level / 2) == pytest.approx(norm.ppf(0.5 + level / 2), rel=1e-12)


def test_interval_covers_as_often_as_it_says(generator) -> None:
    variance = 0.1 + normal(generator, 20_000).square()
    truth = normal(generator, 20_000) * variance.sqrt()
    prediction = Prediction(energy=Moments(mean=torch.zeros_like(truth), aleatoric=variance))
    low, high = prediction.interval(0.8)
    inside = ((low < truth) & (truth < high)).double().mean()
    assert float(inside) == pytest.approx(0.8, abs=3 * (0.8 * 0.2 / 20_000) ** 0.5)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 90.0])
def test_level_lies_between_zero_and_one(level) -> None:
    moments = Moments(mean=torch.zeros(1), epistemic=torch.ones(1))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Prediction(energy=moments).interval(level)


def test_interval_without_error_bar_is_refused() -> None:
    with pytest.raises(ValueError, match="no error bar"):
        Prediction(energy=Moments(mean=torch.zeros(1))).interval()
