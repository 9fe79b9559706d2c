"""A labelled file of ten-odd molecules' size, and a potential trained on it in seconds."""

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from surefoot.cli.main import main

Command = Callable[..., "Done"]

CONFIG = """
data: {{train: [{train}]}}
model: {{features: 8, interactions: 2, gaussians: 10, activation: silu}}
train: {{epochs: 4, batch: {{graphs: 8}}, precision: float64, learning_rate: 0.01}}
posterior: {{members: 4}}
"""


def clusters(count: int, seed: int) -> list[Atoms]:
    """Rattled copper-aluminium clusters with EMT labels in groups of four."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        symbols = ["Cu4", "Cu3Al", "Cu2Al2"][number % 3]
        corners = [[0, 0, 0], [2.5, 0, 0], [1.2, 2.2, 0], [1.2, 0.8, 2.1]]
        atoms = Atoms(symbols, positions=corners + rng.normal(scale=0.12, size=(4, 3)))
        atoms.calc = EMT()
        labels = SinglePointCalculator(
            atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces()
        )
        atoms.calc = labels
        atoms.info |= {"group": f"g{number // 4}", "config_type": ["low", "high"][number % 2]}
        images.append(atoms)
    return images


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.xyz, test.xyz, paths and a config."""
    folder = tmp_path_factory.mktemp("cli")
    ase.io.write(folder / "train.xyz", clusters(40, 0))
    ase.io.write(folder / "test.xyz", clusters(12, 1))
    (folder / "config.yaml").write_text(CONFIG.format(train=folder / "train.xyz"))
    return folder


@dataclass(frozen=True)
class Done:
    """What a finished verb left: exit status and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_surefoot(*arguments: object, check: bool = True) -> Done:
    """The program with these arguments, in this process: torch is imported only once."""
    before, sys.argv = sys.argv, ["surefoot", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    status = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    finally:
        sys.argv = before
    assert status == 0 or not check, err.getvalue() + out.getvalue()
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def surefoot() -> Command:
    """Run a verb; fails the test if the verb fails, unless check=False."""
    return run_surefoot


@pytest.fixture(scope="session")
def potential(folder: Path, surefoot: Command) -> Path:
    """A potential trained for a few epochs."""
    surefoot("train", folder / "config.yaml", "-o", folder / "model")
    return folder / "model" / "potential.safetensors"
