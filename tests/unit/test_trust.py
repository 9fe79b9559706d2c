"""A slice of `benchmarks/fuzz.py` and of `benchmarks/torture.py`, and memory that stays flat."""

import gc
import importlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

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
from surefoot.posteriors.predictor import build_predictor
from surefoot.potential import Potential

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CASES = 8  # of each reader
ROOM = 20_000  # bytes that Python may hold more of after many predictions; one holds tensors of MiB


@pytest.fixture
def fuzz() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield {name: importlib.import_module(f"fuzz.{name}") for name in ("targets", "watch")}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")  # of the libraries that meet such files
def test_damaged_files_are_answered_or_refused_with_their_name(
    fuzz: dict[str, ModuleType], tmp_path: Path
) -> None:
    targets, watch, wrong = fuzz["targets"], fuzz["watch"], []
    for name, target in targets.list_targets(tmp_path).items():
        folder = targets.lay(target, tmp_path)
        case = partial(targets.read_case, target, 7, work=tmp_path)
        for number in range(CASES):
            found = watch.judge(case, number, str(folder), seconds=0, strict=target.strict)
            if found not in (watch.ANSWERED, watch.REFUSED):
                wrong.append((name, number, found))
    assert wrong == []


def test_what_no_reader_may_do_is_noticed(fuzz: dict[str, ModuleType], tmp_path: Path) -> None:
    """The judge itself: other errors, silent ones, and those that run out of memory."""
    judge = fuzz["watch"].judge

    def swallow() -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise ValueError("a.xyz: can not be read.") from error

    def refuse(error: Exception) -> Callable[[int], None]:
        def case(_: int) -> None:
            raise error

        return case

    assert judge(refuse(KeyError("x")), 0, "a.xyz", 0).startswith("KeyError")
    assert judge(refuse(ValueError("it is wrong")), 0, "a.xyz", 0).startswith("no sentence")
    assert judge(refuse(ValueError("a.xyz: it is wrong.")), 0, "a.xyz", 0) == "refused"
    assert judge(lambda _: swallow(), 0, "a.xyz", 0).startswith("asked for more than")
    assert judge(lambda _: None, 0, "a.xyz", 0) == "answered"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("way", ["predictor", "kernels", "calculator"])
def test_predictions_leave_nothing_behind(way: str) -> None:
    """Neither memory nor open files; `benchmarks/leaks.py` counts 10,000."""
    model = Schnet(cutoff=3.0, features=4, interactions=1, gaussians=5)
    if way == "kernels":
        model = Mace(cutoff=3.0, irreps="2x0e + 2x1o", max_ell=1, correlation=2, interactions=1)
    baseline = Baseline(elements=(1, 8), energies=(-1.0, -2.0), scale=0.5, neighbors=2.0)
    potential = Potential(model=model, head=MeanVariance(width=2), baseline=baseline)
    weights = stack([potential.init(seed, torch.float32) for seed in (0, 1)])
    predictor = build_predictor(potential, Ensemble(weights), Calibration(), {})
    water, calculator = molecule("H2O"), SurefootCalculator(predictor)

    def predict(number: int) -> None:
        atoms = water.copy()
        atoms.positions += np.random.default_rng(number).normal(scale=0.02, size=(3, 3))
        if way == "calculator":
            atoms.calc = calculator
            atoms.get_forces()
        else:
            predictor(to_graph(atoms, 3.0), stress=True)

    def look() -> tuple[int, int]:
        gc.collect()
        return tracemalloc.get_traced_memory()[0], len(list(Path("/dev/fd").iterdir()))

    tracemalloc.start()
    try:
        for number in range(100):  # what stood there before is replaced by what is traced
            predict(number)
        seen = [look()]
        for _ in range(2):  # what is left behind is left behind each time
            for number in range(30):
                predict(number)
            seen.append(look())
    finally:
        tracemalloc.stop()
    memory, files = np.array(seen).T
    assert np.diff(memory).min() < ROOM
    assert len(set(files)) == 1


@pytest.mark.slow
def test_runs_that_are_killed_come_to_the_same_end(tmp_path: Path) -> None:
    """A few sessions; `make torture` holds hundreds."""
    command = [sys.executable, BENCHMARKS / "torture.py", "--sessions", "4", "--seed", "11"]
    places = ["--work", tmp_path / "work", "--kept", tmp_path / "kept"]
    done = subprocess.run(
        [*command, *places, "--only", "train ensemble", "relax lbfgs"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 sessions with seed 11, 0 failures" in done.stdout
