"""The program `surefoot`: verbs, and what becomes of errors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from surefoot import __version__
from surefoot.cli import check, evaluate, hat, label, predict, template, train

app = typer.Typer(
    name="surefoot",
    no_args_is_help=True,
    add_completion=False,
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


for verb in (template, label, check, train, evaluate, predict):
    app.command(name=verb.__name__.rsplit(".", 1)[-1], help=verb.__doc__)(verb.run)
app.add_typer(hat.app, name="hat", help=hat.__doc__)


def main() -> None:
    """Run the program; a mistake of the user is a sentence on stderr and exit status 1."""
    try:
        app()
    except ModuleNotFoundError as error:
        from surefoot.cli.screen import STATUS_REFUSED, complain, missing_extra

        advice = missing_extra(error)
        if advice is None:
            raise
        complain(f"surefoot: {advice}")
        sys.exit(STATUS_REFUSED)
    except Exception as error:
        from surefoot.cli.screen import STATUS_REFUSED, complain, is_users

        if not is_users(error):
            raise
        complain(f"surefoot: {error}")
        sys.exit(STATUS_REFUSED)
    except KeyboardInterrupt:
        from surefoot.cli.screen import STATUS_INTERRUPTED, complain

        complain("surefoot: interrupted.")
        sys.exit(STATUS_INTERRUPTED)


if __name__ == "__main__":
    main()
