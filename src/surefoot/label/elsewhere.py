"""Structures handed to an executor: what comes back is kept, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import nullcontext
from itertools import islice
from typing import TypeVar

from surefoot.label.workers import WorkerPool

IN_FLIGHT = 512  # structures handed to the executor at once: bounds memory, feeds any node
LOOK = 0.5  # s between two calls of `look` while nothing is finished

Task = TypeVar("Task")
Key = TypeVar("Key", bound=Hashable)
Outcome = TypeVar("Outcome")


class ExecutorBroke(Exception):
    """A worker process died.

    Attributes:
        suspects: keys of the structures that it may have died of: those that may have been running.
    """

    def __init__(self, suspects: Sequence[Hashable]) -> None:
        super().__init__("a worker process died")
        self.suspects = tuple(suspects)


def calculate_elsewhere(
    tasks: Sequence[tuple[Key, Task]],
    calculate: Callable[[Task], Outcome],
    executor: Executor,
    keep: Callable[[Key, Outcome], None],
    look: Callable[[], None],
) -> None:
    """Hand tasks to an executor and keep what comes back, also when `look` or a task raises.

    Args:
        tasks: with their keys, in the order in which they are handed out.
        calculate: called with each, in the executor.
        executor: where.
        keep: called here with key and outcome of each that is finished.
        look: called after each, and at least every half second.
    Raises:
        ExecutorBroke: if a worker process died.
    """
    waiting = iter(tasks)
    futures: dict[Future[Outcome], Key] = {}
    try:
        while True:
            for key, task in islice(waiting, IN_FLIGHT - len(futures)):
                futures[executor.submit(calculate, task)] = key
            if not futures:
                return
            ready, _ = wait(futures, timeout=LOOK, return_when=FIRST_COMPLETED)
            for future in ready:
                outcome = future.result()
                keep(futures.pop(future), outcome)
                look()
            if not ready:
                look()
    except BaseException as error:
        _wind_up(futures, executor, keep)
        if isinstance(error, BrokenExecutor):
            raise ExecutorBroke(_find_suspects(futures, executor)) from error
        raise


def _wind_up(
    futures: dict[Future[Outcome], Key],
    executor: Executor,
    keep: Callable[[Key, Outcome], None],
) -> None:
    """Stop, and end a pool at once where that is interrupted too."""
    try:
        _stop(futures, executor, keep)
    except BaseException:
        if isinstance(executor, WorkerPool):
            executor.end_now()
        raise


def _find_suspects(futures: dict[Future[Outcome], Key], executor: Executor) -> list[Key]:
    """Keys of what a worker may have died of.

    Processes take what they are handed in order, so that of all that a pool has lost the first
    ones were running; an executor that says which ones died has lost those alone.
    """
    lost = [
        key
        for future, key in futures.items()
        if future.done()
        and not future.cancelled()
        and isinstance(future.exception(), BrokenExecutor)
    ]
    return lost[: executor.workers] if isinstance(executor, WorkerPool) else lost


def _stop(
    futures: dict[Future[Outcome], Key],
    executor: Executor,
    keep: Callable[[Key, Outcome], None],
) -> None:
    """Begin nothing more, wait for what runs, and keep what is finished."""
    pool = isinstance(executor, WorkerPool)
    with executor.withholding() if pool else nullcontext():
        # A pool answers for what it withholds; if a process of it died meanwhile, it would stumble
        # over what is cancelled and never answer for the rest.
        left = {future for future in futures if pool or not future.cancel()}
        while left:
            ready, left = wait(left, timeout=LOOK, return_when=FIRST_COMPLETED)
            for future in ready:
                if future.exception() is None:
                    keep(futures[future], future.result())
