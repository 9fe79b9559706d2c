"""Molecular dynamics on the potential of the round, with the guard, biased or not."""

from __future__ import annotations

from typing import Literal

import ase.io
from ase import Atoms
from pydantic import Field

from surefoot.active.explore.explorer import Interrupted, Scene, bare, draw_starts
from surefoot.md.job import GUARD, Job
from surefoot.md.run import start
from surefoot.md.settings import Dynamics, Langevin, Simulation
from surefoot.motion.bias import Bias
from surefoot.motion.guard import Guard, Watch
from surefoot.motion.surface import PredictorSurface
from surefoot.settings import Settings


class Molecular(Settings):
    """Runs from labelled structures; frames of them, and what the guard stopped at.

    Attributes:
        runs: how many, from structures drawn among those with labels.
        temperatures: K, that take turns.
        steps: of each run.
        every: steps from frame to frame.
        timestep: fs.
        time: of the Langevin thermostat, fs.
        guard: ends runs that have lost firm ground; None lets them go on.
        bias: pushes runs to where the potential is unsure.
    """

    name: Literal["dynamics"] = "dynamics"
    runs: int = Field(default=8, ge=1, description="from labelled structures")
    temperatures: tuple[float, ...] = Field(
        default=(300.0, 600.0), min_length=1, description="K, that take turns"
    )
    steps: int = Field(default=2000, ge=1, description="of each run")
    every: int = Field(default=50, ge=1, description="steps from frame to frame")
    timestep: float = Field(default=0.5, gt=0, description="fs")
    time: float = Field(default=100.0, gt=0, description="1 / friction, fs")
    guard: Guard | None = Field(
        default=Guard(ood=3.0, ood_upper=30.0), description="ends runs that are lost"
    )
    bias: Bias | None = Field(default=None, description="pushes to where the potential is unsure")

    def explore(self, scene: Scene) -> list[Atoms]:
        """Frames of all runs, then those that the guard recorded.

        Raises:
            Interrupted: if it was asked to stop.
        """
        starts = draw_starts(scene, self.runs)
        guard = self.guard
        if guard is not None and guard.action != "stop":
            guard = guard.model_copy(update={"action": "stop"})
        report = start(
            Job(
                structures=starts,
                temperatures=[
                    self.temperatures[number % len(self.temperatures)]
                    for number in range(self.runs)
                ],
                surface=PredictorSurface(predictor=scene.predictor, bias=self.bias),
                settings=self._simulation(scene),
                folder=scene.folder,
                places=[f"start {number}" for number in range(self.runs)],
                watch=None if guard is None else Watch(guard=guard),
                warn=scene.warn,
                asked=scene.asked,
            ),
            over=True,
        )
        if scene.asked() and report.step < self.steps and report.last is not None:
            raise Interrupted
        return _read(scene, starts)

    def _simulation(self, scene: Scene) -> Simulation:
        return Simulation(
            dynamics=Dynamics(timestep=self.timestep, thermostat=Langevin(time=self.time)),
            steps=self.steps,
            seed=int(scene.generator.integers(2**31)),
            every=self.every,
            format="xyz",
        )


def _read(scene: Scene, starts: list[Atoms]) -> list[Atoms]:
    """Frames of all runs but the first of each, which is its beginning, and what the guard kept."""
    found = []
    for number, beginning in enumerate(starts):
        trajectory = ase.io.read(scene.folder / f"system-{number:04d}.xyz", ":")[1:]
        stopped = sorted((scene.folder / GUARD).glob(f"system-{number:04d}-*.xyz"))
        for atoms in [*trajectory, *(ase.io.read(file) for file in stopped)]:
            plain = bare(atoms)
            plain.info = dict(beginning.info)
            found.append(plain)
    return found
