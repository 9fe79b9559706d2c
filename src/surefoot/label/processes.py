"""Programs that calculate one structure each, in a folder and a process group of their own.

A program that crashes, hangs or leaves files harms no other frame. When a run is stopped, or its
time is over, the program ends with all that it has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from surefoot.label.labeler import LabelingFailed

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TOLD = 300  # last characters of a program's complaint


def run_program(command: Sequence[str], folder: Path, text: str = "") -> str:
    """Run a program on one thread and wait for it.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        text: what it reads.

    Returns:
        What it printed, complaints included.

    Raises:
        LabelingFailed: if it can not be started, or ends with a status other than 0.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  the user's own program, without a shell
            list(command),
            cwd=folder,
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, "1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise LabelingFailed(f"{command[0]} can not be started ({error.strerror})") from error
    with process:
        try:
            printed, _ = process.communicate(text)
        except BaseException:
            with suppress(ProcessLookupError):  # it may have ended by itself meanwhile
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        told = " ".join(printed.split())[-TOLD:] or "it said nothing"
        raise LabelingFailed(f"{command[0]} ended with status {process.returncode}: {told}")
    return printed
