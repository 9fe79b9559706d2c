"""The figures of OC20 equal those made by hand, on either side of every threshold."""

import numpy as np
import pytest

from surefoot.evaluate import oc20
from surefoot.evaluate.oc20 import Predictions, submission

# Two structures: the first has two free atoms, the second one.
LABELS = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0], [3.0, 4.0, 0.0]])
FORCES = np.array([[1.0, 0.02, 0.0], [0.0, 0.0, -1.0], [3.0, 4.0, 0.01]])
SYSTEM = np.array([0, 0, 1])


def test_energies_by_hand() -> None:
    errors = np.array([0.01, -0.03, 0.02, -0.0199])
    assert oc20.energy_mae(errors) == pytest.approx((0.01 + 0.03 + 0.02 + 0.0199) / 4)
    assert oc20.energy_within(errors) == 50.0  # 0.02 itself is not within


def test_forces_by_hand() -> None:
    assert oc20.forces_mae(FORCES - LABELS) == pytest.approx((0.02 + 3.0 + 0.01) / 9)
    cosines = [1 / np.hypot(1, 0.02), -1.0, 25 / (5 * np.sqrt(25 + 1e-4))]
    assert oc20.forces_cosine(FORCES, LABELS) == pytest.approx(np.mean(cosines), rel=1e-12)
    lengths = [np.hypot(1, 0.02) - 1, 1.0, np.sqrt(25 + 1e-4) - 5]
    assert oc20.forces_magnitude(FORCES, LABELS) == pytest.approx(np.mean(lengths), rel=1e-9)


def test_a_force_without_length_has_no_cosine() -> None:
    assert oc20.forces_cosine(np.zeros((1, 3)), LABELS[:1]) == 0.0
    assert oc20.forces_cosine(LABELS[:1], np.zeros((1, 3))) == 0.0


@pytest.mark.parametrize(
    ("energies", "worst", "share"),
    [
        ([0.0, 0.0], [0.029, 0.029], 100.0),
        ([0.0, 0.0], [0.03, 0.029], 50.0),  # strict
        ([0.02, 0.0], [0.0, 0.0], 50.0),
        ([-0.02, 0.019], [0.0, 0.0301], 0.0),
        ([0.0, -0.0199], [0.05, 0.0299], 50.0),
    ],
)
def test_energy_and_forces_within_threshold(energies, worst, share: float) -> None:
    errors = np.zeros((3, 3))
    errors[1, 2], errors[2, 0] = -worst[0], worst[1]
    assert oc20.energy_forces_within(np.array(energies), errors, SYSTEM) == share


def test_a_structure_without_free_atoms_is_judged_by_its_energy() -> None:
    share = oc20.energy_forces_within(np.array([0.0, 0.0]), np.full((1, 3), 9.0), np.array([0]))
    assert share == 50.0


def test_distances_are_those_of_the_nearest_image() -> None:
    cell, pbc = np.diag([4.0, 5.0, 20.0]), np.ones(3, bool)
    positions = np.array([[0.1, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.2]])
    relaxed = np.array([[3.9, 0.0, 0.0], [1.0, 1.3, 1.4], [8.0, -10.0, 19.8]])
    found = oc20.displacements(positions, relaxed, cell, pbc)
    assert np.allclose(found, [0.2, 0.5, 0.4], atol=1e-12)
    open_above = oc20.displacements(positions, relaxed, cell, np.array([True, True, False]))
    assert np.allclose(open_above, [0.2, 0.5, 19.6], atol=1e-12)
    free = oc20.displacements(positions, relaxed, np.zeros((3, 3)), np.zeros(3, bool))
    assert np.allclose(free, np.linalg.norm(relaxed - positions, axis=1))


def test_distances_in_a_skewed_cell() -> None:
    cell = np.array([[3.0, 0, 0], [1.5, 2.6, 0], [0, 0, 15.0]])
    positions = np.array([[0.05, 0.0, 1.0]])
    relaxed = positions + [[-0.1, 0.0, 0.0]] + [1, -2, 1] @ cell
    assert np.allclose(oc20.displacements(positions, relaxed, cell, np.ones(3, bool)), 0.1)


@pytest.mark.parametrize(
    ("distance", "share"),
    [
        (0.0, 490),
        (0.0099, 490),
        (0.0101, 489),
        (0.2, 299),  # strict: at 0.200 it is not within
        (0.4985, 1),
        (0.499, 0),
        (3.0, 0),
    ],
)
def test_distance_within_threshold_counts_the_thresholds(distance: float, share: int) -> None:
    assert len(oc20.DISTANCES_WITHIN) == 490
    assert oc20.DISTANCES_WITHIN[[0, -1]].tolist() == [0.01, 0.499]
    assert oc20.distance_within(np.array([distance])) == pytest.approx(100 * share / 490)
    both = oc20.distance_within(np.array([distance, 0.0]))
    assert both == pytest.approx(50 * share / 490 + 50)


def test_figures_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no structure"):
        oc20.energy_mae(np.zeros(0))
    with pytest.raises(ValueError, match="no free atom"):
        oc20.forces_mae(np.zeros((0, 3)))


def test_submission_can_be_taken_apart_again() -> None:
    forces = [np.full((count, 3), float(count)) for count in (2, 3, 1)]
    split = Predictions(ids=["1_0", "1_5", "9_2"], energy=[0.5, -0.5, 2.0], forces=forces)
    arrays = submission("s2ef", {"id": split, "ood_cat": split})
    names = ("ids", "energy", "forces", "chunk_idx")
    assert arrays.keys() == {f"{part}_{name}" for part in ("id", "ood_cat") for name in names}
    assert arrays["id_chunk_idx"].tolist() == [2, 5]
    parts = np.split(arrays["id_forces"], arrays["id_chunk_idx"])
    assert all(np.array_equal(a, b) for a, b in zip(parts, forces, strict=True))
    assert arrays["id_ids"].tolist() == split.ids
    assert submission("is2re", {"id": split}).keys() == {"id_ids", "id_energy"}


def test_submissions_that_can_not_be_are_refused() -> None:
    twice = Predictions(ids=["1", "2", "1"], energy=[0.0] * 3, forces=[])
    with pytest.raises(ValueError, match="has the structure 1 twice"):
        submission("is2re", {"id": twice})
    with pytest.raises(ValueError, match="split test is not known; there is id, ood_ads"):
        submission("is2re", {"test": twice})
