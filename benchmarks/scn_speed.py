"""SCN beside the original class in one run: forward pass and training step, one thread.

Usage: OMP_NUM_THREADS=1 python benchmarks/scn_speed.py [--peer PYTHON] [--only CASE …] [--rounds 9]
       [--forms plain compiled]

PYTHON has fairchem-core 1.10.0, as `tests/science/oracles/scn_values.py` says; without it only we
are timed. Both get the same structures, the same edges (found before the clock starts) and the same
weights; energies are compared first, and nothing is timed where they differ by more than 1e-5 of
the energy for m = 0, or 5e-3 for taps, whose frames are random in the original. Programs take
turns, a few calls each, and the clock is the CPU time of the process. Ratios are of the medians of
one round; median and quartiles over rounds stand in benchmarks/results/scn_speed.json.

A step is the loss 2 |E| + 100 |F| of the published recipe and its gradient by all weights.
`shares` says for one layer of the widest published configuration where our time goes.
"""

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
import torch
from ase import Atoms

RESULTS = Path(__file__).parent / "results" / "scn_speed.json"
ORACLE = Path(__file__).parents[1] / "tests" / "science" / "oracles" / "scn_values.py"
WIDE: dict[str, Any] = {
    "cutoff": 6.0,
    "max_num_neighbors": 40,
    "num_resolutions": 2,
    "lmax": 4,
    "num_taps": 4,
    "num_bands": 2,
    "num_interactions": 4,
    "sphere_channels": 32,
    "sphere_channels_reduce": 32,
    "hidden_channels": 128,
    "num_basis_functions": 64,
}
NARROW = {
    "num_interactions": 2,
    "sphere_channels": 8,
    "sphere_channels_reduce": 8,
    "hidden_channels": 16,
    "num_basis_functions": 8,
}
CASES = {
    "tiny": WIDE | NARROW,
    "lmax 4": WIDE,
    "lmax 4, m = 0": WIDE | {"mmax": 0, "num_bands": 1},
}
PUBLISHED = {
    "num_interactions": 1,
    "hidden_channels": 1024,
    "basis_width_scalar": 2.0,
    "num_taps": 4,
    "num_bands": 2,
    "max_num_neighbors": 40,
    "cutoff": 8.0,
}
"""One layer of 2M t4-b2 in full width."""
FORMS = ("plain", "compiled")
ALIKE = {"frame-free": 1e-5, "taps": 5e-3}
"""By how much energies may differ, relative to the first program's."""
SEED, STRUCTURES, TURN = 7, 2, 0.4  # seconds of one program at a time
Call = Callable[[], float]


def slabs() -> list[Atoms]:
    """Small slabs with OH, rattled so that no two distances are equal."""
    found = []
    for number in range(STRUCTURES):
        atoms = ase.build.fcc111("Cu", (2, 2, 3), vacuum=8.0)
        ase.build.add_adsorbate(atoms, ase.build.molecule("OH"), 1.6, "fcc")
        atoms.pbc = True
        atoms.set_cell(np.round(atoms.cell.array * 256) / 256)
        atoms.rattle(stdev=0.08, seed=number)
        found.append(atoms)
    return found


