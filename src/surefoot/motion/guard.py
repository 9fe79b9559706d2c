"""The guard: motion that knows when it has left what the potential has learned.

A check gives every atom the score

    s = max(forces_uncertainty_norm / limit, ood_atoms / limit)

of the limits that are set, and a system that of its worst atom. A system whose score is 1 or more
in m checks in a row has lost firm ground, and the guard acts. Beyond an upper limit a frame is
not worth labelling any more: it stops whatever the action is, and is not recorded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from surefoot.motion.surface import Evaluation
from surefoot.settings import Settings

Action = Literal["stop", "warn", "record", "damp"]


class Guard(Settings):
    """When motion is unsure of itself, and what happens then."""

    uncertainty: float | None = Field(
        default=None, gt=0, description="limit of forces_uncertainty_norm, eV/Å"
    )
    ood: float | None = Field(
        default=None, gt=0, description="limit of ood_atoms; 1 is the edge of the training data"
    )
    uncertainty_upper: float | None = Field(
        default=None, gt=0, description="beyond it a frame has exploded: stopped, never recorded"
    )
    ood_upper: float | None = Field(default=None, gt=0, description="the same of ood_atoms")
    every: int = Field(default=10, ge=1, description="steps from check to check")
    consecutive: int = Field(default=1, ge=1, description="checks in a row before it acts")
    action: Action = Field(
        default="stop",
        description="stop: the system ends; warn: a sentence; record: the frame is kept for "
        "labelling; damp: its momenta are multiplied by `damping`, and the frame is kept",
    )
    damping: float = Field(default=0.5, ge=0, lt=1, description="factor of momenta for damp")

    @model_validator(mode="after")
    def _ordered(self) -> Guard:
        if self.uncertainty is None and self.ood is None:
            raise ValueError("a guard needs a limit: set `uncertainty` in eV/Å, `ood`, or both")
        for name in ("uncertainty", "ood"):
            lower, upper = getattr(self, name), getattr(self, f"{name}_upper")
            if upper is not None and (lower is None or upper <= lower):
                raise ValueError(
                    f"`{name}_upper` is {upper} and `{name}` is {lower}; the upper limit must lie "
                    "above a lower one that is set"
                )
        return self


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A guard and whom it tells.

    Attributes:
        guard: limits and action.
        warn: called with a sentence where it acts and the motion goes on.
        record: called with frames worth labelling, see `mark_frame`: for every action but `warn`.
    """

    guard: Guard
    warn: Callable[[str], None] = lambda _: None
    record: Callable[[Atoms], None] = lambda _: None


class NoUncertainty(ValueError):
    """A guard on something that the potential does not say."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one check found.

    Attributes:
        score: (systems) of the worst atom; 1 is the limit.
        atom_scores: (atoms).
        counts: (systems) checks in a row with a score of 1 or more, this one included.
        fired: (systems) where the guard acts.
        exploded: (systems) beyond an upper limit, or with a value that is not finite.
    """

    score: Float[Tensor, " systems"]
    atom_scores: Float[Tensor, " atoms"]
    counts: Int[Tensor, " systems"]
    fired: Bool[Tensor, " systems"]
    exploded: Bool[Tensor, " systems"]


def judge(
    guard: Guard,
    evaluation: Evaluation,
    owner: Int[Tensor, " atoms"],
    counts: Int[Tensor, " systems"],
) -> Verdict:
    """One check of all systems.

    Args:
        guard: the limits.
        evaluation: with uncertainties.
        owner: (atoms) the system of each atom.
        counts: (systems) checks in a row before this one.
    Raises:
        NoUncertainty: if the potential does not give what a limit is set on.
    """
    norm, ood = read_scores(guard, evaluation)
    scores = _scaled(norm, guard.uncertainty, owner)
    scores = torch.maximum(scores, _scaled(ood, guard.ood, owner))
    beyond = torch.zeros(len(owner), dtype=torch.bool)
    for values, upper in ((norm, guard.uncertainty_upper), (ood, guard.ood_upper)):
        if upper is not None and values is not None:
            beyond |= values >= upper
    beyond |= ~scores.isfinite()
    score = scores.new_zeros(len(counts)).scatter_reduce(0, owner, scores, "amax")
    exploded = torch.zeros(len(counts), dtype=torch.bool)
    exploded[owner[beyond]] = True
    above = ~(score < 1)
    counts = torch.where(above, counts + 1, 0)
    return Verdict(
        score=score,
        atom_scores=scores,
        counts=counts,
        fired=(counts >= guard.consecutive) | exploded,
        exploded=exploded,
    )


