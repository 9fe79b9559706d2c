"""`surefoot barrier`: paths in, a folder out, and what is refused."""

import csv
import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

from surefoot.blocks.reference import Baseline
from surefoot.graph import Graph
from surefoot.heads import Scalar
from surefoot.models import Schnet
from surefoot.motion.surface import Evaluation
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.predictor import Calibration, build_predictor
from surefoot.potential import Potential

POINTS = 5


@pytest.fixture(scope="module")
def hydrogens(tmp_path_factory) -> Path:
    """Four members of random weights that know hydrogen and carbon."""
    baseline = Baseline(elements=(1, 6), energies=(-1.0, -2.0), scale=0.3, neighbors=2.0)
    potential = Potential(
        model=Schnet(features=8, interactions=1, gaussians=10, cutoff=4.0),
        head=Scalar(),
        baseline=baseline,
    )
    weights = potential.init_members(0, 4, torch.float64)
    calibration = Calibration(energy=1.5, difference=2.0, source="a test", draws=4)
    path = tmp_path_factory.mktemp("potential") / "p.safetensors"
    build_predictor(potential, Ensemble(weights), calibration, {}).save(path)
    return path


def images(name: str = "p", way: float = 0.7) -> list[Atoms]:
    """A hydrogen between two carbon atoms, with labels of no meaning."""
    found = []
    for point in range(POINTS):
        x = 1.1 + way * point / (POINTS - 1)
        atoms = Atoms("CHC", positions=[[0, 0, 0], [x, 0, 0], [2.2 + way, 0, 0]])
        atoms.info |= {"system": name, "path_point": point, "moving_h": 1, "charge": 0, "spin": 2,
                       "donor": "GLY", "radical": "methyl", "label_method": "GFN2-xTB (x)",
                       "REF_energy": -5.0 + 0.1 * point * (POINTS - point)}  # fmt: skip
        found.append(atoms)
    return found


@pytest.fixture
def scans(tmp_path) -> Path:
    frames = [atoms for number in range(3) for atoms in images(f"p/{number}", 0.5 + 0.1 * number)]
    ase.io.write(tmp_path / "scans.xyz", frames)
    return tmp_path / "scans.xyz"


def test_rigid_scans(surefoot, hydrogens, scans, tmp_path) -> None:
    folder = tmp_path / "out"
    done = surefoot("barrier", hydrogens, scans, "-o", folder, "--method", "arrhenius",
                    "--level", 0.8, "--together", 2)  # fmt: skip
    assert "methyl" in done.stdout
    assert "forward: 3 paths" in done.stdout
    assert "before calibration" in done.stdout
    assert "0.288 / ps" in done.stdout
    assert "not true barriers" in done.stdout
    assert "scans 3/3" in done.stderr
    lines = (folder / "barriers.csv").read_text().splitlines()
    assert lines[0].startswith("# rigid scans on the surface of GFN2-xTB")
    rows = list(csv.DictReader(lines[1:]))
    assert [row["direction"] for row in rows] == ["forward", "reverse"] * 3
    held = json.loads((folder / "barriers.json").read_text())
    assert held["kind"] == "rigid scan"
    assert held["difference_factor"] == 2.0
    assert held["settings"]["level"] == 0.8
    records = held["records"]
    assert [record["path"] for record in records[::2]] == ["p/0", "p/1", "p/2"]
    assert [float(row["predicted_kcal"]) for row in rows] == [r["predicted_kcal"] for r in records]
    # The barrier is that of the energies in paths.xyz, whose labels are no energies of ours.
    frames = ase.io.read(folder / "paths.xyz", ":")
    assert isinstance(frames, list)
    energies = np.array([atoms.get_potential_energy() for atoms in frames]).reshape(3, POINTS)
    heights = (energies.max(1) - energies[:, 0]) / 0.0433641
    np.testing.assert_allclose([r["predicted_kcal"] for r in records[::2]], heights, atol=1e-3)
    assert frames[1].info["REF_energy"] == pytest.approx(-4.6)
    assert frames[1].info["energy_difference_uncertainty"] > 0
    assert frames[0].info["energy_difference_uncertainty"] == 0
    assert frames[0].info["predicted_by"].startswith("surefoot ")
    pictures = sorted((folder / "profiles").iterdir())
    assert [path.name for path in pictures] == [f"000{n}-p_{n}.svg" for n in range(3)]
    drawn = pictures[0].read_text()
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    for words in ("prediction", "reference", "80% interval"):
        assert words in drawn


