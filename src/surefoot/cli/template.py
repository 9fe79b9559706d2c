"""Write a commented config with every key at its default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    train: Annotated[
        list[str] | None, typer.Argument(help="Files to train on; the config is made to fit them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to; stdout where not set.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model whose keys are written.")] = "schnet",
    head: Annotated[
        str | None,
        typer.Option(
            help="The head, and with it the loss: scalar gives no error bar itself. Where not set "
            "mean_variance, or scalar if there are few frames."
        ),
    ] = None,
    posterior: Annotated[
        str, typer.Option(help="Where sets of weights come from, whose keys are written.")
    ] = "ensemble",
    task: Annotated[
        str | None, typer.Option(help="A whole recipe instead, such as oc20_s2ef or race_3bpa.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON schema for editors instead.")
    ] = False,
) -> None:
    from surefoot.cli.commented import write_template
    from surefoot.cli.config import CHOICES, Config
    from surefoot.cli.schema import write_schema
    from surefoot.cli.screen import UserError, complain, require_writable, suggest
    from surefoot.data.read import IGNORE, Keys, read_frames

    if output is not None:
        require_writable(output)
    if schema:
        text = write_schema(Config, CHOICES)
    elif train:
        ignored = Keys(energy=IGNORE, forces=IGNORE, stress=IGNORE)
        text = write_template(train, read_frames(train, ignored), model, head, posterior, task)
    else:
        text = write_template(["train.xyz"], (), model, head, posterior, task)
    if output is None:
        typer.echo(text, nl=False)
        return
    if output.exists():
        raise UserError(f"{output}: is there already; remove it or choose another name.")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    complain(f"wrote {output}")
    if schema:
        complain(f"first line of a config: # yaml-language-server: $schema={output}")
    else:
        suggest("surefoot", "train", output, "-o", "runs/first")
