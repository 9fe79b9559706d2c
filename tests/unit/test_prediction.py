from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from surefoot.distributions.densities import Point, Rule, Spread, VectorNormal
from surefoot.prediction import Moments, Prediction, join_draws, mix, normal_quantile


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


def test_covariances_of_noise_and_of_members_add_up(generator) -> None:
    """Per atom, against numpy's and against moments of the mixture."""
    draws = 6
    roots = normal(generator, draws, 5, 3, 3)
    covariance = roots @ roots.mT + torch.eye(3)
    forces = VectorNormal(
        normal(generator, draws, 5, 3),
        torch.linalg.inv(torch.linalg.cholesky(covariance)),
        torch.logdet(covariance),
    )
    moments = mix(forces, vector=True)
    assert moments.aleatoric is not None
    assert moments.epistemic is not None
    assert moments.total is not None
    assert moments.total.shape == (5, 3, 3)
    second = (covariance + forces.mean[..., None] * forces.mean[..., None, :]).mean(0)
    mixture = second - moments.mean[..., None] * moments.mean[..., None, :]
    found = moments.aleatoric + moments.epistemic * (draws - 1) / draws
    torch.testing.assert_close(found, mixture, rtol=1e-10, atol=1e-10)
    spread = [np.cov(rows, rowvar=False, ddof=1) for rows in forces.mean.transpose(0, 1).numpy()]
    whole = covariance.mean(0) + torch.tensor(np.stack(spread))
    torch.testing.assert_close(moments.total, whole, rtol=1e-10, atol=1e-10)
    wider = moments.scaled(1.5)
    assert torch.equal(wider.mean, moments.mean)
    assert wider.aleatoric is not None
    torch.testing.assert_close(wider.aleatoric, 1.5**2 * covariance.mean(0))
    torch.testing.assert_close(wider.total, 1.5**2 * whole)


def test_portions_of_draws_mix_as_one(generator) -> None:
    mean, size = normal(generator, 7, 4, 3), normal(generator, 7, 4)
    whitening = (-0.5 * size)[..., None, None].exp() * torch.eye(3, dtype=torch.float64)
    whole = VectorNormal(mean, whitening, 3 * size)
    parts = [
        VectorNormal(mean[rows], whitening[rows], 3 * size[rows])
        for rows in (slice(0, 3), slice(3, 7))
    ]
    joined, expected = (mix(it, vector=True) for it in (join_draws(parts), whole))
    assert torch.equal(joined.mean, expected.mean)
    assert torch.equal(joined.total, expected.total)


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
