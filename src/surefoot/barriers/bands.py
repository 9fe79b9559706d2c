"""Nudged elastic bands: images between two minima that are pushed together towards the way over.

    F_i = f_i − (f_i·τ) τ + k (|R_{i+1} − R_i| − |R_i − R_{i−1}|) τ

with the improved tangent τ of Henkelman and Jónsson, J. Chem. Phys. 113 (2000) 9978, and for the
highest image F = f − 2 (f·τ) τ (climbing image, Henkelman, Uberuaga and Jónsson, ibid. 9901). Bands
of all reactions move together, each with one FIRE of its own, and an evaluation is one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from ase import Atoms
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from surefoot.barriers.together import Together
from surefoot.motion.skin import SKIN
from surefoot.motion.surface import Surface
from surefoot.relax.fire import Fire
from surefoot.relax.rows import Memory, Rows
from surefoot.settings import Settings

BandStatus = Literal["converged", "exhausted", "downhill", "broken"]


class BandSettings(Settings):
    """How bands are made and where they end."""

    images: int = Field(default=9, ge=3, description="of a band, both ends among them")
    interpolation: Literal["idpp", "linear"] = Field(
        default="idpp", description="of the first images: of distances, or of positions"
    )
    spring: float = Field(default=1.0, gt=0, description="eV/Å²")
    climb_below: float = Field(
        default=0.5, gt=0, description="longest force from which on the highest image climbs, eV/Å"
    )
    fmax: float = Field(default=0.05, gt=0, description="longest force left on a band, eV/Å")
    steps: int = Field(default=300, ge=0, description="at most")
    optimizer: Fire = Fire(longest_step=0.3)
    skin: float = Field(default=SKIN, ge=0, description="of neighbour lists, Å")


@dataclass(frozen=True, kw_only=True)
class Band:
    """A band and how far it has come.

    Attributes:
        positions: (images, atoms, 3) Å, ends among them.
        energies: (images) eV.
        status: `converged`; `exhausted`, steps have run out; `downhill`, converged without an image
            above both ends; `broken`, a structure collapsed or a value is not finite.
        steps: taken.
        fmax: longest force left, eV/Å.
    """

    positions: Float[Tensor, "images atoms 3"]
    energies: Float[Tensor, " images"]
    status: BandStatus
    steps: int
    fmax: float

    @property
    def top(self) -> int:
        """The highest image."""
        return int(self.energies.argmax())

    @property
    def direction(self) -> Float[Tensor, "atoms 3"]:
        """The tangent at the highest image that is no end, of norm 1."""
        inside = int(self.energies[1:-1].argmax())
        return find_tangents(self.positions, self.energies)[inside]


def find_tangents(
    positions: Float[Tensor, "images atoms 3"], energies: Float[Tensor, " images"]
) -> Float[Tensor, "inside atoms 3"]:
    """Improved tangents of the images between the ends, each of norm 1.

    Along the band towards the neighbour that is higher; at a maximum or minimum of it between both,
    weighted by the differences of energy.

    Args:
        positions: of all images, Å.
        energies: of all images, eV.
    """
    after, before = positions[2:] - positions[1:-1], positions[1:-1] - positions[:-2]
    up, down = energies[2:] - energies[1:-1], energies[:-2] - energies[1:-1]
    larger = torch.maximum(up.abs(), down.abs())
    smaller = torch.minimum(up.abs(), down.abs())
    ahead = up > down
    of_after = torch.where(ahead, larger, smaller)
    of_before = torch.where(ahead, smaller, larger)
    rising, falling = (up > 0) & (down < 0), (up < 0) & (down > 0)
    one, none = torch.ones_like(up), torch.zeros_like(up)
    of_after = torch.where(rising, one, torch.where(falling, none, of_after))
    of_before = torch.where(rising, none, torch.where(falling, one, of_before))
    level = (of_after == 0) & (of_before == 0)  # all three are equally high
    of_after, of_before = torch.where(level, one, of_after), torch.where(level, one, of_before)
    tangents = of_after[:, None, None] * after + of_before[:, None, None] * before
    norms = tangents.flatten(1).norm(dim=1)
    return tangents / torch.where(norms > 0, norms, one)[:, None, None]


def find_band_forces(
    positions: Float[Tensor, "images atoms 3"],
    energies: Float[Tensor, " images"],
    forces: Float[Tensor, "inside atoms 3"],
    spring: float,
    climbing: int | None = None,
) -> Float[Tensor, "inside atoms 3"]:
    """What pushes the images between the ends, eV/Å.

    Args:
        positions: of all images, Å.
        energies: of all images, eV.
        forces: minus the slope of the energy at the images between the ends.
        spring: eV/Å².
        climbing: the image, counted from the first end, that climbs; None where none does.
    """
    tangents = find_tangents(positions, energies)
    along = (forces * tangents).flatten(1).sum(1)
    lengths = positions.diff(dim=0).flatten(1).norm(dim=1)
    pull = spring * lengths.diff() - along
    if climbing is not None:
        pull[climbing - 1] = -2 * along[climbing - 1]
    return forces + pull[:, None, None] * tangents


def relax_bands(
    templates: Sequence[Atoms],
    starts: Sequence[Tensor],
    ends: Sequence[tuple[float, float]],
    surface: Surface,
    settings: BandSettings,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Band]:
    """Relax bands, all together, until forces are below `fmax` with the highest image climbing.

    Args:
        templates: a structure of each band; `FixAtoms` holds.
        starts: (images, atoms, 3) where the images of each are to begin with, Å.
        ends: energies of both ends of each band, eV.
        surface: what they move on.
        settings: springs and where it ends.
        progress: called with bands done, and steps taken.
    """
    if not templates:
        return []
    run = _Bands(templates, starts, ends, surface, settings)
    taken = 0
    while run.active:
        run.advance()
        taken += 1
        progress(len(run.done), taken)
    return [run.done[number] for number in range(len(templates))]


class _Bands:
    """Bands while they move: which are left, where they are, and what became of the others."""

    def __init__(
        self,
        templates: Sequence[Atoms],
        starts: Sequence[Tensor],
        ends: Sequence[tuple[float, float]],
        surface: Surface,
        settings: BandSettings,
    ) -> None:
        self.settings = settings
        self.ends = [torch.tensor(pair, dtype=torch.float64) for pair in ends]
        self.paths = [start.clone() for start in starts]
        self.active = list(range(len(templates)))
        self.done: dict[int, Band] = {}
        self.steps = [0] * len(templates)
        self.climbs = [False] * len(templates)
        self.inside = [len(start) - 2 for start in starts]
        images = [
            atoms for atoms, count in zip(templates, self.inside, strict=True) for _ in range(count)
        ]
        self.images = Together(images, surface, settings.skin)
        self.memory: Memory = settings.optimizer.begin(self._rows())

    def _rows(self) -> Rows:
        """Rows of coordinates by band."""
        sizes = torch.tensor([self.inside[n] * self.paths[n].shape[1] for n in self.active])
        owner = torch.repeat_interleave(torch.arange(len(self.active)), sizes)
        return Rows(owner=owner, count=len(self.active))

    def advance(self) -> None:
        """One evaluation of all images of all bands, and one step."""
        here = torch.cat([self.paths[n][1:-1].reshape(-1, 3) for n in self.active])
        energies, forces = self.images.evaluate(here)
        sizes = self._rows().owner.bincount().tolist()
        parts = zip(
            self.active,
            energies.split([self.inside[n] for n in self.active]),
            forces.split(sizes),
            strict=True,
        )
        pushes = {number: self._push(number, *part) for number, *part in parts}
        self._leave([number for number in self.active if number not in self.done])
        if not self.active:
            return
        here = torch.cat([self.paths[n][1:-1].reshape(-1, 3) for n in self.active])
        forces = torch.cat([pushes[n].reshape(-1, 3) for n in self.active])
        rows = self._rows()
        self.memory, step = self.settings.optimizer.step(self.memory, rows, here, forces)
        moved = step.split(rows.owner.bincount().tolist())
        for number, own in zip(self.active, moved, strict=True):
            path = self.paths[number]
            path[1:-1] += own.reshape(len(path) - 2, -1, 3)
            self.steps[number] += 1

    def _push(self, number: int, energies: Tensor, forces: Tensor) -> Tensor:
        """Forces on the images of one band; where it is done, it goes to `done`."""
        path, (first, last) = self.paths[number], self.ends[number]
        whole = torch.cat([first[None], energies, last[None]])
        own = forces.reshape(len(path) - 2, -1, 3)
        if not (whole.isfinite().all() and own.isfinite().all()):
            self._finish(number, "broken", whole, torch.inf)
            return own
        top = int(whole.argmax())
        is_inside = 0 < top < len(path) - 1
        climbing = top if self.climbs[number] and is_inside else None
        push = find_band_forces(path, whole, own, self.settings.spring, climbing)
        fmax = float(push.norm(dim=-1).max())
        if fmax < self.settings.fmax and (climbing is not None or not is_inside):
            self._finish(number, "converged" if is_inside else "downhill", whole, fmax)
        elif self.steps[number] >= self.settings.steps:
            self._finish(number, "exhausted" if is_inside else "downhill", whole, fmax)
        self.climbs[number] |= fmax < self.settings.climb_below
        return push

    def _finish(self, number: int, status: BandStatus, energies: Tensor, fmax: float) -> None:
        self.done[number] = Band(
            positions=self.paths[number].clone(),
            energies=energies,
            status=status,
            steps=self.steps[number],
            fmax=float(fmax),
        )

    def _leave(self, going: list[int]) -> None:
        """Keep these bands alone."""
        bands = torch.tensor([number in going for number in self.active])
        if bands.all():
            return
        inside = torch.tensor([self.inside[number] for number in self.active])
        self.images.select(torch.repeat_interleave(bands, inside))
        self.memory = self.memory.select(bands, self._rows())
        self.active = going
