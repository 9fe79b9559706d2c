"""Processes that calculate one structure each, and how they are stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from ctypes import c_bool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from types import TracebackType

from surefoot.label.processes import THREAD_VARIABLES, end_programs

_held: list[c_bool] = []
"""In a worker: true when no further calculation may begin."""


def count_cores() -> int:
    """Cores that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class WorkerPool(ProcessPoolExecutor):
    """An executor of processes which can be told to begin nothing more, or to end at once.

    An executor of the standard library lets calls that wait in its queue run to the end, which are
    more than it has processes, and its own end waits for them.
    """

    def __init__(self, workers: int) -> None:
        """Make ready to start processes; each starts when it is needed.

        Args:
            workers: number of processes.
        """
        self.workers = workers
        context = get_context("spawn")
        # Without a lock: a worker that is ended while it holds one would stop this process.
        self._hold = context.RawValue(c_bool, False)
        # Nothing is ever sent: when this end is closed, or its process is gone, the others end.
        lifeline, self._lifeline = context.Pipe(duplex=False)
        super().__init__(
            workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(self._hold, lifeline),
        )

    @contextmanager
    def withholding(self) -> Iterator[None]:
        """Inside, what runs goes on and what has not begun is answered with `Withheld`."""
        self._hold.value = True
        yield
        self._hold.value = False  # all have answered; after an error nothing is to begin any more

    def cut(self) -> None:
        """End all processes and what they have started; also inside an answer to a signal."""
        self._hold.value = True
        self._lifeline.close()

    def end_now(self) -> None:
        """End all processes and what they have started, and wait for nothing."""
        self.cut()
        self.shutdown(wait=False, cancel_futures=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        except BaseException:  # a further Ctrl-C while it waits
            self.end_now()
            raise


class Withheld(Exception):
    """A calculation that was not begun because the run is being stopped."""


def check_not_held() -> None:
    """Before a calculation begins.

    Raises:
        Withheld: in a worker whose pool was told to begin nothing more.
    """
    if _held and _held[0].value:
        raise Withheld


def worker_pool(workers: int) -> WorkerPool:
    """Processes that calculate one structure each, on one thread each.

    A structure of 100 atoms is too small for threads: tblite on two threads is 2 to 7 times slower
    than on one. Use it as a context manager, and in a script under `if __name__ == "__main__":`,
    because the processes are started anew (spawn) and read the script again. They end with the
    process that started them, however it ends, and so do the programs that they run.

    Args:
        workers: number of processes, for example the cores of the machine.
    """
    return WorkerPool(workers)


def _start_worker(hold: c_bool, lifeline: Connection) -> None:
    # The libraries read these once, when tblite is imported by the first calculation.
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    # Ctrl-C reaches the whole process group; only the process that keeps the journal answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _held.append(hold)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()


def _end_with_parent(lifeline: Connection) -> None:
    # A worker that waits for its next task does not notice by itself that nobody will send one.
    parent = parent_process()
    wait([lifeline] if parent is None else [lifeline, parent.sentinel])
    end_programs()
    os._exit(1)
