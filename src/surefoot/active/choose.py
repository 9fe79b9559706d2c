"""Which candidates are labelled: scores choose, diversity keeps apart, limits refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from surefoot.active.acquisition import (
    ACQUISITIONS,
    Combine,
    NoScore,
    combine_atoms,
    score_structures,
)
from surefoot.active.diversity import (
    describe_structures,
    determinantal_points,
    farthest_points,
    find_duplicates,
    nearest_distances,
    whiten,
)
from surefoot.data.convert import Sample
from surefoot.elements import name_elements
from surefoot.posteriors.judge import predict_samples
from surefoot.posteriors.learnt import hash_frames
from surefoot.posteriors.predictor import Predictor
from surefoot.prediction import Moments, Prediction
from surefoot.segments import Segments, find_offsets
from surefoot.settings import Settings

RANDOM = "random"
FARTHEST = "farthest_point"
WAYS = (*ACQUISITIONS, RANDOM, FARTHEST)
REPEATED = "known already, or the same as another candidate"


class Acquire(Settings):
    """How structures are chosen from the candidates."""

    by: tuple[str, ...] = Field(
        default=("bald_energy", "bald_forces"),
        description=f"what takes turns in choosing: {', '.join(WAYS)}",
    )
    count: int = Field(default=20, ge=1, description="structures of each round")
    combine: Combine = Field(default="max", description="scores of atoms to that of a structure")
    diversity: Literal["farthest_point", "determinantal", "none"] = Field(
        default="farthest_point", description="what keeps those with high scores apart"
    )
    among: float = Field(
        default=4.0, ge=1, description="times count: the best, among which diversity chooses"
    )
    lowest: float | None = Field(
        default=None,
        gt=0,
        description="forces_uncertainty_norm of the worst atom, eV/Å: below, nothing is to learn",
    )
    highest: float | None = Field(
        default=None, gt=0, description="the same above which a structure has exploded"
    )
    highest_ood: float | None = Field(
        default=None, gt=0, description="ood above which a structure has exploded"
    )

    @field_validator("by", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> Acquire:
        strange = [name for name in self.by if name not in WAYS]
        if strange:
            raise ValueError(
                f"there is no way '{strange[0]}' to choose; there is {', '.join(WAYS)}"
            )
        if not self.by:
            raise ValueError("`by` names nothing; it has one or several of " + ", ".join(WAYS))
        if self.lowest is not None and self.highest is not None and self.highest <= self.lowest:
            raise ValueError(
                f"`highest` ({self.highest:g}) is not above `lowest` ({self.lowest:g})"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is to be labelled, and why.

    Attributes:
        indices: of the candidates, in the order in which they were chosen.
        by: (chosen) what chose each.
        scores: name → (candidates) of every score that was asked; NaN where a structure was refused
            before.
        distances: (candidates) to the nearest structure that is known, of the order of 1 for two
            that have nothing in common; NaN where a structure was refused before.
        refused: reason → number of candidates.
    """

    indices: Int[np.ndarray, " chosen"]
    by: list[str]
    scores: dict[str, Float[np.ndarray, " candidates"]]
    distances: Float[np.ndarray, " candidates"]
    refused: dict[str, int] = field(default_factory=dict)


class NothingToChoose(ValueError):
    """No candidate is left, with the reasons."""


