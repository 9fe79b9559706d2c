from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from surefoot.hat.cutouts import TwoRadicals, cut_out, fill_gaps
from surefoot.hat.proteins import Topology
from surefoot.hat.regions import Region, around
from surefoot.hat.valence import find_atom, read_radical

from .protein_examples import protein


def region(folder: Path, radical: str, *codes: str, radius: float = 50.0) -> Region:
    topology, snapshot = protein(folder, *codes)
    found, added = read_radical(topology, radical)
    return around(topology, snapshot, found, added, radius)


def only(topology: Topology, *numbers: int) -> np.ndarray:
    return np.array([int(one.number) in numbers for one in topology.residues])


def test_a_residue_with_caps_is_the_capped_amino_acid(tmp_path: Path) -> None:
    found = region(tmp_path, "4:CA-HA", "PRO", "GLY", "ALA", "PRO", "SER")
    cutout = cut_out(found.topology, found.positions, found.radical, only(found.topology, 4))
    assert cutout.atoms.get_chemical_formula() == "C6H11N2O2"  # Ace-Ala-NMe less one hydrogen
    assert cutout.atoms.info == {"charge": 0, "spin": 2}
    assert cutout.residues == ("A:ALA4",)
    assert cutout.caps.sum() == 12
    kept = ~cutout.caps
    np.testing.assert_array_equal(cutout.atoms.positions[kept], found.positions[cutout.place[kept]])
    distances = cutout.atoms.get_all_distances() + 9 * np.eye(len(cutout.atoms))
    assert distances.min() > 0.9


def test_hydrogen_caps_are_at_the_length_of_their_bonds(tmp_path: Path) -> None:
    found = region(tmp_path, "4:CA-HA", "PRO", "GLY", "ALA", "PRO", "SER")
    cutout = cut_out(
        found.topology, found.positions, found.radical, only(found.topology, 4), "hydrogen"
    )
    assert cutout.atoms.get_chemical_formula() == "C3H6NO"
    caps = np.flatnonzero(cutout.caps)
    distances = cutout.atoms.get_all_distances() + 9 * np.eye(len(cutout.atoms))
    np.testing.assert_allclose(np.sort(distances[caps].min(axis=1)), [1.01, 1.09])


def test_a_residue_between_two_is_taken_too(tmp_path: Path) -> None:
    topology, _ = protein(tmp_path, "GLY", "ALA", "GLY", "GLY", "GLY")
    filled = fill_gaps(topology, only(topology, 2, 4))
    np.testing.assert_array_equal(filled, only(topology, 2, 3, 4))
    wide = only(topology, 2, 5)
    np.testing.assert_array_equal(fill_gaps(topology, wide), wide)


def test_charges_are_counted_by_residue(tmp_path: Path) -> None:
    found = region(tmp_path, "3:NZ-HZ1", "ASP-", "LYS+", "ARG+")
    whole = np.ones(len(found.topology.residues), bool)
    cutout = cut_out(found.topology, found.positions, found.radical, whole)
    # The radical counts as if it had its hydrogen: a cation is left.
    assert cutout.charges == {"A:ASP2": -1, "A:LYS3": 1, "A:ARG4": 1}
    assert cutout.charge == 1
    assert (cutout.atoms.numbers.sum() - cutout.charge) % 2 == 1


def test_a_second_radical_is_refused(tmp_path: Path) -> None:
    found = region(tmp_path, "2:CA-HA", "ALA", "ALA")
    topology = found.topology
    lost = next(
        one for one in topology.bonded(find_atom(topology, "3:CB")).tolist()
        if topology.numbers[one] == 1
    )  # fmt: skip
    degree = topology.degree.copy()
    degree[topology.bonded(lost)] -= 1
    left = np.delete(np.arange(len(degree)), lost)
    made = Topology(**{**vars(topology), "degree": degree}).take(left)
    whole = np.ones(len(made.residues), bool)
    with pytest.raises(TwoRadicals, match=r"A:ALA3:CB lacks a bond .*A:ALA2:CA; one is allowed"):
        cut_out(made, found.positions[left], found.radical, whole)


