"""One factor per quantity that makes the spread of the draws true, from frames they never saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from surefoot.data.convert import Sample
from surefoot.evaluate.recalibrate import Factor, fit_factor
from surefoot.posteriors.judge import Judged, predict_samples
from surefoot.posteriors.predictor import Calibration, Predictor

NEGLIGIBLE = 1e-6  # of the largest spread: below it members agree up to rounding
TRIANGLE = np.triu_indices(3)  # a stress is symmetric


def calibrate(
    predictor: Predictor, samples: Sequence[Sample], unseen: Bool[np.ndarray, "members samples"]
) -> tuple[Calibration, dict[str, Factor]]:
    """Factors from residuals of members that have not seen the frame.

    Args:
        predictor: an ensemble, not calibrated.
        samples: training and validation frames.
        unseen: which member never learnt from which sample.
    Returns:
        The calibration, and per quantity how it was found; quantities without labels have
        none.
    """
    usable = unseen.sum(0) >= 2
    if predictor.draws < 2 or not usable.any():
        return Calibration(source="not calibrated: no frame is unseen by two members"), {}
    judged = predict_samples(predictor, samples, members=True)
    factors = {}
    quantities = _quantities(judged, unseen)
    if "energy" in quantities:
        quantities["difference"] = _differences(judged, unseen, pair_frames(samples))
    for name, (target, draws, seen_by) in quantities.items():
        chosen = (seen_by.sum(0) >= 2) & _spreads(draws, seen_by)
        if chosen.any():
            factors[name] = fit_factor(target[chosen], draws[:, chosen], seen_by[:, chosen])
    if not factors:
        return Calibration(source="not calibrated: no label where unseen members differ"), {}
    frames = int(usable.sum())
    source = f"{frames} frames, each judged by members that had not seen it"
    values = {name: factor.value for name, factor in factors.items()}
    return Calibration(source=source, **values), factors


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
