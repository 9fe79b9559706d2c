"""What a frame says is of the run that wrote it."""

import numpy as np
import torch
from ase.build import molecule

from surefoot.motion.frames import with_results
from surefoot.motion.surface import Evaluation

STALE = ("energy_uncertainty", "ood", "bias_energy", "bias", "guard_score", "guard_atoms")
STALE_ATOMS = ("forces_uncertainty_norm", "ood_atoms", "bias_forces", "guard_scores")


def test_nothing_is_left_of_another_run() -> None:
    """Where nobody is asked, a frame does not repeat what it came with."""
    atoms = molecule("H2O")
    atoms.info |= dict.fromkeys(STALE, 7.0) | {"energy_epistemic": 7.0, "mine": 7.0}
    for name in (*STALE_ATOMS, "forces_uncertainty", "forces_error"):
        atoms.arrays[name] = np.full(3, 7.0)
    atoms.arrays["mine"] = np.full(3, 7.0)
    zeros = torch.zeros(3, 3, dtype=torch.float64)
    plain = Evaluation(energy=zeros[0, :1], forces=zeros)
    frame = with_results(atoms, plain, "a test")
    assert set(frame.info) == {"predicted_by", "mine"}
    assert set(frame.arrays) == {"numbers", "positions", "mine"}
    asked = with_results(
        atoms,
        Evaluation(
            energy=zeros[0, :1],
            forces=zeros,
            energy_uncertainty=torch.full((1,), torch.nan, dtype=torch.float64),
            forces_uncertainty_norm=zeros[:, 0] + 2.0,
        ),
        "a test",
    )
    assert "energy_uncertainty" not in asked.info
    assert np.array_equal(asked.arrays["forces_uncertainty_norm"], [2.0, 2.0, 2.0])
    assert atoms.info["ood"] == 7.0
