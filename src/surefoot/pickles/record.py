"""Single pickles that hold tensors, as they stand in databases of torch-geometric.

Python's plain pickle writes a tensor as a call of `torch.storage._load_from_bytes` on bytes in the
format of torch before 1.6, which are pickles again, and which the usual reader runs in the same
unsafe way. Here they are taken apart by the same machine:

    magic number, version, facts of the writer, reference to a storage, list of storages   (pickles)
    count of values (8 bytes), values
"""

from __future__ import annotations

import io
import struct
import sys
from dataclasses import dataclass, field
from typing import Any

from surefoot.pickles.archive import Malformed, Storage
from surefoot.pickles.unpickle import STORAGES, Machine

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
RECORD_BYTES = 2**28  # of one record; a structure with all its edges has a hundredth of that
LOAD = "torch.storage._load_from_bytes"

NESTED = frozenset((*STORAGES, "torch.storage.UntypedStorage"))
TENSORS = frozenset((
    LOAD,
    "torch._utils._rebuild_tensor_v2",
    "torch.Size",
    "collections.OrderedDict",
    "builtins.set",
    "_codecs.encode",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
))  # fmt: skip
"""Names without which no tensor and no number is pickled."""


@dataclass
class _Bytes:
    """A pickle in memory, and the storages that were found in it."""

    data: bytes
    storages: dict[str, bytearray] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.data)

    def program(self) -> bytes:
        return self.data

    def storage(self, storage: Storage) -> bytearray:
        if storage.key not in self.storages:
            raise Malformed(f"the numbers of storage {storage.key[:40]!r} are missing; damaged.")
        return self.storages[storage.key]


@dataclass
class _Stream:
    """The next of several pickles that follow each other."""

    stream: io.BytesIO
    size: int

    def program(self) -> io.BytesIO:
        return self.stream

    def storage(self, storage: Storage) -> bytearray:
        raise Malformed(f"storage {storage.key[:40]!r} is asked for where there is none; damaged.")


def read_record(data: bytes, allowed: frozenset[str]) -> Any:
    """A pickle with tensors in it, without executing anything.

    Args:
        data: the pickle.
        allowed: names of classes that it may hold, besides tensors and plain containers; they
            become `Record`s.
    Raises:
        Malformed: if it is damaged, too large, or names anything else.
    """
    if len(data) > RECORD_BYTES:
        raise Malformed(f"a record has {len(data)} bytes, {RECORD_BYTES} are allowed.")
    held = _Bytes(data)

    def load(machine: Machine, content: Any) -> Storage:
        if not isinstance(content, bytes | bytearray):
            raise Malformed("a tensor is made of something that is no bytes; damaged.")
        machine.charge(len(content))
        key = str(len(held.storages))
        kind, values = _read_storage(bytes(content))
        held.storages[key] = values
        return Storage(key, kind.dtype, kind.count)

    return Machine(held, {LOAD: load}, TENSORS | allowed).run()


def _read_storage(content: bytes) -> tuple[Storage, bytearray]:
    """One storage in the format of torch before 1.6."""
    stream = io.BytesIO(content)

    def following() -> Any:
        return Machine(_Stream(stream, len(content)), allowed=NESTED).run()

    if following() != MAGIC or following() != VERSION:
        raise Malformed("a tensor is stored in a format that torch does not write; damaged.")
    writer = following()
    if not isinstance(writer, dict) or writer.get("little_endian") is not (
        sys.byteorder == "little"
    ):
        raise Malformed("written on a machine of other byte order; write it again on this one.")
    storage, keys = following(), following()
    if not isinstance(storage, Storage) or keys != [storage.key]:
        raise Malformed("a tensor is stored as something that is no single storage; damaged.")
    head = stream.read(8)
    count = struct.unpack("=q", head)[0] if len(head) == 8 else -1
    values = bytearray(stream.read())
    if count != storage.count or len(values) != count * storage.dtype.itemsize:
        raise Malformed(
            f"a tensor has {len(values)} bytes for {storage.count} values of {storage.dtype}; "
            "damaged."
        )
    return storage, values
