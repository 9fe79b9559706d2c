"""Fit error bars, and the distance to the training data, on frames nobody has learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.cli.options import (
    EnergyKey,
    EnergyUnit,
    ForcesKey,
    LengthUnit,
    PotentialFile,
    SpinUnit,
    StressKey,
    StressOrder,
    StressUnit,
)

if TYPE_CHECKING:
    from surefoot.data.convert import Sample
    from surefoot.posteriors.predictor import Predictor


def run(
    potential: PotentialFile,
    held_out: Annotated[
        list[str],
        typer.Option("--held-out", help="Labelled frames nobody has learnt from; may be repeated."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Potential to write.")],
    train: Annotated[
        list[str] | None,
        typer.Option("--train", help="Frames it has learnt from, for `ood`, which stays as it is "
                     "without. May be repeated."),
    ] = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    energy_unit: EnergyUnit = "eV",
    length_unit: LengthUnit = "Å",
    stress_unit: StressUnit = "auto",
    stress_order: StressOrder = "auto",
    spin_unit: SpinUnit = "auto",
) -> None:  # fmt: skip
    from dataclasses import replace

    import numpy as np

    from surefoot.cli.check import refuse_unsound
    from surefoot.cli.options import read_keys, read_units
    from surefoot.cli.screen import progress_bar, require_writable, say
    from surefoot.cli.train import describe_gate, show_calibration
    from surefoot.data.convert import to_samples
    from surefoot.data.read import read_frames, refuse_overwriting
    from surefoot.data.statistics import is_isolated
    from surefoot.posteriors.calibrate import calibrate
    from surefoot.posteriors.calibration import Calibration
    from surefoot.posteriors.gate import fit_gate
    from surefoot.posteriors.predictor import load_predictor, recalibrated

    require_writable(output)
    refuse_overwriting(output, [*held_out, *(train or ())])
    predictor = load_predictor(potential)
    _require_unseen(held_out, train or [], predictor)
    keys = read_keys(energy_key, forces_key, stress_key)
    units = read_units(energy_unit, length_unit, stress_unit, stress_order, spin_unit)
    frames = [frame for frame in read_frames(held_out, keys, units) if not is_isolated(frame)]
    learnt = [f for f in read_frames(train, keys, units) if not is_isolated(f)] if train else []
    for frame in [*frames, *learnt]:
        predictor.require(frame.atoms.numbers, frame.charge, frame.spin, frame.place)
    refuse_unsound(frames)
    samples = to_samples(frames, predictor.cutoff)
    _require_enough(samples, held_out)
    bare = recalibrated(predictor, Calibration())
    unseen = np.ones((1, len(samples)), bool)
    calibration, factors = calibrate(bare, samples, unseen)
    predictor = recalibrated(predictor, calibration)
    if learnt:
        known = to_samples(learnt, predictor.cutoff)
        aside = np.repeat([False, True], [len(known), len(samples)])
        with progress_bar("looking at features", len(aside)) as bar:
            gate = fit_gate(predictor, [*known, *samples], aside, bar.advance)
        predictor = replace(predictor, gate=gate)
    predictor.save(output)
    show_calibration(calibration, factors, len({sample.group for sample in samples}))
    say(describe_gate(predictor))
    say(f"wrote {output}")


def _require_unseen(held_out: list[str], train: list[str], predictor: Predictor) -> None:
    """Refuse files that the potential has learnt from, by name and by content."""
    import hashlib

    from surefoot.cli.screen import UserError

    # Files that only validated are as good as any: nobody has learnt from them.
    valid = predictor.provenance.get("config", {}).get("data", {}).get("valid", ())
    names = {Path(name).name for name in valid} if isinstance(valid, list) else set()
    hashes = predictor.provenance.get("files", {})
    known = {content for name, content in hashes.items() if name not in names}
    for name in held_out:
        path = Path(name)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        if name in train or content in known:
            raise UserError(
                f"{name}: the potential was trained on this file, so its errors there say nothing "
                "of others; give frames that it has not learnt from with `--held-out`."
            )


def _require_enough(samples: list[Sample], files: list[str]) -> None:
    from surefoot.cli.screen import UserError
    from surefoot.posteriors.calibrate import FEWEST

    labelled = [s for s in samples if bool(s.targets.has_energy) or bool(s.targets.has_forces)]
    if len(labelled) < FEWEST:
        raise UserError(
            f"{', '.join(files)}: {len(labelled)} frames with labels are too few to calibrate on; "
            f"at least {FEWEST} are needed, and some hundred for intervals of 99 %."
        )
