"""Factors of members that state a noise, from simulated ensembles whose truth is known."""

import numpy as np
import pytest

from surefoot.evaluate.mixture import mixture_factor
from surefoot.evaluate.recalibrate import gaussian_factor

MEMBERS = 8


def ensemble(
    generator: np.random.Generator, points: int, members: int, noise: float, shared: float,
    ratio: float, width: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Residual of the mean, stated noise and spread of members that have not seen the points."""
    stated = np.exp(generator.normal(size=points))
    variance = ratio * stated * np.exp(width * generator.normal(size=points))
    deviations = generator.normal(size=(members, points)) * np.sqrt(variance)
    error = np.sqrt(noise * stated) * generator.normal(size=points)
    error += np.sqrt(shared * variance) * generator.normal(size=points)
    return error - deviations.mean(0), stated, deviations.var(0, ddof=1)


@pytest.mark.parametrize("ratio", [0.03, 1.0, 30.0])
@pytest.mark.parametrize(
    ("noise", "shared", "width"), [(1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (4.0, 0.0, 0.0)]
)
def test_error_bars_of_all_members_hold_at_new_points(noise, shared, ratio, width) -> None:
    """Two of eight have not seen a calibration point; a new one none has seen."""
    generator = np.random.default_rng(3)
    truth = {"noise": noise, "shared": shared, "ratio": ratio, "width": width}
    residuals, stated, spread = ensemble(generator, 3000, 2, **truth)
    found = mixture_factor(residuals, stated, spread, np.full(3000, 2), MEMBERS)
    new, new_stated, new_spread = ensemble(generator, 50_000, MEMBERS, **truth)
    std = np.sqrt(new_stated + new_spread)
    assert found == pytest.approx(gaussian_factor(new, std), rel=0.08)
    assert np.mean(np.abs(new) < 1.96 * found * std) == pytest.approx(0.95, abs=0.02)


def test_points_unseen_by_different_numbers_go_together() -> None:
    generator = np.random.default_rng(4)
    truth = {"noise": 1.0, "shared": 0.5, "ratio": 2.0, "width": 0.5}
    parts = [ensemble(generator, 2000, members, **truth) for members in (2, 5)]
    residuals, stated, spread = (np.concatenate(part) for part in zip(*parts, strict=True))
    found = mixture_factor(residuals, stated, spread, np.repeat([2, 5], 2000), MEMBERS)
    new, new_stated, new_spread = ensemble(generator, 50_000, MEMBERS, **truth)
    expected = gaussian_factor(new, np.sqrt(new_stated + new_spread))
    assert found == pytest.approx(expected, rel=0.05)


def test_the_unit_does_not_matter() -> None:
    residuals, stated, spread = ensemble(np.random.default_rng(5), 500, 2, 1.0, 0.3, 1.0, 0.5)
    one, other = (
        mixture_factor(unit * residuals, unit**2 * stated, unit**2 * spread, np.full(500, 2), 8)
        for unit in (1.0, 1000.0)
    )
    assert one == pytest.approx(other, rel=1e-3)


def test_no_noise_is_refused() -> None:
    ones = np.ones(3)
    with pytest.raises(ValueError, match="point 1 is 0"):
        mixture_factor(ones, np.array([1.0, 0.0, 1.0]), ones, np.full(3, 2), 8)
