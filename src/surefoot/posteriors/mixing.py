"""Outputs of all draws as one calibrated `Prediction`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from surefoot.distributions.binned import mix_histograms
from surefoot.posteriors.calibration import Calibration
from surefoot.prediction import Output, Prediction, join_draws, mix


def mix_outputs(
    outputs: Sequence[Output], calibration: Calibration, *, members: bool
) -> Prediction:
    """The mixture of all draws.

    Args:
        outputs: of some draws each, members first; together in the order of the draws.
        calibration: factors on the standard deviations.
        members: whether the forces and stress of each draw are kept too.
    """
    energies = join_draws([output.energy for output in outputs])
    energy = mix(energies)
    draws = energies.mean
    factor = outputs[0].energy_factor
    if factor is None:
        factor = _factor(draws, energy.mean)
    elif energy.residual is None:
        energy = replace(energy, epistemic=factor.detach().square().sum(-1))
    all_forces = [output.forces for output in outputs if output.forces is not None]
    all_stress = [output.stress for output in outputs if output.stress is not None]
    forces = stress = forces_draws = stress_draws = None
    if all_forces:
        joined = join_draws(all_forces)
        forces = mix(joined, vector=True).scaled(calibration.forces or 1.0)
        forces_draws = joined.mean if members else None
    if all_stress:
        joined = join_draws(all_stress)
        stress = mix(joined).scaled(calibration.stress or 1.0)
        stress_draws = joined.mean if members else None
    of_forces = mix_histograms(all_forces)
    # A residual's histogram is of the error, a noise's of the force itself.
    judged = bool(all_forces) and all_forces[0].spread == "residual"
    return Prediction(
        energy=energy.scaled(calibration.energy or 1.0),
        forces=forces,
        stress=stress,
        energy_draws=draws,
        forces_draws=forces_draws,
        stress_draws=stress_draws,
        energy_factor=None if factor is None else factor.detach() * (calibration.difference or 1.0),
        energy_bins=mix_histograms([output.energy for output in outputs]),
        error_bins=of_forces if judged else None,
        force_bins=None if judged else of_forces,
    )


def _factor(draws: Tensor, mean: Tensor) -> Tensor | None:
    """The z (graphs, draws) with z_a · z_b = Σ_d (E_da − E_a)(E_db − E_b) / (draws − 1)."""
    count = draws.shape[0]
    return None if count < 2 else ((draws - mean) / (count - 1) ** 0.5).T
