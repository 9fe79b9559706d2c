"""check, evaluate, predict and hat on files: statuses, tables, and files that read back."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest


def test_check_passes_sound_files(surefoot, folder: Path) -> None:
    done = surefoot("check", folder / "train.xyz", "--test", folder / "test.xyz")
    assert "40 frames; energy 40/40 (calculator), forces 40/40" in done.stdout
    assert "0 errors" in done.stdout


def test_check_refuses_leakage(surefoot, folder: Path) -> None:
    done = surefoot("check", folder / "train.xyz", "--test", folder / "train.xyz", check=False)
    assert done.returncode == 1
    assert "leakage" in done.stdout


def test_check_names_a_missing_file(surefoot, tmp_path: Path) -> None:
    done = surefoot("check", tmp_path / "none.xyz", check=False)
    assert done.returncode == 1
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_unknown_units(surefoot, folder: Path) -> None:
    done = surefoot("check", folder / "train.xyz", "--energy-unit", "cal", check=False)
    assert done.returncode == 1
    assert "kcal/mol" in done.stderr


def test_evaluate_tables_and_json(surefoot, potential: Path, folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    done = surefoot("evaluate", potential, folder / "test.xyz", "-o", report)
    for part in ("meV/atom", "meV/Å", "high", "low", "coverage_90", "before the factor"):
        assert part in done.stdout
    figures = json.loads(report.read_text())
    assert figures["accuracy"]["energy"]["all"]["count"] == 12
    assert figures["accuracy"]["forces"]["all"]["count"] == 144
    scores = figures["uncertainty"]["forces"]
    assert scores["before"]["sharpness"][0] * scores["factor"] == pytest.approx(
        scores["after"]["sharpness"][0]
    )


def test_predict_reads_back(surefoot, potential: Path, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.xyz"
    surefoot("predict", potential, folder / "test.xyz", "-o", target, "--members")
    before = ase.io.read(folder / "test.xyz", ":")
    after = ase.io.read(target, ":")
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert new.info["REF_energy"] == pytest.approx(old.get_potential_energy())
        assert np.allclose(new.arrays["REF_forces"], old.get_forces())
        members = np.array(new.info["energy_ensemble"])
        assert new.get_potential_energy() == pytest.approx(members.mean())
        assert new.info["energy_uncertainty"] > 0
        assert new.arrays["forces_uncertainty"].shape == (4, 3)
        norm = np.linalg.norm(new.arrays["forces_uncertainty"], axis=1)
        assert np.allclose(norm, new.arrays["forces_uncertainty_norm"], rtol=1e-6)
        assert new.info["config_type"] == old.info["config_type"]


def test_predict_refuses_unknown_elements(surefoot, potential: Path, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "w.xyz", ase.Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]]))
    done = surefoot("predict", potential, tmp_path / "w.xyz", "-o", tmp_path / "p.xyz", check=False)
    assert done.returncode == 1
    assert "atomic number 1" in done.stderr
    assert "frame 0" in done.stderr
    assert not (tmp_path / "p.xyz").exists()


def test_predict_refuses_a_foreign_file(surefoot, folder: Path, tmp_path: Path) -> None:
    done = surefoot(
        "predict", folder / "train.xyz", folder / "test.xyz", "-o", tmp_path / "p.xyz", check=False
    )
    assert done.returncode == 1
    assert "not a safetensors file" in done.stderr


@pytest.mark.slow
def test_the_way_of_the_demo(surefoot, tmp_path: Path) -> None:
    """Sample, label, train, predict and tabulate barriers, as the README says, but small."""
    train, paths = tmp_path / "train.xyz", tmp_path / "paths.xyz"
    surefoot("hat", "sample", "--donors", "GLY,ALA,SER,ASP", "--radicals", "methyl",
             "--count", "24", "-o", tmp_path / "s.xyz")  # fmt: skip
    surefoot("hat", "scan", "--donors", "VAL", "--radicals", "methyl", "--paths", "6",
             "--points", "5", "-o", tmp_path / "q.xyz")  # fmt: skip
    surefoot("label", tmp_path / "s.xyz", "-o", train, "--workers", "1")
    surefoot("label", tmp_path / "q.xyz", "-o", paths, "--workers", "1")
    surefoot("template", train, "-o", tmp_path / "c.yaml")
    surefoot("train", tmp_path / "c.yaml", "-o", tmp_path / "m", "--set", "train.epochs=2",
             "--set", "model.features=8", "--set", "posterior.members=4")  # fmt: skip
    potential = tmp_path / "m" / "potential.safetensors"
    surefoot("predict", potential, paths, "-o", tmp_path / "p.xyz", "--members")
    done = surefoot("hat", "barriers", tmp_path / "p.xyz", "-o", tmp_path / "b.csv")
    assert "not true barriers" in done.stdout
    assert "forward: 6 paths" in done.stdout
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert lines[0].startswith("#")
    assert len(lines) == 2 + 12
