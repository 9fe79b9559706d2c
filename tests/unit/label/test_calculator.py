import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from pydantic import ValidationError

from surefoot.label.calculator import AseCalculator
from surefoot.label.labeler import LabelingFailed
from surefoot.label.processes import run_program
from surefoot.label.timeout import TimeExceeded, time_limit

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
    orca = AseCalculator(calculator="orca")
    assert orca._state(-1, 2) == {"charge": -1, "mult": 2}
    named = AseCalculator(calculator="mopac", charge_keyword="charge", spin_keyword="x")
    assert named._state(1, 1) == {"charge": 1, "x": 1}
    untold = AseCalculator(calculator="mopac", charge_keyword="charge")
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


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(LabelingFailed, match="status 3: out of luck"):
        run_program([sys.executable, "-c", "print('out of luck'); exit(3)"], tmp_path)
    with pytest.raises(LabelingFailed, match="no-such-program can not be started"):
        run_program(["no-such-program"], tmp_path)


def test_programs_run_on_one_thread_and_read_what_they_are_told(tmp_path: Path) -> None:
    source = "import os, sys; print(os.environ['OMP_NUM_THREADS'], sys.stdin.read(), os.getcwd())"
    printed = run_program([sys.executable, "-c", source], tmp_path, "hello")
    assert printed.split() == ["1", "hello", str(tmp_path)]


def test_when_the_time_is_over_all_that_was_started_ends(tmp_path: Path) -> None:
    with pytest.raises(TimeExceeded), time_limit(6.0):
        run_program([sys.executable, "-c", FORKS], tmp_path)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
