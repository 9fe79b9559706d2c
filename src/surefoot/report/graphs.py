"""The plots of an assessment, each with the numbers in it as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from surefoot.evaluate.quantities import Quantity
from surefoot.report.comparison import draw_error_bars
from surefoot.report.page import figure
from surefoot.report.structures import STOPS
from surefoot.report.svg import Axis, Line, colour, plot

MOST_POINTS = 1500  # of a plot of points; the largest errors are always among them
LARGEST = 100
BINS = 40
MANY_KINDS = 6  # config_types with a colour of their own
GREY = "#999"


def choose(errors: Float[np.ndarray, " points"]) -> Int[np.ndarray, " chosen"]:
    """Numbers of the points that are drawn: evenly spread ones and those of the largest errors."""
    count = len(errors)
    if count <= MOST_POINTS:
        return np.arange(count)
    even = np.linspace(0, count - 1, MOST_POINTS - LARGEST).astype(int)
    return np.union1d(even, np.argsort(np.abs(errors))[-LARGEST:])


def draw_parity(
    part: str,
    name: str,
    unit: str,
    label: Float[np.ndarray, " points"],
    predicted: Float[np.ndarray, " points"],
    types: Shaped[np.ndarray, " points"],
) -> str:
    """Predictions against labels.

    Args:
        part: name of the set, of which its file is called.
        name: of the quantity, with what is subtracted from it.
        unit: of both.
        label: what is in the file.
        predicted: the means.
        types: config_type of each point.
    """
    shown = choose(predicted - label)
    x, y, kinds = label[shown], predicted[shown], types[shown]
    ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
    lines = [Line(name="", x=ends, y=ends, colour=GREY)]
    names = np.unique(types).tolist()
    if not 1 < len(names) <= MANY_KINDS:
        names = [""]
    for number, kind in enumerate(names):
        held = kinds == kind if kind else np.ones(len(x), bool)
        lines.append(_points(str(kind), x[held], y[held], colour(number)))
    drawn = plot(
        f"Parity of {name}", Axis(label=f"label ({unit})"), Axis(label=f"predicted ({unit})"), lines
    )
    columns = {"config_type": kinds.tolist(), f"label ({unit})": x, f"predicted ({unit})": y}
    return figure(drawn, f"{part}_parity_{_file(name)}.csv", columns)


def draw_scatter(part: str, quantity: Quantity) -> str | None:
    """|Error| of each point against its σ, with the lines at σ and at 2σ."""
    if quantity.std is None or not quantity.scorable.any():
        return None
    usable = quantity.scorable
    errors, std = np.abs(quantity.residuals[usable]), quantity.std[usable]
    shown = choose(errors)
    std, errors = std[shown], errors[shown]
    ends = [float(std.min()), float(std.max())]
    lines = [_points("", std, errors, colour(0))]
    for number, told in ((1, "σ"), (2, "2σ")):
        high = [number * end for end in ends]
        lines.append(Line(name=told, x=ends, y=high, colour=colour(1), dashed=number == 2))
    drawn = plot(
        f"|Error| against σ of {quantity.name}, point by point",
        Axis(label=f"σ ({quantity.unit})", logarithmic=True),
        Axis(label=f"|error| ({quantity.unit})", logarithmic=True),
        lines,
    )
    columns = {f"σ ({quantity.unit})": std, f"|error| ({quantity.unit})": errors}
    return figure(drawn, f"{part}_errors_{quantity.name}.csv", columns)


def draw_sharpness(part: str, quantity: Quantity) -> str | None:
    """How σ and |error| are distributed: sharp error bars are small and differ."""
    if quantity.std is None or not quantity.scorable.any():
        return None
    usable = quantity.scorable
    sizes = {"σ": quantity.std[usable], "|error|": np.abs(quantity.residuals[usable])}
    positive = np.concatenate([values[values > 0] for values in sizes.values()])
    low, high = np.quantile(positive, 0.001), positive.max()
    edges = np.geomspace(low, max(high, low * 1.01), BINS + 1)
    columns: dict[str, Any] = {f"from ({quantity.unit})": edges[:-1], "to": edges[1:]}
    lines = []
    for number, (name, values) in enumerate(sizes.items()):
        share = np.histogram(values, edges)[0] / max(1, len(values))
        columns[f"share of {name}"] = share
        x, y = np.repeat(edges, 2)[1:-1], np.repeat(share, 2)
        lines.append(Line(name=name, x=x.tolist(), y=y.tolist(), colour=colour(number)))
    drawn = plot(
        f"Sharpness of {quantity.name}",
        Axis(label=f"σ, |error| ({quantity.unit})", logarithmic=True),
        Axis(label="share of points in a bin"),
        lines,
    )
    return figure(drawn, f"{part}_sharpness_{quantity.name}.csv", columns)


def draw_calibration(part: str, name: str, found: Mapping[str, Any]) -> list[str]:
    """Coverage, error against σ, sparsification and PIT of one potential.

    Args:
        part: name of the set.
        name: of the quantity.
        found: what `describe_error_bars` says of it.
    """
    curves, unit = found["curves"], found["unit"]
    covered, bins = curves["calibration"], curves["reliability"]
    pit = curves["pit"]
    columns: list[tuple[str, dict[str, Sequence[Any]]]] = [
        ("coverage", {
            "nominal": covered["levels"], "before": covered["before"], "after": covered["after"],
        }),
        ("reliability", {f"σ ({unit})": bins["std"], f"RMSE ({unit})": bins["rmse"]}),
        ("sparsification", {f"{key}": value for key, value in curves["sparsification"].items()}),
        ("pit", {"density": pit["density"], "low": pit["low"], "high": pit["high"]}),
    ]  # fmt: skip
    drawn = draw_error_bars(name, {"after calibration": dict(found)})
    return [
        figure(one, f"{part}_{kind}_{name}.csv", held)
        for one, (kind, held) in zip(drawn, columns, strict=True)
    ]


def draw_learning(log: Sequence[Mapping[str, float | None]]) -> list[str]:
    """Losses and validation errors by epoch.

    Args:
        log: rows of `log.csv`; None where nothing was measured.
    """
    epochs = [row.get("epoch") for row in log]
    names = list(dict.fromkeys(n for row in log for n in row))
    held = {name: [row.get(name) for row in log] for name in names}
    units = {"valid_energy_mae": "meV/atom", "valid_forces_mae": "meV/Å"}
    drawn = []
    losses = [n for n in names if n.startswith(("train_", "valid_")) and not n.endswith("_mae")]
    groups = [("Loss", losses, "loss", 1.0)]
    groups += [(name.replace("_", " "), [name], unit, 1000.0) for name, unit in units.items()]
    for title, chosen, unit, factor in groups:
        values = {
            name: [None if v is None else factor * v for v in held[name]]
            for name in chosen
            if name in held and any(v is not None for v in held[name])
        }
        if not values:
            continue
        seen = [v for column in values.values() for v in column if v is not None]
        lines = [
            Line(
                name=name.replace("_", " "),
                x=[e for e, v in zip(epochs, column, strict=True) if v is not None],
                y=[v for v in column if v is not None],
                colour=colour(number),
                points=len(seen) < MOST_POINTS and name.startswith("valid"),
            )
            for number, (name, column) in enumerate(values.items())
        ]
        axis = Axis(label=unit, logarithmic=min(seen) > 0)
        picture = plot(title.capitalize().replace(" mae", " MAE"), Axis(label="epoch"), axis, lines)
        drawn.append(figure(picture, f"learning_{_file(title)}.csv", {"epoch": epochs, **values}))
    return drawn


def project(rows: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows 2"]:
    """The two directions of largest variance (principal components), zero where there are none."""
    centred = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of an axis is a convention; a fixed one gives the same map every time.
    axes = (
        axes[:2] * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])[:, None]
    )
    flat = centred @ axes.T
    places = np.zeros((len(rows), 2))
    places[:, : flat.shape[1]] = flat
    return places


def draw_maps(
    places: Float[np.ndarray, "rows 2"],
    sets: Shaped[np.ndarray, " rows"],
    scores: Float[np.ndarray, " rows"],
    told: str,
) -> list[str]:
    """Structures by likeness: coloured by uncertainty, and by the set that they are of.

    Args:
        places: as `project` gives them.
        sets: name of each structure's set.
        scores: its uncertainty, NaN where it has none, as training structures.
        told: what the score is, with its unit.
    """
    x, y = places.T
    columns = {"set": sets.tolist(), "axis 1": x, "axis 2": y, told: scores}
    names = dict.fromkeys(sets.tolist())
    by_set = [
        _points(name, x[sets == name], y[sets == name], GREY if name == "train" else colour(n))
        for n, name in enumerate(names)
    ]
    first, second = Axis(label="first principal axis"), Axis(label="second principal axis")
    drawn = [figure(plot("Structures by set", first, second, by_set), "map.csv", columns)]
    known = np.isfinite(scores)
    if known.any():
        edges = np.quantile(scores[known], np.linspace(0, 1, len(STOPS) + 1))
        kind = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, len(STOPS) - 1)
        lines = [_points("", x[~known], y[~known], GREY)]
        for number, tint in enumerate(STOPS):
            held = known & (kind == number)
            span = f"{edges[number]:.3g} – {edges[number + 1]:.3g}"
            lines.append(_points(span, x[held], y[held], tint))
        drawn.insert(0, figure(plot(f"By {told}", first, second, lines), "map.csv", columns))
    return drawn


def _points(name: str, x: np.ndarray, y: np.ndarray, tint: str) -> Line:
    return Line(name=name, x=x.tolist(), y=y.tolist(), colour=tint, points=True, joined=False)


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower()).strip("_")
