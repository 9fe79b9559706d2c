"""A radical with the residues around it as a molecule of its own: capped, charged, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Bool, Float, Int

from surefoot.hat.connect import STRETCH, refuse_overlaps
from surefoot.hat.proteins import Topology
from surefoot.hat.residues import explain_names, is_solvent
from surefoot.hat.valence import residue_state
from surefoot.label.labeler import check_state

CAP_BONDS = {6: 1.09, 7: 1.01, 8: 0.96, 16: 1.34, 34: 1.46}
"""Å from an atom, by its number, to the hydrogen in place of a bond that is cut."""
CLOSEST = 0.6  # Å; atoms nearer than this overlap
LONGEST_BOND = 2.0  # Å between atoms up to oxygen; to heavier ones HEAVY_BOND
HEAVY_BOND = 2.6
SPIN = 2  # one radical makes a doublet

Caps = Literal["ace_nme", "hydrogen"]
"""What closes a cut peptide bond: the next residue's part as far as its α carbon, or a hydrogen."""


class TwoRadicals(ValueError):
    """A cut-out with more than one atom that lacks a bond."""


@dataclass(frozen=True, eq=False)
class Cutout:
    """A molecule around a radical.

    Attributes:
        atoms: with `charge` and `spin` in info.
        place: index in the region of each atom; −1 for hydrogens in place of a cut bond.
        caps: atoms that stand for a cut bond, ACE and NME whole.
        residues: whole residues, as the file names them.
        charges: residue → charge in e, of those that are not neutral.
    """

    atoms: Atoms
    place: Int[np.ndarray, " atoms"]
    caps: Bool[np.ndarray, " atoms"]
    residues: tuple[str, ...]
    charges: dict[str, int]

    @property
    def charge(self) -> int:
        """Total charge in e."""
        return int(self.atoms.info["charge"])

    def index(self, atom: int) -> int:
        """Where an atom of the region stands here; −1 if it is not here or only as a cap."""
        (found,) = np.nonzero(self.place == atom)
        return int(found[0]) if len(found) and not self.caps[found[0]] else -1

    def to_boundary(self, points: Float[np.ndarray, "points 3"]) -> float:
        """Distance in Å from any of some points to the nearest cap; infinite without caps."""
        return _nearest(points, self.atoms.positions[self.caps])

    def to_missing(
        self, points: Float[np.ndarray, "points 3"], region: Float[np.ndarray, "region 3"]
    ) -> float:
        """The same to the nearest atom of the region that is not here, solvent included."""
        missing = np.setdiff1d(np.arange(len(region)), self.place)
        return _nearest(points, region[missing])


def _nearest(points: Float[np.ndarray, "points 3"], others: Float[np.ndarray, "others 3"]) -> float:
    if not len(others):
        return float("inf")
    return float(np.linalg.norm(points[:, None] - others, axis=2).min())


