"""Put several potentials in one table and one report: errors, error bars, ranking, and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.options import (
    Compile,
    LabelOptions,
    Precision,
    Seed,
)

if TYPE_CHECKING:
    from surefoot.data.convert import Sample
    from surefoot.data.read import Frame
    from surefoot.posteriors.predictor import Predictor

POTENTIAL = ".safetensors"
ROUNDS = 30  # of timings, of which the shortest counts: the others had to share the machine
WARM_UP = 2
DRAWS = 200  # of the bootstrap


def run(
    files: Annotated[
        list[str],
        typer.Argument(help="Potentials (.safetensors), then files with labels to test them on."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for report.html and report.json.")
    ],
    ood: Annotated[
        list[str] | None,
        typer.Option(
            "--ood", help="Labelled structures unlike the training data; may be repeated."
        ),
    ] = None,
    precision: Precision = None,
    compile_first: Compile = False,
    seed: Seed = 0,
    *,
    labels: LabelOptions,
) -> None:
    import json

    from surefoot.cli.options import quicken, read_precision
    from surefoot.cli.screen import complain, progress_bar, require_writable, say
    from surefoot.posteriors.directness import is_direct
    from surefoot.posteriors.predictor import load_predictor
    from surefoot.report.comparison import make_page
    from surefoot.train.checkpoint import write_atomically

    page, figures = output / "report.html", output / "report.json"
    require_writable(page)
    require_writable(figures)
    paths, tests = _divide(files)
    names = _name(paths)
    predictors = {
        name: load_predictor(path, dtype=read_precision(precision))
        for name, path in zip(names, paths, strict=True)
    }
    inside = _read(tests, labels, predictors)
    outside = _read(ood, labels, predictors) if ood else []
    report: dict[str, Any] = {
        "files": {"test": tests, "ood": list(ood or ())},
        "frames": {"test": len(inside), "ood": len(outside)},
        "potentials": {},
    }
    plain = _plain(next(iter(predictors.values())))
    steps = len(predictors) * (len(inside) + len(outside))
    with progress_bar("comparing", steps) as bar:
        for (name, predictor), path in zip(predictors.items(), paths, strict=True):
            quick = quicken(predictor, splines=False, compile_first=compile_first)
            found = _judge(name, quick, Frames(inside, outside), seed, bar)
            if any(map(is_direct, predictors.values())):
                found["direct_forces"] = _directness(quick, inside, seed)
            found["file"], found["training"] = path, _training(path, predictor)
            report["potentials"][name] = found
    simple, *costs = _time([plain, *predictors.values()], inside[0], compile_first=compile_first)
    report["cost"] = {
        "plain": "one set of weights, a scalar head and no gate, of the first model",
        "atoms": len(inside[0].atoms),
        "compiled": compile_first,
        "milliseconds": simple,
    }
    for found, cost in zip(report["potentials"].values(), costs, strict=True):
        found["cost"] = {
            "milliseconds": cost,
            "over_plain": cost["forces"] / simple["forces"],
            "over_plain_energy": cost["energy"] / simple["energy"],
        }
    _relate_training(predictors, report["potentials"])
    show_summary(report)
    write_atomically(figures, (json.dumps(report, indent=2) + "\n").encode())
    write_atomically(page, make_page(report).encode())
    say(f"wrote {page} and {figures}; seed {seed} of the bootstrap intervals")
    complain(f"next: open {page} in a browser")


@dataclass(frozen=True)
class Frames:
    """What potentials are tested on.

    Attributes:
        inside: of the distribution.
        outside: not of it; may be empty.
    """

    inside: Sequence[Frame]
    outside: Sequence[Frame]


def _divide(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Potentials and tests, by the ends of their names."""
    from surefoot.cli.screen import UserError, require_named_once

    paths = [name for name in files if name.endswith(POTENTIAL)]
    tests = [name for name in files if not name.endswith(POTENTIAL)]
    if not paths or not tests:
        raise UserError(
            f"{len(paths)} potentials ({POTENTIAL}) and {len(tests)} files to test them on were "
            "named; at least one of each is needed: `surefoot compare A.safetensors B.safetensors "
            "TEST.xyz -o FOLDER`."
        )
    require_named_once(paths)
    return paths, tests


def _name(paths: Sequence[str]) -> list[str]:
    """Short names: of the files, or of their folders where the files are called the same."""
    parts = [Path(path).absolute().with_suffix("").parts for path in paths]
    while len(parts) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    depths = range(1, max(map(len, parts)) + 1)
    tried = (["/".join(part[-depth:]) for part in parts] for depth in depths)
    return next(names for names in tried if len(set(names)) == len(names))


