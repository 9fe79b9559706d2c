"""Refinement of saddle points: known ones from somewhere near them."""

import numpy as np
import pytest
import torch
from ase import Atoms

from surefoot.barriers.refine import RefineSettings, find_step, refine_saddles, update_hessian
from surefoot.barriers.vibrations import find_vibrations

from .conftest import SADDLES, SCALE, Formula, at, leps, muller_brown

UPHILL = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [1.0, -1.0, 0]])


def test_both_saddle_points_from_near_them(plane) -> None:
    starts = [at(x + 0.12, y - 0.15) for (x, y), _ in SADDLES]
    directions = [UPHILL] * 2
    found = refine_saddles(starts, directions, plane, RefineSettings(fmax=1e-4))
    for one, (place, height) in zip(found, SADDLES, strict=True):
        assert one.status == "converged"
        np.testing.assert_allclose(one.atoms.positions[-1, :2], place, atol=1e-3)
        assert one.energy == pytest.approx(SCALE * height, abs=1e-5)
        (imaginary, *others) = find_vibrations(one.atoms, plane).frequencies
        assert imaginary < 0 < min(others)
        assert (one.atoms.positions[0] == 9.0).all()  # fixed
        assert one.steps < 25


def test_the_way_over_decides_which_mode_is_followed(leps_surface) -> None:
    """A hydrogen on its way, off the line and off the middle, with the mode of the transfer."""
    start = Atoms("CHC", positions=[[0, 0, 0], [1.38, 0.08, 0.02], [2.66, 0, 0]])
    (found,) = refine_saddles(
        [start], [np.array([[0, 0, 0], [1.0, 0, 0], [0, 0, 0]])], leps_surface, RefineSettings()
    )
    assert found.status == "converged"
    lengths = found.atoms.get_distances(1, [0, 2])
    assert lengths[0] == pytest.approx(lengths[1], abs=2e-3)
    assert found.atoms.get_angle(0, 1, 2) == pytest.approx(180.0, abs=0.5)
    frequencies = find_vibrations(found.atoms, leps_surface).frequencies
    assert (frequencies < -20).sum() == 1


def test_what_does_not_converge_says_so(plane) -> None:
    def torn(positions: torch.Tensor) -> torch.Tensor:
        return torch.where(positions[:, -1, 0] > 5, torch.nan, muller_brown(positions))

    lost, slow = refine_saddles(
        [at(6.0, 0.0), at(-0.7, 0.5)],
        [UPHILL, UPHILL],
        Formula(torn),
        RefineSettings(steps=1, fmax=1e-6),
    )
    assert (lost.status, lost.steps) == ("broken", 0)
    assert (slow.status, slow.steps) == ("exhausted", 1)
    assert refine_saddles([], [], plane, RefineSettings()) == []


def test_step_climbs_one_mode_and_descends_all_others(rng) -> None:
    values, slopes = np.array([-2.0, 0.5, 3.0, -0.4]), 1e-3 * rng.normal(size=4)
    step = find_step(values, slopes, 0)
    assert step[0] * slopes[0] > 0  # uphill
    assert (step[1:] * slopes[1:] < 0).all()  # downhill, also along the other negative mode
    positive = np.array([-2.0, 0.5, 3.0])
    # Near the saddle it is Newton's step.
    np.testing.assert_allclose(
        find_step(positive, slopes[:3], 0), -slopes[:3] / positive, rtol=1e-4
    )


def test_updated_hessian_gives_the_change_of_slope(rng) -> None:
    matrix = rng.normal(size=(6, 6))
    true, guess = matrix + matrix.T, np.eye(6)
    step = rng.normal(size=6)
    found = update_hessian(guess, step, true @ step)
    np.testing.assert_allclose(found @ step, true @ step, atol=1e-12)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    np.testing.assert_array_equal(update_hessian(guess, step, guess @ step), guess)


def test_leps_is_smooth() -> None:
    """The surface of the tests is one."""
    place = torch.tensor([[[0.0, 0, 0], [1.3, 0, 0], [2.6, 0, 0]]], dtype=torch.float64)
    assert leps(place).isfinite().all()
