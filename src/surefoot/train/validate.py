"""Validation: each member is judged by the samples it never learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.blocks.dense import Weights, under
from surefoot.data.batches import EVALUATION, Batch, join, plan_batches
from surefoot.data.convert import Sample
from surefoot.members import take_members
from surefoot.potential import Potential
from surefoot.prediction import Output
from surefoot.train.distributed import ALONE, Team, add_up, take_part
from surefoot.train.loss import LossSettings, loss_terms, total_loss
from surefoot.train.variances import count_lost, refuse_lost

WATCHED = 64
"""Training frames on which variances are watched where nobody judges."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Validation of all members.

    Attributes:
        scores: (members) the training loss on what the member did not learn from.
        errors: mean absolute errors over members, `valid_energy_mae` in eV/atom and
            `valid_forces_mae` in eV/Å, where there are labels.
    """

    scores: Float[Tensor, "*members"]
    errors: dict[str, float]


def judge(
    potential: Potential,
    loss: LossSettings,
    weights: Weights,
    samples: Sequence[Sample],
    judges: Bool[Tensor, "*members samples"],
    team: Team = ALONE,
) -> Verdict | None:
    """Validate every member on its own judges; None if any member has none.

    Without judges variances are still watched, on some of the frames that are learned from.

    Samples judged by the same members are evaluated with just these members' weights, so a fold
    costs its share and no more; members may share a model. Several processes share out each batch
    as in training, and all find the same verdict.

    Raises:
        FloatingPointError: if the variances of a member have collapsed or exploded.
    """
    single = judges.dim() == 1
    table = judges[None] if single else judges
    if not bool(table.any(1).all()):
        _watch_variances(potential, loss, weights, samples, len(table))
        return None
    sums = torch.zeros(table.shape[0], dtype=torch.float64)
    counts = torch.zeros(table.shape[0], dtype=torch.float64)
    errors: dict[str, list[float]] = {"energy": [0.0, 0.0], "forces": [0.0, 0.0]}
    lost = {name: torch.zeros((table.shape[0], 3), dtype=torch.float64) for name in errors}
    patterns, inverse = np.unique(table.numpy().T, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        members = np.flatnonzero(pattern)
        if len(members) == 0:
            continue
        part = weights if single else take_members(weights, torch.as_tensor(members))
        for indices in plan_batches(
            samples, np.flatnonzero(inverse.ravel() == number), EVALUATION.shared_by(len(members))
        ):
            counts[members] += len(indices)
            shape = (len(indices),) if single else (len(members), len(indices))
            mine = take_part(team, samples, indices, torch.ones(shape, dtype=torch.float64))
            if mine is None:
                continue
            batch = mine.batch
            output = potential(part, batch.graph, forces=loss.forces > 0, stress=loss.stress > 0)
            terms = loss_terms(
                output, batch.graph, batch.targets, loss, mine.importance, mine.counts
            )
            sums[members] += total_loss(terms, loss).detach().double() * len(indices)
            _add_errors(errors, output, batch)
            scale = potential.baseline.scale
            for name, few in count_lost(output, batch.graph, batch.targets, loss, scale).items():
                lost[name][members] += few
    found = {name: torch.tensor(pair, dtype=torch.float64) for name, pair in errors.items()}
    found = add_up(team, found | under("lost", lost) | {"sums": sums})
    refuse_lost({name: found.pop(f"lost.{name}") for name in lost}, "unseen")
    scores = found.pop("sums") / counts
    means = {f"valid_{n}_mae": float(total / count) for n, (total, count) in found.items() if count}
    return Verdict(scores=scores[0] if single else scores, errors=means)


def _watch_variances(
    potential: Potential,
    loss: LossSettings,
    weights: Weights,
    samples: Sequence[Sample],
    members: int,
) -> None:
    """Refuse variances that are lost on evenly spaced frames; every process looks at the same."""
    if "nll" not in (loss.energy_rule, loss.forces_rule):
        return
    chosen = np.linspace(0, len(samples) - 1, min(WATCHED, len(samples))).round().astype(int)
    lost: dict[str, Tensor] = {}
    for indices in plan_batches(samples, chosen, EVALUATION.shared_by(members)):
        batch = join(samples, indices)
        output = potential(weights, batch.graph, forces=loss.forces > 0)
        scale = potential.baseline.scale
        for name, few in count_lost(output, batch.graph, batch.targets, loss, scale).items():
            lost[name] = few + lost.get(name, 0.0)
    refuse_lost({name: count.reshape(members, 3) for name, count in lost.items()}, "training")


def _add_errors(errors: dict[str, list[float]], output: Output, batch: Batch) -> None:
    targets, graph = batch.targets, batch.graph
    energy = ((output.energy.mean.detach() - targets.energy) / graph.atom_counts).abs()
    energy = energy[..., targets.has_energy]
    errors["energy"][0] += float(energy.sum())
    errors["energy"][1] += energy.numel()
    if output.forces is not None:
        counted = targets.has_forces[graph.graph_index] & ~targets.fixed
        forces = (output.forces.mean.detach() - targets.forces).abs()[..., counted, :]
        errors["forces"][0] += float(forces.sum())
        errors["forces"][1] += forces.numel()
