"""Files that state more than they hold: refused before anything is counted or made of it."""

import io
import resource
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from ase.build import molecule

from surefoot.data.read import UnreadableFile, read_frames

LINE = "H 0.0 0.0 0.0\n"


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    """So little that what is not refused is an error, and no other program's trouble."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (2**33, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"99999999999\n\n{LINE}", "states 1e+11 atoms in a frame"),
        (f"٩٩٩٩٩٩٩٩٩٩٩\n\n{LINE}", "states 1e+11 atoms in a frame"),
        (f"1\n\n{LINE}99999999999\n\n{LINE}", "states 1e+11 atoms in a frame"),
        (f"1\nProperties=species:S:1:pos:R:3:x:R:99999999999\n{LINE}", "more columns"),
        (f"1\nProperties=species:S:1:pos:R:3:x:R: +9_999_999\n{LINE}", "more columns"),
        (f"1\nProperties=species:S:1:pos:R:3:x:R:٩٩٩٩٩٩٩٩٩٩٩\n{LINE}", "more columns"),
        (f"1\nProperties=Z:I:1:pos:R:3\n{LINE.replace('H', '999')}", "there is no element 999"),
        (f"1\nProperties=Z:I:1:pos:R:3\n{LINE.replace('H', '-1')}", "there is no element -1"),
        (f"1\n{'(' * 3000}\n{LINE.replace('0.0', '(' * 3000)}", "…"),
    ],
)
def test_extended_xyz(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.xyz"
    path.write_text(text)
    with pytest.raises(UnreadableFile) as caught:
        read_frames([path])
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("named", [" Cu\n", ""])
def test_counts_of_vasp(tmp_path: Path, named: str) -> None:
    path = tmp_path / "POSCAR"
    text = f"Cu\n1.0\n3 0 0\n0 3 0\n0 0 3\n{named} {{}}\nDirect\n0 0 0\n0.5 0.5 0.5\n"
    path.write_text(text.format(2))
    assert len(read_frames([path])[0].atoms) == 2
    path.write_text(text.format(2**31))
    with pytest.raises(UnreadableFile, match="it states 2") as caught:
        read_frames([path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["a:C:windows1", "[C:H:carbon12]", "D:T:20240101", "x:S:benzene"])
def test_colons_in_a_comment_are_no_columns(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.xyz"
    path.write_text(f'1\nProperties=species:S:1:pos:R:3 source="{text}"\n{LINE}')
    assert read_frames([path])[0].info["source"] == text


def test_arrays_that_nobody_reads_are_no_harm(tmp_path: Path) -> None:
    """Pickled objects may take fewer bytes than pointers to them; other files may stand there."""
    path = tmp_path / "a.npz"
    arrays = {"z": np.array([1, 1]), "R": np.array([[[0, 0, 0], [0, 0, 0.7]]]), "E": np.zeros(1)}
    names = np.array(["C", "H"] * 500, dtype=object)
    np.savez(path, **arrays, names=names)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "hello")
    assert len(read_frames([path])) == 1


def test_counts_of_sound_files_are_no_harm(tmp_path: Path) -> None:
    """The shortest lines, cell vectors behind the atoms, blank lines at the end."""
    path = tmp_path / "a.xyz"
    frame = "2\n\nH 0 0 0\nH 0 0 1\n"
    vectors = "VEC1 5 0 0\nVEC2 0 5 0\nVEC3 0 0 5\n"
    path.write_text(f"{frame}{vectors}{frame}\n\n")
    assert [len(one.atoms) for one in read_frames([path])] == [2, 2]
    big = [molecule("C60") for _ in range(3)]
    ase.io.write(path, big, format="extxyz")
    assert [len(one.atoms) for one in read_frames([path])] == [60] * 3


def write_npz(path: Path, packed: bool = False, **entries: bytes) -> None:
    way = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", way) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)


def array(value: np.ndarray, stated: tuple[int, ...] | None = None) -> bytes:
    """The entry of an array, whose header may state another shape."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content,
        {
            "descr": value.dtype.str,
            "fortran_order": False,
            "shape": value.shape if stated is None else stated,
        },
    )
    return content.getvalue() + value.tobytes()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            {"R": array(np.ones((2, 3, 3)), (10**9, 3, 3))},
            "R.npy has fewer numbers than its header",
        ),
        ({"R": array(np.ones((0, 3, 3)), (10**12, 0, 3))}, "positions have shape"),
        ({"R": array(np.ones((2, 4, 3)))}, "atomic numbers have shape (3,)"),
        (
            {"R": array(np.ones((2, 3, 3))), "E": array(np.ones(3))},
            "there are 3 energies for 2 frames",
        ),
        ({"R": array(np.ones((2, 3, 3))), "F": array(np.ones((2, 3)))}, "forces have shape (2, 3)"),
        ({"R": b"\x93NUMPY\x09\x00" + bytes(80)}, "a format of arrays that is not read"),
        ({"R": b"nothing"}, "can not be read"),
    ],
)
def test_npz(tmp_path: Path, entries: dict[str, bytes], words: str) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, z=array(np.array([8, 1, 1])), **entries)
    with pytest.raises(UnreadableFile) as caught:
        read_frames([path])
    assert words in str(caught.value)


def test_npz_that_swells(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, packed=True, z=array(np.array([8])), R=bytes(2**28))
    assert path.stat().st_size < 2**20
    with pytest.raises(UnreadableFile, match="unpacks to far more than its size"):
        read_frames([path])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"set.000/coord.npy": array(np.ones((2, 9)), (10**12, 9))}, "set.000/coord.npy has fewer"),
        ({"type.raw": b"", "set.000/coord.npy": array(np.ones((0, 0)), (10**12, 0))}, "no atoms"),
        ({"set.000/coord.npy": array(np.ones((0, 9)), (10**12, 0))}, "set.000/coord.npy has shape"),
        ({"set.000/energy.npy": array(np.ones(2), (2**62,))}, "set.000/energy.npy has fewer"),
        ({"set.000/force.npy": b"\x93NUMPY\x09\x00" + bytes(80)}, "a format of arrays that is not"),
        ({"type.raw": b"0\n1\n99999999999\n"}, "does not name"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*input contained no data")
def test_folders_of_deepmd(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    sound = {"type.raw": b"0 1 1", "type_map.raw": b"O H", "nopbc": b""}
    sound["set.000/coord.npy"] = array(np.arange(18.0).reshape(2, 9))
    (tmp_path / "set.000").mkdir()
    for name, content in {**sound, **files}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFile) as caught:
        read_frames([tmp_path])
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("kill -SEGV $$", "broke down on it (SIGSEGV)"),
        ("kill -XCPU $$", "does not come to an end with it"),
        ("exit 3", "broke down on it (status 3)"),
    ],
)
def test_a_library_that_breaks_down_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    path, stand_in = tmp_path / "a.h5", tmp_path / "python"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    stand_in.write_text(f"#!/bin/sh\n{program}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    with pytest.raises(UnreadableFile) as caught:
        read_frames([path])
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: can not be read")


def test_nothing_that_lies_about_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that reads HDF5 begins in the folder of the user, whatever is there."""
    for name in ("h5py", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\n")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a/species"], file["a/coordinates"] = np.array([1]), np.array([[[0.1, 1 / 3, np.nan]]])
    monkeypatch.chdir(tmp_path)
    (frame,) = read_frames(["a.h5"])
    np.testing.assert_array_equal(frame.atoms.positions, [[0.1, 1 / 3, np.nan]])
    assert not (tmp_path / "ran").exists()
