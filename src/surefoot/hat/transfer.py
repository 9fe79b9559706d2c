"""A hydrogen atom between two molecules: where the acceptor stands and the way the atom goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float
from pydantic import Field, model_validator

from surefoot.hat.radicals import Acceptor
from surefoot.hat.sites import Donor
from surefoot.settings import Settings


class Placement(Settings):
    """How an acceptor is placed beside a donor; lengths in Å, angles in degrees.

    Attributes:
        shortest: smallest distance from the start to the end of the moving hydrogen.
        longest: largest one. GFN2-xTB barriers of rigid scans beyond 1.2 Å were 17 to
            34 kcal/mol, too high to matter at room temperature; far beyond 3 Å the atom in mid-air
            is no doublet any more.
        cone: largest angle of the transfer with the donor–hydrogen bond, and of the bond to be
            made with the transfer.
        rattle: standard deviation of the displacement of each coordinate of either molecule.
        clearance: smallest distance between atoms of the two molecules other than the moving
            hydrogen, the donor and the acceptor.
        hydrogen_clearance: smallest distance of the moving hydrogen to any atom on its way.
        tries: positions tried with one conformer.
        conformers: conformers of each donor.
    """

    shortest: float = Field(default=0.4, gt=0)
    longest: float = Field(default=1.2, gt=0)
    cone: float = Field(default=30.0, ge=0, le=180)
    rattle: float = Field(default=0.03, ge=0)
    clearance: float = Field(default=1.7, ge=0)
    hydrogen_clearance: float = Field(default=0.8, ge=0)
    tries: int = Field(default=200, gt=0)
    conformers: int = Field(default=10, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Placement:
        if self.longest < self.shortest:
            raise ValueError(f"longest ({self.longest}) is below shortest ({self.shortest})")
        return self


@dataclass(frozen=True)
class Transfer:
    """Two molecules and the straight way of one hydrogen atom from the one to the other.

    Attributes:
        atoms: both molecules, donor first, with the hydrogen at its start.
        hydrogen: index of the moving hydrogen.
        donor: index of the atom that gives it away.
        acceptor: index of the atom that takes it up.
        start: position of the hydrogen on the donor in Å.
        end: position of the hydrogen on the acceptor in Å.
        names: of the donor, its site and the radical.
    """

    atoms: Atoms
    hydrogen: int
    donor: int
    acceptor: int
    start: Float[np.ndarray, "3"]
    end: Float[np.ndarray, "3"]
    names: tuple[str, str, str]

    @property
    def translation(self) -> float:
        """Distance from start to end in Å."""
        return float(np.linalg.norm(self.end - self.start))

    def with_hydrogen_at(self, position: Float[np.ndarray, "3"]) -> Atoms:
        """Both molecules with the moving hydrogen at a position (Å), all else as it is."""
        atoms = self.atoms.copy()
        atoms.positions[self.hydrogen] = position
        return atoms

    def distances(self, position: Float[np.ndarray, "3"]) -> Float[np.ndarray, " others"]:
        """Distances in Å of the moving hydrogen at a position to all other atoms."""
        others = np.delete(self.atoms.positions, self.hydrogen, axis=0)
        return np.linalg.norm(others - position, axis=1)


CLASH = "molecules clash"
IN_THE_WAY = "an atom is in the hydrogen's way"
RIVAL = "another hydrogen is closer to the end"


class PlacementFailed(ValueError):
    """No allowed position of the acceptor was found."""


def place(
    donor: Donor,
    acceptor: Acceptor,
    placement: Placement,
    generator: np.random.Generator,
    rejected: Counter[str] | None = None,
) -> Transfer:
    """Place a radical so that it can take the hydrogen of a donor.

    Both molecules are rattled. The vacated position of the radical comes to
    end = start + t u, with t uniform between `shortest` and `longest` and u uniform in a cone about
    the donor–hydrogen bond; the acceptor's bond to be made points along a direction in the same
    kind of cone about u, and the radical is turned about it by a uniform angle.

    Args:
        donor: molecule and hydrogen.
        acceptor: radical.
        placement: ranges and limits.
        generator: source of all random numbers.
        rejected: counts the positions that were tried and not allowed, by their reason.

    Raises:
        PlacementFailed: if no position in `placement.tries` keeps the limits.
    """
    atoms = donor.atoms.copy()
    atoms.positions += generator.normal(0.0, placement.rattle, atoms.positions.shape)
    # The vacated position is an atom of the parent and moves as one.
    radical = np.vstack([acceptor.atoms.positions, acceptor.vacated])
    radical = radical + generator.normal(0.0, placement.rattle, radical.shape)
    start = atoms.positions[donor.site.hydrogen].copy()
    bond = start - atoms.positions[donor.site.donor]
    length = generator.uniform(placement.shortest, placement.longest)
    for _ in range(placement.tries):
        direction = _in_cone(bond, placement.cone, generator)
        end = start + length * direction
        axis = _in_cone(direction, placement.cone, generator)
        rotation = _turn(radical[acceptor.index] - radical[-1], axis, generator)
        placed = acceptor.atoms.copy()
        placed.positions = end + (radical[:-1] - radical[-1]) @ rotation.T
        transfer = Transfer(
            atoms=atoms + placed,
            hydrogen=donor.site.hydrogen,
            donor=donor.site.donor,
            acceptor=len(atoms) + acceptor.index,
            start=start,
            end=end,
            names=(donor.name, donor.site.name, acceptor.name),
        )
        fault = find_fault(transfer, len(atoms), placement)
        if fault is None:
            return transfer
        if rejected is not None:
            rejected[fault] += 1
    raise PlacementFailed(
        f"{acceptor.name} finds no place at {donor.site.name} of {donor.name} in "
        f"{placement.tries} tries"
    )


def is_allowed(transfer: Transfer, size: int, placement: Placement) -> bool:
    """Whether a transfer keeps the limits of a placement; see `find_fault`."""
    return find_fault(transfer, size, placement) is None


def find_fault(transfer: Transfer, size: int, placement: Placement) -> str | None:
    """The first limit of a placement that a transfer does not keep; None if it keeps all.

    No two atoms of different molecules clash, the moving hydrogen keeps clear of all atoms but
    donor and acceptor on its whole way, and no other hydrogen of the donor molecule is closer to
    the end point.

    Args:
        transfer: the two molecules.
        size: atoms of the donor molecule.
        placement: the limits.
    """
    positions = transfer.atoms.positions
    between = np.linalg.norm(positions[:size, None] - positions[None, size:], axis=2)
    between[transfer.hydrogen] = np.inf
    between[transfer.donor, transfer.acceptor - size] = np.inf
    if between.min() < placement.clearance:
        return CLASH
    if nearest_bystander(transfer) < placement.hydrogen_clearance:
        return IN_THE_WAY
    rivals = _rivals(transfer, size)
    to_end = np.linalg.norm(positions[:size][rivals] - transfer.end, axis=1)
    return None if (to_end >= transfer.translation).all() else RIVAL


def nearest_bystander(transfer: Transfer) -> float:
    """Smallest distance in Å of the hydrogen's straight way to any atom but donor and acceptor."""
    positions = transfer.atoms.positions
    bystander = np.ones(len(positions), bool)
    bystander[[transfer.hydrogen, transfer.donor, transfer.acceptor]] = False
    if not bystander.any():
        return float("inf")
    to_path = _distance_to_segment(positions[bystander], transfer.start, transfer.end)
    return float(to_path.min())


