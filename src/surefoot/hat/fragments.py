"""Amino acids as they stand in a chain, and what the chain may begin and end with.

A peptide is a beginning, fragments and an end, one SMILES behind the other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fragment:
    """A piece of a chain.

    Attributes:
        smiles: of the piece; that of an amino acid goes from N to the carbonyl group, N first.
        names: of the heavy atoms in the order of the SMILES, as in the Protein Data Bank; those of
            what is no amino acid begin with the name of the piece.
        charge: in e.
    """

    smiles: str
    names: tuple[str, ...]
    charge: int = 0


CARBONYL = "C", "O"


def _acid(side_chain: str, *names: str, charge: int = 0) -> Fragment:
    """An L amino acid by its side chain from the β carbon on."""
    return Fragment(f"N[C@@H]({side_chain})C(=O)", ("N", "CA", *names, *CARBONYL), charge)


RING = "CB", "CG", "CD1", "CE1", "CZ"
IMIDAZOLE = "CB", "CG", "ND1", "CE1", "NE2", "CD2"

FRAGMENTS: dict[str, Fragment] = {
    "GLY": Fragment("NCC(=O)", ("N", "CA", *CARBONYL)),
    "ALA": _acid("C", "CB"),
    "VAL": _acid("C(C)C", "CB", "CG1", "CG2"),
    "LEU": _acid("CC(C)C", "CB", "CG", "CD1", "CD2"),
    "ILE": _acid("[C@@H](C)CC", "CB", "CG2", "CG1", "CD1"),
    "SER": _acid("CO", "CB", "OG"),
    "THR": _acid("[C@H](O)C", "CB", "OG1", "CG2"),
    "ASN": _acid("CC(=O)N", "CB", "CG", "OD1", "ND2"),
    "GLN": _acid("CCC(=O)N", "CB", "CG", "CD", "OE1", "NE2"),
    "ASP": _acid("CC(=O)O", "CB", "CG", "OD1", "OD2"),
    "GLU": _acid("CCC(=O)O", "CB", "CG", "CD", "OE1", "OE2"),
    "CYS": _acid("CS", "CB", "SG"),
    "MET": _acid("CCSC", "CB", "CG", "SD", "CE"),
    "PHE": _acid("Cc1ccccc1", *RING, "CE2", "CD2"),
    "PRO": Fragment("N1CCC[C@H]1C(=O)", ("N", "CD", "CG", "CB", "CA", *CARBONYL)),
    "HYP": Fragment("N1C[C@H](O)C[C@H]1C(=O)", ("N", "CD", "CG", "OD1", "CB", "CA", *CARBONYL)),
    "TYR": _acid("Cc1ccc(O)cc1", *RING, "OH", "CE2", "CD2"),
    "DAH": _acid("Cc1ccc(O)c(O)c1", *RING, "OZ", "CE2", "OE2", "CD2"),
    "TRP": _acid("Cc1c[nH]c2ccccc12", "CB", "CG", "CD1", "NE1", "CE2", "CZ2", "CH2", "CZ3", "CE3",
                 "CD2"),
    "HID": _acid("Cc1[nH]cnc1", *IMIDAZOLE),
    "HIE": _acid("Cc1nc[nH]c1", *IMIDAZOLE),
    "LYS": _acid("CCCCN", "CB", "CG", "CD", "CE", "NZ"),
    "ARG": _acid("CCCNC(=N)N", "CB", "CG", "CD", "NE", "CZ", "NH1", "NH2"),
    "ASP-": _acid("CC(=O)[O-]", "CB", "CG", "OD1", "OD2", charge=-1),
    "GLU-": _acid("CCC(=O)[O-]", "CB", "CG", "CD", "OE1", "OE2", charge=-1),
    "LYS+": _acid("CCCC[NH3+]", "CB", "CG", "CD", "CE", "NZ", charge=1),
    "ARG+": _acid("CCCNC(=[NH2+])N", "CB", "CG", "CD", "NE", "CZ", "NH1", "NH2", charge=1),
    "HIP": _acid("Cc1[nH]c[nH+]c1", *IMIDAZOLE, charge=1),
}  # fmt: skip
"""Amino acids by code, in L form; those without a sign are neutral but for HIP. HYP is
trans-4-hydroxyproline, (2S,4R); DAH is DOPA, with the names of its entry in the Protein Data Bank.
"""

LETTERS = {
    "G": "GLY", "A": "ALA", "V": "VAL", "L": "LEU", "I": "ILE", "S": "SER", "T": "THR", "N": "ASN",
    "Q": "GLN", "D": "ASP", "E": "GLU", "C": "CYS", "M": "MET", "F": "PHE", "P": "PRO", "O": "HYP",
    "Y": "TYR", "W": "TRP", "H": "HIS", "K": "LYS", "R": "ARG",
}  # fmt: skip
"""One-letter codes; O is hydroxyproline, as is usual for collagen."""

FORMS: dict[str, dict[str, str]] = {
    "ASP": {"0": "ASP", "-": "ASP-"},
    "GLU": {"0": "GLU", "-": "GLU-"},
    "LYS": {"0": "LYS", "+": "LYS+"},
    "ARG": {"0": "ARG", "+": "ARG+"},
    "HIS": {"0": "HIE", "+": "HIP"},
}
"""Forms of the amino acids that have several, by charge."""

SYNONYMS = {
    "ASH": "ASP(0)", "GLH": "GLU(0)", "LYN": "LYS(0)", "ARN": "ARG(0)", "DOPA": "DAH", "DOP": "DAH",
}  # fmt: skip
"""Other names: those of force fields for neutral forms, and of DOPA."""

PHYSIOLOGICAL = {"ASP": "-", "GLU": "-", "LYS": "+", "ARG": "+", "HIS": "0"}
"""The forms that prevail in water at pH 7."""

ACETYL = Fragment("CC(=O)", ("ACE-CH3", "ACE-C", "ACE-O"))
BEGINNINGS: dict[str, Fragment] = {
    "ACE": ACETYL,
    "H": Fragment("", ()),
    "H(+)": Fragment("", (), charge=1),
}
"""Beginnings of a chain by the name they are written with: acetyl, amine, ammonium."""

ENDS: dict[str, Fragment] = {
    "NME": Fragment("NC", ("NME-N", "NME-CH3")),
    "NH2": Fragment("N", ("NH2-N",)),
    "OH": Fragment("O", ("OXT",)),
    "O(-)": Fragment("[O-]", ("OXT",), charge=-1),
}
"""Ends of a chain: methylamide, amide, acid, carboxylate."""

TERMINI: dict[str, tuple[str, str]] = {
    "capped": ("ACE", "NME"),
    "neutral": ("H", "OH"),
    "zwitterion": ("H(+)", "O(-)"),
    "amidated": ("H", "NH2"),
}
"""Beginning and end of a chain that names none."""

BACKBONE = ("N", "C", "O", "OXT")
"""Atoms of an amino acid whose hydrogens are not offered."""


def join(codes: tuple[str, ...], beginning: str, end: str) -> Fragment:
    """The SMILES of a whole chain, with the names of its atoms and its charge.

    Args:
        codes: keys of `FRAGMENTS`, at least one.
        beginning: key of `BEGINNINGS`.
        end: key of `ENDS`.
    """
    pieces = [FRAGMENTS[code] for code in codes]
    first = pieces[0]
    if BEGINNINGS[beginning].charge:
        # The nitrogen of a ring holds one hydrogen less.
        kind = "[NH2+]" if first.smiles.startswith("N1") else "[NH3+]"
        pieces[0] = Fragment(kind + first.smiles[1:], first.names, first.charge)
    pieces = [BEGINNINGS[beginning], *pieces, ENDS[end]]
    return Fragment(
        "".join(piece.smiles for piece in pieces),
        tuple(name for piece in pieces for name in piece.names),
        sum(piece.charge for piece in pieces),
    )
