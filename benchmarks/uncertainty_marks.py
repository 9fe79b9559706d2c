"""The pass marks of benchmarks/uncertainty.py, each computed from the JSON of the runs."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import betabinom

RECOMMENDED = "joint_nll_three"
"""The method that the marks of error bars judge: what a user should pick."""

Entries = Sequence[Mapping[str, Any]]
Found = Mapping[tuple[str, str], Entries]

PLAIN = {"energy": "predicted energy per atom", "force": "predicted rms force"}
SCORES = {"gate": "ood", "force σ": "force σ, rms of atoms"}


def describe_marks(found: Found, cost: Mapping[str, Any] | None) -> list[str]:
    """A table: what was asked, what was seen, and whether that is met.

    Args:
        found: JSON of the runs, by set and method.
        cost: of `uncertainty.py cost`; None where it was not made.
    """
    lines = ["| mark | seen | |", "|---|---|---|"]
    for asked, seen, met in list_marks(found, cost):
        verdict = "not measured" if met is None else "met" if met else "**not met**"
        lines.append(f"| {asked} | {seen} | {verdict} |")
    return lines


Mark = tuple[str, str, bool | None]


def list_marks(found: Found, cost: Mapping[str, Any] | None) -> Iterator[Mark]:
    sets = list(dict.fromkeys(data for data, _ in found))
    for data in sets:
        yield from judge_forces(data, found.get((data, RECOMMENDED), ()))
    for data in sets:
        yield from judge_energies(data, found.get((data, RECOMMENDED), ()))
    yield from judge_detection(found.get(("3bpa", RECOMMENDED), ()))
    yield judge_accuracy(found)
    for method in ("histogram_c", "judge_nll"):
        yield judge_sameness(method, found)
    for bins in (32, 64, 128, 256):
        yield judge_histogram(bins, found)
    rows = {} if cost is None else cost["rows"]
    for asked, row, figure, limit in (
        ("last-layer energy σ", "laplace, 1 draw", "over_plain_energy", 1.1),
        (f"force σ of `{RECOMMENDED}`", RECOMMENDED, "over_plain", 2.5),
    ):
        value = rows.get(row, {}).get(figure)
        seen = "–" if value is None else f"{value:.2f}"
        met = None if value is None else value <= limit
        yield f"{asked} costs at most {limit} × the plain compiled model", seen, met


def take(entries: Entries, *path: str) -> list[Any]:
    """What stands at a path, of the runs that have it."""
    found = []
    for entry in entries:
        place: Any = entry["figures"]
        for name in path:
            place = place.get(name) if isinstance(place, Mapping) else None
        if place is not None:
            found.append(place)
    return found


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """The mean and, of several, the range."""
    if not values:
        return "–"
    mean = format(float(np.mean(values)), form)
    if len(values) == 1:
        return mean
    return f"{mean} ({format(min(values), form)} to {format(max(values), form)})"


def judge_all(values: Sequence[float], holds: Callable[[float], bool]) -> bool | None:
    return all(map(holds, values)) if values else None


def cover(held: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Shares within the 95 % interval of a normal and, where there is one, of conformal scores."""
    values = [one["after"]["coverage_95"][0] for one in held]
    others = [one["recalibrated"].get("conformal") for one in held]
    return values, [one["coverage_95"][0] for one in others if one is not None]


def judge_forces(data: str, entries: Entries) -> Iterator[Mark]:
    """All runs have to lie within, by the calibrated σ and by what `predict` gives."""
    both = cover(take(entries, "test", "uncertainty", "forces"))
    for told, values in zip(("95 % interval of a normal", "conformal interval"), both, strict=True):
        yield (
            f"{data}: the {told} holds 93 to 97 % of force components",
            spread(values),
            judge_all(values, lambda value: 0.93 <= value <= 0.97),
        )


def judge_energies(data: str, entries: Entries) -> Iterator[Mark]:
    """Once with frames taken for independent, once with blocks."""
    held = take(entries, "test", "uncertainty", "energy")
    values, other = cover(held)
    count = count_calibration(take(entries, "calibration")[0]) if held else None
    for told, key in (("frames independent", "points"), ("blocks", "groups")):
        if count is None:
            yield f"{data}: 95 % of energies, {told}", "–", None
            continue
        tested = held[0][key]
        low, high = band(count, tested)
        yield (
            f"{data}: 95 % interval of energies within the exact band, {told}",
            f"{spread(values)}; band {low:.3f} to {high:.3f} for {count} calibration frames and "
            f"{tested} {'frames' if key == 'points' else 'blocks'}; conformal {spread(other)}",
            judge_all(values, lambda value, low=low, high=high: low <= value <= high),
        )