class DoubleWell:
    """0.5 eV between two wells in the difference of both lengths, whose sum is 2.8 Å."""

    cutoff = 3.0
    bias = None

    def require(self, numbers, charge, spin, place) -> None:
        """Anything goes."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:  # noqa: ARG002
        free = graph.positions.clone().requires_grad_()
        with torch.enable_grad():
            donor, hydrogen, acceptor = free.reshape(-1, 3, 3).unbind(1)
            arms = donor - hydrogen, acceptor - hydrogen
            first, second = (arm.norm(dim=-1) for arm in arms)
            bend = 1 + (arms[0] * arms[1]).sum(-1) / (first * second)
            wells = 0.5 * (((first - second) / 0.6) ** 2 - 1) ** 2
            energy = wells + 20 * (first + second - 2.8) ** 2 + bend
            (slope,) = torch.autograd.grad(energy.sum(), free)
        return Evaluation(energy=energy.detach(), forces=-slope)


@pytest.mark.parametrize(
    ("start", "options", "images"),
    [("band", [], 5), ("scan", [], 2), ("scan", ["--check", "band"], 7)],
)
def test_saddle_points(
    surefoot, hydrogens, scans, tmp_path, monkeypatch, start, options, images
) -> None:
    """On a surface that has one; what the potential says of the energies is another matter."""
    monkeypatch.setattr("surefoot.motion.surface.PredictorSurface", lambda **_: DoubleWell())
    folder = tmp_path / "out"
    done = surefoot("barrier", hydrogens, scans, "-o", folder, "--saddle", "--images", 5,
                    "--start", start, *options,
                    "--tunnelling", "wigner", "--energy", "zero-point")  # fmt: skip
    assert "3 of 3 paths have a saddle point" in done.stdout
    assert "zero-point energies; tunnelling: wigner" in done.stdout
    records = json.loads((folder / "barriers.json").read_text())["records"]
    assert {record["status"] for record in records} == {"saddle"}
    for record in records:
        if images > 2:
            assert record["band_kcal"] == pytest.approx(0.5 / 0.0433641, abs=0.1)
        else:
            assert record["band_kcal"] == ""
        assert record["donor_hydrogen_A"] == pytest.approx(1.4, abs=0.01)
        assert record["imaginary_cm"] > 500
        assert record["log10_transmission"] > 0
        assert record["zero_point_kcal"] < 0  # a stretch less than in the well
    frames = ase.io.read(folder / "paths.xyz", ":")
    assert len(frames) == 3 * (images + 1)
    assert frames[images].info["config_type"] == "saddle"
    assert "saddle point" in next((folder / "profiles").iterdir()).read_text()


def test_what_fails_is_kept_with_its_reason(surefoot, hydrogens, scans, tmp_path) -> None:
    folder = tmp_path / "out"
    done = surefoot("barrier", hydrogens, scans, "-o", folder, "--saddle", "--start", "band",
                    "--steps", 0)  # fmt: skip
    assert "0 of 3 paths have a saddle point" in done.stdout
    assert "the start is not relaxed after 0 steps" in done.stdout
    rows = list(csv.DictReader((folder / "barriers.csv").read_text().splitlines()[1:]))
    assert len(rows) == 6
    assert all("not relaxed" in row["reason"] for row in rows)


def test_an_interrupt_leaves_what_is_finished(
    surefoot, hydrogens, scans, tmp_path, monkeypatch
) -> None:
    from surefoot.barriers import curves

    whole, calls = curves.predict_curves, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(curves, "predict_curves", interrupted)
    folder = tmp_path / "out"
    done = surefoot("barrier", hydrogens, scans, "-o", folder, "--together", 1, check=False)
    assert done.returncode == 130
    records = json.loads((folder / "barriers.json").read_text())["records"]
    assert [record["path"] for record in records] == ["p/0", "p/0"]


def test_an_interrupt_leaves_searches_that_are_over(
    surefoot, hydrogens, scans, tmp_path, monkeypatch
) -> None:
    """All paths are of one batch, and the second is at its last stage."""
    from surefoot.barriers import saddles

    whole, calls = saddles.add_end_vibrations, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(saddles, "add_end_vibrations", interrupted)
    monkeypatch.setattr("surefoot.motion.surface.PredictorSurface", lambda **_: DoubleWell())
    folder = tmp_path / "out"
    done = surefoot("barrier", hydrogens, scans, "-o", folder, "--saddle", check=False)
    assert done.returncode == 130
    records = json.loads((folder / "barriers.json").read_text())["records"]
    assert [(one["path"], one["status"]) for one in records] == [("p/0", "saddle")] * 2
    assert all(one["uncertainty_kcal"] != "" for one in records)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "kramers"], "--method kramers"),
        (["-T", "0"], "--temperature 0.0"),
        (["--level", "1.5"], "--level 1.5"),
        (["--images", "7"], "--images: it belongs to saddle points"),
        (["--tunnelling", "eckart"], "--tunnelling: it belongs to saddle points"),
        (["--saddle", "--tunnelling", "bell"], "--tunnelling bell"),
        (["--saddle", "--interpolation", "spline"], "--interpolation spline"),
        (["--check", "band"], "--check: it belongs to saddle points"),
        (["--saddle", "--start", "guess"], "--start guess"),
        (["--saddle", "--start", "band", "--check", "band"], "has one already"),
        (["--saddle", "--energy", "gibbs"], "--energy gibbs"),
    ],
)
def test_options_that_are_refused(surefoot, hydrogens, scans, tmp_path, options, words) -> None:
    done = surefoot("barrier", hydrogens, scans, "-o", tmp_path / "o", *options, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert not (tmp_path / "o").exists()


def change(frames: list[Atoms], kind: str) -> list[Atoms]:
    """Frames with something wrong."""
    if kind == "permuted":
        frames[2] = frames[2][[2, 1, 0]]
        frames[2].info = dict(frames[1].info, path_point=2)
    if kind == "moved":
        frames[3].positions[2, 0] += 0.2
    if kind == "few":
        frames = [frames[0], frames[-1]]
        frames[1].info["path_point"] = 1
    for atoms in frames:
        if kind == "element":
            atoms.numbers[2] = 9
        if kind in atoms.info:
            del atoms.info[kind]
        if kind == "singlet":
            atoms.info["spin"] = 1
    return frames


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("permuted", "frame 0, path p: the atoms of image 2 are permuted"),
        ("moved", "atom 2 of image 3 has moved by 0.200 Å"),
        ("few", "it has 2 points; 3 or more"),
        ("element", "element F is not among those"),
        ("moving_h", "frame 0: info has no 'moving_h'"),
        ("spin", "frame 0: info has no 'spin'"),
        ("singlet", "does not fit an odd number of electrons"),
    ],
)
def test_paths_that_are_refused(surefoot, hydrogens, tmp_path, kind, words) -> None:
    ase.io.write(tmp_path / "bad.xyz", change(images(), kind))
    done = surefoot("barrier", hydrogens, tmp_path / "bad.xyz", "-o", tmp_path / "o", check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_files_and_folders_that_are_refused(surefoot, hydrogens, scans, tmp_path) -> None:
    (tmp_path / "empty.xyz").write_text("")
    done = surefoot("barrier", hydrogens, tmp_path / "empty.xyz", "-o", tmp_path / "o", check=False)
    assert done.returncode == 1
    assert "empty.xyz" in done.stderr
    done = surefoot("barrier", hydrogens, scans, "-o", tmp_path, check=False)
    assert "this folder is not empty; name a new one" in done.stderr
    done = surefoot("barrier", hydrogens, scans, "-o", scans, check=False)
    assert "this is a file; name a folder" in done.stderr
