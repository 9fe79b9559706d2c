"""From near a saddle point onto it: uphill along one mode, downhill along all others.

Partitioned rational function optimisation (Banerjee et al., J. Phys. Chem. 89 (1985) 52) in
Cartesian coordinates without rigid motion. With slopes g_i and curvatures w_i along the modes of
the Hessian, the step along the mode that is followed and along the others is

    h_k = −g_k / (w_k − λ_p),  λ_p = (w_k + √(w_k² + 4 g_k²)) / 2
    h_i = −g_i / (w_i − λ_n),  λ_n = Σ_i g_i² / (λ_n − w_i), the lowest solution

The followed mode is that which resembles the last one most, beginning with the direction of a
band. The Hessian is exact at the start and now and then, by differences, and is updated between as
by Bofill, J. Comput. Chem. 15 (1994) 1. Searches of all reactions share their evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from pydantic import Field

from surefoot.barriers.together import Together
from surefoot.barriers.vibrations import find_hessian, free_atoms, internal_motion
from surefoot.motion.surface import Surface
from surefoot.settings import Settings

SMALLEST_TRUST = 0.005  # Å
GOOD, POOR = (0.7, 1.4), (0.25, 2.0)
"""Change of energy over that which the parabola promised: between the first, longer steps are
allowed; outside the second, shorter ones are taken."""


class RefineSettings(Settings):
    """How a saddle point is searched for from near it."""

    fmax: float = Field(default=0.01, gt=0, description="longest force left on an atom, eV/Å")
    steps: int = Field(default=100, ge=0, description="at most")
    trust: float = Field(default=0.1, gt=0, description="length of the first steps, Å")
    longest: float = Field(default=0.3, gt=0, description="length of any step, Å")
    hessian_every: int = Field(default=10, ge=1, description="steps from one Hessian to the next")
    displacement: float = Field(default=0.01, gt=0, description="of the differences of forces, Å")


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What became of one search.

    Attributes:
        atoms: where it ended.
        energy: eV.
        status: `converged`; `exhausted`, steps have run out; `broken`, a value is not finite.
        steps: taken.
        fmax: longest force left, eV/Å.
    """

    atoms: Atoms
    energy: float
    status: Literal["converged", "exhausted", "broken"]
    steps: int
    fmax: float


@dataclass(kw_only=True)
class _Search:
    """One search while it goes on; vectors are over the atoms that may move."""

    atoms: Atoms
    mode: np.ndarray
    trust: float
    free: np.ndarray = field(init=False)
    hessian: np.ndarray | None = None
    steps: int = 0
    last: tuple[np.ndarray, np.ndarray, float, float] | None = None  # step, slope, energy, promise

    def __post_init__(self) -> None:
        self.free = free_atoms(self.atoms)
        self.mode = self.mode[self.free].ravel()

    def advance(
        self, energy: float, forces: np.ndarray, surface: Surface, settings: RefineSettings
    ) -> None:
        """Take the next step."""
        slope = -forces[self.free].ravel()
        if self.hessian is None or self.steps % settings.hessian_every == 0:
            self.hessian = find_hessian(self.atoms, surface, settings.displacement)
        elif self.last is not None:
            self.hessian = update_hessian(self.hessian, self.last[0], slope - self.last[1])
        if self.last is not None:
            self._adapt(energy, settings)
        basis = internal_motion(self.atoms)
        values, vectors = np.linalg.eigh(basis.T @ self.hessian @ basis)
        modes = basis @ vectors
        followed = int(np.abs(self.mode @ modes).argmax())
        self.mode = modes[:, followed]
        along = find_step(values, modes.T @ slope, followed)
        along *= min(1.0, self.trust / max(np.linalg.norm(along), 1e-300))
        step = modes @ along
        promise = float(slope @ step + 0.5 * step @ self.hessian @ step)
        self.last = (step, slope, energy, promise)
        self.steps += 1
        moved = self.atoms.get_positions()
        moved[self.free] += step.reshape(-1, 3)
        self.atoms.set_positions(moved)

    def _adapt(self, energy: float, settings: RefineSettings) -> None:
        """A longer or shorter step, by how well the parabola has told the last one."""
        if self.last is None:
            return
        step, _, before, promise = self.last
        if abs(promise) < 1e-6:  # eV: nothing but noise
            return
        kept = (energy - before) / promise
        if not POOR[0] < kept < POOR[1]:
            self.trust = max(SMALLEST_TRUST, 0.5 * self.trust)
        elif GOOD[0] < kept < GOOD[1] and np.linalg.norm(step) > 0.8 * self.trust:
            self.trust = min(settings.longest, 1.5 * self.trust)


