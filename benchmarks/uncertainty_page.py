"""The page of benchmarks/uncertainty.py: tables of all runs, what they cost, what was passed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from uncertainty_marks import RECOMMENDED, describe_marks

Entry = Mapping[str, Any]


class Named(Protocol):
    """What a page needs of a run."""

    @property
    def method(self) -> str: ...

    @property
    def data(self) -> str: ...


@dataclass(frozen=True)
class Column:
    """A figure of each run.

    Attributes:
        title: with its unit.
        path: where it stands in the JSON of the run; the first number of a list counts.
        form: how it is printed.
    """

    title: str
    path: tuple[str, ...]
    form: str = ".2f"


def errors(part: str, quantity: str, form: str, told: str) -> Column:
    return Column(told, ("figures", part, "accuracy", quantity, "all", "rmse"), form)


def bars(title: str, part: str, quantity: str, *row: str, form: str = ".2f") -> Column:
    return Column(title, ("figures", part, "uncertainty", quantity, *row), form)


def scores(quantity: str) -> tuple[Column, ...]:
    """Whether the error bars of a quantity hold."""
    after = ("test", quantity, "after")
    return (
        bars("95 % before", "test", quantity, "before", "coverage_95", form=".3f"),
        bars("after", *after, "coverage_95", form=".3f"),
        bars("conformal", "test", quantity, "recalibrated", "conformal", "coverage_95", form=".3f"),
        bars("other", "ood", quantity, "after", "coverage_95", form=".3f"),
        bars("NLL", *after, "nll"),
        bars("CRPS", *after, "crps"),
        bars("CRPS of one σ for all", *after, "crps_reference"),
        bars("calibration error", *after, "calibration_error", form=".4f"),
        bars("miscalibration area", *after, "miscalibration_area", form=".3f"),
        bars("ENCE", *after, "ence", form=".3f"),
        bars("ENCE, reference", *after, "ence_reference", form=".3f"),
        bars("sharpness", *after, "sharpness"),
        bars("Spearman", *after, "spearman"),
        bars("AUSE", *after, "ause"),
    )


def ranking(part: str, score: str, figure: str, told: str) -> Column:
    return Column(told, ("figures", part, "atoms", score, figure))


def failures(score: str, told: str, *where: str) -> Column:
    return Column(told, ("figures", "failures", "auroc", score, *where), ".3f")


ENERGY, FORCE = "predicted energy per atom", "predicted rms force"
SIGMA = "force σ, rms of atoms"
TABLES = {
    "Errors (RMSE; meV/atom and meV/Å) and training": (
        errors("test", "energy", ".2f", "energy"),
        errors("test", "forces", ".1f", "forces"),
        Column("forces, MAE", ("figures", "test", "accuracy", "forces", "all", "mae"), ".1f"),
        errors("ood", "energy", ".2f", "energy, other"),
        errors("ood", "forces", ".1f", "forces, other"),
        Column("training, CPU s", ("cpu_seconds",), ".0f"),
    ),
    "Energies: error bars": scores("energy"),
    "Forces: error bars, by component": scores("forces"),
    "Forces: ranking of atoms by the length of their error": (
        ranking("test", "force σ", "spearman", "σ: Spearman"),
        ranking("test", "force σ", "ause", "σ: AUSE"),
        ranking("ood", "force σ", "spearman", "σ, other: Spearman"),
        ranking("ood", "force σ", "ause", "σ, other: AUSE"),
        ranking("test", "ood", "spearman", "gate: Spearman"),
        ranking("ood", "ood", "spearman", "gate, other: Spearman"),
        ranking("test", "predicted force", "spearman", "predicted force: Spearman"),
    ),
    "Histograms of the energy: share of labels outside of all bins": (
        Column("outside", ("figures", "test", "histograms", "energy", "outside"), ".3f"),
        Column("outside, other", ("figures", "ood", "histograms", "energy", "outside"), ".3f"),
    ),
    "Energy differences (meV): 90 % intervals": (
        Column("factor", ("figures", "test", "differences", "factor")),
        Column("RMSE", ("figures", "test", "differences", "rmse"), ".1f"),
        *(
            Column(told, ("figures", "test", "differences", name, "coverage_90"), ".3f")
            for name, told in (
                ("std", "covered"),
                ("independent", "as if independent"),
                ("correlated", "as if correlated"),
            )
        ),
        Column("sharpness", ("figures", "test", "differences", "std", "sharpness"), ".1f"),
    ),
    "Finding failures: AUROC in a 1:1 mixture of test and other structures": (
        failures("ood", "gate", "failures"),
        failures(SIGMA, "force σ", "failures"),
        failures("energy σ per atom", "energy σ", "failures"),
        failures(ENERGY, "predicted energy", "failures"),
        failures(FORCE, "predicted force", "failures"),
        failures("ood", "gate − energy", "over", ENERGY),
        failures("ood", "gate − force", "over", FORCE),
        failures(SIGMA, "force σ − energy", "over", ENERGY),
        failures(SIGMA, "force σ − force", "over", FORCE),
    ),
    "Telling 600 K from 300 K, whatever the error: AUROC": (
        failures("ood", "gate", "strangers"),
        failures(SIGMA, "force σ", "strangers"),
        failures("energy σ per atom", "energy σ", "strangers"),
        failures(ENERGY, "predicted energy", "strangers"),
        failures(FORCE, "predicted force", "strangers"),
    ),
}


def describe(every: Mapping[str, Named], kept: Path) -> str:
    """A page of tables: means over the runs of a method, their standard deviation in brackets."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, run in every.items():
        file = kept / f"{name}.json"
        if file.exists():
            entries = found.setdefault((run.data, run.method), [])
            entries.append(json.loads(file.read_text()))
    file = kept / "cost.json"
    cost = json.loads(file.read_text()) if file.exists() else None
    lines = ["# Error bars that were tried", "", *INTRODUCTION]
    lines += ["", "## Pass marks", "", *describe_marks(found, cost)]
    for title, columns in TABLES.items():
        lines += ["", f"## {title}", ""]
        lines += [f"| method | runs | {' | '.join(c.title for c in columns)} |"]
        lines += ["|" + "---|" * (len(columns) + 2)]
        for (data, method), entries in found.items():
            cells = [show(column, entries) for column in columns]
            if set(cells) != {"–"}:
                name = method if data == "3bpa" else f"{data}: {method}"
                lines.append(f"| {name} | {len(entries)} | {' | '.join(cells)} |")
    lines += ["", "## Cost of a prediction", "", *describe_cost(cost)]
    return "\n".join(lines) + "\n"


