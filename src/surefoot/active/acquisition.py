"""How much a label would teach: scores of predictions, of structures or of their atoms.

A score of atoms becomes one of the structure by its largest value, its mean or its sum (`combine`).
All scores are detached, and larger is more worth labelling.

The BALD scores are the mutual information of label and weights for the normal distribution with
the moments of the mixture of draws:

    α_E   = ½ [log σ_tot² − ⟨log σ_d²⟩]
    α_F,i = ½ [log det Σ_tot,i − ⟨log det Σ_d,i⟩]

in nats, never negative, zero where all draws agree, and the same for a turned structure. Among
distributions of given moments the normal has the largest entropy, so they are upper estimates. A
factor of calibration changes both terms alike. Draws that state no noise (a scalar head) are given
a constant one, √atoms · `NOISE_ENERGY` and `NOISE_FORCES`.

Source: Houlsby et al. 2011; for energies arXiv:2510.03046, equation 1. Of forces it is the same by
the entropy of a normal vector: directions count by ratios of variances, so that a strong force is
not preferred for its size alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.prediction import Moments, Prediction
from surefoot.segments import Segments

Combine = Literal["max", "mean", "sum"]
"""How scores of atoms become one of their structure."""

NOISE_ENERGY = 1e-3  # eV for a structure of one atom, times √atoms
NOISE_FORCES = 1e-2  # eV/Å, of each component
GAUSS = 2 * math.pi * math.e


class NoScore(ValueError):
    """A score that these predictions can not have."""


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """One score.

    Attributes:
        score: of a prediction and the atoms of its structures: (graphs), or (atoms) if `of_atoms`.
        of_atoms: whether it is one of atoms.
    """

    score: Callable[[Prediction, Segments], Tensor]
    of_atoms: bool


def bald_energy(prediction: Prediction, atoms: Segments) -> Float[Tensor, " graphs"]:
    """α_E, nats.

    Raises:
        NoScore: if there is one draw, or the head states its error and no noise.
    """
    energy = prediction.energy
    epistemic = _epistemic(energy, "energies")
    if energy.log_noise is not None and energy.aleatoric is not None:
        return 0.5 * ((energy.aleatoric + epistemic).log() - energy.log_noise).clamp(min=0.0)
    sizes = atoms.offsets.diff().to(epistemic)
    return 0.5 * (epistemic / (sizes * NOISE_ENERGY**2)).log1p()


def bald_forces(prediction: Prediction, atoms: Segments) -> Float[Tensor, " atoms"]:  # noqa: ARG001
    """α_F of each atom, nats.

    Raises:
        NoScore: if there is one draw, or the head states its error and no noise.
    """
    forces = _forces(prediction)
    epistemic = _epistemic(forces, "forces")
    if forces.log_noise is not None and forces.aleatoric is not None:
        total = torch.linalg.slogdet(forces.aleatoric + epistemic)[1]
        return 0.5 * (total - forces.log_noise).clamp(min=0.0)
    ratio = epistemic / NOISE_FORCES**2
    return 0.5 * torch.linalg.slogdet(torch.eye(3).to(ratio) + ratio)[1].clamp(min=0.0)


def categorical_bald(prediction: Prediction, atoms: Segments) -> Tensor:  # noqa: ARG001
    """Mutual information of draw and bin of the energy (graphs), nats.

    Raises:
        NoScore: without histograms of several draws over one support.
    """
    binned = prediction.energy_bins
    if binned is None or binned.information is None:
        raise NoScore(
            "categorical BALD needs histograms of energies from several draws over one support: "
            "an ensemble with `head: {energy: categorical}`."
        )
    return binned.information


def energy_variance(prediction: Prediction, atoms: Segments) -> Float[Tensor, " graphs"]:
    """Total variance of the energy per atom, (eV/atom)²."""
    return _total(prediction.energy) / atoms.offsets.diff().to(prediction.energy.mean) ** 2


def forces_variance(prediction: Prediction, atoms: Segments) -> Float[Tensor, " atoms"]:  # noqa: ARG001
    """Trace of the total covariance of each force, (eV/Å)²."""
    return _total(_forces(prediction)).diagonal(dim1=-2, dim2=-1).sum(-1)


def entropy_energy(prediction: Prediction, atoms: Segments) -> Float[Tensor, " graphs"]:
    """Total entropy of the energy per atom of the normal with its moments, nats for eV/atom.

    Not epistemic: noise raises it as ignorance does.
    """
    return 0.5 * (GAUSS * energy_variance(prediction, atoms)).log()


def entropy_forces(prediction: Prediction, atoms: Segments) -> Float[Tensor, " atoms"]:  # noqa: ARG001
    """Total entropy of each force, of the normal with its moments, nats for eV/Å."""
    return 0.5 * (3 * math.log(GAUSS) + torch.linalg.slogdet(_total(_forces(prediction)))[1])


def latent_distance(prediction: Prediction, atoms: Segments) -> Float[Tensor, " graphs"]:  # noqa: ARG001
    """`ood`, the distance to the training data; 1 at its edge."""
    if prediction.ood is None:
        raise NoScore(
            "the potential has no gate, so it knows no distance to its training data; "
            "`surefoot calibrate --train FILE --held-out FILE` adds one."
        )
    return prediction.ood


def latent_distance_atoms(prediction: Prediction, atoms: Segments) -> Float[Tensor, " atoms"]:
    """`ood_atoms`, the same of each atom."""
    latent_distance(prediction, atoms)
    assert prediction.ood_atoms is not None  # noqa: S101
    return prediction.ood_atoms


ACQUISITIONS: dict[str, Acquisition] = {
    "bald_energy": Acquisition(score=bald_energy, of_atoms=False),
    "bald_forces": Acquisition(score=bald_forces, of_atoms=True),
    "categorical_bald": Acquisition(score=categorical_bald, of_atoms=False),
    "energy_variance": Acquisition(score=energy_variance, of_atoms=False),
    "forces_variance": Acquisition(score=forces_variance, of_atoms=True),
    "entropy_energy": Acquisition(score=entropy_energy, of_atoms=False),
    "entropy_forces": Acquisition(score=entropy_forces, of_atoms=True),
    "latent_distance": Acquisition(score=latent_distance, of_atoms=False),
    "latent_distance_atoms": Acquisition(score=latent_distance_atoms, of_atoms=True),
}
"""Scores by name. `random` and `farthest_point` need no prediction: they are ways to choose."""


def score_structures(
    name: str, prediction: Prediction, atoms: Segments, combine: Combine = "max"
) -> Float[Tensor, " graphs"]:
    """One score of each structure.

    Args:
        name: key of `ACQUISITIONS`.
        prediction: with the covariances of all draws.
        atoms: which atoms belong to which structure.
        combine: how scores of atoms become one of their structure.
    Raises:
        NoScore: if these predictions can not have it.
    """
    acquisition = ACQUISITIONS[name]
    found = acquisition.score(prediction, atoms)
    return combine_atoms(found, atoms, combine) if acquisition.of_atoms else found


def combine_atoms(
    scores: Float[Tensor, " atoms"], atoms: Segments, how: Combine
) -> Float[Tensor, " graphs"]:
    """The largest, the mean or the sum of the scores of each structure's atoms."""
    if how == "max":
        empty = scores.new_full((atoms.count,), -math.inf)
        return empty.scatter_reduce(0, atoms.index, scores, "amax")
    total = scores.new_zeros(atoms.count).index_add_(0, atoms.index, scores)
    return total if how == "sum" else total / atoms.offsets.diff()


def _forces(prediction: Prediction) -> Moments:
    if prediction.forces is None:
        raise NoScore("the score is of forces, and they were not predicted.")
    return prediction.forces


def _total(moments: Moments) -> Tensor:
    total = moments.total
    if total is None:
        raise NoScore(
            "one set of weights with a scalar head has no error bar to choose by; train an "
            "ensemble (`posterior: {members: 8}`) or a head that judges, or choose by "
            "latent_distance, farthest_point or random."
        )
    return total


def _epistemic(moments: Moments, name: str) -> Tensor:
    if moments.residual is not None:
        raise NoScore(
            f"BALD compares the spread of draws with the noise that each of them states; this head "
            f"states the whole error of {name} instead. Choose by energy_variance or "
            "forces_variance, or train with `head: {energy: mean_variance}` or scalar."
        )
    if moments.epistemic is None:
        raise NoScore(
            f"BALD needs several draws that can differ in their {name}; there is one set of "
            "weights. Train an ensemble (`posterior: {members: 8}`) or another posterior."
        )
    return moments.epistemic
