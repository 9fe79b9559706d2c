"""Data sets that stay on disk: converted once, mapped into memory, read one frame at a time.

    FOLDER/<key>.store/     header.json and one file for each column (`data/columns.py`)

The key is a hash of all that decides what the frames are: the content of their files, where labels
stand and in which units, and the versions of what has read them. So a store is never out of date:
other frames have another store.

It is written under another name and moved when it is whole, so a writer may be killed at any time.
Writers of one folder wait for each other, where the file system knows locks; elsewhere both write,
and the one that comes second throws its own away. A store that stands there is never changed, so
any number of processes may read it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian

from surefoot import __version__
from surefoot.data.columns import FORMAT, ColumnWriter
from surefoot.data.file_units import FileUnits
from surefoot.data.frame import Frame
from surefoot.data.images import UnreadableFile, hash_source
from surefoot.data.read import Keys, Reading, find_spin_key, require_labels, tell_unpaired
from surefoot.data.stored import FIXED, LABELS, UNPAIRED, Store, StoredFrame
from surefoot.lock import LOCK, open_lock, try_to_seize

SUFFIX = ".store"
PART = f".part-{platform.node()}-"  # what a writer of this machine works in
SHOWN = 50_000  # frames between two lines about a conversion

Tell = Callable[[str], None]


def keep_frames(
    paths: Sequence[str | Path],
    keys: Keys,
    units: FileUnits,
    folder: Path,
    tell: Tell = lambda _: None,
) -> list[Frame]:
    """All frames of the files, as `read_frames` has them, kept in a store and read from there.

    Args:
        paths: files.
        keys: where labels stand.
        units: of the labels.
        folder: of stores; what is not there yet is made.
        tell: called with a line where something takes long.
    Raises:
        UnreadableFile: with the file and the reason.
        RefusedStore: if a store is damaged.
        ValueError: if a frame holds what a store has no place for.
    """
    place = folder / f"{_key(paths, keys, units)}{SUFFIX}"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, tell) as alone:
            if alone:
                _sweep(folder)
            if not place.exists():
                _convert(paths, keys, units, place, tell)
    store = Store(place, [str(path) for path in paths])
    frames: list[Frame] = [StoredFrame(store, row) for row in range(len(store))]
    require_labels(frames, paths, keys)
    return frames


def _key(paths: Sequence[str | Path], keys: Keys, units: FileUnits) -> str:
    """A hash of all that decides what the frames are."""
    what = {
        "format": FORMAT,
        "files": [[Path(path).name, hash_source(Path(path))] for path in paths],
        "keys": keys.model_dump(),
        "units": units.model_dump(),
        "versions": [__version__, version("ase")],
    }
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


@contextmanager
def _alone(folder: Path, tell: Tell) -> Iterator[bool]:
    """The only writer of a folder; whether that is sure."""
    handle = open_lock(folder / LOCK)
    try:
        free = try_to_seize(handle)
        if free is False:
            tell(f"{folder}: another process writes here; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield free is not None
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what killed writers of this machine have left; a lock may not reach another one."""
    for left in folder.glob(f"{PART}*"):
        shutil.rmtree(left, ignore_errors=True)


def _convert(
    paths: Sequence[str | Path], keys: Keys, units: FileUnits, place: Path, tell: Tell
) -> None:
    tell(f"{', '.join(map(str, paths))}: read once, and kept in {place}")
    work = Path(tempfile.mkdtemp(dir=place.parent, prefix=PART))
    try:
        write_store(work, paths, keys, units, tell)
        if place.stem != _key(paths, keys, units):
            raise UnreadableFile(
                f"{', '.join(map(str, paths))}: changed while it was read; begin again when nobody "
                "writes to it."
            )
        work.chmod(0o755)
        try:
            work.rename(place)
        except OSError:
            if not place.is_dir():  # else another writer came first, and has written the same
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_store(
    folder: Path,
    paths: Sequence[str | Path],
    keys: Keys,
    units: FileUnits,
    tell: Tell = lambda _: None,
) -> None:
    """Read files and write their frames as columns.

    Args:
        folder: empty.
        paths: files.
        keys: where labels stand.
        units: of the labels.
        tell: called with a line now and then.
    """
    seen: Counter[str] = Counter()
    writer = ColumnWriter(folder)
    names: dict[str, dict[str, int]] = {"groups": {}, "types": {}, "keys": {}}
    try:
        for number, path in enumerate(paths):
            reading, spin_keys = Reading(Path(path), keys, units, seen), []
            for frame in reading:
                _add(writer, frame, number, names)
                info = frame.atoms.info
                spin_keys.append(None if frame.spin is None else find_spin_key(info))
                if writer.rows["frame"] % SHOWN == 0:
                    tell(f"{writer.rows['frame']} frames")
            if reading.unpaired is not None:
                _count_unpaired(writer, spin_keys, reading.unpaired, names["keys"])
        held = {name: list(numbers) for name, numbers in names.items()}
        held["keys"] = [json.loads(text) for text in held["keys"]]
        writer.finish({"files": [Path(path).name for path in paths], **held})
    finally:
        writer.close()


