"""Event files for TensorBoard hold what the log holds, also where a run was killed."""

import csv
import sys
from pathlib import Path

import pytest
import torch

from surefoot.train.events import FOLDER, open_events
from surefoot.train.state import State

pytest.importorskip("tensorboard")
EXPECTED = {"train/total", "valid/total", "valid/energy_mae", "seconds"}


def state_after(epoch: int, value: float) -> State:
    record = {"epoch": float(epoch), "seconds": 1.0, "train_total": value}
    record |= {"valid_total": 2 * value, "valid_energy_mae": 3 * value}
    scores = torch.zeros(())
    empty = State(weights={}, averages={}, best={}, best_scores=scores, moments={})
    empty.epoch, empty.history = epoch, [record]
    return empty


def read_events(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = EventAccumulator(str(folder)).Reload()
    return {
        tag: {event.step: event.value for event in held.Scalars(tag)}
        for tag in held.Tags()["scalars"]
    }


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with open_events(tmp_path) as write:
        for epoch in (1, 2):
            write(state_after(epoch, 0.5 * epoch))
    found = read_events(tmp_path)
    assert found.keys() == EXPECTED
    assert found["train/total"] == {1: 0.5, 2: 1.0}
    assert found["valid/energy_mae"] == {1: 1.5, 2: 3.0}


def test_epochs_that_a_killed_run_lost_are_taken_back(tmp_path: Path) -> None:
    with open_events(tmp_path) as write:
        for epoch in (1, 2, 3):
            write(state_after(epoch, 1.0))
    (first,) = tmp_path.iterdir()
    first.rename(first.with_name(f"{first.name}.a"))  # a second later it has another name
    with open_events(tmp_path, epoch=1) as write:
        write(state_after(2, 5.0))
    assert read_events(tmp_path)["train/total"] == {1: 1.0, 2: 5.0}


def test_a_training_writes_them(surefoot, folder: Path, tmp_path: Path) -> None:
    asked = ("--set", "train.log=tensorboard", "--set", "train.epochs=2")
    surefoot("train", folder / "config.yaml", "-o", tmp_path, *asked)
    found = read_events(tmp_path / FOLDER)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    for name, column in (("train/total", "train_total"), ("valid/forces_mae", "valid_forces_mae")):
        expected = {int(float(row["epoch"])): float(row[column]) for row in rows}
        assert found[name] == pytest.approx(expected, rel=1e-6)
    # It changes no weight, so that a run may go on with another one.
    again = surefoot("train", folder / "config.yaml", "-o", tmp_path, *asked[2:], "--resume")
    assert "resumed after 2 epochs" in again.stdout


def test_without_the_package_one_sentence_says_what_to_install(
    surefoot, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    asked = ("--set", "train.log=tensorboard")
    done = surefoot("train", folder / "config.yaml", "-o", tmp_path / "run", *asked, check=False)
    assert done.returncode == 1
    assert "pip install 'surefoot[tensorboard]'" in done.stderr
    assert not (tmp_path / "run").exists()
