"""`surefoot label` and what the data doctor says of two levels."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import ase.io
import pytest
from ase.build import molecule

from surefoot.cli.label_config import load_labeler
from surefoot.data.read import read_frames
from surefoot.label.run import Conduct, label_frames
from surefoot.label.xtb import Xtb

METHODS: tuple[Literal["GFN2-xTB"], Literal["spGFN2-xTB"]] = ("GFN2-xTB", "spGFN2-xTB")
CONFIG = """
labeler: {name: ase, calculator: emt, method: EMT}
conduct: {timeout: 300}
"""


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    path = tmp_path / "in.xyz"
    frames = []
    for place in range(3):
        atoms = molecule("CH3")
        atoms.positions[0, 2] += 0.05 * place
        atoms.info |= {"charge": 0, "spin": 2}
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return path


def test_labels_by_name_and_method(surefoot, structures: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.xyz"
    done = surefoot("label", structures, "-o", output, "--method", "spGFN2-xTB", "--workers", 1)
    assert "3 frames labelled with spGFN2-xTB (tblite" in done.stdout
    assert re.search(r"labelling 3/3 .+/(s|min)", done.stderr)
    (first, *_) = ase.io.read(output, ":")
    assert first.info["label_settings"]["method"] == "spGFN2-xTB"
    again = surefoot("label", structures, "-o", output, "--method", "spGFN2-xTB", "--workers", 1)
    assert "0 frames labelled" in again.stdout
    assert "3 known already" in again.stdout


def test_a_config_names_a_calculator_of_ase(surefoot, structures: Path, tmp_path: Path) -> None:
    config, output = tmp_path / "label.yaml", tmp_path / "out.xyz"
    config.write_text(CONFIG)
    done = surefoot("label", structures, "-o", output, "--config", config, "--workers", 1)
    assert "labelled with EMT (emt through ase" in done.stdout


def test_two_levels_in_one_training_file_are_an_error(
    surefoot, structures: Path, tmp_path: Path
) -> None:
    outputs = []
    for method in METHODS:
        outputs.append(tmp_path / f"{method}.xyz")
        label_frames(read_frames([structures]), Xtb(method=method), outputs[-1])
    surefoot("check", outputs[0])
    done = surefoot("check", *outputs, check=False)
    assert done.returncode == 1
    assert "[two-levels]" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--labeler", "abacus"],
            "--labeler abacus: labeler: 'abacus' is not known; there is xtb, pyscf, ase,",
        ),
        (
            ["--set", "labeler.precision=1"],
            "--set labeler.precision=1: there is no key 'labeler.precision'; near it there is",
        ),
        (["--set", "accuracy"], "--set accuracy: write section.key=value"),
        (["--set", "accuracy=1"], "--set accuracy=1: there is no key 'accuracy'"),
        (["--set", "lebel.accuracy=1"], "there is no key 'lebel'; near it there is labeler"),
        (["--method", "GFN3"], "--method GFN3: labeler.method: Input should be 'GFN2-xTB'"),
        (["--labeler", "ase", "--set", "labeler.calculator=os.system"], "ASE has no calculator"),
        (
            ["--labeler", "ase", "--method", "B3LYP", "--set", "labeler.calculator=emt"],
            "--method B3LYP: what a calculator of ASE calculates is said by its keywords",
        ),
        (["--labeler", "ase", "--set", "labeler.calculator=orca"], "write `program`"),
        (["--labeler", "pyscf", "--method", "nonsense"], "does not know the functional"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(
    surefoot, structures: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    done = surefoot(
        "label", structures, "-o", tmp_path / "out.xyz", "--workers", 1, *options, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in.xyz"}


@pytest.mark.parametrize("name", ["abacus", "[xtb]", "{xtb: 1}", "1.5"])
def test_a_labeler_that_is_none_is_refused_with_its_file(
    surefoot, structures: Path, tmp_path: Path, name: str
) -> None:
    config = tmp_path / "label.yaml"
    config.write_text(f"labeler: {{name: {name}}}")
    done = surefoot("label", structures, "-o", tmp_path / "o.xyz", "--config", config, check=False)
    assert done.returncode == 1
    assert f"{config}: labeler: " in done.stderr
    assert "is not known; there is xtb" in done.stderr


def test_options_count_where_the_section_of_the_file_is_empty(tmp_path: Path) -> None:
    config = tmp_path / "label.yaml"
    config.write_text("labeler:\nconduct:\n")
    labeler, conduct = load_labeler(config, None, "GFN1-xTB")
    assert labeler == Xtb(method="GFN1-xTB")
    assert conduct == Conduct()


STAND_IN = """#!/bin/sh
if [ "$1" = --version ]; then echo "xtb version 1.0"; exit 0; fi
echo $$ > {record}
exec sleep 600
"""


AT_ONCE = """
import os, signal
from surefoot.cli import screen
from surefoot.cli.main import main
tell = screen.complain
def complain(sentence):
    tell(sentence)
    if "Ctrl-C again" in sentence:
        os.kill(os.getpid(), signal.SIGINT)  # before the first one has its answer
screen.complain = complain
if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["later", "at once"])
def test_the_second_interruption_ends_what_runs(
    structures: Path, tmp_path: Path, when: str
) -> None:
    program, record = tmp_path / "xtb", tmp_path / "pid"
    program.write_text(STAND_IN.format(record=record))
    program.chmod(0o755)
    script = tmp_path / "script.py"
    script.write_text(AT_ONCE)
    start = [script] if when == "at once" else ["-m", "surefoot"]
    command = [sys.executable, *start, "label", structures, "-o", tmp_path / "out.xyz"]
    command += ["--labeler", "xtb_program", "--set", f"labeler.program={program}", "--workers", "1"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    try:
        _await(lambda: record.exists() and record.read_text().strip() != "")
        running.send_signal(signal.SIGINT)
        lines = iter(running.stderr.readline, "")
        assert any("Ctrl-C again ends them" in line for line in lines)
        if when == "later":
            assert running.poll() is None
            running.send_signal(signal.SIGINT)
        assert running.wait(20) != 0
        _await(lambda: not Path(f"/proc/{int(record.read_text())}").exists())
    finally:
        running.kill()
        running.wait()
        running.stderr.close()


def _await(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
