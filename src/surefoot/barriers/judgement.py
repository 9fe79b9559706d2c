"""A search on one transfer: its settings, how far it has come, and whether it has found a saddle.

A search that ends with small forces has not found a transfer yet: it may have slid into a soft
saddle between two shapes of one side. So a saddle point has to have one imaginary vibration, fast
and mostly of the hydrogen that moves, with that hydrogen between donor and acceptor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from ase import Atoms
from pydantic import Field

from surefoot.barriers.bands import Band, BandSettings
from surefoot.barriers.paths import TransferPath, find_holder, other_bonds
from surefoot.barriers.refine import Refined, RefineSettings
from surefoot.barriers.vibrations import Vibrations
from surefoot.relax import Lbfgs
from surefoot.relax.run import Relaxation, Relaxed
from surefoot.settings import Settings
from surefoot.units import KCAL_PER_MOL

DEEPER = 0.02  # eV by which a minimum beside the saddle may lie below the end without a word

AGREEMENT = 0.3  # kcal/mol by which band and saddle point may differ without a word


class SaddleSettings(Settings):
    """How saddle points are searched for, and what counts as one of a hydrogen transfer."""

    start: Literal["scan", "band"] = Field(
        default="scan",
        description="what leads to the saddle point: the highest image of the path, its "
        "surroundings relaxed; or a band between the relaxed ends of the path",
    )
    check: Literal["none", "band"] = Field(
        default="none", description="of saddle points from a scan: a band over them, or nothing"
    )
    surroundings: Relaxation = Field(
        # No more than to take away what is strained: donor, hydrogen and acceptor are off yet.
        default=Relaxation(optimizer=Lbfgs(longest_step=0.1), fmax=0.1, steps=100),
        description="of all atoms but donor, hydrogen and acceptor",
    )
    relaxation: Relaxation = Field(
        # Short steps: a long one leaps over a low barrier, and the end is lost.
        default=Relaxation(optimizer=Lbfgs(longest_step=0.05), fmax=0.02, steps=1000),
        description="of the ends of a path, before a band between them",
    )
    band: BandSettings = BandSettings()
    refine: RefineSettings = RefineSettings()
    slowest: float = Field(
        default=300.0, gt=0, description="least magnitude of the imaginary frequency, cm⁻¹"
    )
    negligible: float = Field(
        default=30.0, ge=0, description="imaginary frequencies below it are noise, cm⁻¹"
    )
    share: float = Field(
        default=0.5, gt=0, le=1, description="least part of that vibration in the moving hydrogen"
    )
    shortest: float = Field(default=1.1, gt=0, description="least of both lengths at it, Å")
    longest: float = Field(default=1.7, gt=0, description="largest of both lengths, Å")
    push: float = Field(
        default=0.1, gt=0, description="of the atom that is moved most, off the saddle, Å"
    )
    downhill: Relaxation = Field(
        default=Relaxation(optimizer=Lbfgs(longest_step=0.1), fmax=0.05, steps=300),
        description="off the saddle; loose complexes drift, and what is left then is told",
    )
    aside: int = Field(
        default=5,
        ge=1,
        description="steps downhill, of 0.05 Å at most, to the ends of the band that is a check",
    )


@dataclass(frozen=True, kw_only=True)
class Search:
    """What became of the search on one path; None where it has not come that far.

    Attributes:
        path: where it began.
        reason: in a sentence, why there is no saddle point of this transfer; empty where there is.
        start, end: the relaxed ends; those of a search from a scan lie downhill of the saddle.
        guess: where the refinement begins.
        aside: some steps downhill of the saddle, donor's side first: the ends of a band that is
            a check.
        band: between start and end, or between both asides.
        refined: from the guess.
        vibrations: of the refined structure.
        end_vibrations: of start and end.
        lowest: energies to which it goes downhill, donor's side first, eV; None where that is
            where start and end come from.
    """

    path: TransferPath
    reason: str = ""
    start: Relaxed | None = None
    end: Relaxed | None = None
    guess: Atoms | None = None
    aside: tuple[Relaxed, Relaxed] | None = None
    band: Band | None = None
    refined: Refined | None = None
    vibrations: Vibrations | None = None
    end_vibrations: tuple[Vibrations, Vibrations] | None = None
    lowest: tuple[float, float] | None = None

    @property
    def found(self) -> bool:
        """Whether there is a saddle point."""
        return self.reason == "" and self.vibrations is not None

    @cached_property
    def lengths(self) -> tuple[float, float]:
        """Of donor–H and H–acceptor where the refinement ended, Å; nan before."""
        if self.refined is None:
            return float("nan"), float("nan")
        return find_lengths(self.path, self.refined.atoms)

    @property
    def band_barrier(self) -> float | None:
        """Highest image of the band above the start, eV."""
        if self.start is None or self.band is None or self.band.status == "broken":
            return None
        return float(self.band.energies.max()) - energy_of(self.start)

    def images(self) -> tuple[Atoms, ...]:
        """Start, band, end, and last the refined structure; none before there are both ends."""
        if self.start is None or self.end is None:
            return ()
        between: list[Atoms] = []
        if self.band is not None and self.band.status != "broken":
            places = self.band.positions if self.aside else self.band.positions[1:-1]
            between = [moved_to(self.start.atoms, place.numpy()) for place in places]
        elif self.refined is None:
            return ()
        last = () if self.refined is None else (self.refined.atoms,)
        return (self.start.atoms, *between, self.end.atoms, *last)

    def energies(self) -> tuple[float, float, float]:
        """Of start, saddle point and end, eV, on the surface of the search."""
        if self.start is None or self.end is None or self.refined is None:
            raise ValueError("this search has not come as far as a saddle point.")
        return energy_of(self.start), self.refined.energy, energy_of(self.end)

    def notes(self, settings: SaddleSettings) -> list[str]:
        """What a reader of the numbers should know, in few words each."""
        notes = []
        if self.band is not None and self.band.status == "exhausted":
            notes.append(f"band not converged, {self.band.fmax:.2f} eV/Å left")
        if self.found and self.aside is not None and self.band is not None:
            notes += self._compare_band()
        for side, one in (("start", self.start), ("end", self.end)):
            if one is not None and one.status == "exhausted":
                notes.append(f"{side} not relaxed, {one.fmax:.2f} eV/Å left")
        for side, own in zip(("start", "end"), self.end_vibrations or (), strict=False):
            if own.frequencies[0] < -settings.negligible:
                notes.append(f"{side} is no minimum, {-own.frequencies[0]:.0f}i cm⁻¹")
        if self.lowest is not None and self.found:
            first, _, last = self.energies()
            for side, below, above in (
                ("start", self.lowest[0], first),
                ("end", self.lowest[1], last),
            ):
                if above - below > DEEPER:
                    notes.append(f"{side} is {above - below:.3f} eV above a minimum beside it")
        return notes

    def _compare_band(self) -> list[str]:
        """What a band that is a check says against the saddle point."""
        height = self.band_barrier
        if height is None:
            return ["the band over the saddle point broke"]
        first, top, _ = self.energies()
        apart = height - (top - first)
        if abs(apart) <= AGREEMENT * KCAL_PER_MOL:
            return []
        return [f"the band is {apart / KCAL_PER_MOL:+.1f} kcal/mol off the saddle point"]


def judge_ends(path: TransferPath, start: Relaxed, end: Relaxed) -> str:
    """What is wrong with the relaxed ends of a path; empty where nothing is.

    Args:
        path: as it came.
        start: its first image, relaxed.
        end: its last image, relaxed.
    """
    for one, side in ((start, "start"), (end, "end")):
        reason = _judge_side(path, one, side)
        if reason == "" and one.status != "converged":
            reason = (
                f"the {side} is not relaxed after {one.steps} steps, a force of {one.fmax:.3f} "
                "eV/Å is left."
            )
        if reason:
            return reason
    return ""


def judge_sides(path: TransferPath, start: Relaxed, end: Relaxed) -> str:
    """What is wrong with the ends that lie downhill of a saddle point; empty where nothing is.

    Args:
        path: as it came.
        start: where it goes downhill on the donor's side; small forces may be left.
        end: the same on the acceptor's side.
    """
    return _judge_side(path, start, "start") or _judge_side(path, end, "end")


def _judge_side(path: TransferPath, one: Relaxed, side: str) -> str:
    ends = (path.donor, path.acceptor)
    own, other = ends if side == "start" else ends[::-1]
    if one.status == "broken":
        return f"the {side} can not be relaxed: {one.reason}"
    held = find_holder(one.atoms, path)
    if held == other:
        return (
            f"the {side} relaxes into the other side, {path.label(other)}–H: there is no "
            "barrier left on this surface."
        )
    if held is None:
        return f"the hydrogen leaves {path.label(own)} where the {side} is relaxed."
    return say_reacted(path, one.atoms, f"the {side} reacts where it is relaxed")


def say_reacted(path: TransferPath, atoms: Atoms, what: str) -> str:
    """Which bond, other than those of the moving hydrogen, is made or broken; empty if none.

    Args:
        path: what it is compared with, its first image.
        atoms: where they have gone.
        what: how the sentence begins.
    """
    first = other_bonds(path.images[0], path.hydrogen)
    changed = other_bonds(atoms, path.hydrogen) ^ first
    if not changed:
        return ""
    a, b = sorted(sorted(changed)[0])
    return f"{what}: the bond {path.label(a)}–{path.label(b)} is made or broken."


def has_soft_mode(search: Search, settings: SaddleSettings) -> bool:
    """Whether a second imaginary vibration, a soft one, is all that is wrong with their number.

    Args:
        search: with vibrations.
        settings: what is noise, and what is soft.
    """
    if search.vibrations is None or len(search.vibrations.frequencies) < 2:
        return False
    first, second = search.vibrations.frequencies[:2]
    return bool(first < -settings.slowest < second < -settings.negligible)


def judge_saddle(search: Search, settings: SaddleSettings) -> str:
    """Why a stationary structure is no saddle point of its transfer; empty where it is one.

    Args:
        search: with vibrations.
        settings: what counts as one.
    """
    path, vibrations = search.path, search.vibrations
    if vibrations is None:
        raise ValueError("without vibrations there is nothing to be judged.")
    imaginary = vibrations.frequencies[vibrations.frequencies < -settings.negligible]
    told = ", ".join(f"{-value:.0f}i" for value in imaginary)
    if len(imaginary) != 1:
        return (
            "no HAT saddle: one imaginary frequency is needed, and there "
            f"{'is none' if not len(imaginary) else f'are {len(imaginary)} ({told} cm⁻¹)'}."
        )
    if -imaginary[0] < settings.slowest:
        return (
            f"no HAT saddle: the imaginary frequency is {told} cm⁻¹, below {settings.slowest:g}; "
            "it is a soft saddle between two shapes."
        )
    share = vibrations.share(0, path.hydrogen)
    if share < settings.share:
        return (
            f"no HAT saddle: the moving hydrogen has {share:.0%} of the imaginary vibration, less "
            f"than {settings.share:.0%}; something else moves."
        )
    for length, atom in zip(search.lengths, (path.donor, path.acceptor), strict=True):
        if not settings.shortest <= length <= settings.longest:
            return (
                f"no HAT saddle: {path.label(atom)}–H is {length:.2f} Å, not between "
                f"{settings.shortest:g} and {settings.longest:g}."
            )
    return ""


def find_lengths(path: TransferPath, atoms: Atoms) -> tuple[float, float]:
    """Donor–H and H–acceptor, Å.

    Args:
        path: which atoms they are.
        atoms: where they are.
    """
    ends = [path.donor, path.acceptor]
    donor, acceptor = atoms.get_distances(path.hydrogen, ends, mic=True)
    return float(donor), float(acceptor)


def moved_to(template: Atoms, positions: np.ndarray) -> Atoms:
    """A copy of a structure with other positions, Å; its constraints are kept."""
    moved = template.copy()
    moved.set_constraint()
    moved.positions = positions
    moved.set_constraint(template.constraints)
    return moved


def energy_of(relaxed: Relaxed) -> float:
    """Where it ended, eV."""
    return float(relaxed.evaluation.energy[0])
