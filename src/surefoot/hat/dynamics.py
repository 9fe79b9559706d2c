"""Snapshots of short dynamics on a labeler's surface: torsions that no parabola describes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from pydantic import Field

from surefoot.label.labeler import Labeler
from surefoot.settings import Settings


class Dynamics(Settings):
    """Short Langevin dynamics from each conformer."""

    snapshots: int = Field(
        default=0, ge=0, description="structures kept of each conformer; 0 for none, modes only"
    )
    temperature: float = Field(default=500.0, gt=0, description="K")
    timestep: float = Field(default=1.0, gt=0, le=2, description="fs")
    settling: int = Field(default=200, ge=0, description="steps before the first snapshot")
    interval: int = Field(default=50, gt=0, description="steps between two snapshots")
    friction: float = Field(default=0.02, gt=0, description="1/fs")


def run_dynamics(
    atoms: Atoms,
    labeler: Labeler,
    state: tuple[int, int],
    settings: Dynamics,
    generator: np.random.Generator,
) -> list[Atoms]:
    """Snapshots of one run at constant temperature.

    Args:
        atoms: where it begins.
        labeler: source of forces.
        state: total charge in e and multiplicity 2S+1.
        settings: temperature, steps and snapshots.
        generator: source of all random numbers.

    Raises:
        LabelingFailed: if the labeler fails on the way.
    """
    moving = Atoms(atoms.numbers, atoms.positions)
    moving.calc = _Surface(labeler, state)
    widths = np.sqrt(moving.get_masses() * units.kB * settings.temperature)
    moving.set_momenta(widths[:, None] * generator.normal(size=moving.positions.shape))
    run = Langevin(
        moving,
        settings.timestep * units.fs,
        temperature_K=settings.temperature,
        friction=settings.friction / units.fs,
        rng=generator,
        fixcm=False,
    )
    kept = []
    run.run(settings.settling)
    for _ in range(settings.snapshots):
        run.run(settings.interval)
        kept.append(Atoms(moving.numbers, moving.positions.copy()))
    return kept


class _Surface(Calculator):
    """A labeler as ASE's dynamics ask for one."""

    implemented_properties: ClassVar[list[str]] = [  # pyright: ignore[reportIncompatibleVariableOverride]
        "energy",
        "forces",
    ]

    def __init__(self, labeler: Labeler, state: tuple[int, int]) -> None:
        super().__init__()
        self._labeler, self._state = labeler, state

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None  # noqa: S101  set by the line above
        labels = self._labeler.label(self.atoms, *self._state)
        self.results = {"energy": labels.energy, "forces": labels.forces}
