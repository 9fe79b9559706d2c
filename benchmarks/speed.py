"""How fast surefoot is beside its peers: one interleaved run, ratios, a table and a plot.

Usage: python benchmarks/speed.py [--quick] [--only mace64 …] [--work forces …]
           [--mace PYTHON] [--nequip PYTHON] [--schnetpack PYTHON]
       python benchmarks/speed.py table

A peer lives in an environment of its own, whose Python is named by the option, or by
SUREFOOT_MACE_PYTHON, SUREFOOT_NEQUIP or SUREFOOT_SCHNETPACK; without it the peer is left out, and
a line says so. Every program in every form is a process of its own; they take turns, and the others
sleep. A case replaces its row in results/speed.json and leaves the others, so parts can be run
alone and an interrupted run goes on with --missing. A machine with another processor keeps its rows
in a file of its own, results/speed_on_….json. `table` writes docs/speed.md, its plot and the
figures of docs/prices.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import price_list
from speed.cases import MEMBERS, SYSTEMS, WORK, Case, cases, inputs, orders
from speed.flops import estimate
from speed.machine import describe_machine, measure_peaks
from speed.table import write_page

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "speed.json"
VARIABLES = {
    "mace": "SUREFOOT_MACE_PYTHON",
    "nequip": "SUREFOOT_NEQUIP",
    "schnetpack": "SUREFOOT_SCHNETPACK",
}
# Both sides alike. `kept` lets glibc keep and reuse what is freed, as mallopt would.
ALLOCATORS = {
    "untouched": {},
    "kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36)},
}
SAME = ("cpu", "cores", "vectors")  # what rows of one table have in common
SETTLE = 0.3  # s; threads of OpenMP spin for so long after their last loop


class Worker:
    """One program in one form, in its own process."""

    def __init__(self, python: str, program: str, form: str, environment: dict[str, str]) -> None:
        self.name = f"{program} {form}"
        self.process = subprocess.Popen(
            [python, "-m", "speed.worker", program, form],
            cwd=HERE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """One order, one answer; {"error": …} where the program failed or died."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the worker has no pipes.")
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process has ended."}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process has ended."}

    def close(self) -> None:
        self.process.communicate()


def main() -> None:
    chosen = parse()
    if chosen.action == "table":
        write_page(RESULTS)
        price_list.main()
        return
    pythons = {"ours": sys.executable}
    for peer, variable in VARIABLES.items():
        python = getattr(chosen, peer) or os.environ.get(variable)
        if python is None:
            print(f"{peer} is left out: neither --{peer} nor {variable} names its Python")
        else:
            pythons[peer] = python
    dtypes = ["float32"] if chosen.quick else chosen.dtypes
    threads = [1] if chosen.quick else chosen.threads
    wanted = cases(chosen.only, chosen.work, dtypes, threads)
    # Of the caches of compilers nothing is left from earlier, unless a folder is named.
    with tempfile.TemporaryDirectory() as fresh:
        cache = (chosen.cache or Path(fresh)).resolve()
        for case in wanted:
            kept = load(own_results()).get("rows", {}).get(case.key)
            if chosen.missing and is_whole(kept, chosen.ours):
                continue
            print(case.key, flush=True)
            row = measure(case, pythons, chosen, cache)
            for line in summary(row):
                print("   ", line, flush=True)
            save(case, row)


def is_whole(row: dict[str, Any] | None, form: str) -> bool:
    """Whether a row is of this form of ours, and no program failed in it."""
    if row is None or row["ours"] != f"ours {form}":
        return False
    return not any("error" in entry for entry in row["programs"].values())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("--quick", action="store_true", help="float32 and one thread only")
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--ours", default="compiled", help="form of surefoot: see speed/ours.py")
    parser.add_argument("--peer-forms", nargs="+", help="only these forms of the peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn", type=float, default=0.5, help="s of one program in one round")
    parser.add_argument("--allocator", choices=ALLOCATORS, default="untouched")
    parser.add_argument("--missing", action="store_true", help="only cases without a row")
    parser.add_argument("--cache", type=Path, help="of compilers; a fresh folder where not named")
    for peer, variable in VARIABLES.items():
        parser.add_argument(f"--{peer}", help=f"Python of its environment, or {variable}")
    return parser.parse_args()