def _read(
    files: Sequence[str], labels: LabelOptions, predictors: dict[str, Predictor]
) -> list[Frame]:
    """Sound frames with labels that all potentials can know something of."""
    from surefoot.cli.check import refuse_unsound
    from surefoot.cli.known import drop_isolated
    from surefoot.cli.screen import UserError
    from surefoot.data.read import read_frames

    frames = drop_isolated(read_frames(files, labels.keys(), labels.units()))
    for name, predictor in predictors.items():
        for frame in frames:
            place = f"{name}: {frame.place}"
            predictor.require(frame.atoms.numbers, frame.charge, frame.spin, place)
    refuse_unsound(frames)
    if all(frame.energy is None and frame.forces is None for frame in frames):
        raise UserError(
            f"{', '.join(files)}: no energies or forces were found to compare with; name their "
            "keys with `--energy-key NAME` and `--forces-key NAME`."
        )
    return frames


def _judge(name: str, predictor: Predictor, frames: Frames, seed: int, bar: Any) -> dict[str, Any]:
    """All figures of one potential."""
    import numpy as np

    from surefoot.cli.known import warn_of_known
    from surefoot.cli.screen import say
    from surefoot.data.convert import to_samples
    from surefoot.evaluate.figures import describe_failures
    from surefoot.posteriors.judge import (
        compare_structures,
        find_common_errors,
        predict_samples,
    )

    every = [*frames.inside, *frames.outside]
    samples = to_samples(every, predictor.cutoff)
    warn_of_known(name, predictor, every, samples)
    count = len(frames.inside)
    parts = {"test": samples[:count], "ood": samples[count:]}
    found: dict[str, Any] = {
        "calibration": predictor.calibration.describe(),
        "gate": None if predictor.gate is None else predictor.gate.source,
        "draws": predictor.draws,
    }
    judged = {
        name: predict_samples(predictor, part, progress=bar.advance)
        for name, part in parts.items()
        if part
    }
    for part, one in judged.items():
        found[part] = _describe(one, parts[part], seed)
    if "ood" in judged:
        errors = find_common_errors(parts["test"], parts["ood"])
        if errors is None:
            say("no failures are looked for: test and --ood have no labels of one kind")
            return found
        both = [compare_structures(judged[part], parts[part], errors) for part in parts]
        outside = np.repeat([False, True], [len(one.errors) for one in both])
        found["failures"] = describe_failures(_join(both), outside, seed, DRAWS)
    return found


def _join(both: Sequence[Any]) -> Any:
    import numpy as np

    from surefoot.evaluate.quantities import Structures

    first, second = both
    return Structures(
        errors=np.concatenate([first.errors, second.errors]),
        scores={
            name: np.concatenate([score, second.scores[name]])
            for name, score in first.scores.items()
        },
        groups=np.concatenate([np.char.add("test ", first.groups), second.groups]),
        types=np.concatenate([first.types, second.types]),
        counted=np.concatenate([first.counted, second.counted]),
    )


def _describe(judged: Any, samples: Sequence[Sample], seed: int) -> dict[str, Any]:
    from surefoot.evaluate.figures import (
        describe_accuracy,
        describe_differences,
        describe_error_bars,
        describe_histogram,
        describe_ranking,
        describe_vectors,
    )
    from surefoot.posteriors.differences import compare_differences
    from surefoot.posteriors.histograms import compare_histograms
    from surefoot.posteriors.judge import compare, compare_atoms, compare_vectors

    quantities = compare(judged, samples)
    bars = {one.name: describe_error_bars(one, seed, DRAWS) for one in quantities}
    found: dict[str, Any] = {
        "accuracy": {one.name: describe_accuracy(one, seed, DRAWS) for one in quantities},
        "uncertainty": {name: held for name, held in bars.items() if held is not None},
        "histograms": {
            one.name: describe_histogram(one, seed, DRAWS)
            for one in compare_histograms(judged, samples)
        },
    }
    vectors = compare_vectors(judged, samples)
    if vectors is not None:
        found["force_covariance"] = describe_vectors(vectors, seed, DRAWS)
    atoms = compare_atoms(judged, samples)
    if atoms is not None:
        found["atoms"] = describe_ranking(atoms, seed, DRAWS)
    differences = compare_differences(judged, samples)
    if differences is not None:
        found["differences"] = describe_differences(differences, seed, DRAWS)
    return found


def _directness(predictor: Predictor, frames: Sequence[Frame], seed: int) -> dict[str, Any] | None:
    """Beside forces that are no gradient those of the others, whose figures are rounding."""
    import numpy as np

    from surefoot.data.convert import to_samples
    from surefoot.evaluate.figures import describe_directness
    from surefoot.posteriors.directness import find_directness

    samples = to_samples(frames, predictor.cutoff)
    found = find_directness(predictor, samples, np.random.default_rng(seed))
    return None if found is None else describe_directness(found)


