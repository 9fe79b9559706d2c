"""Frames of motion as ASE structures, with everything that was predicted written explicitly."""

from __future__ import annotations

import re

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from surefoot.data.read import ENERGY_KEYS, FORCES_KEYS, PREDICTED, STRESS_KEYS, VIRIAL_KEYS
from surefoot.motion.surface import Evaluation

SAID = re.compile(
    r"(energy|forces|stress)_(uncertainty|uncertainty_norm|aleatoric|epistemic|ensemble"
    r"|interval_95|error|error_q95)|ood|ood_atoms|bias|bias_(energy|forces|stress)|guard_.*"
)
"""Names in info and arrays of what was said of a structure where it was, and not where it is."""


def without_results(atoms: Atoms) -> Atoms:
    """A copy of a structure without labels and without anything that was predicted of it.

    Args:
        atoms: as it came, perhaps from another run.
    """
    bare = atoms.copy()
    labels = {*ENERGY_KEYS, *STRESS_KEYS, *VIRIAL_KEYS, "energy", "stress"}
    for key in [key for key in bare.info if key in labels or SAID.fullmatch(str(key))]:
        del bare.info[key]
    labels = {*FORCES_KEYS, "forces"}
    for key in [key for key in bare.arrays if key in labels or SAID.fullmatch(key)]:
        del bare.arrays[key]
    return bare


def with_results(atoms: Atoms, evaluation: Evaluation, made_by: str) -> Atoms:
    """A copy of a structure with what a surface says of it, under the names of the design.

    What the structure came with is dropped: it belongs to where it was, see `without_results`.

    Args:
        atoms: where the structure is.
        evaluation: of this structure alone.
        made_by: goes into `predicted_by`, so that nobody takes predictions for labels.
    """
    marked = without_results(atoms)
    marked.info[PREDICTED] = made_by
    own = {"energy": float(evaluation.energy[0]), "forces": evaluation.forces.numpy()}
    if evaluation.stress is not None and marked.pbc.all():
        own["stress"] = full_3x3_to_voigt_6_stress(evaluation.stress[0].numpy())
    for name in ("energy_uncertainty", "ood", "bias_energy"):
        value = getattr(evaluation, name)
        if value is not None and not value.isnan().any():  # nan: nobody was asked
            marked.info[name] = float(value[0])
    for name in ("forces_uncertainty_norm", "ood_atoms", "bias_forces"):
        value = getattr(evaluation, name)
        if value is not None and not value.isnan().all():
            marked.arrays[name] = value.numpy()
    marked.calc = SinglePointCalculator(marked, **own)
    return marked
