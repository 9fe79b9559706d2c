"""Turn a model file of mace-torch into a potential; nothing in the file is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    file: Annotated[
        Path, typer.Argument(help="What mace-torch 0.3 saved with torch.save(model, path).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The potential to write.")],
    head: Annotated[
        str | None, typer.Option("--head", help="Which head, where the model has several.")
    ] = None,
) -> None:
    from ase.data import chemical_symbols

    from surefoot.cli.screen import UserError, require_writable, say
    from surefoot.deploy.mace import read_mace

    require_writable(output)
    if output.exists():
        raise UserError(f"{output}: is there already; remove it or choose another name.")
    predictor = read_mace(file, head)
    predictor.save(output)
    potential = predictor.potential
    count = sum(value.numel() for value in predictor.weights.values())
    elements = " ".join(chemical_symbols[z] for z in potential.baseline.elements)
    say(f"{file}: MACE {potential.model.model_dump()['irreps']}, cutoff {predictor.cutoff:g} Å")
    say(f"elements {elements}; {count} parameters; one set of weights, not calibrated")
    say(f"wrote {output}")
