"""benchmarks/motion.py compares the same weights, and says with whom."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_same_weights_have_the_same_forces(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    motion = importlib.import_module("motion")
    ours, forces = Atoms("H2", positions=np.eye(3)[:2]), np.array([[0.1, 0, 0], [-0.1, 0, 0]])
    ours.calc = SinglePointCalculator(ours, energy=1.0, forces=forces)
    motion.require_same("x", {"energy": 1.0, "forces": forces.tolist()}, ours)
    with pytest.raises(SystemExit, match="differ by"):
        motion.require_same("x", {"energy": 1.0, "forces": (-forces).tolist()}, ours)
    with pytest.raises(SystemExit, match="energies differ"):
        motion.require_same("x", {"energy": np.nan, "forces": forces.tolist()}, ours)
    assert motion.file_name(None) != motion.file_name({"torch": "2"})
