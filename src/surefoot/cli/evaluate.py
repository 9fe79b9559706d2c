"""Compare a potential with labels: errors by kind of structure, and whether error bars hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.options import (
    EnergyKey,
    EnergyUnit,
    Files,
    ForcesKey,
    LengthUnit,
    PotentialFile,
    Precision,
    StressKey,
)

if TYPE_CHECKING:
    from surefoot.evaluate.quantities import Quantity
    from surefoot.evaluate.scores import Scores


def run(
    potential: PotentialFile,
    files: Files,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write all figures as JSON, too.")
    ] = None,
    precision: Precision = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    energy_unit: EnergyUnit = "eV",
    length_unit: LengthUnit = "Å",
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
) -> None:
    import json

    from surefoot.cli.options import read_keys, read_precision, read_units
    from surefoot.cli.screen import progress_bar, say
    from surefoot.data.convert import to_samples
    from surefoot.data.read import describe_labels, read_frames
    from surefoot.posteriors.calibrate import predict_samples
    from surefoot.posteriors.judge import compare
    from surefoot.posteriors.predictor import load_predictor
    from surefoot.train.checkpoint import write_atomically

    predictor = load_predictor(potential, dtype=read_precision(precision))
    frames = read_frames(
        files, read_keys(energy_key, forces_key, stress_key), read_units(energy_unit, length_unit)
    )
    for frame in frames:
        predictor.potential.baseline.require(frame.atoms.numbers, frame.place)
    say(f"{len(frames)} frames; {describe_labels(frames)}")
    samples = to_samples(frames, predictor.cutoff)
    with progress_bar("evaluating", len(samples)) as bar:
        judged = predict_samples(predictor, samples, progress=bar.advance)
    quantities = compare(judged, samples)
    report: dict[str, Any] = {"potential": str(potential), "files": list(files)}
    report["accuracy"] = show_accuracy(quantities)
    report["uncertainty"] = show_scores(quantities, predictor.calibration, seed)
    if output is not None:
        write_atomically(output, (json.dumps(report, indent=2) + "\n").encode())
        say(f"wrote {output}")
