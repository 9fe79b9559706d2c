"""One transfer drawn from displaced molecules, and the frames that are made of it."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from ase import Atoms
from pydantic import Field, field_validator, model_validator

from surefoot.hat.acceptance import (
    TOO_HIGH,
    UNLABELLED,
    Limits,
    fault_of_frame,
    fault_of_intramolecular,
    fault_of_relaxed,
    touching,
)
from surefoot.hat.ensembles import Ensemble
from surefoot.hat.intramolecular import make_transfer, pairs_in_reach
from surefoot.hat.plan import Kind, Member, Pairing, Request
from surefoot.hat.radicals import take_hydrogen
from surefoot.hat.sample import describe_frame, hang_between, scan
from surefoot.hat.sites import Donor, Site
from surefoot.hat.surroundings import relax_around
from surefoot.hat.transfer import Placement, PlacementFailed, Transfer, place
from surefoot.label.labeler import Labeler, LabelingFailed, check_state
from surefoot.settings import Settings

DIGITS = 6  # of positions in Å: below them the last bits of two machines may differ
CHANGES = 5  # other sites tried where a pair finds no place
STREAMS: dict[Kind, int] = {
    "frames": 0,
    "paths": 1,
}  # of random numbers, so that the two never coincide
NO_PAIR = "no two hydrogens are in reach"
NO_PLACE_BETWEEN = "no place between start and end"
GIVEN_UP = "sites changed after all tries"
DOUBLET = 2

Position = Literal["start", "between", "end"]
Range = tuple[float, float]


def _check_range(value: Range) -> Range:
    if not 0 < value[0] <= value[1]:
        raise ValueError("write two numbers above 0, the smaller one first")
    return value


class Configurations(Settings):
    """Frames to train and test on."""

    temperature: Range = Field(
        default=(300.0, 600.0), description="K; of the displacements, uniform between the two"
    )
    translations: Range = Field(
        default=(0.4, 2.0), description="Å; how far the hydrogen moves between two molecules"
    )
    per_transfer: int = Field(default=1, ge=1, description="frames of each transfer")
    positions: tuple[Position, ...] = Field(
        default=("start", "between", "end", "between"),
        description="of the hydrogen, taken in turn; between is off the straight line",
    )
    relaxed: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of frames in between whose surroundings are relaxed on the labeler",
    )
    steps: int = Field(default=10, gt=0, description="of these relaxations")

    _ordered = field_validator("temperature", "translations")(_check_range)

    @model_validator(mode="after")
    def _enough(self) -> Configurations:
        if self.per_transfer > len(self.positions):
            raise ValueError(
                f"per_transfer is {self.per_transfer} and there are {len(self.positions)} positions"
            )
        if max(self.positions.count("start"), self.positions.count("end")) > 1:
            raise ValueError("start and end stand once at most among the positions")
        return self


class Scans(Settings):
    """Straight, rigid ways of the hydrogen."""

    temperature: Range = Field(
        default=(300.0, 300.0), description="K; of the displacements, uniform between the two"
    )
    translations: Range = Field(
        default=(1.0, 3.0), description="Å; how far the hydrogen moves between two molecules"
    )
    points: int = Field(default=9, ge=3, description="equidistant, both ends among them")

    _ordered = field_validator("temperature", "translations")(_check_range)


@dataclass(frozen=True)
class Recipe:
    """What all transfers of a data set have in common."""

    seed: int
    labeler: Labeler
    limits: Limits
    pairing: Pairing
    configurations: Configurations
    scans: Scans


@dataclass(frozen=True)
class Drawn:
    """Frames of one transfer, and what was rejected on the way, by reason."""

    frames: list[Atoms]
    rejected: Counter[str]


class BuildFailed(ValueError):
    """A transfer for which no allowed structure was found."""


class _Rejected(Exception):
    """A draw that is not taken; the message is the reason."""


def draw(recipe: Recipe, request: Request) -> Drawn:
    """Frames of one transfer; they depend on the recipe and the request alone.

    Raises:
        BuildFailed: if no draw keeps the limits, with the reasons and what to change.
    """
    stream = [
        recipe.seed,
        zlib.crc32(request.split.encode()),
        STREAMS[request.kind],
        request.number,
    ]
    generator = np.random.default_rng(stream)
    rejected: Counter[str] = Counter()
    giving, taking = request.giving, request.taking
    for _ in range(CHANGES + 1):
        for _ in range(recipe.limits.tries):
            try:
                transfer, info = _transfer(recipe, request, (giving, taking), generator, rejected)
                return Drawn(_frames(recipe, request, transfer, info, generator), rejected)
            except _Rejected as reason:
                rejected[str(reason)] += 1
            except PlacementFailed:  # its positions are counted one by one
                continue
        rejected[GIVEN_UP] += 1
        if giving is not None:
            giving = int(generator.choice(request.donor.heavy()))
        if taking is not None and request.acceptor is not None:
            taking = int(generator.choice(request.acceptor.heavy()))
    reasons = ", ".join(f"{reason} ({count})" for reason, count in rejected.most_common(3))
    who = request.donor.name + (f" and {request.acceptor.name}" if request.acceptor else "")
    remedy = (
        "allow other `translations`, a wider `cone` or a smaller `clearance`"
        if request.acceptor
        else "allow a longer `reach`, or set the share `intramolecular` to 0"
    )
    raise BuildFailed(
        f"{who}: no acceptor is in range in {(CHANGES + 1) * recipe.limits.tries} tries; most were "
        f"rejected because of: {reasons}. Lower the temperature, or {remedy}."
    )


def _transfer(
    recipe: Recipe,
    request: Request,
    atoms: tuple[int | None, int | None],
    generator: np.random.Generator,
    rejected: Counter[str],
) -> tuple[Transfer, dict[str, Any]]:
    """A transfer with displaced molecules, and what its frames say of it."""
    ranges = recipe.configurations if request.kind == "frames" else recipe.scans
    given = request.donor.ensemble.draw(ranges.temperature, recipe.limits, generator, rejected)
    if given is None:
        raise PlacementFailed
    if request.acceptor is None or atoms[0] is None or atoms[1] is None:
        transfer, sites = _within(recipe, request.donor, given, generator)
        taker, charge, way = request.donor, request.donor.ensemble.compound.charge, "intramolecular"
    else:
        taker = request.acceptor
        taken = taker.ensemble.draw(ranges.temperature, recipe.limits, generator, rejected)
        if taken is None:
            raise PlacementFailed
        sites = request.donor.pick(atoms[0], generator), taker.pick(atoms[1], generator)
        longest = min(ranges.translations[1], recipe.limits.longest)
        placement = Placement(
            shortest=ranges.translations[0],
            longest=longest,
            cone=recipe.pairing.cone,
            rattle=0.0,
            clearance=recipe.limits.clearance,
            hydrogen_clearance=recipe.limits.hydrogen_clearance,
            tries=recipe.limits.tries,
            conformers=1,
        )
        donor = Donor(request.donor.name, given, sites[0])
        name = _radical_name(taker, sites[1])
        radical = take_hydrogen(name, taken, sites[1].donor, sites[1].hydrogen)
        placed = place(donor, radical, placement, generator, rejected)
        names = request.donor.name, request.donor.label(sites[0]), name
        transfer = replace(placed, names=names)
        _require_energy(recipe, taken, taker.ensemble)
        charge = request.donor.ensemble.compound.charge + taker.ensemble.compound.charge
        way = "intermolecular"
    _require_energy(recipe, given, request.donor.ensemble)
    return transfer, {
        "charge": charge,
        "transfer": way,
        "acceptor": taker.name,
        "acceptor_site": taker.label(sites[1]),
        "donor_residue": _residue(request.donor, sites[0]),
        "acceptor_residue": _residue(taker, sites[1]),
    }


def _within(
    recipe: Recipe, member: Member, atoms: Atoms, generator: np.random.Generator
) -> tuple[Transfer, tuple[Site, Site]]:
    """A transfer between two atoms of one molecule; pairs of heavy atoms are equally likely."""
    pairing = recipe.pairing
    pairs = pairs_in_reach(
        atoms, member.sites, member.ensemble.apart, pairing.reach, pairing.fewest_bonds
    )
    if not pairs:
        raise _Rejected(NO_PAIR)
    heavy = list(dict.fromkeys((moving.donor, leaving.donor) for moving, leaving in pairs))
    chosen = heavy[generator.integers(len(heavy))]
    held = [pair for pair in pairs if (pair[0].donor, pair[1].donor) == chosen]
    moving, leaving = held[generator.integers(len(held))]
    names = member.name, member.label(moving), _radical_name(member, leaving)
    transfer = make_transfer(atoms, moving, leaving, names)
    bonded = np.flatnonzero(member.ensemble.apart[moving.donor] == 1)
    bonded = bonded[(atoms.numbers[bonded] == 1) & (bonded != moving.hydrogen)]
    fault = fault_of_intramolecular(transfer, bonded - (bonded > leaving.hydrogen), recipe.limits)
    if fault is not None:
        raise _Rejected(fault)
    return transfer, (moving, leaving)


def _frames(
    recipe: Recipe,
    request: Request,
    transfer: Transfer,
    info: dict[str, Any],
    generator: np.random.Generator,
) -> list[Atoms]:
    """Frames that keep all limits, rounded, with all that is known of them."""
    system = f"{'-'.join(transfer.names)}-{request.split}-{request.kind}-{request.number}"
    if request.kind == "paths":
        images = scan(transfer, system, recipe.scans.points)
    else:
        images = _configurations(recipe, transfer, system, info["charge"], generator)
    extended = info | _geometry(transfer)
    first = transfer.with_hydrogen_at(transfer.start)
    for atoms in (first, *images):
        atoms.positions = np.round(atoms.positions, DIGITS) + 0.0  # + 0.0 turns −0 into 0
    for atoms in images:
        atoms.info |= extended
        fault = fault_of_frame(atoms, transfer, recipe.limits)
        if fault is not None:
            raise _Rejected(fault)
        check_state(atoms.numbers, info["charge"], DOUBLET)
    begin = _energy(recipe.labeler, first, info["charge"], DOUBLET)
    for atoms in images:
        if np.array_equal(atoms.positions, first.positions):
            continue
        energy = _energy(recipe.labeler, atoms, info["charge"], DOUBLET)
        if abs(energy - begin) > recipe.limits.window:
            raise _Rejected(TOO_HIGH)
    return images


def _configurations(
    recipe: Recipe,
    transfer: Transfer,
    system: str,
    charge: int,
    generator: np.random.Generator,
) -> list[Atoms]:
    """Frames of a transfer with the hydrogen at positions of the pattern."""
    settings = recipe.configurations
    begin = int(generator.integers(len(settings.positions)))
    clear = Placement(hydrogen_clearance=recipe.limits.hydrogen_clearance)
    images = []
    for turn in range(settings.per_transfer):
        kind: str = settings.positions[(begin + turn) % len(settings.positions)]
        position = transfer.start if kind == "start" else transfer.end
        if kind == "between":
            try:
                position = hang_between(transfer, clear, generator)
            except PlacementFailed as error:
                raise _Rejected(NO_PLACE_BETWEEN) from error
        atoms = transfer.with_hydrogen_at(position)
        if kind == "between" and generator.uniform() < settings.relaxed:
            kind = "relaxed"
            atoms = _relax(recipe, transfer, atoms, charge)
        atoms.info |= describe_frame(transfer, system, kind)
        images.append(atoms)
    return images


def _relax(recipe: Recipe, transfer: Transfer, atoms: Atoms, charge: int) -> Atoms:
    """Surroundings that have answered to the hydrogen in mid-air, with the bonds they had."""
    held = transfer.donor, transfer.hydrogen, transfer.acceptor
    try:
        relaxed = relax_around(
            atoms, held, recipe.labeler, (charge, DOUBLET), recipe.configurations.steps
        )
    except LabelingFailed as error:
        raise _Rejected(UNLABELLED) from error
    fault = fault_of_relaxed(relaxed, atoms, touching(atoms), recipe.limits.stretch)
    if fault is not None:
        raise _Rejected(fault)
    return relaxed


def _geometry(transfer: Transfer) -> dict[str, float]:
    """Translation and donor-acceptor distance in Å, and the angle D–H…A at the start in degrees."""
    positions = transfer.atoms.positions
    to_donor = positions[transfer.donor] - transfer.start
    to_acceptor = positions[transfer.acceptor] - transfer.start
    cosine = to_donor @ to_acceptor / (np.linalg.norm(to_donor) * np.linalg.norm(to_acceptor))
    apart = float(np.linalg.norm(positions[transfer.donor] - positions[transfer.acceptor]))
    return {
        "translation": round(transfer.translation, DIGITS),
        "distance": round(apart, DIGITS),
        "angle": round(float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))), 3),
    }


def _require_energy(recipe: Recipe, atoms: Atoms, ensemble: Ensemble) -> None:
    """The displaced molecule lies in the energy window above its lowest conformer."""
    energy = _energy(recipe.labeler, atoms, ensemble.compound.charge, 1)
    if abs(energy - ensemble.shapes[0].energy) > recipe.limits.window:
        raise _Rejected(TOO_HIGH)


def _energy(labeler: Labeler, atoms: Atoms, charge: int, spin: int) -> float:
    try:
        return labeler.label(atoms, charge, spin).energy
    except LabelingFailed as error:
        raise _Rejected(UNLABELLED) from error


def _radical_name(member: Member, site: Site) -> str:
    """That of a small radical, else the molecule's with the site it has lost its hydrogen at."""
    named = member.name != member.ensemble.compound.name
    return member.name if named else f"{member.name}-{member.label(site)}"


def _residue(member: Member, site: Site) -> str:
    """The amino acid a site is of, without its number; the molecule elsewhere."""
    return site.residue.rstrip("0123456789") or member.name
