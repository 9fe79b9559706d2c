"""Readers, sound files for each, and how other files are made of them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutate import change_bytes, change_text

Make = Callable[[Random], bytes]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader and what it is given.

    Attributes:
        name: of the reader.
        file: name of the file; its suffix decides which reader the package takes.
        make: the content of a case.
        read: what the package does with the file.
        share: of all cases, beside those of the other targets.
        beside: other files in the folder, which stay as they are.
        strict: whether memory that is asked for and not filled counts, too.
        apart: whether it reads in a process of its own, which has limits of its own.
    """

    name: str
    file: str
    make: Make
    read: Callable[[Path], Any]
    share: float = 1.0
    beside: tuple[tuple[str, bytes], ...] = ()
    strict: bool = True
    apart: bool = False


def of_bytes(seeds: list[bytes]) -> Make:
    """Changes of bytes."""
    return lambda random: change_bytes(random.choice(seeds), random, seeds)


def of_text(seeds: list[bytes]) -> Make:
    """Changes of words, numbers and lines."""
    return lambda random: change_text(random.choice(seeds), random, seeds)


def list_targets(work: Path) -> dict[str, Target]:
    """All targets by name.

    Args:
        work: folder in which sound files are made.
    """
    from fuzz import archives, folders, hdf, runs, structures, texts

    rooms = (texts, structures, hdf, folders, runs, archives)
    found = [target for room in rooms for target in room.list_targets(work)]
    return {target.name: target for target in found}


def lay(target: Target, work: Path) -> Path:
    """A folder with what stands beside the file of a target."""
    folder = work / "case"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in target.beside:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / target.file).parent.mkdir(parents=True, exist_ok=True)
    return folder


def read_case(target: Target, seed: int, number: int, work: Path) -> None:
    """Write the file of a case into the folder of its target, and read it.

    Args:
        target: whose folder is laid.
        seed: of all cases.
        number: of the case.
        work: folder of the cases.
    """
    path = work / "case" / target.file
    path.write_bytes(target.make(Random(f"{seed} {target.name} {number}")))  # noqa: S311
    target.read(path)
