"""check, evaluate, predict and hat on files: statuses, tables, and files that read back."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest

from surefoot.cli.screen import UserError, require_writable


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
    for part in ("meV/atom", "meV/Å", "high", "low", "coverage_90", "before the factor", "ence",
                 "pit_ks", "calibration_error", "ause", "element Cu", "AUROC"):  # fmt: skip
        assert part in done.stdout
    figures = json.loads(report.read_text())
    assert figures["accuracy"]["energy"]["all"]["count"] == 12
    assert figures["accuracy"]["forces"]["all"]["count"] == 144
    scores = figures["uncertainty"]["forces"]
    assert scores["before"]["sharpness"][0] * scores["factor"] == pytest.approx(
        scores["after"]["sharpness"][0]
    )
    value, low, high = scores["after"]["ence_reference"]
    assert low < value < high
    assert scores["strata"]["element"].keys() == {"13", "29"}
    assert sum(kind["count"] for kind in scores["strata"]["element"].values()) == scores["points"]
    assert figures["failures"]["inside"] == figures["failures"]["outside"] == 6  # low and high


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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.usefixtures("compiling")
def test_predict_compiled_and_with_splines(
    surefoot, potential: Path, folder: Path, tmp_path: Path
) -> None:
    for name, options in (("plain", ()), ("quick", ("--compile", "--splines"))):
        output = tmp_path / f"{name}.xyz"
        given = (potential, folder / "test.xyz", "-o", output, "--precision", "float32")
        done = surefoot("predict", *given, *options)
        assert "compiling failed" not in done.stderr
    pairs = zip(*(ase.io.read(tmp_path / f"{n}.xyz", ":") for n in ("plain", "quick")), strict=True)
    for plain, quick in pairs:
        off = abs(plain.get_potential_energy() - quick.get_potential_energy())
        assert 0 < off < 1e-6 * len(plain)
        assert np.abs(plain.get_forces() - quick.get_forces()).max() < 1e-5


def test_splines_are_refused_where_exactness_is_asked_for(
    surefoot, potential: Path, folder: Path, tmp_path: Path
) -> None:
    options = ("-o", tmp_path / "p.xyz", "--splines", "--precision", "float64")
    done = surefoot("predict", potential, folder / "test.xyz", *options, check=False)
    assert done.returncode == 1
    assert "--splines: the potential is in float64" in done.stderr
    assert not (tmp_path / "p.xyz").exists()


def test_predict_refuses_unknown_elements(surefoot, potential: Path, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "w.xyz", ase.Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]]))
    done = surefoot("predict", potential, tmp_path / "w.xyz", "-o", tmp_path / "p.xyz", check=False)
    assert done.returncode == 1
    assert "element H is not among those this potential was trained on (Al, Cu)" in done.stderr
    assert "frame 0" in done.stderr
    assert not (tmp_path / "p.xyz").exists()


def test_predict_refuses_a_foreign_file(surefoot, folder: Path, tmp_path: Path) -> None:
    done = surefoot(
        "predict", folder / "train.xyz", folder / "test.xyz", "-o", tmp_path / "p.xyz", check=False
    )
    assert done.returncode == 1
    assert "not a safetensors file" in done.stderr
    assert "the potential comes before the structures" in done.stderr


def test_predict_refuses_a_potential_in_place_of_structures(
    surefoot, potential: Path, tmp_path: Path
) -> None:
    done = surefoot("predict", potential, potential, "-o", tmp_path / "p.xyz", check=False)
    assert done.returncode == 1
    assert "not structures; in a command the potential comes before" in done.stderr


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
    done = surefoot("barrier", potential, paths, "-o", tmp_path / "b")
    assert "not true barriers" in done.stdout
    assert "forward: 6 paths" in done.stdout
    lines = (tmp_path / "b" / "barriers.csv").read_text().splitlines()
    assert lines[0].startswith("#")
    assert len(lines) == 2 + 12


def test_evaluate_refuses_files_without_labels(
    surefoot, potential: Path, folder: Path, tmp_path: Path
) -> None:
    images = ase.io.read(folder / "test.xyz", ":")
    for atoms in images:
        atoms.calc = None
    ase.io.write(tmp_path / "bare.xyz", images)
    done = surefoot("evaluate", potential, tmp_path / "bare.xyz", check=False)
    assert done.returncode == 1
    for part in ("bare.xyz: no labels were found", "--energy-key NAME", "--forces-key NAME"):
        assert part in done.stderr


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_positions_that_are_no_numbers_are_refused(
    surefoot, potential: Path, folder: Path, tmp_path: Path, verb: str
) -> None:
    images = ase.io.read(folder / "test.xyz", ":")
    images[3].positions[2, 0] = np.nan
    ase.io.write(tmp_path / "broken.xyz", images)
    target = tmp_path / "out.xyz"
    done = surefoot(verb, potential, tmp_path / "broken.xyz", "-o", target, check=False)
    assert done.returncode == 1
    assert "broken.xyz, frame 3" in done.stderr
    assert "positions of atom 2 is nan" in done.stderr
    assert not target.exists()


def test_predict_takes_structures_with_broken_labels(
    surefoot, potential: Path, folder: Path, tmp_path: Path
) -> None:
    images = ase.io.read(folder / "test.xyz", ":2")
    for atoms in images:
        atoms.calc = None
        atoms.info["REF_energy"] = np.nan
    ase.io.write(tmp_path / "t.xyz", images)
    surefoot("predict", potential, tmp_path / "t.xyz", "-o", tmp_path / "p.xyz")
    energies = [atoms.get_potential_energy() for atoms in ase.io.read(tmp_path / "p.xyz", ":")]
    assert np.isfinite(energies).all()


def test_predict_does_not_overwrite_its_input(
    surefoot, potential: Path, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "t.xyz"
    file.write_bytes((folder / "test.xyz").read_bytes())
    done = surefoot("predict", potential, file, "-o", tmp_path / "." / "t.xyz", check=False)
    assert done.returncode == 1
    assert "one of the files to be read" in done.stderr
    assert file.read_bytes() == (folder / "test.xyz").read_bytes()


def test_predict_writes_extended_xyz_only(
    surefoot, potential: Path, folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "p.traj"
    done = surefoot("predict", potential, folder / "test.xyz", "-o", target, check=False)
    assert done.returncode == 1
    assert ".xyz or .extxyz" in done.stderr
    assert not target.exists()


@pytest.mark.parametrize("verb", ["predict", "evaluate", "train", "label", "template", "hat"])
def test_outputs_are_tried_before_any_work(surefoot, tmp_path: Path, verb: str) -> None:
    """No input is there, so a complaint about the output shows that it was looked at first."""
    (tmp_path / "file").write_text("")
    (tmp_path / "config.yaml").write_text("data: {train: [none.xyz]}")
    inputs = {
        "predict": ["none.safetensors", "none.xyz"],
        "evaluate": ["none.safetensors", "none.xyz"],
        "train": [tmp_path / "config.yaml"],
        "label": ["none.xyz"],
        "template": ["none.xyz"],
        "hat": ["sample", "--donors", "none"],
    }
    output = tmp_path / "file" / "out.xyz"
    done = surefoot(verb, *inputs[verb], "-o", output, check=False)
    assert done.returncode == 1
    assert f"{tmp_path / 'file'} is a file, not a folder" in done.stderr


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is a folder"):
        require_writable(tmp_path)
    require_writable(tmp_path / "new" / "folder" / "out.xyz")
    assert list(tmp_path.iterdir()) == []


def test_system_errors_are_sentences(surefoot, folder: Path, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "locked.xyz")

    monkeypatch.setattr("surefoot.data.read.read_frames", refuse)
    done = surefoot("check", folder / "train.xyz", check=False)
    assert (done.returncode, done.stderr) == (1, "surefoot: locked.xyz: Permission denied.\n")
    monkeypatch.setenv("SUREFOOT_TRACEBACK", "1")
    done = surefoot("check", folder / "train.xyz", check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in refuse" in done.stderr


def test_unknown_labelers_and_methods_are_sentences(surefoot, folder: Path, tmp_path: Path) -> None:
    command = ("label", folder / "train.xyz", "-o", tmp_path / "o.xyz")
    done = surefoot(*command, "--labeler", "dft", check=False)
    assert done.returncode == 1
    assert "--labeler dft: labeler: 'dft' is not known; there is xtb" in done.stderr
    done = surefoot(*command, "--method", "GFN3", check=False)
    assert done.returncode == 1
    assert "--method GFN3: labeler.method: " in done.stderr
    assert "'GFN3'" in done.stderr
    assert "GFN1-xTB" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_label_leaves_no_process(tmp_path: Path, how: signal.Signals) -> None:
    rng = np.random.default_rng(0)
    chain = ase.build.molecule("C6H6", info={"charge": 0, "spin": 1})
    images = [chain.copy() for _ in range(600)]
    for atoms in images:
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
    ase.io.write(tmp_path / "in.xyz", images)
    run = subprocess.Popen(
        [sys.executable, "-m", "surefoot.cli.main", "label", tmp_path / "in.xyz", "-o",
         tmp_path / "out.xyz", "--workers", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    journal = tmp_path / "out.xyz.journal.jsonl"
    until = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    run.send_signal(how)
    said = run.communicate(timeout=30)[1].decode()
    assert run.returncode == 130, said
    assert "Traceback" not in said
    assert not (tmp_path / "out.xyz").exists()
    # The run was a session of its own; nobody else is in its process group.
    until = time.monotonic() + 5
    while is_group(run.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_group(run.pid)


def is_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
