"""What becomes of files: bits flip, copies break off, another run or hour brings its own."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Bytes = Callable[[bytearray, np.random.Generator], bytes]


@dataclass(frozen=True)
class Damage:
    """What was done to which file, and what it was before.

    Attributes:
        kind: of the damage.
        file: path within the folder of the run.
        before: content, to be put back.
    """

    kind: str
    file: str
    before: bytes

    def undo(self, place: Path) -> None:
        """Put the file back."""
        path = place / self.file
        if path.is_dir():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.before)


def flip(content: bytearray, generator: np.random.Generator) -> bytes:
    """One to four bits."""
    for _ in range(int(generator.integers(1, 5))):
        content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
    return bytes(content)


def cut(content: bytearray, generator: np.random.Generator) -> bytes:
    """A copy that broke off."""
    return bytes(content[: int(generator.integers(len(content)))])


def blank(content: bytearray, generator: np.random.Generator) -> bytes:
    """A block that the disk lost."""
    start = int(generator.integers(len(content)))
    length = len(content[start : start + int(generator.integers(1, 4096))])
    content[start : start + length] = bytes(length)
    return bytes(content)


def scramble(content: bytearray, generator: np.random.Generator) -> bytes:
    """A block of something else."""
    start = int(generator.integers(len(content)))
    length = len(content[start : start + int(generator.integers(1, 512))])
    content[start : start + length] = generator.bytes(length)
    return bytes(content)


def append(content: bytearray, generator: np.random.Generator) -> bytes:
    """Its own end once more, or noise."""
    more = bytes(content[int(generator.integers(len(content))) :])
    return bytes(content) + (more if generator.random() < 0.5 else generator.bytes(100))


def shift(content: bytearray, generator: np.random.Generator) -> bytes:
    """Some bytes in the middle are gone."""
    start = int(generator.integers(len(content)))
    del content[start : start + int(generator.integers(1, 64))]
    return bytes(content)


CONTENT: dict[str, Bytes] = {
    "flipped": flip,
    "cut": cut,
    "blanked": blank,
    "scrambled": scramble,
    "appended": append,
    "shifted": shift,
    "emptied": lambda *_: b"",
}
KINDS = (*CONTENT, "swapped", "older", "removed", "folder")


def strike(
    place: Path,
    other: Path,
    older: Path | None,
    generator: np.random.Generator,
    spared: tuple[str, ...],
) -> Damage | None:
    """Damage one file of a run; None if there is none that could be.

    Args:
        place: folder of the run.
        other: folder of another run.
        older: the same folder at an earlier time.
        generator: what chooses.
        spared: patterns of files that are left alone.
    """
    files = [
        path
        for path in sorted(place.rglob("*"))
        if path.is_file() and not any(path.match(pattern) for pattern in spared)
    ]
    if not files:
        return None
    path = files[int(generator.integers(len(files)))]
    name, before = str(path.relative_to(place)), path.read_bytes()
    kinds = [kind for kind in KINDS if before or kind not in CONTENT]
    sources = {"swapped": other / name, "older": None if older is None else older / name}
    for kind, source in sources.items():
        if source is None or not source.is_file() or source.read_bytes() == before:
            kinds.remove(kind)
    kind = kinds[int(generator.integers(len(kinds)))]
    if kind in CONTENT:
        path.write_bytes(CONTENT[kind](bytearray(before), generator))
    elif kind in sources:
        shutil.copyfile(str(sources[kind]), path)
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
    return Damage(kind, name, before)
