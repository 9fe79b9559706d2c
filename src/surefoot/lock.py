"""Locks of folders and files: one process writes at a place, and a dead one holds nothing.

A lock is the kernel's (`flock`), so it ends with its process, however that ends: the file of a
killed one stays and stands in nobody's way.
"""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
"""The file in a folder that one process works in."""
TRIES = 100  # to open a file that others remove
UNABLE = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class InUse(ValueError):
    """A place that another process writes to."""


@contextmanager
def hold(place: Path, sentence: str) -> Iterator[None]:
    """A lock for this process alone; its file, and folders made for it, go with it.

    Args:
        place: of the file, such as `LOCK` in a folder.
        sentence: what a user is told where another process has it.
    Raises:
        InUse: if another process has it.
    """
    made = [folder for folder in place.parents if not folder.exists()]  # the deepest first
    handle = _open(place, sentence)
    try:
        yield
    finally:
        # Ours as long as it has this name, so that nobody else's is removed.
        if _is_at(handle, place):
            place.unlink(missing_ok=True)
        os.close(handle)
        _remove_empty(made)


def seize(handle: int, place: Path) -> bool:
    """Lock an open file for this process; whether no other one has it.

    Args:
        handle: of the file.
        place: where it is, for a warning where its file system knows no locks.
    """
    free = try_to_seize(handle)
    if free is None:
        warnings.warn(
            f"{place.parent}: this file system knows no locks, so that nothing keeps a second "
            "process from writing here.",
            RuntimeWarning,
            stacklevel=2,
        )
    return free is not False


def try_to_seize(handle: int) -> bool | None:
    """Lock an open file for this process; whether no other one has it, None if nobody knows.

    Args:
        handle: of the file, whose file system may know no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        return None
    return True


def open_lock(place: Path) -> int:
    """A handle of a lock's file, which is made if it is not there, and may be another user's.

    Raises:
        PermissionError: if the file may not even be read, saying what to do.
    """
    flags = os.O_CREAT | os.O_NOFOLLOW
    try:
        return os.open(place, os.O_RDWR | flags, 0o666)
    except PermissionError:
        if not place.exists():
            raise
    try:
        return os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    except PermissionError as error:
        what = "this lock of another user can not be read; remove it if no run is going on here"
        raise PermissionError(error.errno, what, str(place)) from error


def _open(place: Path, sentence: str) -> int:
    """The open and locked file."""
    for left in reversed(range(TRIES)):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle = open_lock(place)
        except (FileNotFoundError, FileExistsError):
            if left:  # who was here before may just be removing the folder
                continue
            raise
        try:
            free = seize(handle, place)
            if free and _is_at(handle, place):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not free:
            break
        # Who was here before has just removed the file, and the lock on it holds nothing.
    raise InUse(sentence)


def _is_at(handle: int, place: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(handle), place.lstat())
    except OSError:
        return False


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
