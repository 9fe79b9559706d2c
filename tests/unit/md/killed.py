"""A run that a test kills, or that kills itself before a step: `python killed.py FOLDER [STEP]`.

`make_job(folder)` is the same run.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ase.build import bulk

from surefoot.md.job import Job
from surefoot.md.run import start
from surefoot.md.settings import Barostat, Bussi, Dynamics, Simulation
from surefoot.motion.lennard_jones import LennardJones


def make_job(folder: Path) -> Job:
    """Constant pressure: positions, momenta, cells, two baths and lists must all go on."""
    crystals = [bulk("Ar", "fcc", 5.4, cubic=True), bulk("Ar", "fcc", 5.3, cubic=True)]
    for number, atoms in enumerate(crystals):
        atoms.rattle(0.1, seed=number)
    baths = {"thermostat": Bussi(time=50), "barostat": Barostat(time=100, compressibility=2.0)}
    settings = Simulation(
        dynamics=Dynamics(timestep=5.0, **baths), steps=80, every=2, chunk=5, skin=0.15, seed=4
    )
    return Job(
        structures=crystals,
        temperatures=[30.0, 60.0],
        surface=LennardJones(cutoff=5.0, onset=4.0),
        settings=settings,
        folder=folder,
        places=["one", "two"],
    )


def dying(step: int) -> Callable[[], bool]:
    """Asked before every step, like Ctrl-C; SIGKILL before this one."""
    asked: list[None] = []

    def ask() -> bool:
        if len(asked) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        asked.append(None)
        return False

    return ask


if __name__ == "__main__":
    job = make_job(Path(sys.argv[1]))
    start(replace(job, asked=dying(int(sys.argv[2]))) if len(sys.argv) > 2 else job)