def describe_cost(cost: Entry | None) -> list[str]:
    """One compiled run of all; a sentence where it was not made."""
    if cost is None:
        return ["Not measured: `python benchmarks/uncertainty.py cost`."]
    plain = cost["milliseconds"]
    how = "compiled" if cost["compiled"] else "not compiled"
    lines = [
        f"One structure of {cost['atoms']} atoms, {how}, one thread, in turns, the shortest of 30;"
        f" over {cost['plain']} ({plain['energy']:.2f} ms for an energy, {plain['forces']:.2f} ms"
        " with forces). All rows have a gate, and `squared` has nothing else.",
        "",
        "| method | draws | energy and its σ | energy, forces and their σ | milliseconds |",
        "|---|---|---|---|---|",
    ]
    for name, row in cost["rows"].items():
        lines.append(
            f"| {name} | {row['draws']} | {row['over_plain_energy']:.2f} | {row['over_plain']:.2f}"
            f" | {row['milliseconds']['forces']:.2f} |"
        )
    return lines


def show(column: Column, entries: Sequence[Entry]) -> str:
    """Mean and standard deviation over runs; a dash where there is none.

    Where only some of the runs have it, since others were made before it was asked for, it says how
    many: it is not to be compared with means over all.
    """
    values = [value for entry in entries if (value := look(entry, column.path)) is not None]
    if not values:
        return "–"
    few = f" [{len(values)} of {len(entries)}]" if len(values) < len(entries) else ""
    mean = format(float(np.mean(values)), column.form)
    if len(values) == 1:
        return mean + few
    return f"{mean} ({format(float(np.std(values, ddof=1)), column.form)}){few}"


