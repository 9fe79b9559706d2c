"""A slice of what `benchmarks/fuzz.py` and `benchmarks/torture.py` do, and flat memory."""

import gc
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule

from surefoot.blocks.dense import stack
from surefoot.blocks.reference import Baseline
from surefoot.calculator import SurefootCalculator
from surefoot.data.convert import to_graph
from surefoot.heads.mean_variance import MeanVariance
from surefoot.models.mace import Mace
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.predictor import Predictor, build_predictor
from surefoot.potential import Potential

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_damaged_files_are_answered_or_refused(tmp_path: Path) -> None:
    """Some cases of every reader, in a process of their own."""
    command = [sys.executable, BENCHMARKS / "fuzz.py", "--cases", "600", "--seed", "7"]
    places = ["--work", tmp_path / "work", "--results", tmp_path / "found.json"]
    done = subprocess.run(
        [*command, *places], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
