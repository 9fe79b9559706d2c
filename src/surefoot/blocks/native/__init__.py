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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

SOURCES = ("kernels.c", "convolution.h", "contraction.h", "rows.h", "splines.h", "turns.h")
NATIVE = "-march=native"
FLAGS = ("-O3", NATIVE, "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
REALS = {torch.float32: "float", torch.float64: "double"}
COMPILER_LIMIT = 300.0  # seconds; some ten are usual

_loading = threading.Lock()
_plain: set[object] = set()  # a token for each open block, in the whole process: threads follow


class NoKernels(RuntimeError):
    """Why kernels can not be used, where it is not that a compiler failed to build them."""


@contextmanager
def plain_only() -> Iterator[None]:
    """Inside, no kernel is used in this process: the plain forms compute everything."""
    token = object()  # a flag would end with the first of two blocks in two threads
    _plain.add(token)
    try:
        yield
    finally:
        _plain.discard(token)


def kernels(*tensors: Tensor) -> ctypes.CDLL | None:
    """The kernels for these tensors, or None where the plain form has to do.

    Args:
        tensors: all of one precision and on the CPU for the kernels to be used.
    """
    kind = tensors[0].dtype
    usable = kind in REALS and all(t.device.type == "cpu" and t.dtype == kind for t in tensors)
    if not usable or _plain:
        return None
    with _loading:  # members on threads of their own build nothing twice
        return _library(REALS[kind])


def describe_form(dtype: torch.dtype) -> str:
    """Which form computes in this precision: the plain one, or kernels of which sources."""
    if kernels(torch.empty(0, dtype=dtype)) is None:
        return "plain torch"
    return f"kernels {_sources()[:12]}"


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
    tasks: list[Future[None]] = []
    try:
        for low, high in pairwise(bounds[1:]):
            tasks.append(_pool(os.getpid()).submit(work, low, high))
        work(bounds[0], bounds[1])
    finally:
        _await(tasks)
    for task in tasks:
        task.result()


def _await(tasks: Sequence[Future[None]]) -> None:
    """Wait for all tasks, interrupted or not: they write to memory that the caller would free."""
    interrupt = None
    while not all(task.done() for task in tasks):
        try:
            wait(tasks)
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a fork needs threads of its own
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1))


def find_compiler() -> str | None:
    """The command of the C compiler: what CC names, or the first of cc, gcc and clang."""
    return os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)


@functools.cache
def _library(real: str) -> ctypes.CDLL | None:
    compiler = find_compiler()
    if compiler is None:
        _say_plain("no C compiler was found (cc, gcc, clang or the variable CC)")
        return None
    try:
        return _load(compiler, real)
    except NoKernels as error:
        _say_plain(str(error))
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


def _load(compiler: str, real: str) -> ctypes.CDLL:
    """The library that the cache holds; built where there is none, or none that can be loaded.

    Raises:
        NoKernels: if the cache is not the user's own, or a fresh library can not be loaded.
        subprocess.SubprocessError: if the compiler fails.
    """
    try:
        return _load_with(compiler, FLAGS, real)
    except subprocess.CalledProcessError as error:  # clang on some machines
        if NATIVE not in FLAGS or "march" not in str(error.stderr):
            raise
    return _load_with(compiler, [flag for flag in FLAGS if flag != NATIVE], real)


def _load_with(compiler: str, flags: Sequence[str], real: str) -> ctypes.CDLL:
    command = [*compiler.split(), *flags, f"-DREAL={real}"]
    origin = "\0".join([_sources(), *command, _version(compiler), _processor()])
    name = f"kernels-{real}-{hashlib.sha256(origin.encode()).hexdigest()[:20]}"
    folder = open_cache()
    for path in sorted(folder.glob(f"{name}-*.so")):
        try:
            _require_own(path)
            if path.stem == f"{name}-{_content(path)}":
                return ctypes.CDLL(str(path))
        except OSError:  # of a system with other libraries
            pass
        path.unlink(missing_ok=True)
    path = _build(command, folder, name)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernels(
            f"the kernels that {compiler} built can not be loaded ({_first_line(error)})"
        ) from error


def _build(command: Sequence[str], folder: Path, name: str) -> Path:
    """Path of a fresh library.

    Its name ends with the digest of its content: loading one that was cut off would not raise an
    error but end the process.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".so")
    except OSError as error:
        raise NoKernels(_unwritable(folder, error)) from error
    os.close(handle)
    try:
        subprocess.run(  # noqa: S603 - the compiler is the user's own
            [*command, "-o", temporary, str(Path(__file__).parent / "kernels.c"), "-lm"],
            check=True,
            capture_output=True,
            text=True,
            timeout=COMPILER_LIMIT,
        )
        Path(temporary).chmod(0o755)
        # So that the finished library takes its place at once.
        return Path(temporary).replace(folder / f"{name}-{_content(Path(temporary))}.so")
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sources() -> str:
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in SOURCES)).hexdigest()


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:20]


def open_cache(part: str = "") -> Path:
    """The folder of libraries, or one in it, made where it is not there.

    Raises:
        NoKernels: if it can not be made or written to, or others may put something into it.
    """
    folder = cache_folder() / part
    try:
        for place in (cache_folder(), folder):  # a mode is for the last of a path alone
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NoKernels(_unwritable(folder, error)) from error
    for place in {cache_folder(), folder}:
        _require_own(place)
    return folder


def open_compiled_cache() -> Path:
    """The folder of compiled graphs for this processor; raises as `open_cache`."""
    return open_cache(f"compiled-{hashlib.sha256(_processor().encode()).hexdigest()[:12]}")


def plainly() -> bool:
    """Whether this runs inside `plain_only`."""
    return bool(_plain)


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"kernels can not be kept: {folder} cannot be written to, {error.strerror}; SUREFOOT_CACHE "
        "may name another folder"
    )


def _require_own(path: Path) -> None:
    """Refuse what another user could have written: a library is executed.

    Raises:
        NoKernels: if it belongs to another user than this one or root, or others may write to it.
    """
    found = path.stat()
    if found.st_uid in (0, os.getuid()) and not found.st_mode & 0o022:
        return
    raise NoKernels(
        f"kernels are not loaded from {path}, which other users may write to; make it your own "
        f"(`chmod go-w {path}`), or name another folder by SUREFOOT_CACHE"
    )


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


@functools.cache
def _processor() -> str:
    """What `-march=native` depends on: a home folder may be shared by different machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return platform.machine() + platform.processor() + "".join(sorted(set(named)))
