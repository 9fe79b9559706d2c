"""The report of `compare`: accuracy, error bars and cost of potentials beside each other."""

from __future__ import annotations

from typing import Any

from surefoot.evaluate.figures import show
from surefoot.report.meanings import explain
from surefoot.report.page import document, heading, paragraph, plots, table
from surefoot.report.svg import Axis, Line, colour, plot


def summary_rows(report: dict[str, Any], part: str) -> list[dict[str, str]]:
    """Errors, error bars and cost of each potential on one set of structures."""
    rows = []
    for name, found in report["potentials"].items():
        if part not in found:
            continue
        row = {"potential": name}
        for quantity, held in found[part]["accuracy"].items():
            label = f"{quantity} RMSE ({held['unit']})"
            row[label] = f"{held['all']['rmse']:.2f}"
            row |= _bar_cells(quantity, found[part]["uncertainty"].get(quantity))
        if part == "test":
            row |= _directness_cells(found.get("direct_forces")) | _cost_cells(found)
        rows.append(row)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column, "–") for column in columns} for row in rows]


def _bar_cells(quantity: str, held: dict[str, Any] | None) -> dict[str, str]:
    if held is None or quantity == "stress":
        return {}
    before, after = held["before"]["coverage_95"][0], held["after"]["coverage_95"][0]
    cells = {f"{quantity} 95 % before → after": f"{before:.3f} → {after:.3f}"}
    conformal = held["recalibrated"].get("conformal")
    if conformal is not None:
        value = conformal["coverage_95"][0]
        cells[f"{quantity} 95 % conformal"] = "–" if value is None else f"{value:.3f}"
    ranked = held["after"]["ause"][0]
    return {
        **cells,
        f"{quantity} CRPS": f"{held['after']['crps'][0]:.2f}",
        f"{quantity} AUSE": "–" if ranked is None else f"{ranked:.2f}",
    }


def _directness_cells(held: dict[str, Any] | None) -> dict[str, str]:
    """What forces lack that are no gradient."""
    if held is None:
        return {}
    cells = {
        "forces, rotation error": held["rotation_error"],
        "forces, asymmetry of dF/dx": held["jacobian_asymmetry"],
    }
    return {name: "–" if value is None else f"{value:.2g}" for name, value in cells.items()}


def _cost_cells(found: dict[str, Any]) -> dict[str, str]:
    cells = {}
    if "cost" in found:
        cells["cost / plain"] = f"{found['cost']['over_plain']:.2f}"
    training = found["training"]
    if training is not None and training["seconds"] is not None:
        cells["training (min)"] = f"{training['seconds'] / 60:.1f}"
        if "over_plain" in training:
            cells[f"training / {training['plain']}"] = f"{training['over_plain']:.2f}"
    return cells


def failure_rows(report: dict[str, Any]) -> list[dict[str, str]]:
    """Which score finds failures, one row per potential and score."""
    return [
        {
            "potential": name,
            "score": score,
            "failures": show(held["failures"]),
            "other structures": show(held["strangers"]),
        }
        for name, found in report["potentials"].items()
        for score, held in found.get("failures", {}).get("auroc", {}).items()
    ]


def score_rows(report: dict[str, Any], part: str, quantity: str) -> list[dict[str, str]]:
    """All scores of one quantity, before and after, one column per potential."""
    rows: dict[str, dict[str, str]] = {}
    for name, found in report["potentials"].items():
        held = found.get(part, {}).get("uncertainty", {}).get(quantity)
        if held is None:
            continue
        columns = {"before": held["before"], "after": held["after"], **held["recalibrated"]}
        for column, scores in columns.items():
            for score, value in scores.items():
                row = rows.setdefault(score, {"score": score.replace("_", " ")})
                row[f"{name}: {column}"] = show(value)
    names = list(dict.fromkeys(column for row in rows.values() for column in row))
    return [{column: row.get(column, "–") for column in names} for row in rows.values()]


def make_page(report: dict[str, Any]) -> str:
    """The whole page as HTML."""
    frames, files = report["frames"], report["files"]
    body = [heading(f"{len(report['potentials'])} potentials compared", 1)]
    body.append(paragraph(f"{frames['test']} test structures from {', '.join(files['test'])}."))
    if frames["ood"]:
        body.append(paragraph(f"{frames['ood']} other structures from {', '.join(files['ood'])}."))
    body.append(table(summary_rows(report, "test")))
    body.append(paragraph(_say_cost(report["cost"])))
    for name, found in report["potentials"].items():
        body.append(paragraph(_say_potential(name, found)))
    body += _parts(report, "test", "Test structures")
    if frames["ood"]:
        body += [heading("Other structures"), table(summary_rows(report, "ood"))]
        body += _failures(report)
        body += _parts(report, "ood", "Error bars of the other structures")
    return document("surefoot compare", body)


