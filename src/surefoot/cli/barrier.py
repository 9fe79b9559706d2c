"""Barriers of hydrogen transfers with error bars and rates: rigid scans, or saddle points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.options import Compile, LabelOptions, PotentialFile, Precision, Splines

if TYPE_CHECKING:
    from surefoot.barriers.judgement import SaddleSettings, Search
    from surefoot.barriers.paths import TransferPath
    from surefoot.barriers.records import ReportSettings
    from surefoot.cli.barrier_report import Report
    from surefoot.posteriors.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class SaddleOptions:
    """Options that belong to saddle points; None where they are not set."""

    start: Annotated[
        str | None,
        typer.Option(
            help="Where a search begins: scan (highest image of the path) or band (between its "
            "relaxed ends)."
        ),
    ] = None
    check: Annotated[
        str | None,
        typer.Option(help="Of saddle points from a scan: none, or band (a band over each)."),
    ] = None
    images: Annotated[
        int | None, typer.Option(min=3, help="Images of a band, both ends among them; 9.")
    ] = None
    interpolation: Annotated[
        str | None, typer.Option(help="First images of a band: idpp or linear.")
    ] = None
    band_fmax: Annotated[
        float | None, typer.Option(help="Longest force left on a band, eV/Å; 0.05.")
    ] = None
    fmax: Annotated[
        float | None, typer.Option(help="Longest force left at a saddle point, eV/Å; 0.01.")
    ] = None
    steps: Annotated[
        int | None, typer.Option(min=0, help="At most, of each relaxation, band and refinement.")
    ] = None
    tunnelling: Annotated[
        str | None, typer.Option(help="Correction of rates: none, wigner or eckart.")
    ] = None
    energy: Annotated[
        str | None,
        typer.Option(help="What rates are made of: electronic, zero-point or free energies."),
    ] = None

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: value for name, value in vars(self).items() if value is not None}


def run(
    potential: PotentialFile,
    paths: Annotated[
        str, typer.Argument(help="Paths, as `surefoot hat scan` makes them, with labels or not.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write, a new one.")],
    saddle: Annotated[
        bool,
        typer.Option("--saddle", help="Saddle points between relaxed ends, not rigid scans."),
    ] = False,
    method: Annotated[
        str, typer.Option(help="Of rates: eyring (k_B T / h) or arrhenius (0.288 / ps, KIMMDY's).")
    ] = "eyring",
    temperature: Annotated[float, typer.Option("-T", "--temperature", help="K.")] = 300.0,
    level: Annotated[float, typer.Option(help="Probability of the intervals.")] = 0.9,
    together: Annotated[int, typer.Option(min=1, help="Paths that are worked on at once.")] = 16,
    precision: Precision = None,
    compile_first: Compile = False,
    splines: Splines = False,
    *,
    labels: LabelOptions,
    saddles: SaddleOptions,
) -> None:
    from surefoot.barriers.paths import read_paths
    from surefoot.cli.barrier_report import Report, require_new
    from surefoot.cli.options import quicken, read_precision
    from surefoot.data.read import read_frames
    from surefoot.posteriors.predictor import load_predictor

    require_new(output)
    search = read_saddles(saddles, asked=saddle)
    settings = read_report(method, temperature, level, saddles)
    predictor = load_predictor(potential, dtype=read_precision(precision))
    predictor = quicken(predictor, splines=splines, compile_first=compile_first)
    frames = read_frames([paths], labels.keys(), labels.units())
    for frame in frames:
        predictor.require(frame.atoms.numbers, frame.charge, frame.spin, frame.place)
    found = read_paths(frames)
    require_sound(found, search)
    report = Report(folder=output, settings=settings, search=search, predictor=predictor,
                    potential=potential, file=paths)  # fmt: skip
    try:
        if search is None:
            scan(report, predictor, found, together)
        else:
            find(report, predictor, found, search, together)
    finally:  # what is finished is kept, whatever has ended the work
        report.write()
    report.show()


def scan(report: Report, predictor: Predictor, paths: list[TransferPath], together: int) -> None:
    """Judge rigid scans, in batches over paths."""
    from surefoot.barriers.curves import predict_curves
    from surefoot.barriers.scans import judge_scan
    from surefoot.cli.screen import progress_bar

    with progress_bar("scans", len(paths)) as bar:
        for at in range(0, len(paths), together):
            chosen = paths[at : at + together]
            curves = predict_curves(predictor, [path.images for path in chosen])
            report.scans += [judge_scan(*one) for one in zip(chosen, curves, strict=True)]
            report.write_now_and_then()
            bar.advance(len(chosen))


def find(
    report: Report,
    predictor: Predictor,
    paths: list[TransferPath],
    search: SaddleSettings,
    together: int,
) -> None:
    """Search saddle points, in batches over paths."""
    from surefoot.barriers.curves import predict_curves
    from surefoot.barriers.records import Judged
    from surefoot.barriers.saddles import find_saddles
    from surefoot.cli.screen import progress_bar
    from surefoot.motion.surface import PredictorSurface

    surface = PredictorSurface(predictor=predictor)
    with progress_bar("saddle points", len(paths)) as bar:
        for at in range(0, len(paths), together):
            chosen = paths[at : at + together]
            over: list[Search] = []
            try:
                find_saddles(
                    chosen,
                    surface,
                    search,
                    lambda note, done=at: bar.move(done, note),
                    finished=over.append,
                )
            finally:  # an interrupt leaves those that are over
                known = [one for one in over if one.images()]
                curves = predict_curves(predictor, [one.images() for one in known])
                by_name = {one.path.name: curve for one, curve in zip(known, curves, strict=True)}
                order = [path.name for path in chosen]
                report.searches += [
                    Judged(search=one, settings=search, curve=by_name.get(one.path.name))
                    for one in sorted(over, key=lambda one: order.index(one.path.name))
                ]
            report.write_now_and_then()
            bar.move(at + len(chosen))


def require_sound(paths: list[TransferPath], search: SaddleSettings | None) -> None:
    """Refuse paths that can not be worked on, before any work is done.

    Raises:
        ValueError: with the first reason.
    """
    from surefoot.barriers.paths import require_rigid, require_transfer
    from surefoot.motion.systems import require_fit

    for path in paths:
        for number, image in enumerate(path.images):
            require_fit(image, f"{path.place}, path {path.name}, image {number}")
        if search is None:
            require_rigid(path)
        else:
            require_transfer(path)


def read_saddles(options: SaddleOptions, *, asked: bool) -> SaddleSettings | None:
    """The search that options name; None where no saddle points are asked for.

    Raises:
        UserError: if one is not allowed, or belongs to saddle points that are not asked for.
    """
    from surefoot.barriers.bands import BandSettings
    from surefoot.barriers.judgement import SaddleSettings
    from surefoot.barriers.refine import RefineSettings
    from surefoot.cli.motion import read_settings
    from surefoot.cli.screen import UserError

    given = options.given()
    if not asked:
        if given:
            name = next(iter(given)).replace("_", "-")
            raise UserError(
                f"--{name}: it belongs to saddle points, and rigid scans have none; add --saddle "
                "or leave it out."
            )
        return None
    steps = {"steps": given["steps"]} if "steps" in given else {}
    names = {"images": "images", "interpolation": "interpolation", "band_fmax": "fmax"}
    band = {inside: given[name] for name, inside in names.items() if name in given}
    refine = {"fmax": given["fmax"]} if "fmax" in given else {}
    usual = SaddleSettings()
    kinds = {name: given[name] for name in ("start", "check") if name in given}
    if given.get("check") == "band" and given.get("start") == "band":
        raise UserError(
            "--check band: a search that starts from a band has one already; leave it out, or use "
            "--start scan."
        )
    relaxations = {
        name: getattr(usual, name).model_copy(update=steps)
        for name in ("surroundings", "relaxation", "downhill")
    }
    return read_settings(
        SaddleSettings,
        **kinds,
        **relaxations,
        band=read_settings(BandSettings, **band, **steps),
        refine=read_settings(RefineSettings, **refine, **steps),
    )


def read_report(
    method: str, temperature: float, level: float, options: SaddleOptions
) -> ReportSettings:
    """Intervals and rates that options name.

    Raises:
        UserError: if one is not allowed.
    """
    from surefoot.barriers.rates import RateSettings
    from surefoot.barriers.records import ReportSettings
    from surefoot.cli.motion import read_settings

    rates = read_settings(RateSettings, method=method, temperature=temperature)
    kinds = {
        name: value for name, value in options.given().items() if name in ("tunnelling", "energy")
    }
    return read_settings(ReportSettings, level=level, rates=rates, **kinds)
