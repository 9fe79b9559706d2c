"""The stacked ensemble against a plain loop over its members: same numbers, measured in one run.

Writes results/ensemble_speed.json with the largest difference and the ratio of times (loop over
stacked, above 1 means the stack is faster) for training steps and for energy + forces.

Usage: python benchmarks/ensemble_speed.py [THREADS]
"""

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule

from surefoot.blocks.dense import Weights, unstack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import Targets, collate
from surefoot.heads import Scalar
from surefoot.models import Schnet
from surefoot.potential import Potential
from surefoot.train.loss import LossSettings
from surefoot.train.step import loss_gradients

MEMBERS, GRAPHS, ROUNDS = 8, 16, 7


def median_times(*functions: Callable[[], object]) -> list[float]:
    """Interleaved, so that a busy machine slows all of them alike."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for slot, function in zip(times, functions, strict=True):
            started = time.perf_counter()
            function()
            slot.append(time.perf_counter() - started)
    return [float(np.median(slot[1:])) for slot in times]


def difference(stacked: Weights, members: list[Weights]) -> float:
    """Largest deviation of any leaf, relative to the largest value of that leaf."""
    worst = 0.0
    for name, value in stacked.items():
        for number, member in enumerate(members):
            scale = float(member[name].abs().max()) or 1.0
            worst = max(worst, float((value[number] - member[name]).abs().max()) / scale)
    return worst


def measure(dtype: torch.dtype) -> dict[str, float]:
    rng = np.random.default_rng(0)
    graphs = []
    for _ in range(GRAPHS):
        atoms = molecule("C2H6CHOH")
        atoms.positions += rng.normal(scale=0.05, size=(len(atoms), 3))
        graphs.append(to_graph(atoms, 5.0))
    graph = collate(graphs)
    atoms_count = graph.numbers.shape[0]
    targets = Targets(
        energy=torch.tensor(rng.normal(size=GRAPHS)),
        forces=torch.tensor(rng.normal(size=(atoms_count, 3))),
        stress=torch.zeros(GRAPHS, 3, 3, dtype=torch.float64),
        has_energy=torch.ones(GRAPHS, dtype=torch.bool),
        has_forces=torch.ones(GRAPHS, dtype=torch.bool),
        has_stress=torch.zeros(GRAPHS, dtype=torch.bool),
        weight=torch.ones(GRAPHS, dtype=torch.float64),
        fixed=torch.zeros(atoms_count, dtype=torch.bool),
        group=torch.arange(GRAPHS),
    )
    potential = Potential(
        model=Schnet(features=64, interactions=3, activation="silu"),
        head=Scalar(activation="silu"),
        baseline=Baseline(elements=(1, 6, 8), energies=(0.0, 0.0, 0.0), scale=1.0, neighbors=1.0),
    )
    weights = potential.init_members(0, MEMBERS, dtype)
    members = unstack(weights)
    importance = torch.ones(MEMBERS, GRAPHS, dtype=torch.float64)
    loss = LossSettings()

    def train_stacked() -> Weights:
        return loss_gradients(potential, loss, weights, graph, targets, importance)[1]

    def train_loop() -> list[Weights]:
        return [
            loss_gradients(potential, loss, m, graph, targets, importance[0])[1] for m in members
        ]

    def predict_stacked() -> Weights:
        output = potential(weights, graph)
        return {"energy": output.energy.mean.detach(), "forces": output.forces.mean}

    def predict_loop() -> list[Weights]:
        outputs = [potential(member, graph) for member in members]
        return [{"energy": o.energy.mean.detach(), "forces": o.forces.mean} for o in outputs]

    stacked, loop = median_times(train_stacked, train_loop)
    together, one_by_one = median_times(predict_stacked, predict_loop)
    return {
        "gradients_difference": difference(train_stacked(), train_loop()),
        "outputs_difference": difference(predict_stacked(), predict_loop()),
        "train_ms_stacked": 1000 * stacked,
        "train_ms_loop": 1000 * loop,
        "train_ratio": loop / stacked,
        "predict_ms_stacked": 1000 * together,
        "predict_ms_loop": 1000 * one_by_one,
        "predict_ratio": one_by_one / together,
        "edges": graph.edge_index.shape[1],
    }


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    results = {
        "threads": threads,
        "members": MEMBERS,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "float32": measure(torch.float32),
        "float64": measure(torch.float64),
    }
    target = Path(__file__).parent / "results" / "ensemble_speed.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
