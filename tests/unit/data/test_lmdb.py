"""Databases that LMDB wrote are read page by page; damaged ones are refused, and never crash."""

import random
from pathlib import Path

import lmdb
import pytest

from surefoot.data.lmdb import read_entries

ENTRIES = {str(n).encode(): (b"%d:" % n) * (1 + n % 60) for n in range(700)}
ENTRIES |= {b"length": b"700", b"empty": b"", b"big": bytes(range(256)) * 100}


def write(path: Path, entries: dict[bytes, bytes], gone: tuple[bytes, ...] = ()) -> Path:
    with lmdb.open(str(path), subdir=False, map_size=2**26, lock=False) as database:
        with database.begin(write=True) as transaction:
            for key, value in entries.items():
                transaction.put(key, value)
        for key in gone:
            with database.begin(write=True) as transaction:
                transaction.delete(key)
    return path


def test_entries_are_those_that_were_written(tmp_path: Path) -> None:
    found = list(read_entries(write(tmp_path / "a.lmdb", ENTRIES)))
    assert [key for key, _ in found] == sorted(ENTRIES)
    assert dict(found) == ENTRIES


def test_the_newer_of_the_two_states_counts(tmp_path: Path) -> None:
    gone = (b"3", b"length", b"699", b"big")
    for number in range(1, len(gone) + 1):
        path = write(tmp_path / f"{number}.lmdb", ENTRIES, gone[:number])
        assert read_entries(path)
        assert dict(read_entries(path)).keys() == ENTRIES.keys() - set(gone[:number])


def test_a_database_without_entries(tmp_path: Path) -> None:
    assert not list(read_entries(write(tmp_path / "a.lmdb", {})))


def test_nothing_is_written_beside_or_into_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb", ENTRIES)
    before = path.read_bytes()
    path.chmod(0o444)
    assert list(read_entries(path))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.lmdb"]


def test_a_file_that_was_not_copied_whole_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.lmdb", ENTRIES).read_bytes()
    for size in (1, 15, 100, 4096, 5000, len(whole) // 2, len(whole) - 1):
        path = tmp_path / "part.lmdb"
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"not copied whole|not a database"):
            list(read_entries(path))


def test_several_values_of_a_key_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.lmdb")
    with lmdb.open(path, subdir=False, max_dbs=2, lock=False) as database:
        inner = database.open_db(b"inner")
        with database.begin(write=True) as transaction:
            transaction.put(b"key", b"value", db=inner)
    with pytest.raises(ValueError, match="tables in tables"):
        list(read_entries(Path(path)))


def test_a_scratched_file_is_read_or_refused(tmp_path: Path) -> None:
    """Sizes, offsets and page numbers that lie never lead out of the file, or round in it."""
    whole = write(tmp_path / "a.lmdb", {k: v for k, v in ENTRIES.items() if len(v) < 60})
    content = whole.read_bytes()
    dice, refused = random.Random(1), 0  # noqa: S311
    for _ in range(300):
        broken = bytearray(content)
        # Where the tables, headers of pages and the first nodes stand.
        page = 4096 * dice.randrange(len(content) // 4096)
        broken[page + dice.randrange(160)] = dice.randrange(256)
        whole.write_bytes(broken)
        try:
            list(read_entries(whole))
        except ValueError:
            refused += 1
    assert refused > 50
