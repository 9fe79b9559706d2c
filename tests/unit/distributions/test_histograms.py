import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from surefoot.distributions.binned import Binned, join_binned, mix_histograms
from surefoot.distributions.bins import Bins, even_bins, residual_bins
from surefoot.distributions.densities import Point
from surefoot.distributions.histograms import Histogram, Lengths, Residuals

DOUBLE = torch.float64
BINS = Bins(edges=(-2.0, -1.0, 0.5, 1.0, 3.0), lower=0.7, upper=1.3)
ERRORS = Bins(edges=(0.0, 0.02, 0.1, 0.4, 2.0), upper=0.9)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=DOUBLE)


def test_force_of_the_expectation_is_minus_the_covariance_of_centres_and_slopes(generator) -> None:
    """F = −Cov_p(c, dl/dx), and central differences."""
    bins, weight = even_bins(2.0, 32), normal(generator, 3, 32)

    def energy(place: Tensor) -> Tensor:
        return Histogram(bins=bins, logits=torch.sin(place) @ weight, scale=5.0, shift=-7.0).mean

    place = normal(generator, 3).requires_grad_()
    (slope,) = torch.autograd.grad(energy(place), place)
    at = place.detach()
    masses, centres = (torch.sin(at) @ weight).softmax(-1), bins.centres(at)
    slopes = torch.cos(at)[:, None] * weight
    mean = (masses * centres).sum()
    covariance = (masses * (centres - mean) * (slopes - (masses * slopes).sum(-1)[:, None])).sum(-1)
    torch.testing.assert_close(-slope, -5.0 * covariance, rtol=1e-12, atol=1e-14)
    steps = 1e-5 * torch.eye(3, dtype=DOUBLE)
    expected = torch.stack([energy(at + s) - energy(at - s) for s in steps]) / 2e-5
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-8)


def test_residuals_leave_the_mean_and_count_a_bias_as_error(generator) -> None:
    mean = normal(generator, 5).requires_grad_()
    logits = normal(generator, 5, BINS.count).requires_grad_()
    found = Residuals(mean=mean, bins=BINS, logits=logits, scale=2.0)
    assert found.mean is mean
    shown = found.shown()
    bias = (shown.mean - mean).detach()
    assert float(bias.abs().min()) > 1e-3
    torch.testing.assert_close(found.variance.detach(), (shown.variance + bias.square()).detach())
    score = found.score(mean.detach() + 0.3, "cross_entropy")
    by_mean, by_logits = torch.autograd.grad(
        score.sum(), (mean, logits), allow_unused=True, materialize_grads=True
    )
    assert not by_mean.any()
    assert bool((by_logits != 0).all())


def test_cross_entropy_has_no_unit(generator) -> None:
    """Dividing by the number of atoms, as the loss does, changes nothing."""
    logits, label = normal(generator, 4, BINS.count), normal(generator, 4)
    size = torch.tensor([3.0, 9.0, 1.0, 20.0], dtype=DOUBLE)
    for found in (
        Histogram(bins=BINS, logits=logits, scale=size, shift=normal(generator, 4)),
        Residuals(mean=normal(generator, 4), bins=BINS, logits=logits, scale=size.sqrt()),
    ):
        moved = found.affine(1 / size, 0.0)
        one, other = found.score(label, "cross_entropy"), moved.score(label / size, "cross_entropy")
        torch.testing.assert_close(one, other)
        density = found.log_prob(label) + size.log()
        torch.testing.assert_close(moved.log_prob(label / size), density)


def test_lengths_are_isotropic(generator) -> None:
    mean, logits = normal(generator, 2, 3), normal(generator, 2, ERRORS.count)
    found = Lengths(mean=mean, bins=ERRORS, logits=logits, scale=0.5)
    many = replace(found, mean=mean.expand(20_000, -1, -1), logits=logits.expand(20_000, -1, -1))
    draws = many.sample(generator) - mean
    covariance = torch.einsum("dai,daj->aij", draws, draws) / len(draws)
    torch.testing.assert_close(covariance, found.variance, rtol=0.1, atol=0.02)
    off = found.variance - found.variance.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None] * (
        torch.eye(3, dtype=DOUBLE)
    )
    assert float(off.abs().max()) < 1e-15
    lengths = draws.norm(dim=-1).mean(0)
    torch.testing.assert_close(lengths, found.shown().mean, rtol=0.03, atol=0)


def test_density_of_lengths_integrates_to_one_over_space(generator) -> None:
    found = Lengths(
        mean=normal(generator, 3), bins=ERRORS, logits=normal(generator, ERRORS.count), scale=0.5
    )

    def shell(length: float) -> float:
        target = found.mean + torch.tensor([length, 0.0, 0.0], dtype=DOUBLE)
        return float(found.log_prob(target).exp()) * 4 * math.pi * length**2

    cuts = [*(0.5 * edge for edge in ERRORS.edges), 12.0]
    parts = [quad(shell, low, high)[0] for low, high in pairwise(cuts)]
    assert sum(parts) == pytest.approx(1.0, abs=1e-6)
    assert bool(found.log_prob(found.mean).isfinite())
    assert float(found.score(found.mean, "nll")) == -float(found.log_prob(found.mean))


