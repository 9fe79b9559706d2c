"""What a guard costs: the same dynamics with and without it, in turns."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsInt

import numpy as np
from ase import Atoms

from guard.drive import TIMESTEP
from surefoot.graph import Graph
from surefoot.md.job import Job
from surefoot.md.run import start
from surefoot.md.settings import Dynamics, Langevin, Simulation
from surefoot.motion.guard import Guard, Watch
from surefoot.motion.surface import Evaluation, PredictorSurface, Surface
from surefoot.posteriors.predictor import Predictor, driver

BASE = "without gate"
"""What all others are compared with: the first draw alone, with neither guard nor gate."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A surface that keeps of how many systems all draws were asked."""

    surface: Surface
    asked: list[int]

    @property
    def cutoff(self) -> float:
        return self.surface.cutoff

    @property
    def bias(self) -> None:
        return None

    def require(
        self, numbers: Iterable[SupportsInt], charge: int | None, spin: int | None, place: str
    ) -> None:
        self.surface.require(numbers, charge, spin, place)

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        if uncertainty:
            self.asked.append(len(graph.charge))
        return self.surface(graph, stress=stress, uncertainty=uncertainty)


def list_guards(every: int, near: float, near_energy: float | None) -> dict[str, Guard | None]:
    """By name, with limits that nothing passes."""
    both: dict[str, Any] = {"uncertainty": 1e9, "ood": 1e9, "every": every}
    guards = {
        BASE: None,
        "ood at every step": None,
        "shortcut": Guard(**both, near_ood=near),
        "whole": Guard(**both),
    }
    if near_energy is not None:
        guards["shortcut on energies"] = Guard(**both, near_energy=near_energy)
    return guards


def measure(
    predictor: Predictor,
    structures: Sequence[Atoms],
    guards: dict[str, Guard | None],
    scale: dict[str, Any],
    every: int,
    folder: Path,
) -> dict[str, Any]:
    """Processor seconds from the first step to the last, medians of ratios, and who was asked."""
    bare = PredictorSurface(predictor=replace(driver(predictor), gate=None))
    whole = PredictorSurface(predictor=predictor, drive="first")
    times: dict[str, list[float]] = {name: [] for name in guards}
    asked: dict[str, list[int]] = {name: [] for name in guards}
    for number in range(scale["rounds"] + 1):
        for name, guard in guards.items():
            asked[name].clear()
            counted = Counted(surface=bare if name == BASE else whole, asked=asked[name])
            place = folder / f"{number}_{name.replace(' ', '_')}_{time.time_ns()}"
            times[name].append(seconds(counted, structures, guard, scale["steps"], number, place))
    kept = {name: np.array(value[1:]) for name, value in times.items()}  # the first round warms up
    checks = (scale["steps"] // every + 1) * len(structures)
    share = {n: max(sum(counts) - 1, 0) / checks for n, counts in asked.items() if guards[n]}
    return {
        "draws": predictor.draws,
        "seconds": {name: [float(f"{v:.4g}") for v in value] for name, value in kept.items()},
        "over_base": {name: float(np.median(value / kept[BASE])) for name, value in kept.items()},
        "asked": share,  # in the last round, without the one that is asked before a run begins
    }


def seconds(
    surface: Surface,
    structures: Sequence[Atoms],
    guard: Guard | None,
    steps: int,
    seed: int,
    folder: Path,
) -> float:
    settings = Simulation(
        dynamics=Dynamics(timestep=TIMESTEP, thermostat=Langevin(time=100.0)),
        steps=steps,
        every=steps,
        uncertainty_every=0,
        seed=seed,
    )
    marks: list[float] = []
    # Of the processor, so that other programs do not count.
    job = Job(
        structures=structures,
        temperatures=[300.0] * len(structures),
        surface=surface,
        settings=settings,
        folder=folder,
        places=["x"] * len(structures),
        watch=None if guard is None else Watch(guard=guard),
        asked=lambda: bool(marks.append(time.process_time())),
    )
    start(job)
    return marks[-1] - marks[0]
