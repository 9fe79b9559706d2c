import numpy as np
import pytest
from scipy import integrate, stats

from surefoot.evaluate.calibration import (
    LEVEL_GRID,
    calibration_curve,
    calibration_error,
    calibration_error_by_counts,
    central_bound,
    coverage,
    miscalibration_area,
    miscalibration_area_by_counts,
    sharpness,
    spearman,
    spearman_by_counts,
)

LEVELS = np.array([0.9, 0.5, 0.68])


def quantile_points(count: int) -> np.ndarray:
    """Points whose empirical distribution is as close to a normal as that many points can be."""
    return stats.norm.ppf((np.arange(count) + 0.5) / count)


def test_coverage_counts_points_on_the_bound() -> None:
    bound = central_bound(0.95)
    assert bound == pytest.approx(1.959963984540054)
    residuals = np.array([0.0, 2.0 * bound, -2.0 * bound, 2.1 * bound])
    assert coverage(residuals, np.full(4, 2.0), 0.95) == 0.75


def test_true_error_bars_lie_on_the_diagonal() -> None:
    std = np.random.default_rng(0).lognormal(size=20_000)
    curve = calibration_curve(std * quantile_points(20_000), std, LEVELS)
    assert np.allclose(curve, LEVELS, atol=1e-4)


def test_overconfident_coverage_has_its_closed_form() -> None:
    residuals = quantile_points(20_000)
    curve = calibration_curve(residuals, np.full(20_000, 0.5), LEVELS)
    expected = [2 * stats.norm.cdf(0.5 * central_bound(level)) - 1 for level in LEVELS]
    assert np.allclose(curve, expected, atol=1e-4)
    assert coverage(residuals, np.full(20_000, 0.5), 0.5) == curve[1]


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5])
def test_levels_are_probabilities(level: float) -> None:
    with pytest.raises(ValueError, match=f"level of an interval is {level}.*0.95"):
        coverage(np.ones(2), np.ones(2), level)


def test_area_of_true_error_bars_vanishes() -> None:
    assert miscalibration_area(quantile_points(20_000), np.ones(20_000)) < 1e-4


def test_area_of_true_random_error_bars_is_what_chance_gives() -> None:
    generator = np.random.default_rng(3)
    areas = [miscalibration_area(generator.normal(size=1000), np.ones(1000)) for _ in range(300)]
    # Mean of ∫ |Brownian bridge| is √(2/π) · π/8; its spread over 300 samples is about 3 %.
    assert np.mean(areas) * np.sqrt(1000) == pytest.approx(np.sqrt(2 / np.pi) * np.pi / 8, rel=0.1)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_area_of_wrong_widths_is_the_integral(factor: float) -> None:
    def gap(p: float) -> float:
        return abs(2 * stats.norm.cdf(factor * central_bound(p)) - 1 - p)

    expected = integrate.quad(gap, 1e-12, 1 - 1e-12)[0]
    found = miscalibration_area(quantile_points(20_000), np.full(20_000, factor))
    assert found == pytest.approx(expected, abs=1e-4)


def test_area_of_extremes() -> None:
    assert miscalibration_area(np.zeros(3), np.ones(3)) == pytest.approx(0.5)
    assert miscalibration_area(np.full(3, 1e9), np.ones(3)) == pytest.approx(0.5)
    middle = central_bound(0.5)  # F is 0 up to ½ and 1 from there: two triangles of ⅛
    assert miscalibration_area(np.array([middle]), np.ones(1)) == pytest.approx(0.25)


def test_area_equals_a_fine_grid() -> None:
    residuals = np.random.default_rng(4).standard_t(3, size=57)
    levels = (np.arange(20_000) + 0.5) / 20_000
    grid = np.mean(np.abs(calibration_curve(residuals, np.ones(57), levels) - levels))
    assert miscalibration_area(residuals, np.ones(57)) == pytest.approx(grid, abs=1e-4)


def test_calibration_error_without_any_coverage_is_a_third() -> None:
    assert calibration_error(np.full(10, 1e9), np.ones(10)) == pytest.approx(1 / 3, abs=1e-4)


def test_calibration_error_of_true_error_bars_vanishes() -> None:
    generator = np.random.default_rng(7)
    assert calibration_error(generator.normal(size=10_000), np.ones(10_000)) < 1e-3
    assert calibration_error(quantile_points(10_000), np.ones(10_000)) < 1e-8
    errors = [calibration_error(generator.normal(size=200), np.ones(200)) for _ in range(300)]
    assert np.mean(errors) == pytest.approx(1 / (6 * 200), rel=0.2)


def test_calibration_error_is_the_mean_square_of_the_curve() -> None:
    residuals = np.random.default_rng(8).standard_t(3, size=91)
    curve = calibration_curve(residuals, np.ones(91), LEVEL_GRID)
    expected = np.mean((curve - LEVEL_GRID) ** 2)
    assert calibration_error(residuals, np.ones(91)) == pytest.approx(expected, abs=1e-12)


def test_spearman_agrees_with_scipy_with_ties() -> None:
    generator = np.random.default_rng(5)
    std = np.round(generator.lognormal(size=500), 1) + 0.1
    residuals = np.round(std * generator.normal(size=500), 1)
    expected = stats.spearmanr(np.abs(residuals), std).statistic
    assert spearman(residuals, std) == pytest.approx(expected, abs=1e-12)


def test_spearman_of_perfect_and_reversed_order() -> None:
    std = np.array([1.0, 2.0, 3.0])
    assert spearman(np.array([-1.0, 2.0, -5.0]), std) == pytest.approx(1.0)
    assert spearman(np.array([5.0, -2.0, 1.0]), std) == pytest.approx(-1.0)


def test_spearman_without_an_order_is_nan() -> None:
    assert np.isnan(spearman(np.array([1.0, 2.0]), np.full(2, 0.3)))
    assert np.isnan(spearman(np.array([1.0, -1.0]), np.array([1.0, 2.0])))
    assert np.isnan(spearman(np.ones(1), np.ones(1)))


@pytest.mark.parametrize(
    ("by_counts", "plain"),
    [
        (spearman_by_counts, spearman),
        (miscalibration_area_by_counts, miscalibration_area),
        (calibration_error_by_counts, calibration_error),
    ],
)
def test_counts_are_repeated_points(by_counts, plain) -> None:
    generator = np.random.default_rng(6)
    std = np.round(generator.lognormal(size=80), 1) + 0.1
    residuals = std * generator.normal(size=80)
    counts = generator.integers(4, size=80)
    drawn = np.repeat(np.arange(80), counts)
    found = by_counts(residuals, std)(counts)
    assert found == pytest.approx(plain(residuals[drawn], std[drawn]), abs=1e-12)


def test_sharpness_is_the_root_mean_square() -> None:
    assert sharpness(np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))
    with pytest.raises(ValueError, match="std of point 1 is 0"):
        sharpness(np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="no error bars"):
        sharpness(np.zeros(0))


@pytest.mark.parametrize("measure", [miscalibration_area, spearman, calibration_error])
def test_wrong_error_bars_are_refused(measure) -> None:
    with pytest.raises(ValueError, match=r"std of point 1 is -1\.0"):
        measure(np.zeros(2), np.array([1.0, -1.0]))
