"""The training loss: weighted means of scores over what is labelled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from surefoot.distributions.densities import SCORES, Distribution
from surefoot.graph import Graph, Targets
from surefoot.heads import Head
from surefoot.prediction import Output
from surefoot.settings import Settings


class Warmup(Settings):
    """Squared errors before the loss itself, for heads that judge, with weights of their own."""

    epochs: int = Field(default=0, ge=0, description="with squared errors; 0 for none")
    energy: float = Field(default=1.0, ge=0, description="weight of the energy meanwhile")
    forces: float = Field(default=1.0, ge=0, description="weight of the forces meanwhile")
    stress: float = Field(default=0.0, ge=0, description="weight of the stress meanwhile")


class LossSettings(Settings):
    """L = w_E ⟨score(E / N^p)⟩ + w_F ⟨score(F)⟩ + w_S ⟨score(σ)⟩.

    Means run over labelled graphs, labelled force components (atoms for the norm and for
    densities) and labelled stress components. Energies count in eV per atom to the power p,
    forces in eV/Å, stress in eV/Å³.

    With the rule nll for both it is the joint energy-force likelihood NLL_JEF (Willow et al.,
    arXiv:2510.03046),

        L = w_E ⟨−ln N(E | μ_E, σ_E²)⟩ + w_F ⟨−ln N(F_i | μ_i, Σ_i)⟩

    It is tempered: a likelihood of all labels would count each of the N atoms of a structure as it
    counts its energy (w_F = N w_E), and here both are means. Differs: the paper weighs the residual
    alone and not the determinant (`weighting: residual`), so that its σ come out √w too large;
    here σ is right whatever the weights.
    """

    energy: float = Field(default=1.0, ge=0, description="weight of the energy per atom")
    forces: float = Field(default=1.0, ge=0, description="weight of the forces")
    stress: float = Field(default=0.0, ge=0, description="weight of the stress")
    energy_rule: Literal["squared", "absolute", "huber", "nll", "beta_nll", "cross_entropy"] = (
        Field(
            default="squared",
            description="nll and beta_nll need variances, cross_entropy histograms",
        )
    )
    forces_rule: Literal[
        "squared", "absolute", "huber", "norm", "nll", "beta_nll", "cross_entropy"
    ] = Field(
        default="squared",
        description="nll and beta_nll need variances, cross_entropy histograms",
    )
    stress_rule: Literal["squared", "absolute", "huber"] = "squared"
    energy_power: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="p: 1 divides the energy error by the atoms, 0 leaves it whole",
    )
    beta: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="beta_nll: the likelihood of k numbers times (det Σ)^(β/k), Σ in eV/atom^p or "
        "eV/Å squared; 0: the likelihood; 1: the mean moves as with squared errors",
    )
    weighting: Literal["likelihood", "residual"] = Field(
        default="likelihood",
        description="what the weight of a nll multiplies; residual: all but the determinant, which "
        "makes σ too large by the root of the weight",
    )
    warmup: Warmup = Warmup()

    @model_validator(mode="after")
    def _learns_something(self) -> LossSettings:
        if self.energy == self.forces == self.stress == 0:
            raise ValueError(
                "the weights of energy, forces and stress are all 0, so nothing would be learned; "
                "set at least one"
            )
        warm = self.warmup
        if warm.epochs and warm.energy == warm.forces == warm.stress == 0:
            raise ValueError(
                "the weights of the warm-up are all 0, so nothing would be learned in it; set at "
                "least one of `warmup: {energy, forces, stress}`"
            )
        if self.weighting == "residual" and "nll" not in (self.energy_rule, self.forces_rule):
            raise ValueError(
                "weighting: residual is one of likelihoods, and no rule is nll; set "
                "`energy_rule: nll` or `forces_rule: nll`, or leave weighting out"
            )
        return self

    def in_epoch(self, epoch: int) -> LossSettings:
        """The loss of an epoch, counted from 0: squared errors in the warm-up, then itself."""
        warm = self.warmup
        if epoch >= warm.epochs:
            return self if warm.epochs == 0 else self.model_copy(update={"warmup": Warmup()})
        return LossSettings(
            energy=warm.energy,
            forces=warm.forces,
            stress=warm.stress,
            energy_power=self.energy_power,
        )

    def for_validation(self) -> LossSettings:
        """The same with scores that are lowest where the prediction is true, to choose by."""
        rules = {
            name: "nll"
            for name in ("energy_rule", "forces_rule")
            if getattr(self, name) == "beta_nll"
        }
        return self.model_copy(update=rules) if rules else self


def require_rules(
    settings: LossSettings, head: Head, epochs: int, learned: Collection[str]
) -> None:
    """Refuse a loss from which the weights that move would not all learn.

    Args:
        settings: the loss.
        head: the head, with its bins where it has any.
        epochs: of the training.
        learned: names of the weights that move.
    Raises:
        ValueError: naming the rule and those that will do, or what would not learn.
    """
    for name, taught_by in head.rules.items():
        rules = [*taught_by, "beta_nll"] if "nll" in taught_by else list(taught_by)
        rule, allowed = getattr(settings, f"{name}_rule"), ", ".join(rules)
        judged = not set(rules) & set(SCORES)
        if getattr(settings, name) > 0 and rule not in rules:
            why = "would leave its error bars at their first guess" if judged else "needs another"
            raise ValueError(
                f"loss: {{{name}_rule: {rule}}} does not go with head: {{energy: {head.energy}}}, "
                f"it {why}; set {name}_rule to {allowed}, or choose another head."
            )
        # Of a gradient, energies learn from forces and forces from energies.
        apart = judged or "cross_entropy" in rules or head.forces != "gradient"
        if getattr(settings, name) == 0 and apart:
            raise ValueError(
                f"loss: {{{name}: 0}} would leave weights of head: {{energy: {head.energy}, "
                f"forces: {head.forces}}} at their first guess; give {name} a weight, or choose "
                "another head."
            )
    stress = max(settings.stress, settings.warmup.stress if settings.warmup.epochs else 0.0)
    if stress > 0 and head.forces != "gradient":
        raise ValueError(
            f"loss: {{stress: {stress:g}}} does not go with head: {{forces: {head.forces}}}, whose "
            "potentials give no stress; set it to 0, or set forces to gradient."
        )
    judging = tuple(f"head.{prefix}" for prefix in head.judging())
    _require_teaching(settings, epochs, learned, judging)


def _require_teaching(
    settings: LossSettings, epochs: int, learned: Collection[str], judging: tuple[str, ...]
) -> None:
    """Refuse a phase of the loss that teaches nothing of what moves, or not all of it."""
    warm = settings.warmup.epochs
    makes_energy = any(not name.startswith(judging) for name in learned)
    if warm >= epochs:
        raise ValueError(
            f"loss: {{warmup: {{epochs: {warm}}}}} leaves none of the {epochs} epochs of training "
            "to the loss itself; make it shorter."
        )
    if warm and learned and not makes_energy:
        raise ValueError(
            f"loss: {{warmup: {{epochs: {warm}}}}} is about energies and forces, and all weights "
            "that move here judge them; leave the warm-up out."
        )
    rules = [getattr(settings, f"{n}_rule") for n in ("energy", "forces") if getattr(settings, n)]
    if judging and makes_energy and all(rule == "cross_entropy" for rule in rules):
        raise ValueError(
            "a histogram of errors learns about energies and forces that stay as they are, and "
            "weights that make them are among those that move; set `start: {learn: judges}`."
        )


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
        settings: rules, weighting and the power of N.
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
        energy = output.energy.affine(1 / size, 0.0)
        score = _score(energy, targets.energy / size, settings, "energy")
        terms["energy"] = _mean(score, weights["energy"], counts["energy"])
    if settings.forces > 0 and output.forces is not None:
        forces = targets.forces.to(output.forces.mean.dtype)
        score = _score(output.forces, forces, settings, "forces")
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


def _score(
    distribution: Distribution,
    target: Tensor,
    settings: LossSettings,
    name: Literal["energy", "forces"],
) -> Tensor:
    """The score of each label, such that its weight is what `weighting` says.

    beta_nll is (det Σ)^(β/k) nll for k numbers, with no gradient through the first factor. Its
    value is no proper score.

    Source: Seitzer et al. 2022 (arXiv:2203.09168), there for one number.
    """
    rule = settings.energy_rule if name == "energy" else settings.forces_rule
    if rule == "beta_nll":
        power = settings.beta / {"energy": 1, "forces": 3}[name]
        factor = (power * distribution.score(target, "log_determinant")).exp().detach()
        return factor * distribution.score(target, "nll")
    if rule != "nll" or settings.weighting == "likelihood":
        return distribution.score(target, rule)
    residual = distribution.score(target, "mahalanobis")
    determinant = distribution.score(target, "log_determinant")
    return 0.5 * (residual + determinant / getattr(settings, name))


def _mean(score: Tensor, weight: Tensor, count: Tensor) -> Tensor:
    """Mean over all axes that belong to one member; 0 where nothing counts."""
    inner = score.dim() - weight.dim()
    for _ in range(inner):
        score = score.mean(-1)
    return (score * weight.to(score)).sum(-1) / torch.where(count > 0, count, 1.0).to(score)
