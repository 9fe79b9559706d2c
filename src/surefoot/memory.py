"""Freed memory stays with the process."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # as malloc.h of glibc numbers them
MMAPS = 65536  # glibc's own MMAP_MAX
LARGE = 150_000
"""Edges of a batch above which nothing is kept: some 3000 atoms of water."""

_kept = False


def keep_memory() -> bool:
    """Let this process keep what it frees, to use it again; whether the C library can do that.

    Every evaluation takes and frees tensors of the same sizes. Where large ones go back to the
    system each time, it has to clear each page anew: a fifth of the time for some thousand atoms,
    and more for more. The price is that the process stays as large as it once was, and larger than
    it had to be, since small tensors are put where large ones were. The verbs of the command line
    call this; in a program of your own, call it once at its start.
    """
    global _kept  # noqa: PLW0603 - the allocator belongs to the process
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    _kept = bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, -1))
    return _kept


def make_room(edges: int) -> None:
    """Give back what was kept, and keep nothing more, before a batch of so many edges is evaluated.

    Where a model holds values of all edges, a large batch takes several times more in memory that
    is kept: 10125 atoms of water and SchNet that does not stream 17.7 GB instead of 3.7 GB. Below
    `LARGE` edges, and where nothing is kept, nothing happens.
    """
    global _kept  # noqa: PLW0603
    if not _kept or edges <= LARGE:
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_MAX, MMAPS)
    libc.malloc_trim(0)
    _kept = False
