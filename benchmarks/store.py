"""A data set on disk: memory and speed of a training on many synthetic frames.

Clusters of 16 to 24 atoms of four elements, cut from a rattled lattice, with Lennard-Jones energies
and forces, are written as extended XYZ. Each piece runs in a process of its own, whose memory is
sampled all the time:

    make      writes the files
    convert   makes the store
    train     the whole way of `surefoot train` from there: store, data doctor, plan, steps of a
              SchNet, then calibration and gate; and what loading alone costs
    memory    a few frames without a store: what each takes in memory, and how fast they are joined

Writes results/store.json. Neighbours are searched anew for each batch; `neighbours` says what that
costs, and what it would to read them from disk instead.

Usage: OMP_NUM_THREADS=1 python benchmarks/store.py [PIECE …] [--frames N] [--steps N] [--work …]
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols

from surefoot.cli.check import diagnose
from surefoot.data.batches import BatchLimits, join, order_of_epoch, plan_batches
from surefoot.data.convert import Sample, to_samples
from surefoot.data.file_units import FileUnits
from surefoot.data.frame import Structure
from surefoot.data.joined import find_edges, join_structures
from surefoot.data.load import DataSettings, load_splits
from surefoot.data.read import Keys, read_frames
from surefoot.data.store import keep_frames
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.motion.lennard_jones import LennardJones
from surefoot.posteriors.ensemble import EnsembleSettings
from surefoot.posteriors.training import Parts, finish, plan_training, start
from surefoot.train.fit import TrainSettings, fit

RESULTS = Path(__file__).parent / "results" / "store.json"
PIECES = ("make", "convert", "train", "memory")
ELEMENTS = np.array([10, 18, 36, 54])  # with an even number of electrons, so without a spin
SURFACE = LennardJones(epsilon=0.1, sigma=2.2, cutoff=6.0, onset=5.0)
SPACING, RATTLE = 3.5, 0.12  # Å, edge of the cubic cell and standard deviation
FILES, CHUNK, FEW = 4, 1000, 4000
CUTOFF = 5.0
SEED = 7
MIB = 2**20
PARTS = Parts(
    model=Schnet(cutoff=CUTOFF, features=64, interactions=3),
    head=Scalar(),
    train=TrainSettings(batch=BatchLimits(graphs=16), compile="off", seed=SEED),
    posterior=EnsembleSettings(members=1),
)


def make_clusters(count: int, rng: np.random.Generator) -> list[Structure]:
    """Compact clusters of a face-centred lattice about a random centre."""
    corners = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), -1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    sites = SPACING * (corners + basis).reshape(-1, 3)
    clusters = []
    for _ in range(count):
        size = rng.integers(16, 25)
        nearest = np.argsort(np.linalg.norm(sites - SPACING * rng.random(3), axis=1))[:size]
        positions = sites[nearest] + RATTLE * rng.normal(size=(size, 3))
        numbers = rng.choice(ELEMENTS, size)
        clusters.append(Structure(numbers, positions, np.zeros((3, 3)), np.zeros(3, bool)))
    return clusters


def write_chunk(file, clusters: list[Structure]) -> None:
    graph = join_structures(clusters, [(0, 0)] * len(clusters), SURFACE.cutoff)
    found = SURFACE(graph, stress=False, uncertainty=False)
    forces = found.forces.split(graph.atom_counts.tolist())
    for cluster, energy, force in zip(clusters, found.energy.tolist(), forces, strict=True):
        rows = np.concatenate([cluster.positions, force.numpy()], axis=1).tolist()
        symbols = [chemical_symbols[number] for number in cluster.numbers]
        lines = [
            f"{s} {r[0]:.8f} {r[1]:.8f} {r[2]:.8f} {r[3]:.8f} {r[4]:.8f} {r[5]:.8f}\n"
            for s, r in zip(symbols, rows, strict=True)
        ]
        columns = "Properties=species:S:1:pos:R:3:REF_forces:R:3"
        file.write(f'{len(rows)}\n{columns} REF_energy={energy:.10f} pbc="F F F"\n{"".join(lines)}')


def make(work: Path, frames: int) -> dict[str, float]:
    rng, began = np.random.default_rng(SEED), time.process_time()
    for path in files_of(work):
        with path.open("w") as file:
            for _ in range(frames // FILES // CHUNK):
                write_chunk(file, make_clusters(CHUNK, rng))
    with (work / "few.xyz").open("w") as file:
        write_chunk(file, make_clusters(FEW, rng))
    size = sum(path.stat().st_size for path in files_of(work))
    return {"mib_of_text": size / MIB, "cpu_seconds": time.process_time() - began}


def files_of(work: Path) -> list[Path]:
    return [work / f"clusters_{number}.xyz" for number in range(FILES)]


def convert(work: Path, frames: int) -> dict[str, float]:
    began = time.process_time()
    keep_frames(files_of(work), Keys(), FileUnits(), work / "stores", print)
    spent = time.process_time() - began
    again = time.process_time()
    keep_frames(files_of(work), Keys(), FileUnits(), work / "stores", print)
    (store,) = (work / "stores").glob("*.store")
    size = sum(part.stat().st_size for part in store.iterdir())
    return {
        "cpu_seconds": spent,
        "frames_per_second": frames / spent,
        "cpu_seconds_to_open": time.process_time() - again,
        "mib_of_store": size / MIB,
        "bytes_per_frame": size / frames,
    }


def train(work: Path, steps: int) -> dict[str, object]:
    """All that `surefoot train` does, with so many steps."""
    phases: dict[str, dict[str, float]] = {}
    data = DataSettings(
        train=[str(path) for path in files_of(work)], valid=0.02, store=str(work / "stores")
    )
    with phase(phases, "open and split"):
        splits = load_splits(data, SEED, print)
    with phase(phases, "data doctor"):
        diagnose(splits.by_name())
    with phase(phases, "plan"):
        plan = plan_training(splits, PARTS, provenance={"config": {"data": data.model_dump()}})
    samples = plan.task.samples
    with phase(phases, "plan an epoch"):
        order = order_of_epoch(len(splits.train), SEED, 0)
        batches = plan_batches(samples, order, PARTS.train.batch)
    with phase(phases, "load"):
        loaded = sum(len(join(samples, indices).samples) for indices in batches[:500])
    left = iter([False] * (steps - 1) + [True])
    state = start(plan)
    with phase(phases, "steps"):
        fit(plan.task, state, stop=lambda: next(left))
    state.best = state.averages
    with phase(phases, "calibrate and gate"):
        predictor, _ = finish(plan, state)
    stepped = sum(len(indices) for indices in batches[:steps])
    loading = phases["load"]["cpu_seconds"] / loaded
    step = phases["steps"]["cpu_seconds"] / stepped
    return {
        "frames": len(splits.train) + len(splits.valid),
        "edges_per_frame": float(np.mean([sample.edges for sample in samples[:5000]])),
        "phases": phases,
        "steps": steps,
        "loading_frames_per_second": 1 / loading,
        "training_frames_per_second": 1 / step,
        "loading_share_of_step": loading / step,
        "neighbours": neighbours(samples[:2000]),
        "gate": predictor.gate.source if predictor.gate else None,
        "calibration": predictor.calibration.source,
    }


def neighbours(samples: list[Sample]) -> dict[str, float]:
    """Searching neighbours against reading them, half of the edges as 2-byte numbers."""
    structures = [sample.frame.structure for sample in samples]  # type: ignore[attr-defined]
    began = time.process_time()
    found = [find_edges(structure, CUTOFF) for structure in structures]
    searched = time.process_time() - began
    halves = [np.vstack([index, shift.T])[:, : index.shape[1] // 2] for index, shift in found]
    kept = np.concatenate(halves, axis=1).astype(np.int16)
    bounds = np.cumsum([0, *(half.shape[1] for half in halves)])
    began = time.process_time()
    for first, last in pairwise(bounds):
        half = kept[:, first:last].astype(np.int64)
        np.concatenate([half[:2], half[1::-1]], axis=1)
        np.concatenate([half[2:], -half[2:]], axis=1)
    read = time.process_time() - began
    return {
        "search_us_per_frame": 1e6 * searched / len(samples),
        "read_us_per_frame": 1e6 * read / len(samples),
        "bytes_per_frame_if_kept": kept.nbytes / len(samples),
    }


def memory(work: Path) -> dict[str, float]:
    """What frames and samples take in memory, and how fast they are joined there."""
    before = status()["RssAnon"]
    frames = read_frames([work / "few.xyz"])
    read = status()["RssAnon"]
    samples = to_samples(frames, CUTOFF)
    made = status()["RssAnon"]
    batches = plan_batches(samples, order_of_epoch(FEW, SEED, 0), PARTS.train.batch)
    began = time.process_time()
    for indices in batches:
        join(samples, indices)
    return {
        "kib_per_frame": 1024 * (read - before) / FEW,
        "kib_per_sample": 1024 * (made - read) / FEW,
        "loading_frames_per_second": FEW / (time.process_time() - began),
    }


# --- memory of a process ---------------------------------------------------------------------


def status() -> dict[str, float]:
    """Memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines)
    return {name: int(text.split()[0]) / 1024 for name, text in pairs if text.endswith("kB")}


