"""What tells a damaged line or file from a whole one: records with a checksum, sums of files.

Files of HDF5 carry their sum behind their end, where readers of HDF5 do not look: the library
follows what stands in a damaged one, and may end the interpreter.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECK = "check"
"""The key of the checksum, the last one of a record."""
BLOCK = 2**20  # bytes that are read at once
MARK = b"\nsha256 "
SUM = 64  # hexadecimal digits
HDF = b"\x89HDF\r\n\x1a\n"
ENDS = {0: 40, 1: 44, 2: 28, 3: 28}
"""Where the superblock of each version says where the file ends."""


def seal(record: Mapping[str, Any]) -> bytes:
    """A record as a line of JSON that ends with the CRC-32 of the rest.

    Args:
        record: what JSON can hold, with at least one key and none that is `CHECK`.
    """
    text = json.dumps(record)
    return f'{text[:-1]}, "{CHECK}": {zlib.crc32(text.encode())}}}\n'.encode()


def unseal(line: bytes, *, required: bool = True) -> tuple[dict[str, Any], bool]:
    """The record of a line, and whether it has a checksum.

    Args:
        line: as `seal` wrote it.
        required: whether a record without a checksum is refused; versions before wrote such.
    Raises:
        ValueError: with the reason, if it is no record, or not as it was written.
    """
    try:
        record = json.loads(line)
        if not isinstance(record, dict):
            raise ValueError("it is no record in braces")
        stated = record.pop(CHECK, None)
        whole = stated == zlib.crc32(json.dumps(record).encode())
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError("it is no text of JSON") from error
    if stated is None and required:
        raise ValueError("it has no checksum")
    if stated is not None and not whole:
        raise ValueError("its content does not match its checksum")
    return record, stated is not None


def sum_up(path: Path, length: int | None = None) -> Any:
    """SHA-256 of the beginning of a file, as an object that takes more bytes.

    Args:
        path: of the file.
        length: bytes that count; all where not given.
    """
    total, left = hashlib.sha256(), length
    with path.open("rb") as file:
        while block := file.read(BLOCK if left is None else min(BLOCK, left)):
            total.update(block)
            left = None if left is None else left - len(block)
    return total


def sign(content: bytes) -> bytes:
    """A file of HDF5 with its sum behind its end."""
    return content + MARK + hashlib.sha256(content).hexdigest().encode()


def require_signed(path: Path) -> None:
    """Refuse a file of HDF5 that is not as it was written; older ones, without a sum, pass.

    Raises:
        ValueError: with the reason.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        version = head[len(HDF)] if len(head) == 64 and head.startswith(HDF) else None
        if version not in ENDS:
            raise ValueError("it is no file of HDF5")
        (end,) = struct.unpack_from("<Q", head, ENDS[version])
        if size == end:
            return
        file.seek(max(0, size - SUM - len(MARK)))
        stated = file.read()
    total = sum_up(path, size - len(stated)).hexdigest()
    if size != end + len(stated) or stated != MARK + total.encode():
        raise ValueError("it is damaged, since its content does not match its sum")
