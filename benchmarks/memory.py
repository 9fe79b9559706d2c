"""Time and peak memory of one evaluation, what belongs to all pairs kept or not.

    python benchmarks/memory.py keep --atoms 5184
    python benchmarks/memory.py recompute --atoms 192 --train
    python benchmarks/memory.py recompute --atoms 10125 --model schnet

Models of `speed/cases.py` on liquid water, compiled, float32, one thread: MACE 64x0e + 64x1o where
none is named. They are compiled on 192 atoms; what the process holds then is not counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from speed.cases import SYSTEMS, WATER, Case, orders
from speed.ours import build, build_potential, labels

from surefoot.compiled import compile_potential
from surefoot.graph import Graph
from surefoot.memory import keep_memory
from surefoot.train.loss import LossSettings
from surefoot.train.step import compile_gradients

SMALL = 192


def status(name: str) -> int:
    """A line of what Linux says of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))


def prepare(memory: str, system: str, *, train: bool) -> Callable[[int], Callable[[], object]]:
    """Atoms → what is timed."""
    first = orders(Case(system, "forces", SMALL, "float32", 1), "forces")
    potential = build_potential(first)
    weights = potential.init(0, torch.float32)
    evaluate = compile_potential(potential)
    step = compile_gradients(potential, "keep" if memory == "keep" else "recompute")
    type(potential.model).most_kept = 10**9 if memory == "keep" else 0

    def work(atoms: int) -> Callable[[], object]:
        case = orders(Case(system, "forces", atoms, "float32", 1), "forces")
        graph: Graph = build(case["structures"][0], case["cutoff"])
        if not train:
            return lambda: evaluate(weights, graph)
        importance = torch.ones(1, dtype=torch.float64)
        return lambda: step(potential, LossSettings(), weights, graph, labels(case), importance)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("memory", choices=("keep", "recompute"))
    parser.add_argument("--model", choices=SYSTEMS, default="mace64")
    parser.add_argument("--atoms", type=int, choices=sorted(WATER), default=1029)
    parser.add_argument("--train", action="store_true", help="the gradient of a loss")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    work = prepare(given.memory, given.model, train=given.train)
    work(SMALL)()
    call = work(given.atoms)
    before, seconds = status("VmRSS"), []
    for _ in range(given.repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    peak = (status("VmHWM") - before) / given.atoms
    print(
        f"{given.memory}, {given.atoms} atoms: {1e3 * statistics.median(seconds):.0f} ms of "
        f"processor time, {peak:.0f} kB per atom"
    )


if __name__ == "__main__":
    main()
