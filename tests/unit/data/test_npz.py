"""Archives of NequIP: cells, numbers for all frames or for each, shapes that do not fit."""

import numpy as np
import pytest

from surefoot.data.images import UnreadableFile
from surefoot.data.read import read_frames

FRAMES, ATOMS = 3, 2


@pytest.fixture
def arrays(rng) -> dict[str, np.ndarray]:
    return {
        "atomic_numbers": np.array([[1, 8], [8, 1], [1, 1]]),
        "pos": rng.normal(size=(FRAMES, ATOMS, 3)) + np.arange(ATOMS)[:, None],
        "total_energy": rng.normal(size=(FRAMES, 1)),
        "forces": rng.normal(size=(FRAMES, ATOMS, 3)),
        "cell": np.diag([4.0, 5.0, 0.0]),
    }


def reread(path, arrays):
    np.savez(path, **arrays)
    return read_frames([path])


def test_names_of_nequip_with_numbers_by_frame_and_a_cell(tmp_path, arrays) -> None:
    frames = reread(tmp_path / "file.npz", arrays)
    for index, frame in enumerate(frames):
        assert frame.atoms.numbers.tolist() == arrays["atomic_numbers"][index].tolist()
        np.testing.assert_array_equal(frame.atoms.positions, arrays["pos"][index])
        np.testing.assert_array_equal(frame.forces, arrays["forces"][index])
        np.testing.assert_array_equal(frame.atoms.cell.array, arrays["cell"])
        assert frame.atoms.pbc.tolist() == [True, True, False]  # vectors that are not zero
        assert frame.energy == arrays["total_energy"][index, 0]


def test_stated_periodicity_comes_before_that_of_the_cell(tmp_path, arrays) -> None:
    stated = np.eye(3, dtype=bool)
    frames = reread(tmp_path / "file.npz", arrays | {"pbc": stated, "cell": 4.0 * np.eye(3)})
    assert [frame.atoms.pbc.tolist() for frame in frames] == stated.tolist()


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("pos", np.zeros((FRAMES, 6)), r"positions have shape \(3, 6\)"),
        ("atomic_numbers", np.ones(5), r"atomic numbers have shape \(5,\); \(2,\) or \(3, 2\)"),
        ("total_energy", np.zeros(2), "2 energies for 3 frames"),
        ("forces", np.zeros((FRAMES, 3)), r"forces have shape \(3, 3\)"),
        ("cell", np.zeros(3), r"cell have shape \(3,\)"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path, arrays, name, array, told) -> None:
    with pytest.raises(UnreadableFile, match=told):
        reread(tmp_path / "file.npz", arrays | {name: array})
