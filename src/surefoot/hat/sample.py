"""Many transfers: configurations to train on, and scans of the moving hydrogen to test with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import lcm
from typing import Any, Literal

import numpy as np
from ase import Atoms
from jaxtyping import Float

from surefoot.hat.peptides import conformers, residue
from surefoot.hat.radicals import Acceptor, acceptors, radical
from surefoot.hat.sites import Donor, residue_sites
from surefoot.hat.transfer import Placement, PlacementFailed, Transfer, place

ENDS = 1 / 4  # share of configurations at the start, and as many at the end
BETWEEN = (0.2, 0.8)  # part of the way at which the atom in between hangs
OFF_LINE = 0.2  # radius about that point, in parts of the translation
TRIES = 1000  # positions tried for the atom in between
STREAMS = {"configuration": 0, "path": 1}  # of random numbers, so that the two never coincide


def sample_configurations(
    donors: Sequence[str],
    radicals: Sequence[str],
    count: int,
    seed: int,
    placement: Placement = Placement(),
) -> list[Atoms]:
    """Configurations of hydrogen transfers to train a potential on.

    Each is a transfer of its own, with the hydrogen at its start (one in four), at its end (one in
    four), or in between and off the straight line: a label teaches most where it is the only one of
    its kind. Transfers are spread evenly over donors, then sites, then radicals. The first frames
    do not depend on `count`.

    Args:
        donors: three-letter codes of capped amino acids.
        radicals: names of radicals.
        count: number of frames.
        seed: the same seed gives the same frames; not negative.
        placement: ranges and limits of the geometries.

    Returns:
        Frames without labels; their info is described at `describe_frame`.

    Raises:
        ValueError: if a name is unknown or the count is not positive.
        PlacementFailed: if a transfer finds no place with any conformer.
    """
    frames: list[Atoms] = []
    transfers = _transfers(donors, radicals, count, seed, "configuration", placement)
    for transfer, system, generator in transfers:
        chance = generator.uniform()
        if chance < ENDS:
            kind, position = "start", transfer.start
        elif chance < 2 * ENDS:
            kind, position = "end", transfer.end
        else:
            kind, position = "between", hang_between(transfer, placement, generator)
        atoms = transfer.with_hydrogen_at(position)
        atoms.info |= describe_frame(transfer, system, kind)
        frames.append(atoms)
    return frames


def sample_paths(
    donors: Sequence[str],
    radicals: Sequence[str],
    count: int,
    seed: int,
    points: int = 11,
    placement: Placement = Placement(),
) -> list[Atoms]:
    """Straight scans of the moving hydrogen, all other atoms at rest.

    Args:
        donors: three-letter codes of capped amino acids.
        radicals: names of radicals.
        count: number of paths.
        seed: the same seed gives the same paths; not negative.
        points: frames of each path, equidistant, start and end among them.
        placement: ranges and limits of the geometries.

    Returns:
        Frames without labels, path after path; their info is described at `describe_frame`.

    Raises:
        ValueError: if a name is unknown, or there are too few paths or points.
        PlacementFailed: if a transfer finds no place with any conformer.
    """
    if points < 3:
        raise ValueError(f"A path of {points} points has no inside; 3 or more are allowed.")
    return [
        frame
        for transfer, system, _ in _transfers(donors, radicals, count, seed, "path", placement)
        for frame in scan(transfer, system, points)
    ]


def scan(transfer: Transfer, system: str, points: int) -> list[Atoms]:
    """Equidistant frames of one transfer from start to end.

    Args:
        transfer: the two molecules.
        system: unique name of the path.
        points: number of frames.
    """
    frames = []
    for point, part in enumerate(np.linspace(0.0, 1.0, points)):
        position = transfer.start + part * (transfer.end - transfer.start)
        atoms = transfer.with_hydrogen_at(position)
        atoms.info |= describe_frame(transfer, system, "path")
        atoms.info |= {"path_point": point, "path_length": points}
        frames.append(atoms)
    return frames


def describe_frame(transfer: Transfer, system: str, config_type: str) -> dict[str, Any]:
    """What the info of a frame of a transfer holds.

    `charge` (0), `spin` (2), `donor`, `site` and `radical` (names), `system` (one per transfer),
    `group` (the donor, so that splits and folds keep its frames together), `config_type`,
    `translation` (Å), and the atom indices `moving_h`, `donor_index` and `acceptor_index`. Frames
    of a path have `path_point` (from 0) and `path_length` besides.

    Args:
        transfer: the two molecules.
        system: unique name of the transfer.
        config_type: start, between, end or path.
    """
    donor, site, radical_name = transfer.names
    return {
        "charge": 0,
        "spin": 2,
        "donor": donor,
        "site": site,
        "radical": radical_name,
        "system": system,
        "group": donor,
        "config_type": config_type,
        "translation": transfer.translation,
        "moving_h": transfer.hydrogen,
        "donor_index": transfer.donor,
        "acceptor_index": transfer.acceptor,
    }


def _transfers(
    donors: Sequence[str],
    radicals: Sequence[str],
    count: int,
    seed: int,
    kind: Literal["configuration", "path"],
    placement: Placement,
) -> Iterator[tuple[Transfer, str, np.random.Generator]]:
    """Transfers, their unique names, and the generator that belongs to each."""
    _check_request(donors, radicals, count)
    shapes = {name: conformers(name, placement.conformers, seed) for name in donors}
    parts = {name: acceptors(name, seed) for name in radicals}
    sites = {name: residue_sites(name) for name in donors}
    for number in range(count):
        generator = np.random.default_rng([seed, STREAMS[kind], number])
        name = donors[number % len(donors)]
        turn = number // len(donors)
        site_names = list(dict.fromkeys(site.name for site in sites[name]))
        site_name = site_names[turn % len(site_names)]
        # One step further after each common period, so that every pair is met.
        step = turn + turn // lcm(len(site_names), len(radicals))
        radical_name = radicals[step % len(radicals)]
        candidates = [site for site in sites[name] if site.name == site_name]
        site = candidates[generator.integers(len(candidates))]
        acceptor = parts[radical_name][generator.integers(len(parts[radical_name]))]
        choices = [Donor(name, atoms, site) for atoms in shapes[name]]
        order = generator.permutation(len(choices))
        transfer = _place_any([choices[index] for index in order], acceptor, placement, generator)
        yield transfer, f"{name}-{site_name}-{radical_name}-{kind}-{seed}-{number}", generator


def _place_any(
    donors: Sequence[Donor],
    acceptor: Acceptor,
    placement: Placement,
    generator: np.random.Generator,
) -> Transfer:
    """A transfer with the first conformer that has room for it."""
    for donor in donors:
        try:
            return place(donor, acceptor, placement, generator)
        except PlacementFailed:
            continue
    raise PlacementFailed(
        f"{acceptor.name} finds no place at {donors[0].site.name} of {donors[0].name} with any of "
        f"{len(donors)} conformers and {placement.tries} tries each. Allow longer translations "
        "(`longest`), a wider `cone` or a smaller `clearance`."
    )


def _check_request(donors: Sequence[str], radicals: Sequence[str], count: int) -> None:
    if count < 1:
        raise ValueError(f"The count is {count}; 1 or more is allowed.")
    if not donors or not radicals:
        raise ValueError("Name at least one donor and one radical.")
    for name in donors:
        residue(name)
    for name in radicals:
        radical(name)


def hang_between(
    transfer: Transfer, placement: Placement, generator: np.random.Generator
) -> Float[np.ndarray, "3"]:
    """A position between start and end, off the line, and clear of every other atom.

    Args:
        transfer: the two molecules.
        placement: its `hydrogen_clearance` is kept.
        generator: source of all random numbers.

    Raises:
        PlacementFailed: if there is no such position.
    """
    way = transfer.end - transfer.start
    for _ in range(TRIES):
        direction = generator.normal(size=3)
        direction /= np.linalg.norm(direction)
        radius = OFF_LINE * transfer.translation * np.cbrt(generator.uniform())
        position = transfer.start + generator.uniform(*BETWEEN) * way + radius * direction
        if transfer.distances(position).min() >= placement.hydrogen_clearance:
            return position
    raise PlacementFailed(
        f"The hydrogen of {'-'.join(transfer.names)} finds no place between its ends in {TRIES} "
        "tries; lower `hydrogen_clearance`."
    )
