"""What drives trajectories out of the training region, and what was found in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsInt

import numpy as np
import torch
from ase import Atoms

from surefoot.graph import Graph
from surefoot.label.labeler import LabelingFailed
from surefoot.label.xtb import Xtb
from surefoot.md.job import Job
from surefoot.md.run import resume, start
from surefoot.md.saved import STATE
from surefoot.md.settings import Dynamics, Langevin, Simulation
from surefoot.md.trajectory import read_trajectory
from surefoot.motion.surface import Evaluation, Surface
from surefoot.settings import Settings

TIMESTEP = 0.5  # fs
QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.99)


class Pull(Settings):
    """The drive of a surface, for the trajectory and a restart; see `Driven`."""

    pair: tuple[int, int]
    pull: float
    spring: float


@dataclass(frozen=True, kw_only=True)
class Driven:
    """A surface with a constant pull on one pair, and a spring from every atom to the centre.

    Attributes:
        surface: the potential; its energies and forces stay what they are, the drive is a bias.
        pair: atoms that are pulled apart, the same in all structures.
        pull: eV/Å.
        spring: eV/Å².
    """

    surface: Surface
    pair: tuple[int, int]
    pull: float = 0.0
    spring: float = 0.0

    @property
    def cutoff(self) -> float:
        return self.surface.cutoff

    @property
    def bias(self) -> Pull:
        return Pull(pair=self.pair, pull=self.pull, spring=self.spring)

    def require(
        self, numbers: Iterable[SupportsInt], charge: int | None, spin: int | None, place: str
    ) -> None:
        self.surface.require(numbers, charge, spin, place)

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = self.surface(graph, stress=stress, uncertainty=uncertainty)
        count, owner, start = len(graph.charge), graph.graph_index, graph.graph_offsets[:-1]
        first, second = (start + atom for atom in self.pair)
        apart = graph.positions[second] - graph.positions[first]
        length = apart.norm(dim=-1)
        pull = self.pull * apart / length[:, None]
        forces = torch.zeros_like(graph.positions)
        forces.index_add_(0, second, pull).index_add_(0, first, -pull)
        centre = torch.zeros(count, 3, dtype=torch.float64).index_add_(0, owner, graph.positions)
        away = graph.positions - (centre / graph.atom_counts[:, None])[owner]
        forces -= self.spring * away
        squares = torch.zeros(count, dtype=torch.float64)
        squares.index_add_(0, owner, away.square().sum(-1))
        energy = 0.5 * self.spring * squares - self.pull * length
        return replace(found, bias_energy=energy, bias_forces=forces)


GROUPS = 5  # of the structures of a kind; each has its own bond, pull and spring


def drives(surface: Surface, first: Atoms, kind: dict[str, Any], groups: int) -> list[Driven]:
    """Pulls and springs evenly between their ends, bonds evenly over the molecule."""
    lengths = first.get_all_distances() + 9.0 * np.eye(len(first))
    bonds = np.argwhere(np.triu(lengths < 1.75))
    ends = {name: np.linspace(*kind.get(name, (0.0, 0.0)), groups) for name in ("pull", "spring")}
    chosen = np.linspace(0, len(bonds) - 1, groups).round().astype(int)
    return [
        Driven(
            surface=surface,
            pair=(int(bonds[chosen[number]][0]), int(bonds[chosen[number]][1])),
            pull=float(ends["pull"][number]),
            spring=float(ends["spring"][number]),
        )
        for number in range(groups)
    ]


def run(
    folder: Path,
    surface: Surface,
    structures: Sequence[Atoms],
    *,
    kelvin: float,
    steps: int,
    every: int,
    seed: int,
    potential: str,
) -> list[dict[str, np.ndarray]]:
    """Langevin dynamics without a guard, frames at every check; an interrupted run goes on.

    What is there of another `potential`, a hash of it and of the config, is refused.

    Nothing ends a trajectory but numbers that are none: what the guard would have done is worked
    out afterwards.
    """
    settings = Simulation(
        dynamics=Dynamics(timestep=TIMESTEP, thermostat=Langevin(time=100.0)),
        steps=steps,
        seed=seed,
        every=every,
        chunk=50,
        hottest=1e9,
        drift=1e9,
        lost="allow",
    )
    job = Job(
        structures=structures,
        temperatures=[kelvin] * len(structures),
        surface=surface,
        settings=settings,
        folder=folder,
        places=[f"trajectory {number}" for number in range(len(structures))],
        potential=potential,
        warn=print,
    )
    (resume if (folder / STATE).exists() else start)(job)
    return [read_trajectory(folder, number) for number in range(len(structures))]


def worst_error(labeler: Xtb, frames: dict[str, np.ndarray], number: int) -> float:
    """Longest error of a force in a frame, eV/Å; inf where the labeler has no answer."""
    try:
        truth = labeler.label(Atoms(frames["numbers"], frames["positions"][number]), 0, 1)
    except LabelingFailed:
        return float("inf")
    return float(np.linalg.norm(frames["forces"][number] - truth.forces, axis=1).max())


def relabel(labeler: Xtb, frames: dict[str, np.ndarray], limit: float, margin: int) -> list[float]:
    """Errors of the frames until they have passed the limit, and of some after that."""
    errors: list[float] = []
    for number in range(len(frames["step"])):
        errors.append(worst_error(labeler, frames, number))
        margin -= max(errors) > limit
        if margin < 0:
            break
    return errors


def energy_per_root(frames: dict[str, np.ndarray]) -> np.ndarray:
    """σ of the energy over √atoms, eV: what `near_energy` of a guard is held against."""
    return frames["energy_uncertainty"] / np.sqrt(len(frames["numbers"]))


def highs(frames: dict[str, np.ndarray], limit: float) -> dict[str, Any]:
    """Where each score was higher than ever before, and the true error there.

    That is where a guard would have acted, whatever its limit; the other checks say nothing more.
    """
    found: dict[str, Any] = {
        "ood_quantiles": np.quantile(frames["ood"], QUANTILES).tolist(),
        "energy_quantiles": np.quantile(energy_per_root(frames), QUANTILES).tolist(),
    }
    checks = {n: frames[n].max(1) for n in ("forces_uncertainty_norm", "ood_atoms")}
    for name, values in checks.items():
        best = np.maximum.accumulate(values)
        places = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
        found["norm" if name.startswith("forces") else name] = {
            "check": places.tolist(),
            "score": [float(f"{values[n]:.4g}") for n in places],
            "failed": [bool(worst_error(Xtb(), frames, int(n)) > limit) for n in places],
        }
    return found
