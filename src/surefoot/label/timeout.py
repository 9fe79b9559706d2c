"""A limit on the time one calculation may take."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import Popen, TimeoutExpired
from types import FrameType

from surefoot.label.labeler import NotSettled

AGAIN = 1.0  # s: an alarm that arrives where exceptions are swallowed is followed by another


class TimeExceeded(NotSettled):
    """A calculation that took longer than it may."""


@dataclass
class Limit:
    """A running limit.

    Attributes:
        seconds: how long it is.
        end: when it is over, by the monotonic clock.
        held: alarms are not answered, because the clock is watched by other means.
    """

    seconds: float
    end: float
    held: bool = False

    def wait(self, process: Popen[bytes]) -> int:
        """Status of a program, which is waited for until the limit is over.

        Raises:
            TimeExceeded: when it is over; no further alarm disturbs the tidying up.
        """
        try:
            return process.wait(max(self.end - time.monotonic(), 0.0))
        except TimeoutExpired as error:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            raise _exceeded(self) from error


_running: list[Limit] = []
"""The limit of this process's first thread; its alarm is one for the whole process."""


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
    limit = Limit(seconds, time.monotonic() + seconds)

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not limit.held:
            raise _exceeded(limit)

    before = signal.signal(signal.SIGALRM, stop)
    _running.append(limit)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
            yield
        finally:
            limit.held = True  # an alarm between here and the next lines has nothing to stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        _running.remove(limit)


@contextmanager
def own_clock() -> Iterator[Limit | None]:
    """Hold the alarm back for what watches the clock by itself; the limit, or None without one.

    An alarm in the middle of starting a program would leave a program that nobody knows of.
    """
    here = threading.current_thread() is threading.main_thread()
    limit = _running[-1] if here and _running else None
    if limit is None:
        yield None
        return
    limit.held = True
    try:
        yield limit
    finally:
        limit.held = False


def _exceeded(limit: Limit) -> TimeExceeded:
    return TimeExceeded(f"not finished within {limit.seconds:g} s")
