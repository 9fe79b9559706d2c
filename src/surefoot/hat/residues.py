"""What is known of residues by name: bonds between heavy atoms, and how many bonds each has.

Amino acids and caps are made from their SMILES; names of force fields are mapped onto these. The
chemical component dictionary of the Protein Data Bank is not asked: it gives many of these names to
other molecules (HIE, CYX, SOL and DOP among them).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

from surefoot.hat.fragments import FRAGMENTS, Fragment, join
from surefoot.hat.peptides import hydrogenated

WATER = {"HOH", "SOL", "WAT", "TIP3", "TIP4", "TIP", "TP3", "TIP3P", "TIP4P", "SPC", "SPCE", "H2O"}
IONS = {"NA", "CL", "K", "MG", "CA", "ZN", "LI", "RB", "CS", "BR", "NA+", "CL-", "K+", "SOD", "CLA",
        "POT", "CAL", "CES", "IP", "IM", "MG2", "ZN2"}  # fmt: skip
SOLVENT = frozenset(WATER | IONS)
AMINO_ACIDS = frozenset(
    {
        "ALA",
        "ARG",
        "ASN",
        "ASP",
        "CYS",
        "GLN",
        "GLU",
        "GLY",
        "HIS",
        "ILE",
        "LEU",
        "LYS",
        "MET",
        "PHE",
        "PRO",
        "SER",
        "THR",
        "TRP",
        "TYR",
        "VAL",
        "HYP",
        "DAH",
    }
)
SYNONYMS = {
    **dict.fromkeys(
        (
            "HID",
            "HIE",
            "HIP",
            "HSD",
            "HSE",
            "HSP",
            "HISA",
            "HISB",
            "HISH",
            "HISD",
            "HISE",
            "HIS1",
            "HIS2",
        ),
        "HIS",
    ),
    **dict.fromkeys(("CYX", "CYM", "CYS2", "CYSH"), "CYS"),
    **dict.fromkeys(("ASH", "ASPH", "ASPP"), "ASP"),
    **dict.fromkeys(("GLH", "GLUH", "GLUP"), "GLU"),
    **dict.fromkeys(("LYN", "LYP", "LSN", "LYSH"), "LYS"),
    "ARN": "ARG",
    "TYM": "TYR",
    "NMA": "NME",
    "NAC": "NME",
    "DOP": "DAH",
    "DOPA": "DAH",
}
"""Residue name in force fields → name here, that of the Protein Data Bank."""
ATOM_SYNONYMS = {
    "": {"OT1": "O", "OC1": "O", "O1": "O", "OT2": "OXT", "OC2": "OXT", "O2": "OXT", "OT": "OXT"},
    "ILE": {"CD": "CD1"},
    "HYP": {"CD2": "CD", "CD1": "CD", "OD2": "OD1", "OG1": "OD1", "OD": "OD1"},
    "DAH": {"OH1": "OZ", "OH": "OZ", "OH2": "OE2"},
    "NME": {"C": "CH3", "CAT": "CH3"},
    "ACE": {"CAY": "CH3", "CY": "C", "OY": "O"},
}
"""Residue, or none for all amino acids → names of its atoms in force fields → names here."""
ANIONS = {"CYM": "SG", "TYM": "OH"}
"""Residues that say by their name that an atom has lost its proton."""
GROUPS = {
    "ASP": (("OD1", "OD2"),),
    "GLU": (("OE1", "OE2"),),
    "HIS": (("ND1", "NE2"),),
    "ARG": (("NE", "NH1", "NH2"),),
}
"""Atoms that share a proton, beside O and OXT of the last residue of a chain."""
PROTONS: dict[str, dict[str, int]] = {
    "ASP": {"OD2": -1},
    "GLU": {"OE2": -1},
    "LYS": {"NZ": 1},
    "LYP": {"NZ": 1},
    "LYSH": {"NZ": 1},
    "ARG": {"NH1": 1},
    "HID": {"ND1": 1, "NE2": -1},
    "HSD": {"ND1": 1, "NE2": -1},
    "HISD": {"ND1": 1, "NE2": -1},
    "HISA": {"ND1": 1, "NE2": -1},
    "HIP": {"ND1": 1},
    "HSP": {"ND1": 1},
    "HISH": {"ND1": 1},
    "CYM": {"SG": -1},
    "TYM": {"OH": -1},
}
"""Residue name → protons its atoms have in water beside those of the neutral residue.

