"""Databases that LMDB wrote are read page by page; damaged ones are refused, and never crash."""

import random
import struct
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
        assert dict(read_entries(path)).keys() == ENTRIES.keys() - set(gone[:number])


def test_a_database_without_entries(tmp_path: Path) -> None:
    assert not list(read_entries(write(tmp_path / "a.lmdb", {})))


@pytest.mark.parametrize("page", [0, 1])
def test_one_of_the_two_states_is_enough(page: int, tmp_path: Path) -> None:
    """A crash while one is written leaves the other; both hold the entries before the last."""
    path = write(tmp_path / "a.lmdb", ENTRIES, (b"3", b"5"))
    content = bytearray(path.read_bytes())
    content[4096 * page + 16 : 4096 * page + 20] = b"\0" * 4  # the magic number
    path.write_bytes(content)
    left = dict(read_entries(path)).keys()
    assert left in (ENTRIES.keys() - {b"3"}, ENTRIES.keys() - {b"3", b"5"})


def nodes(content: bytearray) -> list[tuple[int, int]]:
    """Leaf pages by where they begin, and how many entries they have."""
    found = []
    for start in range(2 * 4096, len(content), 4096):
        (flags,) = struct.unpack_from("=H", content, start + 10)
        (lower,) = struct.unpack_from("=H", content, start + 12)
        (own,) = struct.unpack_from("=Q", content, start)
        if flags == 2 and own == start // 4096:
            found.append((start, (lower - 16) // 2))
    return found


def offsets(content: bytearray, start: int, count: int) -> list[int]:
    return list(struct.unpack_from(f"={count}H", content, start + 16))


def test_values_that_share_their_pages_are_refused(tmp_path: Path) -> None:
    """A small file of many entries that all point to one large value would fill the memory."""
    path = write(tmp_path / "a.lmdb", {b"%03d" % n: bytes([n]) * 9000 for n in range(20)})
    content = bytearray(path.read_bytes())
    for start, count in nodes(content):
        places = [start + offset + 8 + 3 for offset in offsets(content, start, count)]
        for place in places[1:]:
            content[place : place + 8] = content[places[0] : places[0] + 8]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="belongs to two entries"):
        list(read_entries(path))


def test_entries_that_share_a_node_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb", {b"%03d" % n: b"value" for n in range(20)})
    content = bytearray(path.read_bytes())
    for start, count in nodes(content):
        first = offsets(content, start, count)[0]
        struct.pack_into(f"={count}H", content, start + 16, *[first] * count)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its keys do not rise after b'000'"):
        list(read_entries(path))


def test_values_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    """Pages of values that reach into each other, under rising keys."""
    count = 40
    path = write(tmp_path / "a.lmdb", {b"%03d" % n: bytes([n]) * 5000 for n in range(count)})
    content = bytearray(path.read_bytes())
    for start, entries in nodes(content):
        for offset in offsets(content, start, entries):
            (number,) = struct.unpack_from("=Q", content, start + offset + 8 + 3)
            pages = len(content) // 4096 - number
            struct.pack_into("=I", content, 4096 * number + 12, pages)
            size = pages * 4096 - 16
            struct.pack_into("=HH", content, start + offset, size & 0xFFFF, size >> 16)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="together larger than the file"):
        list(read_entries(path))


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
