"""C kernels of the hot loops: built at first use, kept in a cache; elsewhere plain torch serves.

The kernels see tensors as raw memory and take a range of rows or channels, so that threads can
share one call. Without a C compiler every caller falls back to its plain form; that is said once.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

SOURCES = ("kernels.c", "convolution.h", "contraction.h")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
REALS = {torch.float32: "float", torch.float64: "double"}
COMPILER_LIMIT = 300.0  # seconds; some ten are usual

_loading = threading.Lock()
_plain = threading.Event()  # of the whole process: threads that share members follow


@contextmanager
def plain_only() -> Iterator[None]:
    """Inside, no kernel is used in this process: the plain forms compute everything."""
    before = _plain.is_set()
    _plain.set()
    try:
        yield
    finally:
        if not before:
            _plain.clear()


def kernels(*tensors: Tensor) -> ctypes.CDLL | None:
    """The kernels for these tensors, or None where the plain form has to do.

    Args:
        tensors: all of one precision and on the CPU for the kernels to be used.
    """
    kind = tensors[0].dtype
    usable = kind in REALS and all(t.device.type == "cpu" and t.dtype == kind for t in tensors)
    if not usable or _plain.is_set():
        return None
    with _loading:  # members on threads of their own build nothing twice
        return _library(REALS[kind])


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where the values of a contiguous tensor begin; null for None."""
    if tensor is None:
        return ctypes.c_void_p(None)
    if not tensor.is_contiguous() or tensor.dtype not in (*REALS, torch.int64):
        raise ValueError(
            f"a kernel was given a tensor of {tensor.dtype} and strides {tensor.stride()}; values "
            "are float32 or float64, indices int64, and all are contiguous."
        )
    return ctypes.c_void_p(tensor.data_ptr())


def share(count: int, least: int, work: Callable[[int, int], None]) -> None:
    """Run `work(begin, end)` over 0 … count, by as many threads as torch may use.

    Args:
        count: items.
        least: fewer items than this are not worth a thread.
        work: takes a range; different ranges write to different places.
    """
    threads = max(1, min(torch.get_num_threads(), count // max(least, 1)))
    if threads == 1:
        work(0, count)
        return
    bounds = [count * part // threads for part in range(threads + 1)]
    tasks = [_pool(os.getpid()).submit(work, low, high) for low, high in pairwise(bounds[1:])]
    work(bounds[0], bounds[1])
    for task in tasks:
        task.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a fork needs threads of its own
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1))


@functools.cache
def _library(real: str) -> ctypes.CDLL | None:
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        _say_plain("no C compiler was found (cc, gcc, clang or the variable CC)")
        return None
    try:
        return ctypes.CDLL(str(_build(compiler, real)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _say_plain(f"{compiler} could not build the kernels ({_first_line(error)})")
        return None


@functools.cache  # said once, not once per precision
def _say_plain(reason: str) -> None:
    warnings.warn(
        f"{reason}: until that is changed, equivariant models run slower, in plain torch.",
        RuntimeWarning,
        stacklevel=4,
    )


def _first_line(error: Exception) -> str:
    output = getattr(error, "stderr", None) or str(error)
    return next(iter(str(output).strip().splitlines()), type(error).__name__)


def _build(compiler: str, real: str) -> Path:
    """Path of the shared library, compiled unless the cache holds it."""
    folder = Path(__file__).parent
    command = [*compiler.split(), *FLAGS, f"-DREAL={real}"]
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((folder / name).read_bytes())
    digest.update("\0".join([*command, _version(compiler), _processor()]).encode())
    target = cache_folder() / f"kernels-{real}-{digest.hexdigest()[:20]}.so"
    if not target.exists():
        temporary = _temporary(target.parent)
        try:
            subprocess.run(  # noqa: S603 - the compiler is the user's own
                [*command, "-o", temporary, str(folder / "kernels.c"), "-lm"],
                check=True,
                capture_output=True,
                text=True,
                timeout=COMPILER_LIMIT,
            )
            Path(temporary).chmod(0o755)
            Path(temporary).replace(target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return target


def _temporary(folder: Path) -> str:
    """An empty file beside the target, so that the finished library takes its place at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, path = tempfile.mkstemp(dir=folder, suffix=".so")
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written to, {error.strerror}; SUREFOOT_CACHE may name another "
            "folder"
        ) from error
    os.close(handle)
    return path


def cache_folder() -> Path:
    """Where built kernels are kept: SUREFOOT_CACHE, or surefoot in the user's cache folder."""
    named = os.environ.get("SUREFOOT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "surefoot"


def _version(compiler: str) -> str:
    found = subprocess.run(  # noqa: S603 - the compiler is the user's own
        [*compiler.split(), "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMPILER_LIMIT,
    )
    return found.stdout


def _processor() -> str:
    """What `-march=native` depends on: a home folder may be shared by different machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return platform.machine() + platform.processor() + "".join(sorted(set(named)))
