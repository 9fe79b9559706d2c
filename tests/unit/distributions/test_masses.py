import math
from itertools import pairwise

import numpy as np
import pytest
import scoringrules
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor
from torch.autograd import gradcheck

from surefoot.distributions.bins import Bins, even_bins
from surefoot.distributions.masses import (
    cross_entropy,
    crps,
    distribution_function,
    entropic_deviation,
    entropy,
    expectation,
    log_density,
    mutual_information,
    quantiles,
    relative_entropy,
    second_moment,
)

DOUBLE = torch.float64
CLOSED = Bins(edges=(-2.0, -1.0, 0.5, 1.0, 3.0))
OPEN = Bins(edges=CLOSED.edges, lower=0.7, upper=1.3)
ABOVE = Bins(edges=(0.0, 0.1, 0.3, 1.0), upper=0.8)
every_bins = pytest.mark.parametrize(
    "bins", [CLOSED, OPEN, ABOVE], ids=["closed", "open", "open above"]
)
LABELS = (-7.0, -2.0, -0.3, 0.05, 0.5, 0.9, 2.2, 3.0, 9.0)


def random_masses(bins: Bins, generator: torch.Generator, rows: int = 4) -> Tensor:
    logits = 1.5 * torch.randn((rows, bins.count), generator=generator, dtype=DOUBLE)
    return logits.softmax(-1)


def normal_masses(bins: Bins, mean: float, sigma: float) -> Tensor:
    """A normal distribution cut into bins."""
    return torch.tensor(np.diff(norm.cdf(bins.edges, mean, sigma)), dtype=DOUBLE)


@every_bins
def test_crps_equals_quadrature(bins, generator) -> None:
    masses = random_masses(bins, generator)

    def reached(row: Tensor, place: float) -> float:
        return float(distribution_function(row, bins, torch.tensor(place, dtype=DOUBLE)))

    for label in LABELS:
        found = crps(masses, bins, torch.full((4,), label, dtype=DOUBLE))
        cuts = [-40.0, *sorted({*bins.edges, label}), 45.0]
        for row, score in zip(masses[:2], found[:2], strict=True):
            parts = [
                quad(lambda z, r=row, y=label: (reached(r, z) - (z >= y)) ** 2, low, high)[0]
                for low, high in pairwise(cuts)
            ]
            assert float(score) == pytest.approx(sum(parts), rel=1e-6)


def test_crps_tends_to_that_of_a_normal() -> None:
    """(√2 − 1) / √π σ = 0.2337 σ at its mean."""
    bins = even_bins(8.0, 2000, encoding="one_hot")
    masses = normal_masses(bins, 0.0, 1.0)
    masses = masses / masses.sum()
    for label in (0.0, 0.7, -2.5):
        found = float(crps(masses, bins, torch.tensor(label, dtype=DOUBLE)))
        assert found == pytest.approx(float(scoringrules.crps_normal(label, 0.0, 1.0)), rel=1e-4)
    least = float(crps(masses, bins, torch.tensor(0.0, dtype=DOUBLE)))
    assert least == pytest.approx((math.sqrt(2) - 1) / math.sqrt(math.pi), rel=1e-4)


def test_crps_of_narrow_bins_is_that_of_a_weighted_ensemble(generator) -> None:
    masses = random_masses(CLOSED, generator)
    points = CLOSED.centres(masses)
    narrow = Bins(edges=tuple(float(x) for point in points for x in (point - 1e-9, point + 1e-9)))
    between = torch.zeros_like(masses)
    apart = torch.stack([masses, between], dim=-1).flatten(-2)[:, :-1]
    for label in LABELS:
        found = crps(apart, narrow, torch.full((4,), label, dtype=DOUBLE))
        expected = scoringrules.crps_ensemble(
            np.full(4, label),
            points.expand(4, -1).numpy(),
            ens_w=masses.numpy(),
            estimator="nrg",
        )
        assert np.allclose(found, expected, rtol=1e-7, atol=1e-8)


