"""FIRE, the fast inertial relaxation engine, for many systems at once.

Bitzek et al., Phys. Rev. Lett. 97 (2006) 170201: steepest descent with a velocity that is mixed
towards the force while the power F·v is positive, and dropped when it is not. Steps are those of
ASE's FIRE with the same settings; time has no unit here, since all masses are one.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from surefoot.relax.rows import Memory, Rows
from surefoot.settings import Settings

GROWTH, SHRINKING, MIXING, MIXING_DECAY, PATIENCE = 1.1, 0.5, 0.1, 0.99, 5  # of the paper


class Fire(Settings):
    """Settings of FIRE; called through `begin` and `step`."""

    name: Literal["fire"] = "fire"
    timestep: float = Field(default=0.1, gt=0, description="to begin with")
    longest_timestep: float = Field(default=1.0, gt=0)
    longest_step: float = Field(
        default=0.2, gt=0, description="root of the sum of squares over a system, Å"
    )

    def begin(self, rows: Rows) -> Memory:
        """At rest."""
        system = torch.zeros(rows.count, dtype=torch.float64)
        return Memory(
            of_rows={"velocity": torch.zeros(len(rows.owner), 3, dtype=torch.float64)},
            of_systems={
                "timestep": system + self.timestep,
                "mixing": system + MIXING,
                "downhill": torch.zeros(rows.count, dtype=torch.int64),
                "age": torch.zeros(rows.count, dtype=torch.int64),
            },
        )

    def join(self, first: Memory, second: Memory) -> Memory:
        """The memories of systems of different age as one."""
        return first.append(second)

    def step(
        self,
        memory: Memory,
        rows: Rows,
        coordinates: Float[Tensor, "rows 3"],  # noqa: ARG002 - the protocol's
        forces: Float[Tensor, "rows 3"],
    ) -> tuple[Memory, Float[Tensor, "rows 3"]]:
        """The displacement of every row, and what to carry on; see `Optimizes`."""
        state, velocity = memory.of_systems, memory.of_rows["velocity"]
        timestep, mixing, downhill = (state[n] for n in ("timestep", "mixing", "downhill"))
        going_down = rows.dot(forces, velocity) > 0
        begun = state["age"] > 0
        strength = rows.dot(forces, forces).sqrt()
        speed = rows.dot(velocity, velocity).sqrt()
        along = mixing * speed / torch.where(strength > 0, strength, 1.0)
        mixed = (1 - mixing)[rows.owner, None] * velocity + along[rows.owner, None] * forces
        velocity = torch.where(going_down[rows.owner, None], mixed, 0.0)
        patient = going_down & (downhill > PATIENCE)
        turned = begun & ~going_down
        timestep = torch.where(
            patient, (timestep * GROWTH).clamp(max=self.longest_timestep), timestep
        )
        timestep = torch.where(turned, timestep * SHRINKING, timestep)
        mixing = torch.where(patient, mixing * MIXING_DECAY, mixing)
        mixing = torch.where(turned, MIXING, mixing)
        downhill = torch.where(going_down, downhill + 1, 0)
        velocity = velocity + timestep[rows.owner, None] * forces
        step = timestep[rows.owner, None] * velocity
        length = rows.dot(step, step).sqrt()
        scale = (self.longest_step / length).clamp(max=1.0)
        carried = Memory(
            of_rows={"velocity": velocity},
            of_systems={
                "timestep": timestep,
                "mixing": mixing,
                "downhill": downhill,
                "age": state["age"] + 1,
            },
        )
        return carried, step * scale[rows.owner, None]
