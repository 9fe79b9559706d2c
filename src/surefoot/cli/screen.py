"""What a person sees: tables, progress, sentences on stderr; and exit statuses for scripts."""

from __future__ import annotations

import os
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

out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True)


class UserError(Exception):
    """Something the user can mend; the message is the whole story."""


def say(line: str) -> None:
    """One line on stdout, as it is."""
    out.print(line, markup=False)


def complain(line: str) -> None:
    """One line on stderr, as it is."""
    err.print(line, markup=False)


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


class Lines:
    """The same without a terminal: a plain line now and then."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done, self._shown = title, total, 0, 0.0

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count on."""
        self.move(self._done + count, note)

    def move(self, done: int, note: str = "") -> None:
        """Write a line if the last one is some time ago, or all is done."""
        self._done = done
        now = time.monotonic()
        if done >= self._total or now - self._shown > PLAIN_LOG_SECONDS:
            self._shown = now
            complain(f"{self._title} {done}/{self._total} {note}".rstrip())


@contextmanager
def progress_bar(title: str, total: int, done: int = 0) -> Iterator[Bar | Lines]:
    """A bar on stderr where a person watches, plain lines elsewhere."""
    if not err.is_terminal:
        yield Lines(title, total)
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
