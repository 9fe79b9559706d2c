"""Frames of motion as ASE structures, with everything that was predicted written explicitly."""

from __future__ import annotations

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from surefoot.data.read import ENERGY_KEYS, FORCES_KEYS, PREDICTED, STRESS_KEYS, VIRIAL_KEYS
from surefoot.motion.surface import Evaluation


def with_results(atoms: Atoms, evaluation: Evaluation, made_by: str) -> Atoms:
    """A copy of a structure with what a surface says of it, under the names of the design.

    Labels that the structure came with are dropped: they belong to where it was.

    Args:
        atoms: where the structure is.
        evaluation: of this structure alone.
        made_by: goes into `predicted_by`, so that nobody takes predictions for labels.
    """
    marked = atoms.copy()
    for key in (*ENERGY_KEYS, *STRESS_KEYS, *VIRIAL_KEYS, "energy", "stress"):
        marked.info.pop(key, None)
    for key in (*FORCES_KEYS, "forces"):
        marked.arrays.pop(key, None)
    marked.info[PREDICTED] = made_by
    own = {"energy": float(evaluation.energy[0]), "forces": evaluation.forces.numpy()}
    if evaluation.stress is not None and marked.pbc.all():
        own["stress"] = full_3x3_to_voigt_6_stress(evaluation.stress[0].numpy())
    for name in ("energy_uncertainty", "ood"):
        value = getattr(evaluation, name)
        if value is not None:
            marked.info[name] = float(value[0])
    for name in ("forces_uncertainty_norm", "ood_atoms"):
        value = getattr(evaluation, name)
        if value is not None:
            marked.arrays[name] = value.numpy()
    marked.calc = SinglePointCalculator(marked, **own)
    return marked
