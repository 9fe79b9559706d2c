"""Bonds of a protein file: by the names of residues, by its own records, or by distances."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from ase.data import covalent_radii
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from surefoot.hat.residues import canonical_atom, explain_names, is_solvent, template

STRETCH = 1.3  # times the sum of covalent radii: bonds by distance
LONGEST_TO_HYDROGEN = 1.5  # Å; S–H is 1.34
PEPTIDE = 2.0  # Å, longest C–N bond between residues
DISULFIDE = 2.5  # Å


class NoBonds(ValueError):
    """A residue whose bonds are not known."""


def minimum_image(
    vectors: Float[np.ndarray, "*vectors 3"], cell: Float[np.ndarray, "3 3"] | None
) -> Float[np.ndarray, "*vectors 3"]:
    """The shortest images of vectors, exact for those shorter than half the height of the cell.

    Args:
        vectors: in Å.
        cell: its rows are the box, or None without one.
    """
    if cell is None:
        return vectors
    return vectors - np.round(vectors @ np.linalg.inv(cell)) @ cell


def residue_bonds(
    numbers: Int[np.ndarray, " atoms"],
    names: Sequence[str],
    owner: Int[np.ndarray, " atoms"],
    residues: Sequence[str],
    recorded: Int[np.ndarray, "records 2"],
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"] | None,
    by_distance: Collection[str],
) -> tuple[Int[np.ndarray, "bonds 2"], set[str]]:
    """All bonds of a structure.

    Heavy atoms of a residue that is known are bonded as its template says, others as the records of
    the file say, or, in the residues named, where they are closer than 1.3 times the sum of their
    covalent radii.
    Hydrogens are bonded to the nearest heavy atom of their residue, C to N of the next residue
    within 2 Å, sulfurs within 2.5 Å. Records of the file count besides.

    Args:
        numbers: atomic numbers.
        names: of the atoms.
        owner: residue of each atom.
        residues: names of the residues.
        recorded: bonds that the file itself states.
        positions: in Å.
        cell: rows are the box, or None.
        by_distance: names of residues whose bonds are guessed from distances.

    Returns:
        Pairs, the lower index first, each once; and names of residues whose bonds were guessed.

    Raises:
        NoBonds: if a residue is not known, the file states none of its bonds, and it is not among
            those to be guessed.
    """
    pairs: list[tuple[int, int]] = [(int(a), int(b)) for a, b in recorded]
    stated = np.zeros(len(numbers), bool)
    stated[recorded.ravel()] = True
    guessed: set[str] = set()
    solvent = np.array([is_solvent(name) for name in residues], bool)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    stops = np.append(starts[1:], len(owner))
    pairs += _water(numbers, owner, starts, solvent)
    for residue in np.flatnonzero(~solvent).tolist():
        start, stop = int(starts[residue]), int(stops[residue])
        name = residues[residue]
        atoms = np.arange(start, stop)
        heavy = atoms[numbers[start:stop] > 1]
        pairs += _hydrogens(atoms, heavy, numbers, positions, cell)
        if len(heavy) < 2:
            continue
        found = template(name, [names[int(atom)] for atom in heavy])
        if found is not None:
            place = {canonical_atom(found.name, names[int(atom)]): int(atom) for atom in heavy}
            pairs += [(place[a], place[b]) for a, b in found.bonds if a in place and b in place]
        elif name in by_distance:
            guessed.add(name)
            pairs += _near(heavy, numbers, positions, cell)
        elif not stated[heavy].all():
            raise NoBonds(_say_unknown(name, start, [names[int(atom)] for atom in heavy]))
    pairs += _between(numbers, names, owner, residues, positions, cell)
    made = np.sort(np.array(pairs, int).reshape(-1, 2), axis=1)
    return np.unique(made, axis=0), guessed


def _say_unknown(residue: str, start: int, atoms: Sequence[str]) -> str:
    """That the bonds of a residue are not known, why, and what to do, in a sentence or two."""
    wrong = explain_names(residue, atoms)
    known = f"is known with other atoms: {wrong};" if wrong else "is not known, and"
    return (
        f"residue {residue} (atom {start}) {known} the file states no bonds (CONECT) for it. "
        + ("Mend the names, or name it" if wrong else "Name it")
        + f" with --bonds-by-distance {residue} to guess them from distances."
    )


def _water(
    numbers: Int[np.ndarray, " atoms"],
    owner: Int[np.ndarray, " atoms"],
    starts: Int[np.ndarray, " residues"],
    solvent: Bool[np.ndarray, " residues"],
) -> list[tuple[int, int]]:
    """Hydrogens of water belong to its oxygen, which stands first."""
    hydrogens = np.flatnonzero((numbers == 1) & solvent[owner])
    return list(zip(starts[owner[hydrogens]].tolist(), hydrogens.tolist(), strict=True))


def _hydrogens(
    atoms: Int[np.ndarray, " residue"],
    heavy: Int[np.ndarray, " heavy"],
    numbers: Int[np.ndarray, " atoms"],
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"] | None,
) -> list[tuple[int, int]]:
    hydrogens = atoms[numbers[atoms] == 1]
    if not len(hydrogens) or not len(heavy):
        return []
    vectors = positions[hydrogens][:, None] - positions[heavy]
    apart = np.linalg.norm(minimum_image(vectors, cell), axis=2)
    nearest = apart.argmin(axis=1)
    return [
        (int(hydrogen), int(heavy[place]))
        for hydrogen, place, length in zip(hydrogens, nearest, apart.min(axis=1), strict=True)
        if length < LONGEST_TO_HYDROGEN
    ]


def _near(
    atoms: Int[np.ndarray, " residue"],
    numbers: Int[np.ndarray, " atoms"],
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"] | None,
) -> list[tuple[int, int]]:
    vectors = positions[atoms][:, None] - positions[atoms]
    apart = np.linalg.norm(minimum_image(vectors, cell), axis=2)
    radii = covalent_radii[numbers[atoms]]
    near = np.argwhere(np.triu(apart < STRETCH * (radii[:, None] + radii), 1))
    return [(int(atoms[one]), int(atoms[two])) for one, two in near]


def _between(
    numbers: Int[np.ndarray, " atoms"],
    names: Sequence[str],
    owner: Int[np.ndarray, " atoms"],
    residues: Sequence[str],
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"] | None,
) -> list[tuple[int, int]]:
    """Peptide bonds between neighbours in the file, and disulfides."""
    solvent = np.array([is_solvent(name) for name in residues], bool)
    chain = np.flatnonzero(~solvent[owner]).tolist()
    carbons = {int(owner[i]): i for i in chain if names[i] == "C" and numbers[i] == 6}
    nitrogens = {int(owner[i]): i for i in chain if names[i] == "N" and numbers[i] == 7}
    pairs = []
    for residue, carbon in carbons.items():
        if canonical_is_end(residues[residue]) or residue + 1 not in nitrogens:
            continue
        nitrogen = nitrogens[residue + 1]
        vector = minimum_image(positions[nitrogen] - positions[carbon], cell)
        if np.linalg.norm(vector) < PEPTIDE:
            pairs.append((carbon, nitrogen))
    sulfurs = np.array([i for i in chain if numbers[i] == 16 and names[i] == "SG"], int)
    vectors = minimum_image(positions[sulfurs][:, None] - positions[sulfurs], cell)
    near = np.argwhere(np.triu(np.linalg.norm(vectors, axis=2) < DISULFIDE, 1))
    return pairs + [(int(sulfurs[one]), int(sulfurs[two])) for one, two in near]


def canonical_is_end(residue: str) -> bool:
    """Whether a residue closes a chain, so that its carbon named C is a methyl."""
    return residue.upper() in ("NME", "NMA", "NAC")


def refuse_overlaps(
    positions: Float[np.ndarray, "atoms 3"], labels: Sequence[str], closest: float, place: str
) -> None:
    """Refuse atoms that lie on each other.

    Args:
        positions: in Å.
        labels: of the atoms, for the message.
        closest: distance in Å below which two atoms overlap.
        place: file and frame, for the message.

    Raises:
        ValueError: with the two atoms.
    """
    pairs = KDTree(positions).query_pairs(closest, output_type="ndarray")
    if not len(pairs):
        return
    one, two = pairs[0].tolist()
    apart = float(np.linalg.norm(positions[one] - positions[two]))
    raise ValueError(
        f"{place}: {labels[one]} and {labels[two]} are {apart:.2f} Å apart, one pair of "
        f"{len(pairs)}; atoms overlap below {closest} Å. Remove copies or relax the structure."
    )
