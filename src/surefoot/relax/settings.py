"""What is asked of a relaxation, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ase import Atoms
from pydantic import Field

from surefoot.data.batches import BatchLimits
from surefoot.motion.skin import SKIN
from surefoot.motion.surface import Evaluation
from surefoot.relax import Lbfgs, Optimizer
from surefoot.settings import Settings

Status = Literal["converged", "exhausted", "unsure", "broken"]
LIMITS = BatchLimits(graphs=64, atoms=4096, edges=None)
"""How many move together; what is evaluated at once is the surface's own affair."""
NUMBER = "relax_structure"
"""In info: the number of a structure in the file that it came from."""


class Relaxation(Settings):
    """How structures are relaxed; fmax and steps are those of OC20, `relax.OC20` the rest."""

    optimizer: Optimizer = Field(default=Lbfgs(), discriminator="name")
    fmax: float = Field(default=0.02, gt=0, description="longest force left on an atom, eV/Å")
    steps: int = Field(default=300, ge=0, description="at most")
    cell: Literal["fixed", "free"] = Field(default="fixed", description="free needs stress")
    pressure: float = Field(default=0.0, description="on free cells, GPa")
    stress: float = Field(
        default=0.05, gt=0, description="largest component of stress + pressure left, GPa"
    )
    skin: float = Field(default=SKIN, ge=0, description="of neighbour lists, Å")


@dataclass(frozen=True, kw_only=True)
class Relaxed:
    """What became of one structure.

    Attributes:
        atoms: where it ended, `FixAtoms` and info as they were, without calculator.
        status: `converged`; `exhausted`, steps have run out; `unsure`, the guard has stopped it;
            `broken`, energy or forces were no longer finite there.
        steps: taken.
        first_energy: eV, where it began.
        evaluation: at `atoms`.
        fmax: longest force left on an atom that may move, eV/Å.
        score: of the guard where it ended, 1 is the limit; None without a guard.
        reason: a sentence where the status is `unsure` or `broken`.
    """

    atoms: Atoms
    status: Status
    steps: int
    first_energy: float
    evaluation: Evaluation
    fmax: float
    score: float | None = None
    reason: str = ""
