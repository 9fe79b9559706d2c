"""Files to structures as they stand there, one after the other: any file ASE reads, and READERS."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ase import Atoms

from surefoot.data.adsorption import add_references, find_text, unpack
from surefoot.data.apart import read_apart
from surefoot.data.aselmdb import read_aselmdb
from surefoot.data.deepmd import TYPES, read_deepmd
from surefoot.data.formats import read_ase, read_database, read_xyz, say_reason
from surefoot.data.geometric import read_geometric
from surefoot.data.npz import read_npz

READERS: dict[str, Callable[[Path], Iterable[Atoms]]] = {
    ".xyz": read_xyz,
    ".extxyz": read_xyz,
    ".npz": read_npz,
    ".db": read_database,
    ".lmdb": read_geometric,
    ".aselmdb": read_aselmdb,
    ".h5": read_apart,
    ".hdf5": read_apart,
}
"""Formats that ASE does not read, or only in part, by suffix; everything else goes to ASE."""

FOLDERS: dict[str, Callable[[Path], Iterable[Atoms]]] = {TYPES: read_deepmd}
"""Formats that are folders, by a file that stands in each."""


class UnreadableFile(ValueError):
    """A file that can not be read, or a label that is asked for and is not there."""


def read_images(path: Path) -> list[Atoms]:
    """All structures of a file; see `iterate_images`."""
    return list(iterate_images(path))


def iterate_images(path: Path) -> Iterator[Atoms]:
    """The structures of a file as they stand there; a `.gz` or `.xz` suffix is unpacked first.

    Where a text of OC20 stands beside it, its numbers are put into `info`, see `add_references`.

    Raises:
        UnreadableFile: with the file and the reason.
    """
    _require_there(path)
    if path.suffix == ".safetensors":
        raise UnreadableFile(
            f"{path}: a potential or checkpoint, not structures; in a command the potential comes "
            "before the structures."
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            plain = unpack(path, Path(folder))
            yield from add_references(_find_reader(plain)(plain), path)
        except Exception as error:  # ASE's readers raise whatever their parsers meet
            raise UnreadableFile(
                f"{path}: can not be read ({say_reason(error)}). Any file that ASE reads is "
                f"allowed, and {', '.join(READERS)}."
            ) from error


def hash_content(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder.

    Raises:
        UnreadableFile: if it is not there.
    """
    _require_there(path)
    if path.is_dir():
        parts = sorted(part for part in path.rglob("*") if part.is_file())
        return _join((part.relative_to(path).as_posix(), hash_content(part)) for part in parts)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_source(path: Path) -> str:
    """SHA-256 of all that is read with a file: of what `hash_content` takes, and a text of OC20."""
    text = find_text(path)
    content = hash_content(path)
    return content if text is None else _join((("", content), (text.name, hash_content(text))))


def _join(parts: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"{content} {name}\n" for name, content in parts)
    return hashlib.sha256(lines.encode()).hexdigest()


def _require_there(path: Path) -> None:
    if path.is_dir():
        if not any((path / name).is_file() for name in FOLDERS):
            raise UnreadableFile(
                f"{path}: this is a folder; name a file in it. The folders that can be read are "
                f"those with {' or '.join(FOLDERS)}."
            )
    elif not path.is_file():
        raise UnreadableFile(f"{path}: there is no such file.")


def _find_reader(path: Path) -> Callable[[Path], Iterable[Atoms]]:
    if path.is_dir():
        return next(reader for name, reader in FOLDERS.items() if (path / name).is_file())
    return READERS.get(path.suffix, read_ase)
