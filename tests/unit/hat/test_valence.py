from pathlib import Path

import numpy as np
import pytest

from surefoot.hat.hydrogens import add_hydrogens, rebuild_carbonyls
from surefoot.hat.protein_files import read_structure
from surefoot.hat.valence import find_atom, guess_radicals, read_radical, residue_state

from .protein_examples import chain, protein, write_pdb


@pytest.mark.parametrize(
    ("code", "charge"),
    [("ASP", 0), ("ASP-", -1), ("GLU-", -1), ("LYS+", 1), ("LYS", 0), ("ARG+", 1), ("ARG", 0),
     ("HIE", 0), ("HID", 0), ("HIP", 1), ("HYP", 0), ("DAH", 0), ("TRP", 0), ("CYS", 0)],
)  # fmt: skip
def test_charges_follow_from_hydrogens(code: str, charge: int, tmp_path: Path) -> None:
    topology, _ = protein(tmp_path, code)
    states = [residue_state(topology, index) for index in range(3)]
    assert [state.charge for state in states] == [0, charge, 0]
    assert not any(state.open or state.crowded for state in states)


def test_ends_of_chains_are_charged(tmp_path: Path) -> None:
    topology, _ = protein(tmp_path, "PRO", "GLY", "ALA", beginning="H(+)", end="O(-)")
    assert [residue_state(topology, index).charge for index in range(3)] == [1, 0, -1]


@pytest.mark.parametrize("name", ["CA-HA", "CB-HB2", "OG-HG", "N-H"])
def test_a_missing_hydrogen_is_guessed_to_be_a_radical(name: str, tmp_path: Path) -> None:
    atoms, labels = chain("SER", "LYS+")
    atom, _, hydrogen = name.partition("-")
    lost = labels.index((hydrogen, "SER", 2))
    left = [index for index in range(len(atoms)) if index != lost]
    path = write_pdb(tmp_path / "a.pdb", atoms[left], [labels[index] for index in left])
    topology, _ = read_structure(path)
    (found,) = guess_radicals(topology)
    assert found.guessed
    assert topology.label(found.atom) == f"A:SER2:{atom}"
    named, added = read_radical(topology, f"A:SER2:{atom}")
    assert (named.atom, named.hydrogen, named.guessed, added) == (found.atom, None, False, None)


def test_radicals_are_named(tmp_path: Path) -> None:
    topology, _ = protein(tmp_path, "ALA", "ALA")
    place = find_atom(topology, "A:ALA3:CB")
    assert place == find_atom(topology, "3:CB") == find_atom(topology, str(place))
    radical, _ = read_radical(topology, "A:ALA3:CA-HA")
    assert topology.names[radical.hydrogen or 0] == "HA"
    for text, reason in (
        ("A:ALA3:CA", r"has all its bonds; name the hydrogen .*A:ALA3:CA-HA"),
        ("A:ALA3:CA-HB2", "has no HB2; allowed: A:ALA3:CA-HA"),
        ("A:ALA3:HA", "is a hydrogen"),
        ("A:ALA3:CX", "has no atom CX; it has N, CA"),
        ("B:ALA3:CA", "has no residue 'B:ALA3'"),
        ("CA", "names no atom; write CHAIN"),
        ("4000", "places in the file go from 0"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_radical(topology, text)


def test_a_name_that_fits_two_chains_is_refused(tmp_path: Path) -> None:
    atoms, labels = chain("ALA")
    far = atoms.copy()
    far.positions += 20.0
    first = write_pdb(tmp_path / "a.pdb", atoms, labels, "A").read_text().removesuffix("END\n")
    both = first + write_pdb(tmp_path / "b.pdb", far, labels, "B").read_text()
    (tmp_path / "both.pdb").write_text(both)
    topology, _ = read_structure(tmp_path / "both.pdb")
    with pytest.raises(ValueError, match=r"names 2 atoms .*A:ALA2:CA at .*B:ALA2:CA at"):
        find_atom(topology, "2:CA")
    assert topology.label(find_atom(topology, "B:2:CA")) == "B:ALA2:CA"


@pytest.mark.parametrize(
    ("codes", "decided"),
    [
        (("ASP-", "LYS+", "HIE"), ("ASP:HA", "LYS:H", "HIE:HD2")),
        (("PRO", "HYP", "TRP"), ("PRO:HA", "HYP:HG", "TRP:HD1")),
        (("ARG+", "CYS", "THR"), ("ARG:H", "CYS:HA", "THR:HB")),
    ],
)
def test_hydrogens_are_added_where_they_were(
    codes: tuple[str, ...], decided: tuple[str, ...], tmp_path: Path
) -> None:
    atoms, labels = chain(*codes)
    whole, (there,) = read_structure(write_pdb(tmp_path / "whole.pdb", atoms, labels))
    heavy = [index for index in range(len(atoms)) if atoms.numbers[index] > 1]
    path = write_pdb(tmp_path / "heavy.pdb", atoms[heavy], [labels[index] for index in heavy])
    topology, (snapshot,) = read_structure(path)
    made, positions, added = add_hydrogens(topology, snapshot.positions)
    assert added == len(atoms) - len(heavy)
    assert made.names == whole.names
    np.testing.assert_array_equal(made.bonds, whole.bonds)
    np.testing.assert_array_equal(made.degree, whole.degree)
    fixed = made.source >= 0
    np.testing.assert_allclose(positions[fixed], snapshot.positions)
    for text in decided:  # by the heavy atoms alone; methyls and hydroxyls turn
        residue, _, name = text.partition(":")
        index = next(
            one for one, found in enumerate(made.names)
            if found == name and made.residue(one).name == residue
        )  # fmt: skip
        assert np.linalg.norm(positions[index] - there.positions[index]) < 0.15


def test_nothing_is_added_to_what_has_hydrogens(tmp_path: Path) -> None:
    topology, snapshot = protein(tmp_path, "GLY", "SER")
    made, positions, added = add_hydrogens(topology, snapshot.positions)
    assert (made, added) == (topology, 0)
    assert positions is snapshot.positions


def test_a_torn_oxygen_is_put_in_place(tmp_path: Path) -> None:
    topology, snapshot = protein(tmp_path, "HYP", "GLY")
    oxygen = find_atom(topology, "2:O")
    torn = snapshot.positions.copy()
    carbon = find_atom(topology, "2:C")
    torn[oxygen] += 1.4 * (torn[oxygen] - torn[carbon]) + [0.3, 0.2, 0.1]
    mended, count = rebuild_carbonyls(topology, torn)
    assert count == 1
    assert np.linalg.norm(mended - snapshot.positions) < 0.1
    unchanged, none = rebuild_carbonyls(topology, snapshot.positions)
    np.testing.assert_array_equal(unchanged, snapshot.positions)
    assert none == 0
