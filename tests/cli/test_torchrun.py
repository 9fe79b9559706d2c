"""`torchrun -m surefoot train`: several processes leave what one leaves, whoever is interrupted."""

import csv
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

OPTIONS = ("--set", "train.epochs=25", "--set", "train.average=0.9", "--set", "train.threads=1")


def start(*arguments: object) -> subprocess.Popen[str]:
    """Two processes, as `torchrun --standalone --nproc-per-node 2` starts them."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "surefoot", *map(str, arguments)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def process_of(torchrun: int, rank: int) -> int:
    """The id of the process of a rank."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            mine = int(parent) == torchrun
            if mine and f"RANK={rank}" in (folder / "environ").read_text().split("\0"):
                return int(folder.name)
        except OSError:  # it has ended meanwhile
            continue
    raise AssertionError(f"torchrun has no process of rank {rank}")


def wait_for_epochs(log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if log.exists():
            return
        time.sleep(0.02)
    raise AssertionError("the run wrote no log")


def deviation(first: Path, second: Path) -> float:
    """Largest difference of any entry, relative to the largest of its tensor."""
    # Among them is which frames each member has learnt from, as true and false.
    a, b = ({n: x.double() for n, x in load_file(path).items()} for path in (first, second))
    assert a.keys() == b.keys()
    return max(float((a[n] - b[n]).abs().max() / b[n].abs().max().clamp(min=1e-9)) for n in a)


@pytest.fixture(scope="module")
def alone(surefoot, folder: Path, tmp_path_factory) -> Path:
    """The run of one process."""
    output = tmp_path_factory.mktemp("alone")
    surefoot("train", folder / "config.yaml", "-o", output, *OPTIONS)
    return output


@pytest.fixture(scope="module")
def shared(folder: Path, tmp_path_factory) -> Path:
    """The same run of two, with what they printed beside it."""
    output = tmp_path_factory.mktemp("shared") / "run"
    process = start("train", folder / "config.yaml", "-o", output, *OPTIONS)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (output.parent / "out").write_text(out)
    return output


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(alone: Path, shared: Path) -> None:
    assert {path.name for path in shared.iterdir()} == {path.name for path in alone.iterdir()}
    for name in ("last", "best", "potential"):
        assert deviation(shared / f"{name}.safetensors", alone / f"{name}.safetensors") < 1e-8
    logs = [
        list(csv.DictReader((run / "log.csv").read_text().splitlines())) for run in (shared, alone)
    ]
    assert len(logs[0]) == len(logs[1]) == 25
    for row, expected in zip(*logs, strict=True):
        assert row.keys() == expected.keys()
        for name in row.keys() - {"seconds"}:
            assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-8)


@pytest.mark.slow
def test_only_the_first_process_speaks(shared: Path) -> None:
    text = (shared.parent / "out").read_text()
    assert text.count("reference energies") == 1
    assert text.count("2 processes share each batch") == 1
    assert text.count("wrote") == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by /proc")
def test_interrupt_of_one_process_ends_all_and_costs_nothing(
    surefoot, folder: Path, shared: Path, tmp_path: Path
) -> None:
    """The resumed run of two has the bits of the uninterrupted one of two."""
    command = ("train", folder / "config.yaml", "-o", tmp_path, *OPTIONS)
    process = start(*command)
    wait_for_epochs(tmp_path / "log.csv")
    os.kill(process_of(process.pid, 1), signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1  # torchrun's own
    assert not (tmp_path / "potential.safetensors").exists(), "it ended before the signal"
    assert err.count("--resume goes on") == 1
    assert "exitcode  : 130" in err
    resumed = start(*command, "--resume")
    out, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    assert "resumed after" in out
    for name in ("last", "best", "potential"):
        one = load_file(tmp_path / f"{name}.safetensors")
        other = load_file(shared / f"{name}.safetensors")
        assert all(torch.equal(one[key], other[key]) for key in other)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_torchrun_is_resumed_by_one_process(
    number: signal.Signals, surefoot, folder: Path, alone: Path, tmp_path: Path
) -> None:
    command = ("train", folder / "config.yaml", "-o", tmp_path, *OPTIONS)
    process = start(*command)
    wait_for_epochs(tmp_path / "log.csv")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert err.count("--resume goes on") == 1, err
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = surefoot(*command, "--resume")
    assert "trained this run: 2, that go on with it: 1" in done.stderr
    assert "only up to rounding" in done.stderr
    for name in ("last", "potential"):
        assert deviation(tmp_path / f"{name}.safetensors", alone / f"{name}.safetensors") < 1e-8


@pytest.mark.slow
def test_a_mistake_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    process = start(
        "train", folder / "config.yaml", "-o", tmp_path / "run", "--set", "train.batch.graphs=1"
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("surefoot: train: {batch: {graphs: 1}} is less than one for each") == 1
    assert not (tmp_path / "run").exists()


def test_incomplete_variables_are_refused(
    surefoot, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    done = surefoot("train", folder / "config.yaml", "-o", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert "MASTER_ADDR and MASTER_PORT are not set" in done.stderr
    assert not (tmp_path / "run").exists()
