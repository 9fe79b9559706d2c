"""Stores: the same frames, samples and batches as in memory; whole or refused; safe to share."""

import errno
import fcntl
import json
import os
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.db import connect

from surefoot.data import store as store_module
from surefoot.data.batches import EVALUATION, join
from surefoot.data.check import check_frames
from surefoot.data.columns import HEADER, RefusedStore
from surefoot.data.convert import to_samples
from surefoot.data.file_units import FileUnits
from surefoot.data.frame import Frame
from surefoot.data.images import UnreadableFile, hash_content
from surefoot.data.read import Keys, describe_labels, read_frames
from surefoot.data.store import LOCK, PART, SUFFIX, keep_frames
from surefoot.neighbors import CoincidentAtoms

CUTOFF = 4.0


def write(folder: Path, rng: np.random.Generator, count: int = 6) -> list[Path]:
    """Frames of many kinds: cells, labels that are missing, held atoms, states, groups."""
    molecules, crystals = [], []
    for number in range(count):
        water = Atoms("OH2", positions=rng.normal(size=(3, 3)) + 2 * np.eye(3))
        water.info |= {
            "REF_energy": -3.0 - number,
            "charge": number % 2,
            "note": "ü",
            "list": [1, 2],
        }
        water.arrays["REF_forces"] = rng.normal(size=(3, 3))
        molecules += [water, Atoms("H", info={"config_type": "IsolatedAtom"})]
        crystal = bulk("Cu", cubic=True)
        crystal.positions += 0.1 * rng.normal(size=(4, 3))
        crystal.info["group"] = "a"
        crystal.set_tags([0, 1, 2, 0])
        crystal.set_constraint([FixAtoms([0, 1]), FixCartesian([2], [True, False, True])])
        crystal.calc = SinglePointCalculator(crystal, energy=4.0, stress=rng.normal(size=6))
        crystals.append(crystal)
    ase.io.write(folder / "molecules.xyz", molecules)
    ase.io.write(folder / "crystals.traj", crystals)
    return [folder / "molecules.xyz", folder / "crystals.traj"]


def keep(paths, folder: Path, **others) -> list[Frame]:
    return keep_frames(paths, Keys(**others), FileUnits(), folder)


