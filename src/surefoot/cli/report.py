"""Write one page about a potential: data, errors, error bars, structures, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.options import Compile, Files, LabelOptions, PotentialFile, Precision, Seed

if TYPE_CHECKING:
    from surefoot.data.read import Frame
    from surefoot.posteriors.predictor import Predictor
    from surefoot.report.assessment import Part

DRAWS = 200  # of the bootstrap
MOST_LEARNT = 2000  # training structures of the map


def run(
    potential: PotentialFile,
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page, FILE.html.")],
    ood: Annotated[
        list[str] | None,
        typer.Option(
            "--ood", help="Labelled structures unlike the training data; may be repeated."
        ),
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option("--train", help="Files it has learnt from: for the doctor and the map."),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="log.csv, or its folder; the one beside the potential where not set."),
    ] = None,
    precision: Precision = None,
    compile_first: Compile = False,
    seed: Seed = 0,
    *,
    labels: LabelOptions,
) -> None:
    from surefoot.cli.known import drop_isolated
    from surefoot.cli.options import quicken, read_precision
    from surefoot.cli.screen import complain, progress_bar, require_writable, say
    from surefoot.data.read import read_frames, refuse_overwriting
    from surefoot.posteriors.predictor import load_predictor

    require_writable(output)
    inputs = [potential, *files, *(ood or ()), *(train or ())]
    refuse_overwriting(output, inputs)
    predictor = load_predictor(potential, dtype=read_precision(precision))
    rows = read_log(potential, log)
    keys, units = labels.keys(), labels.units()
    sets = {"test": drop_isolated(read_frames(files, keys, units))}
    if ood:
        sets["ood"] = drop_isolated(read_frames(ood, keys, units))
    learnt = drop_isolated(read_frames(train, keys, units)) if train else []
    _require(predictor, sets, learnt)
    quick = quicken(predictor, splines=False, compile_first=compile_first)
    total = sum(map(len, sets.values()))
    with progress_bar("evaluating", total) as bar:
        parts = [_judge(quick, name, frames, seed, bar) for name, frames in sets.items()]
    write_page(output, predictor, potential, parts, train=learnt, log=rows)
    say(f"wrote {output}; seed {seed} of the bootstrap intervals")
    complain(f"next: open {output} in a browser")


def _require(
    predictor: Predictor, sets: Mapping[str, Sequence[Frame]], learnt: Sequence[Frame]
) -> None:
    """Refuse structures that the potential knows nothing of, or that have nothing to compare."""
    from surefoot.cli.check import refuse_unsound
    from surefoot.cli.screen import UserError

    for frames in (*sets.values(), learnt):
        for frame in frames:
            predictor.require(frame.atoms.numbers, frame.charge, frame.spin, frame.place)
        refuse_unsound(frames)
    for frames in sets.values():
        if all(frame.energy is None and frame.forces is None for frame in frames):
            raise UserError(
                f"{frames[0].file}: no energies or forces were found to compare with; name their "
                "keys with `--energy-key NAME` and `--forces-key NAME`."
            )


def _judge(predictor: Predictor, name: str, frames: Sequence[Frame], seed: int, bar: Any) -> Part:
    from surefoot.cli.known import warn_of_known
    from surefoot.data.convert import to_samples
    from surefoot.evaluate.figures import describe_accuracy, describe_error_bars
    from surefoot.posteriors.judge import compare, predict_samples
    from surefoot.report.assessment import Part

    samples = to_samples(frames, predictor.cutoff)
    warn_of_known("the potential", predictor, frames, samples)
    judged = predict_samples(predictor, samples, progress=bar.advance)
    quantities = compare(judged, samples)
    bars = {one.name: describe_error_bars(one, seed, DRAWS) for one in quantities}
    return Part(
        name=name,
        frames=frames,
        samples=samples,
        judged=judged,
        quantities=quantities,
        accuracy={one.name: describe_accuracy(one, seed) for one in quantities},
        error_bars={name: held for name, held in bars.items() if held is not None},
    )


def write_page(
    output: Path,
    predictor: Predictor,
    potential: Path,
    parts: Sequence[Part],
    *,
    train: Sequence[Frame] = (),
    log: Sequence[Mapping[str, float | None]] = (),
) -> None:
    """Describe the structures, ask the doctor and write the page, whole or not at all.

    Args:
        output: the page.
        predictor: not compiled, since a compiled one keeps no features.
        potential: its file.
        parts: what it was tested on.
        train: frames that it has learnt from, where they are at hand.
        log: rows of `log.csv`.
    """
    from dataclasses import replace

    import numpy as np

    from surefoot.active.diversity import describe_structures, whiten
    from surefoot.blocks.conditioning import Conditioning
    from surefoot.data.check import check_frames
    from surefoot.data.convert import to_samples
    from surefoot.posteriors.training import find_versions
    from surefoot.report.assessment import Assessment, make_page
    from surefoot.train.checkpoint import write_atomically

    splits = {"train": train} if train else {}
    splits |= {part.name: part.frames for part in parts}
    told = predictor.potential.states is not None
    findings = check_frames(splits, Conditioning(name="charge_spin" if told else "none"))
    some = train[:: max(1, len(train) // MOST_LEARNT)]
    sets = [part.samples for part in parts]
    if some:
        sets.append(to_samples(some, predictor.cutoff))
    rows = [describe_structures(predictor, samples) for samples in sets]
    white = whiten(np.concatenate(rows))
    ends = np.cumsum([len(one) for one in rows])[:-1]
    features = np.split(white, ends)
    assessment = Assessment(
        file=str(potential),
        predictor=predictor,
        parts=[replace(part, features=features[n]) for n, part in enumerate(parts)],
        findings=findings,
        train=train,
        learnt=features[-1] if some else None,
        log=log,
        versions=find_versions(),
    )
    write_atomically(output, make_page(assessment).encode())


def read_log(potential: Path, log: Path | None) -> list[dict[str, float | None]]:
    """Rows of the log that is named, or that stands beside the potential; none where none does.

    Raises:
        UserError: if the log that is named is no log.
    """
    import csv

    from surefoot.cli.screen import UserError

    place = potential.with_name("log.csv") if log is None else log
    place = place / "log.csv" if place.is_dir() else place
    if not place.is_file():
        if log is None:
            return []
        raise UserError(f"{place}: there is no such file; `surefoot train` writes log.csv.")
    try:
        with place.open(newline="", encoding="utf-8") as file:
            rows = [
                {name: float(value) if value else None for name, value in row.items()}
                for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        rows, reason = [], f" ({error})"
    else:
        reason = ""
    if rows and "epoch" in rows[0]:
        return rows
    if log is None:
        return []
    raise UserError(
        f"{place}: this is no log of a training{reason}; a line of column names with epoch among "
        "them and one line of numbers per epoch are needed."
    )
