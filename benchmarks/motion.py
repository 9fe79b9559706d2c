"""How fast things move: batches against one by one, and mace-torch through ASE, in one run.

Usage: python benchmarks/motion.py [--mace PYTHON] [--rounds 5] [--steps 200] [--counts 1 8 64]
           [--compile] [--work FOLDER] [--output FILE]

mace-torch lives in an environment of its own, whose Python is named by the option or by
SUREFOOT_MACE_PYTHON; without it nothing is compared with it, and a line says so: a MACE of our
own of the same size moves then. With it the weights are those of its model, converted. Everything
takes turns, in rounds; a figure is the median over rounds. What was measured without mace-torch is
kept as motion_alone.json unless --output names another file. One thread, velocity Verlet, float32,
ns/day at a timestep of 0.5 fs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from speed.machine import describe_machine

from surefoot.blocks.reference import Baseline
from surefoot.calculator import SurefootCalculator
from surefoot.deploy.mace import read_mace
from surefoot.heads import Scalar
from surefoot.md.job import Job
from surefoot.md.run import start
from surefoot.md.settings import Dynamics, Simulation
from surefoot.models import Mace
from surefoot.motion.surface import PredictorSurface
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Predictor, build_predictor, compiled
from surefoot.potential import Potential

HERE = Path(__file__).parent
TIMESTEP = 0.05  # fs; weights are random, and the forces of their surface have no scale
SHOWN = 0.5  # fs, of the ns/day
ALIKE = 1e-4  # eV/atom, and of the largest force: float32 on both sides
SINGLES = 4  # molecules that are moved one by one; more would take as long each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mace", default=os.environ.get("SUREFOOT_MACE_PYTHON"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--compile", action="store_true", help="a compiled form too")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=chosen.work) as folder:
        found = measure(chosen, Path(folder))
    output = chosen.output or HERE / "results" / file_name(found["peer"])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    show(found)


def file_name(peer: dict[str, str] | None) -> str:
    """Figures without mace-torch never take the place of those with it."""
    return "motion.json" if peer else "motion_alone.json"


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    runs, versions = prepare(chosen, folder)
    times: dict[str, list[float]] = {run.name: [] for run in runs}
    for number in range(chosen.rounds + 1):  # the first one warms up
        for run in runs:
            seconds = run.seconds(chosen.steps)
            if number:
                times[run.name].append(seconds)
    rows = {
        run.name: {
            "systems": run.systems,
            "seconds": [float(f"{value:.4g}") for value in times[run.name]],
            "ns_per_day": SHOWN * chosen.steps * 0.0864 / float(np.median(times[run.name])),
        }
        for run in runs
    }
    return {"machine": describe_machine(), "steps": chosen.steps, "peer": versions, "runs": rows}


def prepare(
    chosen: argparse.Namespace, folder: Path
) -> tuple[list["Timed"], dict[str, str] | None]:
    """Everything that takes turns, and the versions of mace-torch if it is among it."""
    model, peer, versions = folder / "mace.model", None, None
    if chosen.mace:
        peer = Peer(chosen.mace)
        versions = peer.ask({"make": str(model)})["versions"]
        predictor = read_mace(model)
    else:
        print("mace-torch is left out: name a Python that has it with --mace.")
        predictor = own_mace()
    forms = {"surefoot": predictor}
    if chosen.compile:
        forms["surefoot compiled"] = compiled(predictor)
    runs: list[Timed] = []
    for name, form in forms.items():
        for count in chosen.counts:
            runs += [batched(name, form, count, folder), one_by_one(name, form, count, folder)]
    for size, atoms in {"ethanol": ethanol(0), "21 ethanols": crowd()}.items():
        for name, form in forms.items():
            runs.append(moving(f"{size}: {name} md", form, [atoms], folder))
            runs.append(through_ase(f"{size}: {name} through ASE", form, atoms))
        if peer is not None:
            runs.append(peer.moving(f"{size}: mace-torch through ASE", model, atoms))
    return runs, versions


@dataclass(frozen=True)
class Timed:
    """Something that moves: its name, how many systems, and the seconds of some steps of all."""

    name: str
    systems: int
    seconds: Callable[[int], float]


def ethanol(seed: int) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.02, seed=seed)
    return cold(atoms, seed)


def crowd() -> Atoms:
    """In a periodic box, 189 atoms."""
    box = Atoms(cell=[16.5, 5.5, 38.5], pbc=True)
    for number in range(21):
        one = molecule("CH3CH2OH")
        one.rotate(57.0 * number, (1, 2, 3))
        one.translate(5.5 * np.array([number % 3, 0, number // 3]))
        box += one
    return cold(box, 0)


def cold(atoms: Atoms, seed: int) -> Atoms:
    """With momenta of 10 K, the same for everybody."""
    generator = np.random.default_rng(seed)
    spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * 10.0)
    momenta = spread * generator.normal(size=(len(atoms), 3))
    atoms.set_momenta(momenta - momenta.mean(0))
    return atoms


def own_mace() -> Predictor:
    potential = Potential(
        model=Mace(irreps="64x0e + 64x1o", max_ell=3, correlation=3, cutoff=5.0),
        head=Scalar(hidden=16, activation="silu", scaling="normal"),
        baseline=Baseline(elements=(1, 6, 8), energies=(0.0,) * 3, scale=0.1, neighbors=8.0),
    )
    weights = potential.init(0, torch.float32)
    return build_predictor(potential, Single(weights), Calibration(), {})


def moving(name: str, predictor: Predictor, structures: list[Atoms], folder: Path) -> Timed:
    def seconds(steps: int) -> float:
        job = Job(
            structures=structures,
            temperatures=[10.0] * len(structures),
            surface=PredictorSurface(predictor=predictor),
            settings=Simulation(
                dynamics=Dynamics(timestep=TIMESTEP),
                steps=steps,
                every=steps,
                momenta="given",
                hottest=1e9,
                drift=1e9,
                lost="allow",
            ),
            folder=folder / str(time.time_ns()),
            places=["ethanol"] * len(structures),
        )
        return steps * TIMESTEP * 0.0864 / start(job).pace

    return Timed(name, len(structures), seconds)


def batched(name: str, predictor: Predictor, count: int, folder: Path) -> Timed:
    structures = [ethanol(number) for number in range(count)]
    return moving(f"{count} ethanols, {name}: batched", predictor, structures, folder)


def one_by_one(name: str, predictor: Predictor, count: int, folder: Path) -> Timed:
    """Some of them, as many times as long as all would take."""
    chosen = min(count, SINGLES)
    singles = [moving("", predictor, [ethanol(number)], folder) for number in range(chosen)]
    return Timed(
        f"{count} ethanols, {name}: one by one",
        count,
        lambda steps: count / chosen * sum(one.seconds(steps) for one in singles),
    )


def through_ase(name: str, predictor: Predictor, atoms: Atoms) -> Timed:
    moved = atoms.copy()
    moved.calc = SurefootCalculator(predictor)
    moved.get_forces()

    def seconds(steps: int) -> float:
        dynamics = VelocityVerlet(moved, TIMESTEP * units.fs)
        began = time.perf_counter()
        dynamics.run(steps)
        return time.perf_counter() - began

    return Timed(name, 1, seconds)


def require_same(name: str, answer: dict[str, Any], ours: Atoms) -> None:
    """End where energies or forces of what should be the same weights differ."""
    energy = abs(answer["energy"] - ours.get_potential_energy()) / len(ours)
    if not energy <= ALIKE:
        sys.exit(f"{name}: the energies differ by {energy:.2g} eV/atom.")
    forces, own = np.array(answer["forces"]), ours.get_forces()
    largest = float(np.abs(own).max())
    worst = float(np.abs(forces - own).max())
    if not worst <= ALIKE * max(largest, 1e-300):
        sys.exit(f"{name}: forces of up to {largest:.2g} eV/Å differ by {worst:.2g} eV/Å.")


class Peer:
    """mace-torch in a process of its own; one for each structure, so that all keep their place."""

    def __init__(self, python: str) -> None:
        self.python = python
        self.process = subprocess.Popen(
            [python, str(HERE / "motion_peer.py")],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("there is no way to mace-torch.")
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.python}: mace-torch has ended without an answer.")
        return json.loads(line)

    def moving(self, name: str, model: Path, atoms: Atoms) -> Timed:
        own = Peer(self.python)
        structure = {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "momenta": atoms.get_momenta().tolist(),
            "cell": atoms.cell.array.tolist(),
            "pbc": atoms.pbc.tolist(),
        }
        answer = own.ask({"load": str(model), "structure": structure, "dtype": "float32"})
        ours = atoms.copy()
        ours.calc = SurefootCalculator(read_mace(model))
        require_same(name, answer, ours)
        order = {"timestep": TIMESTEP}
        return Timed(name, 1, lambda steps: own.ask({**order, "steps": steps})["seconds"])


def show(found: dict[str, Any]) -> None:
    for name, row in found["runs"].items():
        total = row["ns_per_day"] * row["systems"]
        print(f"{name:60s} {row['ns_per_day']:8.3f} ns/day each {total:9.3f} in all")


if __name__ == "__main__":
    main()