def cut_out(
    topology: Topology,
    positions: Float[np.ndarray, "atoms 3"],
    radical: int,
    residues: Bool[np.ndarray, " residues"],
    caps: Caps = "ace_nme",
    charges: Mapping[str, int] | None = None,
) -> Cutout:
    """Cut whole residues out of a region and close the bonds that are cut.

    A residue that stands alone between two that are taken is taken too. With `ace_nme` a cut
    peptide bond is closed by the backbone of the next residue as far as its α carbon, whose other
    bonds, like all others that are cut, end in hydrogens along the bond.

    Args:
        topology: region that holds the residues and those they are bonded to, with hydrogens.
        positions: in Å, no molecule torn by the box.
        radical: index of the radical.
        residues: which are taken.
        caps: what closes a peptide bond.
        charges: residue name → charge in e, of residues that are not known.

    Raises:
        TwoRadicals: if another atom lacks a bond.
        ValueError: if a charge is not known, atoms overlap, a bond is torn, or electrons do not
            make a doublet.
    """
    taken = fill_gaps(topology, residues)
    kept = taken[topology.owner]
    capping = _cap_atoms(topology, kept) if caps == "ace_nme" else np.zeros(len(kept), bool)
    stay = np.flatnonzero(kept | capping)
    place = stay.tolist()
    held = kept | capping
    numbers, where, is_cap = (
        topology.numbers[stay].tolist(),
        list(positions[stay]),
        list(capping[stay]),
    )
    for one, two in topology.bonds.tolist():
        for inner, outer in ((one, two), (two, one)):
            if held[inner] and not held[outer]:
                where.append(_shortened(topology, positions, inner, outer))
                numbers.append(1)
                place.append(-1)
                is_cap.append(True)
    found = _charges(topology, np.flatnonzero(taken), radical, charges or {})
    atoms = Atoms(numbers, np.array(where))
    labels = [topology.label(index) if index >= 0 else "a cap" for index in place]
    _refuse_torn(topology, positions, held)
    refuse_overlaps(atoms.positions, labels, CLOSEST, f"the cut-out of {topology.label(radical)}")
    charge = sum(found.values())
    try:
        check_state(atoms.numbers, charge, SPIN)
    except ValueError as error:
        raise ValueError(
            f"the cut-out of {topology.label(radical)}, {atoms.get_chemical_formula()} with charge "
            f"{charge:+d}, is no doublet: {error}. Look at the hydrogens of its residues, or at "
            "--charge of those that are not known."
        ) from error
    atoms.info |= {"charge": charge, "spin": SPIN}
    return Cutout(
        atoms=atoms,
        place=np.array(place),
        caps=np.array(is_cap, bool),
        residues=tuple(str(topology.residues[index]) for index in np.flatnonzero(taken)),
        charges={str(topology.residues[index]): q for index, q in found.items() if q},
    )


def fill_gaps(
    topology: Topology, residues: Bool[np.ndarray, " residues"]
) -> Bool[np.ndarray, " residues"]:
    """Residues, and those bonded to two of them or more: the caps of both would meet there."""
    ends = topology.owner[topology.bonds]
    ends = ends[ends[:, 0] != ends[:, 1]]
    filled = residues.copy()
    while True:
        crossing = np.concatenate([ends[filled[ends[:, 0]]][:, 1], ends[filled[ends[:, 1]]][:, 0]])
        more = (np.bincount(crossing, minlength=len(filled)) > 1) & ~filled
        if not more.any():
            return filled
        filled |= more


def _cap_atoms(topology: Topology, kept: Bool[np.ndarray, " atoms"]) -> Bool[np.ndarray, " atoms"]:
    """Atoms of the next residues that make ACE before and NME behind what is kept."""
    cap = np.zeros(len(kept), bool)
    for one, two in topology.bonds.tolist():
        inner, outer = (one, two) if kept[one] else (two, one)
        if kept[inner] == kept[outer]:
            continue
        ends = {topology.names[inner], topology.names[outer]}
        if ends != {"C", "N"}:
            continue
        own = topology.owner == topology.owner[outer]
        wanted = ("C", "O", "CA", "CH3") if topology.names[outer] == "C" else ("N", "CA", "CH3")
        chosen = np.flatnonzero(own & np.isin(np.array(topology.names), wanted))
        cap[chosen] = True
        for atom in chosen.tolist():
            bonded = topology.bonded(atom)
            cap[bonded[topology.numbers[bonded] == 1]] = True
    return cap & ~kept


def _shortened(
    topology: Topology, positions: Float[np.ndarray, "atoms 3"], inner: int, outer: int
) -> Float[np.ndarray, "3"]:
    """Where a hydrogen stands that takes the place of a bond's outer atom."""
    bond = positions[outer] - positions[inner]
    length = CAP_BONDS.get(int(topology.numbers[inner]), 1.09)
    return positions[inner] + length * bond / np.linalg.norm(bond)


def _charges(
    topology: Topology,
    residues: Int[np.ndarray, " residues"],
    radical: int,
    stated: Mapping[str, int],
) -> dict[int, int]:
    """The charge of each residue, as if the radical had its hydrogen."""
    charges: dict[int, int] = {}
    for index in residues.tolist():
        name = topology.residues[index].name
        added = {radical: 1} if topology.owner[radical] == index else None
        state = residue_state(topology, index, added)
        if state.charge is None:
            _refuse_bare(topology, index)
            if name not in stated:
                raise ValueError(_say_no_charge(topology, index))
            charges[index] = stated[name]
            continue
        if state.open:
            raise TwoRadicals(
                f"{topology.label(state.open[0])} lacks a bond and would be a second radical in "
                f"the cut-out of {topology.label(radical)}; one is allowed. Choose a smaller "
                "--radius, or complete the structure."
            )
        if state.crowded:
            atom = state.crowded[0]
            raise ValueError(
                f"{topology.label(atom)} has {topology.degree[atom]} bonds"
                + (" beside its free electron" if atom == radical else "")
                + ", more than it can have; look at its hydrogens."
            )
        charges[index] = state.charge
    return charges