def refine_saddles(
    starts: Sequence[Atoms],
    directions: Sequence[np.ndarray],
    surface: Surface,
    settings: RefineSettings,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Refined]:
    """Saddle points from structures near them.

    Args:
        starts: such as the highest images of bands.
        directions: (atoms, 3) the way over each, such as the tangent of the band.
        surface: what they are on.
        settings: step lengths and where it ends.
        progress: called with searches done, and steps taken.
    """
    if not starts:
        return []
    searches = [
        _Search(atoms=atoms.copy(), mode=np.array(mode), trust=settings.trust)
        for atoms, mode in zip(starts, directions, strict=True)
    ]
    together = Together(starts, surface)
    active, done, taken = list(range(len(starts))), {}, 0
    while active:
        here = torch.tensor(np.concatenate([searches[n].atoms.positions for n in active]))
        energies, forces = together.evaluate(here)
        counts = [len(searches[number].atoms) for number in active]
        for number, energy, own in zip(
            active, energies.tolist(), forces.split(counts), strict=True
        ):
            ended = _end(searches[number], energy, own.numpy(), settings)
            if ended is None:
                searches[number].advance(energy, own.numpy(), surface, settings)
            else:
                done[number] = ended
        together.select(torch.tensor([number not in done for number in active]))
        active = [number for number in active if number not in done]
        taken += 1
        progress(len(done), taken)
    return [done[number] for number in range(len(starts))]


def _end(
    search: _Search, energy: float, forces: np.ndarray, settings: RefineSettings
) -> Refined | None:
    """The result of a search that is over; None of one that goes on."""
    fmax = float(np.linalg.norm(forces[search.free], axis=1).max(initial=0.0))
    if not (np.isfinite(energy) and np.isfinite(fmax)):
        status = "broken"
    elif fmax < settings.fmax:
        status = "converged"
    elif search.steps >= settings.steps:
        status = "exhausted"
    else:
        return None
    return Refined(atoms=search.atoms, energy=energy, status=status, steps=search.steps, fmax=fmax)


def find_step(
    values: Float[np.ndarray, " modes"], slopes: Float[np.ndarray, " modes"], followed: int
) -> Float[np.ndarray, " modes"]:
    """The step along each mode, Å; see the head of this file.

    Args:
        values: curvatures, eV/Å².
        slopes: of the energy, eV/Å.
        followed: the mode along which the energy is to have a maximum.
    """
    step = np.zeros_like(values)
    w, g = values[followed], slopes[followed]
    step[followed] = -g / min((w - np.sqrt(w**2 + 4 * g**2)) / 2, -1e-12)
    others = np.arange(len(values)) != followed
    w, g = values[others], slopes[others]
    augmented = np.block([[np.diag(w), g[:, None]], [g[None], np.zeros((1, 1))]])
    lowest = np.linalg.eigvalsh(augmented)[0]
    step[others] = -g / np.maximum(w - lowest, 1e-12)
    return step


def update_hessian(
    hessian: Float[np.ndarray, "n n"],
    step: Float[np.ndarray, " n"],
    change: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "n n"]:
    """The Hessian after a step, by Bofill's mixture of two updates that give the change of slope.

    With r = change − H step and φ = (r·s)² / (r·r s·s): φ times the symmetric update of rank one,
    1 − φ times that of Powell.

    Args:
        hessian: eV/Å².
        step: Å.
        change: of the slope of the energy, eV/Å.
    """
    rest = change - hessian @ step
    length, size, inner = float(step @ step), float(rest @ rest), float(rest @ step)
    if length < 1e-16 or size < 1e-16:
        return hessian
    share = inner**2 / (size * length)
    crossed = np.outer(rest, step)
    powell = (crossed + crossed.T) / length - inner * np.outer(step, step) / length**2
    if abs(inner) < 1e-12:
        return hessian + powell
    return hessian + share * np.outer(rest, rest) / inner + (1 - share) * powell
