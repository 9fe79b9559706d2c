"""Programs that calculate one structure each, in a folder and a process group of their own.

A program that crashes, hangs or leaves files harms no other frame. When it has ended, when a run is
stopped, or when its time is over, all that it has started ends with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from surefoot.label.labeler import LabelingFailed, NotSettled
from surefoot.label.timeout import own_clock

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TOLD = 300  # last characters of a program's complaint

_groups: set[int] = set()
"""Process groups of the programs that run now."""

_starting = threading.Lock()
"""Held while a program starts, so that none is missed by `end_programs`."""


def run_program(command: Sequence[str], folder: Path, text: str = "") -> str:
    """Run a program on one thread and wait for it, at most as long as `time_limit` says.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        text: what it reads.

    Returns:
        What it printed, complaints included.

    Raises:
        NotSettled: if it can not be started.
        TimeExceeded: if the time is over; it has been ended then.
        LabelingFailed: if it ends with a status other than 0.
    """
    # Files, not pipes: what a program has started may hold a pipe open for ever.
    with own_clock() as limit, tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile() as by:
        told.write(text)
        told.seek(0)
        process = _start(command, folder, told, by)
        try:
            status = process.wait() if limit is None else limit.wait(process)
        finally:
            _end_group(process.pid)
            process.wait()
            _groups.discard(process.pid)
        by.seek(0)
        printed = by.read().decode(errors="replace")
    if status != 0:
        complaint = " ".join(printed.split())[-TOLD:] or "it said nothing"
        raise LabelingFailed(f"{command[0]} ended with status {status}: {complaint}")
    return printed


def end_programs() -> None:
    """End all programs that run, for a process that is about to end itself.

    None can start after it: the lock is not given back on purpose.
    """
    _starting.acquire()
    for group in tuple(_groups):
        _end_group(group)


def _start(
    command: Sequence[str], folder: Path, told: IO[str], printed: IO[bytes]
) -> subprocess.Popen[bytes]:
    with _starting:
        try:
            process = subprocess.Popen(  # noqa: S603  the user's own program, without a shell
                list(command),
                cwd=folder,
                env=os.environ | dict.fromkeys(THREAD_VARIABLES, "1"),
                stdin=told,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise NotSettled(f"{command[0]} can not be started ({error.strerror})") from error
        _groups.add(process.pid)
        return process


def _end_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nothing of it is left
        os.killpg(group, signal.SIGKILL)
