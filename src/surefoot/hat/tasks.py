"""Many calculations at once, their results in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def run_all(
    function: Callable[[Given], Made],
    given: Sequence[Given],
    executor: Executor | None,
    note: Callable[[Made], None],
) -> None:
    """Call a function with each thing given; what has not begun when `note` raises never does.

    Args:
        function: what is done; with processes it has to be picklable.
        given: its arguments.
        executor: where it runs; None runs it here.
        note: is told each result, in the order of the arguments.
    """
    if executor is None:
        for item in given:
            note(function(item))
        return
    futures = [executor.submit(function, item) for item in given]
    try:
        for future in futures:
            note(future.result())
    finally:
        for future in futures:
            future.cancel()
