import numpy as np
import pytest

from surefoot.hat.endpoints import BOND_LENGTHS, COUNT, end_positions

NONE = np.zeros((0, 3))
TETRAHEDRON = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])


@pytest.mark.parametrize("number", BOND_LENGTHS)
def test_the_fourth_corner_of_a_tetrahedron(number: int) -> None:
    (end,) = end_positions(number, np.zeros(3), TETRAHEDRON[:3], NONE)
    wanted = BOND_LENGTHS[number] * TETRAHEDRON[3] / np.sqrt(3)
    np.testing.assert_allclose(end, wanted, atol=1e-12)


def test_both_sides_of_a_flat_radical() -> None:
    angles = np.radians([0.0, 120.0, 240.0])
    bonded = np.stack([np.cos(angles), np.sin(angles), np.zeros(3)], axis=1) * [[1.5], [1.4], [1.1]]
    ends = end_positions(6, np.zeros(3), bonded, NONE)
    np.testing.assert_allclose(np.sort(ends, axis=0), [[0, 0, -1.1], [0, 0, 1.1]], atol=1e-12)


def test_two_bonds_leave_one_side() -> None:
    (end,) = end_positions(7, np.zeros(3), np.array([[1.0, 1.0, 0.0], [-2.0, 2.0, 0.0]]), NONE)
    np.testing.assert_allclose(end, [0.0, -1.04, 0.0], atol=1e-12)


def test_a_cone_about_one_bond_begins_opposite_to_what_is_beyond() -> None:
    beyond = np.array([[0.5, 0.0, 1.9], [0.5, 0.0, 2.1]])
    ends = end_positions(8, np.zeros(3), np.array([[0.0, 0.0, 1.4]]), beyond)
    assert len(ends) == COUNT
    np.testing.assert_allclose(np.linalg.norm(ends, axis=1), 0.97)
    np.testing.assert_allclose(ends[:, 2] / 0.97, np.cos(np.radians(109.5)), atol=1e-12)
    assert ends[0, 0] == ends[:, 0].min()
    apart = np.linalg.norm(ends[:, None] - ends, axis=2) + 9 * np.eye(COUNT)
    np.testing.assert_allclose(apart.min(axis=1), apart.min())


def test_a_cone_turns_with_the_molecule(rng: np.random.Generator) -> None:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    bonded, beyond = rng.normal(size=(1, 3)), rng.normal(size=(2, 3))
    turned = end_positions(8, np.zeros(3), bonded @ rotation, beyond @ rotation)
    straight = end_positions(8, np.zeros(3), bonded, beyond)
    np.testing.assert_allclose(turned, straight @ rotation, atol=1e-12)


def test_what_names_no_direction_is_refused() -> None:
    line = np.array([[1.0, 0.0, 0.0], [-1.3, 0.0, 0.0]])
    with pytest.raises(ValueError, match="on a line"):
        end_positions(6, np.zeros(3), line, NONE)
    with pytest.raises(ValueError, match="it has 4 bonds"):
        end_positions(6, np.zeros(3), TETRAHEDRON, NONE)
    with pytest.raises(ValueError, match="C, N, O and S do"):
        end_positions(17, np.zeros(3), line[:1], NONE)
