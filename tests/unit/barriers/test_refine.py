"""Refinement of saddle points: known ones from somewhere near them."""

import numpy as np
import pytest
import torch
from ase import Atoms

from surefoot.barriers.refine import (
    RefineSettings,
    bend_step,
    find_step,
    refine_saddles,
    update_hessian,
)
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


def test_soft_curvatures_stay_positive_in_updates(rng) -> None:
    """Those of a minimum, and the negative one of a saddle point alone."""
    matrix = rng.normal(size=(6, 6))
    minimum = matrix @ matrix.T + 0.1 * np.eye(6)
    found = np.eye(6)
    for _ in range(5):
        step = 0.1 * rng.normal(size=6)
        found = update_hessian(found, step, minimum @ step)
        assert np.linalg.eigvalsh(found)[0] > 0
    across = np.zeros(6)
    across[0], change = 1.0, np.zeros(6)
    change[1] = (
        0.3  # at right angles to the step, and H of it is nothing: v would be without bounds
    )
    flat = update_hessian(np.diag([0.0, 1, 1, 1, 1, 1]), across, change)
    np.testing.assert_allclose(flat @ across, change, atol=1e-12)


def test_bent_steps_turn_groups_and_keep_bonds() -> None:
    """Hydrogens of ethane turn about the axis; straight steps would stretch every bond."""
    turns = 2 * np.pi / 3 * np.arange(3)
    ring = np.stack([np.cos(turns), np.sin(turns), np.zeros(3)], 1)
    places = [[0, 0, 0], [0, 0, 1.53], *(ring - [0, 0, 0.36]), *(-ring + [0, 0, 1.89])]
    atoms = Atoms("C2H6", positions=places)
    step = np.zeros((8, 3))
    step[2:5] = 0.3 * np.cross([0, 0, 1.0], atoms.positions[2:5])
    bent = atoms.copy()
    bent.positions += bend_step(atoms, step, np.arange(8))
    for one, other in ((0, 2), (0, 3), (1, 2), (2, 3)):
        before, straight = atoms.get_distance(one, other), atoms.copy()
        straight.positions += step
        assert straight.get_distance(one, other) > before + 0.02
        assert bent.get_distance(one, other) == pytest.approx(before, abs=1e-4)
    assert bent.get_dihedral(2, 0, 1, 5) != pytest.approx(atoms.get_dihedral(2, 0, 1, 5), abs=5)
    # Stretching is what it was, and atoms far apart are left alone.
    stretch = np.zeros((8, 3))
    stretch[:, 2] = 0.02 * atoms.positions[:, 2]
    np.testing.assert_allclose(bend_step(atoms, stretch, np.arange(8)), stretch, atol=1e-3)
    lone = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 9.0]])
    np.testing.assert_array_equal(bend_step(lone, stretch[:2], np.arange(2)), stretch[:2])


def test_leps_is_smooth() -> None:
    """The surface of the tests is one."""
    place = torch.tensor([[[0.0, 0, 0], [1.3, 0, 0], [2.6, 0, 0]]], dtype=torch.float64)
    assert leps(place).isfinite().all()