def choose(
    predictor: Predictor,
    candidates: Sequence[Sample],
    known: Sequence[Sample],
    settings: Acquire,
    generator: np.random.Generator,
    progress: Callable[[int], None] = lambda _: None,
    forbidden: Sequence[Sample] = (),
) -> Chosen:
    """Structures to be labelled next.

    Refused are structures that are known or repeat another one (the same to 1e-3 Å, or in the space
    of features), those of which nothing is to be learnt (`lowest`), those that have exploded
    (`highest`, `highest_ood`, anything not finite), and those of elements or states that the
    potential does not know. The ways in `by` choose one after the other; what diversity keeps apart
    stays apart over all of them.

    Args:
        predictor: what knows what it does not know.
        candidates: structures without labels.
        known: structures with labels, and others that were chosen before.
        settings: how.
        generator: source of all random numbers.
        progress: called with the number of structures looked at since the last call.
        forbidden: structures that must not be chosen and of which nothing else is told: those that
            judge. A choice that kept its distance from them would know where they are.
    Raises:
        NothingToChoose: if no candidate is left.
        NoScore: if the potential can not give a score that is asked for.
    """
    if not candidates:
        raise NothingToChoose("there are no candidates.")
    reasons = _refuse_unknown(predictor, candidates)
    looked_at = np.flatnonzero(reasons == "")
    _require_some(reasons)
    samples = [candidates[index] for index in looked_at.tolist()]
    judged = predict_samples(predictor, samples, progress=progress)
    atoms = _segments(judged.sizes)
    reasons[looked_at] = found = _refuse(judged.prediction, atoms, settings)
    _require_some(reasons)
    rows, distances, repeated = _compare(predictor, samples, known, forbidden, found == "")
    found[repeated] = REPEATED
    reasons[looked_at] = found
    _require_some(reasons)
    allowed = found == ""
    scores = {
        name: _score(name, judged.prediction, atoms, settings.combine, allowed, generator)
        for name in dict.fromkeys(settings.by)
        if name != FARTHEST
    }
    indices, by = _take_turns(rows, distances, allowed, scores, settings)
    count = len(candidates)
    return Chosen(
        indices=looked_at[indices],
        by=by,
        scores={name: _spread_out(values, looked_at, count) for name, values in scores.items()},
        distances=_spread_out(distances, looked_at, count),
        refused=dict(Counter(str(reason) for reason in reasons if reason)),
    )


def _refuse_unknown(predictor: Predictor, candidates: Sequence[Sample]) -> np.ndarray:
    """(candidates) Why the potential can say nothing of each; empty where it can."""
    reasons = np.full(len(candidates), "", dtype=object)
    elements, states = predictor.potential.baseline.elements, predictor.potential.states
    for number, sample in enumerate(candidates):
        graph = sample.graph
        strange = sorted(set(graph.numbers.tolist()) - set(elements))
        state = int(graph.charge), int(graph.spin)
        if strange:
            reasons[number] = f"element {name_elements(strange[:1])} is unknown to the potential"
        elif states is not None and state not in states.pairs:
            reasons[number] = f"charge {state[0]} and spin {state[1]} are unknown to the potential"
    return reasons


def _require_some(reasons: np.ndarray) -> None:
    if (reasons == "").any():
        return
    counts = ", ".join(f"{count}: {reason}" for reason, count in Counter(reasons.tolist()).items())
    raise NothingToChoose(f"none of {len(reasons)} candidates is left ({counts}).")


