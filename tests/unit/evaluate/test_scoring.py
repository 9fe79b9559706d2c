import numpy as np
import pytest
import scoringrules
from scipy import stats

from surefoot.evaluate.scoring import (
    ensemble_crps,
    gaussian_crps,
    gaussian_nll,
    standardize,
)


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    std = np.exp(generator.normal(size=300))
    return 2.0 * std * generator.normal(size=300), std


def test_nll_agrees_with_others(points: tuple[np.ndarray, np.ndarray]) -> None:
    residuals, std = points
    found = gaussian_nll(residuals, std)
    assert np.allclose(found, scoringrules.logs_normal(residuals, 0.0, std), rtol=1e-12)
    assert np.allclose(found, -stats.norm(0.0, std).logpdf(residuals), rtol=1e-12)


def test_crps_agrees_with_others(points: tuple[np.ndarray, np.ndarray]) -> None:
    residuals, std = points
    reference = scoringrules.crps_normal(residuals, 0.0, std)
    assert np.allclose(gaussian_crps(residuals, std), reference, rtol=1e-10)


def test_crps_is_the_integral_that_defines_it() -> None:
    y = np.linspace(-30.0, 30.0, 600_001)
    squares = (stats.norm.cdf(y / 1.7) - (y >= 0.8)) ** 2
    integral = np.trapezoid(squares, y)
    found = gaussian_crps(np.array([0.8]), np.array([1.7]))[0]
    assert found == pytest.approx(integral, rel=1e-4)


def test_zero_residuals_have_closed_forms() -> None:
    std = np.array([0.5, 1.0, 4.0])
    zero = np.zeros(3)
    assert np.allclose(gaussian_nll(zero, std), np.log(std * np.sqrt(2 * np.pi)))
    assert np.allclose(gaussian_crps(zero, std), std * (np.sqrt(2) - 1) / np.sqrt(np.pi))


def test_small_error_bars_give_the_absolute_error() -> None:
    residuals = np.array([-3.0, 0.2])
    assert np.allclose(gaussian_crps(residuals, np.full(2, 1e-9)), np.abs(residuals), rtol=1e-7)


def test_the_true_error_bar_scores_best_on_average() -> None:
    residuals = np.random.default_rng(1).normal(size=20_000)
    for rule in (gaussian_nll, gaussian_crps):
        true, narrow, wide = (
            np.mean(rule(residuals, np.full(20_000, width))) for width in (1.0, 0.8, 1.25)
        )
        assert true < min(narrow, wide)


def test_single_precision_gives_double() -> None:
    z = standardize(np.array([1.0], np.float32), np.array([4.0], np.float32))
    assert z.dtype == np.float64
    assert z[0] == 0.25


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_wrong_error_bars_are_refused(value: float) -> None:
    std = np.array([1.0, 1.0, value])
    for rule in (gaussian_nll, gaussian_crps):
        with pytest.raises(ValueError, match=f"std of point 2 is {value} .*positive and finite"):
            rule(np.zeros(3), std)


def test_nan_residuals_are_refused() -> None:
    with pytest.raises(ValueError, match="residual of point 0 is nan"):
        gaussian_nll(np.array([np.nan]), np.ones(1))


def test_crps_of_an_ensemble_agrees_with_others() -> None:
    generator = np.random.default_rng(2)
    targets, draws = generator.normal(size=40), generator.normal(size=(7, 40))
    reference = scoringrules.crps_ensemble(targets, draws.T, estimator="nrg")
    assert np.allclose(ensemble_crps(targets, draws), reference, rtol=1e-10)


def test_crps_of_one_draw_is_the_absolute_error() -> None:
    assert np.allclose(ensemble_crps(np.array([1.0, -2.0]), np.zeros((1, 2))), [1.0, 2.0])


def test_crps_of_many_draws_is_that_of_their_distribution() -> None:
    draws = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    assert ensemble_crps(np.zeros(1), draws)[0] == pytest.approx(0.23369, abs=1e-4)


def test_draws_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="CRPS of 0 draws"):
        ensemble_crps(np.zeros(1), np.zeros((0, 1)))
    with pytest.raises(ValueError, match="not all finite"):
        ensemble_crps(np.zeros(1), np.array([[np.nan]]))
