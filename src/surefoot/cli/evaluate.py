"""Compare a potential with labels: errors by kind of structure, and whether error bars hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.options import (
    Compile,
    Files,
    LabelOptions,
    PotentialFile,
    Precision,
    Seed,
    Splines,
)

if TYPE_CHECKING:
    import numpy as np

    from surefoot.data.convert import Sample
    from surefoot.data.read import Frame
    from surefoot.evaluate.quantities import Quantity
    from surefoot.posteriors.calibration import Calibration
    from surefoot.posteriors.judge import Judged
    from surefoot.posteriors.predictor import Predictor


def run(
    potential: PotentialFile,
    files: Files,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write all figures as JSON, too.")
    ] = None,
    precision: Precision = None,
    compile_first: Compile = False,
    splines: Splines = False,
    seed: Seed = 0,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Write a page, FILE.html, too.")
    ] = None,
    oc20: Annotated[
        bool, typer.Option("--oc20", help="Show the figures of OC20's tasks, too.")
    ] = False,
    *,
    labels: LabelOptions,
) -> None:
    import json

    from surefoot.cli.check import refuse_unsound
    from surefoot.cli.known import drop_isolated, warn_of_known
    from surefoot.cli.oc20 import show_oc20
    from surefoot.cli.options import quicken, read_precision
    from surefoot.cli.report import read_log, write_page
    from surefoot.cli.screen import progress_bar, require_writable, say, suggest
    from surefoot.data.convert import to_samples
    from surefoot.data.read import describe_labels, read_frames, refuse_overwriting
    from surefoot.posteriors.judge import compare, predict_samples
    from surefoot.posteriors.predictor import load_predictor
    from surefoot.report.assessment import Part
    from surefoot.train.checkpoint import write_atomically
    from surefoot.wording import counted

    for written in filter(None, (output, report_file)):
        require_writable(written)
        refuse_overwriting(written, [potential, *files])
    predictor = load_predictor(potential, dtype=read_precision(precision))
    predictor = quicken(predictor, splines=splines, compile_first=compile_first)
    frames = drop_isolated(read_frames(files, labels.keys(), labels.units()))
    for frame in frames:
        predictor.require(frame.atoms.numbers, frame.charge, frame.spin, frame.place)
    refuse_unsound(frames)
    say(f"{counted(len(frames), 'frame')}; {describe_labels(frames)}")
    found = [label for f in frames for label in (f.energy, f.forces, f.stress)]
    _require_labels(files, any(label is not None for label in found))
    samples = to_samples(frames, predictor.cutoff)
    warn_of_known("the potential", predictor, frames, samples)
    with progress_bar("evaluating", len(samples)) as bar:
        judged = predict_samples(predictor, samples, progress=bar.advance)
    quantities = compare(judged, samples)
    _require_labels(files, bool(quantities))
    report: dict[str, Any] = {"potential": str(potential), "files": list(files)}
    report["accuracy"] = show_accuracy(quantities, seed)
    if oc20:
        report["oc20"] = show_oc20(judged)
    report["uncertainty"] = show_scores(quantities, predictor.calibration, seed)
    report |= show_others(judged, samples, seed)
    report |= show_directness(predictor, samples, seed)
    outside, told = find_strangers(frames)
    if outside is not None:
        report["failures"] = show_failures(judged, samples, outside, told, seed)
    if output is not None:
        write_atomically(output, (json.dumps(report, indent=2) + "\n").encode())
        say(f"wrote {output}")
    suggest("surefoot", "predict", potential, "NEW.xyz", "-o", "predictions.xyz")
    if report_file is not None:
        part = Part(
            name="test",
            frames=frames,
            samples=samples,
            judged=judged,
            quantities=quantities,
            accuracy=report["accuracy"],
            error_bars=report["uncertainty"],
        )
        write_page(report_file, predictor, potential, [part], log=read_log(potential, None))
        say(f"wrote {report_file}")


def _require_labels(files: Sequence[str], found: bool) -> None:
    from surefoot.cli.screen import UserError

    if not found:
        raise UserError(
            f"{', '.join(files)}: no labels were found to compare with; name their keys with "
            "`--energy-key NAME` and `--forces-key NAME` (`surefoot check` lists what a file "
            "holds)."
        )


def show_accuracy(quantities: list[Quantity], seed: int) -> dict[str, Any]:
    """The error table, one row per config_type and one for all; the same figures as JSON."""
    from surefoot.cli.screen import show_table
    from surefoot.evaluate.figures import describe_accuracy

    figures: dict[str, Any] = {}
    cells: dict[str, list[str]] = {}
    columns = ["config_type"]
    for quantity in quantities:
        columns += [f"{quantity.name} MAE", f"RMSE ({quantity.unit})"]
    for number, quantity in enumerate(quantities):
        figures[quantity.name] = describe_accuracy(quantity, seed)
        for name, errors in figures[quantity.name].items():
            if name == "unit":
                continue
            row = cells.setdefault(name, ["–"] * 2 * len(quantities))
            row[2 * number : 2 * number + 2] = [f"{errors['mae']:.2f}", f"{errors['rmse']:.2f}"]
    cells["all"] = cells.pop("all")
    show_table("Errors", columns, [[name, *row] for name, row in cells.items()])
    return figures


def show_scores(quantities: list[Quantity], calibration: Calibration, seed: int) -> dict[str, Any]:
    """Whether the error bars hold, before and after the factor, with bootstrap intervals."""
    from surefoot.cli.screen import progress_bar, say, show_table
    from surefoot.evaluate.figures import describe_error_bars, show

    figures: dict[str, Any] = {}
    with progress_bar("scoring", len(quantities)) as bar:
        for quantity in quantities:
            found = describe_error_bars(quantity, seed)
            bar.advance()
            if found is not None:
                figures[quantity.name] = found
    for quantity in quantities:
        found = figures.get(quantity.name)
        if found is None:
            say(f"{quantity.name}: no error bars to score")
            continue
        told = (
            f"factor {quantity.factor:.2f} from {calibration.source}"
            if getattr(calibration, quantity.name) is not None
            else "not calibrated"
        )
        show_table(
            f"Error bars of {quantity.name} in {quantity.unit}, {told}; [95 % block bootstrap, "
            f"seed {seed}]",
            ["score", "before the factor", "after"],
            [
                [row, *(show(found[at][row]) for at in ("before", "after"))]
                for row in found["after"]
            ],
        )
        _show_recalibrated(quantity, found)
        _show_strata(quantity, found)
    return figures


def _show_recalibrated(quantity: Quantity, found: dict[str, Any]) -> None:
    """Coverage of the intervals that calibration points gave, beside those of a normal."""
    from surefoot.cli.screen import show_table
    from surefoot.evaluate.figures import coverages, show

    if not found["recalibrated"]:
        return
    columns = {"normal": coverages(found["after"]), **found["recalibrated"]}
    show_table(
        f"Coverage of the intervals of {quantity.name}",
        ["level", *columns],
        [[row, *(show(held[row]) for held in columns.values())] for row in columns["normal"]],
    )


def _show_strata(quantity: Quantity, found: dict[str, Any]) -> None:
    """Error bars by kind of point, of kinds that there are at least two of."""
    from ase.data import chemical_symbols

    from surefoot.cli.screen import show_table
    from surefoot.evaluate.figures import show

    rows = []
    for name, table in found["strata"].items():
        for kind, held in table.items() if len(table) > 1 else ():
            shown = chemical_symbols[int(kind)] if name == "element" else kind
            rows.append([
                f"{name} {shown}",
                str(held["count"]),
                f"{held['rmse']:.2f}",
                f"{held['sharpness']:.2f}",
                f"{held['mean_square']:.2f}",
                show(held["coverage_95"]),
            ])  # fmt: skip
    if rows:
        show_table(
            f"Error bars of {quantity.name} by kind, in {quantity.unit}",
            ["kind", "points", "RMSE", "rms σ", "⟨z²⟩", "coverage_95"],
            rows,
        )


def show_others(judged: Judged, samples: Sequence[Sample], seed: int) -> dict[str, Any]:
    """Force covariances and histograms, where the potential has them."""
    from surefoot.cli.screen import show_table
    from surefoot.evaluate.figures import (
        describe_differences,
        describe_histogram,
        describe_vectors,
        show,
    )
    from surefoot.posteriors.differences import compare_differences
    from surefoot.posteriors.histograms import compare_histograms
    from surefoot.posteriors.judge import compare_vectors

    figures: dict[str, Any] = {}
    vectors = compare_vectors(judged, samples)
    if vectors is not None:
        figures["force_covariance"] = found = describe_vectors(vectors, seed)
        show_table(
            f"Force covariances of {found['atoms']} atoms; ⟨z²⟩ is 3 where they are true",
            ["score", "value"],
            [[row, show(value)] for row, value in found.items() if row != "atoms"],
        )
    differences = compare_differences(judged, samples)
    if differences is not None:
        figures["differences"] = found = describe_differences(differences, seed)
        _show_differences(found)
    figures["histograms"] = {}
    for binning in compare_histograms(judged, samples):
        figures["histograms"][binning.name] = found = describe_histogram(binning, seed)
        show_table(
            f"Histograms of {binning.name} in {binning.unit}, {found['points']} labels, of which "
            f"{found['outside']:.1%} outside of all bins",
            ["score", "value"],
            [[row, show(value)] for row, value in found.items() if isinstance(value, list)],
        )
        _show_ranking(binning.name, found)
    return figures


def _show_differences(found: dict[str, Any]) -> None:
    """Error bars of differences, beside those of two assumptions."""
    from surefoot.cli.screen import show_table
    from surefoot.evaluate.figures import show

    kinds = {
        "std": "what the frames share is known",
        "independent": "√(σ_a² + σ_b²)",
        "correlated": "|σ_a − σ_b|",
    }
    show_table(
        f"Energy differences in {found['pairs']} pairs of consecutive frames of one group, RMSE "
        f"{found['rmse']:.2f} meV",
        ["σ of a difference", "rms σ (meV)", "coverage_90"],
        [
            [told, f"{found[kind]['sharpness']:.2f}", show(found[kind]["coverage_90"])]
            for kind, told in kinds.items()
        ],
    )


def _show_ranking(name: str, found: dict[str, Any]) -> None:
    """Which figure of the histograms tells large errors from small ones."""
    from surefoot.cli.screen import say, show_table
    from surefoot.evaluate.figures import show

    show_table(
        f"What tells large errors of {name}; the entropy is that of the whole prediction",
        ["score", "median", "Spearman", "AUSE"],
        [
            [score, show([held["median"], None, None]), show(held["spearman"]), show(held["ause"])]
            for score, held in found["ranking"].items()
        ],
    )
    if found["open_bin"] is not None:
        mass, labels = found["open_bin"]["mass"], found["open_bin"]["labels"]
        say(f"beyond the last edge: {mass:.2%} of the mass, {labels:.2%} of the labels")


def show_directness(predictor: Predictor, samples: Sequence[Sample], seed: int) -> dict[str, Any]:
    """What forces lack that are said directly; nothing of forces that are a gradient."""
    import numpy as np

    from surefoot.cli.screen import show_table
    from surefoot.evaluate.figures import describe_directness, show
    from surefoot.posteriors.directness import find_directness, is_direct

    if not is_direct(predictor):
        return {}
    directness = find_directness(predictor, samples, np.random.default_rng(seed))
    if directness is None:
        return {}
    found = describe_directness(directness)
    show_table(
        f"Forces that are no gradient ({predictor.potential.head.forces}), of "
        f"{found['structures']} structures; both are 0 of a gradient",
        ["measure", "value"],
        [
            ["rms of F(Rx) − R F(x) over rms F, rotations and reflections R",
             show([found["rotation_error"], None, None])],
            ["asymmetry of dF/dx, of random entries 0.7",
             show([found["jacobian_asymmetry"], None, None])],
        ],
    )  # fmt: skip
    return {"direct_forces": found}


def find_strangers(frames: Sequence[Frame]) -> tuple[np.ndarray | None, str]:
    """Which frames are not of the first file, or of the first config_type of one file."""
    import numpy as np

    for kinds, what in (
        ([str(frame.file) for frame in frames], "file"),
        ([frame.config_type for frame in frames], "config_type"),
    ):
        if len(set(kinds)) > 1:
            outside = np.array(kinds, dtype=str) != kinds[0]
            return outside, f"the {what} {kinds[0]} as the distribution"
    return None, ""


def show_failures(
    judged: Judged, samples: Sequence[Sample], outside: np.ndarray, told: str, seed: int
) -> dict[str, Any] | None:
    """Which score finds the structures with large errors."""
    from surefoot.cli.screen import say, show_table
    from surefoot.evaluate.figures import describe_failures, show
    from surefoot.posteriors.judge import compare_structures, find_common_errors

    inner = [sample for sample, out in zip(samples, outside, strict=True) if not out]
    outer = [sample for sample, out in zip(samples, outside, strict=True) if out]
    errors = find_common_errors(inner, outer)
    if errors is None:
        say(f"no failures are looked for: with {told}, the two have no labels of one kind")
        return None
    structures = compare_structures(judged, samples, errors)
    outside = outside[structures.counted]
    found = describe_failures(structures, outside, seed)
    show_table(
        f"Failures, with {told}: {found['failed_inside']} of {found['inside']} in it and "
        f"{found['failed_outside']} of {found['outside']} others have errors above its 95th "
        f"percentile of {found['threshold']:.1f}",
        ["score", "AUROC of failures", "AUROC of others"],
        [
            [name, show(held["failures"]), show(held["strangers"])]
            for name, held in found["auroc"].items()
        ],
    )
    return found
