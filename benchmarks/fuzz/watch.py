"""A reader in a process of its own, with a limit on time and memory, and ears for what it does."""

import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Case = Callable[[int], None]
"""Reads the file of a number; it returns, or raises."""

SECONDS = 10.0
"""That one case may take; a sound file of the size takes a thousandth."""
PATIENCE = 300.0
"""The same where another process reads, whose computing is limited, and not its waiting."""
ROOM, ADDRESSES = 2**30, 2**36
"""Bytes that a case may hold beyond what the process has; and may ask for, where it is less strict.

What other packages read may be promised more than it fills: then what is filled is watched.
"""
LOOK = 0.01  # s between two looks at a process
FORBIDDEN = frozenset((
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile", "subprocess.Popen",
    "pickle.find_class", "socket.connect", "socket.bind", "ctypes.dlopen",
    "os.chmod", "os.chown", "os.symlink", "os.link", "os.kill", "webbrowser.open", "urllib.Request",
))  # fmt: skip
"""What no reader of a file does."""
APART = frozenset(("subprocess.Popen", "os.kill"))
"""What one does that has a process of its own."""
LONGEST = 3000  # characters of an answer to a user
ANSWERED, REFUSED = "answered", "refused"


class TooLong(BaseException):
    """A case that does not end."""


@dataclass
class Found:
    """What became of some cases.

    Attributes:
        answered: were read.
        refused: ended with an error that the program tells in a sentence.
        failures: case and what it did that it may not.
    """

    answered: int = 0
    refused: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Rules:
    """What holds for the cases of a target; see `watch`."""

    seconds: float
    strict: bool
    apart: bool


def watch(
    case: Case,
    numbers: range,
    folder: Path,
    path: str,
    *,
    strict: bool = True,
    apart: bool = False,
) -> Found:
    """Run cases in forks of this process; one that dies is followed by another.

    Args:
        case: what reads.
        numbers: of the cases.
        folder: nothing is to be written outside of it.
        path: what a refusal has to name; empty where a reader knows no file.
        strict: whether memory that is only asked for counts as if it were filled.
        apart: whether the reader has a process of its own, which it may start.
    """
    found, start = Found(), numbers.start
    seconds = PATIENCE if apart else SECONDS
    while start < numbers.stop:
        shared = mmap.mmap(-1, 3 * 8)
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            rules = Rules(seconds=seconds, strict=strict, apart=apart)
            _work(case, range(start, numbers.stop), folder, path, shared, tell, rules)
        os.close(tell)
        os.set_blocking(told, False)
        said, what = _follow(child, shared, told, 3 * seconds)
        os.close(told)
        at, answered, refused = struct.unpack("qqq", shared[:24])
        found.answered += answered
        found.refused += refused
        for line in said.split("\0"):
            if line:
                number, _, wrong = line.partition("\t")
                found.failures.append((int(number), wrong))
        if what:
            found.failures.append((at, what))
        start = at + 1
    return found


def _follow(child: int, shared: mmap.mmap, told: int, limit: float) -> tuple[str, str]:
    """What the process says until it ends, and what it ended of if not by itself."""
    said, at, since, what = b"", -1, time.monotonic(), ""
    base = _resident(child)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        said += _read(told)
        if done:
            if os.WIFSIGNALED(status) and not what:
                what = f"the interpreter ended by {signal.Signals(os.WTERMSIG(status)).name}"
            return said.decode("utf-8", "replace"), what
        now = struct.unpack_from("q", shared)[0]
        if now != at:
            at, since = now, time.monotonic()
        # The alarm in the child does not reach it inside a library that never returns.
        if time.monotonic() - since > limit:
            what = "hung in a library"
        elif _resident(child) > base + ROOM:
            what = f"held more than {ROOM >> 20} MiB"
        if what:
            os.kill(child, signal.SIGKILL)
        time.sleep(LOOK)


