"""The `data` section: roles of frames, reference atoms, hashes of files."""

import hashlib
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from pydantic import ValidationError

from surefoot.data.file_units import FileUnits
from surefoot.data.images import UnreadableFile
from surefoot.data.load import DataSettings, Splits, hash_files, load_splits
from surefoot.data.read import Frame, Keys
from surefoot.units import KCAL_PER_MOL

FRAMES, GROUPS = 40, 8


def write(path: Path, count: int, start: int = 0) -> str:
    """Hydrogen molecules in groups of FRAMES / GROUPS; the energy is the number of the frame."""
    images = []
    for number in range(start, start + count):
        atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7 + 0.001 * number]])
        atoms.info |= {"REF_energy": float(number), "group": f"g{number * GROUPS // FRAMES}"}
        images.append(atoms)
    ase.io.write(path, images)
    return str(path)


def write_atoms(path: Path) -> str:
    """An isolated atom, a lone atom that is none, and a molecule that says it is one."""
    images = [Atoms("H"), Atoms("H"), Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]])]
    for energy, atoms in zip((-100.0, -200.0, -300.0), images, strict=True):
        atoms.info["REF_energy"] = energy
    for number in (0, 2):
        images[number].info["config_type"] = "IsolatedAtom"
    ase.io.write(path, images)
    return str(path)


@pytest.fixture
def train(tmp_path) -> str:
    return write(tmp_path / "train.xyz", FRAMES)


def energies(frames: list[Frame]) -> list[float | None]:
    return [frame.energy for frame in frames]


def everything(splits: Splits) -> list[float | None]:
    return energies([*splits.train, *splits.valid, *splits.test, *splits.isolated])


def test_all_frames_train_unless_asked_otherwise(train) -> None:
    splits = load_splits(DataSettings(train=[train]), seed=0)
    assert energies(splits.train) == list(map(float, range(FRAMES)))
    assert splits.valid == splits.test == splits.isolated == []


def test_a_share_of_whole_groups(train) -> None:
    splits = load_splits(DataSettings(train=[train], valid=0.25), seed=3)
    assert len(splits.valid) == FRAMES // 4
    assert not {f.group for f in splits.train} & {f.group for f in splits.valid}
    assert sorted(everything(splits)) == list(range(FRAMES))


def test_a_share_of_frames_at_random(train) -> None:
    settings = DataSettings(train=[train], valid=0.25, split="random")
    splits = load_splits(settings, seed=3)
    assert len(splits.valid) == FRAMES // 4
    assert {f.group for f in splits.train} & {f.group for f in splits.valid}
    assert sorted(everything(splits)) == list(range(FRAMES))


