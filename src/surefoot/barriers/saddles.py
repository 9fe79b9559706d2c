"""Saddle points of hydrogen transfers: from a scan, or from a band between its relaxed ends.

From a scan: its highest image, surroundings relaxed, refined, vibrations, and downhill to both
ends; a band over the saddle point is a check. From a band: ends relaxed, a band between them, its
highest image refined, vibrations, and downhill.

All searches of a call go through the stages together, so that evaluations are batches over all of
them. What fails is kept, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ase import Atoms

from surefoot.barriers.bands import Band, relax_bands
from surefoot.barriers.downhill import (
    Tell,
    add_end_vibrations,
    check_downhill,
    find_ends,
    push_off,
)
from surefoot.barriers.guesses import (
    draw_together,
    find_direction,
    find_highest,
    relax_surroundings,
)
from surefoot.barriers.interpolation import interpolate
from surefoot.barriers.judgement import (
    SaddleSettings,
    Search,
    energy_of,
    find_lengths,
    has_soft_mode,
    judge_ends,
    judge_saddle,
    moved_to,
    say_reacted,
)
from surefoot.barriers.paths import TransferPath
from surefoot.barriers.refine import Refined, refine_saddles
from surefoot.barriers.vibrations import find_vibrations
from surefoot.motion.surface import Surface
from surefoot.relax.run import Relaxed, relax

BEYOND = 0.5  # Å over the largest length at a saddle point, from where a search does not return

CLOSER = 10.0  # times smaller forces are asked for where a soft mode was left


def find_saddles(
    paths: Sequence[TransferPath],
    surface: Surface,
    settings: SaddleSettings = SaddleSettings(),
    progress: Callable[[str], None] = lambda _: None,
    finished: Callable[[Search], None] = lambda _: None,
) -> list[Search]:
    """Search the saddle points of many transfers, in batches over all of them.

    Args:
        paths: of a band only their ends count; see `require_transfer`.
        surface: what they are on.
        settings: of every stage.
        progress: called with what is being done.
        finished: called with each search as soon as it is over, failures among them.
    Returns:
        One for each path, in their order; none is left out.
    Raises:
        UnfitStructure, ValueError: before anything moves, for what can not be relaxed.
    """
    searches = [Search(path=path) for path in paths]
    going = list(range(len(paths)))
    for words, stage in _stages(settings):
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
            if search.reason:
                finished(search)
        going = [number for number in going if not searches[number].reason]
    for number in going:
        searches[number] = add_end_vibrations(searches[number], surface, settings, progress)
        finished(searches[number])
    return searches


Stage = Callable[[list[Search], Surface, SaddleSettings, Tell], list[Search]]


def _stages(settings: SaddleSettings) -> tuple[tuple[str, Stage], ...]:
    """What is done, in words and as functions."""
    onto: tuple[tuple[str, Stage], ...] = (("refining", _refine), ("vibrations", _judge))
    if settings.start == "band":
        before = (("relaxing the ends", _relax_ends), ("relaxing bands", _relax_band))
        return (*before, *onto, ("downhill", check_downhill))
    check = (("relaxing bands", _check_band),) if settings.check == "band" else ()
    before = (("relaxing the surroundings", _leave_scan),)
    return (*before, *onto, ("downhill", find_ends), *check)


def _leave_scan(
    searches: list[Search], surface: Surface, settings: SaddleSettings, tell: Tell
) -> list[Search]:
    for search in searches:
        first = search.path.images[0]
        state = first.info.get("charge"), first.info.get("spin")
        surface.require(first.numbers, *state, f"{search.path.place}, path {search.path.name}")
    tell("energies of the paths")
    tops = find_highest([search.path for search in searches], surface, settings.band)
    known = [number for number, top in enumerate(tops) if top is not None]
    relaxed = relax_surroundings(
        [searches[number].path for number in known],
        [
            draw_together(search.path, top)
            for search, top in zip(searches, tops, strict=True)
            if top is not None
        ],
        surface,
        settings.surroundings,
    )
    after = [replace(one, reason="no image of the path has a finite energy.") for one in searches]
    for number, one in zip(known, relaxed, strict=True):
        search = searches[number]
        if one.status == "broken":
            reason = f"the surroundings can not be relaxed: {one.reason}"
        else:
            reason = say_reacted(search.path, one.atoms, "the surroundings react")
        guess = moved_to(search.path.images[0], one.atoms.positions)
        after[number] = replace(search, guess=guess, reason=reason)
    return after


def _relax_ends(
    searches: list[Search], surface: Surface, settings: SaddleSettings, tell: Tell
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
    searches: list[Search], surface: Surface, settings: SaddleSettings, tell: Tell
) -> list[Search]:
    ends = [_known(search.start, search.end) for search in searches]
    reasons = {
        "broken": "energies or forces on the band are no longer finite.",
        "downhill": "no image between the ends is higher than both: there is no barrier left on "
        "this surface.",
    }
    after = []
    for search, band in zip(searches, _bands(ends, surface, settings, tell), strict=True):
        guess = moved_to(search.path.images[0], band.positions[band.top].numpy())
        reason = reasons.get(band.status, "")
        after.append(replace(search, band=band, guess=guess, reason=reason))
    return after


def _check_band(
    searches: list[Search], surface: Surface, settings: SaddleSettings, tell: Tell
) -> list[Search]:
    """A band over each saddle point, which knows nothing of it but what lies to both sides."""
    sides = [_known(*(search.aside or (None, None))) for search in searches]
    bands = _bands(sides, surface, settings, tell)
    return [replace(search, band=band) for search, band in zip(searches, bands, strict=True)]


def _bands(
    ends: Sequence[tuple[Relaxed, Relaxed]], surface: Surface, settings: SaddleSettings, tell: Tell
) -> list[Band]:
    return relax_bands(
        [start.atoms for start, _ in ends],
        [interpolate(start.atoms, end.atoms, settings.band) for start, end in ends],
        [(energy_of(start), energy_of(end)) for start, end in ends],
        surface,
        settings.band,
        lambda _, steps: tell(f"step {steps}"),
    )


def _refine(
    searches: list[Search], surface: Surface, settings: SaddleSettings, tell: Tell
) -> list[Search]:
    starts, directions = [], []
    for search in searches:
        if search.guess is None:
            raise ValueError("a search without a guess has nothing to be refined.")
        starts.append(search.guess)
        directions.append(
            find_direction(search.path, search.guess)
            if search.band is None
            else search.band.direction.numpy()
        )
    refined = refine_saddles(
        starts,
        directions,
        surface,
        settings.refine,
        lambda _, steps: tell(f"step {steps}"),
        left=lambda number, atoms: _has_left(searches[number].path, atoms, settings),
    )
    return [
        replace(search, refined=one, reason=_say_refined(search.path, one))
        for search, one in zip(searches, refined, strict=True)
    ]


def _say_refined(path: TransferPath, one: Refined) -> str:
    if one.status == "left":
        donor, acceptor = find_lengths(path, one.atoms)
        return (
            f"the refinement has left the transfer, {path.label(path.donor)}–H is {donor:.2f} and "
            f"{path.label(path.acceptor)}–H {acceptor:.2f} Å; there may be no barrier left on "
            "this surface."
        )
    if one.status == "broken":
        return "energies or forces are no longer finite where the saddle point is refined."
    if one.status == "exhausted":
        return (
            f"the refinement has not converged after {one.steps} steps, a force of {one.fmax:.3f} "
            "eV/Å is left."
        )
    return ""


def _judge(
    searches: list[Search], surface: Surface, settings: SaddleSettings, tell: Tell
) -> list[Search]:
    judged = [_find_vibrations(search, surface, settings, tell) for search in searches]
    soft = [number for number, search in enumerate(judged) if has_soft_mode(search, settings)]
    if soft:  # a maximum along a soft mode too: off it, and down
        starts, directions = [], []
        for number in soft:
            pushed, _ = push_off(judged[number], settings.push, mode=1)
            starts.append(pushed)
            one, other = push_off(judged[number], settings.push)
            directions.append(one.positions - other.positions)
        again = refine_saddles(
            starts,
            directions,
            surface,
            # A soft slope is below the usual limit at once, and the search would end where it is.
            settings.refine.model_copy(update={"fmax": settings.refine.fmax / CLOSER}),
            lambda _, steps: tell(f"off a soft mode, step {steps}"),
            left=lambda number, atoms: _has_left(judged[soft[number]].path, atoms, settings),
        )
        for number, refined in zip(soft, again, strict=True):
            if refined.status != "left" and refined.fmax < settings.refine.fmax:
                done = replace(refined, status="converged")
                search = replace(searches[number], refined=done)
                judged[number] = _find_vibrations(search, surface, settings, tell)
    return [replace(search, reason=judge_saddle(search, settings)) for search in judged]


def _find_vibrations(
    search: Search, surface: Surface, settings: SaddleSettings, tell: Tell
) -> Search:
    if search.refined is None:
        raise ValueError("a search that is not refined has no saddle point to be judged.")
    tell(search.path.name)
    vibrations = find_vibrations(search.refined.atoms, surface, settings.refine.displacement)
    return replace(search, vibrations=vibrations)


def _has_left(path: TransferPath, atoms: Atoms, settings: SaddleSettings) -> bool:
    return max(find_lengths(path, atoms)) > settings.longest + BEYOND


def _known(start: Relaxed | None, end: Relaxed | None) -> tuple[Relaxed, Relaxed]:
    if start is None or end is None:
        raise ValueError("the ends of this search are not relaxed.")
    return start, end