Acids, Lys and Arg are charged, His is neutral with its hydrogen on NE2, unless the name says
otherwise."""


CAPS = {"ACE": Fragment("CC=O", ("CH3", "C", "O")), "NME": Fragment("NC", ("N", "CH3"))}
"""Each with a hydrogen in place of the chain; NH2 is ammonia likewise."""
ENDS = ("ACE", "NME", "NH2")


@dataclass(frozen=True)
class Template:
    """A residue as a free molecule.

    Attributes:
        name: of the residue.
        bonds: pairs of names of heavy atoms → order of the bond, 1 or 2.
        neutral: heavy atom → bonds it has, hydrogens counted, where the residue is neutral; the
            bond to the next residue takes the place of one to a hydrogen or to OXT.
    """

    name: str
    bonds: dict[tuple[str, str], int]
    neutral: dict[str, int]


def protons(residue: str) -> dict[str, int]:
    """Protons of atoms in water beside those of the neutral residue, see `PROTONS`."""
    name = residue.upper()
    if len(name) == 4 and name[0] in "NC" and canonical(name) in AMINO_ACIDS:
        name = name[1:]
    return PROTONS.get(name, {})


def is_solvent(name: str) -> bool:
    """Whether a residue is water or an ion."""
    return name.upper() in SOLVENT


def canonical(residue: str) -> str:
    """The name a residue has here; force fields put N or C before it at ends of chains."""
    name = residue.upper()
    if len(name) == 4 and name[0] in "NC" and SYNONYMS.get(name[1:], name[1:]) in AMINO_ACIDS:
        name = name[1:]
    return SYNONYMS.get(name, name)


def canonical_atom(residue: str, atom: str) -> str:
    """The name a heavy atom has here.

    Args:
        residue: its name here.
        atom: name in the file.
    """
    own = ATOM_SYNONYMS.get(residue, {})
    if atom in own:
        return own[atom]
    shared = {} if residue in ENDS else ATOM_SYNONYMS[""]
    return shared.get(atom, atom)


def template(residue: str, atoms: Collection[str]) -> Template | None:
    """What is known of a residue, if its heavy atoms have names that are known.

    Args:
        residue: name in the file.
        atoms: names of its heavy atoms in the file.
    """
    if len(set(atoms)) != len(atoms):
        return None
    found = _lookup(canonical(residue))
    if found is None:
        return None
    names = {canonical_atom(found.name, atom) for atom in atoms}
    missing = set(found.neutral) - names - {"OXT"}
    if len(names) != len(atoms) or not names <= set(found.neutral) or missing:
        return None
    return found


def explain_names(residue: str, atoms: Sequence[str]) -> str:
    """What is wrong with the names of a residue's atoms, in words.

    Args:
        residue: name in the file.
        atoms: names of its heavy atoms in the file.

    Returns:
        A sentence without its full stop; empty where the residue is not known, or all is right.
    """
    found = _lookup(canonical(residue))
    if found is None or template(residue, atoms) is not None:
        return ""
    places: dict[str, list[str]] = {}
    for atom in atoms:
        places.setdefault(canonical_atom(found.name, atom), []).append(atom)
    said = []
    for place, names in places.items():
        if place not in found.neutral:
            said.append(f"{names[0]} is no atom of {found.name}")
        elif len(set(names)) > 1:
            said.append(f"{', '.join(names)} mean the same atom {place}")
        elif len(names) > 1:
            said.append(f"{place} stands there twice")
    said += [f"{place} is missing" for place in found.neutral if place not in {*places, "OXT"}]
    return ", ".join(said[:-1]) + (" and " if said[1:] else "") + said[-1]


@cache
def _lookup(name: str) -> Template | None:
    if name == "NH2":
        return Template(name, {}, {"N": 3})
    if name in CAPS:
        return _from_smiles(name, CAPS[name])
    code = "HIE" if name == "HIS" else name
    return _from_smiles(name, join((code,), "H", "OH")) if code in FRAGMENTS else None


def _from_smiles(name: str, fragment: Fragment) -> Template:
    from rdkit import Chem

    molecule = hydrogenated(fragment.smiles)
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    names = fragment.names
    ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond) for bond in molecule.GetBonds()]
    return Template(
        name,
        {
            (names[one], names[two]): int(bond.GetBondTypeAsDouble())
            for one, two, bond in ends
            if one < len(names) and two < len(names)
        },
        {atom: molecule.GetAtomWithIdx(index).GetDegree() for index, atom in enumerate(names)},
    )
