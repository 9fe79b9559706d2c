import math

import numpy as np
import pytest
from scipy import optimize, stats

from surefoot.evaluate.calibration import central_bound, coverage
from surefoot.evaluate.recalibrate import (
    OutOfFold,
    balanced_factor,
    ensemble_factor,
    fit_factor,
    fit_shared_error,
    gaussian_factor,
    residuals_out_of_fold,
)

POINTS = 30_000
NEW = 40_000


def simulate(
    shared: float, members: int, points: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and members whose variances differ by orders of magnitude between points."""
    width = np.exp(generator.normal(size=points))
    targets = 10.0 * generator.normal(size=points)
    bias = np.sqrt(shared) * generator.normal(size=points)
    return targets, targets + width * (bias + generator.normal(size=(members, points)))


def leave_out(members: int, points: int, unseen: int, generator: np.random.Generator) -> np.ndarray:
    ranks = np.argsort(generator.random((members, points)), axis=0)
    return ranks < unseen


@pytest.mark.parametrize("shared", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(("members", "unseen"), [(8, 2), (6, 3)])
def test_factor_from_few_unseen_members_holds_for_all(
    shared: float, members: int, unseen: int
) -> None:
    generator = np.random.default_rng(100 * members + int(10 * shared))
    targets, predictions = simulate(shared, members, POINTS, generator)
    held_out = leave_out(members, POINTS, unseen, generator)
    found = fit_factor(targets, predictions, held_out)
    # The standard error of ln(c + 1/n) is √(2 (ν + 3) / (ν N)): 1.6 % for n = 2, 1.3 % for n = 3.
    spread = np.sqrt(2 * (unseen + 2) / ((unseen - 1) * POINTS)) * (shared + 1 / unseen)
    assert abs(found.shared_error - shared) < 3 * spread
    assert found.points == POINTS

    targets, predictions = simulate(shared, members, NEW, generator)
    residuals = targets - np.mean(predictions, axis=0)
    std = found.value * np.std(predictions, axis=0, ddof=1)
    # The error of c weighs more in factor² ~ c + 1/M than in c + 1/n, most of all where c = 0.
    error = 3 * spread / (shared + 1 / members)
    assert np.mean((residuals / std) ** 2) == pytest.approx(1.0, abs=error + 0.03)
    # z is a Student t with M − 1 degrees of freedom, scaled to variance 1: even with the exact
    # factor it covers 90.7 % (M = 8) and 91.3 % (M = 6).
    assert coverage(residuals, std, 0.90) == pytest.approx(0.90, abs=0.03)


@pytest.mark.parametrize("members", [4, 6, 8, 20])
def test_known_factor_gives_scaled_student_z(members: int) -> None:
    targets, predictions = simulate(0.5, members, NEW, np.random.default_rng(members))
    residuals = targets - np.mean(predictions, axis=0)
    std = ensemble_factor(0.5, members) * np.std(predictions, axis=0, ddof=1)
    for level in (0.5, 0.9, 0.95):
        bound = central_bound(level) * np.sqrt((members - 1) / (members - 3))
        exact = 1 - 2 * stats.t.sf(bound, members - 1)
        error = 3 * np.sqrt(exact * (1 - exact) / NEW)
        assert coverage(residuals, std, level) == pytest.approx(exact, abs=error)


def test_unequal_counts_are_pooled() -> None:
    generator = np.random.default_rng(1)
    targets, predictions = simulate(0.7, 8, POINTS, generator)
    few = leave_out(8, POINTS, 2, generator)
    many = leave_out(8, POINTS, 6, generator)
    mixed = np.where(np.arange(POINTS) % 2 == 0, few, many)
    assert fit_factor(targets, predictions, mixed).shared_error == pytest.approx(0.7, rel=0.06)


def test_fit_is_the_maximum_of_the_student_likelihood() -> None:
    generator = np.random.default_rng(2)
    count = generator.integers(2, 6, size=400)
    ratios = np.sqrt(1.3 + 1 / count) * generator.standard_t(count - 1)
    std = generator.lognormal(size=400)

    def loss(shared: float) -> float:
        return -float(np.sum(stats.t.logpdf(ratios, count - 1, 0.0, np.sqrt(shared + 1 / count))))

    best = optimize.minimize_scalar(
        loss, bounds=(0.0, 10.0), method="bounded", options={"xatol": 1e-7}
    ).x
    assert fit_shared_error(OutOfFold(ratios * std, std, count)) == pytest.approx(best, abs=1e-4)


def test_small_residuals_give_no_shared_error() -> None:
    none = OutOfFold(np.zeros(10), np.ones(10), np.full(10, 2))
    assert fit_shared_error(none) == 0.0


def test_one_tiny_spread_does_not_decide() -> None:
    generator = np.random.default_rng(3)
    targets, predictions = simulate(0.5, 8, 4000, generator)
    point = residuals_out_of_fold(targets, predictions, leave_out(8, 4000, 2, generator))
    before = fit_shared_error(point)
    point.std[0] = 1e-12
    assert fit_shared_error(point) == pytest.approx(before, rel=0.01)


def test_factor_is_the_best_in_mean_log_score() -> None:
    generator = np.random.default_rng(4)
    targets, predictions = simulate(0.5, 8, 200_000, generator)
    residuals = targets - np.mean(predictions, axis=0)
    best = gaussian_factor(residuals, np.std(predictions, axis=0, ddof=1))
    assert ensemble_factor(0.5, 8) == pytest.approx(best, rel=0.01)
    assert ensemble_factor(0.5, 8) == pytest.approx(np.sqrt(0.625 * 7 / 5))


@pytest.mark.parametrize("members", [2, 3])
def test_intervals_of_few_members_hold_95_percent(members: int) -> None:
    generator = np.random.default_rng(5)
    targets, predictions = simulate(0.5, members, 100_000, generator)
    residuals = targets - np.mean(predictions, axis=0)
    std = ensemble_factor(0.5, members) * np.std(predictions, axis=0, ddof=1)
    assert coverage(residuals, std, 0.95) == pytest.approx(0.95, abs=0.004)
    assert coverage(residuals, std, 0.9) > 0.925


def test_unseen_members_only() -> None:
    targets = np.array([1.0, 2.0])
    members = np.array([[0.0, np.nan], [2.0, 1.0], [np.nan, 2.0], [4.0, 6.0]], dtype=np.float32)
    unseen = np.array([[True, False], [True, True], [False, True], [False, True]])
    found = residuals_out_of_fold(targets, members, unseen)
    assert np.array_equal(found.count, [2, 3])
    assert np.allclose(found.residuals, [0.0, -1.0])
    assert np.allclose(found.std, [np.sqrt(2.0), np.sqrt(7.0)])


def test_too_few_unseen_members_are_refused() -> None:
    unseen = np.array([[True, True], [True, False], [False, False]])
    with pytest.raises(ValueError, match=r"Point 1 is unseen by 1 of 3 members .*at least 2"):
        residuals_out_of_fold(np.zeros(2), np.zeros((3, 2)), unseen)


def test_agreeing_members_are_refused() -> None:
    members = np.array([[1.0, 2.0], [3.0, 2.0]])
    with pytest.raises(ValueError, match=r"std of point 1 is 0\.0 .*Leave out"):
        fit_factor(np.zeros(2), members, np.ones((2, 2), dtype=bool))


def test_nan_predictions_and_targets_are_refused() -> None:
    unseen = np.ones((2, 2), dtype=bool)
    with pytest.raises(ValueError, match="residual of point 0 is nan"):
        fit_factor(np.zeros(2), np.array([[np.nan, 0.0], [1.0, 1.0]]), unseen)
    with pytest.raises(ValueError, match="residual of point 1 is nan"):
        fit_factor(np.array([0.0, np.nan]), np.array([[0.0, 0.0], [1.0, 1.0]]), unseen)


def test_wrong_ensembles_are_refused() -> None:
    with pytest.raises(ValueError, match="ensemble of 1 has no spread"):
        ensemble_factor(0.5, 1)
    with pytest.raises(ValueError, match=r"shared error c is -0\.1"):
        ensemble_factor(-0.1, 8)


def test_gaussian_factor_makes_z_of_size_one() -> None:
    assert gaussian_factor(np.array([2.0, -6.0]), np.array([1.0, 3.0])) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="std of point 0 is 0"):
        gaussian_factor(np.ones(1), np.zeros(1))


@pytest.mark.parametrize("draws", [4, 8, 30])
@pytest.mark.parametrize("width", [0.02, 1.0, 50.0])
def test_balanced_draws_have_no_deviation_of_their_mean(draws: int, width: float) -> None:
    """However small the errors: the mean is the point, and z at new points has the size one."""
    generator = np.random.default_rng(draws)
    variance = generator.lognormal(size=40_000)
    off = width * np.sqrt(variance) * generator.normal(size=len(variance))
    noise = generator.normal(size=(draws, len(variance))) * np.sqrt(variance)
    std = noise.std(0, ddof=1)  # about the point: the draws are centred on it
    found = balanced_factor(off, std, draws)
    expected = width * math.sqrt((draws - 1) / (draws - 3))
    assert found.value == pytest.approx(expected, rel=0.03)
    assert found.shared_error is None


def test_balanced_draws_need_an_error() -> None:
    with pytest.raises(ValueError, match="all residuals are zero"):
        balanced_factor(np.zeros(3), np.ones(3), 4)
