from collections import Counter

import pytest

from surefoot.hat.compounds import from_smiles
from surefoot.hat.peptides import RESIDUES, conformers, residue
from surefoot.hat.sequences import parse_sequence
from surefoot.hat.sites import compound_sites, residue_sites

EXPECTED = {
    "GLY": {"CA": 2},
    "ALA": {"CA": 1, "CB": 3},
    "VAL": {"CA": 1, "CB": 1, "CG1": 3, "CG2": 3},
    "LEU": {"CA": 1, "CB": 2, "CG": 1, "CD1": 3, "CD2": 3},
    "ILE": {"CA": 1, "CB": 1, "CG2": 3, "CG1": 2, "CD1": 3},
    "SER": {"CA": 1, "CB": 2},
    "THR": {"CA": 1, "CB": 1, "CG2": 3},
    "ASN": {"CA": 1, "CB": 2},
    "GLN": {"CA": 1, "CB": 2, "CG": 2},
    "ASP": {"CA": 1, "CB": 2},
    "GLU": {"CA": 1, "CB": 2, "CG": 2},
    "CYS": {"CA": 1, "CB": 2},
    "MET": {"CA": 1, "CB": 2, "CG": 2, "CE": 3},
    "PHE": {"CA": 1, "CB": 2, "CD1": 1, "CE1": 1, "CZ": 1, "CE2": 1, "CD2": 1},
    "PRO": {"CA": 1, "CB": 2, "CG": 2, "CD": 2},
    "HYP": {"CA": 1, "CB": 2, "CG": 1, "CD": 2},
    "TYR": {"CA": 1, "CB": 2, "CD1": 1, "CE1": 1, "CE2": 1, "CD2": 1},
    "DAH": {"CA": 1, "CB": 2, "CD1": 1, "CE1": 1, "CD2": 1},
    "TRP": {"CA": 1, "CB": 2, "CD1": 1, "CZ2": 1, "CH2": 1, "CZ3": 1, "CE3": 1},
    "HID": {"CA": 1, "CB": 2, "CE1": 1, "CD2": 1},
    "HIE": {"CA": 1, "CB": 2, "CE1": 1, "CD2": 1},
    "LYS": {"CA": 1, "CB": 2, "CG": 2, "CD": 2, "CE": 2},
    "ARG": {"CA": 1, "CB": 2, "CG": 2, "CD": 2},
}
OTHERS = {
    "SER": {"OG": 1},
    "THR": {"OG1": 1},
    "ASN": {"ND2": 2},
    "GLN": {"NE2": 2},
    "ASP": {"OD2": 1},
    "GLU": {"OE2": 1},
    "CYS": {"SG": 1},
    "HYP": {"OD1": 1},
    "TYR": {"OH": 1},
    "DAH": {"OZ": 1, "OE2": 1},
    "TRP": {"NE1": 1},
    "HID": {"ND1": 1},
    "HIE": {"NE2": 1},
    "LYS": {"NZ": 2},
    "ARG": {"NE": 1, "NH1": 1, "NH2": 2},
}


@pytest.mark.parametrize("name", RESIDUES)
def test_carbon_sites(name: str) -> None:
    assert Counter(site.name for site in residue_sites(name)) == EXPECTED[name]


@pytest.mark.parametrize("name", ["GLY", "THR", "PRO", "MET"])
def test_indices_point_at_bonded_atoms(name: str) -> None:
    (atoms,) = conformers(name, 1, 0)
    sites = residue_sites(name)
    for site in sites:
        assert atoms.numbers[site.donor] == 6
        assert atoms.numbers[site.hydrogen] == 1
        assert residue(name).names[site.donor] == site.name
        assert 1.05 < atoms.get_distance(site.donor, site.hydrogen) < 1.15
    assert len({site.hydrogen for site in sites}) == len(sites)


@pytest.mark.parametrize("name", RESIDUES)
def test_other_elements_on_request(name: str) -> None:
    found = Counter(site.name for site in residue_sites(name, ("N", "O", "S")))
    assert found == OTHERS.get(name, {})


def test_sites_of_a_chain_know_their_amino_acid() -> None:
    chain = parse_sequence("H(+)-Gly-Lys(+)-Hyp-OH")
    sites = compound_sites(chain, ("C", "N", "O", "S"))
    assert Counter((site.residue, site.name) for site in sites) == {
        ("GLY1", "CA"): 2,  # neither the ammonium
        **{("LYS2", name): 2 for name in ("CB", "CG", "CD", "CE")},
        ("LYS2", "CA"): 1,
        ("LYS2", "NZ"): 3,
        **{("HYP3", name): 2 for name in ("CD", "CB")},
        **{("HYP3", name): 1 for name in ("CA", "CG", "OD1")},  # nor the acid
    }
    assert len({site.hydrogen for site in sites}) == len(sites)


def test_any_molecule_offers_all_hydrogens_of_an_element() -> None:
    thiol = from_smiles("thiol", "OCCS")
    assert Counter(site.name for site in compound_sites(thiol, ("C", "S"))) == {
        "C1": 2,
        "C2": 2,
        "S3": 1,
    }
