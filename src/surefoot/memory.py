"""Freed memory stays with the process."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # as malloc.h of glibc numbers them


def keep_memory() -> bool:
    """Let this process keep what it frees, to use it again; whether the C library can do that.

    Every evaluation takes and frees tensors of the same sizes. Where large ones go back to the
    system each time, it has to clear each page anew: a fifth of the time for some thousand atoms,
    and more for more. The price is that the process stays as large as it once was. The verbs of
    the command line call this; in a program of your own, call it once at its start.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, -1))
