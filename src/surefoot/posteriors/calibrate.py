"""What makes error bars true, from frames that the weights have not learnt from.

Where the error bar is the spread of draws alone, one factor per quantity from a Student t
likelihood, since few draws may be unseen by a frame (`evaluate/recalibrate.py`). Where there is a
variance of another origin, the factor with the best Gaussian log-score; from few unseen members it
is worked out for all of them (`evaluate/mixture.py`). Where all draws are unseen by all calibration
frames, as with frames set aside, and these are of enough groups, the widths of intervals too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped

from surefoot.data.convert import Sample
from surefoot.evaluate.mixture import mixture_factor
from surefoot.evaluate.quantiles import FEWEST as FEWEST_GROUPS
from surefoot.evaluate.quantiles import fit_grouped, fit_isotonic
from surefoot.evaluate.recalibrate import Factor, balanced_factor, fit_factor, gaussian_factor
from surefoot.graph import Graph, collate, collate_targets
from surefoot.members import take_members
from surefoot.posteriors.calibration import (
    Calibration,
    Levels,
    choose_kinds,
    compositions,
    elements,
    sizes,
)
from surefoot.posteriors.judge import Judged, predict_samples
from surefoot.posteriors.points import (
    Points,
    differences,
    draws_of,
    pair_frames,
    points_of,
    spreads,
)
from surefoot.posteriors.posterior import ClosedForm
from surefoot.posteriors.predictor import Predictor, join_predictions
from surefoot.wording import counted

FEWEST = 10
"""Labelled frames that a variance needs to be calibrated, however many atoms they have."""
MOST = 500_000
"""Atoms that are calibrated on: more would change nothing but the memory that is needed."""


def calibrate(
    predictor: Predictor, samples: Sequence[Sample], unseen: Bool[np.ndarray, "members samples"]
) -> tuple[Calibration, dict[str, Factor]]:
    """Factors and interval widths from residuals of draws that have not seen the frame.

    Args:
        predictor: not calibrated.
        samples: training and validation frames.
        unseen: which member never learnt from which sample; one row where all draws come from one
            training, else one for each draw.
    Returns:
        The calibration, and per quantity how it was found; quantities without labels have
        none.
    Raises:
        ValueError: if a label is not a number, or there are neither one row nor one for each draw.
    """
    apart, units = len(unseen) > 1, _find_units(samples, unseen)
    unseen = _for_each_draw(predictor, unseen)
    usable = _bound(samples, unseen.sum(0) >= min(2, predictor.draws))
    if not usable.any():
        reason = "no frame is unseen by two members" if apart else "no frame set aside"
        return Calibration(source=f"not calibrated: {reason}"), {}
    samples = [sample for sample, use in zip(samples, usable, strict=True) if use]
    unseen, units = unseen[:, usable], units[usable]
    _require_numbers(samples)
    spread_only = predictor.draws > 1 and not _has_variance(predictor, samples)
    by = _by_spread if spread_only else _by_variance
    factors, levels = by(predictor, samples, unseen, units)
    if not factors:
        return Calibration(source=f"not calibrated: {_say_missing(predictor, samples)}"), {}
    alone = bool(unseen.all())
    words = " set aside" if alone else ", each judged by members that had not seen it"
    shared = {name: factor.shared_error for name, factor in factors.items()}
    return Calibration(
        source=f"{counted(len(samples), 'frame')}{_say_groups(units)}{words}",
        levels=levels,
        draws=predictor.draws,
        shared_error={name: error for name, error in shared.items() if error is not None},
        **{name: factor.value for name, factor in factors.items()},
    ), factors


def _bound(
    samples: Sequence[Sample], usable: Bool[np.ndarray, " samples"]
) -> Bool[np.ndarray, " samples"]:
    """Evenly spaced groups, whole ones, where all together have more than `MOST` atoms."""
    chosen = np.flatnonzero(usable).tolist()
    step = -(-sum(samples[index].atoms for index in chosen) // MOST)
    if step < 2:
        return usable
    groups = list(dict.fromkeys(samples[index].group for index in chosen))
    kept = set(groups[::step])
    few = len(groups) < step
    used = chosen[::step] if few else [i for i in chosen if samples[i].group in kept]
    bounded = np.zeros_like(usable)
    bounded[used] = True
    return bounded


def _find_units(
    samples: Sequence[Sample], unseen: Bool[np.ndarray, "members samples"]
) -> Shaped[np.ndarray, " samples"]:
    """What errors are independent between: groups.

    A frame whose group was learnt from was set aside by itself, and stands for frames like it.
    """
    pairs = list(zip(samples, np.asarray(unseen.all(0)), strict=True))
    learnt = {sample.group for sample, new in pairs if not new}
    names = [
        f"frame {number}" if new and sample.group in learnt else f"group {sample.group}"
        for number, (sample, new) in enumerate(pairs)
    ]
    return np.array(names, dtype=str)


def _say_groups(units: Shaped[np.ndarray, " samples"]) -> str:
    count = len(np.unique(units))
    return "" if count == len(units) else f" in {counted(count, 'group')}"


def _for_each_draw(predictor: Predictor, unseen: np.ndarray) -> Bool[np.ndarray, "draws samples"]:
    if len(unseen) == 1:
        return np.repeat(unseen, predictor.draws, axis=0)
    if len(unseen) != predictor.draws:
        raise ValueError(
            f"{len(unseen)} members were trained and there are {predictor.draws} draws; who has "
            "seen what is known of the members only."
        )
    return unseen


def _has_variance(predictor: Predictor, samples: Sequence[Sample]) -> bool:
    """Whether error bars are more than the spread of the draws."""
    if not samples:
        return False
    energy = predictor(collate([samples[0].graph]), forces=False).energy
    return energy.aleatoric is not None or energy.residual is not None


def _require_numbers(samples: Sequence[Sample]) -> None:
    """Refuse labels that are not numbers.

    Raises:
        ValueError: with the frame.
    """
    for sample in samples:
        targets = sample.targets
        for name in ("energy", "forces", "stress"):
            stated = bool(getattr(targets, f"has_{name}").any())
            if stated and not bool(getattr(targets, name).isfinite().all()):
                raise ValueError(
                    f"{sample.place}: a label of {name} is not a number, and nothing can be "
                    "calibrated on it; mend the file or remove the label."
                )


def _say_missing(predictor: Predictor, samples: Sequence[Sample]) -> str:
    if _has_variance(predictor, samples):
        return (
            f"a variance needs at least {FEWEST} labelled frames set aside, there are "
            f"{len(samples)} frames"
        )
    if predictor.draws > 1:
        return "no label where unseen members differ"
    return "one set of weights with a scalar head has no error bars"


Found = tuple[dict[str, Factor], dict[str, Levels]]


def _by_spread(
    predictor: Predictor, samples: Sequence[Sample], unseen: np.ndarray, units: np.ndarray
) -> Found:
    """Student t factors of the spread of the draws."""
    judged, pairs = predict_samples(predictor, samples, members=True), _pair(samples, unseen)
    factors: dict[str, Factor] = {}
    quantities = draws_of(judged, unseen)
    if isinstance(predictor.posterior, ClosedForm):
        quantities.pop("energy", None)
        factors |= _by_closed_form(judged, pairs)
        factors |= _by_balanced(quantities)
        quantities = {}
    if "energy" in quantities:
        factors |= _by_differences(judged, unseen, pairs)
    for name, (target, draws, seen_by) in quantities.items():
        chosen = (seen_by.sum(0) >= 2) & spreads(draws, seen_by)
        if chosen.any():
            factors[name] = fit_factor(target[chosen], draws[:, chosen], seen_by[:, chosen])
    return factors, _fit_levels(judged, samples, units, factors) if unseen.all() else {}


def _by_balanced(quantities: Mapping[str, tuple[np.ndarray, ...]]) -> dict[str, Factor]:
    """Factors of draws about a point, which is their mean."""
    factors = {}
    for name, (target, draws, seen_by) in quantities.items():
        chosen = spreads(draws, seen_by)
        if chosen.any() and len(draws) > 1:
            some = draws[:, chosen]
            off, std = target[chosen] - some.mean(0), some.std(0, ddof=1)
            factors[name] = balanced_factor(off, std, len(draws))
    return factors


def _by_variance(
    predictor: Predictor, samples: Sequence[Sample], unseen: np.ndarray, units: np.ndarray
) -> Found:
    """Factors with the best Gaussian log-score of all draws."""
    pairs = _pair(samples, unseen)
    if not unseen.all():
        judged, count = _predict_unseen(predictor, samples, unseen)
        factors = _fit_mixtures(points_of(judged), count, predictor.draws)
        if len(pairs):  # of differences nothing but the spread of the members is known
            factors |= _by_differences(predict_samples(predictor, samples), unseen, pairs)
        return factors, {}
    judged = predict_samples(predictor, samples)
    factors = _fit_gaussian(points_of(judged))
    if isinstance(predictor.posterior, ClosedForm):
        found = _by_closed_form(judged, pairs)
        factors |= {name: factor for name, factor in found.items() if name == "difference"}
    else:
        factors |= _by_differences(judged, unseen, pairs)
    return factors, _fit_levels(judged, samples, units, factors)


def _pair(samples: Sequence[Sample], unseen: np.ndarray) -> Int[np.ndarray, "pairs 2"]:
    """Pairs of a group; without any, of one composition, where all draws know none of the frames.

    Frames of different groups are unseen by different members, if by any two.
    """
    pairs = pair_frames(samples, [sample.group for sample in samples])
    if len(pairs) or not unseen.all():
        return pairs
    return pair_frames(samples, [""] * len(samples))


def _by_differences(
    judged: Judged, unseen: np.ndarray, pairs: Int[np.ndarray, "pairs 2"]
) -> dict[str, Factor]:
    """The Student t factor of energy differences, where draws differ."""
    if judged.prediction.energy_draws is None or not len(pairs):
        return {}
    target, draws, seen_by = differences(judged, unseen, pairs)
    chosen = (seen_by.sum(0) >= 2) & spreads(draws, seen_by)
    if not chosen.any():
        return {}
    return {"difference": fit_factor(target[chosen], draws[:, chosen], seen_by[:, chosen])}


def _by_closed_form(judged: Judged, pairs: Int[np.ndarray, "pairs 2"]) -> dict[str, Factor]:
    """Factors of energies, and of differences of variance |z_a − z_b|², that need no draws."""
    z, points = judged.prediction.energy_factor, points_of(judged)
    found = {name: points[name] for name in ("energy",) if name in points}
    if z is not None and len(pairs):
        first, second = pairs.T
        residuals = judged.targets.energy.numpy() - judged.prediction.energy.mean.numpy()
        std = np.linalg.norm(z.numpy()[second] - z.numpy()[first], axis=1)
        found["difference"] = Points(residuals[second] - residuals[first], std, std**2, second)
    return _fit_gaussian(found)


def _fit_gaussian(quantities: Mapping[str, Points]) -> dict[str, Factor]:
    factors = {}
    for name, points in quantities.items():
        some = points.select(points.stated)
        if len(np.unique(some.frame)) >= FEWEST:
            value = gaussian_factor(some.residuals, some.std)
            if value > 0:  # else nothing errs here, and no error bar is none
                factors[name] = Factor(value=value, shared_error=None, points=len(some.std))
    return factors


def _fit_mixtures(
    quantities: Mapping[str, Points], count: Int[np.ndarray, " frames"], draws: int
) -> dict[str, Factor]:
    """Factors for all draws, where `count` of them have not seen a frame."""
    factors = {}
    for name, points in quantities.items():
        some = points.select(points.stated)
        if len(np.unique(some.frame)) < FEWEST:
            continue
        noise = some.std**2 - some.spread
        value = mixture_factor(some.residuals, noise, some.spread, count[some.frame], draws)
        factors[name] = Factor(value=value, shared_error=None, points=len(some.std))
    return factors


def _predict_unseen(
    predictor: Predictor, samples: Sequence[Sample], unseen: np.ndarray
) -> tuple[Judged, Int[np.ndarray, " frames"]]:
    """Each frame predicted by the draws that have not seen it, in some order; how many they are."""
    patterns, pattern_of = np.unique(unseen, axis=1, return_inverse=True)
    order, parts = [], []
    for number, pattern in enumerate(patterns.T):
        chosen = np.flatnonzero(pattern_of == number).tolist()
        weights = take_members(predictor.weights, _rows(pattern))
        some = replace(predictor, weights=weights, gate=None)
        part = predict_samples(some, [samples[index] for index in chosen])
        # Frames are unseen by different numbers of draws, which do not join.
        alone = replace(part.prediction, energy_draws=None, energy_factor=None)
        parts.append(replace(part, prediction=alone))
        order += chosen
    judged = Judged(
        prediction=join_predictions([part.prediction for part in parts]),
        targets=collate_targets([samples[index].targets for index in order]),
        sizes=np.concatenate([part.sizes for part in parts]),
        calibration=predictor.calibration,
    )
    return judged, unseen.sum(0)[order]


def _fit_levels(
    judged: Judged,
    samples: Sequence[Sample],
    units: Shaped[np.ndarray, " samples"],
    factors: dict[str, Factor],
) -> dict[str, Levels]:
    """Widths of intervals of energies and forces, from error bars with their factor.

    Only of as many groups as an interval of 95 % needs; that of a normal says more than none.
    """
    points = points_of(judged)
    atoms = judged.counted_atoms
    labelled = judged.targets.has_energy.numpy()
    graphs = [sample.bare for sample in samples]
    by_atom = np.concatenate([elements(graph) for graph in graphs])[atoms]
    by_frame = name_structures(graphs, units, labelled)
    kinds = {"energy": by_frame[labelled], "forces": np.repeat(by_atom, 3)}
    levels = {}
    for name in kinds.keys() & points.keys() & factors.keys():
        chosen = points[name].stated
        some = points[name].select(chosen)
        groups = units[some.frame]
        if len(np.unique(groups)) < FEWEST_GROUPS:
            continue
        std = factors[name].value * some.std
        levels[name] = Levels(
            isotonic=fit_isotonic(some.residuals, std),
            conformal=fit_grouped(some.residuals, std, kinds[name][chosen], groups),
        )
    return levels


def name_structures(
    graphs: Sequence[Graph],
    units: Shaped[np.ndarray, " graphs"],
    labelled: Bool[np.ndarray, " graphs"],
) -> Shaped[np.ndarray, " graphs"]:
    """The composition that enough groups of labelled frames have, else the class of its size."""
    fine = np.concatenate([compositions(graph) for graph in graphs])
    coarse = np.concatenate([sizes(graph) for graph in graphs])
    held = sorted(set(zip(fine[labelled].tolist(), units[labelled].tolist(), strict=True)))
    counts = Counter(name for name, _ in held)
    known = {name for name, count in counts.items() if count >= FEWEST_GROUPS}
    return choose_kinds(fine, coarse, known)


def _rows(pattern: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.flatnonzero(pattern))
