"""The page of the experiments: tables from the JSON files, and what is still missing."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hat import saddles
from hat.peptides import ARCHITECTURES
from hat.scores import Barriers, by_donor, exponent
from hat.work import CONFIG, Setting, file_of, need

AGREEMENT = 0.3  # kcal/mol, of bands and saddle points
MARKS = {"mae": 1.13, "r2": 0.95, "regression": 1 / 3, "coverage": (0.85, 0.95)}


def write_page(file: Path, setting: Setting) -> None:
    """All tables for which there are figures."""
    parts = (_say_data, _say_architectures, _say_curves, _say_ensemble, _say_motion, _say_saddles,
             _say_dft, _say_collagen, _say_bh9)  # fmt: skip
    lines = ["# Hydrogen atom transfers in peptides", "", *INTRODUCTION]
    for part in parts:
        found = list(part(setting))
        if found:
            lines += ["", *found]
    file.write_text("\n".join(lines) + "\n")


def there(name: str, setting: Setting) -> dict[str, Any] | None:
    """The figures of a piece; None where it has not been run."""
    return need(name, setting) if file_of(name, setting).exists() else None


def show(found: list[float | None] | None, form: str = ".2f") -> str:
    """A value with its interval."""
    if found is None or found[0] is None:
        return "–"
    value, low, high = found
    if low is None or high is None:
        return f"{value:{form}}"
    return f"{value:{form}} ({low:{form}} … {high:{form}})"


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return head + [f"| {' | '.join(row)} |" for row in rows]


def _say_data(setting: Setting) -> Iterator[str]:
    found = there("structures", setting)
    if found is None:
        return
    yield "## What was learned from"
    yield ""
    low, high = found["atoms"]
    counts = ", ".join(f"{part} {count}" for part, count in found["frames"].items())
    yield f"Frames: {counts}; {low} to {high} atoms. Learned from {_names('learn')}; held are"
    yield f"{_names('held')}; unseen are {_names('unseen')}."
    rows = []
    for method in setting.methods:
        labels = there(f"labels_{method}", setting)
        if labels is not None:
            failed = sum(part["failed"] for part in labels["parts"].values())
            total = sum(part["frames"] for part in labels["parts"].values())
            rows.append([method, str(total), str(failed), f"{labels['cpu_s']:.0f}"])
    if rows:
        yield ""
        yield from table(["label", "frames", "failed", "CPU s"], rows)


def _names(part: str) -> str:
    return ", ".join(CONFIG["donors"][part])


def _mean(sums: dict[str, list[float]]) -> float:
    total = np.array(list(sums.values())).sum(0)
    return float(total[0] / total[1])


def _say_architectures(setting: Setting) -> Iterator[str]:
    size = max(setting.scale["sizes"])
    rows = []
    for method in setting.methods:
        for name in ARCHITECTURES:
            found = there(f"curve_{method}_{name}_{size}", setting)
            if found is None:
                continue
            unseen, seen = (Barriers(found["paths"][part]) for part in ("unseen", "seen"))
            rows.append([
                f"{name}, {method}", str(found["rate"]), str(found["epochs"]),
                str(found["parameters"]), f"{_mean(found['test']['energy']):.2f}",
                f"{_mean(found['test']['forces']):.0f}", f"{_mean(found['unseen']['forces']):.0f}",
                show(seen.mae()), show(unseen.mae()), show(unseen.r_squared(), ".3f"),
                f"{1000 * found['test']['cpu_s_per_frame']:.1f}",
            ])  # fmt: skip
    if not rows:
        return
    yield "## Three architectures at equal processor time"
    yield ""
    yield f"{size} configurations, {setting.scale['seconds']} s of CPU each. Errors are MAE."
    yield ""
    yield from table(
        ["", "rate", "epochs", "parameters", "energy, meV/atom", "forces, meV/Å",
         "forces of unseen scans", "barriers of known residues, kcal/mol", "of unseen ones", "R²",
         "CPU ms/frame"], rows,
    )  # fmt: skip
    method = next(m for m in setting.methods if there(f"curve_{m}_{ARCHITECTURES[0]}_{size}",
                  setting) or m == CONFIG["main"])  # fmt: skip
    first = there(f"curve_{method}_{ARCHITECTURES[0]}_{size}", setting)
    if first is not None:
        baseline = Barriers(first["paths"]["unseen"]).regression()
        yield ""
        yield (
            f"A line of the distance for each pair of elements, each residue from all others: "
            f"{show(baseline)} kcal/mol ({method})."
        )


def _say_curves(setting: Setting) -> Iterator[str]:
    sizes, rows = setting.scale["sizes"], []
    for method in setting.methods:
        for name in ARCHITECTURES:
            found = [there(f"curve_{method}_{name}_{size}", setting) for size in sizes]
            known = [one for one in found if one is not None]
            if len(known) < len(sizes):
                continue
            unseen = [Barriers(one["paths"]["unseen"]) for one in known]
            rows.append([
                f"{name}, {method}", *(f"{one.mae()[0]:.2f}" for one in unseen),
                show(exponent(sizes, [by_donor(one) for one in unseen])),
                show(exponent(sizes, [one["test"]["forces"] for one in known])),
                show(exponent(sizes, [one["test"]["energy"] for one in known])),
            ])  # fmt: skip
    if not rows:
        return
    yield "## Learning curves"
    yield ""
    yield "Barrier MAE on unseen scans, kcal/mol, by configurations; b of error ∝ sizeᵇ."
    yield ""
    yield from table(["", *map(str, sizes), "b, barriers", "b, forces", "b, energies"], rows)


def _say_ensemble(setting: Setting) -> Iterator[str]:
    found = there("ensemble", setting)
    if found is None:
        return
    unseen = Barriers(found["paths"]["unseen"])
    mae, line = unseen.mae(), unseen.regression()
    coverage, r2 = unseen.coverage(), unseen.r_squared()
    low, high = MARKS["coverage"]
    inside = coverage is not None and low <= coverage[0] <= high
    yield f"## The ensemble: {found['draws']} × {found['architecture']}, {found['method']}"
    yield ""
    yield from table(
        ["unseen scans", "value", "mark", "met"],
        [
            ["barrier MAE, kcal/mol", show(mae), f"≤ {MARKS['mae']}", _yes(mae[0] <= MARKS["mae"])],
            ["R²", show(r2, ".3f"), f"≥ {MARKS['r2']}", _yes(r2[0] >= MARKS["r2"])],
            ["MAE over that of the regression", f"{mae[0] / line[0]:.2f}", "≤ 1/3",
             _yes(mae[0] <= line[0] * MARKS["regression"])],
            [f"inside the {CONFIG['level']:.0%} interval", show(coverage), f"{low} to {high}",
             _yes(inside)],
        ],
    )  # fmt: skip


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def _say_motion(setting: Setting) -> Iterator[str]:
    md = there("md", setting)
    groups = [there(f"reactive_{group}", setting) for group in range(4)]
    if md is not None:
        bonds = md["bonds"]
        drift = [one for one in md["drift_mev_per_atom_ps"] if one is not None]
        yield "## Dynamics at 310 K"
        yield ""
        yield (
            f"{len(bonds)} starts of {md['picoseconds']:g} ps: {bonds.count('whole')} with all "
            f"bonds, {bonds.count('moved')} in which hydrogens have other partners, "
            f"{bonds.count('broken')} broken, {md['ended_early']} ended early."
        )
        if drift:
            yield (
                f"Drift at constant energy, meV/atom/ps: median {np.median(drift):.3f}, largest "
                f"{max(map(abs, drift)):.3f}."
            )
    if all(group is not None for group in groups):
        every = [one for group in groups if group for one in group["transfers"]]
        over = [one for one in every if one["transferred"]]
        survived = sum(one["survived"] for one in every)
        yield ""
        yield (
            f"Steered: {len(over)} of {len(every)} hydrogens are over when the spring is released, "
            f"{survived} of these never come back."
        )
    relabelled = there("relabelled", setting)
    if relabelled is not None:
        forces = relabelled["accuracy"]["forces"]
        covered = relabelled["coverage"].get("forces", {}).get("after", {})
        yield ""
        yield (
            f"{relabelled['frames']} of their frames labelled: force MAE {forces['mae']:.0f} "
            f"{forces['unit']}; labels inside: "
            + ", ".join(f"{name[9:]} % interval {show(row)}" for name, row in covered.items())
            + "."
        )


def _say_saddles(setting: Setting) -> Iterator[str]:
    groups = [there(name, setting) for name, _ in saddles.list_pieces(setting)]
    records = [one for group in groups if group is not None for one in group["records"]]
    forward = [one for one in records if one["direction"] == "forward"]
    if not forward:
        return
    found = [one for one in forward if one["status"] == "saddle"]
    apart = np.abs(saddles.differences(records))
    yield "## Saddle points"
    yield ""
    yield (
        f"{len(found)} of {len(forward)} unseen transfers have a saddle point of their own on the "
        f"ensemble. {(apart <= AGREEMENT).sum()} of {len(apart)} bands over them are within "
        f"{AGREEMENT} kcal/mol of it"
        + (f"; the farthest is {apart.max():.2f} off." if len(apart) else ".")
    )
    why = Counter(
        re.split(r"[,:;]|\.$", one["reason"].removeprefix("no HAT saddle: "))[0]
        for one in forward
        if one["reason"]
    )
    if why:
        yield ""
        yield "Without one: " + "; ".join(f"{n} × {text}" for text, n in why.most_common()) + "."


def _say_dft(setting: Setting) -> Iterator[str]:
    rows = []
    for way in CONFIG["ways"]:
        folds = [there(f"dft_{way}_{fold}", setting) for fold in range(len(CONFIG["folds"]))]
        known = [row for fold in folds if fold is not None for row in fold["rows"]]
        if known:
            found = Barriers(known)
            rows.append([
                way.replace("_", " "), str(sum(fold is not None for fold in folds)),
                str(len(known)), show(found.mae()), show(found.r_squared(), ".3f"),
                show(found.coverage()),
            ])  # fmt: skip
    if rows:
        yield "## DFT"
        yield ""
        yield "Scans of donors that no DFT frame was learned from; barriers in kcal/mol."
        yield ""
        yield from table(["", "folds", "scans", "MAE", "R²", "in the interval"], rows)


def _say_collagen(setting: Setting) -> Iterator[str]:
    found = there("collagen_scans", setting)
    if found is None:
        return
    yield "## Collagen"
    yield ""
    rows = []
    for site in found["sites"]:
        heights = [one["predicted_kcal"] for one in site["scans"]]
        wide = [one["high_kcal"] - one["low_kcal"] for one in site["scans"]]
        far = [one["ood"] for one in site["scans"] if one["ood"] != ""]
        rows.append([
            site["radical"], f"{site['atoms'][0]} – {site['atoms'][1]}", str(len(heights)),
            f"{np.median(heights):.1f}", f"{np.median(wide):.1f}",
            f"{np.median(far):.2f}" if far else "–", str(len(site["labelled"])), show(site["mae"]),
        ])  # fmt: skip
    yield from table(
        ["radical", "atoms", "scans", "median barrier, kcal/mol", "median width of the interval",
         "median ood", "labelled", "MAE of these"], rows,
    )  # fmt: skip
    yield ""
    yield "Recipes: `collagen_recipes_*.csv`."


def _say_bh9(setting: Setting) -> Iterator[str]:
    from hat.bh9 import METHODS

    every = {method: there(f"bh9_{method}", setting) for method in METHODS}
    potentials = there("bh9_potentials", setting)
    every |= potentials["potentials"] if potentials is not None else {}
    rows = [
        [name, f"{one['judged']} of {one['reactions']}", _number(one["mae"]), _number(one["mean"]),
         str(one["negative"]), "; ".join(f"{why}: {n}" for why, n in one["without"].items())]
        for name, one in every.items() if one is not None
    ]  # fmt: skip
    if rows:
        yield "## Hydrogen transfers of BH9, against coupled cluster"
        yield ""
        yield "kcal/mol; the public share of class 4."
        yield ""
        yield from table(["", "barriers", "MAE", "mean error", "below 0", "none, because"], rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


INTRODUCTION = [
    "Written by `python benchmarks/hat.py table` from the JSON files in `figures/`; config:"
    " `config.yaml`. Intervals are of 95 %, molecules drawn again. Labels of tight binding are no"
    " true barriers: they compare potentials with their own label.",
]
