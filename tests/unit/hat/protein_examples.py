"""Small proteins for the tests of this folder, as files and as structures."""

from pathlib import Path

import numpy as np
from ase import Atoms

from surefoot.hat.compounds import peptide
from surefoot.hat.peptides import embed, hydrogenated
from surefoot.hat.protein_files import read_structure
from surefoot.hat.proteins import Snapshot, Topology
from surefoot.hat.valence import hydrogen_names


def chain(*codes: str, beginning: str = "ACE", end: str = "NME") -> tuple[Atoms, list[tuple]]:
    """A peptide in one conformer; for each atom its name, the name and the number of its residue.

    Atoms stand residue by residue, hydrogens behind the heavy atoms of their residue.
    """
    made = peptide("chain", codes, beginning, end)
    atoms = embed(made.smiles, 1, 0)[0]
    last = len(codes) + 2
    heavy = []
    for index, name in enumerate(made.names):
        code = made.residues[index]
        if not code:
            residue, _, atom = name.partition("-")
            heavy.append((atom, residue, 1 if residue == "ACE" else last))
        else:
            number = int(code.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
            heavy.append((name, codes[number - 1].rstrip("+-"), number + 1))
    molecule = hydrogenated(made.smiles)
    labels = list(heavy)
    names = _hydrogen_names(molecule, heavy)
    for index in range(len(heavy), len(atoms)):
        (neighbor,) = molecule.GetAtomWithIdx(index).GetNeighbors()
        _, residue, number = heavy[neighbor.GetIdx()]
        labels.append((names[index], residue, number))
    order = sorted(range(len(atoms)), key=lambda one: (labels[one][2], one))
    return atoms[order], [labels[one] for one in order]


def _hydrogen_names(molecule, heavy: list[tuple]) -> dict[int, str]:
    names = {}
    for index, (atom, _, _) in enumerate(heavy):
        own = [
            one.GetIdx()
            for one in molecule.GetAtomWithIdx(index).GetNeighbors()
            if one.GetAtomicNum() == 1
        ]
        number = molecule.GetAtomWithIdx(index).GetAtomicNum()
        single = Topology(
            "", np.array([number]), (atom,), np.zeros(1, int),
            (), np.zeros((0, 2), int), np.zeros(1, int), np.zeros(1, int), 1,
        )  # fmt: skip
        names |= dict(zip(own, hydrogen_names(single, 0, len(own)), strict=True))
    return names


def write_pdb(
    path: Path,
    atoms: Atoms,
    labels: list[tuple],
    chain_id: str = "A",
    box: tuple[float, float, float] | None = None,
    altlocs: dict[int, str] | None = None,
) -> Path:
    """A PDB file of one model."""
    lines = []
    if box is not None:
        edges = "".join(f"{edge:9.3f}" for edge in box)
        lines.append(f"CRYST1{edges}  90.00  90.00  90.00 P 1           1")
    for index, ((name, residue, number), symbol, place) in enumerate(
        zip(labels, atoms.get_chemical_symbols(), atoms.positions, strict=True)
    ):
        letter = (altlocs or {}).get(index, " ")
        shown = name if len(name) == 4 else f" {name:<3}"
        where = "".join(f"{one:8.3f}" for one in place)
        lines.append(
            f"ATOM  {index + 1:5d} {shown}{letter}{residue:<3} {chain_id}{number:4d}    {where}"
            f"  1.00  0.00          {symbol:>2}"
        )
    path.write_text("\n".join([*lines, "END"]) + "\n")
    return path


def protein(folder: Path, *codes: str, **settings: str) -> tuple[Topology, Snapshot]:
    """The peptide as it is read from a file."""
    atoms, labels = chain(*codes, **settings)
    topology, (snapshot,) = read_structure(write_pdb(folder / "chain.pdb", atoms, labels))
    return topology, snapshot
