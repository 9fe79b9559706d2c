"""What a person sees: tables, progress, sentences on stderr; and exit statuses for scripts."""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

STATUS_REFUSED = 1  # the input is wrong
STATUS_INTERRUPTED = 130  # Ctrl-C or SIGTERM; what was done is kept
PLAIN_LOG_SECONDS = 10.0  # between lines of a log that no person watches
FILE_WIDTH = 240  # columns of a table in a file, at most

_piped = not sys.stdout.isatty()
# A file has no edge at which a table would have to be folded, unless somebody names one.
_width = FILE_WIDTH if _piped and "COLUMNS" not in os.environ else None
out = Console(highlight=False, soft_wrap=_piped, width=_width)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class UserError(Exception):
    """Something the user can mend; the message is the whole story."""


def say(line: str) -> None:
    """One line on stdout, as it is."""
    out.print(line, markup=False)


def complain(line: str) -> None:
    """One line on stderr, as it is."""
    err.print(line, markup=False)


def suggest(*words: object) -> None:
    """The command that usually comes next, on stderr; what is to be filled in is in capitals."""
    complain(f"next: {shlex.join(map(str, words))}")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; the first column is left, numbers are right."""
    # As text: a string would be read as markup, and `[old]` in the name of a file would be lost.
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        side = "left" if number == 0 else "right"
        table.add_column(Text(column), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(table)


def require_writable(output: Path) -> None:
    """Refuse an output that could not be written, before any work is done for it.

    Raises:
        UserError: if it is a folder, lies below a file, or its folder may not be written.
    """
    if output.is_dir():
        raise UserError(f"{output}: this is a folder; name a file to write.")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise UserError(f"{output}: {folder} is a file, not a folder; choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{output}: the folder {folder} may not be written; choose another place.")


def require_named_once(potentials: Sequence[str | Path]) -> None:
    """Refuse a file that is named twice, also by two paths that lead to it.

    Raises:
        UserError: with the second name.
    """
    places = [Path(name).resolve() for name in potentials]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"{potentials[number]}: this potential is named twice; name each once.")


class Bar:
    """A progress bar with a changing note."""

    def __init__(self, progress: Progress, task: TaskID, title: str) -> None:
        self._progress, self._task, self._title = progress, task, title

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move the bar on."""
        self._progress.update(self._task, advance=count, note=note)

    def move(self, done: int, note: str = "") -> None:
        """Put the bar where it is."""
        self._progress.update(self._task, completed=done, note=note)


class Pace:
    """How fast something gets on, from the first look on."""

    def __init__(self) -> None:
        self._begin: tuple[float, int] | None = None

    def rate(self, done: int) -> float | None:
        """Steps per second; None as long as nothing is known.

        Args:
            done: steps that are over.
        """
        now = time.monotonic()
        if self._begin is None:  # what an earlier run has done took no time
            self._begin = now, done
        began, known = self._begin
        return (done - known) / (now - began) if done > known and now > began else None

    def note(self, done: int) -> str:
        """The same in words; empty as long as nothing is known."""
        rate = self.rate(done)
        if rate is None:
            return ""
        return f"{rate:.2g}/s" if rate >= 1 else f"{60 * rate:.2g}/min"


def show_duration(seconds: float) -> str:
    """A time in words, to the second or, from an hour on, to the minute."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


class Lines:
    """What a bar is where nobody watches: a plain line now and then, with the time that is left."""

    def __init__(self, title: str, total: int, done: int = 0, slow_start: bool = False) -> None:
        self._title, self._total, self._done, self._shown = title, total, done, -math.inf
        self._pace = Pace()
        if not slow_start:  # else the pace is that of what follows the first step
            self._pace.rate(done)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count on."""
        self.move(self._done + count, note)

    def move(self, done: int, note: str = "") -> None:
        """Write a line if the last one is some time ago, or all is done."""
        self._done = done
        now = time.monotonic()
        if done < self._total and now - self._shown <= PLAIN_LOG_SECONDS:
            return
        self._shown = now
        rate = self._pace.rate(done)
        left = "" if rate is None else f"{show_duration((self._total - done) / rate)} left"
        told = ", ".join(part for part in (note, left if done < self._total else "") if part)
        complain(f"{self._title} {done}/{self._total} {told}".rstrip())


def draws_bars() -> bool:
    """Whether stderr is a terminal that somebody watches.

    A notebook gives a terminal to the programs that it starts, and keeps every movement of a bar;
    and `FORCE_COLOR` is about colours, not about who watches.
    """
    # The first is set by Jupyter for its kernels, the second by kernels that others start.
    backend = os.environ.get("MPLBACKEND", "")
    notebook = "JPY_PARENT_PID" in os.environ or backend.startswith("module://matplotlib_inline")
    return err.is_terminal and not err.is_dumb_terminal and err.file.isatty() and not notebook


@contextmanager
def progress_bar(
    title: str, total: int, done: int = 0, slow_start: bool = False
) -> Iterator[Bar | Lines]:
    """A bar on stderr where a person watches, plain lines in notebooks and log files.

    Args:
        title: what is done.
        total: steps.
        done: steps of an earlier run.
        slow_start: whether the first step has work of its own, which tells nothing of the others.
    """
    if not draws_bars():
        yield Lines(title, total, done, slow_start)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err) as progress:
        yield Bar(progress, progress.add_task(title, total=total, completed=done, note=""), title)


EXTRAS = {
    "tblite": "xtb",
    "pyscf": "dft",
    "rdkit": "hat",
    "biotite": "hat",
    "distributed": "cluster",
    "dask_jobqueue": "cluster",
    "tensorboard": "tensorboard",
}
"""Package that is imported where it is used → the extra that installs it."""


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """What to install for a package that is not there; None if it is not an optional one."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return f"this needs {package}; install it with `pip install 'surefoot[{EXTRAS[package]}]'`."


def is_users(error: Exception) -> bool:
    """Whether an error is about the user's input or system, so that its message says all.

    Rooms raise ValueError (and what derives from it) at their borders with a whole sentence.
    """
    import yaml

    kinds = (UserError, ValueError, FloatingPointError, OSError, yaml.YAMLError)
    return isinstance(error, kinds) or type(error).__name__ == "LabelingFailed"


def explain(error: Exception) -> str:
    """The message of a user's error; what the system refused is told with its file."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


@contextmanager
def interruption(cut: Callable[[], None] | None = None) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM fill the list; a second Ctrl-C ends the program at once.

    Work then stops between two steps, never inside one: an exception raised in the middle of a
    library's bookkeeping can hang it.

    Args:
        cut: called at the second one. The exception that it raises is lost where the first one is
            being answered just then; what is waited for then has to end by itself.
    """
    asked: list[int] = []

    def answer(number: int, _frame: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            if cut is not None:
                cut()
            raise KeyboardInterrupt

    before = {number: signal.signal(number, answer) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
