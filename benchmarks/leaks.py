"""Memory and open files over 10,000 predictions: whether they stay as they are.

Usage: python benchmarks/leaks.py [--count 10000] [--only WAY …]

Ways: a Predictor and the ASE calculator on a small SchNet, a Predictor on a small MACE (kernels in
C), and a compiled Predictor, each with structures of several sizes in turn. Resident memory, blocks
of Python's allocator and open files are noted twenty times; what counts is the second half, when
caches are full. Results go to benchmarks/results/leaks.json; the exit status is 1 where something
grows.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
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
from surefoot.posteriors.predictor import Predictor, build_predictor, compiled
from surefoot.potential import Potential
from surefoot.train.checkpoint import write_atomically

RESULTS = Path(__file__).parent / "results" / "leaks.json"
LOOKS = 20
MOST = 64
"""Bytes per prediction by which memory may seem to grow: pages come and go."""
NAMES = ("H2O", "CH3OH", "CH3CH2OH", "CO2", "HCOOH", "H2")
MODELS: dict[str, Any] = {
    "schnet": Schnet(cutoff=3.0, features=8, interactions=2, gaussians=8),
    "mace": Mace(cutoff=3.0, irreps="4x0e + 4x1o", max_ell=2, correlation=2),
}
Predict = Callable[[int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="predictions of each way")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(chosen.results.read_text()) if chosen.results.exists() else {}
    for name in chosen.only:
        found[name] = follow(WAYS[name](), chosen.count)
        print(name, json.dumps({k: v for k, v in found[name].items() if k != "looks"}), flush=True)
        write_atomically(chosen.results, (json.dumps(found, indent=1) + "\n").encode())
    sys.exit(0 if all(found[name]["flat"] for name in chosen.only) else 1)


def make(name: str) -> Predictor:
    """Two members that were never trained, with error bars of their own."""
    baseline = Baseline(elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=0.5, neighbors=3.0)
    potential = Potential(model=MODELS[name], head=MeanVariance(width=4), baseline=baseline)
    weights = stack([potential.init(seed, torch.float32) for seed in (0, 1)])
    return build_predictor(potential, Ensemble(weights), Calibration(energy=1.1, forces=0.9), {})


def structures() -> list[Atoms]:
    """Molecules of several sizes."""
    return [molecule(name) for name in NAMES]


def shaken(number: int, images: list[Atoms]) -> Atoms:
    """Each time somewhere else, so that nothing is known already."""
    atoms = images[number % len(images)].copy()
    atoms.positions += np.random.default_rng(number).normal(scale=0.03, size=atoms.positions.shape)
    return atoms


def predicting(predictor: Predictor) -> Predict:
    """Graph and prediction, stress and members included."""
    images = structures()

    def predict(number: int) -> None:
        graph = to_graph(shaken(number, images), predictor.cutoff)
        predictor(graph, stress=True, members=number % 2 == 0)

    return predict


def calculating(predictor: Predictor) -> Predict:
    """As a program does that moves atoms with ASE."""
    images, calculator = structures(), SurefootCalculator(predictor)

    def predict(number: int) -> None:
        atoms = shaken(number, images)
        atoms.calc = calculator
        atoms.get_forces()

    return predict


WAYS: dict[str, Callable[[], Predict]] = {
    "predictor": lambda: predicting(make("schnet")),
    "calculator": lambda: calculating(make("schnet")),
    "kernels": lambda: predicting(make("mace")),
    "compiled": lambda: predicting(compiled(make("schnet"))),
}


def follow(predict: Predict, count: int) -> dict[str, Any]:
    """What the process holds while it predicts.

    Args:
        predict: makes the prediction of a number.
        count: of predictions.
    """
    looks, began = [], time.monotonic()
    for number in range(count):
        predict(number)
        if (number + 1) % (count // LOOKS) == 0:
            looks.append({"predictions": number + 1, **look()})
    late = looks[LOOKS // 2 - 1 :]
    grown = {
        name: grow([one["predictions"] for one in late], [one[name] for one in late])
        for name in ("resident", "blocks")
    }
    files = {one["files"] for one in late}
    return {
        "predictions": count,
        "seconds": round(time.monotonic() - began, 1),
        "resident_mib": round(looks[-1]["resident"] / 2**20, 1),
        "resident_bytes_per_prediction": round(grown["resident"], 1),
        "blocks_per_prediction": round(grown["blocks"], 4),
        "files": looks[-1]["files"],
        "flat": grown["resident"] < MOST and grown["blocks"] < 0.05 and len(files) == 1,
        "looks": looks,
    }


def look() -> dict[str, int]:
    """Resident bytes, blocks of Python's allocator, open files."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "resident": pages * resource.getpagesize(),
        "blocks": sys.getallocatedblocks(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }


def grow(at: list[int], values: list[int]) -> float:
    """Slope of a line through values."""
    return float(np.polyfit(at, values, 1)[0])


if __name__ == "__main__":
    main()
