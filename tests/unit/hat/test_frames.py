import csv
import io
import json
from pathlib import Path

import ase.io
import numpy as np
import pytest

from surefoot.data.read import read_frames
from surefoot.hat.candidate_files import MANIFEST, SCANS, TABLE, format_table, write_folder
from surefoot.hat.candidates import CLEARANCE, REACH, find_candidates, too_close
from surefoot.hat.frames import Findings, Search, scans, search_frames
from surefoot.hat.protein_files import read_structure
from surefoot.hat.proteins import Snapshot, Topology
from surefoot.hat.regions import around
from surefoot.hat.valence import find_atom, guess_radicals, read_radical
from surefoot.label.labeler import check_state

from .protein_examples import chain, protein, write_pdb

CODES = ("GLY", "SER", "LYS+", "ALA", "ALA")
RADICAL = "3:OG-HG"


@pytest.fixture(scope="module")
def serine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Topology, Snapshot, Path]:
    folder = tmp_path_factory.mktemp("serine")
    return *protein(folder, *CODES), folder / "chain.pdb"


def shaken(snapshot: Snapshot, count: int) -> list[Snapshot]:
    generator = np.random.default_rng(1)
    shape = snapshot.positions.shape
    return [
        Snapshot(frame, snapshot.positions + generator.normal(0.0, 0.05, shape), snapshot.cell)
        for frame in range(count)
    ]


def find(topology: Topology, snapshots: list[Snapshot], search: Search = Search()) -> Findings:
    return search_frames(topology, snapshots, [read_radical(topology, RADICAL)], search)


def test_candidates_keep_the_rules(serine) -> None:
    topology, snapshot, _ = serine
    region = around(topology, snapshot, *read_radical(topology, RADICAL), radius=50.0)
    found = find_candidates(region.topology, region.positions, region.radical)
    bonded = set(region.topology.bonded(region.radical).tolist())
    assert len(found) > 5
    assert {one.clash for one in found} == {True, False}
    for one in found:
        assert one.translation < REACH
        assert one.donor not in (one.hydrogen, region.radical)
        assert one.hydrogen not in bonded
        way = np.linspace(0.12, 0.88, 200)[:, None] * (one.end - one.start) + one.start
        others = np.delete(region.positions, one.hydrogen, axis=0)
        nearest = np.linalg.norm(others[:, None] - way, axis=2).min()
        assert one.clash == (nearest < CLEARANCE) or abs(nearest - CLEARANCE) < 0.02
    lengths = [one.translation for one in found]
    assert lengths == sorted(lengths)


def test_each_candidate_is_scanned_in_its_cutout(serine) -> None:
    topology, snapshot, path = serine
    search = Search(points=9)
    findings = find(topology, [snapshot], search)
    rows = [row for row in findings.rows if row.cutout is not None]
    made = list(scans(topology, findings, search))
    assert len(made) == len(rows) > 0
    for row, images in zip(rows, made, strict=True):
        info = images[0].info
        hydrogen, acceptor = info["moving_h"], info["acceptor_index"]
        path_of_h = np.array([atoms.positions[hydrogen] for atoms in images])
        steps = np.linalg.norm(np.diff(path_of_h, axis=0), axis=1)
        np.testing.assert_allclose(steps, row.candidate.translation / 8)
        assert len(images) == info["path_length"] == 9
        end = np.linalg.norm(path_of_h[-1] - images[0].positions[acceptor])
        assert end == pytest.approx(0.97)
        others = [np.delete(atoms.positions, hydrogen, axis=0) for atoms in images]
        assert all((one == others[0]).all() for one in others)
        check_state(images[0].numbers, info["charge"], info["spin"])
        assert info["charge"] == 1
        assert info["source_file"] == path.name
        assert info["acceptor_residue"] == "A:SER3"
        assert info["radical"] == "SER-OG"
        assert info["site"] == row.donor.rpartition(":")[2]
    assert len({images[0].info["system"] for images in made}) == len(made)


def test_the_shortest_ways_are_kept(serine) -> None:
    topology, snapshot, _ = serine
    frames = shaken(snapshot, 6)
    everything = find(topology, frames)
    some = find(topology, frames, Search(shortest=2))
    assert everything.frames == some.frames == 6
    assert len(everything.rows) == len(some.rows)
    for key in {row.key for row in everything.rows if row.cutout is not None}:
        lengths = [
            sorted(
                row.candidate.translation
                for row in findings.rows
                if row.key == key and row.cutout is not None
            )
            for findings in (everything, some)
        ]
        assert lengths[1] == lengths[0][:2]


