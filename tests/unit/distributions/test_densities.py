"""Scores of points, and the two normal distributions against scipy."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from torch import Tensor
from torch.autograd import gradcheck

from surefoot.compilation import flatten, rebuild
from surefoot.distributions.densities import HUBER_WIDTH, Normal, Point, VectorNormal
from surefoot.prediction import Output


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def vectors(generator: torch.Generator, count: int) -> tuple[VectorNormal, Tensor]:
    """Normal vectors, and their covariances."""
    roots = normal(generator, count, 3, 3)
    covariance = roots @ roots.mT + 0.1 * torch.eye(3)
    mean, whitening = normal(generator, count, 3), torch.linalg.inv(roots_of(covariance))
    return VectorNormal(mean, whitening, torch.logdet(covariance)), covariance


def roots_of(covariance: Tensor) -> Tensor:
    """Neither triangles nor symmetric, as a whitening may be: turned by one rotation."""
    turn = torch.linalg.matrix_exp(torch.tensor([[0, 0.3, -1], [-0.3, 0, 2], [1, -2, 0]]).double())
    return torch.linalg.cholesky(covariance) @ turn


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


def test_compiled_potentials_give_distributions_back(generator) -> None:
    """As trees of tensors, from which they are made anew."""
    forces = vectors(generator, 4)[0]
    energy = Normal(normal(generator, 2), normal(generator, 2), spread="residual")
    output = Output(energy=energy, forces=forces, stress=None, features=None)
    leaves, spec = flatten(output)
    again = rebuild(spec, [leaf.tensor + 1 for leaf in leaves])
    assert again.stress is None
    assert again.energy.spread == "residual"
    assert torch.equal(again.energy.log_variance, energy.log_variance + 1)
    assert torch.equal(again.forces.whitening, forces.whitening + 1)
    assert torch.equal(again.forces.log_determinant, forces.log_determinant + 1)


@pytest.mark.parametrize("rule", ["nll", "cross_entropy", "mahalanobis", "log_determinant"])
def test_a_point_has_no_density(rule) -> None:
    with pytest.raises(ValueError, match=r"gives one value alone; choose .*mean_variance"):
        Point(torch.zeros(2)).score(torch.zeros(2), rule)


def test_a_normal_is_no_histogram(generator) -> None:
    with pytest.raises(ValueError, match="for a normal there is nll"):
        Normal(torch.zeros(2), torch.zeros(2)).score(torch.zeros(2), "cross_entropy")


def test_normal_has_the_density_of_scipy(generator) -> None:
    mean, log_variance, target = (normal(generator, 20) for _ in range(3))
    expected = norm.logpdf(target.numpy(), mean.numpy(), (0.5 * log_variance).exp().numpy())
    assert np.allclose(Normal(mean, log_variance).log_prob(target), expected, rtol=1e-12)


def test_vectors_have_the_density_and_covariance_of_scipy(generator) -> None:
    forces, covariance = vectors(generator, 20)
    target = normal(generator, 20, 3)
    torch.testing.assert_close(forces.variance, covariance, rtol=1e-10, atol=1e-12)
    found = forces.log_prob(target)
    for row in range(20):
        expected = multivariate_normal.logpdf(target[row], forces.mean[row], covariance[row])
        assert float(found[row]) == pytest.approx(expected, rel=1e-11)


def test_vectors_with_any_scale_of_each_component(generator) -> None:
    forces, covariance = vectors(generator, 5)
    scale = torch.tensor([2.0, -0.5, 3.0], dtype=torch.float64)
    moved = forces.affine(scale, 1.0)
    expected = scale[:, None] * covariance * scale
    torch.testing.assert_close(moved.variance, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(moved.mean, scale * forces.mean + 1)
    target = normal(generator, 5, 3)
    before, after = forces.log_prob(target), moved.log_prob(scale * target + 1)
    torch.testing.assert_close(after, before - scale.abs().log().sum(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["normal", "vector"])
def test_likelihood_is_half_the_sum_of_its_parts(kind, generator) -> None:
    """What the weighting of the paper takes apart."""
    one = vectors(generator, 6)[0]
    if kind == "normal":
        one = Normal(one.mean, normal(generator, 6, 3))
    target = normal(generator, 6, 3)
    parts = one.score(target, "mahalanobis") + one.score(target, "log_determinant")
    constant = one.dimensions * np.log(2 * np.pi)
    torch.testing.assert_close(2 * one.score(target, "nll"), parts + constant, rtol=1e-12, atol=0)


def test_stretched_covariances_in_single_precision(generator) -> None:
    """σ from 1e-3 to 1 along oblique axes: no residual has a negative length, as Σ⁻¹ gives them."""
    root = torch.tensor([[1e-3, 0.0, 0.0], [1.0, 1e-3, 0.0], [1.0, 1.0, 1e-3]], dtype=torch.float64)
    whitening = torch.linalg.inv(root).expand(500, 3, 3)
    target = (root @ normal(generator, 500, 3, 1)).squeeze(-1)
    size = 2 * torch.logdet(root).expand(500)
    exact = VectorNormal(torch.zeros_like(target), whitening, size)
    found = VectorNormal(torch.zeros(500, 3), whitening.float(), size.float())
    assert bool((found.mahalanobis(target.float()) >= 0).all())
    assert bool((torch.linalg.eigvalsh(found.variance.double()) > -1e-9).all())
    noise = found.sample(torch.Generator().manual_seed(1))
    again = exact.mahalanobis(noise.double())
    assert float(again.mean()) == pytest.approx(3.0, rel=0.2)