def test_a_closed_shell_called_doublet_is_refused(tmp_path: Path) -> None:
    topology, snapshot = protein(tmp_path, "ALA")
    whole = np.ones(len(topology.residues), bool)
    with pytest.raises(ValueError, match=r"4 bonds beside its free electron"):
        cut_out(topology, snapshot.positions, find_atom(topology, "2:CA"), whole)
    names = tuple("XX" if name == "CB" else name for name in topology.names)
    unknown = Topology(**{**vars(topology), "names": names})
    with pytest.raises(
        ValueError, match=r"XX is no atom of ALA and CB is missing.* its charge .*--charge ALA=0"
    ):
        cut_out(unknown, snapshot.positions, find_atom(topology, "2:CA"), whole)
    with pytest.raises(ValueError, match=r"with charge .0, is no doublet"):
        cut_out(unknown, snapshot.positions, find_atom(topology, "2:CA"), whole, "ace_nme",
                {"ALA": 0})  # fmt: skip


def test_torn_bonds_and_overlaps_are_refused(tmp_path: Path) -> None:
    found = region(tmp_path, "2:CA-HA", "ALA", "GLY")
    whole = np.ones(len(found.topology.residues), bool)
    torn = found.positions.copy()
    torn[find_atom(found.topology, "3:O")] += 3.0
    with pytest.raises(ValueError, match=r"A:GLY3:C and A:GLY3:O .*--rebuild-carbonyls"):
        cut_out(found.topology, torn, found.radical, whole)
    close = found.positions.copy()
    one, two = find_atom(found.topology, "1:O"), find_atom(found.topology, "1:C")
    close[one] = close[two] + 0.1
    with pytest.raises(ValueError, match=r"A:ACE1:\w and A:ACE1:\w are 0\.17 Å apart"):
        cut_out(found.topology, close, found.radical, whole)


def test_names_that_stand_for_other_atoms_are_told_from_torn_bonds(tmp_path: Path) -> None:
    found = region(tmp_path, "2:CA-HA", "DAH")
    names = list(found.topology.names)
    one, two = names.index("OZ"), names.index("CD1")
    swapped = found.positions.copy()
    swapped[[one, two]] = found.positions[[two, one]]
    with pytest.raises(
        ValueError, match=r"A:DAH2:\w+ and A:DAH2:\w+ .* names of its atoms are not"
    ):
        cut_out(found.topology, swapped, found.radical, np.ones(3, bool))


def test_a_residue_with_other_atoms_says_which(tmp_path: Path) -> None:
    found = region(tmp_path, "1:CH3-HH31", "DAH")
    other = tuple("OX1" if name == "OZ" else name for name in found.topology.names)
    topology = replace(found.topology, names=other)
    with pytest.raises(ValueError, match=r"A:DAH2 .*OX1 is no atom of DAH and OZ is missing.*=0"):
        cut_out(topology, found.positions, found.radical, np.ones(3, bool))


def test_distances_to_the_boundary(tmp_path: Path) -> None:
    found = region(tmp_path, "4:CA-HA", "PRO", "GLY", "ALA", "PRO", "SER")
    cutout = cut_out(found.topology, found.positions, found.radical, only(found.topology, 4))
    place = found.positions[[find_atom(found.topology, "4:N")]]
    carbon = found.positions[find_atom(found.topology, "3:C")]
    assert cutout.to_boundary(place) == pytest.approx(np.linalg.norm(place[0] - carbon))
    missing = found.positions[find_atom(found.topology, "3:N")]
    nearest = cutout.to_missing(place, found.positions)
    assert cutout.to_boundary(place) < nearest <= np.linalg.norm(place[0] - missing)
    whole = np.ones(len(found.topology.residues), bool)
    everything = cut_out(found.topology, found.positions, found.radical, whole)
    assert everything.to_boundary(place) == np.inf
    assert everything.to_missing(place, found.positions) == np.inf
