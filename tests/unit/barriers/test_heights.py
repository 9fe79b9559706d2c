"""Heights of curves and their error bars."""

import numpy as np
import pytest

from surefoot.barriers.heights import Barrier, Curve, rise, scan_barrier
from surefoot.evaluate.calibration import central_bound

UPHILL = np.array([-10.0, -9.6, -9.2, -9.5, -9.9])


def curve_of(members: np.ndarray, factor: float | None = None) -> Curve:
    mean = members.mean(0)
    return Curve(energies=mean, deviations=members - mean, freedom=len(members) - 1, factor=factor)


@pytest.fixture
def members(rng) -> np.ndarray:
    return UPHILL + 0.05 * rng.normal(size=(6, len(UPHILL)))


@pytest.mark.parametrize(
    ("energies", "forward", "reverse", "top"),
    [
        ([0.0, 1.0, 3.0, 1.0, 0.5], 3.0, 2.5, "inside"),
        ([0.0, 1.0, 2.0], 2.0, 0.0, "last"),
        ([2.0, 1.0, 0.0], 0.0, 2.0, "first"),
        ([-5.0, -5.0, -5.0], 0.0, 0.0, "first"),
        ([1.0, -2.0, 1.0], 0.0, 0.0, "first"),  # a valley
    ],
)
def test_height_from_either_end(energies, forward, reverse, top) -> None:
    curve = Curve(energies=np.array(energies))
    labels = 2 * np.array(energies)
    ahead, back = scan_barrier(curve, labels), scan_barrier(curve, labels, reverse=True)
    assert (ahead.value, back.value) == (forward, reverse)
    assert (ahead.reference, back.reference) == (2 * forward, 2 * reverse)
    # A barrier that is 0 because the scan has no maximum inside says so.
    assert ahead.top == back.top == ahead.reference_top == top
    assert ahead.std is None
    assert ahead.interval(0.9) is None
    assert not ahead.holds(0.9)


def test_spread_of_members_about_the_mean_curve() -> None:
    """Each member has a maximum of its own, and none need be that of the mean."""
    curves = np.array([[0.0, 1.0, 5.0, 0.0], [0.0, 6.0, 3.0, 3.0], [0.0, 2.0, 1.0, 0.0]])
    found = scan_barrier(curve_of(curves), None)
    assert found.value == pytest.approx(3.0)
    # Heights 5, 6 and 2 about 3, not about their own mean 4.33.
    assert found.std == pytest.approx(np.sqrt((4 + 9 + 1) / 2))
    back = scan_barrier(curve_of(curves), None, reverse=True)
    assert back.value == pytest.approx(2.0)
    assert back.std == pytest.approx(np.sqrt((9 + 1 + 0) / 2))  # heights 5, 3 and 2


def test_errors_common_to_all_points_cancel(members, rng) -> None:
    plain = scan_barrier(curve_of(members), None)
    shifted = scan_barrier(curve_of(members + 100.0 * rng.normal(size=(6, 1))), None)
    assert plain.std is not None
    assert plain.std > 0
    assert shifted.std == pytest.approx(plain.std, rel=1e-9)


def test_error_bars_grow_with_the_factor() -> None:
    """All members have their maximum at the same point, so that heights are linear in them."""
    spread = UPHILL * (1 + 0.02 * np.arange(-2, 3))[:, None]
    plain = scan_barrier(curve_of(spread), None)
    wide = scan_barrier(curve_of(spread, 2.5), None)
    assert plain.value == wide.value == pytest.approx(0.8)
    assert plain.std == pytest.approx(0.8 * 0.02 * np.sqrt(2.5))
    assert wide.std == pytest.approx(2.5 * 0.8 * 0.02 * np.sqrt(2.5))
    assert wide.uncalibrated == pytest.approx(plain.std)
    before, after = wide.interval(0.9, calibrated=False), wide.interval(0.9)
    assert before == plain.interval(0.9)
    assert after is not None
    assert before is not None
    assert after[1] - wide.value == pytest.approx(2.5 * (before[1] - wide.value))


def test_rise_of_two_structures_counts_their_covariance(rng) -> None:
    """σ² = |z_a − z_b|², whatever the images between them say."""
    members = rng.normal(size=(400, 3)) @ np.array([[1.0, 0.9, 0.0], [0, 0.3, 0.2], [0, 0, 0.5]])
    found = rise(curve_of(members, 2.0), 0, 1)
    covariance = np.cov(members.T)
    expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert found.uncalibrated == pytest.approx(np.sqrt(expected))
    assert found.std == pytest.approx(2 * np.sqrt(expected))
    assert found.value == pytest.approx(members.mean(0)[1] - members.mean(0)[0])
    # A sum in quadrature would say something else.
    assert expected < 0.6 * (covariance[0, 0] + covariance[1, 1])


def test_difference_from_the_first_point(members) -> None:
    std = curve_of(members, 1.5).from_first()
    assert std is not None
    assert std[0] == 0.0
    assert std[2] == pytest.approx(1.5 * np.std(members[:, 2] - members[:, 0], ddof=1))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_interval(level) -> None:
    found = Barrier(value=2.0, std=0.3, reference=None)
    width = central_bound(level) * 0.3
    assert found.interval(level) == pytest.approx((2.0 - width, 2.0 + width))
    low, high = Barrier(value=0.1, std=5.0, reference=None).interval(level) or (-1.0, -1.0)
    assert low == 0.0
    assert high == pytest.approx(0.1 + central_bound(level) * 5.0)


@pytest.mark.parametrize(
    ("reference", "held"), [(1.0, True), (1.5, True), (1.7, False), (0.3, False), (None, False)]
)
def test_reference_in_the_interval(reference, held) -> None:
    assert Barrier(value=1.0, std=0.4, reference=reference).holds(0.9) is held  # 0.34 … 1.66


def test_two_barriers_of_zero_agree() -> None:
    assert Barrier(value=0.0, std=0.0, reference=0.0).holds(0.9)
    assert Barrier(value=0.0, std=0.0, reference=1e-9).holds(0.9)
    assert not Barrier(value=0.0, std=0.0, reference=1e-3).holds(0.9)
