"""Predict a file: extended XYZ with reference, prediction and error bars side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.options import (
    Compile,
    LabelOptions,
    PotentialFile,
    Precision,
    Splines,
)

if TYPE_CHECKING:
    from ase import Atoms

    from surefoot.data.read import Frame


def run(
    potential: PotentialFile,
    file: Annotated[str, typer.Argument(help="Structures, any file that ASE reads.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ to write.")],
    members: Annotated[
        bool, typer.Option("--members", help="Write what each member says, too.")
    ] = False,
    precision: Precision = None,
    compile_first: Compile = False,
    splines: Splines = False,
    *,
    labels: LabelOptions,
) -> None:
    from dataclasses import replace

    from surefoot.calculator import predict_atoms
    from surefoot.cli.check import refuse_unsound
    from surefoot.cli.options import quicken, read_precision
    from surefoot.cli.screen import progress_bar, require_writable, say
    from surefoot.data.read import check_output, read_frames
    from surefoot.posteriors.predictor import load_predictor
    from surefoot.wording import counted

    require_writable(output)
    check_output(output, [file])
    predictor = load_predictor(potential, dtype=read_precision(precision))
    predictor = quicken(predictor, splines=splines, compile_first=compile_first)
    frames = read_frames([file], labels.keys(), labels.units())
    for frame in frames:
        predictor.require(frame.atoms.numbers, frame.charge, frame.spin, frame.place)
    # Labels only travel along; the structures must be sound.
    refuse_unsound([replace(frame, energy=None, forces=None, stress=None) for frame in frames])
    with progress_bar("predicting", len(frames)) as bar:
        results = predict_atoms(
            predictor, [frame.atoms for frame in frames], members=members, progress=bar.advance
        )
    for result in results if members else ():
        result["energy_difference_factor"] = predictor.calibration.difference
    images = [side_by_side(frame, result) for frame, result in zip(frames, results, strict=True)]
    write_images(output, images)
    say(
        f"{output}: {counted(len(images), 'frame')}; error bars: {predictor.calibration.describe()}"
    )
    held = [
        name for name in ("energy", "forces") if any(f"{name}_interval_95" in r for r in results)
    ]
    if held:
        say(f"conformal intervals that hold 95 %: {', '.join(held)}, as *_interval_95")
    far = [number for number, result in enumerate(results) if result.get("ood", 0.0) > 1.0]
    if far:
        worst = max(far, key=lambda number: results[number]["ood"])
        say(
            f"{len(far)} of {len(images)} frames are beyond the edge of the training data (ood > 1)"
            f"; frame {worst} is the farthest, with {results[worst]['ood']:.1f}."
        )


def side_by_side(frame: Frame, results: dict[str, Any]) -> Atoms:
    """The structure with `REF_` labels and predictions in info and arrays.

    ASE's writer drops calculator keys it does not know, so everything is written explicitly; only
    energy, forces and stress travel as ASE's own.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    from surefoot import __version__
    from surefoot.data.read import PREDICTED

    atoms = frame.atoms.copy()
    labels = {"REF_energy": frame.energy, "REF_forces": frame.forces}
    atoms.info[PREDICTED] = f"surefoot {__version__}"
    if frame.stress is not None:
        labels["REF_stress"] = full_3x3_to_voigt_6_stress(frame.stress)
    own = {name: results[name] for name in ("energy", "forces", "stress") if name in results}
    for name, value in {**labels, **results}.items():
        if value is None or name in (*own, "free_energy"):
            continue
        if name == "forces_ensemble":  # member axis second, or it would not be one row per atom
            atoms.arrays[name] = value.transpose(1, 0, 2).reshape(len(atoms), -1)
        elif name.removeprefix("REF_").startswith("forces") or name == "ood_atoms":
            atoms.arrays[name] = value
        else:
            atoms.info[name] = value
    atoms.calc = SinglePointCalculator(atoms, **own)
    return atoms


def write_images(output: Path, images: list[Atoms]) -> None:
    """Write extended XYZ whole or not at all."""
    import io

    import ase.io

    from surefoot.train.checkpoint import write_atomically

    text = io.StringIO()
    ase.io.write(text, images, format="extxyz")
    write_atomically(output, text.getvalue().encode())
