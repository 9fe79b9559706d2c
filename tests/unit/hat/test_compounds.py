"""Molecules by SMILES: names, bonds, and what is refused."""

import pytest

from surefoot.hat.compounds import (
    BadMolecule,
    bond_distances,
    bonds,
    formula,
    from_smiles,
    identity,
)


def test_atoms_are_called_by_element_and_place() -> None:
    found = from_smiles("acetamide", "CC(=O)N")
    assert found.names == ("C0", "C1", "O2", "N3")
    assert (found.charge, found.closed) == (0, frozenset())
    assert formula(found) == "C2H5NO"
    assert from_smiles("ion", "C[NH3+]").charge == 1


def test_bonds_and_how_many_lie_between_atoms() -> None:
    found = from_smiles("methanol", "CO")
    assert len(bonds(found)) == 5
    apart = bond_distances(found)
    assert apart.shape == (6, 6)
    assert apart[2, 5] == 3  # H–C–O–H
    assert bonds(from_smiles("helium", "[He]")).shape == (0, 2)


def test_two_texts_of_one_molecule_are_one() -> None:
    assert identity(from_smiles("a", "OCC")) == identity(from_smiles("b", "CCO"))
    assert identity(from_smiles("a", "C[C@H](F)Cl")) != identity(from_smiles("b", "C[C@@H](F)Cl"))


@pytest.mark.parametrize(
    ("smiles", "said"),
    [
        ("C(", r"x \(C\(\): this is no SMILES that RDKit can read"),
        ("C(C)(C)(C)(C)C", "no SMILES that RDKit can read"),
        ("", "no SMILES that RDKit can read"),
        ("CO.C", "several molecules; write one, without a dot"),
        ("[CH3]", "unpaired electrons; write the molecule with its hydrogen"),
        ("C*", "an atom has no element"),
        ("[H][H]", "a hydrogen stands as an atom of its own"),
        ("CC(F)Cl", r"1 stereocentres or double bonds is not stated \(atom or bond 1\)"),
        ("FC=CF", "double bonds is not stated"),
    ],
)
def test_what_is_no_closed_shell_molecule(smiles: str, said: str) -> None:
    with pytest.raises(BadMolecule, match=said):
        from_smiles("x", smiles)
