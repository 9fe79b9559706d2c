"""The page about one potential: its data, errors, error bars, structures and how it was made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from surefoot.data.convert import Sample
from surefoot.data.findings import Finding
from surefoot.data.read import Frame, describe_labels
from surefoot.evaluate.figures import show
from surefoot.evaluate.quantities import Quantity
from surefoot.posteriors.judge import Judged, pick
from surefoot.posteriors.predictor import Predictor
from surefoot.report.graphs import (
    draw_calibration,
    draw_learning,
    draw_maps,
    draw_parity,
    draw_scatter,
    draw_sharpness,
    project,
)
from surefoot.report.meanings import explain
from surefoot.report.page import (
    contents,
    document,
    download,
    folded,
    heading,
    paragraph,
    plots,
    table,
    verbatim,
)
from surefoot.report.selection import score_structures, select, show_selected

SETS = {"test": "Test structures", "ood": "Other structures"}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One set of structures with what is predicted of it.

    Attributes:
        name: `test` or `ood`.
        frames: with their labels.
        samples: the same as graphs.
        judged: predictions beside labels.
        quantities: residuals and error bars.
        accuracy: by quantity, as `describe_accuracy` says.
        error_bars: by quantity that has some, as `describe_error_bars` says.
        features: of each structure, for the map; None without one.
    """

    name: str
    frames: Sequence[Frame]
    samples: Sequence[Sample]
    judged: Judged
    quantities: Sequence[Quantity]
    accuracy: Mapping[str, Any]
    error_bars: Mapping[str, Any]
    features: Float[np.ndarray, "structures columns"] | None = None


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Everything that the page tells.

    Attributes:
        file: of the potential.
        predictor: what it holds.
        parts: the test structures, and others where there are some.
        findings: of the data doctor.
        train: structures that were learnt from; may be empty.
        learnt: their features, for the map; None without them.
        log: rows of `log.csv`; may be empty.
        versions: of the programs that made the page.
    """

    file: str
    predictor: Predictor
    parts: Sequence[Part]
    findings: Sequence[Finding]
    train: Sequence[Frame] = ()
    learnt: Float[np.ndarray, "structures columns"] | None = None
    log: Sequence[Mapping[str, float | None]] = ()
    versions: Mapping[str, str]


def make_page(found: Assessment) -> str:
    """The whole page as HTML."""
    sections = {
        "data": ("Data", _tell_data(found)),
        "learning": ("Learning curves", _tell_learning(found)),
        "errors": ("Errors", _tell_errors(found)),
        "error-bars": ("Error bars", _tell_error_bars(found)),
        "structures": ("Structures", _tell_structures(found)),
        "map": ("Map", _tell_map(found)),
        "making": ("How it was made", _tell_making(found)),
    }
    sections = {place: held for place, held in sections.items() if held[1]}
    body = [heading(f"Report of {found.file}", 1), *_tell_potential(found)]
    body.append(contents({f"about-{at}": title for at, (title, _) in sections.items()}))
    for place, (title, parts) in sections.items():
        body += [heading(title, 2, f"about-{place}"), *parts]
    return document("surefoot report", body)


def _tell_potential(found: Assessment) -> list[str]:
    predictor = found.predictor
    gate = "none" if predictor.gate is None else predictor.gate.source
    rows = []
    for part in found.parts:
        row = {"structures": SETS[part.name], "number": str(len(part.frames))}
        for quantity, held in part.accuracy.items():
            row[f"{quantity} RMSE ({held['unit']})"] = f"{held['all']['rmse']:.2f}"
            bars = part.error_bars.get(quantity)
            covered = "–" if bars is None else show(bars["after"]["coverage_95"])
            row[f"{quantity} in 95 % interval"] = covered
        rows.append(row)
    columns = dict.fromkeys(column for row in rows for column in row)
    return [
        paragraph(
            f"Model {predictor.potential.model.name}, cutoff {predictor.cutoff:g} Å; posterior "
            f"{predictor.posterior.name}, draws: {predictor.draws}; error bars: "
            f"{predictor.calibration.describe()}; ood: {gate}."
        ),
        table([{column: row.get(column, "–") for column in columns} for row in rows]),
    ]


def _tell_data(found: Assessment) -> list[str]:
    sets = {SETS[part.name]: part.frames for part in found.parts}
    if found.train:
        sets["Training structures"] = found.train
    rows = []
    for name, frames in sets.items():
        sizes = [len(frame.atoms) for frame in frames]
        elements = sorted({symbol for frame in frames for symbol in frame.atoms.symbols})
        types = Counter(frame.config_type for frame in frames).most_common(8)
        rows.append({
            "set": name,
            "files": ", ".join(dict.fromkeys(str(frame.file) for frame in frames)),
            "frames": str(len(frames)),
            "atoms": f"{min(sizes)} – {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0]),
            "elements": " ".join(elements),
            "groups": str(len({frame.group for frame in frames})),
            "config_type": ", ".join(f"{kind} ({count})" for kind, count in types),
            "labels": describe_labels(frames),
        })  # fmt: skip
    findings = [
        {
            "severity": one.severity.value,
            "finding": one.code,
            "frames": str(one.count),
            "what it is": one.message,
        }
        for one in found.findings
    ]
    told = "The data doctor found nothing." if not findings else "What the data doctor found:"
    return [table(rows, "Structures", text=True), paragraph(told), table(findings, text=True)]


def _tell_learning(found: Assessment) -> list[str]:
    return [plots(draw_learning(found.log))] if found.log else []


def _tell_errors(found: Assessment) -> list[str]:
    body = []
    for part in found.parts:
        body.append(heading(SETS[part.name], 3))
        kinds = dict.fromkeys(k for held in part.accuracy.values() for k in held if k != "unit")
        rows = []
        for kind in kinds:
            row = {"config_type": kind}
            for name, held in part.accuracy.items():
                one = held.get(kind)
                for score in ("mae", "rmse"):
                    title = f"{name} {score.upper()} ({held['unit']})"
                    row[title] = "–" if one is None else f"{one[score]:.2f}"
                row[f"{name}, points"] = "–" if one is None else str(one["count"])
            rows.append(row)
        body += [table(rows, "Errors by config_type"), plots(_draw_parities(part, found))]
    return body


def _draw_parities(part: Part, found: Assessment) -> list[str]:
    judged, drawn = part.judged, []
    prediction, targets = judged.prediction, judged.targets
    types = np.array([sample.config_type for sample in part.samples], dtype=str)
    labelled = targets.has_energy.numpy()
    if labelled.any():
        baseline = found.predictor.potential.baseline
        fixed = dict(zip(baseline.elements, baseline.energies, strict=True))
        zero = np.array([sum(fixed[int(z)] for z in f.atoms.numbers) for f in part.frames])
        label, mean = (
            ((values.numpy() - zero) / judged.sizes)[labelled]
            for values in (targets.energy, prediction.energy.mean)
        )
        name = "energy per atom above free atoms"
        drawn.append(draw_parity(part.name, name, "eV", label, mean, types[labelled]))
    atoms = judged.counted_atoms
    if prediction.forces is not None and atoms.any():
        label, mean = (
            values.numpy()[atoms].reshape(-1) for values in (targets.forces, prediction.forces.mean)
        )
        of_atoms = np.repeat(types[judged.graph_of_atom[atoms]], 3)
        drawn.append(draw_parity(part.name, "force components", "eV/Å", label, mean, of_atoms))
    chosen = judged.counted_stress
    if prediction.stress is not None and chosen.any():
        label, mean = (
            1000.0 * pick(values).numpy()[chosen].reshape(-1)
            for values in (targets.stress, prediction.stress.mean)
        )
        drawn.append(
            draw_parity(part.name, "stress", "meV/Å³", label, mean, np.repeat(types[chosen], 6))
        )
    return drawn


def _tell_error_bars(found: Assessment) -> list[str]:
    body = []
    for part in found.parts:
        for quantity in part.quantities:
            held = part.error_bars.get(quantity.name)
            if held is None:
                continue
            body.append(heading(f"{SETS[part.name]}: {quantity.name}", 3))
            pictures = [draw_scatter(part.name, quantity), draw_sharpness(part.name, quantity)]
            drawn = draw_calibration(part.name, quantity.name, held)
            body.append(plots([*drawn, *(one for one in pictures if one is not None)]))
            rows = [
                {"score": name.replace("_", " "), "before": show(value),
                 "after calibration": show(held["after"][name])}
                for name, value in held["before"].items()
            ]  # fmt: skip
            unit = f"in {quantity.unit}; [95 % block bootstrap]"
            body += [table(rows, f"Scores of {quantity.name} {unit}"), *_tell_strata(held)]
    if not body:
        return [paragraph(
            "This potential makes no error bars: one set of weights with a scalar head. Train an "
            "ensemble (`posterior: {members: 8}`), or with a head that judges."
        )]  # fmt: skip
    return body + explain()


def _tell_strata(held: Mapping[str, Any]) -> list[str]:
    from ase.data import chemical_symbols

    rows = [
        {
            "kind": f"{name} {chemical_symbols[int(kind)] if name == 'element' else kind}",
            "points": str(one["count"]),
            "RMSE": f"{one['rmse']:.2f}",
            "rms σ": f"{one['sharpness']:.2f}",
            "⟨z²⟩": f"{one['mean_square']:.2f}",
            "in 95 % interval": show(one["coverage_95"]),
        }
        for name, kinds in held["strata"].items()
        if len(kinds) > 1
        for kind, one in kinds.items()
    ]
    return [table(rows, f"By kind, in {held['unit']}")]


def _tell_structures(found: Assessment) -> list[str]:
    chosen = [
        one
        for part in found.parts
        for one in select(part.name, part.frames, part.samples, part.judged)
    ]
    return show_selected(chosen)


def _tell_map(found: Assessment) -> list[str]:
    parts = [part for part in found.parts if part.features is not None]
    if not parts:
        return []
    rows = [part.features for part in parts if part.features is not None]
    sets = [np.repeat(part.name, len(part.frames)) for part in parts]
    scored = [score_structures(part.judged, part.samples) for part in parts]
    told = scored[0][0] if scored[0] is not None else "uncertainty"
    scores = [
        np.full(len(part.frames), np.nan) if one is None else one[1]
        for part, one in zip(parts, scored, strict=True)
    ]
    if found.learnt is not None:  # first, so that they are drawn below the others
        rows, sets = [found.learnt, *rows], [np.repeat("train", len(found.learnt)), *sets]
        scores = [np.full(len(found.learnt), np.nan), *scores]
    everything = np.concatenate(rows)
    if len(everything) < 3:
        return []
    told_how = (
        "Each point is a structure: the mean over atoms of the features that the potential's last "
        "layers read, element by element, projected on the two axes along which they vary most. "
        "Neighbours look alike to the potential."
    )
    places = project(everything)
    drawn = draw_maps(places, np.concatenate(sets), np.concatenate(scores), told)
    return [paragraph(told_how), plots(drawn)]


def _tell_making(found: Assessment) -> list[str]:
    provenance = dict(found.predictor.provenance)
    versions = dict(provenance.pop("versions", {}))
    names = dict.fromkeys([*versions, *found.versions])
    rows = [
        {
            "program": name,
            "training": versions.get(name, "–"),
            "report": found.versions.get(name, "–"),
        }
        for name in names
    ]
    text = json.dumps(provenance, indent=1, ensure_ascii=False)
    figures = {
        part.name: {"accuracy": dict(part.accuracy), "uncertainty": dict(part.error_bars)}
        for part in found.parts
    }
    return [
        table(rows, "Versions", text=True),
        folded("Configuration, files and their hashes", [verbatim(text)]),
        download("report.json", figures),
    ]
