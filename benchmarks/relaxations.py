"""Relaxations per minute: many systems at once against one by one, ours and ASE's.

Slabs of copper with an adsorbate, the lower layers held, with the settings of OC20 (LBFGS, at most
300 steps of 0.04 Å to 0.02 eV/Å). Without a potential they are relaxed on a Lennard-Jones surface:
what the engine costs by itself. Rounds are taken in turns, and the fastest of each counts, since a
busy machine only slows down; CPU seconds are there too. How far the structures of all ways are
apart is measured beside it.

Usage: python benchmarks/relaxations.py [--count 32] [--together 8 32] [--rounds 3]
           [--potential FILE --structures FILE] [-o results/relaxations.json]
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.constraints import FixAtoms
from ase.optimize import LBFGS

from surefoot.calculator import SurefootCalculator
from surefoot.data.batches import BatchLimits
from surefoot.evaluate.oc20 import displacements
from surefoot.memory import keep_memory
from surefoot.motion.lennard_jones import LennardJones
from surefoot.motion.surface import PredictorSurface, Surface
from surefoot.posteriors.predictor import load_predictor
from surefoot.relax import OC20
from surefoot.relax.run import Relaxation, relax

SETTINGS = Relaxation(optimizer=OC20)
OURS = LennardJones(epsilon=0.5, sigma=2.3, cutoff=6.0, onset=4.5)
THEIRS = {"epsilon": 0.5, "sigma": 2.3, "rc": 6.0, "ro": 4.5, "smooth": True}


@dataclass(frozen=True)
class Found:
    """What one way of relaxing took, and where it ended."""

    wall: float
    cpu: float
    steps: list[int]
    positions: list[np.ndarray]


def slabs(count: int) -> list[Atoms]:
    """Different starts of an oxygen atom on a slab of three layers."""
    images = []
    for number in range(count):
        atoms = fcc111("Cu", (2, 2, 3), a=3.6, vacuum=6.0)
        site = ("fcc", "hcp", "bridge", "ontop")[number % 4]
        add_adsorbate(atoms, "O", 2.2, site)
        atoms.set_pbc(True)
        atoms.info = {}
        atoms.set_constraint(FixAtoms(range(8)))
        noise = np.random.default_rng(number).normal(scale=0.1, size=(5, 3))
        atoms.positions[8:] += noise
        images.append(atoms)
    return images


def timed(work: Callable[[], tuple[list[int], list[np.ndarray]]]) -> Found:
    wall, cpu = time.perf_counter(), time.process_time()
    steps, positions = work()
    return Found(time.perf_counter() - wall, time.process_time() - cpu, steps, positions)


def batched(structures: Sequence[Atoms], surface: Surface, together: int) -> Found:
    def work() -> tuple[list[int], list[np.ndarray]]:
        limits = BatchLimits(graphs=together, edges=None)
        found = relax(structures, surface, SETTINGS, limits=limits)
        return [one.steps for one in found], [one.atoms.positions for one in found]

    return timed(work)


def by_ase(structures: Sequence[Atoms], calculator: Calculator) -> Found:
    def work() -> tuple[list[int], list[np.ndarray]]:
        steps, positions = [], []
        for start in structures:
            atoms = start.copy()
            atoms.calc = calculator
            with LBFGS(atoms, logfile=None, maxstep=0.04, memory=50, alpha=70.0) as optimizer:
                optimizer.run(fmax=SETTINGS.fmax, steps=SETTINGS.steps)
            steps.append(optimizer.nsteps)
            positions.append(atoms.positions)
        return steps, positions

    return timed(work)


def measure(options: argparse.Namespace) -> dict[str, object]:
    if options.potential is None:
        structures, surface = slabs(options.count), OURS
        calculator: Calculator = AseLennardJones(**THEIRS)
    else:
        predictor = load_predictor(options.potential)
        images = ase.io.read(options.structures, ":")
        structures = list(images)[: options.count]
        surface = PredictorSurface(predictor=predictor)
        calculator = SurefootCalculator(predictor, stress=False)  # as ours, whose cells are fixed
    ways: dict[str, Callable[[], Found]] = {
        "one by one": lambda: batched(structures, surface, 1),
        **{
            f"{size} together": (lambda size=size: batched(structures, surface, size))
            for size in options.together
        },
        "ASE, one by one": lambda: by_ase(structures, calculator),
    }
    best: dict[str, Found] = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            found = way()
            if name not in best or found.cpu < best[name].cpu:
                best[name] = found
    return {
        "surface": "Lennard-Jones" if options.potential is None else options.potential.name,
        "structures": len(structures),
        "atoms": [len(atoms) for atoms in structures][:: max(1, len(structures) - 1)],
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "ways": {name: describe(found, best, structures) for name, found in best.items()},
    }


def describe(
    found: Found, best: dict[str, Found], structures: Sequence[Atoms]
) -> dict[str, object]:
    alone = best["one by one"]
    apart = [
        float(displacements(a, b, atoms.cell.array, atoms.pbc).max())
        for a, b, atoms in zip(found.positions, alone.positions, structures, strict=True)
    ]
    return {
        "wall_seconds": found.wall,
        "cpu_seconds": found.cpu,
        "relaxations_per_minute": 60 * len(structures) / found.wall,
        "relaxations_per_cpu_minute": 60 * len(structures) / found.cpu,
        "times_one_by_one_cpu": alone.cpu / found.cpu,
        "steps": sum(found.steps),
        "unfinished": sum(steps >= SETTINGS.steps for steps in found.steps),
        "farthest_from_one_by_one_angstrom": max(apart),
        "median_from_one_by_one_angstrom": float(np.median(apart)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--together", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--potential", type=Path)
    parser.add_argument("--structures", type=Path, help="initial structures for the potential")
    results = Path(__file__).parent / "results" / "relaxations.json"
    parser.add_argument("-o", "--output", type=Path, default=results)
    options = parser.parse_args()
    if (options.potential is None) != (options.structures is None):
        parser.error("a potential and structures belong together.")
    keep_memory()
    torch.set_num_threads(1)
    found = measure(options)
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["ways"], indent=2))


if __name__ == "__main__":
    main()
