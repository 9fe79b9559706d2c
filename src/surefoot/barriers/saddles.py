"""Saddle points of hydrogen transfers: ends, bands, refinement, vibrations and the way downhill.

All searches of a call go through the stages together, so that evaluations are batches over all of
them. What fails is kept, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms

from surefoot.barriers.bands import relax_bands
from surefoot.barriers.interpolation import interpolate
from surefoot.barriers.judgement import (
    SaddleSettings,
    Search,
    energy_of,
    judge_ends,
    judge_saddle,
    moved_to,
)
from surefoot.barriers.paths import TransferPath, find_holder
from surefoot.barriers.refine import Refined, refine_saddles
from surefoot.barriers.vibrations import find_vibrations
from surefoot.motion.surface import Surface
from surefoot.relax.run import Relaxed, relax


def find_saddles(
    paths: Sequence[TransferPath],
    surface: Surface,
    settings: SaddleSettings = SaddleSettings(),
    progress: Callable[[str], None] = lambda _: None,
) -> list[Search]:
    """Search the saddle points of many transfers, in batches over all of them.

    Args:
        paths: only their ends count; see `require_transfer`.
        surface: what they are on.
        settings: of every stage.
        progress: called with what is being done.
    Returns:
        One for each path, in their order; none is left out.
    Raises:
        UnfitStructure, ValueError: before anything moves, for what can not be relaxed.
    """
    searches = [Search(path=path) for path in paths]
    stages: tuple[tuple[str, Stage], ...] = (
        ("relaxing the ends", _relax_ends),
        ("relaxing bands", _relax_band),
        ("refining", _refine),
        ("vibrations", _judge),
        ("downhill", _descend),
    )
    for words, stage in stages:
        going = [number for number, search in enumerate(searches) if not search.reason]
        if not going:
            break
        after = stage(
            [searches[number] for number in going],
            surface,
            settings,
            lambda note, words=words: progress(f"{words}, {note}"),
        )
        for number, search in zip(going, after, strict=True):
            searches[number] = search
    return searches


Stage = Callable[
    [list[Search], Surface, SaddleSettings, Callable[[str], None]],
    list[Search],
]


def _relax_ends(
    searches: list[Search],
    surface: Surface,
    settings: SaddleSettings,
    tell: Callable[[str], None],
) -> list[Search]:
    structures, places = [], []
    for search in searches:
        for image, side in ((search.path.images[0], "start"), (search.path.images[-1], "end")):
            structures.append(image)
            places.append(f"{search.path.place}, path {search.path.name}, {side}")
    relaxed = relax(
        structures,
        surface,
        settings.relaxation,
        places=places,
        progress=lambda _, steps: tell(f"step {steps}"),
    )
    return [
        replace(search, start=start, end=end, reason=judge_ends(search.path, start, end))
        for search, start, end in zip(searches, relaxed[::2], relaxed[1::2], strict=True)
    ]


def _relax_band(
    searches: list[Search],
    surface: Surface,
    settings: SaddleSettings,
    tell: Callable[[str], None],
) -> list[Search]:
    pairs = [_ends(search) for search in searches]
    bands = relax_bands(
        [start.atoms for start, _ in pairs],
        [interpolate(start.atoms, end.atoms, settings.band) for start, end in pairs],
        [(energy_of(start), energy_of(end)) for start, end in pairs],
        surface,
        settings.band,
        lambda _, steps: tell(f"step {steps}"),
    )
    reasons = {
        "broken": "energies or forces on the band are no longer finite.",
        "downhill": "no image between the ends is higher than both: there is no barrier left on "
        "this surface.",
    }
    return [
        replace(search, band=band, reason=reasons.get(band.status, ""))
        for search, band in zip(searches, bands, strict=True)
    ]


def _refine(
    searches: list[Search],
    surface: Surface,
    settings: SaddleSettings,
    tell: Callable[[str], None],
) -> list[Search]:
    starts, directions = [], []
    for search in searches:
        if search.band is None:
            raise ValueError("a search without a band has nothing to be refined.")
        starts.append(
            moved_to(_ends(search)[0].atoms, search.band.positions[search.band.top].numpy())
        )
        directions.append(search.band.direction.numpy())
    refined = refine_saddles(
        starts, directions, surface, settings.refine, lambda _, steps: tell(f"step {steps}")
    )
    return [
        replace(search, refined=one, reason=_say_refined(one))
        for search, one in zip(searches, refined, strict=True)
    ]


def _say_refined(one: Refined) -> str:
    if one.status == "broken":
        return "energies or forces are no longer finite where the saddle point is refined."
    if one.status == "exhausted":
        return (
            f"the refinement has not converged after {one.steps} steps, a force of {one.fmax:.3f} "
            "eV/Å is left."
        )
    return ""


def _judge(
    searches: list[Search],
    surface: Surface,
    settings: SaddleSettings,
    tell: Callable[[str], None],
) -> list[Search]:
    judged = []
    for number, search in enumerate(searches):
        if search.refined is None:
            raise ValueError("a search that is not refined has no saddle point to be judged.")
        tell(f"path {number}")
        step = settings.refine.displacement
        vibrations = find_vibrations(search.refined.atoms, surface, step)
        search = replace(search, vibrations=vibrations)  # noqa: PLW2901 - it grows
        judged.append(replace(search, reason=judge_saddle(search, settings)))
    return judged


def _descend(
    searches: list[Search],
    surface: Surface,
    settings: SaddleSettings,
    tell: Callable[[str], None],
) -> list[Search]:
    """Whether donor and acceptor lie downhill, and the vibrations of the ends."""
    pushed = [one for search in searches for one in push_off(search, settings.push)]
    downhill = settings.relaxation.model_copy(update={"fmax": settings.downhill_fmax})
    sides = relax(pushed, surface, downhill, progress=lambda _, steps: tell(f"step {steps}"))
    after = []
    for search, one, other in zip(searches, sides[::2], sides[1::2], strict=True):
        path = search.path
        held = [find_holder(side.atoms, path) for side in (one, other)]
        if sorted(held, key=str) != sorted([path.donor, path.acceptor], key=str):
            names = ["no atom" if atom is None else path.label(atom) for atom in held]
            reason = (
                f"no HAT saddle: downhill the hydrogen ends on {names[0]} and on {names[1]}, not "
                f"on {path.label(path.donor)} and {path.label(path.acceptor)}."
            )
            after.append(replace(search, reason=reason))
            continue
        first, last = (one, other) if held[0] == path.donor else (other, one)
        step = settings.refine.displacement
        tell(f"vibrations of the ends of {path.name}")
        start, end = (find_vibrations(side.atoms, surface, step) for side in _ends(search))
        lowest = (energy_of(first), energy_of(last))
        after.append(replace(search, end_vibrations=(start, end), lowest=lowest))
    return after


def push_off(search: Search, length: float) -> tuple[Atoms, Atoms]:
    """The saddle point moved along its imaginary vibration, to either side.

    Args:
        search: with vibrations.
        length: of the displacement of the atom that moves most, Å.
    """
    if search.refined is None or search.vibrations is None:
        raise ValueError("without a saddle point there is nothing to be pushed off.")
    atoms = search.refined.atoms
    displacement = search.vibrations.modes[0] / np.sqrt(atoms.get_masses())[:, None]
    displacement *= length / np.linalg.norm(displacement, axis=1).max()
    return (
        moved_to(atoms, atoms.positions + displacement),
        moved_to(atoms, atoms.positions - displacement),
    )


def _ends(search: Search) -> tuple[Relaxed, Relaxed]:
    if search.start is None or search.end is None:
        raise ValueError("the ends of this search are not relaxed.")
    return search.start, search.end