def assert_same(one: Frame, other: Frame) -> None:
    for name in ("energy", "charge", "spin", "group", "config_type", "file", "index", "keys"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("place", "sid", "fid", "constrained"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("forces", "stress"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("numbers", "positions", "cell", "pbc"):
        found = getattr(other.structure, name)
        np.testing.assert_array_equal(getattr(one.structure, name), found)
        np.testing.assert_array_equal(getattr(one.atoms, name), found)
        assert getattr(one.structure, name).dtype == found.dtype
    np.testing.assert_array_equal(one.fixed, other.fixed)
    assert one.atoms == other.atoms
    assert [c.todict() for c in one.atoms.constraints] == [
        c.todict() for c in other.atoms.constraints
    ]
    assert {k: np.asarray(v).tolist() for k, v in one.info.items()} == {
        k: np.asarray(v).tolist() for k, v in other.info.items()
    }


@pytest.fixture
def paths(tmp_path, rng) -> list[Path]:
    return write(tmp_path, rng)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "stores"


def test_frames_are_those_of_memory(paths, folder) -> None:
    held, stored = read_frames([*paths, *paths]), keep([*paths, *paths], folder)
    assert len(held) == len(stored)
    for one, other in zip(held, stored, strict=True):
        assert_same(one, other)
    assert describe_labels(held) == describe_labels(stored)


def test_batches_are_those_of_memory_to_the_bit(paths, folder) -> None:
    held, stored = (
        to_samples(frames, CUTOFF) for frames in (read_frames(paths), keep(paths, folder))
    )
    for one, other in zip(held, stored, strict=True):
        assert (one.atoms, one.edges, one.place) == (other.atoms, other.edges, other.place)
        assert torch.equal(one.bare.positions, other.bare.positions)
        assert torch.equal(one.graph.pair_edges, other.graph.pair_edges)
    for chosen in (np.arange(len(held)), np.array([4]), np.array([2]), np.array([7, 1, 1])):
        one, other = join(held, chosen), join(stored, chosen)
        for part in ("graph", "targets"):
            for field in fields(getattr(one, part)):
                first, second = (getattr(getattr(b, part), field.name) for b in (one, other))
                assert first.dtype == second.dtype, field.name
                assert torch.equal(first, second), field.name


def test_findings_are_those_of_memory(paths, folder) -> None:
    held, stored = (check_frames({"train": f}) for f in (read_frames(paths), keep(paths, folder)))
    assert held
    assert held == stored


def test_spins_that_count_electrons(tmp_path, folder) -> None:
    """Known only when the last frame of the file has come."""
    path = tmp_path / "carbene.db"
    with connect(path) as database:
        for number in range(6):
            carbene = Atoms("CH2", positions=np.eye(3) * (1 + 0.1 * number))
            database.write(carbene, data={"energy": [-1.0], "spin_multiplicity": 2 * (number % 2)})
    held, stored = read_frames([path, path]), keep([path, path], folder)
    assert {frame.spin for frame in stored} == {1, 3}
    for one, other in zip(held, stored, strict=True):
        assert_same(one, other)


def test_it_is_converted_once(paths, folder, monkeypatch) -> None:
    before = keep(paths, folder)
    monkeypatch.setattr(store_module, "write_store", None)  # would fail
    for one, other in zip(before, keep(paths, folder), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("change", ["content", "keys", "name"])
def test_what_is_asked_for_otherwise_is_another_store(paths, folder, change) -> None:
    keep(paths, folder)
    first, second = paths
    if change == "content":
        first.write_text(first.read_text().replace("-3.0", "-2.0", 1))
    if change == "name":  # the name may decide how a file is read
        first = first.rename(first.with_name("other.xyz"))
    keep([first, second], folder, **({"forces": "none"} if change == "keys" else {}))
    assert len(list(folder.glob(f"*{SUFFIX}"))) == 2


def test_files_that_moved_keep_their_store(paths, folder, tmp_path) -> None:
    keep(paths, folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = [path.rename(elsewhere / path.name) for path in paths]
    assert keep(moved, folder)[0].file == str(moved[0])
    assert len(list(folder.glob(f"*{SUFFIX}"))) == 1


def test_wrong_keys_and_empty_files(paths, folder) -> None:
    for _ in range(2):  # also when the store is there
        with pytest.raises(UnreadableFile, match="no frame has the key 'nothing'"):
            keep(paths, folder, energy="nothing")


def test_atoms_at_one_place_are_named_with_their_frame(tmp_path, folder) -> None:
    path = tmp_path / "twice.xyz"
    ase.io.write(path, [Atoms("H2", positions=[[0, 0, 0], [0, 0, i]]) for i in (1, 0)])
    with pytest.raises(CoincidentAtoms, match="frame 1: atoms 0 and 1"):
        to_samples(keep([path], folder), CUTOFF)


def test_frames_without_neighbours_are_named(tmp_path, folder) -> None:
    path = tmp_path / "flat.xyz"
    ase.io.write(path, [Atoms("H"), Atoms("H", cell=[3, 3, 0], pbc=True)], format="extxyz")
    with pytest.raises(ValueError, match="frame 1: axis 2 is periodic"):
        to_samples(keep([path], folder), CUTOFF)


def test_what_a_store_has_no_place_for(tmp_path, folder) -> None:
    atoms = Atoms("H2", positions=np.eye(3)[:2], info={"REF_energy": 1.0})
    atoms.set_constraint(FixBondLength(0, 1))
    path = tmp_path / "bond.traj"
    ase.io.write(path, atoms)
    with pytest.raises(UnreadableFile, match=r"bond\.traj, frame 0: .*FixBondLengths"):
        keep([path], folder)
    assert not [part for part in folder.iterdir() if part.name != LOCK]


def test_files_that_change_while_they_are_read(paths, folder) -> None:
    def tell(_: str) -> None:
        with paths[0].open("a") as file:
            file.write("1\n\nH 0 0 0\n")

    with pytest.raises(UnreadableFile, match="changed while it was read"):
        keep_frames(paths, Keys(), FileUnits(), folder, tell)
    assert not list(folder.glob(f"*{SUFFIX}"))


# --- torn, truncated, foreign ----------------------------------------------------------------


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def forge(place: Path, change: Callable[[dict], None]) -> None:
    """A header that fits its checksum and not the columns."""
    from surefoot.data.columns import _digest

    header = json.loads((place / HEADER).read_text())
    header.pop("sha256")
    change(header)
    (place / HEADER).write_text(json.dumps({**header, "sha256": _digest(header)}))


def rewrite(place: Path, name: str, numbers: np.ndarray) -> None:
    """A column of other numbers, whose checksum fits."""
    (place / name).write_bytes(numbers.tobytes())
    told = {"bytes": numbers.nbytes, "sha256": hash_content(place / name)}
    forge(place, lambda header: header["columns"].update({name: told}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (lambda place: os.truncate(place / "positions", 100), "positions has 100 bytes"),
    "longer": (lambda place: lengthen(place / "flags"), "flags has"),
    "a bit": (lambda place: flip(place / "forces"), "forces does not match its checksum"),
    "a bit of the header": (lambda place: flip(place / HEADER), "checksum|can not be read|json"),
    "no header": (lambda place: (place / HEADER).unlink(), "No such file"),
    "no column": (lambda place: (place / "energy").unlink(), "No such file"),
    "empty header": (lambda place: (place / HEADER).write_text(""), "Expecting value"),
    "a list": (lambda place: (place / HEADER).write_text("[]"), "was not written by surefoot"),
    "foreign": (lambda place: forge(place, lambda h: h.update(kind="x")), "written by surefoot"),
    "newer": (lambda place: forge(place, lambda h: h.update(format=9)), "format 9, and 1 is read"),
    "more rows": (lambda place: forge(place, lambda h: h["rows"].update(frame=10**15)), "bytes"),
    "no names": (lambda place: forge(place, lambda h: h.update(groups=[])), "of groups that are"),
    "unknown": (
        lambda place: forge(place, lambda h: h["columns"].update({"x": {}})),
        "'x' that is",
    ),
    "rows below zero": (lambda place: forge(place, lambda h: h["rows"].update(frame=-1)), "counts"),
    "names of no kind": (lambda place: forge(place, lambda h: h.update(keys=["x"])), "no list of"),
    "no element": (
        lambda place: rewrite(
            place, "numbers", np.full((place / "numbers").stat().st_size, 119, np.uint8)
        ),
        "element 119",
    ),
    "no rows": (lambda place: forge(place, lambda h: h.pop("rows")), "'rows'"),
    "other files": (lambda place: forge(place, lambda h: h["files"].append("b")), "of 3 files"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_store_is_refused(paths, folder, name) -> None:
    keep(paths, folder)
    (place,) = folder.glob(f"*{SUFFIX}")
    harm, told = DAMAGE[name]
    harm(place)
    with pytest.raises(RefusedStore, match=told) as caught:
        keep(paths, folder)
    assert str(caught.value).startswith(f"{place}: this ")
    assert "remove it" in str(caught.value)


@pytest.mark.parametrize("text", [b"\xff", b"[1]", b"{"])
def test_what_was_never_written_of_a_frame_is_refused_with_the_store(paths, folder, text) -> None:
    keep(paths, folder)
    (place,) = folder.glob(f"*{SUFFIX}")
    count = (place / "text").stat().st_size
    rewrite(place, "text", np.frombuffer(text.ljust(count), np.uint8))
    with pytest.raises(RefusedStore, match="what it says of frame 0 can not be read") as caught:
        _ = keep(paths, folder)[0].info
    assert str(caught.value).startswith(f"{place}: this ")


def test_frames_can_not_be_written_to(paths, folder) -> None:
    frame = keep(paths, folder)[0]
    with pytest.raises(ValueError, match="read-only"):
        frame.forces[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        frame.structure.positions[0, 0] = 1.0


# --- killed writers, two writers -------------------------------------------------------------


def in_children(count: int, work: Callable[[int], None]) -> list[int]:
    """Processes that do something at once; how each ended."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            try:
                work(number)
                os._exit(0)
            except BaseException:  # noqa: BLE001 - told by the status
                os._exit(1)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of threads and fork
@pytest.mark.parametrize("point", ["add", "finish", "rename"])
def test_a_killed_writer_leaves_nothing_that_is_read(paths, folder, monkeypatch, point) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work(_: int) -> None:
        owner = Path if point == "rename" else store_module.ColumnWriter
        monkeypatch.setattr(owner, point, die)
        keep(paths, folder)

    assert in_children(1, work) == [-signal.SIGKILL]
    assert not list(folder.glob(f"*{SUFFIX}"))
    assert list(folder.glob(f"{PART}*"))
    for one, other in zip(read_frames(paths), keep(paths, folder), strict=True):
        assert_same(one, other)
    assert not list(folder.glob(f"{PART}*"))  # swept by the next writer


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("locks", [True, False])
def test_writers_at_once_do_not_spoil_each_other(paths, folder, monkeypatch, locks) -> None:
    held = read_frames(paths)
    if not locks:

        def unable(handle: int, kind: int) -> None:
            raise OSError(errno.ENOLCK, "no locks here")

        monkeypatch.setattr(fcntl, "flock", unable)

    def work(_: int) -> None:
        for one, other in zip(held, keep(paths, folder), strict=True):
            assert_same(one, other)

    assert in_children(4, work) == [0] * 4
    assert len(list(folder.glob(f"*{SUFFIX}"))) == 1
    assert not list(folder.glob(f"{PART}*"))


def test_a_store_of_frames_without_anything(tmp_path, folder) -> None:
    path = tmp_path / "bare.xyz"
    ase.io.write(path, [Atoms("H"), Atoms("He")])
    frames = keep([path], folder)
    assert [(f.energy, f.forces, f.stress, f.charge) for f in frames] == [(None,) * 4] * 2
    assert join(to_samples(frames, CUTOFF), np.arange(2)).graph.edge_index.shape == (2, 0)
    assert EVALUATION.graphs > 2
