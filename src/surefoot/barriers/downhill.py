"""Off a saddle point to both sides: where the hydrogen ends, and the complexes that lie there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms

from surefoot.barriers.judgement import SaddleSettings, Search, energy_of, judge_sides, moved_to
from surefoot.barriers.paths import find_holder
from surefoot.barriers.vibrations import find_vibrations
from surefoot.motion.surface import Surface
from surefoot.relax import Lbfgs
from surefoot.relax.run import Relaxation, Relaxed, relax

Tell = Callable[[str], None]


def push_off(search: Search, length: float, mode: int = 0) -> tuple[Atoms, Atoms]:
    """The saddle point moved along a vibration, to either side.

    Args:
        search: with vibrations.
        length: of the displacement of the atom that moves most, Å.
        mode: which of them, 0 is the imaginary one.
    """
    if search.refined is None or search.vibrations is None:
        raise ValueError("without a saddle point there is nothing to be pushed off.")
    atoms = search.refined.atoms
    displacement = search.vibrations.modes[mode] / np.sqrt(atoms.get_masses())[:, None]
    displacement *= length / np.linalg.norm(displacement, axis=1).max()
    return (
        moved_to(atoms, atoms.positions + displacement),
        moved_to(atoms, atoms.positions - displacement),
    )


def check_downhill(
    searches: Sequence[Search], surface: Surface, settings: SaddleSettings, tell: Tell
) -> list[Search]:
    """Whether donor and acceptor lie downhill of saddle points whose ends are known."""
    after = []
    for search, sides in zip(
        searches, _go_down(searches, surface, settings.downhill, settings, tell), strict=True
    ):
        ordered = _order(search, sides)
        if ordered is None:
            after.append(replace(search, reason=_say_sides(search, sides)))
            continue
        lowest = (energy_of(ordered[0]), energy_of(ordered[1]))
        after.append(replace(search, lowest=lowest))
    return after


def find_ends(
    searches: Sequence[Search], surface: Surface, settings: SaddleSettings, tell: Tell
) -> list[Search]:
    """The complexes downhill of saddle points, and structures on the way to them."""
    first = settings.downhill.model_copy(
        update={
            "steps": min(settings.aside, settings.downhill.steps),
            "optimizer": Lbfgs(longest_step=0.05),
        }
    )
    near = _go_down(searches, surface, first, settings, tell)
    rest = settings.downhill.model_copy(update={"steps": settings.downhill.steps - first.steps})
    further = relax(
        [one.atoms for sides in near for one in sides],
        surface,
        rest,
        progress=lambda _, steps: tell(f"step {first.steps + steps}"),
    )
    after = []
    for search, sides, one, other in zip(searches, near, further[::2], further[1::2], strict=True):
        ends = _order(search, (one, other))
        aside = _order(search, sides)
        if ends is None or aside is None:
            told = _say_sides(search, (one, other) if ends is None else sides)
            after.append(replace(search, reason=told))
            continue
        reason = judge_sides(search.path, *ends)
        after.append(replace(search, start=ends[0], end=ends[1], aside=aside, reason=reason))
    return after


def add_end_vibrations(
    search: Search, surface: Surface, settings: SaddleSettings, tell: Tell
) -> Search:
    """With vibrations of start and end."""
    if search.start is None or search.end is None:
        raise ValueError("a search without ends has no vibrations of them.")
    tell(f"vibrations of the ends of {search.path.name}")
    step = settings.refine.displacement
    start, end = (find_vibrations(side.atoms, surface, step) for side in (search.start, search.end))
    return replace(search, end_vibrations=(start, end))


def _go_down(
    searches: Sequence[Search],
    surface: Surface,
    settings: Relaxation,
    search_settings: SaddleSettings,
    tell: Tell,
) -> list[tuple[Relaxed, Relaxed]]:
    pushed = [one for search in searches for one in push_off(search, search_settings.push)]
    sides = relax(pushed, surface, settings, progress=lambda _, steps: tell(f"step {steps}"))
    return list(zip(sides[::2], sides[1::2], strict=True))


def _order(search: Search, sides: tuple[Relaxed, Relaxed]) -> tuple[Relaxed, Relaxed] | None:
    """Donor's side first; None where the hydrogen is not on donor and acceptor."""
    held = [find_holder(side.atoms, search.path) for side in sides]
    if held == [search.path.donor, search.path.acceptor]:
        return sides
    if held == [search.path.acceptor, search.path.donor]:
        return sides[1], sides[0]
    return None


def _say_sides(search: Search, sides: tuple[Relaxed, Relaxed]) -> str:
    path = search.path
    held = [find_holder(side.atoms, path) for side in sides]
    names = ["no atom" if atom is None else path.label(atom) for atom in held]
    return (
        f"no HAT saddle: downhill the hydrogen ends on {names[0]} and on {names[1]}, not "
        f"on {path.label(path.donor)} and {path.label(path.acceptor)}."
    )