class Watch:
    """The largest anonymous memory and the largest mapped files since it was asked last."""

    def __init__(self) -> None:
        self.peak = {"RssAnon": 0.0, "RssFile": 0.0, "VmRSS": 0.0}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.look()
            time.sleep(0.05)

    def look(self) -> None:
        now = status()
        self.peak = {name: max(value, now[name]) for name, value in self.peak.items()}

    def take(self) -> dict[str, float]:
        self.look()
        taken, self.peak = self.peak, dict.fromkeys(self.peak, 0.0)
        return taken


@contextlib.contextmanager
def phase(phases: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    WATCH.take()
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    phases[name] = {
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - wall,
        **{f"mib_{kind}": value for kind, value in WATCH.take().items()},
    }
    print(name, phases[name], flush=True)


def work_on(piece: str, options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(1)
    before = status()["VmRSS"]
    done: dict[str, object] = {
        "make": lambda: make(options.work, options.frames),
        "convert": lambda: convert(options.work, options.frames),
        "train": lambda: train(options.work, options.steps),
        "memory": lambda: memory(options.work),
    }[piece]()
    return done | {"mib_after_imports": before, "mib_peak_resident": status()["VmHWM"]}


WATCH: Watch


def main() -> None:
    global WATCH  # noqa: PLW0603 - one thread that looks at this process
    parser = argparse.ArgumentParser()
    parser.add_argument("pieces", nargs="*", default=[])
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--work", type=Path, default=Path("runs") / "store")
    parser.add_argument("--inside", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.inside:
        WATCH = Watch()
        options.inside.write_text(json.dumps(work_on(options.pieces[0], options)))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for piece in options.pieces or PIECES:
        answer = options.work / "answer.json"
        command = [sys.executable, __file__, piece, "--inside", str(answer)]
        command += ["--frames", str(options.frames), "--steps", str(options.steps)]
        subprocess.run([*command, "--work", str(options.work)], check=True)
        results[piece] = json.loads(answer.read_text())
        results |= {
            "frames": options.frames,
            "torch": torch.__version__,
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