def _say_no_charge(topology: Topology, residue: int) -> str:
    """That the charge of a residue is not known, why, and what to do, in a sentence."""
    own = topology.residues[residue]
    heavy = np.flatnonzero((topology.owner == residue) & (topology.numbers > 1))
    wrong = explain_names(own.name, [topology.names[atom] for atom in heavy])
    if not wrong:
        return (
            f"residue {own} is not known, nor is its charge; state it with --charge {own.name}=0."
        )
    return (
        f"residue {own} is known with other atoms ({wrong}), so that its charge is not known; mend "
        f"the names, or state the charge with --charge {own.name}=0."
    )


def _refuse_bare(topology: Topology, residue: int) -> None:
    """Refuse a residue that lacks hydrogens nobody can count."""
    numbers = topology.numbers[topology.owner == residue]
    if (numbers == 6).sum() > 1 and not (numbers == 1).any():
        raise ValueError(
            f"residue {topology.residues[residue]} has no hydrogens and is not known, so that none "
            "can be added; give a structure that has them, or choose a smaller --radius."
        )


def _refuse_torn(
    topology: Topology, positions: Float[np.ndarray, "atoms 3"], held: Bool[np.ndarray, " atoms"]
) -> None:
    """Refuse bonds of a length that no bond has."""
    bonds = topology.bonds[held[topology.bonds].all(axis=1)]
    lengths = np.linalg.norm(positions[bonds[:, 0]] - positions[bonds[:, 1]], axis=1)
    heavy = (topology.numbers[bonds] > 10).any(axis=1)
    torn = np.flatnonzero(lengths > np.where(heavy, HEAVY_BOND, LONGEST_BOND))
    if len(torn):
        one, two = bonds[torn[0]].tolist()
        told = f"{topology.label(one)} and {topology.label(two)} are bonded and "
        told += f"{lengths[torn[0]]:.2f} Å apart"
        if _is_misnamed(topology, positions, one, two):
            raise ValueError(
                f"{told}, while another atom of {topology.residue(one)} that is not bonded is near:"
                " the names of its atoms are not those that are known; mend them in the file."
            )
        carbonyl = {topology.names[one], topology.names[two]} == {"C", "O"}
        raise ValueError(
            f"{told}; relax the structure, or choose another place in it"
            + (", or put such oxygens in place with --rebuild-carbonyls." if carbonyl else ".")
        )


def _is_misnamed(
    topology: Topology, positions: Float[np.ndarray, "atoms 3"], one: int, two: int
) -> bool:
    """Whether one of two atoms of a residue is at an atom there that it is not bonded to."""
    own = np.flatnonzero((topology.owner == topology.owner[one]) & (topology.numbers > 1))
    if topology.owner[one] != topology.owner[two]:
        return False
    for atom in (one, two):
        others = np.setdiff1d(own, [atom, *topology.bonded(atom)])
        apart = np.linalg.norm(positions[others] - positions[atom], axis=1)
        radii = covalent_radii[topology.numbers[others]] + covalent_radii[topology.numbers[atom]]
        if (apart < STRETCH * radii).any():
            return True
    return False


def without_solvent(
    topology: Topology, residues: Bool[np.ndarray, " residues"]
) -> Bool[np.ndarray, " residues"]:
    """Residues that are neither water nor ions."""
    solvent = np.array([is_solvent(residue.name) for residue in topology.residues], bool)
    return residues & ~solvent


def without_ions(
    topology: Topology, residues: Bool[np.ndarray, " residues"]
) -> Bool[np.ndarray, " residues"]:
    """Residues with bonds, or that are no solvent: ions and waters without hydrogens left out."""
    solvent = np.array([is_solvent(residue.name) for residue in topology.residues], bool)
    sizes = np.bincount(topology.owner, minlength=len(topology.residues))
    return residues & (~solvent | (sizes == 3))
