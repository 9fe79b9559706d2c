"""Processes that tests have started, and their ends."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def await_end() -> Iterator[Callable[[list[int]], None]]:
    """Waits until processes have ended, twenty seconds at most; none outlives the test."""
    known: list[int] = []

    def wait(pids: list[int]) -> None:
        known.extend(pids)
        deadline = time.monotonic() + 20
        while any(_runs(pid) for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    yield wait
    for pid in filter(_runs, known):
        os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