def count_calibration(source: str) -> int | None:
    """Independent calibration points: groups where they are stated, else frames."""
    match = re.match(r"(\d+) frames(?: in (\d+) groups)?", source)
    return None if match is None else int(match[2] or match[1])


def band(calibrated: int, tested: int, level: float = 0.95) -> tuple[float, float]:
    """Central 95 % of the share covered of `tested` points by a split-conformal interval.

    With n calibration points and k = ⌈(n + 1) level⌉ the number covered is beta-binomial with
    parameters k and n + 1 − k, whatever the errors are. For the interval of a normal it is the
    scatter that a calibration on as many points may be forgiven.
    """
    rank = min(math.ceil((calibrated + 1) * level - 1e-9), calibrated)
    low, high = betabinom.ppf([0.025, 0.975], tested, rank, calibrated + 1 - rank)
    return float(low) / tested, float(high) / tested


def judge_detection(entries: Entries) -> Iterator[Mark]:
    """AUROC of each score, and its lead over rankings that know nothing of errors."""
    for told, score in SCORES.items():
        held = take(entries, "failures", "auroc", score)
        areas = [one["failures"][0] for one in held]
        strangers = [one["strangers"][0] for one in held]
        yield (
            f"{told} finds failures with an AUROC of 0.90",
            f"{spread(areas)}; tells 600 K from 300 K with {spread(strangers)}",
            judge_all(areas, lambda value: value >= 0.9),
        )
        for name, plain in PLAIN.items():
            found = [one.get("over", {}).get(plain, [None]) for one in held]
            leads = [
                lead for lead in found if None not in lead
            ]  # of one block there is no interval
            lows = [lead[1] for lead in leads]
            yield (
                f"{told} finds failures better than the predicted {name} (paired bootstrap of "
                "blocks: the 95 % interval of the difference is above 0 in every run)",
                f"{spread([lead[0] for lead in leads])}; lower bound {spread(lows)}",
                judge_all(lows, lambda value: value > 0),
            )


def by_seed(found: Found, method: str) -> dict[int, Mapping[str, Any]]:
    return {entry["seed"]: entry for entry in found.get(("3bpa", method), ())}


def pair(found: Found, method: str, base: str, *path: str) -> list[tuple[float, float]]:
    """A figure of two methods, by pairs of one seed."""
    first, second = by_seed(found, method), by_seed(found, base)
    seeds = sorted(first.keys() & second.keys())
    return [(take([first[s]], *path)[0], take([second[s]], *path)[0]) for s in seeds]


RMSE = ("test", "accuracy", "forces", "all", "rmse")
MAE = ("test", "accuracy", "energy", "all", "mae")


def judge_accuracy(found: Found) -> Mark:
    ratios = [one / two for one, two in pair(found, "joint_nll", "squared", *RMSE)]
    return (
        "force RMSE of NLL_JEF at most 1.25 × that of squared errors, same seed",
        f"{spread(ratios)} of {len(ratios)} pairs",
        None if not ratios else float(np.mean(ratios)) <= 1.25,
    )


def judge_sameness(method: str, found: Found) -> Mark:
    """Recorded errors are floats of full precision: equal only if all predictions are."""
    checks = [
        one == two
        for part in ("test", "ood")
        for quantity in ("energy", "forces")
        for figure in ("mae", "rmse")
        for one, two in pair(found, method, "squared", part, "accuracy", quantity, "all", figure)
    ]
    seen = f"{sum(checks)} of {len(checks)} recorded errors equal to the bit"
    return (
        f"`{method}` changes energies and forces by nothing",
        seen,
        all(checks) if checks else None,
    )


def judge_histogram(bins: int, found: Found) -> Mark:
    """Where its energies would have to be, if the paper's claim held here: beside the scalar's."""
    pairs = pair(found, f"histogram_a{bins}", "squared", *MAE)
    ratios = [one / two for one, two in pairs]
    deviation = f", standard deviation {np.std(ratios, ddof=1):.2f}" if len(ratios) > 1 else ""
    return (
        f"histogram A of {bins} bins is as good as a scalar head (the paper's claim: an energy MAE "
        "of at most 1.05 times its, same seed)",
        f"ratio {spread(ratios, '.2f')}{deviation}",
        None if not ratios else float(np.mean(ratios)) <= 1.05,
    )
