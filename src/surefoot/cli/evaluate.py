"""Compare a potential with labels: errors by kind of structure, and whether error bars hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.options import (
    Compile,
    EnergyKey,
    EnergyUnit,
    Files,
    ForcesKey,
    LengthUnit,
    PotentialFile,
    Precision,
    SpinUnit,
    Splines,
    StressKey,
    StressOrder,
    StressUnit,
)

if TYPE_CHECKING:
    from surefoot.evaluate.quantities import Quantity
    from surefoot.posteriors.predictor import Calibration


def run(
    potential: PotentialFile,
    files: Files,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write all figures as JSON, too.")
    ] = None,
    precision: Precision = None,
    compile_first: Compile = False,
    splines: Splines = False,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    energy_unit: EnergyUnit = "eV",
    length_unit: LengthUnit = "Å",
    stress_unit: StressUnit = "auto",
    stress_order: StressOrder = "auto",
    spin_unit: SpinUnit = "auto",
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
) -> None:
    import json

    from surefoot.cli.check import refuse_unsound
    from surefoot.cli.options import quicken, read_keys, read_precision, read_units
    from surefoot.cli.screen import progress_bar, require_writable, say
    from surefoot.data.convert import to_samples
    from surefoot.data.read import describe_labels, read_frames, refuse_overwriting
    from surefoot.posteriors.judge import compare, predict_samples
    from surefoot.posteriors.predictor import load_predictor
    from surefoot.train.checkpoint import write_atomically

    if output is not None:
        require_writable(output)
        refuse_overwriting(output, [potential, *files])
    predictor = load_predictor(potential, dtype=read_precision(precision))
    predictor = quicken(predictor, splines=splines, compile_first=compile_first)
    frames = read_frames(
        files,
        read_keys(energy_key, forces_key, stress_key),
        read_units(energy_unit, length_unit, stress_unit, stress_order, spin_unit),
    )
    for frame in frames:
        predictor.require(frame.atoms.numbers, frame.charge, frame.spin, frame.place)
    refuse_unsound(frames)
    say(f"{len(frames)} frames; {describe_labels(frames)}")
    labels = [label for f in frames for label in (f.energy, f.forces, f.stress)]
    _require_labels(files, any(label is not None for label in labels))
    samples = to_samples(frames, predictor.cutoff)
    with progress_bar("evaluating", len(samples)) as bar:
        judged = predict_samples(predictor, samples, progress=bar.advance)
    quantities = compare(judged, samples)
    _require_labels(files, bool(quantities))
    report: dict[str, Any] = {"potential": str(potential), "files": list(files)}
    report["accuracy"] = show_accuracy(quantities)
    report["uncertainty"] = show_scores(quantities, predictor.calibration, seed)
    if output is not None:
        write_atomically(output, (json.dumps(report, indent=2) + "\n").encode())
        say(f"wrote {output}")


def _require_labels(files: Sequence[str], found: bool) -> None:
    from surefoot.cli.screen import UserError

    if not found:
        raise UserError(
            f"{', '.join(files)}: no labels were found to compare with; name their keys with "
            "`--energy-key NAME` and `--forces-key NAME` (`surefoot check` lists what a file "
            "holds)."
        )


def show_accuracy(quantities: list[Quantity]) -> dict[str, Any]:
    """The error table, one row per config_type and one for all; the same figures as JSON."""
    from dataclasses import asdict

    from surefoot.cli.screen import show_table
    from surefoot.evaluate.accuracy import accuracy, accuracy_by_type

    figures: dict[str, Any] = {}
    cells: dict[str, list[str]] = {}
    columns = ["config_type"]
    for quantity in quantities:
        columns += [f"{quantity.name} MAE", f"RMSE ({quantity.unit})"]
    for number, quantity in enumerate(quantities):
        table = accuracy_by_type(quantity.residuals, quantity.types)
        table["all"] = accuracy(quantity.residuals)
        figures[quantity.name] = {
            "unit": quantity.unit,
            **{name: asdict(errors) for name, errors in table.items()},
        }
        for name, errors in table.items():
            row = cells.setdefault(name, ["–"] * 2 * len(quantities))
            row[2 * number : 2 * number + 2] = [f"{errors.mae:.2f}", f"{errors.rmse:.2f}"]
    cells["all"] = cells.pop("all")
    show_table("Errors", columns, [[name, *row] for name, row in cells.items()])
    return figures


def show_scores(quantities: list[Quantity], calibration: Calibration, seed: int) -> dict[str, Any]:
    """Whether the error bars hold, before and after the factor, with bootstrap intervals."""
    import numpy as np

    from surefoot.cli.screen import say, show_table
    from surefoot.evaluate.scores import score, to_rows

    figures: dict[str, Any] = {}
    for quantity in quantities:
        usable = quantity.scorable
        if quantity.std is None or not usable.any():
            say(f"{quantity.name}: no error bars to score")
            continue
        columns = {}
        for name, std in (
            ("before", quantity.std[usable] / quantity.factor),
            ("after", quantity.std[usable]),
        ):
            generator = np.random.default_rng(seed)
            columns[name] = to_rows(
                score(quantity.residuals[usable], std, quantity.groups[usable], generator)
            )
        figures[quantity.name] = {
            "unit": quantity.unit,
            "factor": quantity.factor,
            "points": int(usable.sum()),
            **{
                name: {
                    row: [_finite(e.value), _finite(e.interval.low), _finite(e.interval.high)]
                    for row, e in rows.items()
                }
                for name, rows in columns.items()
            },
        }
        told = (
            f"factor {quantity.factor:.2f} from {calibration.source}"
            if getattr(calibration, quantity.name) is not None
            else "not calibrated"
        )
        rows = [
            [row, *(_show(columns[name][row]) for name in ("before", "after"))]
            for row in columns["after"]
        ]
        show_table(
            f"Error bars of {quantity.name} in {quantity.unit}, {told}; [95 % block bootstrap]",
            ["score", "before the factor", "after"],
            rows,
        )
    return figures


def _finite(value: float) -> float | None:
    """JSON has no NaN: a figure that does not exist is null."""
    return value if math.isfinite(value) else None


def _show(estimate: Any) -> str:
    value, interval = estimate.value, estimate.interval
    if not math.isfinite(interval.low):
        return f"{value:.3f}"
    return f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
