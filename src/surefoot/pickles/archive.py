"""The zip file of `torch.save`: entries checked before any is read, tensors with checked bounds."""

from __future__ import annotations

import io
import math
import sys
import zipfile
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

PICKLE_BYTES = 64 * 2**20  # of the program alone, tensors not counted; models have below 20 MiB
ENTRIES = 200_000  # of a zip file
AXES = 32  # of a tensor
EMPTY = 2**31  # product of the lengths of a tensor without numbers, that of zero left out


class Malformed(Exception):
    """Why a file was refused: a sentence without its path, which the reader adds."""


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file, not yet read."""

    key: str
    dtype: torch.dtype
    count: int


@runtime_checkable
class Source(Protocol):
    """Where a pickle comes from: a zip file of torch, or a run of bytes."""

    @property
    def size(self) -> int:
        """Bytes; what is made of the pickle is bounded by a multiple of that."""
        ...

    def program(self) -> bytes | io.BytesIO:
        """The pickle, or a stream that stands at its start."""
        ...

    def storage(self, storage: Storage) -> bytearray:
        """The bytes of a storage that it refers to."""
        ...


class Archive:
    """The zip file, its entries checked before any is read.

    Everything is stored uncompressed, so what comes out is not larger than the file.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        self.size = size
        infos = archive.infolist()
        self.entries = {info.filename: info for info in infos}
        self.storages: dict[str, bytearray] = {}
        if len(infos) > ENTRIES or len(self.entries) != len(infos):
            raise Malformed("has too many entries, or two of one name; refused.")
        if any(_is_script(name) for name in self.entries):
            raise Malformed(
                "a TorchScript archive, which holds code rather than settings; give the model "
                "saved by torch.save(model, path)."
            )
        for info in infos:
            packed = info.compress_type != zipfile.ZIP_STORED or info.file_size > info.compress_size
            if packed or info.flag_bits & 1:
                raise Malformed(f"{info.filename} is compressed or encrypted, as torch never does.")
        if sum(info.file_size for info in infos) > size:
            raise Malformed("its entries are larger than the file; damaged or made to harm.")
        found = [name for name in self.entries if name.split("/")[1:] == ["data.pkl"]]
        if len(found) != 1:
            raise Malformed("a zip file, but not one of torch.save: it has no data.pkl.")
        self.prefix = found[0].split("/")[0]
        order = self.entries.get(f"{self.prefix}/byteorder")
        if order is not None and archive.read(order) != sys.byteorder.encode():
            raise Malformed("written on a machine of other byte order; save it again on this one.")

    def program(self) -> bytes:
        """The pickle."""
        info = self.entries[f"{self.prefix}/data.pkl"]
        if info.file_size > PICKLE_BYTES:
            raise Malformed(f"its pickle has {info.file_size} bytes, {PICKLE_BYTES} are allowed.")
        return self.archive.read(info)

    def storage(self, storage: Storage) -> bytearray:
        """The bytes of a storage, read once."""
        info = self.entries.get(f"{self.prefix}/data/{storage.key}")
        if info is None:
            raise Malformed(f"the numbers of storage {storage.key[:40]!r} are missing; damaged.")
        if storage.count * storage.dtype.itemsize > info.file_size:
            raise Malformed(
                f"storage {storage.key[:40]!r} has {info.file_size} bytes, too few for "
                f"{storage.count} values of {storage.dtype}."
            )
        if storage.key not in self.storages:
            self.storages[storage.key] = bytearray(self.archive.read(info))
        return self.storages[storage.key]


def _is_script(name: str) -> bool:
    return name.split("/")[1:2] in (["constants.pkl"], ["code"])


def rebuild_tensor(archive: Source, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """A tensor on its storage, element i at offset + Σ i·stride.

    Raises:
        Malformed: if any element lies outside the storage, or there are more elements than it has.
    """
    listed = isinstance(size, tuple | list) and isinstance(stride, tuple | list)
    valid = listed and isinstance(storage, Storage) and len(size) == len(stride) <= AXES
    numbers = (offset, *size, *stride) if valid else ()
    if not valid or any(type(n) is not int or not 0 <= n < 2**62 for n in numbers):
        raise Malformed("a tensor has no proper storage, size and strides; damaged.")
    elements = 1
    for length in size:
        elements *= length
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if elements > storage.count or (elements and last >= storage.count):
        raise Malformed(
            f"a tensor of size {list(size)} does not fit into its {storage.count} stored values."
        )
    if not elements and math.prod(length or 1 for length in size) > EMPTY:
        raise Malformed(f"a tensor of size {list(size)} has no values; damaged or made to harm.")
    data = archive.storage(storage)
    if not elements:
        return torch.empty(tuple(size), dtype=storage.dtype)
    boolean = storage.dtype is torch.bool
    plain = torch.uint8 if boolean else storage.dtype
    flat = torch.frombuffer(data, dtype=plain, count=storage.count)
    tensor = flat.as_strided(tuple(size), tuple(stride), offset)
    return tensor != 0 if boolean else tensor  # bytes other than 0 and 1 are no booleans to torch
