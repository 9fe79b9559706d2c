"""Rotation error and asymmetry of the Jacobian, of forces whose answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from surefoot.evaluate.directness import (
    Arrangement,
    Forces,
    jacobian_asymmetry,
    measure_directness,
    random_rotations,
    rotation_error,
)

ATOMS = 5
NO_CELL = np.zeros((3, 3))
ALL = np.ones(ATOMS, bool)


@pytest.fixture
def structure(rng) -> Arrangement:
    return Arrangement(positions=rng.normal(size=(ATOMS, 3)), cell=NO_CELL, free=ALL)


def linear(jacobian: np.ndarray) -> Forces:
    """F = J x."""

    def forces(positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
        assert cells.shape == (len(positions), 3, 3)
        return (positions.reshape(len(positions), -1) @ jacobian.T).reshape(positions.shape)

    return forces


def springs(positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Minus the slope of Σ (|r_i − r_j| − 1)² / 2 and of the distances from a periodic image."""
    apart = positions[:, :, None] - positions[:, None]
    far = np.linalg.norm(apart, axis=-1, keepdims=True)
    pulls = -(apart * (1 - 1 / np.where(far > 0, far, 1.0))).sum(2)
    return pulls - 0.1 * positions @ (cells.transpose(0, 2, 1) @ cells)


def test_rotations_are_proper_and_improper_in_turns(rng) -> None:
    found = random_rotations(rng, 4000)
    assert np.allclose(found @ found.transpose(0, 2, 1), np.eye(3))
    assert np.allclose(np.linalg.det(found), np.tile([1, -1], 2000))
    # Of a uniform distribution all entries have mean 0 and mean square a third.
    assert np.abs(found[::2].mean(0)).max() < 0.05
    assert np.allclose((found[1::2] ** 2).mean(0), 1 / 3, atol=0.03)


def test_forces_along_fixed_axes_miss_rotations(structure, rng) -> None:
    """Pushed along x with 1, R F differs from F by √2 on average over all orientations."""
    turns = random_rotations(rng, 4000)

    def pushed(positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
        return np.broadcast_to([1.0, 0.0, 0.0], positions.shape)

    assert rotation_error(pushed, structure, turns) == pytest.approx(math.sqrt(2), rel=0.03)
    assert rotation_error(springs, structure, turns[:8]) < 1e-12


def test_the_cell_turns_too(structure, rng) -> None:
    crystal = replace(structure, cell=rng.normal(size=(3, 3)))
    turns = random_rotations(rng, 6)
    assert rotation_error(springs, crystal, turns) < 1e-12
    still = [crystal.cell] * 7
    kept = rotation_error(lambda x, _: springs(x, np.array(still)), crystal, turns)
    assert kept > 0.01


def test_all_directions_give_the_whole_jacobian(structure, rng) -> None:
    size = 3 * ATOMS
    matrix = rng.normal(size=(size, size))
    expected = np.linalg.norm(matrix - matrix.T) / (2 * np.linalg.norm(matrix))
    found = jacobian_asymmetry(linear(matrix), structure, rng, probes=size)
    assert found == pytest.approx(expected, rel=1e-8)
    more = jacobian_asymmetry(linear(matrix), structure, rng, probes=100)
    assert more == pytest.approx(expected, rel=1e-8)
    skew = matrix - matrix.T
    assert jacobian_asymmetry(linear(skew), structure, rng) == pytest.approx(1.0, rel=1e-8)


def test_few_directions_give_it_on_average(rng) -> None:
    """Squares of both norms, whose ratio hardly varies in many dimensions."""
    everything = np.ones(20, bool)
    many = Arrangement(positions=rng.normal(size=(20, 3)), cell=NO_CELL, free=everything)
    matrix = rng.normal(size=(60, 60))
    matrix += 2 * matrix.T
    expected = np.linalg.norm(matrix - matrix.T) / (2 * np.linalg.norm(matrix))
    found = [jacobian_asymmetry(linear(matrix), many, rng, probes=8) ** 2 for _ in range(200)]
    assert math.sqrt(np.mean(found)) == pytest.approx(expected, rel=0.03)


def test_slopes_are_symmetric(structure, rng) -> None:
    assert jacobian_asymmetry(springs, structure, rng) < 1e-6


def test_forces_on_held_atoms_do_not_count(structure, rng) -> None:
    """They are anything; what is left are springs between free atoms, or a known Jacobian."""
    held = replace(structure, free=np.arange(ATOMS) > 1)

    def loose(positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
        found = springs(positions, cells)
        found[:, ~held.free] = np.sin(positions[:, ~held.free, ::-1] * [1.0, 2.0, 5.0])
        return found

    turns = random_rotations(rng, 6)
    assert rotation_error(loose, structure, turns) > 0.1
    assert rotation_error(loose, held, turns) < 1e-12
    assert jacobian_asymmetry(loose, structure, rng) > 0.01
    assert jacobian_asymmetry(loose, held, rng) < 1e-6
    matrix = rng.normal(size=(3 * ATOMS, 3 * ATOMS))
    inner = matrix[6:, 6:]
    expected = np.linalg.norm(inner - inner.T) / (2 * np.linalg.norm(inner))
    found = jacobian_asymmetry(linear(matrix), held, rng, probes=9)
    assert found == pytest.approx(expected, rel=1e-8)


def test_structures_are_averaged_and_no_force_is_no_number(structure, rng) -> None:
    size = 3 * ATOMS
    skew = np.triu(np.ones((size, size)), 1)
    skew -= skew.T
    both = [(springs, structure), (linear(skew), structure)]
    found = measure_directness(both, rng)
    assert found.structures == 2
    assert found.jacobian_asymmetry == pytest.approx(math.sqrt(0.5), rel=1e-6)
    nothing = measure_directness([(linear(0 * skew), structure)], rng)
    assert math.isnan(nothing.rotation_error)
    assert math.isnan(nothing.jacobian_asymmetry)
