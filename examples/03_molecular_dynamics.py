"""Molecular dynamics with ASE that stops when the potential is no longer sure of a force.

Usage: python 03_molecular_dynamics.py POTENTIAL STRUCTURE [LIMIT in eV/Å]
"""

import sys

import ase.io
import numpy as np
from ase import units
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from surefoot.calculator import SurefootCalculator
from surefoot.posteriors.predictor import load_predictor


def main(potential: str, structure: str, limit: float) -> None:
    atoms = ase.io.read(structure, index=0)
    atoms.calc = SurefootCalculator(load_predictor(potential))
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    for _ in dynamics.irun(steps=100):
        norm = float(atoms.calc.results["forces_uncertainty_norm"].max())
        if norm > limit:
            print(f"step {dynamics.nsteps}: a force is uncertain by {norm:.2f} eV/Å; stopped")
            return
    print(f"100 steps done, {atoms.get_temperature():.0f} K")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 1.0)
