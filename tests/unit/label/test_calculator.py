import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from pydantic import ValidationError

from surefoot.label.calculator import AseCalculator
from surefoot.label.child import Question, answer
from surefoot.label.labeler import LabelingFailed
from surefoot.label.processes import _groups, run_program
from surefoot.label.timeout import TimeExceeded, time_limit

SAID = {"program": "the program 1.0", "method": "a method"}

FORKS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids", "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def test_labels_are_those_of_the_calculator() -> None:
    atoms = molecule("CH4")
    labels = AseCalculator(calculator="emt").label(atoms, 0, 1)
    atoms.calc = EMT()
    assert labels.energy == atoms.get_potential_energy()
    np.testing.assert_array_equal(labels.forces, atoms.get_forces())


def test_parameters_reach_the_calculator() -> None:
    pair = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.2]])
    weak, strong = (
        AseCalculator(calculator="lj", parameters={"epsilon": depth, "rc": 10.0})
        for depth in (1.0, 2.0)
    )
    assert strong.label(pair, 0, 1).energy == pytest.approx(2 * weak.label(pair, 0, 1).energy)
    assert weak.settings() != strong.settings()


def test_charge_and_spin_reach_the_keywords() -> None:
    orca = AseCalculator(calculator="orca", **SAID)
    assert orca._state(-1, 2) == {"charge": -1, "mult": 2}
    named = AseCalculator(calculator="mopac", charge_keyword="charge", spin_keyword="x", **SAID)
    assert named._state(1, 1) == {"charge": 1, "x": 1}
    untold = AseCalculator(calculator="mopac", charge_keyword="charge", **SAID)
    assert untold._state(1, 1) == {"charge": 1}
    with pytest.raises(LabelingFailed, match=r"can not be told the spin 2; .*spin_keyword"):
        untold._state(0, 2)


def test_what_a_calculator_raises_is_a_reason() -> None:
    with pytest.raises(LabelingFailed, match=r"emt .*NotImplementedError: No EMT-potential for Si"):
        AseCalculator(calculator="emt").label(Atoms("Si"), 0, 1)
    wrong = AseCalculator(calculator="lj", parameters={"sigma": "wide"})
    with pytest.raises(LabelingFailed, match=r"lj .*TypeError"):
        wrong.label(molecule("CH4"), 0, 1)


def test_names_are_names_of_ase() -> None:
    with pytest.raises(ValidationError, match="ASE has no calculator of this name; it has abinit"):
        AseCalculator(calculator="os.system")


def test_it_says_method_and_program() -> None:
    told = AseCalculator(calculator="orca", method="B3LYP/def2-SVP", program="ORCA 6.0").describe()
    assert told.startswith("B3LYP/def2-SVP (ORCA 6.0 through ase 3.")


@pytest.mark.parametrize("left_out", ["program", "method"])
def test_a_program_is_told_apart_from_its_other_versions(left_out: str) -> None:
    said = {key: value for key, value in SAID.items() if key != left_out}
    with pytest.raises(ValidationError, match=r"ASE does not tell which orca .*ORCA 6\.0"):
        AseCalculator(calculator="orca", **said)
    five, six = (
        AseCalculator(calculator="orca", program=program, method="B3LYP").settings()
        for program in ("ORCA 5.0", "ORCA 6.0")
    )
    assert five != six


class Smeared(Calculator):
    """Gives two energies, as codes with smeared occupations do; the forces belong to one."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  as in ASE

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        forces = np.zeros((len(self.atoms), 3))
        self.results = {"energy": -1.0, "free_energy": -1.5, "forces": forces}


def test_the_energy_is_that_of_the_forces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surefoot.label.child.get_calculator_class", lambda _name: Smeared)
    atoms = molecule("CH4")
    question = Question(
        calculator="emt",
        parameters={},
        numbers=atoms.numbers.tolist(),
        positions=atoms.positions.tolist(),
        cell=np.zeros((3, 3)).tolist(),
        pbc=[False] * 3,
    )
    assert answer(question)["energy"] == -1.5


def test_what_a_program_leaves_running_ends_with_it(
    tmp_path: Path, await_end: Callable[[list[int]], None]
) -> None:
    begin = time.monotonic()
    assert run_program(["sh", "-c", "sleep 600 & echo $!; exit 0"], tmp_path).strip().isdigit()
    with pytest.raises(LabelingFailed, match="status 3"):
        run_program(["sh", "-c", "sleep 600 & echo $! > pid; exit 3"], tmp_path)
    assert time.monotonic() - begin < 60
    await_end([int((tmp_path / "pid").read_text())])


def test_time_that_is_over_while_a_program_starts_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, await_end: Callable[[list[int]], None]
) -> None:
    started = []

    class SlowStart(subprocess.Popen):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self.pid)
            time.sleep(0.3)  # the alarm falls in here, where nobody has a handle yet

    monkeypatch.setattr("surefoot.label.processes.subprocess.Popen", SlowStart)
    with pytest.raises(TimeExceeded), time_limit(0.1):
        run_program(["sleep", "600"], tmp_path)
    await_end(started)
    assert not _groups
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_limit_holds_again_after_a_program() -> None:
    def run_and_go_on() -> None:
        run_program(["true"], Path.cwd())
        time.sleep(30)

    with pytest.raises(TimeExceeded), time_limit(0.5):
        run_and_go_on()


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(LabelingFailed, match="status 3: out of luck"):
        run_program([sys.executable, "-c", "print('out of luck'); exit(3)"], tmp_path)
    with pytest.raises(LabelingFailed, match="no-such-program can not be started"):
        run_program(["no-such-program"], tmp_path)


def test_programs_run_on_one_thread_and_read_what_they_are_told(tmp_path: Path) -> None:
    source = "import os, sys; print(os.environ['OMP_NUM_THREADS'], sys.stdin.read(), os.getcwd())"
    printed = run_program([sys.executable, "-c", source], tmp_path, "hello")
    assert printed.split() == ["1", "hello", str(tmp_path)]


def test_when_the_time_is_over_all_that_was_started_ends(
    tmp_path: Path, await_end: Callable[[list[int]], None]
) -> None:
    with pytest.raises(TimeExceeded), time_limit(6.0):
        run_program([sys.executable, "-c", FORKS], tmp_path)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    await_end(pids)