def read_scores(guard: Guard, evaluation: Evaluation) -> tuple[Tensor | None, Tensor | None]:
    """What the limits are set on: forces_uncertainty_norm and ood_atoms, (atoms) each.

    Raises:
        NoUncertainty: if the potential does not give it.
    """
    norm, ood = evaluation.forces_uncertainty_norm, evaluation.ood_atoms
    if guard.uncertainty is not None and norm is None:
        raise NoUncertainty(
            "the guard has a limit on the uncertainty of forces, but this potential gives none: "
            "train an ensemble or a head that judges, or set `ood` alone."
        )
    if guard.ood is not None and ood is None:
        raise NoUncertainty(
            "the guard has a limit on ood, but this potential has no gate: run `surefoot "
            "calibrate`, or set `uncertainty` alone."
        )
    return (norm if guard.uncertainty is not None else None, ood if guard.ood is not None else None)


def _scaled(values: Tensor | None, limit: float | None, owner: Tensor) -> Tensor:
    if values is None or limit is None:
        return torch.zeros(len(owner), dtype=torch.float64)
    return values / limit


def say_verdict(
    guard: Guard, score: float, atoms: list[int], place: str, *, exploded: bool = False
) -> str:
    """A verdict as a sentence.

    Args:
        guard: the limits.
        score: of the system.
        atoms: those at or above 1.
        place: which system, at which step.
        exploded: whether an upper limit was passed.
    """
    limits = [f"{guard.uncertainty} eV/Å"] if guard.uncertainty is not None else []
    limits += [f"ood {guard.ood}"] if guard.ood is not None else []
    named = ", ".join(map(str, atoms[:8])) + (" …" if len(atoms) > 8 else "")
    times = f"{score:.2f} times the limit" if math.isfinite(score) else "no finite number"
    passed = "; beyond the upper limit, so not worth labelling" if exploded else ""
    of = " or ".join(limits)
    return f"{place}: the potential is unsure, {times} ({of}) at atoms {named}{passed}."


class LostGround(RuntimeError):
    """An ASE run that its guard has stopped; the message says where and why."""


class AseGuard:
    """The guard for runs of ASE's own dynamics, optimisers and bands.

    Attach it: `dynamics.attach(AseGuard(Watch(guard=guard), atoms), interval=guard.every)`. It
    reads the results of `atoms.calc`, which must have been calculated for where the atoms are.

    Args:
        watch: the guard, and whom it tells.
        atoms: what moves, or the image of a band that is looked at.
    """

    def __init__(self, watch: Watch, atoms: Atoms) -> None:
        self.watch, self.atoms = watch, atoms
        self._counts = torch.zeros(1, dtype=torch.int64)
        self._checks = 0

    def __call__(self) -> None:
        """Check the atoms where they are.

        Raises:
            LostGround: if the guard stops the run.
        """
        self._checks += 1
        guard = self.watch.guard
        owner = torch.zeros(len(self.atoms), dtype=torch.int64)
        verdict = judge(guard, self._evaluation(), owner, self._counts)
        self._counts = verdict.counts
        if not verdict.fired[0]:
            return
        exploded = bool(verdict.exploded[0])
        responsible = (~(verdict.atom_scores < 1)).nonzero()[:, 0].tolist()
        place = f"check {self._checks}"
        sentence = say_verdict(
            guard, float(verdict.score[0]), responsible, place, exploded=exploded
        )
        if not exploded and guard.action != "warn":
            self.watch.record(mark_frame(self.atoms.copy(), verdict.atom_scores.numpy()))
        if exploded or guard.action == "stop":
            raise LostGround(sentence)
        self.watch.warn(sentence)
        if guard.action == "damp" and self.atoms.has("momenta"):
            self.atoms.set_momenta(self.atoms.get_momenta() * guard.damping)

    def _evaluation(self) -> Evaluation:
        results = {} if self.atoms.calc is None else self.atoms.calc.results
        names = ("forces_uncertainty_norm", "ood_atoms")
        found = {n: torch.tensor(np.asarray(results[n], float)) for n in names if n in results}
        return Evaluation(
            energy=torch.zeros(1, dtype=torch.float64),
            forces=torch.zeros(len(self.atoms), 3, dtype=torch.float64),
            **found,
        )


def mark_frame(atoms: Atoms, scores: Float[np.ndarray, " atoms"]) -> Atoms:
    """The structure with the scores that made the guard act in info and arrays."""
    atoms.info["guard_score"] = float(scores.max())
    atoms.info["guard_atoms"] = [int(n) for n in np.flatnonzero(~(scores < 1))]
    atoms.arrays["guard_scores"] = np.array(scores)
    return atoms
