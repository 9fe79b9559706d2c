"""Paths from frames, and what is refused, each in one sentence."""

import numpy as np
import pytest

from surefoot.barriers.paths import (
    find_holder,
    other_bonds,
    read_paths,
    require_rigid,
    require_transfer,
)

from .conftest import frames_of, path_of, transfer


def test_paths_of_a_file() -> None:
    """Two paths, their frames mixed and out of order."""
    images = transfer(4, name="a") + transfer(5, 0.9, name="b")
    images[0].info["donor"] = "ALA"
    order = np.random.default_rng(1).permutation(len(images))
    labels = np.arange(9.0)
    frames = [frames_of(images, labels)[number] for number in order]
    paths = {path.name: path for path in read_paths(frames)}
    assert set(paths) == {"a", "b"}
    assert len(paths["a"].images) == 4
    assert paths["a"].reference is not None
    assert paths["a"].reference.tolist() == [0, 1, 2, 3]
    assert paths["b"].translation == pytest.approx(0.9)
    # Not named, so the closest atoms at the ends.
    assert (paths["b"].donor, paths["b"].hydrogen, paths["b"].acceptor) == (0, 1, 2)
    assert paths["a"].donor_name == "ALA"
    assert paths["a"].acceptor_name == paths["a"].label(2) == "C2"
    for path in paths.values():
        require_rigid(path)
        require_transfer(path)


def test_a_file_without_names_is_one_path() -> None:
    images = transfer(4)
    for atoms in images:
        del atoms.info["system"], atoms.info["path_point"]
    (path,) = read_paths(frames_of(images))
    assert path.name == "scans"
    assert path.reference is None
    del images[1].info["moving_h"]
    images[2].info["system"] = "x"
    with pytest.raises(ValueError, match="frame 0: info has no 'system' and other frames have"):
        read_paths(frames_of(images))


def test_labels_on_some_points_only_are_no_reference() -> None:
    frames = frames_of(transfer(3), np.zeros(3))
    object.__setattr__(frames[1], "energy", None)
    assert read_paths(frames)[0].reference is None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("moving_h", None, r"frame 0: info has no 'moving_h'; name the hydrogen"),
        ("moving_h", 0, r"frame 0: moving_h is 0, which is C"),
        ("moving_h", 7, r"moving_h is 7; an index from 0 to 2"),
        ("moving_h", "one", r"moving_h is one; an index"),
        ("charge", None, r"frame 0: info has no 'charge'"),
        ("spin", None, r"frame 0: info has no 'spin'"),
        ("spin", 1, r"frame 0: spin 1 .* does not fit an odd number of electrons"),
        ("acceptor_index", 0, r"starts and ends at atom 0"),
        ("path_point", 1, r"path p: `path_point` has \[1, 1, 2, 3, 4\]; points are missing"),
    ],
)
def test_frames_that_make_no_path(key, value, words) -> None:
    images = transfer()
    chosen = images[:1] if key == "path_point" else images
    for atoms in chosen:
        atoms.info.pop(key, None)
        if value is not None:
            atoms.info[key] = value
    with pytest.raises(ValueError, match=words):
        read_paths(frames_of(images))


def test_images_of_different_systems() -> None:
    images = transfer()
    images[2].numbers[:] = [1, 6, 6]
    with pytest.raises(ValueError, match="frame 2, path p: its atoms are permuted than in frame 0"):
        read_paths(frames_of(images))
    images = transfer()
    images[1].numbers[0] = 7
    images[1].info["spin"] = 3
    with pytest.raises(ValueError, match="frame 1, path p: its atoms are others"):
        read_paths(frames_of(images))
    images = transfer()
    images[3].info["spin"] = 4
    with pytest.raises(ValueError, match="its charge or spin is another one"):
        read_paths(frames_of(images))


def test_a_rigid_scan_moves_one_hydrogen() -> None:
    path = path_of()
    require_rigid(path)
    path.images[2].positions[2, 1] += 2e-3
    with pytest.raises(ValueError, match=r"atom 2 of image 2 has moved by 0\.002 Å.*--saddle"):
        require_rigid(path)
    path.images[2].positions[[0, 2]] = path.images[0].positions[[2, 0]]
    with pytest.raises(ValueError, match="the atoms of image 2 are permuted"):
        require_rigid(path)
    with pytest.raises(ValueError, match="it has 2 points; 3 or more"):
        require_rigid(path_of(2))
    with pytest.raises(ValueError, match="the hydrogen does not move"):
        require_rigid(path_of(3, way=0.0))


def test_ends_of_a_transfer() -> None:
    path = path_of()
    assert find_holder(path.images[0], path) == 0
    assert find_holder(path.images[-1], path) == 2
    backwards = path_of()
    object.__setattr__(backwards, "images", backwards.images[::-1])
    with pytest.raises(ValueError, match="in the first image the hydrogen is on C2 and not on C0"):
        require_transfer(backwards)
    far = path_of(way=3.0)
    far.images[0].positions[1, 0] = 2.0
    with pytest.raises(ValueError, match="is on no atom"):
        require_transfer(far)
    close = path_of()
    close.images[-1].positions[0, :2] = 2.9, 1.5
    with pytest.raises(ValueError, match="the bond C0–C2 is in one end and not in the other"):
        require_transfer(close)
    assert other_bonds(close.images[-1], 1) == {(0, 2)}
