"""Training from the command line: what it leaves, and that no interruption costs anything."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from surefoot.posteriors.predictor import load_predictor
from surefoot.train import fit as room
from surefoot.train.validate import judge


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "surefoot.cli.main", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_epochs(log: Path, epochs: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if log.exists() and len(log.read_text().splitlines()) > epochs:
            return
        time.sleep(0.02)
    raise AssertionError("the run wrote no log")


def assert_same(first: Path, second: Path) -> None:
    a, b = load_file(first), load_file(second)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_leaves_potential_log_and_checkpoints(potential: Path) -> None:
    folder = potential.parent
    assert {p.name for p in folder.iterdir()} == {
        "potential.safetensors",
        "best.safetensors",
        "last.safetensors",
        "log.csv",
    }
    rows = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["valid_forces_mae"]) < float(rows[0]["valid_forces_mae"])
    predictor = load_predictor(potential)
    assert predictor.draws == 4
    assert predictor.calibration.energy != 1.0
    assert predictor.provenance["config"]["train"]["epochs"] == 4
    assert predictor.provenance["files"]["train.xyz"]


def test_long_runs_are_compiled_and_say_so(folder: Path, tmp_path: Path) -> None:
    epochs = f"train.epochs={room.WORTH_COMPILING}"
    options = ("--set", "train.compile=auto", "--set", epochs)
    running = start("train", folder / "config.yaml", "-o", tmp_path / "run", *options)
    assert running.stdout is not None
    try:
        assert any("the training step is compiled first" in line for line in running.stdout)
    finally:
        running.kill()
        running.communicate()


def test_a_run_is_not_overwritten(surefoot, folder: Path, potential: Path) -> None:
    again = surefoot("train", folder / "config.yaml", "-o", potential.parent, check=False)
    assert again.returncode == 1
    assert "--resume" in again.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_resumed_run_equals_the_uninterrupted_one(
    surefoot, folder: Path, tmp_path: Path, how: signal.Signals
) -> None:
    config = folder / "config.yaml"
    options = ("--set", "train.epochs=40", "--set", "train.average=0.9")
    surefoot("train", config, "-o", tmp_path / "whole", *options)
    process = start("train", config, "-o", tmp_path / "cut", *options)
    wait_for_epochs(tmp_path / "cut" / "log.csv", 1)
    time.sleep(0.3)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert not (tmp_path / "cut" / "potential.safetensors").exists(), "it ended before the signal"
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert "--resume goes on" in errors
    resumed = surefoot("train", config, "-o", tmp_path / "cut", "--resume", *options)
    assert "resumed after" in resumed.stdout
    for name in ("last", "best", "potential"):
        assert_same(
            tmp_path / "whole" / f"{name}.safetensors", tmp_path / "cut" / f"{name}.safetensors"
        )


def test_resume_refuses_another_run(surefoot, folder: Path, potential: Path) -> None:
    done = surefoot(
        "train", folder / "config.yaml", "-o", potential.parent, "--resume",
        "--set", "train.learning_rate=0.02", check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "learning_rate was 0.01 and is now 0.02" in done.stderr


def test_resume_without_checkpoint(surefoot, folder: Path, tmp_path: Path) -> None:
    done = surefoot("train", folder / "config.yaml", "-o", tmp_path, "--resume", check=False)
    assert done.returncode == 1
    assert "no checkpoint" in done.stderr


def test_damaged_checkpoint_is_refused(
    surefoot, folder: Path, potential: Path, tmp_path: Path
) -> None:
    content = bytearray((potential.parent / "last.safetensors").read_bytes())
    content[-20] ^= 1
    (tmp_path / "last.safetensors").write_bytes(content)
    done = surefoot("train", folder / "config.yaml", "-o", tmp_path, "--resume", check=False)
    assert done.returncode == 1
    assert "damaged" in done.stderr


def test_a_training_that_fails_leaves_the_best_it_had(
    surefoot, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """And a state that stands between two epochs: going on meets the same, after the same steps."""
    judged = []

    def fail(*arguments: object) -> object:
        judged.append(arguments)
        if len(judged) > 2:
            raise FloatingPointError("the variance of the energy has collapsed.")
        return judge(*arguments)

    monkeypatch.setattr(room, "judge", fail)
    run = ("train", folder / "config.yaml", "-o", tmp_path)
    done = surefoot(*run, check=False)
    assert done.returncode == 1
    assert "collapsed" in done.stderr
    assert f"{tmp_path / 'best.safetensors'} holds the best weights" in done.stderr
    assert load_predictor(tmp_path / "best.safetensors").provenance["epochs"] == 2
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    again = surefoot(*run, "--resume", check=False)
    assert "resumed after 2 epochs and" in again.stdout
    assert again.returncode == 1
    monkeypatch.undo()
    assert surefoot(*run, "--resume").returncode == 0
    whole, cut = tmp_path / "whole", tmp_path
    surefoot("train", folder / "config.yaml", "-o", whole)
    assert_same(whole / "potential.safetensors", cut / "potential.safetensors")


def test_wrong_data_stop_training(surefoot, folder: Path, tmp_path: Path) -> None:
    text = (folder / "train.xyz").read_text()
    (tmp_path / "t.xyz").write_text(
        text.replace("forces:R:3", "push:R:3").replace("energy=", "en=")
    )
    done = surefoot(
        "train", folder / "config.yaml", "-o", tmp_path / "o",
        "--set", f"data.train=[{tmp_path / 't.xyz'}]", check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no-labels" in done.stdout
    assert not (tmp_path / "o").exists()


def test_frames_on_disk_give_the_same_potential(surefoot, folder, potential, tmp_path) -> None:
    stores = ("--set", f"data.store={tmp_path / 'stores'}")
    done = surefoot("train", folder / "config.yaml", "-o", tmp_path / "run", *stores)
    assert "read once, and kept in" in done.stdout
    for name in ("last", "best", "potential"):
        assert_same(tmp_path / "run" / f"{name}.safetensors", potential.with_stem(name))
    (place,) = (tmp_path / "stores").glob("*.store")
    (place / "forces").unlink()
    refused = surefoot("train", folder / "config.yaml", "-o", tmp_path / "no", *stores, check=False)
    assert refused.returncode == 1
    assert f"{place}: this is no whole store of frames" in refused.stderr
