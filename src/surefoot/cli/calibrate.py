"""Fit error bars, and the distance to the training data, on frames nobody has learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.cli.options import (
    LabelOptions,
    PotentialFile,
)

if TYPE_CHECKING:
    from surefoot.data.convert import Sample
    from surefoot.data.read import Frame
    from surefoot.posteriors.calibration import Calibration
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
    *,
    labels: LabelOptions,
) -> None:  # fmt: skip
    from dataclasses import replace

    import numpy as np

    from surefoot.cli.check import refuse_unsound
    from surefoot.cli.known import drop_isolated
    from surefoot.cli.screen import progress_bar, require_writable, say, suggest
    from surefoot.cli.train import describe_gate, show_calibration
    from surefoot.data.convert import to_samples
    from surefoot.data.load import hash_files
    from surefoot.data.read import read_frames, refuse_overwriting
    from surefoot.posteriors.calibrate import calibrate
    from surefoot.posteriors.calibration import QUANTITIES, Calibration
    from surefoot.posteriors.gate import fit_gate
    from surefoot.posteriors.predictor import load_predictor, recalibrated

    require_writable(output)
    refuse_overwriting(output, [*held_out, *(train or ())])
    predictor = load_predictor(potential)
    keys, units = labels.keys(), labels.units()
    frames = drop_isolated(read_frames(held_out, keys, units))
    learnt = drop_isolated(read_frames(train, keys, units)) if train else []
    for frame in [*frames, *learnt]:
        predictor.require(frame.atoms.numbers, frame.charge, frame.spin, frame.place)
    refuse_unsound(frames)
    samples = to_samples(frames, predictor.cutoff)
    _require_unseen(held_out, train or [], predictor, frames, samples)
    _require_enough(samples, held_out)
    before, bare = predictor.calibration, recalibrated(predictor, Calibration())
    calibration, factors = calibrate(bare, samples, np.ones((1, len(samples)), bool))
    _require_use(calibration, before, bool(learnt), potential)
    provenance = {**predictor.provenance, "calibrated_on": hash_files(held_out)}
    predictor = replace(recalibrated(predictor, calibration), provenance=provenance)
    if learnt:
        known = to_samples(learnt, predictor.cutoff)
        aside = np.repeat([False, True], [len(known), len(samples)])
        with progress_bar("looking at features", len(aside)) as bar:
            gate = fit_gate(predictor, [*known, *samples], aside, bar.advance)
        predictor = replace(predictor, gate=gate)
    predictor.save(output)
    show_calibration(calibration, factors)
    lost = [name for name in QUANTITIES if _loses(name, before, calibration)]
    if lost:
        say(f"no longer calibrated, as these frames tell nothing of it: {', '.join(lost)}")
    say(describe_gate(predictor))
    say(f"wrote {output}")
    suggest("surefoot", "evaluate", output, "TEST.xyz")


def _loses(name: str, before: Calibration, after: Calibration) -> bool:
    return getattr(before, name) is not None and getattr(after, name) is None


def _require_use(after: Calibration, before: Calibration, fits_gate: bool, potential: Path) -> None:
    """Refuse to write a potential that knows no more than before, or less.

    Raises:
        UserError: with why nothing could be calibrated.
    """
    from surefoot.cli.screen import UserError
    from surefoot.posteriors.calibration import QUANTITIES

    if any(getattr(after, name) is not None for name in QUANTITIES):
        return
    calibrated = any(getattr(before, name) is not None for name in QUANTITIES)
    if calibrated or not fits_gate:
        kept = "; the calibration it has would be lost" if calibrated else ""
        raise UserError(f"{potential}: {after.source}{kept}, so nothing is written.")


def _require_unseen(
    held_out: list[str],
    train: list[str],
    predictor: Predictor,
    frames: list[Frame],
    samples: list[Sample],
) -> None:
    """Refuse frames that the potential has learnt from, by their content."""
    from surefoot.cli.known import find_known
    from surefoot.cli.screen import UserError

    told = "so its errors there say nothing of others; give frames that it has not learnt from"
    for name in held_out:
        if Path(name).resolve() in [Path(other).resolve() for other in train]:
            raise UserError(f"{name}: the potential was trained on this file, {told}.")
    known = find_known(predictor, frames, samples)
    spoilt = [str(frame.file) for frame, seen in zip(frames, known, strict=True) if seen]
    if spoilt:
        raise UserError(
            f"{spoilt[0]}: the potential was trained on {spoilt.count(spoilt[0])} of its frames, "
            f"{told} with `--held-out`."
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
