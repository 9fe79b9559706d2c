"""What makes error bars true, from frames that the weights have not learnt from.

Where the error bar is the spread of draws alone, one factor per quantity from a Student t
likelihood, since few draws may be unseen by a frame (`evaluate/recalibrate.py`). Where there is a
variance of another origin, the factor with the best Gaussian log-score. Where all draws are unseen
by all calibration frames, as with frames set aside, the widths of intervals too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped

from surefoot.data.convert import Sample
from surefoot.evaluate.quantiles import FEWEST as KIND_POINTS
from surefoot.evaluate.quantiles import fit_grouped, fit_isotonic
from surefoot.evaluate.recalibrate import Factor, fit_factor, gaussian_factor
from surefoot.graph import Graph, collate, collate_targets
from surefoot.posteriors.calibration import (
    Calibration,
    Levels,
    choose_kinds,
    compositions,
    elements,
    sizes,
)
from surefoot.posteriors.judge import Judged, predict_samples
from surefoot.posteriors.posterior import ClosedForm
from surefoot.posteriors.predictor import Predictor, join_predictions
from surefoot.potential import take_members
from surefoot.prediction import Moments

NEGLIGIBLE = 1e-6  # of the largest spread: below it members agree up to rounding
TRIANGLE = np.triu_indices(3)  # a stress is symmetric
FEWEST = 10
"""Labelled points, such as energies of frames, that a variance needs to be calibrated."""


@dataclass(frozen=True)
class Points:
    """One quantity at the calibration points, with error bars as they come.

    Attributes:
        residuals: label − mean of the draws that have not seen the point.
        std: of these draws; not calibrated.
    """

    residuals: Float[np.ndarray, " points"]
    std: Float[np.ndarray, " points"]


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
    unseen = _for_each_draw(predictor, unseen)
    spread_only = predictor.draws > 1 and not _has_variance(predictor, samples)
    needed = 2 if spread_only else 1
    usable = unseen.sum(0) >= needed
    if not usable.any():
        reason = "no frame is unseen by two members" if len(unseen) > 1 else "no frame set aside"
        return Calibration(source=f"not calibrated: {reason}"), {}
    samples = [sample for sample, use in zip(samples, usable, strict=True) if use]
    unseen = unseen[:, usable]
    _require_numbers(samples)
    factors, levels = (_by_spread if spread_only else _by_variance)(predictor, samples, unseen)
    if not factors:
        return Calibration(source=f"not calibrated: {_say_missing(predictor, samples)}"), {}
    alone = len(unseen) == 1 or bool(unseen.all())
    words = " set aside" if alone else ", each judged by members that had not seen it"
    values = {name: factor.value for name, factor in factors.items()}
    source = f"{len(samples)} frames{words}"
    return Calibration(source=source, levels=levels, **values), factors


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
            f"a variance needs at least {FEWEST} labels of frames set aside, there are too few in "
            f"{len(samples)} frames"
        )
    if predictor.draws > 1:
        return "no label where unseen members differ"
    return "one set of weights with a scalar head has no error bars"


Found = tuple[dict[str, Factor], dict[str, Levels]]


def _by_spread(predictor: Predictor, samples: Sequence[Sample], unseen: np.ndarray) -> Found:
    """Student t factors of the spread of the draws."""
    judged = predict_samples(predictor, samples, members=True)
    factors: dict[str, Factor] = {}
    quantities = _quantities(judged, unseen)
    if isinstance(predictor.posterior, ClosedForm):
        quantities.pop("energy", None)
        factors |= _by_closed_form(judged, pair_frames(samples))
    if "energy" in quantities:
        quantities["difference"] = _differences(judged, unseen, pair_frames(samples))
    for name, (target, draws, seen_by) in quantities.items():
        chosen = (seen_by.sum(0) >= 2) & _spreads(draws, seen_by)
        if chosen.any():
            factors[name] = fit_factor(target[chosen], draws[:, chosen], seen_by[:, chosen])
    return factors, _fit_levels(judged, samples, factors) if unseen.all() else {}


def _by_variance(predictor: Predictor, samples: Sequence[Sample], unseen: np.ndarray) -> Found:
    """Factors with the best Gaussian log-score."""
    judged = _predict_unseen(predictor, samples, unseen)
    factors = _fit_gaussian(points_of(judged))
    if isinstance(predictor.posterior, ClosedForm):
        found = _by_closed_form(judged, pair_frames(samples))
        factors |= {name: factor for name, factor in found.items() if name == "difference"}
    elif judged.prediction.energy_draws is not None and len(unseen) > 1 and unseen.all():
        target, draws, _ = _differences(judged, unseen, pair_frames(samples))
        everywhere = np.ones(draws.shape, bool)
        chosen = _spreads(draws, everywhere)
        if chosen.any():
            factors["difference"] = fit_factor(
                target[chosen], draws[:, chosen], everywhere[:, chosen]
            )
    return factors, _fit_levels(judged, samples, factors) if unseen.all() else {}


def _by_closed_form(judged: Judged, pairs: Int[np.ndarray, "pairs 2"]) -> dict[str, Factor]:
    """Factors of energies, and of differences of variance |z_a − z_b|², that need no draws."""
    z, points = judged.prediction.energy_factor, points_of(judged)
    found = {name: points[name] for name in ("energy",) if name in points}
    if z is not None and len(pairs):
        first, second = pairs.T
        residuals = judged.targets.energy.numpy() - judged.prediction.energy.mean.numpy()
        found["difference"] = Points(
            residuals[second] - residuals[first],
            np.linalg.norm(z.numpy()[second] - z.numpy()[first], axis=1),
        )
    return _fit_gaussian(found)


def _fit_gaussian(quantities: Mapping[str, Points]) -> dict[str, Factor]:
    factors = {}
    for name, points in quantities.items():
        chosen = points.std > NEGLIGIBLE * points.std.max(initial=1e-30)
        if chosen.sum() >= FEWEST:
            value = gaussian_factor(points.residuals[chosen], points.std[chosen])
            factors[name] = Factor(value=value, shared_error=None, points=int(chosen.sum()))
    return factors


def _predict_unseen(predictor: Predictor, samples: Sequence[Sample], unseen: np.ndarray) -> Judged:
    """Each frame predicted by the draws that have not seen it."""
    if unseen.all():
        return predict_samples(predictor, samples)
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
    return Judged(
        prediction=join_predictions([part.prediction for part in parts]),
        targets=collate_targets([samples[index].targets for index in order]),
        sizes=np.concatenate([part.sizes for part in parts]),
        calibration=predictor.calibration,
    )


def points_of(judged: Judged) -> dict[str, Points]:
    """Residuals and error bars of each labelled quantity that has error bars."""
    prediction, targets = judged.prediction, judged.targets
    found = {}
    labelled = targets.has_energy.numpy()
    if labelled.any() and prediction.energy.total is not None:
        mean, std = _mean_and_std(prediction.energy)
        found["energy"] = Points((targets.energy.numpy() - mean)[labelled], std[labelled])
    atoms = judged.counted_atoms
    if prediction.forces is not None and prediction.forces.total is not None and atoms.any():
        mean = prediction.forces.mean.numpy()
        std = prediction.forces.total.diagonal(dim1=-2, dim2=-1).sqrt().numpy()
        residuals = (targets.forces.numpy() - mean)[atoms]
        found["forces"] = Points(residuals.reshape(-1), std[atoms].reshape(-1))
    if prediction.stress is not None and prediction.stress.total is not None:
        mean, std = (part[..., *TRIANGLE] for part in _mean_and_std(prediction.stress))
        chosen = targets.has_stress.numpy() & np.isfinite(mean).all(-1)
        residuals = (targets.stress.numpy()[..., *TRIANGLE] - mean)[chosen]
        if chosen.any():
            found["stress"] = Points(residuals.reshape(-1), std[chosen].reshape(-1))
    return found


def _mean_and_std(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    total = moments.total
    if total is None:
        raise ValueError("there is no error bar.")
    return moments.mean.double().numpy(), total.sqrt().numpy()


def _fit_levels(
    judged: Judged, samples: Sequence[Sample], factors: dict[str, Factor]
) -> dict[str, Levels]:
    """Widths of intervals of energies and forces, from error bars with their factor."""
    points = points_of(judged)
    atoms = judged.counted_atoms
    labelled = judged.targets.has_energy.numpy()
    graphs = [sample.graph for sample in samples]
    by_atom = np.concatenate([elements(graph) for graph in graphs])[atoms]
    by_frame = name_structures(graphs, labelled)
    kinds = {"energy": by_frame[labelled], "forces": np.repeat(by_atom, 3)}
    levels = {}
    for name in kinds.keys() & points.keys() & factors.keys():
        std = factors[name].value * points[name].std
        chosen = std > NEGLIGIBLE * std.max(initial=1e-30)
        if chosen.sum() < FEWEST:
            continue
        residuals, std = points[name].residuals[chosen], std[chosen]
        levels[name] = Levels(
            isotonic=fit_isotonic(residuals, std),
            conformal=fit_grouped(residuals, std, kinds[name][chosen]),
        )
    return levels


def name_structures(
    graphs: Sequence[Graph], labelled: Bool[np.ndarray, " graphs"]
) -> Shaped[np.ndarray, " graphs"]:
    """The composition where enough labelled frames have it, else the class of its size."""
    fine = np.concatenate([compositions(graph) for graph in graphs])
    coarse = np.concatenate([sizes(graph) for graph in graphs])
    names, counts = np.unique(fine[labelled], return_counts=True)
    return choose_kinds(fine, coarse, set(names[counts >= KIND_POINTS]))


def _rows(pattern: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.flatnonzero(pattern))


def _quantities(
    judged: Judged, unseen: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Label, draws (members, points) and unseen (members, points) of each labelled quantity."""
    prediction, targets = judged.prediction, judged.targets
    quantities = {}
    labelled = targets.has_energy.numpy()
    if labelled.any() and prediction.energy_draws is not None:
        draws = prediction.energy_draws.numpy()
        quantities["energy"] = (
            targets.energy.numpy()[labelled],
            draws[:, labelled],
            unseen[:, labelled],
        )
    atoms = judged.counted_atoms
    if atoms.any() and prediction.forces_draws is not None:
        draws = prediction.forces_draws.double().numpy()[:, atoms]
        by_atom = unseen[:, judged.graph_of_atom[atoms]]
        quantities["forces"] = (
            targets.forces.numpy()[atoms].reshape(-1),
            draws.reshape(draws.shape[0], -1),
            np.repeat(by_atom, 3, axis=1),
        )
    if prediction.stress_draws is not None and targets.has_stress.any():
        draws = prediction.stress_draws.double().numpy()[..., *TRIANGLE]
        chosen = targets.has_stress.numpy() & np.isfinite(draws).all((0, 2))
        quantities["stress"] = (
            targets.stress.numpy()[..., *TRIANGLE][chosen].reshape(-1),
            draws[:, chosen].reshape(draws.shape[0], -1),
            np.repeat(unseen[:, chosen], len(TRIANGLE[0]), axis=1),
        )
    return quantities