def _rivals(transfer: Transfer, size: int) -> Bool[np.ndarray, " size"]:
    """The other hydrogens of the donor molecule."""
    rivals = transfer.atoms.numbers[:size] == 1
    rivals[transfer.hydrogen] = False
    return rivals


def _distance_to_segment(
    points: Float[np.ndarray, "points 3"],
    start: Float[np.ndarray, "3"],
    end: Float[np.ndarray, "3"],
) -> Float[np.ndarray, " points"]:
    way = end - start
    along = np.clip((points - start) @ way / (way @ way), 0.0, 1.0)
    return np.linalg.norm(points - start - along[:, None] * way, axis=1)


def _in_cone(
    axis: Float[np.ndarray, "3"], angle: float, generator: np.random.Generator
) -> Float[np.ndarray, "3"]:
    """A unit vector uniform on the spherical cap of `angle` degrees about an axis."""
    cosine = generator.uniform(np.cos(np.radians(angle)), 1.0)
    along, across, _ = _frame(axis, generator).T
    return cosine * along + np.sqrt(1.0 - cosine**2) * across


def _turn(
    source: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], generator: np.random.Generator
) -> Float[np.ndarray, "3 3"]:
    """A rotation that brings source onto target, with a uniform angle about it."""
    return _frame(target, generator) @ _frame(source, generator).T


def _frame(
    axis: Float[np.ndarray, "3"], generator: np.random.Generator
) -> Float[np.ndarray, "3 3"]:
    """A right-handed frame as columns: the axis, a uniform direction across it, and the third."""
    along = axis / np.linalg.norm(axis)
    across = generator.normal(size=3)
    across -= (across @ along) * along
    across /= np.linalg.norm(across)
    return np.stack([along, across, np.cross(along, across)], axis=1)
