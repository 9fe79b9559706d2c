"""What is added to a structure: hydrogens where residues have none, oxygens put in their place.

Hydrogens are counted by valence, and placed and relaxed by RDKit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from surefoot.hat.proteins import Topology
from surefoot.hat.residues import canonical_atom, is_solvent, template
from surefoot.hat.valence import hydrogen_names, lacks_hydrogens, missing_hydrogens

CARBONYL = 1.23  # Å
TORN = 2.0  # Å from carbon to oxygen
STEPS = 200  # of the relaxation
CUTOFF = 8.0  # Å, of its non-bonded terms
VALENCES = {6: 4, 7: 3, 8: 2, 16: 2, 34: 2, 15: 5}  # of neutral atoms, for formal charges


class NoHydrogens(ValueError):
    """Hydrogens that can not be added."""


def add_hydrogens(
    topology: Topology, positions: Float[np.ndarray, "atoms 3"]
) -> tuple[Topology, Float[np.ndarray, "more 3"], int]:
    """A piece of a protein with hydrogens on the residues that have none on their carbons.

    Acids, Lys, Arg and the ends of chains are charged as in water at pH 7, His is neutral with its
    hydrogen on NE2, unless their names say otherwise. RDKit places the hydrogens by the geometry of
    the bonds and relaxes them with MMFF94, all other atoms held. Each stands behind the last atom
    of its residue.

    Args:
        topology: of the piece.
        positions: in Å, no molecule torn by the box.

    Returns:
        The larger piece, its positions in Å, and how many hydrogens were added.

    Raises:
        NoHydrogens: if RDKit knows no way.
    """
    bare = [
        residue
        for residue, found in enumerate(topology.residues)
        if not is_solvent(found.name) and lacks_hydrogens(topology, residue)
    ]
    heavy = np.flatnonzero(np.isin(topology.owner, bare) & (topology.numbers > 1))
    counts = {int(atom): missing_hydrogens(topology, int(atom)) for atom in heavy}
    total = sum(counts.values())
    if not total:
        return topology, positions, 0
    placed = _place(topology, positions, counts)
    return (*_insert(topology, positions, placed), total)


def rebuild_carbonyls(
    topology: Topology, positions: Float[np.ndarray, "atoms 3"]
) -> tuple[Float[np.ndarray, "atoms 3"], int]:
    """Put backbone oxygens that are torn off into the plane of their carbonyl group.

    With u the unit vectors of the other two bonds of C, O goes to C − 1.23 Å Σu/|Σu|.

    Args:
        topology: of the piece.
        positions: in Å, no molecule torn by the box.

    Returns:
        The positions, and how many oxygens were moved: those farther than 2 Å from their carbon.
    """
    made = positions.copy()
    count = 0
    for one, two in topology.bonds.tolist():
        carbon, oxygen = (one, two) if topology.names[one] == "C" else (two, one)
        if topology.names[carbon] != "C" or topology.names[oxygen] != "O":
            continue
        if np.linalg.norm(positions[oxygen] - positions[carbon]) < TORN:
            continue
        others = topology.bonded(carbon)
        bonds = positions[others[others != oxygen]] - positions[carbon]
        if len(bonds) != 2:
            continue
        total = (bonds / np.linalg.norm(bonds, axis=1, keepdims=True)).sum(axis=0)
        made[oxygen] = positions[carbon] - CARBONYL * total / np.linalg.norm(total)
        count += 1
    return made, count


def _place(
    topology: Topology, positions: Float[np.ndarray, "atoms 3"], counts: dict[int, int]
) -> dict[int, Float[np.ndarray, "hydrogens 3"]]:
    """Positions of the new hydrogens of each atom."""
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers

    solvent = np.array([is_solvent(residue.name) for residue in topology.residues], bool)
    atoms = np.flatnonzero(~solvent[topology.owner])
    molecule = _molecule(topology, atoms, counts)
    conformer = Chem.Conformer(len(atoms))
    conformer.SetPositions(np.ascontiguousarray(positions[atoms], float))
    molecule.AddConformer(conformer)
    try:
        Chem.SanitizeMol(molecule)
        full = Chem.AddHs(molecule, addCoords=True)
        settings = rdForceFieldHelpers.MMFFGetMoleculeProperties(full)
    except ValueError as error:  # what RDKit's own errors derive from
        raise NoHydrogens(
            f"{topology.file}: no hydrogens could be added ({str(error).strip()}); give a "
            "structure that has them."
        ) from error
    if settings is not None:
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(
            full, settings, nonBondedThresh=CUTOFF, ignoreInterfragInteractions=False
        )
        for atom in range(len(atoms)):
            field.AddFixedPoint(atom)
        field.Initialize()
        field.Minimize(maxIts=STEPS)
    where = full.GetConformer().GetPositions()
    placed: dict[int, list[Float[np.ndarray, "3"]]] = {}
    for index in range(len(atoms), full.GetNumAtoms()):
        (neighbor,) = full.GetAtomWithIdx(index).GetNeighbors()
        owner = int(atoms[neighbor.GetIdx()])
        if len(placed.get(owner, ())) < counts.get(owner, 0):  # the others stand for cut bonds
            placed.setdefault(owner, []).append(where[index])
    return {atom: np.array(own) for atom, own in placed.items()}


def _molecule(topology: Topology, atoms: Int[np.ndarray, " kept"], counts: dict[int, int]) -> Any:
    """The RDKit molecule of the piece, each cut bond closed by a hydrogen."""
    from rdkit import Chem

    orders = _orders(topology)
    degree = np.bincount(topology.bonds.ravel(), minlength=len(topology.numbers))
    filled = topology.degree - degree
    total = filled.astype(int)
    for (one, two), order in orders.items():
        total[[one, two]] += order
    place = {int(atom): index for index, atom in enumerate(atoms)}
    molecule = Chem.RWMol()
    for atom in atoms.tolist():
        number = int(topology.numbers[atom])
        made = Chem.Atom(number)
        if number > 1:
            hydrogens = counts.get(atom, 0)
            made.SetNoImplicit(True)
            made.SetNumExplicitHs(int(filled[atom]) + hydrogens)
            if number in VALENCES and number != 6:
                made.SetFormalCharge(int(total[atom]) + hydrogens - VALENCES[number])
        molecule.AddAtom(made)
    kinds = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE}
    for (one, two), order in orders.items():
        if one in place and two in place:
            molecule.AddBond(place[one], place[two], kinds[order])
    return molecule


def _orders(topology: Topology) -> dict[tuple[int, int], int]:
    """The order of each bond; those between residues and to hydrogens are single."""
    orders = {(int(one), int(two)): 1 for one, two in topology.bonds}
    for residue, own in enumerate(topology.residues):
        atoms = np.flatnonzero((topology.owner == residue) & (topology.numbers > 1))
        found = template(own.name, [topology.names[atom] for atom in atoms])
        if found is None:
            continue
        names = {canonical_atom(found.name, topology.names[atom]): int(atom) for atom in atoms}
        for (one, two), order in found.bonds.items():
            if order == 2 and one in names and two in names:
                first, second = sorted((names[one], names[two]))
                orders[first, second] = 2
    return orders


def _insert(
    topology: Topology,
    positions: Float[np.ndarray, "atoms 3"],
    placed: dict[int, Float[np.ndarray, "hydrogens 3"]],
) -> tuple[Topology, Float[np.ndarray, "more 3"]]:
    parents = np.array([atom for atom, own in placed.items() for _ in own], int)
    names = [
        name for atom, own in placed.items() for name in hydrogen_names(topology, atom, len(own))
    ]
    count = len(topology.numbers)
    owner = np.concatenate([topology.owner, topology.owner[parents]])
    order = np.argsort(owner, kind="stable")
    new = np.empty(len(order), int)
    new[order] = np.arange(len(order))
    bonds = np.vstack([topology.bonds, np.stack([parents, count + np.arange(len(parents))], 1)])
    degree = np.concatenate([topology.degree, np.ones(len(parents), int)])
    np.add.at(degree, parents, 1)
    added = np.concatenate(list(placed.values()))
    made = replace(
        topology,
        numbers=np.concatenate([topology.numbers, np.ones(len(parents), int)])[order],
        names=tuple(np.array([*topology.names, *names], object)[order]),
        owner=owner[order],
        bonds=np.unique(np.sort(new[bonds], axis=1), axis=0),
        degree=degree[order],
        source=np.concatenate([topology.source, np.full(len(parents), -1)])[order],
    )
    return made, np.concatenate([positions, added])[order]
