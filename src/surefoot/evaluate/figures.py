"""All figures about predictions as plain numbers that JSON can hold: what tables and plots show.

An estimate is [value, lower, upper bound of its 95 % interval]; what does not exist is null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Bool

from surefoot.evaluate.accuracy import accuracy, accuracy_by_type
from surefoot.evaluate.calibration import (
    calibration_curve,
    central_bound,
    rank_correlation_by_counts,
)
from surefoot.evaluate.directness import Directness
from surefoot.evaluate.failures import Failures, detect_failures
from surefoot.evaluate.intervals import block_bootstrap_counts, block_bootstrap_mean
from surefoot.evaluate.multivariate import (
    ellipsoid_bound,
    gaussian_nll_vectors,
    mahalanobis_squares,
)
from surefoot.evaluate.pit import gaussian_pit, pit_histogram
from surefoot.evaluate.quantities import (
    PLAIN,
    Binning,
    Differences,
    Quantity,
    Ranked,
    Structures,
    Vectors,
)
from surefoot.evaluate.ranking import ause_by_counts, sparsification_curve
from surefoot.evaluate.reliability import ence_reference, reliability
from surefoot.evaluate.scores import (
    LEVELS,
    Estimate,
    coverage_of_bounds,
    score,
    score_levels,
    to_rows,
)
from surefoot.evaluate.scoring import ensemble_crps, gaussian_crps, standardize
from surefoot.evaluate.strata import stratify

Figures = dict[str, Any]

CURVE = np.linspace(0.02, 0.98, 25)  # levels of the curve that is plotted
MANY = 20_000  # points, for which 200 draws of a bootstrap have to do
TINY = np.finfo(np.float64).tiny
SPARSE = 101  # points of the sparsification curve that is plotted


def describe_accuracy(quantity: Quantity, seed: int, draws: int = 500) -> Figures:
    """Count, MAE and RMSE by config_type and of all, with intervals of a block bootstrap.

    Args:
        quantity: residuals and their groups.
        seed: of the bootstrap.
        draws: of the bootstrap.
    """
    table = accuracy_by_type(quantity.residuals, quantity.types)
    rows = {name: (quantity.types == name, errors) for name, errors in table.items()}
    rows["all"] = np.ones(len(quantity.residuals), bool), accuracy(quantity.residuals)
    return {
        "unit": quantity.unit,
        **{
            name: asdict(errors) | _bound_errors(quantity, chosen, seed, draws)
            for name, (chosen, errors) in rows.items()
        },
    }


def _bound_errors(
    quantity: Quantity, chosen: Bool[np.ndarray, " points"], seed: int, draws: int
) -> Figures:
    """Intervals of MAE and RMSE from groups drawn anew; nothing with fewer than two groups."""
    residuals = np.abs(quantity.residuals[chosen].astype(np.float64))
    groups = quantity.groups[chosen]
    found: Figures = {}
    for name, power in (("mae", 1), ("rmse", 2)):
        generator = np.random.default_rng(seed)
        interval = block_bootstrap_mean(residuals**power, groups, generator, draws)
        bounds = (interval.low ** (1 / power), interval.high ** (1 / power))
        found[f"{name}_interval"] = [_finite(bound) for bound in bounds]
    return found


def describe_error_bars(quantity: Quantity, seed: int, draws: int = 500) -> Figures | None:
    """Whether error bars hold, before and after the factor; None where there are none.

    Args:
        quantity: residuals and calibrated error bars.
        seed: of the bootstrap.
        draws: of the bootstrap.
    """
    usable = quantity.scorable
    if quantity.std is None or not usable.any():
        return None
    residuals, groups = quantity.residuals[usable], quantity.groups[usable]
    draws = draws if len(residuals) < MANY else min(draws, 200)
    after = quantity.std[usable]
    rms = max(float(np.sqrt(np.mean(residuals.astype(np.float64) ** 2))), TINY)
    found: Figures = {
        "unit": quantity.unit,
        "factor": quantity.factor,
        "points": int(usable.sum()),
        "groups": len(np.unique(groups)),
    }
    one_for_all = float(np.mean(gaussian_crps(residuals, np.full_like(after, rms))))
    mean, spread = ence_reference(after, np.random.default_rng(seed))  # no factor changes it
    for name, std in (("before", after / quantity.factor), ("after", after)):
        rows = to_rows(score(residuals, std, groups, np.random.default_rng(seed), draws))
        found[name] = {row: _estimate(value) for row, value in rows.items()}
        found[name]["ence_reference"] = [mean, spread.low, spread.high]
        found[name]["crps_reference"] = [one_for_all, None, None]
    if quantity.draws is not None:
        crps = ensemble_crps(np.zeros(int(usable.sum())), quantity.draws[:, usable])
        interval = block_bootstrap_mean(crps, groups, np.random.default_rng(seed), draws)
        found["ensemble_crps"] = _estimate(Estimate(float(np.mean(crps)), interval))
    z = standardize(residuals, after)
    found["recalibrated"] = {}
    for name, bounds in quantity.bounds.items():

        def chosen(level: float, bounds: Any = bounds) -> tuple[np.ndarray, np.ndarray]:
            low, high = bounds(level)
            return low[usable], high[usable]

        rows = coverage_of_bounds(z, chosen, groups, np.random.default_rng(seed), draws)
        found["recalibrated"][name] = {_name(level): _estimate(at) for level, at in rows.items()}
    found["strata"] = _describe_strata(quantity, usable, seed)
    found["curves"] = _draw_curves(residuals, after, quantity.factor, groups, seed)
    return found


def _describe_strata(quantity: Quantity, usable: Bool[np.ndarray, " points"], seed: int) -> Figures:
    if quantity.std is None:
        return {}
    found: Figures = {}
    for name, kinds in {"config_type": quantity.types, **quantity.strata}.items():
        table = stratify(
            quantity.residuals[usable],
            quantity.std[usable],
            kinds[usable],
            quantity.groups[usable],
            np.random.default_rng(seed),
        )
        found[name] = {
            kind: {
                "count": stratum.count,
                "rmse": stratum.rmse,
                "sharpness": stratum.sharpness,
                "mean_square": stratum.mean_square,
                "coverage_95": _estimate(Estimate(stratum.coverage, stratum.interval)),
            }
            for kind, stratum in table.items()
        }
    return found


def _draw_curves(
    residuals: np.ndarray, std: np.ndarray, factor: float, groups: np.ndarray, seed: int
) -> Figures:
    """What plots show: coverage, errors by error bar, sparsification, PIT."""
    bins = reliability(residuals, std)
    pit = pit_histogram(gaussian_pit(residuals, std), groups, np.random.default_rng(seed), 200)
    kept = np.linspace(0, len(std) - 1, min(SPARSE, len(std))).round().astype(int)
    return {
        "calibration": {
            "levels": CURVE.tolist(),
            "before": calibration_curve(residuals, std / factor, CURVE).tolist(),
            "after": calibration_curve(residuals, std, CURVE).tolist(),
        },
        "reliability": {"std": bins.std.tolist(), "rmse": bins.rmse.tolist()},
        "sparsification": {
            "kept": ((kept + 1) / len(std)).tolist(),
            "by_std": sparsification_curve(residuals, std)[kept].tolist(),
            "oracle": sparsification_curve(residuals, np.abs(residuals))[kept].tolist(),
        },
        "pit": {
            "density": pit.density.tolist(),
            "low": [_finite(value) for value in pit.low],
            "high": [_finite(value) for value in pit.high],
        },
    }


def describe_vectors(vectors: Vectors, seed: int, draws: int = 500) -> Figures:
    """Force residuals in units of their ellipsoids: mean z² (3 where true), coverage, NLL."""
    squares = mahalanobis_squares(vectors.residuals, vectors.covariance)
    nll = gaussian_nll_vectors(vectors.residuals, vectors.covariance)
    _, codes = np.unique(vectors.groups, return_inverse=True)

    def mean(values: np.ndarray) -> list[float | None]:
        generator = np.random.default_rng(seed)
        interval = block_bootstrap_mean(values.astype(np.float64), codes, generator, draws)
        return _estimate(Estimate(float(np.mean(values)), interval))

    return {
        "atoms": len(squares),
        "mean_square": mean(squares),
        "nll": mean(nll),
        **{_name(level): mean(squares <= ellipsoid_bound(level)) for level in LEVELS},
    }


def describe_histogram(binning: Binning, seed: int, draws: int = 500) -> Figures:
    """Labels in predicted histograms, with the histograms' own quantiles, and what ranks errors.

    `open_bin` is the mean mass of an open last bin beside the share of labels in it.
    """
    generator = np.random.default_rng(seed)
    found = score_levels(binning.pit, binning.crps, binning.nll, binning.groups, generator, draws)
    mass, labels = binning.beyond, binning.in_last
    return {
        "unit": binning.unit,
        "points": found.count,
        "outside": found.outside,
        "crps": _estimate(found.crps),
        "nll": _estimate(found.nll),
        **{_name(level): _estimate(at) for level, at in found.coverage.items()},
        "pit_ks": _estimate(found.pit_ks),
        "open_bin": None
        if mass is None or labels is None
        else {"mass": float(np.mean(mass)), "labels": float(np.mean(labels))},
        "ranking": describe_ranking(
            Ranked(errors=binning.errors, scores=binning.scores, groups=binning.groups), seed, draws
        ),
    }


def describe_ranking(ranked: Ranked, seed: int, draws: int = 500) -> Figures:
    """How well each score puts errors in order: rank correlation and AUSE."""
    _, codes = np.unique(ranked.groups, return_inverse=True)
    few = min(draws, 200) if len(codes) > MANY else draws

    def counted(statistic: Callable[[np.ndarray], float]) -> list[float | None]:
        interval = block_bootstrap_counts(statistic, codes, np.random.default_rng(seed), few)
        return _estimate(Estimate(statistic(np.ones(len(codes), dtype=np.int64)), interval))

    return {
        name: {
            "median": float(np.median(values)),
            "spearman": counted(rank_correlation_by_counts(ranked.errors, values)),
            "ause": counted(ause_by_counts(ranked.errors, values)),
        }
        for name, values in ranked.scores.items()
    }


def describe_differences(differences: Differences, seed: int, draws: int = 500) -> Figures:
    """Coverage of 90 % intervals of differences, and of two that do not know what errors share."""
    residuals = differences.residuals
    _, codes = np.unique(differences.groups, return_inverse=True)
    found: Figures = {
        "unit": "meV",
        "factor": differences.factor,
        "pairs": len(residuals),
        "rmse": float(np.sqrt(np.mean(residuals**2))),
    }
    for name in ("std", "independent", "correlated"):
        std = getattr(differences, name)
        inside = (np.abs(residuals) <= central_bound(0.9) * std).astype(np.float64)
        interval = block_bootstrap_mean(inside, codes, np.random.default_rng(seed), draws)
        found[name] = {
            "coverage_90": _estimate(Estimate(float(np.mean(inside)), interval)),
            "sharpness": float(np.sqrt(np.mean(std**2))),
        }
    return found


def describe_directness(directness: Directness) -> Figures:
    """How far forces are from turning with the structure, and from being a slope."""
    return {
        "structures": directness.structures,
        "rotation_error": _finite(directness.rotation_error),
        "jacobian_asymmetry": _finite(directness.jacobian_asymmetry),
    }


def describe_failures(
    structures: Structures, outside: Bool[np.ndarray, " frames"], seed: int, draws: int = 500
) -> Figures:
    """How well each score finds structures with large errors in a 1:1 mixture."""
    found: Failures = detect_failures(
        structures.errors,
        structures.scores,
        outside,
        structures.groups,
        np.random.default_rng(seed),
        draws,
        PLAIN,
    )
    return {
        "threshold": found.threshold,
        "inside": found.inside,
        "outside": found.outside,
        "failed_inside": found.failed_inside,
        "failed_outside": found.failed_outside,
        "auroc": {
            name: {
                "failures": _estimate(detection.failures),
                "strangers": _estimate(detection.strangers),
                "over": {other: _estimate(lead) for other, lead in detection.over.items()},
            }
            for name, detection in found.scores.items()
        },
    }


def show(estimate: list[float | None]) -> str:
    """An estimate with its interval, in brackets, where there is one."""
    value, low, high = estimate
    if value is None:
        return "–"
    if low is None or high is None:
        return _show_number(value)
    return f"{_show_number(value)} [{_show_number(low)}, {_show_number(high)}]"


def _show_number(value: float) -> str:
    """Four digits, of which three may stand after the point."""
    size = abs(value)
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0}f}"


def coverages(rows: Mapping[str, list[float | None]]) -> dict[str, list[float | None]]:
    """The coverages among some rows."""
    return {name: rows[name] for name in map(_name, LEVELS)}


def _name(level: float) -> str:
    return f"coverage_{round(100 * level)}"


def _estimate(estimate: Estimate) -> list[float | None]:
    interval = estimate.interval
    return [_finite(estimate.value), _finite(interval.low), _finite(interval.high)]


def _finite(value: float) -> float | None:
    """JSON has no NaN: a figure that does not exist is null."""
    return float(value) if math.isfinite(value) else None
