"""Uncertainty-biased motion: an energy that pulls atoms to where the potential is unsure.

With u the uncertainty of a structure, a depth A and a width B,

    U = −A (1 − exp(−u² / 2B²))        F = −dU/dr = (A / 2B²) exp(−u² / 2B²) d(u²)/dr

so U never exceeds A, and its pull fades where u has grown far beyond B. u is either the spread of
the draws d alone, times the factor of calibration,

    σ_E / √atoms, from draws:  d(σ_E²)/dr = −2/(draws − 1) Σ_d (E_d − E) (F_d − F)

which needs nothing but the energies and forces that a prediction holds anyway, or `ood`, whose
slope takes one derivative through the features.

Source: Kulichenko et al., Nat. Comput. Sci. 3 (2023) 230, with u² = σ_E² / (members · atoms).
Differs: σ_E is calibrated; `ood`; stress. σ_E leaves out what a head itself says of noise, which is
part of `energy_uncertainty` and no gradient of which is at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from surefoot.graph import Graph
from surefoot.posteriors.gate import gate_slope
from surefoot.posteriors.predictor import Predictor, knows_energies
from surefoot.prediction import Prediction
from surefoot.settings import Settings


class Bias(Settings):
    """What pulls, how far, and how soon it lets go."""

    of: Literal["energy", "ood"] = Field(
        description="energy: spread of the energies of the draws over √atoms, eV; ood: distance "
        "to the training data"
    )
    depth: float = Field(gt=0, description="the most that it lowers the energy of a structure, eV")
    width: float = Field(
        gt=0, description="uncertainty beyond which it lets go, eV of energy and no unit of ood"
    )


@dataclass(frozen=True, kw_only=True)
class Push:
    """A bias at a batch, in float64.

    Attributes:
        energy: (graphs) U, eV.
        forces: (atoms, 3) −dU/dr, eV/Å.
        stress: (graphs, 3, 3) dU/dε / V, eV/Å³; None where it was not asked for.
    """

    energy: Float[Tensor, " graphs"]
    forces: Float[Tensor, "atoms 3"]
    stress: Float[Tensor, "graphs 3 3"] | None = None


class NothingToPull(ValueError):
    """A bias on something that the potential does not say."""


def require_bias(bias: Bias, predictor: Predictor, *, alone: bool) -> None:
    """Refuse a bias that the potential can not give; what only an answer shows, `find_push` does.

    Args:
        bias: what is asked for.
        predictor: what moves the atoms.
        alone: whether its first draw moves them, and the others are not asked.
    Raises:
        NothingToPull: if so.
    """
    if bias.of == "ood" and predictor.gate is None:
        raise NothingToPull(
            "a bias on ood needs a gate, and this potential has none: run `surefoot calibrate`, or "
            "take the bias on energy."
        )
    if bias.of == "ood":
        return
    if predictor.draws < 2:
        raise NothingToPull(
            "a bias on energy needs the spread of several draws, and this potential has one set of "
            "weights: train an ensemble, or take the bias on ood."
        )
    if alone:
        raise NothingToPull(
            "a bias on energy needs all draws at every step, and only the first is to move the "
            "atoms: drive by the mean, or take the bias on ood."
        )
    forces = predictor.potential.head.forces
    if forces != "gradient":
        raise NothingToPull(
            f"a bias on energy pulls along the forces of the draws, and those of this potential "
            f"are {forces} and no slope of its energy: take the bias on ood."
        )
    if knows_energies(predictor):
        raise NothingToPull(
            "a bias on energy pulls by the spread of draws, and this potential knows that of "
            "energies in closed form, which is another: take the bias on ood."
        )


def find_push(bias: Bias, predictor: Predictor, graph: Graph, prediction: Prediction) -> Push:
    """The bias at a batch.

    Args:
        bias: its settings.
        predictor: what predicted.
        graph: the batch.
        prediction: of it, with forces; with those of all draws for a bias on energy.
    Raises:
        NothingToPull: if its uncertainty is none that could pull.
    """
    if bias.of == "ood":
        return _by_ood(bias, predictor, graph, prediction)
    factor = predictor.calibration.energy or 1.0
    return _by_energy(bias, factor, graph, prediction)


def _by_energy(bias: Bias, factor: float, graph: Graph, prediction: Prediction) -> Push:
    energies, forces = prediction.energy_draws, prediction.forces_draws
    if energies is None or forces is None:
        raise ValueError("the prediction has no draws; ask for them.")
    if prediction.energy.residual is not None:
        raise NothingToPull(
            "a bias on energy pulls by the spread of draws, and this potential says how wrong it "
            "was on held-out frames instead: take the bias on ood."
        )
    away = _deviations(energies)
    share = factor**2 / (len(energies) - 1) / graph.atom_counts
    energy, pull = _pull(bias, share * away.square().sum(0))
    # d(u²)/dr: energies fall along forces.
    weights = 2 * (share * pull) * away
    towards = -(weights[:, graph.graph_index, None] * _deviations(forces)).sum(0)
    stress = None
    if prediction.stress_draws is not None:
        stress = -(weights[:, :, None, None] * _deviations(prediction.stress_draws)).sum(0)
    return Push(energy=energy, forces=towards, stress=stress)


def _by_ood(bias: Bias, predictor: Predictor, graph: Graph, prediction: Prediction) -> Push:
    if prediction.ood is None or predictor.gate is None:
        raise ValueError("the prediction has no ood.")
    if prediction.stress is not None:
        raise NothingToPull(
            "a bias on ood gives no stress, which constant pressure needs; take the bias on energy."
        )
    ood = prediction.ood.detach().double()
    energy, pull = _pull(bias, ood.square())
    slope = gate_slope(predictor, predictor.gate, graph)
    return Push(energy=energy, forces=(2 * ood * pull)[graph.graph_index, None] * slope)


def _deviations(values: Tensor) -> Tensor:
    values = values.detach().double()
    return values - values.mean(0)


def _pull(bias: Bias, squares: Tensor) -> tuple[Tensor, Tensor]:
    """U, and −dU/d(u²)."""
    left = torch.exp(-0.5 * squares / bias.width**2)
    return -bias.depth * (1 - left), 0.5 * bias.depth / bias.width**2 * left
