"""How structures move: step, thermostat, barostat, and what ends a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from surefoot.motion.skin import SKIN
from surefoot.settings import Settings

Format = Literal["h5", "xyz"]


class Langevin(Settings):
    """Friction and noise on every atom: robust, but diffusion is slower than without."""

    name: Literal["langevin"] = "langevin"
    time: float = Field(default=100.0, gt=0, description="1 / friction, fs")


class Bussi(Settings):
    """All momenta of a system scaled by one random factor: the motion hardly feels it."""

    name: Literal["bussi"] = "bussi"
    time: float = Field(default=100.0, gt=0, description="relaxation of the kinetic energy, fs")


class Barostat(Settings):
    """The volume scaled at random about what the pressure asks for."""

    pressure: float = Field(default=0.0, description="GPa")
    compressibility: float = Field(
        default=0.5, gt=0, description="1/GPa, a rough guess: it only sets the pace; water has 0.46"
    )
    time: float = Field(default=1000.0, gt=0, description="relaxation of the volume, fs")


class Dynamics(Settings):
    """An integrator; no thermostat is NVE, a barostat is NPT."""

    timestep: float = Field(default=0.5, gt=0, description="fs")
    thermostat: Langevin | Bussi | None = Field(default=None, discriminator="name")
    barostat: Barostat | None = None

    @model_validator(mode="after")
    def _fitting(self) -> Dynamics:
        if self.barostat is not None and self.thermostat is None:
            raise ValueError(
                "a barostat without a thermostat does not hold the temperature either; set "
                "`thermostat` to bussi or langevin"
            )
        for part in (self.thermostat, self.barostat):
            if part is not None and part.time < 5 * self.timestep:
                raise ValueError(
                    f"a relaxation time of {part.time} fs is less than five steps of "
                    f"{self.timestep} fs; make it longer, 100 fs or more is usual"
                )
        return self


class Simulation(Settings):
    """A run: the integrator, what is written, and what ends it."""

    dynamics: Dynamics = Dynamics()
    steps: int = Field(default=1000, ge=0)
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**64,
        description="of momenta, thermostat and barostat: 64 bits, the key of the generator",
    )
    momenta: Literal["drawn", "given"] = Field(
        default="drawn", description="drawn at the temperature, or as the structures have them"
    )
    every: int = Field(default=10, ge=1, description="steps from frame to frame")
    uncertainty_every: int = Field(
        default=1,
        ge=0,
        description="frames from one with the uncertainties of all draws to the next, where these "
        "have to be asked; 0: only where the guard asks",
    )
    chunk: int = Field(default=100, ge=1, description="frames that are written at once")
    format: Format = Field(default="h5", description="h5 (HDF5) or xyz (extended XYZ)")
    skin: float = Field(default=SKIN, ge=0, description="of neighbour lists, Å")
    hottest: float | None = Field(
        default=None,
        gt=0,
        description="temperature that ends a system, K; ten times its own and 3000 K where not set",
    )
    drift: float = Field(
        default=0.1, gt=0, description="change of what is conserved that ends it, eV/atom/ps"
    )
    lost: Literal["stop", "allow"] = Field(
        default="stop", description="of atoms that had neighbours and have none any more"
    )
