"""A limit on the time one calculation may take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from surefoot.label.labeler import LabelingFailed

AGAIN = 1.0  # s: an alarm that arrives where exceptions are swallowed is followed by another


class TimeExceeded(LabelingFailed):
    """A calculation that took longer than it may."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """End what runs inside with `TimeExceeded` after some seconds of the clock.

    The alarm is a signal, which Python answers between two calls into compiled code: a single long
    call ends late, but it ends.

    Args:
        seconds: how long it may take; None sets no limit.

    Raises:
        TimeExceeded: when the time is over.
        ValueError: in a thread other than the first one of its process, which gets no signals.
    """
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise ValueError(
            "A time limit needs processes, since threads can not be stopped: use `worker_pool`, "
            "another executor of processes, or no time limit."
        )

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeExceeded(f"not finished within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
