from pathlib import Path

import ase.io
import numpy as np
import pytest

from surefoot.hat.connect import NoBonds, refuse_overlaps
from surefoot.hat.protein_files import count_frames, read_structure, read_trajectory
from surefoot.hat.regions import make_whole

from .protein_examples import chain, protein, write_pdb


def bonds_by_name(topology) -> set[tuple[str, str]]:
    return {(topology.label(one), topology.label(two)) for one, two in topology.bonds.tolist()}


def test_bonds_and_names_of_a_chain(tmp_path: Path) -> None:
    topology, snapshot = protein(tmp_path, "GLY", "PRO", "HYP")
    assert [str(one) for one in topology.residues] == [
        "A:ACE1", "A:GLY2", "A:PRO3", "A:HYP4", "A:NME5",
    ]  # fmt: skip
    rings = 2
    assert len(topology.bonds) == len(topology.numbers) - 1 + rings
    assert {("A:GLY2:C", "A:PRO3:N"), ("A:HYP4:CG", "A:HYP4:OD1")} <= bonds_by_name(topology)
    assert snapshot.cell is None


def test_extended_xyz_with_names_of_residues_is_the_same(tmp_path: Path) -> None:
    atoms, labels = chain("ALA", "SER")
    pdb, _ = read_structure(write_pdb(tmp_path / "a.pdb", atoms, labels, " "))
    names, residues, numbers = zip(*labels, strict=True)
    atoms.arrays |= {
        "atom_names": np.array(names),
        "residuenames": np.array(residues),
        "residuenumbers": np.array(numbers),
    }
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    xyz, _ = read_structure(tmp_path / "a.xyz")
    np.testing.assert_array_equal(pdb.bonds, xyz.bonds)
    assert xyz.residues == pdb.residues
    del atoms.arrays["residuenames"]
    ase.io.write(tmp_path / "b.xyz", atoms, format="extxyz")
    with pytest.raises(ValueError, match=r"atoms carry no residuenames"):
        read_structure(tmp_path / "b.xyz")


def test_a_molecule_across_the_boundary_is_made_whole(tmp_path: Path) -> None:
    atoms, labels = chain("ALA", "ALA")
    edge = 25.0
    wrapped = atoms.copy()
    wrapped.positions = (atoms.positions + np.array([edge, 0.4, edge])) % edge
    path = write_pdb(tmp_path / "a.pdb", wrapped, labels, box=(edge, edge, edge))
    topology, (snapshot,) = read_structure(path)
    assert len(topology.bonds) == len(atoms) - 1
    center = 5
    whole = make_whole(topology, snapshot, center)
    np.testing.assert_allclose(whole[center], snapshot.positions[center])
    apart = atoms.positions - atoms.positions[center]
    np.testing.assert_allclose(whole - whole[center], apart, atol=2e-3)
    torn = np.linalg.norm(wrapped.positions - wrapped.positions[center] - apart, axis=1)
    assert torn.max() > edge / 2


@pytest.mark.parametrize("kind", ["xtc", "trr", "dcd", "pdb"])
def test_frames_of_a_trajectory(kind: str, tmp_path: Path, rng: np.random.Generator) -> None:
    atoms, labels = chain("ALA")
    topology, _ = read_structure(write_pdb(tmp_path / "a.pdb", atoms, labels))
    frames = atoms.positions + rng.normal(0.0, 0.1, (3, len(atoms), 3))
    path = tmp_path / f"t.{kind}"
    write_trajectory(path, frames, atoms, labels)
    assert count_frames(path, topology) == 3
    read = [snapshot.positions for snapshot in read_trajectory(path, topology)]
    np.testing.assert_allclose(read, frames, atol=6e-3)


def write_trajectory(path: Path, frames: np.ndarray, atoms, labels) -> None:
    if path.suffix == ".pdb":
        texts = []
        for number, frame in enumerate(frames, start=1):
            atoms.positions = frame
            body = write_pdb(path, atoms, labels).read_text().removesuffix("END\n")
            texts.append(f"MODEL {number:8d}\n{body}ENDMDL\n")
        path.write_text("".join(texts) + "END\n")
        return
    from biotite.structure.io.dcd import DCDFile
    from biotite.structure.io.trr import TRRFile
    from biotite.structure.io.xtc import XTCFile

    file = {".xtc": XTCFile, ".trr": TRRFile, ".dcd": DCDFile}[path.suffix]()
    file.set_coord(frames.astype(np.float32))
    file.set_box(np.tile(50 * np.eye(3, dtype=np.float32), (len(frames), 1, 1)))
    if path.suffix != ".dcd":
        file.set_time(np.arange(len(frames), dtype=np.float32))
    file.write(str(path))


