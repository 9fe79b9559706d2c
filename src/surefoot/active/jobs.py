"""Jobs of a Slurm cluster that bring no worker: found out, so that nobody waits for ever."""

from __future__ import annotations

import getpass
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SUBMIT, QUEUE = "sbatch", "squeue"
LOOK = 5.0  # s between two looks at the queue
ANSWER = 60.0  # s that the queue may take to answer


@dataclass
class Patience:
    """How long there has been no worker and no job that waits for its turn.

    Attributes:
        limit: s.
        since: when it began; None while there is hope.
    """

    limit: float
    since: float | None = None

    def is_over(self, now: float, *, hope: bool) -> bool:
        """Whether it has lasted too long.

        Args:
            now: s, by any clock.
            hope: whether nothing is waited for, a worker is there, or a job waits for its turn.
        """
        if hope or self.since is None:
            self.since = None if hope else now
        return self.since is not None and now - self.since >= self.limit


@contextmanager
def watch(
    patience: Patience,
    is_idle: Callable[[], bool],
    list_jobs: Callable[[], Collection[str]],
    give_up: Callable[[], None],
) -> Iterator[None]:
    """Inside, call `give_up` once where no job brings a worker.

    Args:
        patience: how long that may last.
        is_idle: whether nothing is waited for, or a worker is there.
        list_jobs: ids of the jobs that were submitted.
        give_up: called in a thread of its own.
    """
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(min(LOOK, patience.limit / 4)):
            hope = is_idle() or has_waiting(list_jobs()) is not False
            if patience.is_over(time.monotonic(), hope=hope):
                give_up()
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def has_waiting(jobs: Collection[str]) -> bool | None:
    """Whether one of some jobs waits for its turn; None where the queue does not answer."""
    states = "PENDING,CONFIGURING,SUSPENDED"
    command = [QUEUE, "-h", "-u", getpass.getuser(), "-t", states, "-o", "%i"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return not set(jobs).isdisjoint(done.stdout.split())