def _resident(process: int) -> int:
    """Bytes of memory that a process fills; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _read(handle: int) -> bytes:
    said = b""
    while True:
        try:
            piece = os.read(handle, 65536)
        except BlockingIOError:
            return said
        if not piece:
            return said
        said += piece


def _work(
    case: Case,
    numbers: range,
    folder: Path,
    path: str,
    shared: mmap.mmap,
    tell: int,
    rules: Rules,
) -> None:
    """Never returns."""
    try:
        os.setsid()
        limit_memory(ROOM if rules.strict else ADDRESSES)
        tempfile.tempdir = str(folder / "temporary")
        Path(tempfile.tempdir).mkdir(exist_ok=True)
        signal.signal(signal.SIGALRM, _too_long)
        heard = listen(folder, FORBIDDEN - APART if rules.apart else FORBIDDEN)
        answered = refused = 0
        for number in numbers:
            struct.pack_into("qqq", shared, 0, number, answered, refused)
            heard.clear()
            what = judge(case, number, path, rules.seconds, strict=rules.strict)
            if heard:
                what = f"did what no reader does: {heard[0]}"
            answered += what == ANSWERED
            refused += what == REFUSED
            if what not in (ANSWERED, REFUSED):
                os.write(tell, f"{number}\t{what}\0".encode("utf-8", "replace"))
        struct.pack_into("qqq", shared, 0, numbers.stop - 1, answered, refused)
    except BaseException:  # noqa: BLE001  it is shown, and this process must not go on
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _too_long(*_: object) -> None:
    raise TooLong


def limit_memory(room: int) -> None:
    """So much beyond what this process has."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + room, held + room))


def listen(folder: Path, forbidden: Collection[str] = FORBIDDEN) -> list[str]:
    """A list that fills with what the process does and no reader does."""
    heard: list[str] = []
    allowed = (str(folder), "/dev/null", "/proc/self")

    def hear(event: str, details: tuple[Any, ...]) -> None:
        if event in forbidden:
            heard.append(f"{event} {str(details)[:200]}")
        elif event == "open" and isinstance(details[0], str) and isinstance(details[1], str):
            writes = set(details[1]) & set("wax+")
            if writes and not details[0].startswith(allowed):
                heard.append(f"writes {details[0][:200]}")

    sys.addaudithook(hear)
    return heard


def judge(
    case: Case, number: int, path: str, seconds: float = SECONDS, *, strict: bool = True
) -> str:
    """`ANSWERED`, `REFUSED`, or what is wrong.

    Args:
        case: what reads.
        number: of the case.
        path: what a refusal has to name.
        seconds: it may take; 0 is no limit.
        strict: whether memory that is asked for in vain counts.
    """
    from surefoot.cli.screen import explain, is_users

    set_alarm(seconds)
    try:
        case(number)
    except TooLong:
        return f"took more than {seconds:g} s{_where(sys.exc_info()[2])}"
    except Exception as error:  # noqa: BLE001  which ones are allowed is what is judged
        set_alarm(0)
        if strict and any(isinstance(one, MemoryError) for one in _chain(error)):
            return f"asked for more than {ROOM >> 20} MiB{_where(error.__traceback__)}"
        if not is_users(error):
            return f"{type(error).__name__}: {str(error)[:200]}{_where(error.__traceback__)}"
        said = explain(error)
        if not said.strip() or len(said) > LONGEST or path not in said:
            return f"no sentence that names the file: {said[:300]!r}{_where(error.__traceback__)}"
        return REFUSED
    finally:
        set_alarm(0)
    return ANSWERED


def set_alarm(seconds: float) -> None:
    """Where there is none, 0 leaves that of others alone."""
    if seconds or signal.getsignal(signal.SIGALRM) is _too_long:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _where(trace: Any) -> str:
    """The last places of a traceback."""
    places = traceback.extract_tb(trace)[-3:]
    return "".join(f" < {Path(p.filename).name}:{p.lineno}" for p in reversed(places))
