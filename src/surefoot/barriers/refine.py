"""From near a saddle point onto it: uphill along one mode, downhill along all others.

Partitioned rational function optimisation (Banerjee et al., J. Phys. Chem. 89 (1985) 52) in
Cartesian coordinates without rigid motion. With slopes g_i and curvatures w_i along the modes of
the Hessian, the step along the mode that is followed and along the others is

    h_k = −g_k / (w_k − λ_p),  λ_p = (w_k + √(w_k² + 4 g_k²)) / 2
    h_i = −g_i / (w_i − λ_n),  λ_n = Σ_i g_i² / (λ_n − w_i), the lowest solution

The followed mode is that which resembles the last one most, beginning with the direction of a
band. The Hessian is exact at the start and now and then, by differences, and is updated between as
by Anglada and Bofill. Steps are bent, so that groups turn about bonds and do not stretch them, and
taken back where the slope after them is not that which the Hessian promised. The curvature along
the followed mode is measured at every step, by one more slope. Searches of all reactions share
their evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float, Int
from pydantic import Field

from surefoot.barriers.together import Together
from surefoot.barriers.vibrations import find_hessian, free_atoms, internal_motion
from surefoot.motion.surface import Surface
from surefoot.settings import Settings

SMALLEST_TRUST = 0.005  # Å
GOOD, POOR = 0.4, 1.0
"""Error of the slope that was expected after a step, over the slope before it: below the first,
longer steps are allowed; above the second, the step is taken back and a shorter one is tried."""
OLD = 25  # steps after which a Hessian with which a step has failed is made anew
CORRECTIONS = 3  # of a step, to distances; each squares what is left
REACH = 1.5  # times the sum of covalent radii: bonds that are made or broken among them
LOOSE = 1e-2  # of the largest singular value: what distances leave open stays as it is


class RefineSettings(Settings):
    """How a saddle point is searched for from near it."""

    fmax: float = Field(default=0.01, gt=0, description="longest force left on an atom, eV/Å")
    steps: int = Field(default=100, ge=0, description="at most")
    trust: float = Field(default=0.1, gt=0, description="length of the first steps, Å")
    longest: float = Field(default=0.3, gt=0, description="length of any step, Å")
    hessian_every: int = Field(default=40, ge=1, description="steps from one Hessian to the next")
    displacement: float = Field(default=0.01, gt=0, description="of the differences of forces, Å")


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What became of one search.

    Attributes:
        atoms: where it ended.
        energy: eV.
        status: `converged`; `exhausted`, steps have run out; `left`, it has gone too far away;
            `broken`, a value is not finite.
        steps: taken.
        fmax: longest force left, eV/Å.
    """

    atoms: Atoms
    energy: float
    status: Literal["converged", "exhausted", "left", "broken"]
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
    since: int = 0  # the last exact Hessian, in steps
    last: tuple[np.ndarray, np.ndarray] | None = None  # step, slope before it

    def __post_init__(self) -> None:
        self.free = free_atoms(self.atoms)
        self.mode = self.mode[self.free].ravel()
        self.mode /= max(np.linalg.norm(self.mode), 1e-300)

    def probe(self, length: float) -> Float[np.ndarray, "atoms 3"]:
        """Where the slope tells the curvature along the followed mode."""
        places = self.atoms.get_positions()
        places[self.free] += length * self.mode.reshape(-1, 3)
        return places

    def advance(
        self, forces: np.ndarray, probed: np.ndarray, surface: Surface, settings: RefineSettings
    ) -> None:
        """Take the next step, or the last one back and a shorter one."""
        slope = -forces[self.free].ravel()
        self.steps += 1
        stale = self.hessian is None or self.since >= settings.hessian_every
        if self.last is not None and self.hessian is not None:
            step, before = self.last
            if self._adapt(slope, settings):
                self.hessian = update_hessian(self.hessian, step, slope - before)
                change = -probed[self.free].ravel() - slope
                along = settings.displacement * self.mode
                self.hessian = update_hessian(self.hessian, along, change)
            else:
                self._move(-step)
                slope = before
                stale |= self.since >= OLD
        if self.hessian is None or stale:
            self.hessian = find_hessian(self.atoms, surface, settings.displacement)
            self.since = 0
        self.since += 1
        basis = internal_motion(self.atoms)
        values, vectors = np.linalg.eigh(basis.T @ self.hessian @ basis)
        modes = basis @ vectors
        followed = int(np.abs(self.mode @ modes).argmax())
        self.mode = modes[:, followed]
        along = find_step(values, modes.T @ slope, followed)
        along *= min(1.0, self.trust / max(np.linalg.norm(along), 1e-300))
        step = bend_step(self.atoms, (modes @ along).reshape(-1, 3), self.free).ravel()
        self.last = (step, slope)
        self._move(step)

    def _move(self, step: np.ndarray) -> None:
        moved = self.atoms.get_positions()
        moved[self.free] += step.reshape(-1, 3)
        self.atoms.set_positions(moved)

    def _adapt(self, slope: np.ndarray, settings: RefineSettings) -> bool:
        """Longer or shorter steps, by how well the parabola has told the slope; False: go back."""
        if self.last is None or self.hessian is None:
            return True
        step, before = self.last
        length = float(np.linalg.norm(step))
        error = np.linalg.norm(slope - before - self.hessian @ step) / np.linalg.norm(before)
        if error < GOOD and length > 0.8 * self.trust:
            self.trust = min(settings.longest, 1.5 * self.trust)
        elif error > POOR:
            self.trust = max(SMALLEST_TRUST, 0.5 * min(length, self.trust))
            return length <= SMALLEST_TRUST
        return True