def test_a_torn_box_changes_nothing(serine, tmp_path: Path) -> None:
    topology, snapshot, _ = serine
    edge = 60.0
    moved = snapshot.positions - snapshot.positions[find_atom(topology, RADICAL[:4])]
    torn = Snapshot(0, moved % edge, edge * np.eye(3))
    whole, wrapped = find(topology, [snapshot]), find(topology, [torn])
    assert [row.name for row in whole.rows] == [row.name for row in wrapped.rows]
    np.testing.assert_allclose(
        [row.candidate.translation for row in whole.rows],
        [row.candidate.translation for row in wrapped.rows],
    )
    small = Snapshot(0, snapshot.positions, 15.0 * np.eye(3))
    with pytest.raises(ValueError, match=r"radius of 8 Å is more than half .* 7\.50 Å"):
        find(topology, [small])


def test_written_and_read_again(serine, tmp_path: Path) -> None:
    topology, snapshot, path = serine
    search = Search()
    findings = find(topology, shaken(snapshot, 2), search)
    radicals = [read_radical(topology, RADICAL)]
    texts = []
    for name in ("one", "two"):
        folder = tmp_path / name
        write_folder(folder, topology, radicals, findings, search, [path])
        assert sorted(one.name for one in folder.iterdir()) == [TABLE, MANIFEST, SCANS]
        texts.append([(folder / one).read_bytes() for one in (TABLE, MANIFEST, SCANS)])
    assert texts[0] == texts[1]
    frames = read_frames([tmp_path / "one" / SCANS])
    wanted = [atoms for images in scans(topology, findings, search) for atoms in images]
    assert len(frames) == len(wanted)
    for frame, atoms in zip(frames, wanted, strict=True):
        np.testing.assert_allclose(frame.atoms.positions, atoms.positions, atol=1e-8)
        assert (frame.charge, frame.spin) == (1, 2)
        assert frame.atoms.info["path_point"] == atoms.info["path_point"]
        assert frame.atoms.info["system"] == atoms.info["system"]
    table = list(csv.DictReader(io.StringIO(format_table(topology, findings))))
    manifest = json.loads((tmp_path / "one" / MANIFEST).read_text())
    assert len(table) == manifest["candidates"]
    assert sum(bool(record["scan"]) for record in table) == manifest["scans"]
    assert sum(record["clash"] == "yes" for record in table) == manifest["clashes"]
    assert manifest["radicals"][0]["hydrogen_removed"] == "HG"
    with pytest.raises(ValueError, match=r"this folder is not empty"):
        write_folder(tmp_path / "one", topology, radicals, findings, search, [path])


def test_a_failure_leaves_nothing_behind(serine, tmp_path: Path) -> None:
    topology, snapshot, _ = serine
    findings = find(topology, [snapshot])
    with pytest.raises(FileNotFoundError):
        write_folder(tmp_path / "out", topology, [], findings, Search(), [tmp_path / "none"])
    assert list(tmp_path.iterdir()) == []


def test_why_there_is_nothing(serine, tmp_path: Path) -> None:
    topology, snapshot, _ = serine
    with pytest.raises(ValueError, match=r"every atom has all its bonds.*--radical"):
        search_frames(topology, [snapshot], [])
    with pytest.raises(ValueError, match=r"there are no frames"):
        find(topology, [])
    atoms, labels = chain("GLY", beginning="H", end="OH")
    kept = [i for i, (name, _, _) in enumerate(labels) if name in ("N", "CA", "C", "O", "OXT")]
    lonely = [i for i, (name, _, _) in enumerate(labels) if name in ("HA2",)]
    order = sorted(kept + lonely)
    bare = write_pdb(tmp_path / "bare.pdb", atoms[order], [labels[i] for i in order])
    acid, (there,) = read_structure(bare)
    radical, _ = read_radical(acid, "2:CA")
    with pytest.raises(ValueError, match=r"finds no hydrogen to abstract"):
        search_frames(acid, [there], [(radical, None)])
    other, names = chain("ALA")
    other.positions += atoms.positions[order].max(axis=0) - other.positions.min(axis=0) + 4.0
    text = bare.read_text().removesuffix("END\n")
    far = write_pdb(tmp_path / "far.pdb", other, names, "B")
    far.write_text(text + far.read_text())
    both, (frame,) = read_structure(far)
    radical, _ = read_radical(both, "A:2:CA")
    with pytest.raises(ValueError, match=r"No hydrogen is within 3 Å .* B:.* would go \d+\.\d\d Å"):
        search_frames(both, [frame], [(radical, None)], Search(radius=20.0))


