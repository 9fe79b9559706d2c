"""One run of the program in a fork of this process, and what strikes it.

Nothing is imported anew, so that a run costs what it calculates. A blow falls after some seconds,
or at the n-th time that the run opens, writes, synchronises, renames or removes a file: such
moments are short, and a clock would hardly ever meet them.
"""

import faulthandler
import os
import signal
import stat
import sys
import time
import traceback
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOUCHES = frozenset(("open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"))
LIMIT = 300.0
"""Seconds after which a run counts as hung."""
GRACE = 20.0
"""Seconds in which the processes that a run has started have to follow it."""


@dataclass(frozen=True)
class Blow:
    """What strikes a run.

    Attributes:
        signal: SIGKILL, SIGINT or SIGTERM.
        seconds: after the beginning; None where it is the touch that counts.
        touch: which one: of files under the folder of the run, from 1.
        twice: whether it strikes again a moment later, as an impatient person does.
    """

    signal: signal.Signals
    seconds: float | None = None
    touch: int | None = None
    twice: bool = False


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        status: of its exit; negative where a signal ended it.
        out: what it said.
        err: what it complained of.
        seconds: it took.
        touches: of files under its folder; 0 where it was killed.
        hung: whether it did not end by itself.
        left: whether processes that it had started were still there.
    """

    status: int
    out: str
    err: str
    seconds: float
    touches: int
    hung: bool = False
    left: bool = False


def run(
    arguments: Sequence[object],
    folder: Path,
    blow: Blow | None = None,
    checkpoint_seconds: float | None = None,
    limit: float = LIMIT,
) -> Ended:
    """The program with these arguments, until it ends or the blow falls.

    Args:
        arguments: of the program, without its name.
        folder: whose files are counted.
        blow: what strikes it.
        checkpoint_seconds: between checkpoints of a training, if not as usual.
        limit: seconds after which it counts as hung.
    """
    notes = folder.parent / f"{folder.name}.notes"
    notes.mkdir(parents=True, exist_ok=True)
    ready, tell = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(ready)
        _be_the_run([str(one) for one in arguments], folder, blow, checkpoint_seconds, notes, tell)
    os.close(tell)
    os.read(ready, 1)  # it is about to begin, or gone
    os.close(ready)
    status, hung = _wait(child, blow, limit)
    seconds = time.monotonic() - began
    count = notes / "touches"
    touches = int(count.read_text()) if count.exists() else 0
    count.unlink(missing_ok=True)
    return Ended(
        status=status,
        out=(notes / "out").read_text(errors="replace"),
        err=(notes / "err").read_text(errors="replace"),
        seconds=seconds,
        touches=touches,
        hung=hung,
        left=not _is_gone(child),
    )


def _wait(child: int, blow: Blow | None, limit: float) -> tuple[int, bool]:
    """The status of the child, and whether it had to be ended."""
    began = time.monotonic()
    due = [] if blow is None or blow.seconds is None else [blow.seconds]
    if due and blow is not None and blow.twice:
        due.append(due[0] + 0.05)
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), False
        passed = time.monotonic() - began
        if due and blow is not None and passed >= due[0]:
            due.pop(0)
            os.kill(child, blow.signal)
        if passed > limit:
            os.kill(child, signal.SIGABRT)  # it writes down where it stands
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), True
        time.sleep(min(0.002, due[0] - passed) if due and due[0] > passed else 0.002)


def _is_gone(leader: int) -> bool:
    """Whether nothing is left of the session of a process, for which it gets some time."""
    end = time.monotonic() + GRACE
    while True:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return True
        if time.monotonic() > end:
            os.killpg(leader, signal.SIGKILL)
            return False
        time.sleep(0.01)


def _be_the_run(
    arguments: list[str],
    folder: Path,
    blow: Blow | None,
    checkpoint_seconds: float | None,
    notes: Path,
    tell: int,
) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            handle = os.open(notes / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(handle, number)
            os.close(handle)
        faulthandler.enable(file=2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Processes that it starts must not read this script again.
        sys.modules["__main__"] = types.ModuleType("__main__")
        sys.argv = ["surefoot", *arguments]
        if checkpoint_seconds is not None:
            from surefoot.posteriors import restart

            restart.CHECKPOINT_SECONDS = checkpoint_seconds
        count = _count(folder, blow)
        from surefoot.cli.main import main

        os.write(tell, b"!")
        try:
            main()
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
        (notes / "touches").write_text(str(count[0]))
    except BaseException:  # noqa: BLE001  it is shown, and this process must not go on
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _count(folder: Path, blow: Blow | None) -> list[int]:
    """Count touches of files under a folder, and strike at one of them; the count so far."""
    count, synchronise, write = [0], os.fsync, os.write

    def touch() -> None:
        count[0] += 1
        if blow is not None and blow.touch == count[0]:
            os.kill(os.getpid(), blow.signal)
            if blow.twice:
                os.kill(os.getpid(), blow.signal)

    def hear(event: str, details: tuple[Any, ...]) -> None:
        named = event in TOUCHES and isinstance(details[0], str | os.PathLike)
        if named and str(details[0]).startswith(str(folder)):
            touch()

    def fsync(handle: int) -> None:
        touch()
        synchronise(handle)
        touch()

    def tear(handle: int, content: bytes) -> int:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return write(handle, content)  # a pipe to another process
        due = blow is not None and blow.touch == count[0] + 1
        if due and blow is not None and blow.signal == signal.SIGKILL:
            write(handle, content[: len(content) // 2])
        touch()
        return write(handle, content)

    sys.addaudithook(hear)
    os.fsync, os.write = fsync, tear
    return count
