import numpy as np
import pytest
from scipy import stats

from surefoot.evaluate.intervals import block_bootstrap, block_bootstrap_counts
from surefoot.evaluate.pit import (
    BINS,
    gaussian_pit,
    kolmogorov_smirnov,
    kolmogorov_smirnov_by_counts,
    pit_histogram,
)


def test_levels_of_a_normal() -> None:
    residuals, std = np.array([-2.0, 0.0, 3.0]), np.array([1.0, 5.0, 2.0])
    assert np.allclose(gaussian_pit(residuals, std), stats.norm(0.0, std).cdf(residuals))


def test_gap_agrees_with_scipy() -> None:
    u = np.random.default_rng(0).random(173) ** 1.3
    assert kolmogorov_smirnov(u) == pytest.approx(stats.kstest(u, "uniform").statistic, abs=1e-12)


def test_gap_of_extremes() -> None:
    assert kolmogorov_smirnov(np.array([0.5])) == 0.5
    assert kolmogorov_smirnov(np.zeros(3)) == 1.0
    assert kolmogorov_smirnov((np.arange(1000) + 0.5) / 1000) == pytest.approx(0.0005)


def test_histograms_show_what_is_wrong() -> None:
    generator = np.random.default_rng(1)
    groups = np.arange(20_000) // 20
    shapes = {}
    for name, width in (("true", 1.0), ("narrow", 0.5), ("wide", 2.0)):
        u = gaussian_pit(generator.normal(size=20_000), np.full(20_000, width))
        shapes[name] = pit_histogram(u, groups, generator, draws=100)
    true = shapes["true"]
    assert true.density.mean() == pytest.approx(1.0)
    assert np.mean((true.low <= 1.0) & (true.high >= 1.0)) >= 0.8
    middle, ends = slice(BINS // 2 - 2, BINS // 2 + 2), [0, BINS - 1]
    assert shapes["narrow"].low[ends].min() > 2.0 > shapes["narrow"].high[middle].max()
    assert shapes["wide"].high[ends].max() < 0.1
    assert shapes["wide"].low[middle].min() > 1.4


def test_bands_respect_groups() -> None:
    """All points of a group fall in one bin: the band is that of the number of groups."""
    generator = np.random.default_rng(2)
    u = np.repeat(generator.random(100), 50)
    blocks = pit_histogram(u, np.arange(5000) // 50, generator, draws=300)
    single = pit_histogram(u, np.arange(5000), generator, draws=300)
    ratio = np.mean(blocks.high - blocks.low) / np.mean(single.high - single.low)
    assert ratio == pytest.approx(np.sqrt(50), rel=0.2)


def test_one_group_has_no_band() -> None:
    found = pit_histogram(np.array([0.1, 1.0]), np.zeros(2), np.random.default_rng(3))
    assert found.density[[2, BINS - 1]].tolist() == [BINS / 2, BINS / 2]
    assert np.isnan(found.low).all()


def test_counts_are_repeated_points() -> None:
    generator = np.random.default_rng(4)
    u = np.round(generator.random(90), 2)
    counts = generator.integers(4, size=90)
    expected = kolmogorov_smirnov(np.repeat(u, counts))
    assert kolmogorov_smirnov_by_counts(u)(counts) == pytest.approx(expected, abs=1e-12)


def test_the_quick_bootstrap_is_the_plain_one() -> None:
    u, groups = np.random.default_rng(5).random(200), np.arange(200) // 8
    quick = block_bootstrap_counts(
        kolmogorov_smirnov_by_counts(u), groups, np.random.default_rng(6), draws=50
    )
    plain = block_bootstrap(
        lambda drawn: kolmogorov_smirnov(u[drawn]), groups, np.random.default_rng(6), draws=50
    )
    assert (quick.low, quick.high) == pytest.approx((plain.low, plain.high), abs=1e-12)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"PIT value of point 1 is {value}"):
        kolmogorov_smirnov(np.array([0.5, value]))
