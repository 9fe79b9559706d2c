"""Options that several verbs share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from surefoot.data.file_units import FileUnits
    from surefoot.data.read import Keys
    from surefoot.posteriors.predictor import Predictor

Files = Annotated[list[str], typer.Argument(help="Files that ASE reads, or .npz of rMD17.")]
PotentialFile = Annotated[
    Path, typer.Argument(help="A potential that `surefoot train` or `convert` wrote.")
]
EnergyKey = Annotated[
    str | None, typer.Option(help="Key of the energy in info; `none` ignores energies.")
]
ForcesKey = Annotated[
    str | None, typer.Option(help="Key of the forces in arrays; `none` ignores forces.")
]
StressKey = Annotated[
    str | None, typer.Option(help="Key of the stress in info; `none` ignores stress.")
]
ReferenceKey = Annotated[
    str | None,
    typer.Option(
        help="Key in info of what is subtracted from energies: reference_energy for OC20 chunks."
    ),
]
EnergyUnit = Annotated[str, typer.Option(help="eV, meV, Hartree, Rydberg, kcal/mol or kJ/mol.")]
LengthUnit = Annotated[str, typer.Option(help="Å, Bohr or nm: the length in the forces.")]
StressUnit = Annotated[
    str, typer.Option(help="GPa, kbar or VASP (its output); auto is energy / length³.")
]
StressOrder = Annotated[
    str, typer.Option(help="Order of six components, such as 'xx yy zz xy xz yz'.")
]
SpinUnit = Annotated[
    str,
    typer.Option(help="multiplicity (2S+1) or unpaired (electrons); auto tells where it can."),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile first, a minute or less: pays for many structures."),
]
Splines = Annotated[
    bool,
    typer.Option("--splines", help="Look radial networks up in splines: faster, off by 1e-6 eV."),
]
Seed = Annotated[int, typer.Option(help="Of the bootstrap intervals.")]
Precision = Annotated[
    str | None, typer.Option(help="float32 or float64; as trained where not set.")
]


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Where labels stand in files and in which units: options of every verb that reads labels."""

    energy_key: EnergyKey = None
    forces_key: ForcesKey = None
    stress_key: StressKey = None
    reference_key: ReferenceKey = None
    energy_unit: EnergyUnit = "eV"
    length_unit: LengthUnit = "Å"
    stress_unit: StressUnit = "auto"
    stress_order: StressOrder = "auto"
    spin_unit: SpinUnit = "auto"

    def keys(self) -> Keys:
        """The keys that are named."""
        from surefoot.data.read import Keys

        return Keys(
            energy=self.energy_key,
            forces=self.forces_key,
            stress=self.stress_key,
            reference=self.reference_key,
        )

    def units(self) -> FileUnits:
        """The units that are named.

        Raises:
            UserError: if one is not known.
        """
        return read_units(
            self.energy_unit, self.length_unit, self.stress_unit, self.stress_order, self.spin_unit
        )


def flatten(run: Callable[..., None]) -> Callable[..., None]:
    """The verb as typer takes it: a dataclass among its parameters becomes options of their own."""
    hints = get_type_hints(run, include_extras=True)
    groups = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(run).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        inner = get_type_hints(groups[name], include_extras=True)
        parameters += [
            inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=option.default,
                annotation=inner[option.name],
            )
            for option in fields(groups[name])
        ]

    def call(**given: Any) -> None:
        for name, group in groups.items():
            own = {option.name: given.pop(option.name) for option in fields(group)}
            given[name] = group(**own)
        run(**given)

    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def read_units(energy: str, length: str, stress: str, order: str, spin: str) -> FileUnits:
    """The units that options name.

    Raises:
        UserError: if one is not known.
    """
    from pydantic import ValidationError

    from surefoot.cli.screen import UserError
    from surefoot.data.file_units import SPIN_UNITS, FileUnits
    from surefoot.units import ENERGY_UNITS, LENGTH_UNITS, STRESS_UNITS

    for name, value, known in (
        ("--energy-unit", energy, ENERGY_UNITS),
        ("--length-unit", length, LENGTH_UNITS),
        ("--stress-unit", stress, ("auto", *STRESS_UNITS)),
        ("--spin-unit", spin, SPIN_UNITS),
    ):
        if value not in known:
            raise UserError(f"{name} {value}: not known; there is {', '.join(known)}.")
    units = {"energy": energy, "length": length, "stress": stress, "spin": spin}
    try:
        return FileUnits.model_validate({**units, "stress_order": order})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"--stress-order: {reason}.") from error


def read_precision(precision: str | None):
    """The torch type that an option names."""
    import torch

    from surefoot.cli.screen import UserError

    types = {None: None, "float32": torch.float32, "float64": torch.float64}
    if precision not in types:
        raise UserError(f"--precision {precision}: float32 or float64 are allowed.")
    return types[precision]


def quicken(predictor: Predictor, *, splines: bool, compile_first: bool) -> Predictor:
    """The predictor in the faster forms that options name.

    Raises:
        UserError: if its radial networks can not become splines.
    """
    from surefoot.cli.screen import UserError
    from surefoot.posteriors.predictor import compiled, with_splines

    if splines:
        try:
            predictor = with_splines(predictor)
        except ValueError as error:
            raise UserError(f"--splines: {error}") from error
    return compiled(predictor) if compile_first else predictor
