"""Databases in the format of LMDB, read page by page: nothing is locked, written or trusted.

A file of OC20 may have been cut off by a broken download or made by someone else. LMDB itself maps
such a file into memory and follows what stands there; here every page number, offset and length is
compared with the file first. Only the default table is read, of format 1 (LMDB 0.9), as 64-bit
machines of the same byte order write it:

    page   number (8 bytes), –, flags (2), lower (2), upper (2) or pages of an overflow (4)
    meta   magic, version, …, two tables (free, main), last page, transaction    (pages 0 and 1)
    table  page size, flags, depth, pages of three kinds, entries, root
    node   low and high half of a size or page number, flags, length of the key, key, data

A value that does not fit into a page stands on pages of its own, which follow each other.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = 16  # bytes of a page before its content
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8  # flags of pages
BIG = 1  # flag of a node whose value stands on overflow pages
DEPTH = 32  # of the tree; LMDB allows no more
NONE = 2**64 - 1  # root of an empty table
PAGE_SIZES = tuple(2**power for power in range(9, 17))
VALUE_BYTES = 2**28  # of one value
DAMAGED = "the file is damaged or was not copied whole"

_META = struct.Struct("=IIQQ")  # magic, version, address, size of the map
_TABLE = struct.Struct("=IHHQQQQQ")  # page size, flags, depth, pages (3 kinds), entries, root
_NODE = struct.Struct("=HHHH")


@dataclass(frozen=True)
class _Tree:
    """The main table as the last transaction left it."""

    page: int
    last: int
    entries: int
    root: int


def read_entries(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a database, in the order of the keys.

    Args:
        path: the file itself; where the database is a folder, what is called `data.mdb` in it.
    Raises:
        ValueError: if it is no such file, damaged, or its keys and values are together larger than
            the file.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise ValueError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield from _Reader(content).entries()


class _Reader:
    """Pages of one file, each looked at before it is followed."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content
        self.tree = self._newest()
        self.seen: set[int] = set()

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        count, held, last = 0, 0, None
        found = self._below(self.tree.root, 0) if self.tree.root != NONE else iter(())
        for key, value in found:
            # Entries that share one place of the file would fill the memory out of a small one.
            if last is not None and key <= last:
                raise ValueError(f"its keys do not rise after {last[:20]!r}; {DAMAGED}")
            held += len(key) + len(value)
            if held > len(self.content):
                raise ValueError(f"its values are together larger than the file; {DAMAGED}")
            count, last = count + 1, key
            yield key, value
        if count != self.tree.entries:
            raise ValueError(f"{count} of {self.tree.entries} entries are there; {DAMAGED}")

    def _newest(self) -> _Tree:
        """The newer of the two states that a file holds; a crash spoils at most one."""
        first = self._meta(0)
        # The second stands on page 1: where that is, it has to say itself if the first does not.
        sizes = PAGE_SIZES if first is None else (first[1].page,)
        others = [(size, self._meta(size)) for size in sizes]
        states = [state for size, state in others if state is not None and state[1].page == size]
        states += [] if first is None else [first]
        if not states:
            raise ValueError("not a database of LMDB 0.9 from a machine of this byte order")
        tree = max(states, key=lambda found: found[0])[1]
        if (tree.last + 1) * tree.page > len(self.content):
            raise ValueError(
                f"it has {len(self.content)} bytes and should have {(tree.last + 1) * tree.page}; "
                f"{DAMAGED}"
            )
        return tree

    def _meta(self, start: int) -> tuple[int, _Tree] | None:
        if start + 152 > len(self.content):
            return None
        (flags,) = struct.unpack_from("=H", self.content, start + 10)
        magic, version, *_ = _META.unpack_from(self.content, start + HEADER)
        if not flags & META or magic != MAGIC or version & 0xFFFF != VERSION:
            return None
        page, *_ = _TABLE.unpack_from(self.content, start + 40)
        *_, entries, root = _TABLE.unpack_from(self.content, start + 88)
        last, transaction = struct.unpack_from("=QQ", self.content, start + 136)
        if page not in PAGE_SIZES:
            return None
        return transaction, _Tree(page=page, last=last, entries=entries, root=root)

    def _below(self, number: int, depth: int) -> Iterator[tuple[bytes, bytes]]:
        """The entries under one page."""
        if number in self.seen or depth > DEPTH:
            raise ValueError(f"page {number} is a part of itself; {DAMAGED}")
        self.seen.add(number)
        start, flags = self._page(number)
        if not flags & (BRANCH | LEAF):
            raise ValueError(f"page {number} is no page of entries; {DAMAGED}")
        lower, upper = struct.unpack_from("=HH", self.content, start + 12)
        if not HEADER <= lower <= upper <= self.tree.page:
            raise ValueError(f"page {number} has impossible bounds; {DAMAGED}")
        for place in range(HEADER, lower - 1, 2):
            (offset,) = struct.unpack_from("=H", self.content, start + place)
            key, node, kind, data = self._node(number, start, offset)
            if flags & BRANCH:
                yield from self._below(node | kind << 32, depth + 1)
            else:
                yield key, self._value(node, kind, start, data)

    def _node(self, number: int, start: int, offset: int) -> tuple[bytes, int, int, int]:
        """Key, size or page, flags, and where the data begin in the page."""
        if not HEADER <= offset <= self.tree.page - _NODE.size:
            raise ValueError(f"page {number} has an entry outside of itself; {DAMAGED}")
        low, high, kind, length = _NODE.unpack_from(self.content, start + offset)
        data = offset + _NODE.size + length
        if data > self.tree.page:
            raise ValueError(f"page {number} has a key outside of itself; {DAMAGED}")
        key = self.content[start + data - length : start + data]
        return key, low | high << 16, kind, data

    def _value(self, size: int, kind: int, start: int, data: int) -> bytes:
        if kind & ~BIG:
            raise ValueError("it has tables in tables or several values of a key; neither is read")
        if size > VALUE_BYTES:
            raise ValueError(f"a value has {size} bytes, {VALUE_BYTES} are allowed")
        if not kind & BIG:
            if data + size > self.tree.page:
                raise ValueError(f"a value lies outside of its page; {DAMAGED}")
            return self.content[start + data : start + data + size]
        if data + 8 > self.tree.page:
            raise ValueError(f"a value lies outside of its page; {DAMAGED}")
        (number,) = struct.unpack_from("=Q", self.content, start + data)
        if number in self.seen:
            raise ValueError(f"page {number} belongs to two entries; {DAMAGED}")
        self.seen.add(number)
        begin, flags = self._page(number)
        (pages,) = struct.unpack_from("=I", self.content, begin + 12)
        room = min(pages * self.tree.page, len(self.content) - begin) - HEADER
        if not flags & OVERFLOW or size > room:
            raise ValueError(f"the pages of a value do not hold it; {DAMAGED}")
        return self.content[begin + HEADER : begin + HEADER + size]

    def _page(self, number: int) -> tuple[int, int]:
        """Where a page begins, and its flags."""
        start = number * self.tree.page
        if number > self.tree.last or start + self.tree.page > len(self.content):
            raise ValueError(f"page {number} lies outside of the file; {DAMAGED}")
        (own,) = struct.unpack_from("=Q", self.content, start)
        if own != number:
            raise ValueError(f"page {number} calls itself page {own}; {DAMAGED}")
        (flags,) = struct.unpack_from("=H", self.content, start + 10)
        return start, flags