def test_an_error_beyond_the_last_edge_is_a_label_like_any_other(generator) -> None:
    mean = torch.zeros((1, 3), dtype=DOUBLE)
    logits = torch.zeros((1, ERRORS.count), dtype=DOUBLE).requires_grad_()
    far = torch.tensor([[0.0, 70.0, 0.0]], dtype=DOUBLE)
    score = Lengths(mean=mean, bins=ERRORS, logits=logits).score(far, "cross_entropy")
    (slope,) = torch.autograd.grad(score.sum(), logits)
    assert float(slope[0, -1]) < -0.5
    assert bool((slope[0, :-1] > 0).all())


def test_rules_that_histograms_do_not_have(generator) -> None:
    logits = normal(generator, 2, BINS.count)
    vector = Lengths(mean=normal(generator, 2, 3), bins=BINS, logits=logits)
    for found, target in (
        (Histogram(bins=BINS, logits=logits), torch.zeros(2)),
        (Residuals(mean=torch.zeros(2), bins=BINS, logits=logits), torch.zeros(2)),
        (vector, torch.zeros((2, 3))),
    ):
        sentence = "mahalanobis scores a normal; for a histogram there is"
        with pytest.raises(ValueError, match=sentence):
            found.score(target, "mahalanobis")


def binned(generator: torch.Generator, rows: int = 6) -> Binned:
    masses = normal(generator, rows, BINS.count).softmax(-1)
    return Binned(
        bins=BINS,
        probabilities=masses,
        shift=normal(generator, rows),
        scale=0.5 + normal(generator, rows).square(),
    )


def test_binned_in_the_unit_of_the_user(generator) -> None:
    found = binned(generator)
    logits = found.probabilities.log()
    same = Histogram(bins=BINS, logits=logits, scale=found.scale, shift=found.shift)
    torch.testing.assert_close(found.mean, same.mean)
    torch.testing.assert_close(found.deviation.square(), same.variance)
    labels = normal(generator, 6)
    torch.testing.assert_close(found.log_prob(labels), same.log_prob(labels))
    torch.testing.assert_close(found.cdf(found.quantile(0.3)), torch.full((6,), 0.3, dtype=DOUBLE))
    at = found.shift + 1.4 * found.scale
    alone = Binned(
        bins=BINS, probabilities=found.probabilities, shift=torch.zeros(6), scale=torch.ones(6)
    )
    torch.testing.assert_close(
        found.crps(at), found.scale * alone.crps(torch.full((6,), 1.4, dtype=DOUBLE))
    )


def test_draws_are_averaged_and_their_information_is_that_of_one_support(generator) -> None:
    logits = normal(generator, 5, 6, BINS.count)
    whole = mix_histograms([Histogram(bins=BINS, logits=logits, scale=2.0)])
    parts = mix_histograms([Histogram(bins=BINS, logits=p, scale=2.0) for p in logits.split(2)])
    assert whole is not None
    assert parts is not None
    torch.testing.assert_close(whole.probabilities, logits.softmax(-1).mean(0))
    torch.testing.assert_close(whole.probabilities, parts.probabilities)
    assert whole.information is not None
    assert float(whole.information.min()) > 0
    one = mix_histograms([Histogram(bins=BINS, logits=logits[:1])])
    assert one is not None
    assert one.information is None
    # Members whose means differ have supports that differ: there is nothing to compare.
    apart = mix_histograms([Residuals(mean=normal(generator, 5, 6), bins=BINS, logits=logits)])
    assert apart is not None
    assert apart.information is None
    assert mix_histograms([Point(torch.zeros(5, 6))]) is None


def test_batches_join(generator) -> None:
    found = binned(generator)
    cut = [
        replace(found, **{n: getattr(found, n)[rows] for n in ("probabilities", "shift", "scale")})
        for rows in (slice(0, 2), slice(2, 6))
    ]
    joined = join_binned(cut)
    assert joined is not None
    assert torch.equal(joined.mean, found.mean)
    assert joined.information is None
    assert join_binned([None, None]) is None


def test_a_fitted_histogram_covers_as_often_as_it_says(generator) -> None:
    """PIT of new labels from a heavy-tailed error, histogram fitted by counting."""
    errors = normal(generator, 30_000) / normal(generator, 30_000).abs().add(0.5)
    bins = residual_bins(errors[:20_000], 64)
    counts = torch.bincount(bins.find(errors[:20_000]), minlength=64).double() + 0.5
    masses = (counts / counts.sum()).expand(10_000, -1)
    fitted = Binned(
        bins=bins, probabilities=masses, shift=torch.zeros(10_000), scale=torch.ones(10_000)
    )
    levels = fitted.cdf(errors[20_000:]).sort().values
    even = (torch.arange(10_000, dtype=DOUBLE) + 0.5) / 10_000
    assert float((levels - even).abs().max()) < 1.6 / math.sqrt(10_000) * math.sqrt(1.5)
    inside = (errors[20_000:] < fitted.quantile(0.9)).double().mean()
    assert float(inside) == pytest.approx(0.9, abs=0.01)
    assert np.isfinite(fitted.log_prob(errors[20_000:]).numpy()).all()
