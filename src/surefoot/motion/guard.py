"""The guard: motion that knows when it has left what the potential has learned.

A check gives every atom the score

    s = max(forces_uncertainty_norm / limit, ood_atoms / limit)

of the limits that are set, and a system that of its worst atom. A system whose score is 1 or more
in m checks in a row has lost firm ground, and the guard acts: once before the score has been below
1 again where it warns or records, at every check where it damps. Beyond an upper limit a frame is
not worth labelling any more: it stops whatever the action is, and is not recorded.

Where only the first draw moves the atoms, the uncertainty of forces costs an evaluation of all
draws, and what is cheap can be looked at first: `ood`, and standard deviations of energies in
closed form. Below `near_ood` and `near_energy` a system passes the check without asking all draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from surefoot.graph import Graph
from surefoot.motion.slices import take_graphs
from surefoot.motion.surface import Evaluation, Surface
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
    damping: float = Field(default=0.5, gt=0, lt=1, description="factor of momenta for damp")
    near_ood: float | None = Field(
        default=None, gt=0, description="ood of a structure from which on all draws are asked"
    )
    near_energy: float | None = Field(
        default=None,
        gt=0,
        description="energy_uncertainty over √atoms, eV, from which on all draws are asked; for "
        "posteriors that know it in closed form",
    )

    @property
    def screens(self) -> bool:
        """Whether what is cheap is looked at first."""
        return self.near_ood is not None or self.near_energy is not None

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
        if self.screens and self.uncertainty is None:
            raise ValueError(
                "`near_ood` and `near_energy` say where the uncertainty of forces is looked at; "
                "set its limit, `uncertainty`, or leave them out"
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
    asked: Bool[Tensor, " systems"] | None = None,
) -> Verdict:
    """One check of all systems.

    Args:
        guard: the limits.
        evaluation: with uncertainties.
        owner: (atoms) the system of each atom.
        counts: (systems) checks in a row before this one.
        asked: (systems) of whom the uncertainty of forces counts, see `look_closer`; all where
            not given. Of the others only `ood` is judged.
    Raises:
        NoUncertainty: if the potential does not give what a limit is set on.
    """
    norm, ood = read_scores(guard, evaluation)
    if norm is not None and asked is not None:
        norm = torch.where(asked[owner], norm, 0.0)
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
    once = guard.action in ("warn", "record")
    lost = counts == guard.consecutive if once else counts >= guard.consecutive
    return Verdict(
        score=score,
        atom_scores=scores,
        counts=counts,
        fired=lost | exploded,
        exploded=exploded,
    )


def look_closer(
    guard: Guard,
    surface: Surface,
    graph: Graph,
    quick: Evaluation,
    due: Bool[Tensor, " systems"] | None = None,
) -> tuple[Evaluation, Bool[Tensor, " systems"]]:
    """Uncertainties of the systems that may be near the limits, and which these are.

    Which these are does not depend on what `quick` knows already: a check finds the same whether
    or not its frame is one that shows all uncertainties.

    Args:
        guard: the limits.
        surface: what is asked.
        graph: the batch.
        quick: of it, from `surface`; where it holds the uncertainty of forces, nobody is asked.
        due: (systems) that are checked now; all where not given.
    Returns:
        `quick` with uncertainties, nan where nobody was asked; (systems) that are near.
    Raises:
        NoUncertainty: if the potential does not give what is looked at first.
    """
    near = find_near(guard, quick, graph.atom_counts)
    near = near if due is None else near & due
    if quick.forces_uncertainty_norm is not None:
        return quick, near
    norm = torch.full_like(quick.forces[:, 0], torch.nan)
    energy = quick.energy_uncertainty
    energy = torch.full_like(quick.energy, torch.nan) if energy is None else energy.clone()
    if near.any():
        # The first draw too, once more: a surface has no other way to be asked.
        closer = surface(take_graphs(graph, near), stress=False, uncertainty=True)
        known, _ = read_scores(guard, closer)
        if known is not None:
            norm[near[graph.graph_index]] = known
        if closer.energy_uncertainty is not None:
            energy[near] = closer.energy_uncertainty
    return replace(quick, forces_uncertainty_norm=norm, energy_uncertainty=energy), near


def require_scores(guard: Guard, surface: Surface, graph: Graph) -> None:
    """Refuse a guard on what a surface does not say, by what it says of the first structure.

    Args:
        guard: the limits.
        surface: what moves the atoms.
        graph: the batch.
    Raises:
        NoUncertainty: if the potential does not give what a limit is set on, or is looked at first.
    """
    alone = take_graphs(graph, torch.arange(len(graph.charge)) == 0)
    if guard.screens:
        quick = surface(alone, stress=False, uncertainty=False)
        find_near(guard, quick, alone.atom_counts)
    read_scores(guard, surface(alone, stress=False, uncertainty=guard.uncertainty is not None))


def find_near(
    guard: Guard, quick: Evaluation, atoms: Int[Tensor, " systems"]
) -> Bool[Tensor, " systems"]:
    """Systems that may be near the limits, by what is cheap; all of them for a guard that has none.

    Args:
        guard: its `near_ood` and `near_energy`.
        quick: without the uncertainty of forces.
        atoms: (systems) in each.
    Raises:
        NoUncertainty: if the potential does not give it.
    """
    near = torch.full(quick.energy.shape, not guard.screens)
    if guard.near_ood is not None:
        if quick.ood is None:
            raise NoUncertainty(
                "the guard looks at ood first, but this potential has no gate: run `surefoot "
                "calibrate`, or leave `near_ood` out."
            )
        near |= ~(quick.ood < guard.near_ood)
    if guard.near_energy is not None:
        if quick.energy_uncertainty is None:
            raise NoUncertainty(
                "the guard looks at the uncertainty of energies first, but this potential has none "
                "that needs no draws: a Laplace approximation of the last layer has, or leave "
                "`near_energy` out."
            )
        near |= ~(quick.energy_uncertainty / atoms.sqrt() < guard.near_energy)
    return near


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


def mark_frame(atoms: Atoms, scores: Float[np.ndarray, " atoms"]) -> Atoms:
    """The structure with the scores that made the guard act in info and arrays."""
    atoms.info["guard_score"] = float(scores.max())
    atoms.info["guard_atoms"] = [int(n) for n in np.flatnonzero(~(scores < 1))]
    atoms.arrays["guard_scores"] = np.array(scores)
    return atoms