def test_trajectories_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    atoms, labels = chain("ALA")
    topology, _ = read_structure(write_pdb(tmp_path / "a.pdb", atoms, labels))
    (tmp_path / "t.xtc").touch()
    with pytest.raises(ValueError, match=r"t\.xtc: .*it is empty"):
        count_frames(tmp_path / "t.xtc", topology)
    with pytest.raises(ValueError, match=r"t\.xtc: .*it is empty"):
        list(read_trajectory(tmp_path / "t.xtc", topology))
    short = write_pdb(tmp_path / "short.pdb", atoms[:4], labels[:4])
    with pytest.raises(ValueError, match=rf"4 atoms, but .* has {len(atoms)}"):
        list(read_trajectory(short, topology))
    with pytest.raises(ValueError, match=r"no such file"):
        read_structure(tmp_path / "none.pdb")


def test_alternate_locations_are_refused_or_chosen(tmp_path: Path) -> None:
    atoms, labels = chain("ALA")
    place = labels.index(("CB", "ALA", 2))
    both = atoms + atoms[place : place + 1]
    order = [*range(place + 1), len(atoms), *range(place + 1, len(atoms))]
    double = both[order]
    double.positions[place + 1] += 0.7
    names = [labels[index] if index < len(atoms) else labels[place] for index in order]
    path = write_pdb(tmp_path / "a.pdb", double, names, altlocs={place: "A", place + 1: "B"})
    with pytest.raises(ValueError, match=r"A:ALA2:CB .* alternate locations \(A, B\).*--altloc"):
        read_structure(path)
    topology, (snapshot,) = read_structure(path, altloc="B")
    assert len(topology.numbers) == len(atoms)
    np.testing.assert_allclose(snapshot.positions[place], double.positions[place + 1], atol=1e-3)
    with pytest.raises(ValueError, match=r"no alternate location 'C'"):
        read_structure(path, altloc="C")


def test_bonds_of_unknown_residues_are_stated_or_asked_for(tmp_path: Path) -> None:
    atoms, labels = chain("ALA")
    unknown = [(name, "XYZ", number) if residue == "ALA" else (name, residue, number)
               for name, residue, number in labels]  # fmt: skip
    path = write_pdb(tmp_path / "a.pdb", atoms, unknown)
    with pytest.raises(ValueError, match=r"residue XYZ .* is not known.*--bonds-by-distance XYZ"):
        read_structure(path)
    known, _ = read_structure(write_pdb(tmp_path / "b.pdb", atoms, labels))
    guessed, _ = read_structure(path, by_distance=("XYZ",))
    np.testing.assert_array_equal(guessed.bonds, known.bonds)
    assert guessed.notes == ("bonds of XYZ are guessed from distances",)
    text = path.read_text().removesuffix("END\n")
    records = [f"CONECT{one + 1:5d}{two + 1:5d}" for one, two in known.bonds.tolist()]
    path.write_text(text + "\n".join(records) + "\nEND\n")
    stated, _ = read_structure(path)
    np.testing.assert_array_equal(stated.bonds, known.bonds)
    assert issubclass(NoBonds, ValueError)


def misnamed(folder: Path, names: dict[str, str], leave_out: str = "") -> Path:
    """Ace-DOPA-NMe with other names of some atoms of DOPA, or without one."""
    atoms, labels = chain("DAH")
    kept = [n for n, (name, code, _) in enumerate(labels) if (name, code) != (leave_out, "DAH")]
    labels = [
        (names.get(name, name) if code == "DAH" else name, code, number)
        for name, code, number in labels
    ]
    return write_pdb(folder / "dopa.pdb", atoms[kept], [labels[n] for n in kept])


@pytest.mark.parametrize(
    ("names", "leave_out", "told"),
    [
        ({"OZ": "OX1"}, "", "OX1 is no atom of DAH and OZ is missing"),
        ({}, "OE2", "OE2 is missing"),
        ({"OZ": "OE2"}, "", "OE2 stands there twice and OZ is missing"),
        ({"OZ": "OH", "OE2": "OH1"}, "", "OH, OH1 mean the same atom OZ and OE2 is missing"),
    ],
)
def test_atom_names_that_are_none_are_named(
    names: dict, leave_out: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"residue DAH \(atom 6\) is known with other atoms"
    ) as refused:
        read_structure(misnamed(tmp_path, names, leave_out))
    assert told in str(refused.value)
    assert "--bonds-by-distance DAH" in str(refused.value)


def test_names_of_dopa_in_force_fields_are_known(tmp_path: Path) -> None:
    plain, _ = read_structure(misnamed(tmp_path, {}))
    other, _ = read_structure(misnamed(tmp_path, {"OZ": "OH1", "OE2": "OH2"}))
    np.testing.assert_array_equal(plain.bonds, other.bonds)


def test_atoms_that_overlap_are_refused() -> None:
    places = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.3], [2.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match=r"file: a and b are 0\.30 Å apart"):
        refuse_overlaps(places, ["a", "b", "c"], 0.6, "file")
    refuse_overlaps(places[1:], ["b", "c"], 0.6, "file")
