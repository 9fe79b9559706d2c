"""Chunks of OC20 in extended XYZ and the text files beside them.

A chunk `0.extxyz` holds total energies; its `0.txt` has a line for each of its frames,

    random<sid>,frame<fid>,<reference energy>

and the adsorption energy, which OC20 is about, is the total energy minus the reference: that of the
clean slab and of the adsorbate in the gas. Neither is subtracted unasked, see `Keys.reference`.
"""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ase import Atoms

CHUNKS = (".extxyz", ".xyz")
REFERENCE = "reference_energy"
TOTAL = f"{REFERENCE} not subtracted"  # in the key of an energy that has its reference beside it
SUBTRACTED = "subtracted_energy"  # what it is called where it was: nobody subtracts it twice
PACKED: dict[str, Callable[[Path, str], IO[Any]]] = {".gz": gzip.open, ".xz": lzma.open}  # type: ignore[dict-item]
"""Suffixes of compressed files, and what opens them."""
LINE = re.compile(r"^(?:random)?(\d+),\s*(?:frame)?(\d+),\s*([-+.\deE]+)$")
LONGEST = 2**26  # bytes of a text; a chunk of 5000 frames has a hundredth
UNPACKED = 2**34  # bytes of a packed file; a few bytes of xz may be terabytes of zeros
BLOCK = 2**20  # bytes that are copied at once


def unpack(path: Path, folder: Path) -> Path:
    """The file itself, or what a `.gz` or `.xz` holds, unpacked into a folder.

    Raises:
        ValueError: if more than `UNPACKED` bytes come out of it.
    """
    if path.suffix not in PACKED:
        return path
    plain = folder / path.stem
    with PACKED[path.suffix](path, "rb") as packed, plain.open("wb") as unpacked:
        left = UNPACKED
        while block := packed.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise ValueError(
                    f"it unpacks to more than {UNPACKED} bytes; if that is meant, unpack it first"
                )
            unpacked.write(block)
    return plain


def add_references(images: Iterable[Atoms], path: Path) -> Iterator[Atoms]:
    """Put `sid`, `fid` and `reference_energy` into the info of the frames of a chunk.

    Args:
        images: the frames of a file.
        path: that file as the user gave it; where no text of OC20 stands beside it, nothing
            is changed.
    Raises:
        ValueError: if the text and the frames do not fit together.
    """
    text = find_text(path)
    found = None if text is None else _read_text(text)
    if found is None:
        yield from images
        return
    count = 0
    for count, atoms in enumerate(images, 1):
        match = found[count - 1] if count <= len(found) else None
        if match is None and count <= len(found):
            raise ValueError(f"line {count} of {text} is not 'random<sid>,frame<fid>,<energy>'")
        if match is not None:
            atoms.info |= {"sid": int(match[1]), "fid": int(match[2]), REFERENCE: float(match[3])}
        yield atoms
    if count != len(found):
        raise ValueError(f"it has {count} frames, and {text} has {len(found)} lines")


def _read_text(text: Path) -> list[re.Match[str] | None] | None:
    """The lines of a text beside a chunk; None where it is some other text of the same name."""
    with PACKED[text.suffix](text, "rb") if text.suffix in PACKED else text.open("rb") as file:
        lines = file.read(LONGEST).decode("utf-8", "replace").splitlines()
    found = [LINE.match(line.strip()) for line in lines if line.strip()]
    return found if found and found[0] is not None else None


def subtract_reference(
    energy: Any, key: str, info: Mapping[str, Any], reference: str | None
) -> tuple[float, str]:
    """The energy beyond a reference, and a key that tells of it.

    Args:
        energy: as the file states it.
        key: where it was found.
        info: of the frame.
        reference: key in info of what is subtracted, if anything.
    Raises:
        ValueError: if there is no such energy.
    """
    if reference is None:
        # Which energy it is decides everything, so the line that counts the labels says so.
        return float(energy), f"{key}, {TOTAL}" if REFERENCE in info else key
    if reference not in info:
        raise ValueError(
            f"its info has no {reference}, which is to be subtracted from the energy; put the text "
            "of the chunk beside it, or leave the key of the reference out"
        )
    return float(energy) - float(info[reference]), f"{key} − {reference}"


def require_subtracted(keys: Iterable[str]) -> None:
    """Refuse energies that have a reference beside them as if they were beyond it.

    Args:
        keys: under which energies were found, see `subtract_reference`.
    Raises:
        ValueError: if one has its reference beside it.
    """
    if any(key.endswith(TOTAL) for key in keys):
        raise ValueError(
            f"references: zero is for energies beyond a reference, and {REFERENCE} stands beside "
            f"these and was not subtracted; set data: {{keys: {{reference: {REFERENCE}}}}}. Where "
            f"it was subtracted before, call it {SUBTRACTED} in the files."
        )


def mark_subtracted(atoms: Atoms, reference: str | None) -> Atoms:
    """The structure with a reference that was subtracted under another name."""
    if reference in atoms.info:
        atoms.info[SUBTRACTED] = atoms.info.pop(reference)
    return atoms


def find_text(path: Path) -> Path | None:
    """The text of a chunk, compressed or not."""
    plain = path.with_suffix("") if path.suffix in PACKED else path
    if plain.suffix not in CHUNKS:
        return None
    names = [plain.with_suffix(f".txt{packed}") for packed in ("", *PACKED)]
    return next((name for name in names if name.is_file()), None)
