"""Turn a model file of another program into a potential; nothing in the file is executed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from surefoot.posteriors.predictor import Predictor

SHOWN = 5  # keys of a file that is not understood


def run(
    file: Annotated[
        Path,
        typer.Argument(
            help="What mace-torch 0.3 saved with torch.save(model, path), or a checkpoint of an "
            "SCN of fairchem-core 1."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The potential to write.")],
    head: Annotated[
        str | None, typer.Option("--head", help="Which head, where a MACE has several.")
    ] = None,
) -> None:
    from ase.data import chemical_symbols

    from surefoot.cli.screen import UserError, require_writable, say, suggest

    require_writable(output)
    if output.exists():
        raise UserError(f"{output}: is there already; remove it or choose another name.")
    predictor = _read(file, head)
    predictor.save(output)
    model = predictor.potential.model.model_dump()
    what = f"MACE {model['irreps']}" if "irreps" in model else _describe_scn(model)
    count = sum(value.numel() for value in predictor.weights.values())
    numbers = predictor.potential.baseline.elements
    elements = " ".join(chemical_symbols[z] for z in numbers)
    say(f"{file}: {what}, cutoff {predictor.cutoff:g} Å")
    say(f"elements {elements}; {count} parameters; one set of weights, not calibrated")
    say(f"wrote {output}")
    suggest("surefoot", "predict", output, "NEW.xyz", "-o", "predictions.xyz")


def _read(file: Path, head: str | None) -> Predictor:
    """By what the file holds: a MACE is a module, a checkpoint of an SCN is a dict."""
    from surefoot.cli.screen import UserError
    from surefoot.deploy.mace import from_module
    from surefoot.deploy.records import Record, read_records, show
    from surefoot.deploy.scn import from_checkpoint

    record = read_records(file)
    if isinstance(record, Record):
        return from_module(record, file, head)
    if not {"state_dict", "config"} <= record.keys():
        keys = ", ".join(show(key) for key in list(record)[:SHOWN])
        raise UserError(
            f"{file}: holds a dict ({keys or 'empty'}), such as weights without their model. Give "
            "a whole model of mace-torch 0.3, saved with torch.save(model, path), or a checkpoint "
            "of an SCN of fairchem-core 1, which has `state_dict` and `config`."
        )
    if head is not None:
        raise UserError(f"{file}: an SCN has no heads to choose from; leave out --head.")
    return from_checkpoint(record, file)


def _describe_scn(model: dict[str, object]) -> str:
    taps = model["taps"] if model["mmax"] else 1
    parts = (("layers", "layers"), ("lmax", "lmax"), ("mmax", "mmax"), ("channels", "channels"))
    sizes = ", ".join(f"{name} {model[key]}" for name, key in parts)
    return f"SCN {sizes}, taps {taps}, bands {model['bands']}"
