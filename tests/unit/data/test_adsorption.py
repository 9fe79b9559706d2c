"""Chunks of OC20: packed files, texts beside them, tags, held atoms, and what is written again."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from surefoot.cli.predict import side_by_side
from surefoot.data.convert import to_graph, to_samples
from surefoot.data.file_units import FileUnits
from surefoot.data.images import UnreadableFile
from surefoot.data.read import Keys, describe_labels, read_frames
from surefoot.data.statistics import measure

REFERENCE = Keys(reference="reference_energy")
TEXT = "random70,frame3,-1.5\nrandom70,frame12,-1.5\nrandom9,frame0,2.25\n"
OFFSETS = (-1.5, -1.5, 2.25)


def slab(seed: int) -> Atoms:
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.info = {}  # what ase.build keeps there can not be written
    atoms.set_pbc(True)
    atoms.set_tags([0] * 8 + [1] * 4 + [2])
    atoms.set_constraint(FixAtoms(range(8)))
    atoms.rattle(0.1, seed=seed)
    atoms.calc = EMT()
    labels = SinglePointCalculator(
        atoms,
        energy=atoms.get_potential_energy(),
        forces=atoms.get_forces(apply_constraint=False),
    )
    atoms.calc = labels
    return atoms


@pytest.fixture(scope="module")
def chunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chunk") / "0.extxyz"
    ase.io.write(path, [slab(seed) for seed in range(3)])
    path.with_suffix(".txt").write_text(TEXT)
    return path


def pack(path: Path, folder: Path, opener: Callable, suffix: str) -> Path:
    packed = folder / (path.name + suffix)
    with opener(packed, "wb") as file:
        file.write(path.read_bytes())
    return packed


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("of_text", ["", ".gz", ".xz"])
def test_adsorption_energy_is_total_minus_reference(
    chunk: Path, suffix: str, of_text: str, tmp_path: Path
) -> None:
    openers = {"": open, ".gz": gzip.open, ".xz": lzma.open}
    path = pack(chunk, tmp_path, openers[suffix], suffix)
    pack(chunk.with_suffix(".txt"), tmp_path, openers[of_text], of_text)
    frames = read_frames([path], REFERENCE)
    for seed, (frame, offset) in enumerate(zip(frames, OFFSETS, strict=True)):
        total = slab(seed).get_potential_energy()
        assert frame.energy == pytest.approx(total - offset, abs=1e-7)
        assert frame.forces is not None
        assert np.allclose(frame.forces, slab(seed).calc.results["forces"], atol=1e-7)
    assert [frame.sid for frame in frames] == ["70", "70", "9"]
    assert [frame.fid for frame in frames] == ["3", "12", "0"]
    assert [frame.group for frame in frames] == ["sid 70", "sid 70", "sid 9"]
    assert "energy 3/3 (calculator − reference_energy)" in describe_labels(frames)


def test_lines_may_hold_spaces_and_blank_ones(chunk: Path, tmp_path: Path) -> None:
    (tmp_path / "0.extxyz").write_bytes(chunk.read_bytes())
    (tmp_path / "0.txt").write_text("\r\n\n".join(TEXT.replace(",", ", ").split("\n")))
    frames = read_frames([tmp_path / "0.extxyz"], REFERENCE)
    assert [frame.fid for frame in frames] == ["3", "12", "0"]


@pytest.mark.parametrize(("opener", "suffix"), [(gzip.open, ".gz"), (lzma.open, ".xz")])
def test_a_file_that_swells_is_refused(
    chunk: Path, opener: Callable, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack(chunk, tmp_path, opener, suffix)
    size = chunk.stat().st_size
    monkeypatch.setattr("surefoot.data.adsorption.BLOCK", 100)
    monkeypatch.setattr("surefoot.data.adsorption.UNPACKED", size)
    assert len(read_frames([packed])) == 3
    monkeypatch.setattr("surefoot.data.adsorption.UNPACKED", size - 1)
    with pytest.raises(UnreadableFile, match=f"more than {size - 1} bytes; if that is meant"):
        read_frames([packed])


def test_nothing_was_subtracted_where_there_is_no_energy(chunk: Path) -> None:
    frames = read_frames([chunk], Keys(reference="reference_energy", energy="none"))
    assert [frame.energy for frame in frames] == [None] * 3
    assert all("subtracted_energy" not in frame.atoms.info for frame in frames)
    assert [frame.atoms.info["reference_energy"] for frame in frames] == list(OFFSETS)


def test_total_energies_are_named_as_such(chunk: Path) -> None:
    frames = read_frames([chunk])
    assert frames[0].energy == pytest.approx(slab(0).get_potential_energy(), abs=1e-7)
    assert "reference_energy not subtracted" in describe_labels(frames)


def test_total_energies_are_not_learned_as_adsorption_energies(chunk: Path) -> None:
    """`references: zero` says that nothing is to be subtracted any more."""
    total, adsorption = read_frames([chunk]), read_frames([chunk], REFERENCE)
    with pytest.raises(ValueError, match=r"zero is for .*keys: {reference: reference_energy}"):
        measure(total, "zero")
    assert measure(adsorption, "zero").energies == (0.0, 0.0)
    assert measure(total, {"Cu": 0.0, "O": 0.0}).energies == (0.0, 0.0)
    assert measure(read_frames([chunk], Keys(energy="none")), "zero").energies == (0.0, 0.0)


def test_references_have_the_unit_of_the_energies(chunk: Path) -> None:
    (first, *_), (other, *_) = (
        read_frames([chunk], REFERENCE, FileUnits(energy=unit)) for unit in ("eV", "meV")
    )
    assert other.energy == pytest.approx(1e-3 * first.energy, rel=1e-12)


def test_tags_and_fixed_atoms_are_kept(chunk: Path) -> None:
    frames = read_frames([chunk], REFERENCE)
    for frame, sample in zip(frames, to_samples(frames, 4.0), strict=True):
        assert frame.atoms.get_tags().tolist() == [0] * 8 + [1] * 4 + [2]
        assert sample.targets.fixed.tolist() == [True] * 8 + [False] * 5
        assert frame.atoms.pbc.all()


def test_what_is_written_again_is_what_was_read(chunk: Path, tmp_path: Path) -> None:
    """With predictions beside it; and nobody subtracts a reference twice."""
    frames = read_frames([chunk], REFERENCE)
    forces = np.zeros((13, 3))
    images = [side_by_side(frame, {"energy": 0.5, "forces": forces}) for frame in frames]
    path = tmp_path / "predicted.extxyz"
    ase.io.write(path, images)
    again = read_frames([path])
    for frame, other in zip(frames, again, strict=True):
        assert other.energy == pytest.approx(frame.energy, abs=1e-7)
        assert (other.sid, other.fid, other.group) == (frame.sid, frame.fid, frame.group)
        assert np.array_equal(other.atoms.get_tags(), frame.atoms.get_tags())
        assert np.array_equal(other.atoms.constraints[0].index, range(8))
    with pytest.raises(UnreadableFile, match="info has no reference_energy"):
        read_frames([path], REFERENCE)


def test_wrapped_or_not_is_the_same_graph() -> None:
    """Chunks hold atoms outside of their cell; neighbours are searched through it all the same."""
    inside = slab(0)
    outside = inside.copy()
    outside.positions[3:] += [2, -1, 1] @ outside.cell.array
    lengths = []
    for atoms in (inside, outside):
        graph = to_graph(atoms, 4.0)
        shift = graph.edge_shift.double() @ graph.cell[0]
        ends = graph.positions[graph.edge_index]
        lengths.append((ends[1] + shift - ends[0]).norm(dim=1).sort().values)
    assert lengths[0].shape == lengths[1].shape
    assert np.allclose(lengths[0], lengths[1], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT.splitlines()[0], "it has 3 frames, and .*0.txt has 1 lines"),
        (TEXT.replace("frame12", "image12"), "line 2 of .*0.txt is not"),
        (TEXT.replace("2.25", "2.2.5"), "could not convert|line 3"),
    ],
)
def test_texts_that_do_not_fit_are_refused(
    text: str, words: str, chunk: Path, tmp_path: Path
) -> None:
    (tmp_path / "0.extxyz").write_bytes(chunk.read_bytes())
    (tmp_path / "0.txt").write_text(text)
    with pytest.raises(UnreadableFile, match=words):
        read_frames([tmp_path / "0.extxyz"])


def test_a_text_about_something_else_is_left_alone(chunk: Path, tmp_path: Path) -> None:
    (tmp_path / "0.extxyz").write_bytes(chunk.read_bytes())
    (tmp_path / "0.txt").write_text("notes of a day\n")
    frames = read_frames([tmp_path / "0.extxyz"])
    assert frames[0].sid is None
    with pytest.raises(UnreadableFile, match="info has no reference_energy, which is to be"):
        read_frames([tmp_path / "0.extxyz"], REFERENCE)


@pytest.mark.data
def test_samples_of_catalysis(data_folder: Path) -> None:
    """An EMT relaxation with the columns of OC20, and a band of model energies with tags."""
    toy = read_frames([data_folder / "catalysis" / "toy_c3h8_relax_EMT.extxyz.gz"])
    assert len(toy) == 101
    assert np.bincount(toy[0].atoms.get_tags()).tolist() == [18, 9, 11]
    assert len(toy[0].atoms.constraints[0].index) == 18
    assert all(frame.energy is not None and frame.forces is not None for frame in toy)
    band = read_frames([data_folder / "catalysis" / "oc20neb_sample_H_CuGe.traj"])
    assert sum(frame.energy is not None for frame in band) == 8
    assert band[0].atoms.constraints
    assert set(band[0].atoms.get_tags()) == {0, 1, 2}
    oxides = read_frames([data_folder / "catalysis" / "oxides.db"])
    assert len(oxides) == 295