def _add(writer: ColumnWriter, frame: Frame, file: int, names: dict[str, dict[str, int]]) -> None:
    numbers = {
        "file": file,
        "groups": _number(frame.group, names["groups"]),
        "types": _number(frame.config_type, names["types"]),
        "keys": _number(json.dumps(frame.keys), names["keys"]),
    }
    try:
        writer.add(_to_row(frame) | numbers, json.dumps(_plain(frame.atoms.info)).encode())
    except ValueError as error:
        raise UnreadableFile(f"{frame.place}: {error}.") from error


def _number(name: str, known: dict[str, int]) -> int:
    return known.setdefault(name, len(known))


def _to_row(frame: Frame) -> dict[str, Any]:
    """The numbers of a frame, but those that point to names."""
    atoms, structure = frame.atoms, frame.structure
    if frame.forces is not None and frame.forces.shape != structure.positions.shape:
        raise ValueError(f"forces have shape {frame.forces.shape} for {len(atoms)} atoms")
    bits = [getattr(frame, label) is not None for label in LABELS] + structure.pbc.tolist()
    found = {label: getattr(frame, label) for label in LABELS}
    row = {label: value for label, value in found.items() if value is not None}
    return (
        {"energy": 0.0}
        | row
        | {
            "flags": sum(bit << number for number, bit in enumerate(bits)),
            "index": frame.index,
            "numbers": structure.numbers,
            "positions": structure.positions,
            "cell": structure.cell,
            "tags": atoms.get_tags(),
            "held": _hold(atoms),
        }
    )


def _hold(atoms: Atoms) -> np.ndarray:
    """How each atom is held, as bits."""
    held = np.zeros(len(atoms), np.uint8)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            held[constraint.index] |= FIXED
        elif isinstance(constraint, FixCartesian):
            held[constraint.index] |= np.packbits(constraint.mask, bitorder="little")
        else:
            raise ValueError(
                f"it has the constraint {type(constraint).__name__}, and a store keeps FixAtoms "
                "and FixCartesian; remove it, or leave `data: {store}` out"
            )
    return held


def _plain(value: Any) -> Any:
    """What JSON can hold of a value of `info`; None for the rest."""
    if isinstance(value, dict):
        held = {str(name): _plain(one) for name, one in value.items()}
        return {name: one for name, one in held.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist() if value.dtype.kind in "biufU" else None
    return value if isinstance(value, str | bool | int | float) else None


def _count_unpaired(
    writer: ColumnWriter, spin_keys: Sequence[str | None], reason: str, known: dict[str, int]
) -> None:
    """Make multiplicities of the spins of the last frames, which are numbers of electrons."""
    first = writer.rows["frame"] - len(spin_keys)
    stated = np.array([key is not None for key in spin_keys])
    spins, flags, told = (writer.read(name, first) for name in ("spin", "flags", "keys"))
    texts, changed = list(known), {}
    for row in np.flatnonzero(stated).tolist():
        pair = int(told[row]), str(spin_keys[row])
        if pair not in changed:
            keys = json.loads(texts[pair[0]]) | tell_unpaired(pair[1], reason)
            changed[pair] = _number(json.dumps(keys), known)
        told[row] = changed[pair]
    writer.change(
        first,
        {
            "spin": spins + stated,
            "flags": flags | (stated.astype(np.uint16) << UNPAIRED),
            "keys": told,
        },
    )
