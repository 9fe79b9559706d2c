import numpy as np
import pytest

from surefoot.evaluate import calibration, pit, ranking, reliability, scoring
from surefoot.evaluate.quantiles import fit_conformal
from surefoot.evaluate.scores import (
    LEVELS,
    coverage_of_bounds,
    score,
    score_levels,
    to_rows,
)


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 20)
    std = np.exp(0.5 * generator.normal(size=100))[groups]
    return std * generator.normal(size=2000), std, groups


def test_values_are_those_of_the_plain_functions(points) -> None:
    residuals, std, groups = points
    found = score(residuals, std, groups, np.random.default_rng(1), draws=20)
    assert (found.count, found.groups) == (2000, 100)
    assert found.nll.value == pytest.approx(np.mean(scoring.gaussian_nll(residuals, std)))
    assert found.crps.value == pytest.approx(np.mean(scoring.gaussian_crps(residuals, std)))
    assert found.sharpness.value == calibration.sharpness(std)
    assert found.spearman.value == calibration.spearman(residuals, std)
    assert found.miscalibration_area.value == calibration.miscalibration_area(residuals, std)
    assert found.calibration_error.value == calibration.calibration_error(residuals, std)
    assert found.ence.value == reliability.ence(residuals, std)
    assert found.ause.value == ranking.ause(residuals, std)
    assert found.pit_ks.value == pit.kolmogorov_smirnov(pit.gaussian_pit(residuals, std))
    assert found.mean_square.value == pytest.approx(np.mean((residuals / std) ** 2))
    for level in LEVELS:
        expected = calibration.coverage(residuals, std, level)
        assert found.coverage[level].value == pytest.approx(expected)


def test_true_error_bars_are_inside_the_intervals(points) -> None:
    residuals, std, groups = points
    found = score(residuals, std, groups, np.random.default_rng(2), draws=200)
    for level in LEVELS:
        interval = found.coverage[level].interval
        assert interval.low < level < interval.high
        assert interval.high - interval.low < 0.1
    for estimate in (found.nll, found.crps, found.spearman, found.sharpness):
        assert estimate.interval.low < estimate.value < estimate.interval.high


def test_overconfident_error_bars_are_outside(points) -> None:
    residuals, std, groups = points
    found = score(residuals, 0.5 * std, groups, np.random.default_rng(3), draws=200)
    assert all(found.coverage[level].interval.high < level for level in LEVELS)
    assert found.miscalibration_area.interval.low > 0.1


def test_rows_are_a_table(points) -> None:
    rows = to_rows(score(*points, np.random.default_rng(4), draws=5))
    assert list(rows) == [
        "nll",
        "crps",
        "coverage_50",
        "coverage_68",
        "coverage_90",
        "coverage_95",
        "calibration_error",
        "miscalibration_area",
        "ence",
        "pit_ks",
        "mean_square",
        "spearman",
        "ause",
        "sharpness",
    ]
    assert 0.8 < rows["coverage_90"].value < 1.0


def test_constant_error_bars_and_one_group_are_nan_where_documented(points) -> None:
    residuals, _, groups = points
    constant = score(residuals, np.ones(2000), groups, np.random.default_rng(5), draws=5)
    assert np.isnan(constant.spearman.value)
    assert np.isfinite(constant.nll.interval.low)
    alone = score(residuals, np.ones(2000), np.zeros(2000, dtype=int), np.random.default_rng(6))
    assert np.isfinite(alone.nll.value)
    assert np.isnan(alone.sharpness.interval.low)
    assert np.isnan(alone.coverage[0.9].interval.high)


def test_wrong_error_bars_are_refused(points) -> None:
    residuals, std, groups = points
    with pytest.raises(ValueError, match="std of point 0 is -"):
        score(residuals, -std, groups, np.random.default_rng(7))


def test_levels_of_histograms_are_scored() -> None:
    generator = np.random.default_rng(9)
    u, groups = generator.random(3000), np.arange(3000) // 10
    found = score_levels(u, u + 1.0, u - 1.0, groups, generator, draws=200)
    assert found.crps.value == pytest.approx(np.mean(u) + 1.0)
    assert found.nll.value == pytest.approx(np.mean(u) - 1.0)
    for level, estimate in found.coverage.items():
        assert estimate.value == pytest.approx(level, abs=0.03)
        assert estimate.interval.low < estimate.value < estimate.interval.high
    assert found.pit_ks.value == pit.kolmogorov_smirnov(u)
    hump = score_levels(0.5 + 0.25 * (u - 0.5), u, u, groups, generator, draws=50)
    assert hump.coverage[0.5].value == 1.0


def test_coverage_of_other_bounds() -> None:
    z = np.random.default_rng(10).standard_t(2, size=4000)
    few, many = (fit_conformal(z[:n], np.ones(n), np.arange(n)) for n in (15, 2000))

    def spread(conformal):
        return lambda level: tuple(np.full(2000, b) for b in conformal.bounds(level))

    new, groups = z[2000:], np.arange(2000)
    found = coverage_of_bounds(new, spread(many), groups, np.random.default_rng(11), draws=100)
    for level, estimate in found.items():
        assert estimate.value == pytest.approx(level, abs=0.03)
        assert estimate.interval.low < estimate.value < estimate.interval.high
    found = coverage_of_bounds(new, spread(few), groups, np.random.default_rng(12), draws=10)
    assert np.isnan(found[0.95].value)  # 19 groups are needed
    assert np.isfinite(found[0.9].value)


@pytest.mark.slow
@pytest.mark.parametrize("count", [300, 50_000])
def test_fifty_thousand_points_are_scored(count: int) -> None:
    generator = np.random.default_rng(8)
    groups = np.array([f"C7H6O2#{i % count}" for i in range(50_000)])
    std = generator.lognormal(size=50_000)
    residuals = std * generator.normal(size=50_000)
    scores = score(residuals, std, groups, generator)
    assert (scores.count, scores.groups) == (50_000, count)
    assert scores.coverage[0.90].value == pytest.approx(0.9, abs=0.01)
    assert scores.miscalibration_area.value < 0.01