@every_bins
@pytest.mark.parametrize("level", [1e-3, 0.05, 0.5, 0.95, 0.999])
def test_quantiles_invert_the_distribution_function(bins, level, generator) -> None:
    masses = random_masses(bins, generator, 50)
    found = distribution_function(masses, bins, quantiles(masses, bins, level))
    torch.testing.assert_close(found, torch.full_like(found, level), rtol=0, atol=1e-12)


def test_a_quantile_steps_over_empty_bins() -> None:
    masses = torch.tensor([[0.5, 0.0, 0.0, 0.5]], dtype=DOUBLE)
    assert float(quantiles(masses, CLOSED, 0.75)) == pytest.approx(2.0)
    assert float(quantiles(masses, CLOSED, 0.25)) == pytest.approx(-1.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantiles(masses, CLOSED, 1.0)


def test_single_precision_quantiles_are_finite(generator) -> None:
    masses = random_masses(OPEN, generator, 200).float()
    for level in (1e-7, 0.5, 1 - 1e-7):
        assert bool(quantiles(masses, OPEN, level).isfinite().all())


def test_even_masses_decode_to_zero_to_the_bit() -> None:
    for count in (7, 32, 101, 128):
        for dtype in (torch.float32, torch.float64):
            masses = torch.zeros((3, count), dtype=dtype).softmax(-1)
            assert expectation(masses, even_bins(0.37, count)).tolist() == [0.0] * 3


@every_bins
def test_moments_are_integrals_over_the_density(bins, generator) -> None:
    masses = random_masses(bins, generator, 1)

    def density(place: float) -> float:
        value = torch.tensor([place], dtype=DOUBLE)
        return float(log_density(masses.log(), bins, value).exp())

    cuts = (-30.0, *bins.edges, 40.0)
    powers = []
    for power in range(3):
        parts = [
            quad(lambda z, n=power: density(z) * z**n, low, high)[0] for low, high in pairwise(cuts)
        ]
        powers.append(sum(parts))
    expected = [1.0, float(expectation(masses, bins)), float(second_moment(masses, bins))]
    assert powers == pytest.approx(expected, rel=1e-6)


def test_entropies_do_not_see_distance_and_deviations_do() -> None:
    bins = even_bins(51.0, 51, encoding="one_hot")
    near, far = torch.zeros((2, 1, 51), dtype=DOUBLE)
    near[0, 25] = near[0, 26] = far[0, 0] = far[0, 50] = 0.5
    for masses, spread in ((near, 0.5), (far, 25.0)):
        assert float(entropy(masses)) == pytest.approx(math.log(2))
        centre = expectation(masses, bins)
        deviation = (second_moment(masses, bins) - centre.square() - bins.width**2 / 12).sqrt()
        assert float(deviation) / bins.width == pytest.approx(spread)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5])
def test_entropic_deviation_of_a_normal_is_its_sigma(sigma) -> None:
    fine = even_bins(4.0, 800, encoding="one_hot")
    masses = normal_masses(fine, 0.1, sigma)
    assert float(entropic_deviation(masses, fine)) == pytest.approx(sigma, rel=5e-3)
    # In uneven, open bins just as well.
    uneven = Bins(edges=tuple(sigma * 4 * np.sinh(np.linspace(-1.5, 1.5, 201))), upper=sigma)
    rough = torch.cat([normal_masses(uneven, 0.0, sigma), torch.zeros(1, dtype=DOUBLE)])
    assert float(entropic_deviation(rough, uneven)) == pytest.approx(sigma, rel=5e-3)


def test_the_smoothing_of_targets_is_taken_off() -> None:
    """A perfect prediction of an HL-Gauss target has no spread, and a wider one what is beyond."""
    bins = even_bins(4.0, 100)
    label = torch.tensor([0.123], dtype=DOUBLE)
    assert float(entropic_deviation(bins.encode(label), bins)) < 0.02 * bins.width
    wide = normal_masses(bins, 0.0, math.hypot(0.6, bins.smoothing))
    assert float(entropic_deviation(wide, bins)) == pytest.approx(0.6, rel=0.01)