def measure(
    case: Case, pythons: dict[str, str], chosen: argparse.Namespace, cache: Path
) -> dict[str, Any]:
    """One row: what each program took, and the ratios of the same rounds."""
    environment = {
        **os.environ,
        **ALLOCATORS[chosen.allocator],
        "OMP_NUM_THREADS": str(case.threads),
        "MKL_NUM_THREADS": str(case.threads),
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # e3nn 0.4.4 loads its constants by pickle
        "PYTHONDONTWRITEBYTECODE": "1",
        "SPEED_CACHE": str(cache),
    }
    _, source, edges = inputs(case.work, case.size)
    row: dict[str, Any] = {
        "input": source,
        "edges": edges,
        "allocator": chosen.allocator,
        "ours": f"ours {chosen.ours}",
        "compiler_cache": "fresh folder" if chosen.cache is None else "kept folder",
        "when": time.strftime("%Y-%m-%d"),
        "programs": {},
    }
    if case.work == "forces":
        row["effort"] = estimate(orders(case, "forces"), edges)
    with ExitStack() as stack:
        team: list[Worker] = []
        for program, form, order in programs(case, chosen):
            if program not in pythons:
                continue
            # A folder for each: another release of torch stumbles over what this one keeps.
            own = environment | {
                "TORCHINDUCTOR_CACHE_DIR": str(cache / program / "inductor"),
                "SUREFOOT_CACHE": str(cache / program),  # ours goes before torch's own
            }
            worker = stack.enter_context(running(pythons[program], program, form, own))
            if order["work"] == "neighbors":
                worker.name = "neighbor list"
            answer = worker.ask({"do": "prepare", "case": order})
            row["programs"][worker.name] = answer
            if "error" not in answer:
                team.append(worker)
        if case.work in ("peak", "scaling"):
            for worker in team:
                row["programs"][worker.name] |= worker.ask({"do": "peak"})
        if case.work != "peak":
            take_turns(team, row, chosen, case.threads)
    return row


def programs(case: Case, chosen: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Who takes part, in which form, with which orders."""
    kind = "train" if case.work == "train" else "forces"
    members = MEMBERS if case.work == "members" else None
    yield "ours", chosen.ours, orders(case, kind, members)
    if case.work == "neighbors":
        yield "ours", chosen.ours, orders(case, "neighbors")
    for form in case.forms:
        if chosen.peer_forms is None or form in chosen.peer_forms:
            yield SYSTEMS[case.system].peer, form, orders(case, kind)


@contextmanager
def running(python: str, program: str, form: str, environment: dict[str, str]) -> Iterator[Worker]:
    worker = Worker(python, program, form, environment)
    try:
        yield worker
    finally:
        worker.close()


def take_turns(
    team: list[Worker], row: dict[str, Any], chosen: argparse.Namespace, threads: int
) -> None:
    """Round after round everybody in turn; then medians, quartiles and ratios within rounds."""
    kinds = ("wall", "cpu")
    times = {worker.name: {kind: [] for kind in kinds} for worker in team}
    for _ in range(chosen.rounds):
        for worker in list(team):
            if threads > 1:
                time.sleep(SETTLE)
            entry = row["programs"][worker.name]
            count = int(np.clip(chosen.turn / entry["call"], 1, 50))
            answer = worker.ask({"do": "time", "count": count})
            if "error" in answer:
                entry["error"] = answer["error"]
                team.remove(worker)
                continue
            for kind in kinds:
                times[worker.name][kind].append(np.array(answer[kind]))
    reference = times.get(row["ours"])
    for worker in team:
        entry, found = row["programs"][worker.name], times[worker.name]
        for kind in kinds:
            entry[f"{kind}_ms"] = spread(1000 * np.concatenate(found[kind]))
            if reference is not None and worker.name != row["ours"]:
                ratios = medians(found[kind]) / medians(reference[kind])
                entry[f"{kind}_over_ours"] = spread(ratios)
        entry["calls"] = sum(map(len, found["wall"]))


def medians(rounds: list[np.ndarray]) -> np.ndarray:
    return np.array([np.median(times) for times in rounds])


def spread(values: np.ndarray) -> list[float]:
    """Median and quartiles, four digits."""
    return [float(f"{v:.4g}") for v in np.percentile(values, [50, 25, 75])]


def summary(row: dict[str, Any]) -> Iterator[str]:
    for name, entry in row["programs"].items():
        if "error" in entry:
            yield f"{name}: left out, {entry['error']}"
            continue
        parts = [f"first call {entry['build'] + entry['first']:.1f} s"]
        if "wall_ms" in entry:
            parts.append("{:g} ms ({:g} to {:g})".format(*entry["wall_ms"]))
        if entry.get("megabytes") is not None:
            parts.append(f"{entry['megabytes']:.0f} MB")
        if "wall_over_ours" in entry:
            parts.append("{:g} × ours ({:g} to {:g})".format(*entry["wall_over_ours"]))
            parts.append("by CPU time {:g} × ({:g} to {:g})".format(*entry["cpu_over_ours"]))
        yield f"{name}: {', '.join(parts)}"


def own_results() -> Path:
    """The results of this machine: times of different ones do not belong in one table."""
    machine = describe_machine()
    here, known = (
        [one[name] for name in SAME] for one in (machine, load(RESULTS).get("machine", machine))
    )
    if known == here:
        return RESULTS
    name = re.sub("[^a-z0-9]+", "_", " ".join(map(str, here)).lower()).strip("_")
    return RESULTS.with_name(f"speed_on_{name}.json")


def load(results: Path) -> dict[str, Any]:
    return json.loads(results.read_text()) if results.exists() else {}


def save(case: Case, row: dict[str, Any]) -> None:
    """This row into the results as they are now; whole or not at all."""
    results = own_results()
    found = load(results)
    found.setdefault("machine", describe_machine())
    if "peaks" not in found:
        found["peaks"] = measure_peaks()
    rows = {**found.get("rows", {}), case.key: row}
    found["rows"] = dict(sorted(rows.items()))
    results.parent.mkdir(exist_ok=True)
    part = results.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(results)


if __name__ == "__main__":
    main()