def refine_saddles(
    starts: Sequence[Atoms],
    directions: Sequence[np.ndarray],
    surface: Surface,
    settings: RefineSettings,
    progress: Callable[[int, int], None] = lambda *_: None,
    left: Callable[[int, Atoms], bool] = lambda *_: False,
) -> list[Refined]:
    """Saddle points from structures near them.

    Args:
        starts: such as the highest images of bands.
        directions: (atoms, 3) the way over each, such as the tangent of the band.
        surface: what they are on.
        settings: step lengths and where it ends.
        progress: called with searches done, and steps taken.
        left: whether the search of this number is no longer where it can find anything.
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
        beside = [searches[number].probe(settings.displacement) for number in active]
        _, probed = together.evaluate(torch.tensor(np.concatenate(beside)))
        counts = [len(searches[number].atoms) for number in active]
        for number, energy, own, other in zip(
            active, energies.tolist(), forces.split(counts), probed.split(counts), strict=True
        ):
            ended = _end(searches[number], energy, own.numpy(), settings)
            if ended is None and left(number, searches[number].atoms):
                ended = replace(_last(searches[number], energy, own.numpy()), status="left")
            if ended is None:
                searches[number].advance(own.numpy(), other.numpy(), surface, settings)
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
    last = _last(search, energy, forces)
    if not (np.isfinite(energy) and np.isfinite(last.fmax)):
        return replace(last, status="broken")
    if last.fmax < settings.fmax:
        return replace(last, status="converged")
    return last if search.steps >= settings.steps else None


def _last(search: _Search, energy: float, forces: np.ndarray) -> Refined:
    """Where a search is, as if steps had run out."""
    fmax = float(np.linalg.norm(forces[search.free], axis=1).max(initial=0.0))
    return Refined(
        atoms=search.atoms, energy=energy, status="exhausted", steps=search.steps, fmax=fmax
    )


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
    """The Hessian after a step, by an update that gives the change of slope.

    With r = change − H s and |H| the Hessian with all curvatures made positive, u = (change·s)
    change + (s·|H| s) |H| s and v = u / (u·s): H + r vᵀ + v rᵀ − (r·s) v vᵀ. Near a minimum soft
    curvatures stay positive as with that of Broyden, Fletcher, Goldfarb and Shanno, and near a
    saddle point the negative one stays (Anglada and Bofill, J. Comput. Chem. 19 (1998) 349).

    Args:
        hessian: eV/Å².
        step: Å.
        change: of the slope of the energy, eV/Å.
    """
    rest = change - hessian @ step
    if float(step @ step) < 1e-16 or float(rest @ rest) < 1e-16:
        return hessian
    values, vectors = np.linalg.eigh(hessian)
    positive = vectors @ (np.abs(values) * (vectors.T @ step))
    weighted = float(change @ step) * change + float(step @ positive) * positive
    inner = float(weighted @ step)
    if inner > 0.05 * np.linalg.norm(weighted) * np.linalg.norm(step):
        along = weighted / inner
    else:  # nearly at right angles, and v without bounds: Powell's update, v = s / (s·s)
        along = step / float(step @ step)
    crossed = np.outer(rest, along)
    return hessian + crossed + crossed.T - float(rest @ step) * np.outer(along, along)


def bend_step(
    atoms: Atoms, step: Float[np.ndarray, "free 3"], free: Int[np.ndarray, " free"]
) -> Float[np.ndarray, "free 3"]:
    """A step that changes short distances as much as it would if it were very small.

    In Cartesian coordinates groups that turn about a bond move along tangents, on which all their
    bonds grow, and a stiff force follows each step along a soft mode. With d the distances over one
    and two bonds and B = ∂d/∂R, the step Δ is corrected until d(R + Δ) = d(R) + B Δ.

    Args:
        atoms: where it begins.
        step: of the atoms that may move, Å.
        free: their indices.
    """
    one, other = _near_pairs(atoms)
    if len(one) == 0:
        return step
    whole = np.zeros((len(atoms), 3))
    whole[free] = step
    away = atoms.get_all_distances(mic=bool(atoms.pbc.any()), vector=True)[other, one]
    lengths = np.linalg.norm(away, axis=1)
    aim = lengths + ((whole[one] - whole[other]) * away).sum(1) / lengths
    bent, number = whole.copy(), np.arange(len(one))
    for _ in range(CORRECTIONS):
        now = away + bent[one] - bent[other]
        lengths = np.linalg.norm(now, axis=1)
        slopes = np.zeros((len(one), len(atoms), 3))
        slopes[number, one] += now / lengths[:, None]
        slopes[number, other] -= now / lengths[:, None]
        slopes = slopes[:, free].reshape(len(one), -1)
        more, *_ = np.linalg.lstsq(slopes, aim - lengths, rcond=LOOSE)
        bent[free] += more.reshape(-1, 3)
    strange = not np.isfinite(bent).all() or np.abs(bent[free] - step).max() > np.abs(step).max()
    return step if strange else bent[free]


def _near_pairs(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of atoms that are one or two bonds apart."""
    radii = covalent_radii[atoms.numbers]
    lengths = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    bound = (lengths < REACH * (radii[:, None] + radii)).astype(int)
    np.fill_diagonal(bound, 0)
    one, other = np.nonzero(np.triu(bound + bound @ bound, 1))
    return one, other
