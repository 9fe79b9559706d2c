"""Options of the verbs that move atoms, and the settings they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from surefoot.data.read import Frame
    from surefoot.motion.guard import Guard
    from surefoot.posteriors.predictor import Predictor
    from surefoot.settings import Settings

    Set = TypeVar("Set", bound=Settings)

GuardUncertainty = Annotated[
    float | None, typer.Option(help="Limit of forces_uncertainty_norm of an atom, eV/Å.")
]
GuardOod = Annotated[
    float | None, typer.Option(help="Limit of ood of an atom; 1 is the edge of the training data.")
]
GuardUpper = Annotated[
    float | None,
    typer.Option(help="Times the limits: beyond, a frame has exploded and is never recorded."),
]
GuardAction = Annotated[str, typer.Option(help="stop, warn, record or damp.")]
GuardEvery = Annotated[int, typer.Option(min=1, help="Steps from check to check.")]
GuardConsecutive = Annotated[int, typer.Option(min=1, help="Checks in a row before it acts.")]


def read_guard(
    uncertainty: float | None,
    ood: float | None,
    upper: float | None,
    action: str,
    every: int,
    consecutive: int = 1,
) -> Guard | None:
    """The guard that options name; None where they set no limit.

    Raises:
        UserError: if one is not allowed.
    """
    from surefoot.cli.screen import UserError
    from surefoot.motion.guard import Guard

    if uncertainty is None and ood is None:
        if action != "stop" or upper is not None:
            raise UserError(
                "a guard needs a limit; set --guard-uncertainty in eV/Å, --guard-ood, or both."
            )
        return None
    if upper is not None and upper <= 1:
        raise UserError(f"--guard-upper {upper}: it multiplies the limits, so it must exceed 1.")
    return read_settings(
        Guard,
        uncertainty=uncertainty,
        ood=ood,
        uncertainty_upper=upper * uncertainty if upper and uncertainty else None,
        ood_upper=upper * ood if upper and ood else None,
        action=action,
        every=every,
        consecutive=consecutive,
    )


def open_inputs(
    potential: Path,
    structures: str,
    *,
    precision: str | None,
    splines: bool,
    compile_first: bool,
    spin_unit: str,
) -> tuple[Predictor, list[Frame]]:
    """The potential in the form that was asked for, and the structures without their labels."""
    from surefoot.cli.options import quicken, read_precision, read_units
    from surefoot.data.read import Keys, read_frames
    from surefoot.posteriors.predictor import load_predictor

    predictor = load_predictor(potential, dtype=read_precision(precision))
    predictor = quicken(predictor, splines=splines, compile_first=compile_first)
    units = read_units("eV", "Å", "auto", "auto", spin_unit)
    keys = Keys(energy="none", forces="none", stress="none")
    return predictor, read_frames([structures], keys, units)


def tell(line: str) -> None:
    """Something the user should see while atoms move."""
    from surefoot.cli.screen import complain

    complain(f"surefoot: {line}")


def read_settings(kind: type[Set], **values: Any) -> Set:
    """Settings that options name.

    Raises:
        UserError: with the first value that is not allowed.
    """
    from pydantic import ValidationError

    from surefoot.cli.screen import UserError

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part not in ("lbfgs", "fire")]
        option = f"--{place[0].replace('_', '-')} {first['input']}: " if place else ""
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{option}{reason[0].lower()}{reason[1:]}.") from error
