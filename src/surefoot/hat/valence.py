"""Bonds that are missing, charges of residues, and the radicals of a structure.

A residue is charged where a nitrogen, oxygen or sulfur has more or fewer bonds than in the neutral
residue. Acids, histidines and arginines may differ so, and lysines and the ends of chains; any
other bond that is missing makes a radical.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from surefoot.hat.proteins import Topology
from surefoot.hat.residues import (
    ANIONS,
    ENDS,
    GROUPS,
    canonical_atom,
    is_solvent,
    template,
)

ALLOWED = {"ASP": (-1, 0), "GLU": (-1, 0), "HIS": (-1, 1), "ARG": (0, 1)}
"""Bonds that groups which share a proton may have beside those of the neutral residue."""
ACID = (-1, 0)  # the same of O and OXT at the end of a chain


@dataclass(frozen=True)
class Radical:
    """An atom with a free electron.

    Attributes:
        atom: its index.
        hydrogen: index of the hydrogen to be taken away first; None where it is missing already.
        guessed: whether it was found by its missing bond, and not named.
    """

    atom: int
    hydrogen: int | None = None
    guessed: bool = False


@dataclass(frozen=True)
class State:
    """What the bonds of a residue say.

    Attributes:
        charge: in e; None where the residue is not known.
        open: atoms with fewer bonds than any closed shell of the residue has.
        crowded: atoms with more.
    """

    charge: int | None
    open: tuple[int, ...] = ()
    crowded: tuple[int, ...] = ()


def residue_state(
    topology: Topology, residue: int, added: Mapping[int, int] | None = None
) -> State:
    """Charge and missing bonds of one residue.

    Args:
        topology: all bonds of the residue count, see `Topology.degree`.
        residue: its index.
        added: atom → bonds that are to be counted besides, such as the one a radical lacks.
    """
    atoms = np.flatnonzero(topology.owner == residue)
    name = topology.residues[residue].name
    if is_solvent(name):
        return State(0)
    heavy = [int(atom) for atom in atoms if topology.numbers[atom] > 1]
    found = template(name, [topology.names[atom] for atom in heavy])
    if found is None:
        return State(None)
    names = {canonical_atom(found.name, topology.names[atom]): atom for atom in heavy}
    more = added or {}
    excess = {
        atom: int(topology.degree[index]) + more.get(index, 0) - found.neutral[atom]
        for atom, index in names.items()
    }
    groups = [(group, ALLOWED[found.name]) for group in GROUPS.get(found.name, ())]
    if "OXT" in names:
        groups.append((("O", "OXT"), ACID))
    grouped = {atom for group, _ in groups for atom in group}
    anion = ANIONS.get(name.upper())
    for atom, index in names.items():
        if atom not in grouped:
            number = int(topology.numbers[index])
            lowest = -1 if atom == anion else 0
            groups.append(((atom,), (lowest, 1 if number == 7 else 0)))
    charge, few, many = 0, [], []
    for group, (lowest, highest) in groups:
        total = sum(excess[atom] for atom in group)
        if total < lowest:
            few += [names[atom] for atom in group if excess[atom] < 0][: lowest - total]
        elif total > highest:
            many += [names[atom] for atom in group if excess[atom] > 0]
        elif topology.numbers[names[group[0]]] != 6:
            charge += total
    return State(charge, tuple(few), tuple(many))


def lacks_hydrogens(topology: Topology, residue: int) -> bool:
    """Whether a known residue has carbons with room for hydrogens and no hydrogen on any."""
    atoms = np.flatnonzero(topology.owner == residue)
    carbons = {int(atom) for atom in atoms if topology.numbers[atom] == 6}
    ends = topology.bonds[np.isin(topology.bonds, list(carbons)).any(axis=1)]
    if (topology.numbers[ends] == 1).any():
        return False
    missing = residue_state(topology, residue).open
    return any(atom in carbons for atom in missing)


def guess_radicals(topology: Topology) -> list[Radical]:
    """Atoms that lack a bond, in residues that are known and have their hydrogens.

    A guess: an atom may also lack a bond because the structure is not complete.
    """
    return [
        Radical(atom, guessed=True)
        for residue, found in enumerate(topology.residues)
        if not is_solvent(found.name) and not lacks_hydrogens(topology, residue)
        for atom in residue_state(topology, residue).open
    ]


def find_atom(topology: Topology, text: str) -> int:
    """The atom that a text names: CHAIN:RESIDUE:ATOM, RESIDUE:ATOM, or its place in the file.

    RESIDUE is a number, with or without the name before it: 30 or GLY30. Places begin at 0.

    Raises:
        ValueError: if there is no such atom, or several.
    """
    if text.isdigit():
        (found,) = np.nonzero(topology.source == int(text))
        if not len(found):
            raise ValueError(
                f"{topology.file} has no atom {text}; places in the file go from 0 to "
                f"{topology.atoms_in_file - 1}."
            )
        return int(found[0])
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise ValueError(
            f"'{text}' names no atom; write CHAIN:RESIDUE:ATOM or RESIDUE:ATOM, such as A:GLY30:CA "
            "or 30:CA, or its place in the file."
        )
    chain, residue, atom = parts if len(parts) == 3 else (None, *parts)
    matches = [
        index
        for index, found in enumerate(topology.residues)
        if residue in (found.number, found.name + found.number)
        and chain in (None, found.chain)
        and not is_solvent(found.name)
    ]
    atoms = [
        int(index)
        for index in np.flatnonzero(np.isin(topology.owner, matches))
        if topology.names[index] == atom
    ]
    if len(atoms) == 1:
        return atoms[0]
    if atoms:
        several = ", ".join(f"{topology.label(one)} at {topology.source[one]}" for one in atoms[:4])
        raise ValueError(
            f"'{text}' names {len(atoms)} atoms of {topology.file} ({several}); name the chain "
            "too, or the place in the file."
        )
    if matches:
        held = ", ".join(
            topology.names[one] for one in np.flatnonzero(topology.owner == matches[0])
        )
        raise ValueError(
            f"{topology.file}: {topology.residues[matches[0]]} has no atom {atom}; it has {held}."
        )
    raise ValueError(
        f"{topology.file} has no residue '{residue if chain is None else f'{chain}:{residue}'}'; "
        f"the first is {topology.residues[0]}, the last {topology.residues[-1]}."
    )


def read_radical(topology: Topology, text: str) -> tuple[Radical, str | None]:
    """A radical as it is named, and the name of a hydrogen that is still to be added and removed.

    A text such as A:GLY30:CA-HA2 names the hydrogen that is taken away to make it.

    Raises:
        ValueError: if it names no atom, or a hydrogen that is not on it, or none though the atom
            has all its bonds.
    """
    place, _, hydrogen = text.partition("-")
    atom = find_atom(topology, place)
    if topology.numbers[atom] == 1:
        raise ValueError(f"{topology.label(atom)} is a hydrogen; name the atom it has left.")
    bonded = [one for one in topology.bonded(atom).tolist() if topology.numbers[one] == 1]
    residue = int(topology.owner[atom])
    label = topology.label(atom)
    if lacks_hydrogens(topology, residue):
        names = hydrogen_names(topology, atom, missing_hydrogens(topology, atom))
        if hydrogen not in names:
            raise ValueError(
                f"{topology.file} has no hydrogens on {topology.residue(atom)}, they are added; "
                f"name the one that has left {label}: {_choices(place, names)}."
            )
        return Radical(atom), hydrogen
    if hydrogen:
        matches = [one for one in bonded if topology.names[one] == hydrogen]
        if not matches:
            names = [topology.names[one] for one in bonded]
            raise ValueError(f"{label} has no {hydrogen}; allowed: {_choices(place, names)}.")
        return Radical(atom, matches[0]), None
    state = residue_state(topology, residue)
    if state.charge is not None and atom not in state.open and bonded:
        closed = residue_state(topology, residue, {atom: 1})
        if atom in closed.crowded or topology.numbers[atom] == 6:
            names = [topology.names[one] for one in bonded]
            raise ValueError(
                f"{label} has all its bonds; name the hydrogen that is taken away: "
                f"{_choices(place, names)}."
            )
    return Radical(atom), None


def _choices(place: str, names: Collection[str]) -> str:
    return " or ".join(f"{place}-{name}" for name in names) or "none, it has no hydrogen"


def missing_hydrogens(topology: Topology, atom: int) -> int:
    """Hydrogens that an atom of a residue without any is to get, as in water at pH 7."""
    from surefoot.hat.residues import protons

    residue = int(topology.owner[atom])
    own = np.flatnonzero((topology.owner == residue) & (topology.numbers > 1))
    name = topology.residues[residue].name
    found = template(name, [topology.names[one] for one in own])
    if found is None:
        return 0
    known = canonical_atom(found.name, topology.names[atom])
    wanted = found.neutral[known] + protons(name).get(known, 0)
    if known == "OXT":
        wanted -= 1
    if known == "N" and found.name not in ENDS and not _has_carbonyl_before(topology, atom):
        wanted += 1
    return max(wanted - int(topology.degree[atom]), 0)


def _has_carbonyl_before(topology: Topology, nitrogen: int) -> bool:
    """Whether a backbone nitrogen is bonded to another residue."""
    own = topology.owner[topology.bonded(nitrogen)] == topology.owner[nitrogen]
    return bool((~own).any()) or int(topology.degree[nitrogen]) > len(own)


def hydrogen_names(topology: Topology, atom: int, count: int) -> tuple[str, ...]:
    """Names for hydrogens that are added to an atom, as the Protein Data Bank has them.

    Those of a CH2 group are numbered 2 and 3, those of others from 1 on.
    """
    name = topology.names[atom]
    symbol = chemical_symbols[topology.numbers[atom]].upper()
    rest = name.removeprefix(symbol)
    if count == 1:
        return ("H" + rest,)
    first = 2 if count == 2 and topology.numbers[atom] == 6 else 1
    return tuple(f"H{rest}{number}" for number in range(first, first + count))