def pair_frames(samples: Sequence[Sample]) -> Int[np.ndarray, "pairs 2"]:
    """Each labelled frame with the one before it of the same group, composition and state."""
    before: dict[tuple[str, bytes, int, int], int] = {}
    pairs = []
    for number, sample in enumerate(samples):
        if not bool(sample.targets.has_energy.all()):
            continue
        graph = sample.graph
        composition = graph.numbers.sort().values.numpy().tobytes()
        key = (sample.group, composition, int(graph.charge), int(graph.spin))
        if key in before:
            pairs.append((before[key], number))
        before[key] = number
    return np.array(pairs, np.int64).reshape(-1, 2)


def _differences(
    judged: Judged, unseen: np.ndarray, pairs: Int[np.ndarray, "pairs 2"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, draws and unseen of energy differences; unseen only if neither frame was seen."""
    first, second = pairs.T
    energies = judged.targets.energy.numpy()
    draws = judged.prediction.energy_draws
    if draws is None:
        raise ValueError("energies of the members are needed to calibrate differences.")
    members = draws.numpy()
    return (
        energies[second] - energies[first],
        members[:, second] - members[:, first],
        unseen[:, first] & unseen[:, second],
    )


def _spreads(draws: Float[np.ndarray, "members points"], unseen: np.ndarray) -> np.ndarray:
    """Points on which the unseen members differ; symmetry makes some force components equal."""
    low = np.min(np.where(unseen, draws, np.inf), axis=0)
    high = np.max(np.where(unseen, draws, -np.inf), axis=0)
    spread = np.where(unseen.any(0), high - low, 0.0)
    return spread > NEGLIGIBLE * spread.max(initial=1e-30)
