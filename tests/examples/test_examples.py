"""Every example runs as it is, on a small labelled file, and stays short."""

import os
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled file of methanols in four groups, and the potential of example 01."""
    folder = tmp_path_factory.mktemp("examples")
    images = []
    for number in range(32):
        atoms = molecule("CH3OH")
        atoms.rattle(0.08, seed=number)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        atoms.info["group"] = f"g{number % 4}"
        images.append(atoms)
    ase.io.write(folder / "train.xyz", images)
    text = run("01_train.py", folder / "train.xyz", folder / "potential.safetensors", 3)
    assert "σ of forces" in text
    return folder


@pytest.mark.slow
def test_calculator(folder: Path) -> None:
    text = run("02_calculator.py", folder / "potential.safetensors", folder / "train.xyz")
    assert "least certain atom" in text


@pytest.mark.slow
def test_molecular_dynamics(folder: Path) -> None:
    potential = folder / "potential.safetensors"
    text = run("03_molecular_dynamics.py", potential, folder / "train.xyz", 1e9)
    assert "100 steps done" in text
    text = run("03_molecular_dynamics.py", potential, folder / "train.xyz", 1e-9)
    assert "stopped" in text


def test_all_examples_are_tested_and_short() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    tests = Path(__file__).read_text()
    for script in scripts:
        assert script.name in tests
        assert len(script.read_text().splitlines()) <= 80
    # The demo is slow; its verbs are run in tests/cli.
    assert (EXAMPLES / "demo.sh").exists()
