"""mace-torch's side of benchmarks/motion.py, run by the Python that has it.

Takes orders as lines of JSON, and answers alike:

    {"make": FILE}                                →  small random weights, saved; versions
    {"load": FILE, "structure": {…}, "dtype": …}  →  its calculator on a structure: energy, forces
    {"steps": n, "timestep": fs}                  →  seconds of n steps of velocity Verlet
"""

import importlib
import importlib.metadata
import json
import os
import sys
import time
import warnings
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

ELEMENTS, CHANNELS, CUTOFF = (1, 6, 8), 64, 5.0


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    atoms: Atoms | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if "make" in order:
            torch.save(make(), order["make"])
            answer: dict[str, Any] = {"versions": versions()}
        elif "load" in order:
            atoms = load(order)
            answer = {
                "energy": float(atoms.get_potential_energy()),
                "forces": atoms.get_forces().tolist(),
            }
        else:
            dynamics = VelocityVerlet(atoms, order["timestep"] * units.fs)
            began = time.perf_counter()
            dynamics.run(order["steps"])
            answer = {"seconds": time.perf_counter() - began}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def versions() -> dict[str, str]:
    names = ("mace-torch", "torch", "e3nn", "ase")
    return {name: importlib.metadata.version(name) for name in names}


def make() -> torch.nn.Module:
    modules = importlib.import_module("mace.modules")  # first: without it e3nn can not be read
    o3 = importlib.import_module("e3nn.o3")
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(ELEMENTS),
        hidden_irreps=o3.Irreps(f"{CHANNELS}x0e + {CHANNELS}x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(ELEMENTS)),
        avg_num_neighbors=8.0,
        atomic_numbers=list(ELEMENTS),
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        radial_type="bessel",
        atomic_inter_scale=0.1,  # nothing flies apart on random weights
        atomic_inter_shift=0.0,
    )


def load(order: dict[str, Any]) -> Atoms:
    from mace.calculators import MACECalculator

    structure = order["structure"]
    atoms = Atoms(
        structure["numbers"], structure["positions"], cell=structure["cell"], pbc=structure["pbc"]
    )
    atoms.set_momenta(structure["momenta"])
    atoms.calc = MACECalculator(
        model_paths=order["load"], device="cpu", default_dtype=order["dtype"]
    )
    return atoms


if __name__ == "__main__":
    main()