def _training(path: str, predictor: Predictor) -> dict[str, Any] | None:
    """Epochs and seconds of the training; of older potentials from the log beside them."""
    import csv

    log = Path(path).with_name("log.csv")
    epochs = predictor.provenance.get("epochs")
    if predictor.provenance.get("seconds") is not None:
        return {"epochs": epochs, "seconds": predictor.provenance["seconds"]}
    if Path(path).name != "potential.safetensors" or not log.is_file():
        return None if epochs is None else {"epochs": epochs, "seconds": None}
    try:
        with log.open(newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    except (KeyError, ValueError):  # a log of something else
        return None if epochs is None else {"epochs": epochs, "seconds": None}
    return {"epochs": epochs, "seconds": sum(seconds)}


def _relate_training(predictors: dict[str, Predictor], found: dict[str, Any]) -> None:
    """Seconds of training over those of the first plain potential, where there is one."""

    def seconds(name: str) -> float:
        return (found[name]["training"] or {}).get("seconds") or 0.0

    plain = [
        name
        for name, predictor in predictors.items()
        if predictor.posterior.name == "single"
        and predictor.potential.head.energy == "scalar"
        and seconds(name) > 0
    ]
    for name in found if plain else ():
        if seconds(name) > 0:
            found[name]["training"]["over_plain"] = seconds(name) / seconds(plain[0])
            found[name]["training"]["plain"] = plain[0]


def _plain(predictor: Predictor) -> Predictor:
    """The same model with one set of weights, a scalar head and nothing else.

    Forces are its gradient, so SCN is the smooth form: the published one has none. The weights are
    fresh: what they are costs nothing.
    """
    from dataclasses import replace

    from surefoot.heads.scalar import Scalar
    from surefoot.members import precision
    from surefoot.models.scn import Scn
    from surefoot.posteriors.calibration import Calibration
    from surefoot.posteriors.posterior import Single
    from surefoot.posteriors.predictor import build_predictor

    shared = predictor.potential.head.model_dump()
    names = Scalar.model_fields.keys() & shared.keys() - {"energy", "forces"}
    model = predictor.potential.model
    if isinstance(model, Scn):
        model = model.model_copy(update={"form": "smooth"})
    head = Scalar(**{name: shared[name] for name in names})
    potential = replace(predictor.potential, model=model, head=head)
    single = Single(potential.init(0, precision(predictor.weights)))
    return build_predictor(potential, single, Calibration(), {})


def _time(
    predictors: Sequence[Predictor], frame: Frame, *, compile_first: bool
) -> list[dict[str, float]]:
    """Milliseconds of one evaluation of one structure on one thread, of each.

    In turns, so that all see the same load; on one thread, since threads that wait for each other
    on a busy machine would be all that is measured.
    """
    import time

    import torch

    from surefoot.cli.options import quicken
    from surefoot.cli.screen import progress_bar
    from surefoot.data.convert import to_graph

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    quick = [quicken(one, splines=False, compile_first=compile_first) for one in predictors]
    graphs = [to_graph(frame.atoms, one.cutoff, frame.charge, frame.spin) for one in quick]
    wanted = {"energy": False, "forces": True}
    taken = {(place, what): [] for place in range(len(quick)) for what in wanted}
    try:
        with progress_bar("timing", ROUNDS) as bar:
            for number in range(ROUNDS + WARM_UP):
                for (place, what), found in taken.items():
                    begin = time.perf_counter()
                    quick[place](graphs[place], forces=wanted[what])
                    if number >= WARM_UP:  # the first ones compile and fill caches
                        found.append(1000.0 * (time.perf_counter() - begin))
                if number >= WARM_UP:
                    bar.advance()
    finally:
        torch.set_num_threads(threads)
    return [{what: min(taken[place, what]) for what in wanted} for place in range(len(quick))]


def show_summary(report: dict[str, Any]) -> None:
    """One column per potential: errors, error bars and cost; and what finds failures."""
    from surefoot.cli.screen import show_table
    from surefoot.report.comparison import failure_rows, summary_rows

    for part, told in (("test", "test"), ("ood", "other")):
        rows = summary_rows(report, part)
        if rows:
            columns = list(zip(*(row.values() for row in rows), strict=True))
            lines = [[name, *cells] for name, cells in zip(rows[0], columns, strict=True)]
            show_table(f"{report['frames'][part]} {told} structures", lines[0], lines[1:])
    rows = failure_rows(report)
    if rows:
        show_table(
            "AUROC for structures whose error is above the 95th percentile of the test structures",
            list(rows[0]),
            [list(row.values()) for row in rows],
        )