@pytest.mark.parametrize("split", ["group", "random"])
def test_the_seed_decides(train, split) -> None:
    settings = DataSettings(train=[train], valid=0.25, split=split)
    draws = [energies(load_splits(settings, seed).valid) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_seed_of_the_split_alone(train) -> None:
    """Members that differ by the seed of the training learn from the same frames."""
    named = DataSettings(train=[train], valid=0.25, split="random", split_seed=1)
    draws = [energies(load_splits(named, seed).valid) for seed in (0, 7)]
    follows = named.model_copy(update={"split_seed": None})
    assert draws[0] == draws[1] == energies(load_splits(follows, 1).valid)
    assert draws[0] != energies(load_splits(follows, 0).valid)


def test_files_for_validation_and_test(tmp_path, train) -> None:
    valid = write(tmp_path / "valid.xyz", 3, start=100)
    test = write(tmp_path / "test.xyz", 2, start=200)
    splits = load_splits(DataSettings(train=[train], valid=[valid], test=[test]), seed=0)
    assert len(splits.train) == FRAMES
    assert energies(splits.valid) == [100.0, 101.0, 102.0]
    assert energies(splits.test) == [200.0, 201.0]
    assert load_splits(DataSettings(train=[train], valid=[]), seed=0).valid == []


def test_isolated_atoms_are_kept_apart(tmp_path, train) -> None:
    """Only single atoms that say so; the share is one of the others."""
    atoms = write_atoms(tmp_path / "atoms.xyz")
    splits = load_splits(DataSettings(train=[atoms, train], valid=0.5, split="random"), seed=0)
    assert energies(splits.isolated) == [-100.0]
    assert len(splits.train) == len(splits.valid) == FRAMES // 2 + 1
    assert {-200.0, -300.0} <= set(energies(splits.train + splits.valid))


def test_isolated_atoms_of_other_files_are_dropped(tmp_path, train) -> None:
    """A potential gives them their reference energy, so they neither judge nor calibrate."""
    atoms = write_atoms(tmp_path / "atoms.xyz")
    splits = load_splits(DataSettings(train=[train], valid=[atoms], test=[atoms]), seed=0)
    assert energies(splits.valid) == energies(splits.test) == [-200.0, -300.0]
    assert splits.isolated == []


def test_splits_by_name(tmp_path, train) -> None:
    atoms = write_atoms(tmp_path / "atoms.xyz")
    test = write(tmp_path / "test.xyz", 2, start=200)
    named = load_splits(DataSettings(train=[atoms, train], test=[test]), seed=0).by_name()
    assert {name: len(frames) for name, frames in named.items()} == {
        "train": FRAMES + 3,
        "test": 2,
    }


def test_keys_and_units_hold_for_all_files(tmp_path, train) -> None:
    settings = DataSettings(
        train=[train],
        valid=[write(tmp_path / "valid.xyz", 1, start=100)],
        test=[write(tmp_path / "test.xyz", 1, start=200)],
        units=FileUnits(energy="kcal/mol"),
    )
    splits = load_splits(settings, seed=0)
    found = [splits.train[1], splits.valid[0], splits.test[0]]
    expected = [KCAL_PER_MOL * energy for energy in (1.0, 100.0, 200.0)]
    assert energies(found) == pytest.approx(expected)
    ignored = load_splits(settings.model_copy(update={"keys": Keys(energy="none")}), seed=0)
    assert set(everything(ignored)) == {None}


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_impossible_shares_are_refused(train, share) -> None:
    with pytest.raises(ValueError, match=rf"valid: {share}.*below 1"):
        load_splits(DataSettings(train=[train], valid=share), seed=0)


@pytest.mark.parametrize(
    ("split", "text"), [("group", "no frames to split"), ("random", "0 frame")]
)
def test_nothing_but_isolated_atoms_can_not_be_split(tmp_path, split, text) -> None:
    atom = Atoms("H")
    atom.info |= {"REF_energy": -1.0, "config_type": "IsolatedAtom"}
    ase.io.write(tmp_path / "atom.xyz", atom)
    settings = DataSettings(train=[str(tmp_path / "atom.xyz")], valid=0.1, split=split)
    with pytest.raises(ValueError, match=text):
        load_splits(settings, seed=0)


def test_missing_files_and_no_files(train) -> None:
    with pytest.raises(UnreadableFile, match="absent"):
        load_splits(DataSettings(train=[train], test=["absent.xyz"]), seed=0)
    with pytest.raises(ValidationError, match="train"):
        DataSettings(train=[])


def test_hashes_are_of_the_content(tmp_path) -> None:
    (tmp_path / "one.xyz").write_bytes(b"abc")
    (tmp_path / "two.xyz").write_bytes(b"")
    hashes = hash_files([str(tmp_path / "one.xyz"), str(tmp_path / "two.xyz")])
    assert hashes == {
        "one.xyz": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "two.xyz": hashlib.sha256().hexdigest(),
    }


def test_files_of_one_name_in_two_folders_are_all_hashed(tmp_path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.xyz").write_text(folder)
        paths.append(str(tmp_path / folder / "train.xyz"))
    before = hash_files(paths)
    assert len(set(before.values())) == 2
    Path(paths[0]).write_text("changed")
    after = hash_files(paths)
    assert after.keys() == before.keys()
    assert sum(after[name] != before[name] for name in before) == 1