def look(entry: Entry, path: Sequence[str]) -> float | None:
    """The figure at the end of a path, the first of a list; None where there is none."""
    place: Any = entry
    for name in path:
        if not isinstance(place, Mapping) or name not in place:
            return None
        place = place[name]
    return place[0] if isinstance(place, list) else place


INTRODUCTION = [
    "Written by `python benchmarks/uncertainty.py table` from the JSON files beside this page,"
    " one for each run; configs: `config.yaml` and `methods.yaml`.",
    "",
    "3BPA unless another set is named. Of the training frames of a set one in ten is set aside"
    " for calibration (*held*) and one in ten to choose epochs (*valid*): of 3BPA 400 frames at"
    " 300 K are learned from, 50 choose, 50 calibrate, and 800 at 300 K (*test*) and 800 at 600"
    " K (*other*) are evenly spaced ones of the test files. SWAG and IVON choose no epoch: their"
    " weights are those of the end of training. What judges a trained potential (`histogram_c`,"
    " `judge_nll`) learns from four fifths of *valid* and chooses its epoch on the rest, so"
    " *held* calibrates only.",
    "",
    "Weights of losses and rates were set once, not searched for each method: squared errors"
    " weigh energies and forces 10 to 1, joint likelihoods 1 to 20, and all but IVON learn at"
    " one rate.",
    "",
    "Mean over runs, standard deviation over runs in brackets. Ensembles of 3BPA are five (or,"
    " where the name says so, three) of eight members, resampled, so their runs share members"
    " and their spread is too small.",
    "",
    "`laplace`, `shallow`, `histogram_c` and `judge_nll` are fitted to the potentials of"
    " `squared`. CPU seconds are those of the run itself, compilation included, of an ensemble"
    " the sum over its members; a dash where they were not counted. `squared_0` was trained again"
    " on another processor after `shallow_0` and the ensembles of `squared`, which hold the earlier"
    " one of the same seed (forces 32.6 where it is 32.7 meV/Å).",
    "",
    f"The recommended method that the marks judge is `{RECOMMENDED}`. Its intervals are those of a"
    " normal of the calibrated σ (*after*); conformal ones stand beside them. The form of the"
    " gate and its margin were once chosen on 3BPA at 300 and 600 K with another potential"
    " (docs/uncertainty.md), so its AUROC here is no independent test of it.",
    "",
    "Histograms A hold energies of 300 K. An expectation over bins can not leave them, so most"
    " energies at 600 K are out of their reach (*outside* below, beside the histograms of errors"
    " of `histogram_c`, whose last bins are open), and forces, its slopes, are off by eV/Å"
    " there: where the histogram is broad a small move shifts much of its mass. At 300 K the few"
    " frames whose energies lie near the last bins suffer from it, too: force RMSE far above the"
    " MAE.",
    "",
    "How far these marks reach. Conformal intervals aim at frames of new groups and with 50"
    " groups at 95 × (1 + 1/50) = 96.9 %, so they lie at the upper end of the mark by"
    " construction. The band of energies over blocks ends at 1: it finds error bars that are too"
    " small, not those that are too large, which NLL and CRPS tell. CRPS beside that of one σ"
    " for all says what error bars know beyond their mean: of energies, nothing. Of the gates of"
    " five ensembles three differ, since a gate reads the first member; and most failures in the"
    " mixture are of 600 K, so finding them is close to telling the temperatures. What judges a"
    " frozen potential (`histogram_c`, `judge_nll`) has seen 40 frames of 300 K: out of them its"
    " σ may say anything, and ranks failures worse than chance for some seeds. It needs the gate"
    " beside it.",
]