def weights_of(names: list[str], shapes: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """By the rule of the parity test."""
    rules = _oracle()
    filled = rules["fill_parameters"](names, shapes, SEED)
    return {name: torch.from_numpy(value).float() for name, value in filled.items()}


@functools.cache
def _oracle() -> dict[str, Any]:
    runpy = importlib.import_module("runpy")
    return runpy.run_path(str(ORACLE), run_name="rules")


def prepare_theirs(options: dict[str, Any]) -> tuple[dict[str, Call], Any]:
    """The original class, its graph given."""
    sys.modules.setdefault("torch_scatter", types.SimpleNamespace(scatter=None))  # type: ignore
    scn = importlib.import_module("fairchem.core.models.scn.scn")
    utils = importlib.import_module("fairchem.core.common.utils")
    model = scn.SphericalChannelNetwork(use_pbc_single=False, **options)
    parameters = dict(model.named_parameters())
    names = sorted(parameters)
    filled = weights_of(names, [tuple(parameters[n].shape) for n in names])
    with torch.no_grad():
        for name, value in filled.items():
            parameters[name].copy_(value)
    data = _oracle()["batch"](slabs())
    data.pos, data.cell = data.pos.float(), data.cell.float()
    found = utils.radius_graph_pbc(
        data, options["cutoff"], options["max_num_neighbors"], True, [True, True, True]
    )
    data.edge_index, data.cell_offsets, data.neighbors = found
    data.cell_offsets = data.cell_offsets.float()

    def forward() -> float:
        with torch.no_grad():
            return float(model(data)["energy"].sum())

    def step() -> float:
        model.zero_grad()
        out = model(data)
        loss = 2 * out["energy"].abs().mean() + 100 * out["forces"].norm(dim=-1).mean()
        loss.backward()
        return float(loss.detach())

    shapes = {name: tuple(parameters[name].shape) for name in names}
    return {"forward": forward, "step": step}, shapes


def prepare_ours(
    options: dict[str, Any], shapes: dict[str, Any], form: str
) -> tuple[dict[str, Call], Any]:
    """The converted potential, plain or compiled."""
    from surefoot.compiled import compile_potential
    from surefoot.data.convert import to_graph
    from surefoot.deploy.scn import build_scn
    from surefoot.graph import Targets, collate
    from surefoot.train.loss import LossSettings
    from surefoot.train.step import compile_gradients, loss_gradients

    names = sorted(shapes)
    state = weights_of(names, [tuple(shapes[name]) for name in names])
    elements = sorted({int(z) for atoms in slabs() for z in atoms.numbers})
    predictor = build_scn(state, options, elements=elements)
    potential, stacked = predictor.potential, predictor.weights
    weights = {name: value[0] for name, value in stacked.items()}
    graph = collate([to_graph(atoms, options["cutoff"]) for atoms in slabs()])
    atoms, graphs = graph.numbers.shape[0], graph.charge.shape[0]
    targets = Targets(
        energy=torch.zeros(graphs, dtype=torch.float64),
        forces=torch.zeros((atoms, 3), dtype=torch.float64),
        stress=torch.zeros((graphs, 3, 3), dtype=torch.float64),
        has_energy=torch.ones(graphs, dtype=torch.bool),
        has_forces=torch.ones(graphs, dtype=torch.bool),
        has_stress=torch.zeros(graphs, dtype=torch.bool),
        weight=torch.ones(graphs, dtype=torch.float64),
        fixed=torch.zeros(atoms, dtype=torch.bool),
        group=torch.arange(graphs),
    )
    loss = LossSettings(
        energy=2.0, forces=100.0, energy_rule="absolute", forces_rule="norm", energy_power=0.0
    )
    evaluate = compile_potential(potential) if form == "compiled" else potential
    gradients = compile_gradients(potential) if form == "compiled" else loss_gradients
    importance = torch.ones(graphs, dtype=torch.float64)

    def forward() -> float:
        with torch.no_grad():
            return float(evaluate(weights, graph).energy.mean.sum())

    def step() -> float:
        terms, _ = gradients(potential, loss, weights, graph, targets, importance)
        return float(terms["total"])

    return {"forward": forward, "step": step}, None


def worker(form: str) -> None:
    """Takes orders as lines of JSON, answers alike."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    calls: dict[str, Call] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "prepare":
            if form == "original":
                calls, shapes = prepare_theirs(order["options"])
            else:
                calls, shapes = prepare_ours(order["options"], order["shapes"], form)
            values = {name: call() for name, call in calls.items()}
            answer = {"shapes": shapes, "values": values, "torch": torch.__version__}
        else:
            answer = {"seconds": time_calls(calls[order["call"]])}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def time_calls(call: Call) -> list[float]:
    """CPU seconds of as many calls as fit into a turn, three at least."""
    found: list[float] = []
    while len(found) < 3 or (sum(found) < TURN and len(found) < 50):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return found


class Program:
    """A worker in a process of its own."""

    def __init__(self, python: str, form: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [python, __file__, "worker", form],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        given, said = self.process.stdin, self.process.stdout
        if given is None or said is None:
            raise SystemExit("a worker has no pipes.")
        given.write(json.dumps(order) + "\n")
        given.flush()
        line = said.readline()
        if not line:
            raise SystemExit("a worker ended; what it said stands above.")
        return json.loads(line)


def compare(options: dict[str, Any], programs: dict[str, Program], rounds: int) -> dict[str, Any]:
    """Times of one case."""
    shapes, row = None, {"options": options, "milliseconds": {}, "original_over_ours": {}}
    values = {}
    for form, program in programs.items():
        answer = program.ask(
            {"do": "prepare", "options": options, "shapes": shapes or own(options)}
        )
        shapes = answer["shapes"] or shapes
        values[form] = answer["values"]
        row.setdefault("torch", {})[form] = answer["torch"]
    row["values"] = values
    require_alike(values, options)
    for call in ("forward", "step"):
        times: dict[str, list[float]] = {form: [] for form in programs}
        for _ in range(rounds):
            for form, program in programs.items():
                found = program.ask({"do": "time", "call": call})["seconds"]
                times[form].append(float(np.median(found)))
        row["milliseconds"][call] = {
            form: spread(1000 * np.array(found)) for form, found in times.items()
        }
        if "original" in times:
            row["original_over_ours"][call] = {
                form: spread(np.array(times["original"]) / np.array(found))
                for form, found in times.items()
                if form != "original"
            }
    return row


def require_alike(values: dict[str, dict[str, float]], options: dict[str, Any]) -> None:
    """Refuse to time programs that do not compute the same."""
    (first, said), *others = values.items()
    # Of ours, which have the same frames, no less is asked for with taps.
    random = first == "original" and options.get("mmax", 1) > 0
    limit = ALIKE["taps" if random else "frame-free"]
    for form, found in others:
        off = abs(found["forward"] - said["forward"])
        if not off <= limit * abs(said["forward"]):
            raise SystemExit(
                f"{form} has the energy {found['forward']:.7g}, and {first} {said['forward']:.7g}: "
                f"they are to agree within {limit:g} before anything is timed."
            )


def own(options: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights where nobody else tells them."""
    from surefoot.deploy.scn import their_shapes

    return their_shapes(options)


def spread(values: np.ndarray) -> list[float]:
    """Median and quartiles, three digits."""
    return [float(f"{v:.3g}") for v in np.percentile(values, [50, 25, 75])]


def shares() -> dict[str, Any]:
    """What matrix products take of a step in full width."""
    from torch.profiler import ProfilerActivity, profile

    calls, _ = prepare_ours(PUBLISHED, own(PUBLISHED), "plain")
    found: dict[str, Any] = {"options": PUBLISHED}
    for name, call in calls.items():
        call()
        with profile(activities=[ProfilerActivity.CPU]) as record:
            call()
        times = {event.key: event.self_cpu_time_total for event in record.key_averages()}
        total = sum(times.values())
        products = sum(times.get(f"aten::{kind}", 0) for kind in ("mm", "bmm", "addmm", "baddbmm"))
        found[name] = {"seconds": round(total / 1e6, 2), "products": round(products / total, 3)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a Python with fairchem-core 1.10.0")
    parser.add_argument("--only", nargs="+", choices=[*CASES, "shares"], default=[*CASES, "shares"])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="of ours")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--target", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    pythons = {"original": chosen.peer} if chosen.peer else {}
    pythons |= dict.fromkeys(chosen.forms, sys.executable)
    programs = {form: Program(python, form) for form, python in pythons.items()}
    results = json.loads(chosen.target.read_text()) if chosen.target.exists() else {}
    for case in chosen.only:
        found = shares() if case == "shares" else compare(CASES[case], programs, chosen.rounds)
        results[case] = found
        print(case, json.dumps({k: v for k, v in found.items() if k != "options"}), flush=True)
        part = chosen.target.with_suffix(".part")
        part.write_text(json.dumps(results, indent=1) + "\n")
        part.replace(chosen.target)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2])
    else:
        main()