def test_radicals_beside_each_other_are_left_alone(serine) -> None:
    apart = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    np.testing.assert_array_equal(too_close(list(apart[:, None] - apart)), [True, True, False])
    topology, snapshot, _ = serine
    for names, reason in (
        (("3:OG-HG", "3:CB-HB2"), "another radical within 3 Å"),
        (("3:OG-HG", "4:NZ-HZ1"), "is a radical too|lacks a bond"),
    ):
        radicals = [read_radical(topology, name) for name in names]
        with pytest.raises(ValueError, match=reason):
            search_frames(topology, [snapshot], radicals, Search(radius=40.0))


@pytest.mark.slow
@pytest.mark.data
def test_collagen_of_heavy_atoms(data_folder: Path) -> None:
    path = data_folder / "peptides" / "colbuilder_homosapiens_N_HLKNL_C_HLKNL.pdb.gz"
    topology, snapshots = read_structure(path, by_distance=("L4Y", "L5Y"))
    place = next(
        index
        for index in range(300, len(topology.residues))
        if [one.name for one in topology.residues[index : index + 6]] == 2 * ["GLY", "PRO", "HYP"]
    )
    radical = f"{topology.residues[place].chain}:{topology.residues[place].number}:CA"
    with pytest.raises(ValueError, match=r"has no hydrogens .*-HA2 or .*-HA3"):
        read_radical(topology, radical)
    radicals = [read_radical(topology, f"{radical}-HA2")]
    with pytest.raises(ValueError, match=r"HYP\d+:C and .*:O are bonded .*--rebuild-carbonyls"):
        search_frames(topology, snapshots, radicals)
    search = Search(radius=6.0, rebuild_carbonyls=True)
    findings = search_frames(topology, snapshots, radicals, search)
    ((added, times),) = findings.hydrogens.items()
    assert added > 50
    assert times == 1
    for images in scans(topology, findings, search):
        atoms = images[0]
        check_state(atoms.numbers, atoms.info["charge"], 2)
        assert {"GLY", "PRO", "HYP"} <= {one[2:5] for one in atoms.info["residues"].split()}
        distances = atoms.get_all_distances()
        hydrogens = atoms.numbers == 1
        to_heavy = distances[hydrogens][:, ~hydrogens].min(axis=1)
        assert to_heavy.min() > 0.9
        assert to_heavy.max() < 1.4


@pytest.mark.data
def test_a_radical_across_the_boundary(data_folder: Path) -> None:
    path = data_folder / "peptides" / "kimmdyhat_dopa_pbc.gro.gz"
    topology, snapshots = read_structure(path)
    (radical,) = guess_radicals(topology)
    assert topology.label(radical.atom) == "DOP2:OH1"
    findings = search_frames(topology, snapshots, [(radical, None)])
    (cutout,) = {row.cutout for row in findings.rows if row.cutout is not None}
    assert cutout.charge == 0
    assert cutout.atoms.get_all_distances().max() < 15.0  # it spans the box of 31 Å where torn


def test_solvent_is_left_out_or_taken_along(serine, tmp_path: Path) -> None:
    atoms, labels = chain("SER")
    oxygen = atoms.positions[labels.index(("OG", "SER", 2))]
    center = atoms.positions.mean(axis=0)
    out = oxygen + 5.0 * (oxygen - center) / np.linalg.norm(oxygen - center)
    water = ase.Atoms("OH2", out + np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    names = [("O", "HOH", 9), ("H1", "HOH", 9), ("H2", "HOH", 9)]
    path = write_pdb(tmp_path / "wet.pdb", atoms + water, labels + names)
    topology, (snapshot,) = read_structure(path)
    radicals = [read_radical(topology, "2:OG-HG")]
    sizes = {}
    for wet in (False, True):
        findings = search_frames(topology, [snapshot], radicals, Search(water=wet))
        cutout = next(row.cutout for row in findings.rows if row.cutout is not None)
        sizes[wet] = len(cutout.atoms)
        assert not any("HOH" in row.hydrogen for row in findings.rows)
    assert sizes == {False: len(atoms) - 1, True: len(atoms) + 2}
