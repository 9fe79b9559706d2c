"""Relax a structure with a potential and read the error bars of the result.

Usage: python 02_calculator.py POTENTIAL STRUCTURE
"""

import sys

import ase.io
import numpy as np
from ase.optimize import BFGS

from surefoot.calculator import SurefootCalculator
from surefoot.posteriors.predictor import load_predictor


def main(potential: str, structure: str) -> None:
    atoms = ase.io.read(structure, index=0)
    atoms.calc = SurefootCalculator(load_predictor(potential))
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=50)
    results = atoms.calc.results
    print(f"energy {results['energy']:.3f} ± {results['energy_uncertainty']:.3f} eV")
    worst = int(np.argmax(results["forces_uncertainty_norm"]))
    norm = results["forces_uncertainty_norm"][worst]
    print(f"least certain atom: {worst} ({atoms.symbols[worst]}), force ± {norm:.3f} eV/Å")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
