"""Laplace approximations about a trained potential: of the last layer, or of all weights.

*Last layer.* With f the derivative of an energy with respect to the K weights of the last linear
maps of all read-out layers (their summed inputs, and a count of atoms for each bias) and
g = −df/dr, energy and forces are linear in these weights. With their noise s_E and s_F, and a prior
of precision δ,

    P = Σ f fᵀ / s_E² + Σ g gᵀ / s_F² + δ I
    Cov(E_a, E_b) = f_aᵀ P⁻¹ f_b          Cov(F_i) = G_i P⁻¹ G_iᵀ

is exact Bayesian regression with rows for energies and for forces: the covariance of the energies
costs no draw, and that of forces turns with the structure. Daxberger et al. 2021, arXiv:2106.14806;
for potentials Bigi et al. 2024, doi 10.1088/2632-2153/ad805f, who have rows for energies only.

G takes a backward pass per weight. S balanced draws take S: with R a random orthonormal basis of
S − 1 of the K whitened directions and Q one of what is orthogonal to the mean of S numbers,

    θ_s = θ + √K Σ_j Q_sj W R_j          P⁻¹ = W Wᵀ

so their mean is θ, their covariance has the mean P⁻¹, and with S = K + 1 draws it is P⁻¹.

*All weights.* The diagonal of the Gauss-Newton matrix Σ (∂o/∂θ)² / s², over energies and force
components o, by random signs v, since ⟨(Σ v_o ∂o/∂θ)²⟩ = Σ (∂o/∂θ)². Predictions are made by draws,
through all layers. Willow et al., arXiv:2510.03046, fit one such matrix for each quantity.

s_E, s_F and δ maximise the marginal likelihood where they are not set (`evidence.py`). Nothing
shifts the weights. Float64 throughout but for the derivatives, which come in the precision of the
potential.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.data.batches import EVALUATION, Batch, BatchLimits, join, plan_batches
from surefoot.data.convert import Sample
from surefoot.heads import Head, Scalar, Sphere
from surefoot.members import precision
from surefoot.posteriors.evidence import Rows, find_scales, sum_rows
from surefoot.posteriors.gaussian import DiagonalLaplace
from surefoot.posteriors.last_layer import (
    LastLayer,
    flatten_out,
    require_last_layer,
    to_heads,
)
from surefoot.posteriors.posterior import Fitting, OneSet, Posterior
from surefoot.potential import Potential
from surefoot.train.fit import Task, TrainSettings
from surefoot.train.loss import LossSettings
from surefoot.train.state import State

CURVATURE = BatchLimits(graphs=4)
"""Batches of the diagonal: each probe is one number, however many structures it sums over."""


class LaplaceSettings(OneSet):
    """Which weights vary, and what is known of noise and prior."""

    name: Literal["laplace"] = "laplace"
    weights: Literal["last_layer", "all"] = Field(
        default="last_layer",
        description="last_layer: exact for the last linear maps; all: a diagonal for all weights",
    )
    energy_noise: float | None = Field(
        default=None, gt=0, description="s_E, eV; by the marginal likelihood where not set"
    )
    forces_noise: float | None = Field(
        default=None, gt=0, description="s_F, eV/Å; by the marginal likelihood where not set"
    )
    prior: float | None = Field(
        default=None, gt=0, description="δ, precision; by the marginal likelihood where not set"
    )
    draws: int = Field(
        default=8,
        ge=1,
        description="sets of weights a prediction mixes. With last_layer only forces and stress "
        "need them: 1 gives none of these an error bar, last-layer weights + 1 is exact",
    )
    probes: int = Field(
        default=4, ge=0, description="all: random signs per batch; 0 takes every output by itself"
    )

    def fitting(
        self,
        learnt: int,  # noqa: ARG002
        settings: TrainSettings,  # noqa: ARG002
        loss: LossSettings,
        head: Head,
    ) -> Fitting:
        """Training as it is: the approximation comes after.

        Raises:
            ValueError: if the last layer is asked for and the head has none to work on.
        """
        if self.weights == "last_layer":
            require_last_layer(head)
        note = (
            "the Laplace approximation takes rows of energies and forces alone: labels of stress, "
            "from which the weights learn, do not narrow it"
        )
        return Fitting(note=note if loss.stress > 0 else None)

    def posterior(self, task: Task, state: State) -> Posterior:
        """The approximation about the best weights, from the frames they learned from."""
        learnt = np.flatnonzero((task.roles.learn > 0).reshape(-1, len(task.samples)).any(0))
        samples = [task.samples[index] for index in learnt.tolist()]
        fit = {"last_layer": fit_last_layer, "all": fit_diagonal}[self.weights]
        return fit(task.potential, task.fixed | state.best, samples, task.loss, self)


def fit_last_layer(
    potential: Potential,
    weights: Weights,
    samples: Sequence[Sample],
    loss: LossSettings,
    settings: LaplaceSettings,
) -> LastLayer:
    """The exact posterior of the last linear maps.

    Args:
        potential: model and head.
        weights: one set, the point.
        samples: what it has learned from.
        loss: which labels count: those it has learned from.
        settings: noise, prior and draws.
    Raises:
        ValueError: if the energy is not linear in its last weights, or nothing is labelled.
    """
    theta = flatten_out(potential.head, weights)
    size = len(theta)
    read = _read_last_layer(potential, weights, size)

    def products(batch: Batch, labelled: Mapping[str, Tensor]) -> dict[str, Tensor]:
        output = read(batch)
        rows = {name: output[name].double()[:, mask] for name, mask in labelled.items()}
        flat = {name: part.reshape(size, -1) for name, part in rows.items()}
        return {name: part @ part.T for name, part in flat.items()}

    rows = _gather(potential, weights, samples, loss, EVALUATION, products)
    scales = find_scales(rows, float(theta.square().sum()), _noise(settings), settings.prior)
    precision = sum_rows(rows, scales.noise) + scales.prior * torch.eye(size, dtype=torch.float64)
    return LastLayer(point=weights, factor=invert(precision), natural=min(settings.draws, size + 1))


def fit_diagonal(
    potential: Potential,
    weights: Weights,
    samples: Sequence[Sample],
    loss: LossSettings,
    settings: LaplaceSettings,
) -> DiagonalLaplace:
    """A diagonal Gaussian over all weights that make energies; see `fit_last_layer`."""
    judging = tuple(f"head.{prefix}" for prefix in potential.head.judging())
    mean = {n: weights[n] for n in sorted(weights) if not n.startswith(judging)}
    fixed = {name: value for name, value in weights.items() if name not in mean}
    generator = torch.Generator().manual_seed(0)

    def products(batch: Batch, labelled: Mapping[str, Tensor]) -> dict[str, Tensor]:
        leaves = {name: value.detach().requires_grad_() for name, value in mean.items()}
        output = potential(fixed | leaves, batch.graph, differentiable=True)
        return {
            name: _square_slopes(
                getattr(output, name).mean[mask], list(leaves.values()), settings.probes, generator
            )
            for name, mask in labelled.items()
        }

    rows = _gather(potential, weights, samples, loss, CURVATURE, products)
    norm = sum(float(value.double().square().sum()) for value in mean.values())
    scales = find_scales(rows, norm, _noise(settings), settings.prior)
    variance = 1.0 / (sum_rows(rows, scales.noise) + scales.prior)
    parts = variance.split([value.numel() for value in mean.values()])
    return DiagonalLaplace(
        mean=mean,
        variance={
            n: v.reshape(mean[n].shape).to(mean[n]) for n, v in zip(mean, parts, strict=True)
        },
        natural=max(2, settings.draws),
        fixed=fixed,
    )


def _square_slopes(
    outputs: Tensor, leaves: Sequence[Tensor], probes: int, generator: torch.Generator
) -> Float[Tensor, " weights"]:
    """Σ_o (∂o/∂θ)², exactly without probes, else as the mean over random signs."""
    flat = outputs.reshape(-1)
    signs = torch.eye(len(flat), dtype=flat.dtype)
    if probes:
        bits = torch.randint(2, (probes, len(flat)), generator=generator)
        signs = (2 * bits - 1).to(flat.dtype)
    total = torch.zeros(sum(leaf.numel() for leaf in leaves), dtype=torch.float64)
    for sign in signs:
        slopes = torch.autograd.grad(
            flat, leaves, sign, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        total += torch.cat([slope.reshape(-1) for slope in slopes]).double().square()
    return total / max(1, probes)


def invert(precision: Float[Tensor, "weights weights"]) -> Float[Tensor, "weights weights"]:
    """W with P⁻¹ = W Wᵀ, by Cholesky after each weight was put in its own unit.

    Raises:
        ValueError: if P is not positive definite to rounding.
    """
    unit = precision.diagonal().rsqrt()
    factor, failed = torch.linalg.cholesky_ex(unit[:, None] * precision * unit)
    if int(failed):
        raise ValueError(
            "the precision of the last layer is not positive definite to rounding: some of its "
            "weights do the same; set a larger `posterior: {prior: …}`."
        )
    identity = torch.eye(len(unit), dtype=precision.dtype)
    inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
    return unit[:, None] * inverse.T


def _read_last_layer(
    potential: Potential, weights: Weights, size: int
) -> Callable[[Batch], dict[str, Tensor]]:
    """F (weights, graphs) and g (weights, atoms, 3): energies and forces where one weight is 1."""
    zeros = (0.0,) * len(potential.baseline.elements)
    bare = replace(
        potential,
        head=_without_constants(potential.head),
        baseline=replace(potential.baseline, energies=zeros, repulsion=None),
    )
    units = to_heads(weights, torch.eye(size, dtype=precision(weights)))
    rest = {n: v for n, v in weights.items() if n.startswith(("model.", "head.layer"))}

    def read(batch: Batch) -> dict[str, Tensor]:
        output = bare(rest | units, batch.graph)
        if output.forces is None:
            raise ValueError("the potential gave no forces.")
        return {"energy": output.energy.mean.detach(), "forces": output.forces.mean.detach()}

    return read


def _without_constants(head: Head) -> Head:
    """The head that makes the energies, without what judges or does not depend on weights."""
    if head.judging():  # beyond that they are scalar heads
        return Scalar(**{n: getattr(head, n) for n in Scalar.model_fields if n != "energy"})
    return head.model_copy(update={"offset": 0.0}) if isinstance(head, Sphere) else head


def _gather(
    potential: Potential,
    weights: Weights,
    samples: Sequence[Sample],
    loss: LossSettings,
    limits: BatchLimits,
    products_of: Callable[[Batch, Mapping[str, Tensor]], dict[str, Tensor]],
) -> dict[str, Rows]:
    """Products of derivatives, and squared residuals, over all labels that were learned from."""
    total: dict[str, Rows] = {}
    for indices in plan_batches(samples, np.arange(len(samples)), limits):
        batch = join(samples, indices)
        targets, owner = batch.targets, batch.graph.graph_index
        masks = {
            "energy": targets.has_energy,
            "forces": targets.has_forces[owner] & ~targets.fixed,
        }
        labelled = {n: m for n, m in masks.items() if getattr(loss, n) > 0 and bool(m.any())}
        output = potential(weights, batch.graph)
        products = products_of(batch, labelled)
        for name, mask in labelled.items():
            residual = (getattr(output, name).mean.detach() - getattr(targets, name))[mask]
            part = Rows(
                products=products[name],
                squares=float(residual.double().square().sum()),
                count=residual.numel(),
            )
            total[name] = total[name] + part if name in total else part
    return total


def _noise(settings: LaplaceSettings) -> dict[str, float | None]:
    given = {"energy": settings.energy_noise, "forces": settings.forces_noise}
    return {name: None if value is None else value**2 for name, value in given.items()}