def _say_cost(cost: dict[str, Any]) -> str:
    form = "compiled" if cost["compiled"] else "not compiled"
    return (
        f"Cost: one evaluation of {cost['atoms']} atoms with forces and error bars, over that of "
        f"the plain model ({cost['plain']}), on one thread and {form}: "
        f"{cost['milliseconds']['forces']:.2f} ms here."
    )


def _say_potential(name: str, found: dict[str, Any]) -> str:
    gate = "none" if found["gate"] is None else found["gate"]
    return (
        f"{name}: {found['file']}; {found['draws']} draws; error bars from {found['calibration']}; "
        f"ood: {gate}."
    )


def _parts(report: dict[str, Any], part: str, title: str) -> list[str]:
    found = [heading(title)]
    for quantity in ("energy", "forces", "stress"):
        curves = {
            name: held[part]["uncertainty"][quantity]
            for name, held in report["potentials"].items()
            if quantity in held.get(part, {}).get("uncertainty", {})
        }
        if curves:
            found.append(heading(quantity.capitalize(), 3))
            found.append(plots(draw_error_bars(quantity, curves)))
            found.append(table(score_rows(report, part, quantity)))
    return found + explain() if len(found) > 1 else found


def draw_error_bars(quantity: str, held: dict[str, dict[str, Any]]) -> list[str]:
    """Coverage, error against σ, sparsification and PIT, in this order.

    Args:
        quantity: its name.
        held: by potential, what `describe_error_bars` says.
    """
    unit = next(iter(held.values()))["unit"]
    share = Axis(label="nominal coverage", limits=(0.0, 1.0))
    covered, errors, sparse, pit = [_diagonal([0.0, 1.0])], [], [], []
    ends: list[float] = []
    for number, (name, one) in enumerate(held.items()):
        curves, tint = one["curves"], colour(number)
        levels = [0.0, *curves["calibration"]["levels"], 1.0]
        for when in ("before", "after"):
            y = [0.0, *curves["calibration"][when], 1.0]
            dashed = when == "before"
            covered.append(
                Line(name="" if dashed else name, x=levels, y=y, colour=tint, dashed=dashed)
            )
        bins = curves["reliability"]
        ends += [value for value in bins["std"] + bins["rmse"] if value > 0]
        errors.append(Line(name=name, x=bins["std"], y=bins["rmse"], colour=tint, points=True))
        sparse += _sparse_lines(name, curves["sparsification"], tint)
        pit += _pit_lines(name, curves["pit"], tint)
    errors.insert(0, _diagonal([min(ends, default=1.0), max(ends, default=1.0)]))
    return [
        plot(
            f"Coverage of {quantity}",
            share,
            Axis(label="observed coverage", limits=(0.0, 1.0)),
            covered,
        ),
        plot(
            f"Error against σ of {quantity}",
            Axis(label=f"σ ({unit})", logarithmic=True),
            Axis(label=f"RMSE ({unit})", logarithmic=True),
            errors,
        ),
        plot(
            f"Sparsification of {quantity}",
            Axis(label="share kept", limits=(0.0, 1.0)),
            Axis(label="RMSE of the kept / RMSE of all"),
            sparse,
        ),
        plot(
            f"PIT of {quantity}",
            Axis(label="level of the label", limits=(0.0, 1.0)),
            Axis(label="density"),
            [_level(), *pit],
        ),
    ]


def _diagonal(ends: list[float]) -> Line:
    return Line(name="", x=ends, y=ends, colour="#999")


def _level() -> Line:
    return Line(name="", x=[0.0, 1.0], y=[1.0, 1.0], colour="#999")


def _sparse_lines(name: str, curve: dict[str, Any], tint: str) -> list[Line]:
    scale = curve["by_std"][-1] or 1.0
    rows = {"by_std": (name, False), "oracle": ("", True)}
    return [
        Line(
            name=label,
            x=curve["kept"],
            y=[value / scale for value in curve[row]],
            colour=tint,
            dashed=dashed,
        )
        for row, (label, dashed) in rows.items()
    ]


def _pit_lines(name: str, pit: dict[str, Any], tint: str) -> list[Line]:
    count = len(pit["density"])
    edges = [place / count for number in range(count) for place in (number, number + 1)]
    found = []
    for row in ("density", "low", "high"):
        values = [value for value in pit[row] for _ in range(2)]
        label, dashed = (name, False) if row == "density" else ("", True)
        found.append(Line(name=label, x=edges, y=values, colour=tint, dashed=dashed))
    return found


def _failures(report: dict[str, Any]) -> list[str]:
    rows = failure_rows(report)
    if not rows:
        return []
    first = next(f["failures"] for f in report["potentials"].values() if "failures" in f)
    told = (
        "AUROC for structures whose error is above the 95th percentile of the test structures, in "
        f"a 1:1 mixture of {first['inside']} and {first['outside']}; beside it, for which "
        "structures are not test structures. Ranking by predicted energy or force needs no error "
        "bar: a score that does no better says nothing."
    )
    return [heading("Finding failures", 3), paragraph(told), table(rows)]
