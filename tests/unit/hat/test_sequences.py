"""Sequences: what they mean, what their molecules are, and what is refused."""

import pytest
from rdkit.Chem import FindMolChiralCenters

from surefoot.hat.compounds import formula
from surefoot.hat.fragments import BEGINNINGS, ENDS, FRAGMENTS, LETTERS, join
from surefoot.hat.peptides import hydrogenated
from surefoot.hat.sequences import BadSequence, parse_residue, parse_sequence

CENTRES = {"GLY": [], "CYS": ["R"], "ILE": ["S", "S"], "THR": ["S", "R"], "HYP": ["R", "S"]}
CHARGES = {"ASP-": -1, "GLU-": -1, "LYS+": 1, "ARG+": 1, "HIP": 1}


@pytest.mark.parametrize("code", FRAGMENTS)
def test_inside_a_chain_each_amino_acid_keeps_its_hand_charge_and_names(code: str) -> None:
    chain = join(("ALA", code, "SER"), "ACE", "NME")
    molecule = hydrogenated(chain.smiles)
    labels = [label for _, label in FindMolChiralCenters(molecule)]
    assert labels == ["S", *CENTRES.get(code, ["S"]), "S"]
    assert sum(atom.GetFormalCharge() for atom in molecule.GetAtoms()) == CHARGES.get(code, 0)
    assert chain.charge == CHARGES.get(code, 0)
    heavy = [atom.GetSymbol() for atom in molecule.GetAtoms() if atom.GetAtomicNum() > 1]
    assert heavy == [name.rpartition("-")[2][0] for name in chain.names]


@pytest.mark.parametrize("code", FRAGMENTS)
@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("end", ENDS)
def test_every_end_fits_every_amino_acid(code: str, beginning: str, end: str) -> None:
    chain = join((code,), beginning, end)
    molecule = hydrogenated(chain.smiles)
    assert not any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    assert sum(atom.GetFormalCharge() for atom in molecule.GetAtoms()) == chain.charge
    labels = [label for _, label in FindMolChiralCenters(molecule)]
    assert labels == CENTRES.get(code, ["S"])
    assert sum(atom.GetAtomicNum() > 1 for atom in molecule.GetAtoms()) == len(chain.names)


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("GPO", "GLY-PRO-HYP", "C15H24N4O5"),
        ("Gly-Pro-Hyp", "GLY-PRO-HYP", "C15H24N4O5"),
        ("gly-pro-hyp", "GLY-PRO-HYP", "C15H24N4O5"),
        ("Ac-Ala-NHMe", "ALA", "C6H12N2O2"),
        ("Ala", "ALA", "C6H12N2O2"),
        ("A", "ALA", "C6H12N2O2"),
        ("H-Ala-OH", "H-ALA-OH", "C3H7NO2"),
        ("H(+)-Ala-O(-)", "H(+)-ALA-O(-)", "C3H7NO2"),
        ("H(+)-Pro-OH", "H(+)-PRO-OH", "C5H10NO2+"),
        ("H-Gly-NH2", "H-GLY-NH2", "C2H6N2O"),
        ("D(-)K(+)", "ASP(-)-LYS(+)", "C13H24N4O5"),
        ("DK", "ASP-LYS", "C13H24N4O5"),
        ("Ash-Glh-Lyn-Arn-Hid", "ASP-GLU-LYS-ARG-HID", "C30H50N12O10"),
        ("H", "HIE", "C9H14N4O2"),
        ("H(+)", "HIP", "C9H15N4O2+"),
        ("Dopa-Gly", "DAH-GLY", "C14H19N3O5"),
    ],
)
def test_what_a_sequence_means(text: str, name: str, found: str) -> None:
    chain = parse_sequence(text)
    assert chain.name == name
    assert formula(chain) == found


@pytest.mark.parametrize(
    ("termini", "name"),
    [
        ("capped", "GLY-ALA"),
        ("neutral", "H-GLY-ALA-OH"),
        ("zwitterion", "H(+)-GLY-ALA-O(-)"),
        ("amidated", "H-GLY-ALA-NH2"),
    ],
)
def test_ends_of_sequences_that_name_none(termini, name: str) -> None:
    assert parse_sequence("GA", termini).name == name
    assert parse_sequence("Ace-Gly-Ala-NMe", termini).name == "GLY-ALA"


def test_charges_of_amino_acids_that_state_none() -> None:
    assert parse_sequence("DEKRH", charges="physiological").name == (
        "ASP(-)-GLU(-)-LYS(+)-ARG(+)-HIE"
    )
    stated = parse_sequence("D(0)EK(0)RH(+)", charges="physiological")
    assert stated.name == "ASP-GLU(-)-LYS-ARG(+)-HIP"
    assert stated.charge == 1
    assert parse_residue("Asp", charges="physiological").name == "ASP(-)"
    assert parse_residue("ASH", charges="physiological").name == "ASP"


def test_atoms_know_their_amino_acid() -> None:
    chain = parse_sequence("H-Ala-Asp(-)-OH")
    named = dict(zip(chain.names, chain.residues, strict=True))
    assert named["OXT"] == "ASP2"
    assert named["OD1"] == "ASP2"
    assert chain.residues[0] == "ALA1"
    assert set(parse_sequence("A").residues) == {"", "ALA1"}


def test_all_letters_are_read() -> None:
    assert len(parse_sequence("".join(LETTERS)).names) > 150


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("GXA", r"Sequence 'GXA': 'X' at place 2 is no amino acid.*G, A, V.*O is hydroxyproline"),
        ("G(A", r"Sequence 'G\(A': '\(' at place 2"),
        ("Gly-Foo-Ala", r"'FOO' at place 2 is no amino acid.*ALA, ARG.*begin with ACE, H, H\(\+\)"),
        ("Gly--Ala", r"'' at place 2 is no amino acid"),
        ("", "is empty; write amino acids such as GPO"),
        ("H-OH", "no amino acid between its ends"),
        ("G(+)", r"place 1: GLY is known in one form only"),
        ("Ala-Asp(+)", r"place 2: ASP has no form \(\+\); allowed are ASP\(0\), ASP\(-\)"),
    ],
)
def test_what_is_no_sequence(text: str, said: str) -> None:
    with pytest.raises(BadSequence, match=said):
        parse_sequence(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PYL", r"Residue 'PYL' is no amino acid that is known. Allowed are ALA, ARG"),
        ("Gly(-)", r"Residue 'Gly\(-\)': GLY is known in one form only"),
        ("Lys(-)", r"Residue 'Lys\(-\)': LYS has no form \(-\)"),
    ],
)
def test_what_is_no_residue(text: str, said: str) -> None:
    with pytest.raises(BadSequence, match=said):
        parse_residue(text)
