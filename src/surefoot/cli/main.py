"""The program `surefoot`: verbs, and what becomes of errors."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from surefoot import __version__
from surefoot.cli import (
    barrier,
    calibrate,
    check,
    combine,
    compare,
    convert,
    doctor_env,
    evaluate,
    hat,
    label,
    learn,
    md,
    oc20,
    predict,
    relax,
    report,
    template,
    train,
)
from surefoot.cli.options import flatten
from surefoot.memory import keep_memory

app = typer.Typer(
    name="surefoot",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Interatomic potentials that know where the ground is firm: every energy, force and "
    "barrier with a checked error bar.",
)


def _show_version(asked: bool | None) -> None:
    if asked:
        typer.echo(f"surefoot {__version__}")
        raise typer.Exit


@app.callback()
def _surefoot(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_show_version, help="Print the version.")
    ] = None,
) -> None:
    """See `surefoot VERB --help`."""


VERBS = (
    template,
    label,
    check,
    train,
    combine,
    calibrate,
    evaluate,
    compare,
    report,
    predict,
    relax,
    md,
    barrier,
    learn,
    convert,
    doctor_env,
)
for verb in VERBS:
    named = verb.__name__.rsplit(".", 1)[-1].replace("_", "-")
    # The list of verbs has the whole paragraph, on two lines if need be; left alone it is cut.
    short = (verb.__doc__ or "").split("\n\n")[0]
    app.command(name=named, help=verb.__doc__, short_help=short)(flatten(verb.run))
app.add_typer(hat.app, name="hat", help=hat.__doc__, short_help=hat.__doc__)
app.add_typer(oc20.app, name="oc20", help=oc20.__doc__, short_help=oc20.__doc__)


def main() -> None:
    """Run the program; a mistake of the user is a sentence on stderr and exit status 1.

    With SUREFOOT_TRACEBACK=1 in the environment every error shows where it came from, too.
    """
    keep_memory()
    try:
        with _sigterm_as_interrupt(), _warnings_as_sentences():
            app()
    except KeyboardInterrupt as error:
        from surefoot.cli.screen import STATUS_INTERRUPTED, complain

        complain(f"surefoot: {'; '.join(['interrupted', *map(str, error.args)])}.")
        sys.exit(STATUS_INTERRUPTED)
    except Exception as error:
        from surefoot.cli.screen import STATUS_REFUSED, complain

        sentence = _explain(error)
        if sentence is None:
            raise
        if os.environ.get("SUREFOOT_TRACEBACK") == "1":
            traceback.print_exc()
        complain(f"surefoot: {sentence}")
        sys.exit(STATUS_REFUSED)


def _explain(error: Exception) -> str | None:
    """What the user can do about an error; None where it is ours."""
    from surefoot.cli.screen import explain, is_users, missing_extra

    if isinstance(error, ModuleNotFoundError):
        return missing_extra(error)
    return explain(error) if is_users(error) else None


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Warnings of the package are for the user: a sentence, without the place in the code."""
    package, before = str(Path(__file__).parents[1]), warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        from surefoot.cli.screen import complain

        if issubclass(category, RuntimeWarning) and filename.startswith(package):
            complain(f"surefoot: {message}")
        else:
            before(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a verb like Ctrl-C: what is open is closed and worker processes end."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
