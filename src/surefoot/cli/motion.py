"""Options of the verbs that move atoms, and the settings they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from surefoot.data.read import Frame
    from surefoot.motion.bias import Bias
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
GuardEvery = Annotated[
    int | None,
    typer.Option(min=1, help="Steps from check to check; 10 where not set, 1 in a relaxation."),
]
GuardConsecutive = Annotated[
    int | None, typer.Option(min=1, help="Checks in a row before it acts; 1 where not set.")
]
GuardNearOod = Annotated[
    float | None,
    typer.Option(
        help="ood of a structure from which on all members are asked; at once if not set."
    ),
]
GuardNearEnergy = Annotated[
    float | None,
    typer.Option(help="The same of energy_uncertainty over √atoms, eV, in closed form."),
]
BiasOf = Annotated[
    str | None,
    typer.Option("--bias", help="energy or ood: pull atoms to where the potential is unsure."),
]
BiasDepth = Annotated[
    float | None, typer.Option(help="The most that the bias lowers an energy, eV.")
]
BiasWidth = Annotated[
    float | None,
    typer.Option(help="Uncertainty beyond which it lets go: eV/√atoms, or ood."),
]


def read_guard(
    uncertainty: float | None,
    ood: float | None,
    upper: float | None,
    action: str,
    every: int | None,
    consecutive: int | None = None,
    near_ood: float | None = None,
    near_energy: float | None = None,
    *,
    usual: int = 10,
) -> Guard | None:
    """The guard that options name; None where they name nothing of it.

    It checks after `usual` steps where they do not say after how many.

    Raises:
        UserError: if one is not allowed.
    """
    from surefoot.cli.screen import UserError
    from surefoot.motion.guard import Guard

    if uncertainty is None and ood is None:
        others = (upper, every, consecutive, near_ood, near_energy)
        if action != "stop" or any(value is not None for value in others):
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
        every=every or usual,
        consecutive=consecutive or 1,
        near_ood=near_ood,
        near_energy=near_energy,
    )


def read_bias(of: str | None, depth: float | None, width: float | None) -> Bias | None:
    """The bias that options name; None where they name none.

    Raises:
        UserError: if one is missing or not allowed.
    """
    from surefoot.cli.screen import UserError
    from surefoot.motion.bias import Bias

    if of is None:
        if depth is not None or width is not None:
            raise UserError("--bias-depth and --bias-width belong to a bias; set --bias too.")
        return None
    if of not in ("energy", "ood"):
        raise UserError(f"--bias {of}: not known; there is energy and ood.")
    if depth is None or width is None:
        raise UserError(
            f"--bias {of}: it has no depth and width by itself; set --bias-depth in eV and "
            "--bias-width in the unit of the uncertainty."
        )
    return read_settings(Bias, of=of, depth=depth, width=width)


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
