"""The training loss: weighted means of scores over what is labelled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from surefoot.graph import Graph, Targets
from surefoot.prediction import Output
from surefoot.settings import Settings


class LossSettings(Settings):
    """L = w_E ⟨score(E / N^p)⟩ + w_F ⟨score(F)⟩ + w_S ⟨score(σ)⟩.

    Means run over labelled graphs, labelled force components (atoms for the norm) and labelled
    stress components. Energies count in eV per atom to the power p, forces in eV/Å, stress in
    eV/Å³.
    """

    energy: float = Field(default=1.0, ge=0, description="weight of the energy per atom")
    forces: float = Field(default=1.0, ge=0, description="weight of the forces")
    stress: float = Field(default=0.0, ge=0, description="weight of the stress")
    energy_rule: Literal["squared", "absolute", "huber"] = "squared"
    forces_rule: Literal["squared", "absolute", "huber", "norm"] = "squared"
    stress_rule: Literal["squared", "absolute", "huber"] = "squared"
    energy_power: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="p: 1 divides the energy error by the atoms, 0 leaves it whole",
    )

    @model_validator(mode="after")
    def _learns_something(self) -> LossSettings:
        if self.energy == self.forces == self.stress == 0:
            raise ValueError(
                "the weights of energy, forces and stress are all 0, so nothing would be learned; "
                "set at least one"
            )
        return self


def label_weights(
    targets: Targets,
    graph_index: Int[Tensor, " atoms"],
    importance: Float[Tensor, "*members graphs"],
) -> dict[str, Float[Tensor, "*members labels"]]:
    """The weight of each label in its mean, 0 where there is none.

    Args:
        targets: labels of a batch.
        graph_index: (atoms) graph of each atom.
        importance: weight of each graph for each member; 0 leaves it out.
    Returns:
        name → (members, graphs) for energy and stress, (members, atoms) for forces.
    """
    weight = importance * targets.weight
    return {
        "energy": weight * targets.has_energy,
        "forces": (weight * targets.has_forces)[..., graph_index] * ~targets.fixed,
        "stress": weight * targets.has_stress,
    }


def loss_terms(
    output: Output,
    graph: Graph,
    targets: Targets,
    settings: LossSettings,
    importance: Float[Tensor, "*members graphs"],
    counts: Mapping[str, Float[Tensor, "*members"]] | None = None,
) -> dict[str, Float[Tensor, "*members"]]:
    """Each term of the loss, unweighted, per member.

    Args:
        output: of one set of weights or of stacked members.
        graph: the batch.
        targets: its labels.
        settings: rules and the power of N.
        importance: weight of each graph for each member; 0 leaves it out.
        counts: what the mean of each name is divided by, the sum of `label_weights`, where this is
            a part of a batch and the terms of all parts are to add up to those of the whole; of
            this batch itself where not given.
    Returns:
        name → (members) or scalar; a term whose weight is zero is not there.
    """
    weights = label_weights(targets, graph.graph_index, importance)
    counts = counts or {name: weight.sum(-1) for name, weight in weights.items()}
    terms = {}
    if settings.energy > 0:
        size = graph.atom_counts.to(torch.float64) ** settings.energy_power
        score = output.energy.affine(1 / size, 0.0).score(
            targets.energy / size, settings.energy_rule
        )
        terms["energy"] = _mean(score, weights["energy"], counts["energy"])
    if settings.forces > 0 and output.forces is not None:
        score = output.forces.score(
            targets.forces.to(output.forces.mean.dtype), settings.forces_rule
        )
        terms["forces"] = _mean(score, weights["forces"], counts["forces"])
    if settings.stress > 0 and output.stress is not None:
        score = output.stress.score(
            targets.stress.to(output.stress.mean.dtype), settings.stress_rule
        )
        # Without a volume the stress is not a number: left out before it meets a zero weight.
        score = torch.where(targets.has_stress[:, None, None], score, 0.0)
        terms["stress"] = _mean(score, weights["stress"], counts["stress"])
    return terms


def total_loss(
    terms: Mapping[str, Float[Tensor, "*members"]], settings: LossSettings
) -> Float[Tensor, "*members"]:
    """The weighted sum of the terms."""
    weighted = [getattr(settings, name) * term for name, term in terms.items()]
    return torch.stack(weighted).sum(0)


def _mean(score: Tensor, weight: Tensor, count: Tensor) -> Tensor:
    """Mean over all axes that belong to one member; 0 where nothing counts."""
    inner = score.dim() - weight.dim()
    for _ in range(inner):
        score = score.mean(-1)
    return (score * weight.to(score)).sum(-1) / torch.where(count > 0, count, 1.0).to(score)
