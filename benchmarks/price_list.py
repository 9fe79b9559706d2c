"""What each kind of error bar costs, in training and in prediction: writes docs/prices.md.

Usage: python benchmarks/price_list.py

Figures come from the JSON files of other benchmarks; what none of them has measured is said to be
unmeasured. Run it again when those files change.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "prices.md"
RUNS, SPEED = HERE / "uncertainty", HERE / "results" / "speed.json"
STACK = HERE / "results" / "ensemble_speed.json"
PLAIN = "squared"
UNNOTED = "one that was not noted"

Entry = Mapping[str, Any]


def main() -> None:
    PAGE.write_text(write_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")


def write_page(page: str) -> str:
    """The page with new figures between its marks; the sentences around them are its own."""
    for name, lines in (("prediction", of_prediction()), ("training", of_training())):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{PAGE}: the marks {begin.strip()} and {end} are missing.")
        text = "\n".join(lines).strip()
        page = f"{before}{begin}\n{text}\n\n{end}{after}"
    return page


def of_prediction() -> list[str]:
    """Ratios of times, each measured in one run."""
    lines = [*of_members(), *of_heads(), ""]
    file = RUNS / "cost.json"
    if not file.exists():
        lines += [
            "*Not yet measured side by side*: Laplace, shallow ensemble, SWAG, IVON and histograms"
            " of errors (`python benchmarks/uncertainty.py cost`).",
            "",
        ]
        return lines
    cost = json.loads(file.read_text())
    plain, how = cost["milliseconds"], "compiled" if cost["compiled"] else "not compiled"
    lines += [
        f"Kinds side by side, one structure of {cost['atoms']} atoms, {how}, one thread, over"
        f" {cost['plain']} ({plain['forces']:.2f} ms with forces). The shortest of 30 times counts,"
        " taken in turns; rows that should be alike (both energies of `laplace`, forces of"
        " `squared` and of one draw of `laplace`) say how far the machine's other work, a load of"
        f" {cost['load']:.1f}, can be felt. Left out: {unmeasured(cost['rows'])}.",
        "",
        "| kind | draws | energy and its σ | energy, forces and their σ |",
        "|---|---|---|---|",
    ]
    for name, row in cost["rows"].items():
        ratios = f"{row['over_plain_energy']:.2f} | {row['over_plain']:.2f}"
        lines.append(f"| {name} | {row['draws']} | {ratios} |")
    return [*lines, ""]


def unmeasured(rows: Mapping[str, Any]) -> str:
    """Methods without a row of their own."""
    methods: dict[str, Any] = yaml.safe_load((RUNS / "methods.yaml").read_text())
    timed = {name.partition(",")[0] for name in rows}
    return ", ".join(f"`{name}`" for name in methods if name not in timed)


def of_members() -> list[str]:
    """Five members of a MACE beside one, and stacks beside loops."""
    rows = json.loads(SPEED.read_text())["rows"]
    lines = [
        "Five members of MACE 64x0e+64x1o beside one, energies, forces and error bars, compiled,"
        " float32, one thread (`benchmarks/results/speed.json`). The two were timed in different"
        " runs, while the machine did other work, so the ratios are rough:",
        "",
        "| atoms | one set of weights, ms | five members, ms | ratio |",
        "|---|---|---|---|",
    ]
    for atoms in (27, 192, 1029):
        one, five = (
            rows[f"mace64/{work}/{atoms}/float32/1"]["programs"]["ours compiled"]["wall_ms"][0]
            for work in ("forces", "members")
        )
        lines.append(f"| {atoms} | {one:.3g} | {five:.4g} | {five / one:.1f} |")
    stack = json.loads(STACK.read_text())
    told = ", ".join(
        f"{stack[name]['train_ratio']:.2f} in training and {stack[name]['predict_ratio']:.2f} in"
        f" prediction ({name})"
        for name in ("float32", "float64")
    )
    lines += [
        "",
        f"A stack of {stack['members']} members against a loop over them, not compiled, speed-up:"
        f" {told} (`benchmarks/results/ensemble_speed.json`).",
        "",
    ]
    return lines


def of_heads() -> list[str]:
    """What single sets of weights cost beside the plain model, where their runs say so."""
    kinds = {PLAIN: "scalar head with `ood`", "joint_nll": "mean-variance head with `ood`"}
    rows = []
    for method, told in kinds.items():
        held = [run["figures"]["cost"] for run in runs_of(method) if "cost" in run["figures"]]
        if held:
            energy = [one["over_plain_energy"] for one in held]
            forces = [one["over_plain"] for one in held]
            rows.append(f"| {told} | {len(held)} | {spread(energy)} | {spread(forces)} |")
    if not rows:
        return []
    return [
        "One set of weights of a small MACE on 3BPA over the same with a scalar head and no `ood`,"
        " not compiled, median over runs and range, on a machine that did other work"
        " (`benchmarks/uncertainty/*.json`):",
        "",
        "| head | runs | energy and its σ | energy, forces and their σ |",
        "|---|---|---|---|",
        *rows,
    ]


def of_training() -> list[str]:
    """Processor times, of the processor on which the plain model was trained."""
    methods: dict[str, Any] = yaml.safe_load((RUNS / "methods.yaml").read_text())
    machine = next(map(processor_of, runs_of(PLAIN)), UNNOTED)
    plain = mean_spent([run for run in runs_of(PLAIN) if processor_of(run) == machine])
    lines = [
        "The small MACE of `benchmarks/uncertainty/config.yaml` on 400 frames of 3BPA, 120 epochs,"
        f" compiled, one thread: processor time on {machine}, mean of the runs that counted it"
        " there (so many of all), of an ensemble the sum over its members; the machine did other"
        " work beside, and single runs differ by a factor of up to 1.7. What is fitted to a trained"
        " potential takes its time beside the training that it begins from. Errors and error bars"
        " of all of them: [benchmarks/uncertainty](../benchmarks/uncertainty/README.md).",
        "",
        f"| method | runs | begins from | processor time, s | over `{PLAIN}` |",
        "|---|---|---|---|---|",
    ]
    missing, others = [], []
    for method, entry in methods.items():
        held = runs_of(method)
        if not held:
            missing.append(f"`{method}`")
            continue
        base = f"`{entry['base']}`" if "base" in entry else "–"
        there = [run for run in held if processor_of(run) == machine]
        spent = mean_spent(there)
        told = "–" if spent is None else f"{spent:.0f}"
        over = "–" if spent is None or plain is None or "base" in entry else f"{spent / plain:.2f}"
        counted = sum(run.get("cpu_seconds") is not None for run in there)
        lines.append(f"| `{method}` | {counted} of {len(held)} | {base} | {told} | {over} |")
        for name in sorted(set(map(processor_of, held)) - {machine}):
            other = mean_spent([run for run in held if processor_of(run) == name])
            others += [] if other is None else [f"`{method}` {other:.0f} s on {name}"]
    if others:
        lines += ["", f"*Processor time of runs on another processor*: {', '.join(others)}."]
    if missing:
        lines += ["", f"*Not yet run*: {', '.join(missing)}."]
    return [*lines, ""]


def processor_of(run: Entry) -> str:
    return run.get("processor") or UNNOTED


def mean_spent(runs: Sequence[Entry]) -> float | None:
    """Mean processor seconds of those that say them; None where none does."""
    spent = [run["cpu_seconds"] for run in runs if run.get("cpu_seconds") is not None]
    return float(np.mean(spent)) if spent else None


def runs_of(method: str) -> list[Entry]:
    """The runs of a method on 3BPA."""
    files = (file for file in sorted(RUNS.glob(f"{method}_*.json")))
    held = (json.loads(file.read_text()) for file in files)
    return [run for run in held if run["method"] == method and run["data"] == "3bpa"]


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