def _spread_out(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Values at their places, NaN elsewhere."""
    whole = np.full(count, np.nan)
    whole[places] = values
    return whole


def _segments(sizes: np.ndarray) -> Segments:
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return Segments(index=index, offsets=find_offsets(index, len(sizes)))


def _compare(
    predictor: Predictor,
    candidates: Sequence[Sample],
    known: Sequence[Sample],
    forbidden: Sequence[Sample],
    sound: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whitened features of the candidates, distances to what is known, and who is repeated.

    What is not sound is refused before; the scale of features is that of all others, since one
    structure that has exploded would make all others alike.
    """
    own = [sample for sample, is_sound in zip(candidates, sound, strict=True) if is_sound]
    count, end = len(own), len(own) + len(known)
    everything = [*own, *known, *forbidden]
    features = describe_structures(predictor, everything)
    described = whiten(features, features[:end])
    hashes = hash_frames(everything)
    _, first = np.unique(hashes[:count], return_index=True)
    copies = np.ones(count, bool)
    copies[first] = False
    copies |= np.isin(hashes[:count], hashes[count:])
    nearest = nearest_distances(described[:count], described[count:end])
    judging = nearest_distances(described[:count], described[end:])
    copies |= find_duplicates(described[:count], np.minimum(nearest, judging))
    rows = np.zeros((len(candidates), described.shape[1]))
    distances, repeated = np.full(len(candidates), np.nan), np.zeros(len(candidates), bool)
    rows[sound], distances[sound], repeated[sound] = described[:count], nearest, copies
    return rows, distances, repeated


def _refuse(prediction: Prediction, atoms: Segments, settings: Acquire) -> np.ndarray:
    """(candidates) Why each is not to be chosen; empty where it is."""
    reasons = np.full(atoms.count, "", dtype=object)
    finite = _finite(prediction.energy)
    if prediction.forces is not None:
        finite &= combine_atoms(_finite(prediction.forces).double(), atoms, "mean") == 1.0
    if prediction.ood is not None:
        finite &= prediction.ood.isfinite()
        if settings.highest_ood is not None:
            beyond = (prediction.ood > settings.highest_ood).numpy()
            reasons[beyond] = f"exploded: ood above {settings.highest_ood:g}"
    elif settings.highest_ood is not None:
        raise NoScore("`highest_ood` is set and the potential has no gate.")
    if settings.lowest is not None or settings.highest is not None:
        worst = score_structures("forces_variance", prediction, atoms).sqrt()
        if settings.lowest is not None:
            reasons[(worst < settings.lowest).numpy()] = (
                f"nothing to learn: forces_uncertainty_norm below {settings.lowest:g} eV/Å"
            )
        if settings.highest is not None:
            reasons[(worst > settings.highest).numpy()] = (
                f"exploded: forces_uncertainty_norm above {settings.highest:g} eV/Å"
            )
    reasons[~finite.numpy()] = "exploded: what is predicted is not finite"
    return reasons


def _finite(moments: Moments) -> Bool[Tensor, " rows"]:
    """Whether mean and variance are numbers."""
    parts = [moments.mean] if moments.total is None else [moments.mean, moments.total]
    return torch.stack([part.reshape(len(part), -1).isfinite().all(1) for part in parts]).all(0)


def _score(
    name: str,
    prediction: Prediction,
    atoms: Segments,
    combine: Combine,
    allowed: np.ndarray,
    generator: np.random.Generator,
) -> Float[np.ndarray, " candidates"]:
    if name == RANDOM:
        scores = generator.uniform(size=atoms.count)
    else:
        scores = score_structures(name, prediction, atoms, combine).double().numpy()
    return np.where(allowed, scores, np.nan)


def _take_turns(
    rows: np.ndarray,
    distances: np.ndarray,
    allowed: np.ndarray,
    scores: dict[str, np.ndarray],
    settings: Acquire,
) -> tuple[np.ndarray, list[str]]:
    """Each way chooses its share of what is left; the first ones take what does not go up."""
    left = np.flatnonzero(allowed)
    chosen: list[int] = []
    by: list[str] = []
    ways = len(settings.by)
    for turn, name in enumerate(settings.by):
        share = settings.count // ways + (turn < settings.count % ways)
        if not share or not len(left):
            continue
        places = _pick(
            name, rows[left], distances[left], scores, left, share, settings, rows[chosen]
        )
        taken = left[places]
        chosen += taken.tolist()
        by += [name] * len(taken)
        distances = np.minimum(distances, nearest_distances(rows, rows[taken]))
        left = np.setdiff1d(left, taken)
    return np.array(chosen, int), by


def _pick(
    name: str,
    rows: np.ndarray,
    distances: np.ndarray,
    scores: dict[str, np.ndarray],
    left: np.ndarray,
    share: int,
    settings: Acquire,
    taken: np.ndarray,
) -> np.ndarray:
    """Places in `left` that one way chooses; rows that are taken are those of ways before it."""
    if name == FARTHEST:
        return farthest_points(rows, share, distances)
    found = scores[name][left]
    order = np.argsort(-found, kind="stable")
    if name == RANDOM or settings.diversity == "none":
        return order[:share]
    best = order[: max(share, round(settings.among * share))]
    if settings.diversity == "determinantal":
        above = found[best] - found[best].min()
        return best[determinantal_points(rows[best], above, share, taken)]
    return best[farthest_points(rows[best], share, distances[best], first=0)]