def test_relative_entropy_of_one_hot_bins_goes_from_zero_to_one() -> None:
    bins = even_bins(1.0, 16, encoding="one_hot")
    certain, even = torch.eye(16, dtype=DOUBLE)[:1], torch.full((1, 16), 1 / 16, dtype=DOUBLE)
    assert float(relative_entropy(certain, bins)) == 0.0
    assert float(relative_entropy(even, bins)) == pytest.approx(1.0)


def test_mutual_information(generator) -> None:
    masses = random_masses(OPEN, generator, 30)
    assert mutual_information(masses[None]) is None
    same = mutual_information(masses.expand(4, -1, -1))
    others = mutual_information(masses.reshape(5, 6, -1))
    assert same is not None
    assert others is not None
    assert float(same.max()) < 1e-14
    assert float(others.min()) > 1e-3


def test_rounding_makes_no_negative_information(generator) -> None:
    """The mean of seven equal numbers is not always the same number."""
    draws = random_masses(OPEN, generator, 500).expand(7, -1, -1)
    assert float((entropy(draws.mean(0)) - entropy(draws).mean(0)).min()) < 0.0
    found = mutual_information(draws)
    assert found is not None
    assert float(found.min()) == 0.0


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_information_of_two_near_members(share) -> None:
    """δ² / 8σ² for centres δ apart."""
    bins = even_bins(8.0, 400, encoding="one_hot")
    pair = torch.stack([normal_masses(bins, sign * share / 2, 1.0) for sign in (-1, 1)])
    found = mutual_information((pair / pair.sum(-1, keepdim=True))[:, None])
    assert found is not None
    assert float(found) == pytest.approx(share**2 / 8, rel=0.04)


def test_many_histograms_tend_to_a_normal() -> None:
    """The distance to it falls as 1/√N: beyond some 20 atoms moments are enough."""
    bins = even_bins(1.0, 11, encoding="one_hot")
    atom = torch.tensor([2, 6, 3, 0, 0, 0, 0, 0, 1, 4, 1], dtype=DOUBLE)
    distances = []
    for atoms in (1, 4, 16, 64, 256):
        one, total = atom / atom.sum(), np.ones(1)
        for _ in range(atoms):
            total = np.convolve(total, one)
        masses = torch.tensor(total)
        points = bins.width * torch.arange(len(masses), dtype=DOUBLE)
        mean = (points * masses).sum()
        sigma = (masses * (points - mean).square()).sum().sqrt()
        normal = torch.tensor(norm.cdf(points, mean, sigma))
        reached = masses.cumsum(0)
        gaps = torch.maximum((reached - normal).abs(), (reached - masses - normal).abs())
        distances.append(float(gaps.max()))
    assert distances[0] > 0.25
    assert distances == sorted(distances, reverse=True)
    assert distances[2] < 0.05
    assert distances[-2] / distances[-1] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("encoding", ["one_hot", "two_hot", "hl_gauss"])
def test_cross_entropy_has_the_slope_p_minus_q(encoding, generator) -> None:
    bins = even_bins(1.0, 12, encoding=encoding, ratio=0.75)
    logits = torch.randn((7, 12), generator=generator, dtype=DOUBLE).requires_grad_()
    labels = 2 * torch.rand(7, generator=generator, dtype=DOUBLE) - 1
    score = cross_entropy(logits, bins, labels)
    (slope,) = torch.autograd.grad(score.sum(), logits)
    torch.testing.assert_close(slope, (logits.softmax(-1) - bins.encode(labels)).detach())
    assert gradcheck(lambda x: cross_entropy(x, bins, labels), logits)


def test_cross_entropy_is_lowest_where_the_histogram_is_right(generator) -> None:
    masses = random_masses(OPEN, generator, 1)
    labels = torch.cat([quantiles(masses, OPEN, (k + 0.5) / 1000) for k in range(1000)])
    right = float(cross_entropy(masses.log().expand(1000, -1), OPEN, labels).mean())
    assert right == pytest.approx(float(entropy(masses)), rel=1e-2)
    for other in random_masses(OPEN, generator, 5):
        assert float(cross_entropy(other.log().expand(1000, -1), OPEN, labels).mean()) > right
