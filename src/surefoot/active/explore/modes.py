"""Normal modes: minima displaced along their vibrations, as heat would displace them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from ase import Atoms
from pydantic import Field

from surefoot.active.explore.explorer import Scene, bare, draw_starts
from surefoot.active.explore.rattle import is_sound
from surefoot.barriers.vibrations import Vibrations, find_vibrations
from surefoot.motion.surface import PredictorSurface
from surefoot.relax.run import Relaxation, relax
from surefoot.settings import Settings
from surefoot.units import BOLTZMANN, DALTON, LIGHT


class Modes(Settings):
    """The classical harmonic ensemble about relaxed structures.

    Attributes:
        structures: labelled structures that are relaxed on the potential of the round.
        count: displaced structures of each.
        temperatures: K, that take turns.
        softest: vibrations below count as this, cm⁻¹: torsions, which no parabola describes.
        relaxation: how they are relaxed.
        closest: share of the sum of covalent radii below which two atoms are too close.
    """

    name: Literal["modes"] = "modes"
    structures: int = Field(default=4, ge=1, description="that are relaxed")
    count: int = Field(default=20, ge=1, description="displaced structures of each")
    temperatures: tuple[float, ...] = Field(
        default=(300.0, 1000.0), min_length=1, description="K, that take turns"
    )
    softest: float = Field(default=100.0, gt=0, description="softer ones count as this, 1/cm")
    relaxation: Relaxation = Relaxation(fmax=0.05)
    closest: float = Field(
        default=0.6, gt=0, lt=1, description="of the sum of covalent radii; closer is refused"
    )

    def explore(self, scene: Scene) -> list[Atoms]:
        """Structures about each minimum; a structure that does not relax gives none."""
        surface = PredictorSurface(predictor=scene.predictor)
        found = []
        for relaxed in relax(draw_starts(scene, self.structures), surface, self.relaxation):
            if relaxed.status != "converged":
                continue
            vibrations = find_vibrations(relaxed.atoms, surface)
            for number in range(self.count):
                temperature = self.temperatures[number % len(self.temperatures)]
                atoms = self._displace(relaxed.atoms, vibrations, temperature, scene.generator)
                if is_sound(atoms, self.closest):
                    found.append(atoms)
        return found

    def _displace(
        self,
        minimum: Atoms,
        vibrations: Vibrations,
        temperature: float,
        generator: np.random.Generator,
    ) -> Atoms:
        """The minimum plus Σ_m √(k_B T) / ω_m ξ_m v_m / √mass, with ξ standard normal."""
        numbers = np.maximum(np.abs(vibrations.frequencies), self.softest)
        omega = 2 * np.pi * LIGHT * numbers
        widths = np.sqrt(BOLTZMANN * temperature) / omega * generator.normal(size=len(omega))
        moved = np.einsum("m,mac->ac", widths, vibrations.modes)
        atoms = bare(minimum)
        atoms.positions += moved / np.sqrt(minimum.get_masses() * DALTON)[:, None]
        return atoms
