"""The folder of a run: what belongs to it, and how it is removed without touching anything else."""

from __future__ import annotations

import re
from pathlib import Path

from surefoot.lock import LOCK
from surefoot.md.job import GUARD
from surefoot.md.saved import STATE
from surefoot.md.trajectory import INDEX, PARTS

SYSTEM = r"system-\d{4,}"
FILES = {
    ".": rf"{re.escape(STATE)}|{re.escape(INDEX)}|{SYSTEM}\.xyz|last-good-\d{{4,}}\.xyz",
    PARTS: r"\d{6,}\.h5",
    GUARD: rf"{SYSTEM}-step-\d{{9,}}\.xyz",
}
"""Names of files that a run writes, by folder."""
HIDDEN = r"\.({})\.\w+"
"""The name of one of them that was being written when the run was killed."""
MARKS = rf"{re.escape(STATE)}|{re.escape(INDEX)}"
"""Names without which a folder is no run, whatever else is in it."""


def find_strangers(folder: Path) -> list[str]:
    """What is in the folder of a run and no run writes; all of it where there is no run.

    Args:
        folder: any folder; links are not followed.
    Returns:
        Paths within it.
    """
    top = sorted(path for path in folder.iterdir() if path.name != LOCK)
    if not any(_matches(MARKS, path) for path in top):
        return [path.name for path in top]
    found = sorted(folder.rglob("*"))
    return [str(path.relative_to(folder)) for path in found if not _is_ours(path, folder)]


def remove_run(folder: Path) -> None:
    """Remove what a run has written, and nothing else; the folder and the lock on it stay."""
    for path in sorted(folder.rglob("*")):
        if path != folder / LOCK and _is_ours(path, folder) and not _is_room(path, folder):
            path.unlink()
    for name in (PARTS, GUARD):
        room = folder / name
        if _is_room(room, folder) and not any(room.iterdir()):
            room.rmdir()


def sweep_run(folder: Path) -> None:
    """Remove what a killed process has left of files that it was writing."""
    for place, names in FILES.items():
        for path in (folder / place).glob(".*"):
            if re.fullmatch(HIDDEN.format(names), path.name) and path.is_file():
                path.unlink()


def _is_ours(path: Path, folder: Path) -> bool:
    if path.is_dir():
        return _is_room(path, folder)
    if path == folder / LOCK:
        return True
    names = FILES.get(str(path.parent.relative_to(folder)))
    return names is not None and _matches(names, path)


def _matches(names: str, path: Path) -> bool:
    """Whether a file, and no folder, has one of these names."""
    pattern = rf"{names}|{HIDDEN.format(names)}"
    return re.fullmatch(pattern, path.name) is not None and not path.is_dir()


def _is_room(path: Path, folder: Path) -> bool:
    """Whether it is one of the folders within that of a run."""
    inside = path.parent == folder and path.name in (PARTS, GUARD)
    return inside and path.is_dir() and not path.is_symlink()
