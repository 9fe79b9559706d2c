import numpy as np
import pytest
from ase.geometry import get_distances
from rdkit.Chem import FindMolChiralCenters
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from surefoot.hat.peptides import RESIDUES, conformers, embed, hydrogenated, residue

FORMULAE = {
    "GLY": "C5H10N2O2",
    "ALA": "C6H12N2O2",
    "VAL": "C8H16N2O2",
    "LEU": "C9H18N2O2",
    "ILE": "C9H18N2O2",
    "SER": "C6H12N2O3",
    "THR": "C7H14N2O3",
    "ASN": "C7H13N3O3",
    "GLN": "C8H15N3O3",
    "ASP": "C7H12N2O4",
    "GLU": "C8H14N2O4",
    "CYS": "C6H12N2O2S",
    "MET": "C8H16N2O2S",
    "PHE": "C12H16N2O2",
    "PRO": "C8H14N2O2",
    "HYP": "C8H14N2O3",
    "TYR": "C12H16N2O3",
    "DAH": "C12H16N2O4",
    "TRP": "C14H17N3O2",
    "HID": "C9H14N4O2",
    "HIE": "C9H14N4O2",
    "LYS": "C9H19N3O2",
    "ARG": "C9H19N5O2",
}
# CIP labels of L forms, in the order of the SMILES; of HYP atom 4 comes before the α carbon
CENTRES = {"GLY": [], "CYS": ["R"], "ILE": ["S", "S"], "THR": ["S", "R"], "HYP": ["R", "S"]}


@pytest.mark.parametrize("name", RESIDUES)
def test_formula_and_hand(name: str) -> None:
    molecule = hydrogenated(residue(name).smiles)
    assert CalcMolFormula(molecule) == FORMULAE[name]
    assert [label for _, label in FindMolChiralCenters(molecule)] == CENTRES.get(name, ["S"])


@pytest.mark.parametrize("name", RESIDUES)
def test_names_fit_the_atoms(name: str) -> None:
    found = residue(name)
    heavy = [a for a in hydrogenated(found.smiles).GetAtoms() if a.GetAtomicNum() > 1]
    assert [a.GetSymbol() for a in heavy] == [n.rpartition("-")[2][0] for n in found.names]
    assert len(set(found.names)) == len(found.names)
    alpha = heavy[found.names.index("CA")]
    bonded = {found.names[n.GetIdx()] for n in alpha.GetNeighbors() if n.GetAtomicNum() > 1}
    assert bonded == ({"N", "C"} if name == "GLY" else {"N", "C", "CB"})


def test_one_seed_one_set_of_conformers() -> None:
    first, again, other = (conformers("SER", 4, seed) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.positions, two.positions)
    assert not np.allclose(first[0].positions, other[0].positions)
    distances = [one.get_all_distances() for one in first]
    assert np.abs(distances[0] - distances[1]).max() > 0.5


def test_conformers_are_sound_molecules() -> None:
    for atoms in conformers("ASN", 3, 0):
        assert len(atoms) == 26
        _, distances = get_distances(atoms.positions)
        assert distances[np.triu_indices(len(atoms), 1)].min() > 0.9


def test_an_unknown_residue_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no residue 'PYL'. Allowed are GLY, ALA, VAL"):
        conformers("PYL", 1, 0)


def test_too_few_structures_are_an_error() -> None:
    # Its bridge would have to pass through the ring.
    with pytest.raises(ValueError, match="only 0 of 1 structures"):
        embed("C1C[C@@H]2C[C@@H]1C2", 1, 0)
