"""Make one ensemble of potentials that were trained apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    potentials: Annotated[
        list[Path],
        typer.Argument(
            help="Files of one config and the same frames that differ by `train: {seed}`."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The ensemble to write.")],
) -> None:
    from surefoot.cli.screen import UserError, require_named_once, require_writable, say
    from surefoot.posteriors.combine import combine
    from surefoot.posteriors.predictor import load_predictor

    require_writable(output)
    if output.exists():
        raise UserError(f"{output}: is there already; remove it or choose another name.")
    require_named_once(potentials)
    combine({str(path): load_predictor(path) for path in potentials}).save(output)
    say(
        f"wrote {output}: {len(potentials)} members, not calibrated; `surefoot calibrate {output} "
        "--held-out FILE --train FILE -o CALIBRATED` gives error bars and `ood`"
    )
