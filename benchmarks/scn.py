"""How equivariant has SCN to be? Rotation error against accuracy at equal budget, on slabs.

Usage: python benchmarks/scn.py [RUN …] [--only VARIANT …] [--minutes 100] [--budget 3.5]
           [--work FOLDER]
       python benchmarks/scn.py list | table

The set is benchmarks/scn/slabs (`scn_slabs.py`: adsorbates on Cu, Pd and Pt, GFN1-xTB). Every run
is one training and one JSON file in benchmarks/scn/, with as many epochs as fit into --budget
minutes of CPU time, found by short trials of its variant; all together take about 160 minutes and
the trials. Equal time is equal only on one kind of processor, so runs of another one are refused
beside those that are there. What is there is not run again; after --minutes no further run begins,
and one that was interrupted goes on. Two processes can share the work: a run that another one holds
is passed over.
`table` writes benchmarks/scn/README.md and the plot beside it.

Variants stand in benchmarks/scn/variants.yaml: the dial (orders, taps, bands and SO(2), forces
direct as published), and SCN beside SchNet and MACE with forces that are gradients.
"""

import argparse
import fcntl
import gzip
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from scn.judge import errors, knowing_nothing, refined, rotation_errors
from scn.table import describe
from speed.machine import describe_machine, require_same_processor

from surefoot.posteriors.predictor import load_predictor

HERE = Path(__file__).parent
KEPT = HERE / "scn"
SLABS, VARIANTS = KEPT / "slabs", KEPT / "variants.yaml"
SEEDS = 3
TRIALS = {"scn": (2, 6), "schnet": (2, 10), "mace": (2, 10)}
"""Model → epochs of the two trials whose difference says what an epoch costs."""
OFF = 0.15
"""Of its budget: by how much more or less the training of a run may take."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        variant: in variants.yaml.
        seed: of weights and order.
        changes: of the config, section by section.
        kind: of all runs of a variant that share a row of the table; empty for the usual one.
        times: the usual budget.
    """

    variant: str
    seed: int
    changes: Mapping[str, Any]
    kind: str = ""
    times: float = 1.0

    @property
    def label(self) -> str:
        """Of its row."""
        return f"{self.variant}, {self.kind}" if self.kind else self.variant

    @property
    def name(self) -> str:
        """Of the JSON file and the folder."""
        return "_".join(part for part in (self.variant, self.kind, str(self.seed)) if part)


def list_runs() -> Iterator[Run]:
    """All of them, one seed after the other, then those of one seed alone."""
    told: dict[str, Any] = yaml.safe_load(VARIANTS.read_text())
    variants = told["variants"]
    for seed in range(SEEDS):
        for name, changes in variants.items():
            yield Run(name, seed, changes)
    for name in told["twice"]:
        yield Run(name, 0, variants[name], "twice", 2.0)
    for name, rate in told["rate"].items():
        train = {**variants[name].get("train", {}), "learning_rate": rate}
        yield Run(name, 0, {**variants[name], "train": train}, "rate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="names of runs, `list` or `table`; all if none")
    parser.add_argument("--only", nargs="+", help="variants, all of whose runs are taken")
    parser.add_argument("--minutes", type=float, default=100.0, help="after which none begins")
    parser.add_argument("--budget", type=float, default=3.5, help="CPU minutes of a training")
    parser.add_argument("--work", type=Path, default=Path("runs/scn"))
    parser.add_argument("--kept", type=Path, default=KEPT, help="where the JSON files go")
    chosen = parser.parse_args()
    every = {run.name: run for run in list_runs()}
    if chosen.runs == ["table"]:
        describe([(name, run.label) for name, run in every.items()], chosen.kept)
        return
    if chosen.runs == ["list"]:
        for name in every:
            print(name, "done" if (chosen.kept / f"{name}.json").exists() else "")
        return
    known = {run.variant for run in every.values()}
    unknown = [name for name in chosen.runs if name not in every]
    unknown += [name for name in chosen.only or [] if name not in known]
    if unknown:
        parser.error(f"there is no run or variant {unknown[0]}; `list` names all.")
    require_same_processor(describe_machine()["cpu"], chosen.kept.glob("*.json"))
    work, end = chosen.work.resolve(), time.monotonic() + 60 * chosen.minutes
    for folder in (chosen.kept, work):
        folder.mkdir(parents=True, exist_ok=True)
    with held(work / "frames.lock"):
        prepare(work)
    for name in chosen.runs or every:
        if chosen.only and every[name].variant not in chosen.only:
            continue
        if time.monotonic() > end:
            print(f"{chosen.minutes:g} minutes are over; the same command goes on with {name}")
            return
        with held(work / f"{name}.lock", wait=False) as mine:
            if mine and not (chosen.kept / f"{name}.json").exists():
                do(every[name], work, chosen.kept, 60 * chosen.budget)


@contextmanager
def held(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Whether nobody else has the lock; it ends with the process, however that ends."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def do(run: Run, work: Path, kept: Path, budget: float) -> None:
    """Find out how many epochs there are time for, train, judge, keep the figures."""
    frames, folder, budget = work / "frames", work / run.name, run.times * budget
    with held(work / f"trial_{run.variant}.lock"):
        start, epoch = find_costs(run, work, frames)
    epochs = max(2, round(budget / epoch))
    potential = folder / "potential.safetensors"
    if not potential.exists():
        train(run, folder, frames, epochs)
    used, start = sum(spent(folder)), start * len(spent(folder))
    if abs(used - start - budget) > OFF * budget:
        raise SystemExit(
            f"{run.name}: {epochs} epochs took {used:.0f} s, {start:.0f} of them to start, and "
            f"{budget:.0f} were to be had. Remove {folder} and {work}/trial_{run.variant}*, and "
            "try when the machine is quieter."
        )
    predictor = load_predictor(potential)
    parts = {part: read(frames / f"{part}.xyz", ":") for part in ("train", "test", "ood_ads")}
    judged = ("test", "ood_ads")
    found = {
        "variant": run.variant,
        "seed": run.seed,
        "kind": run.kind,
        "processor": describe_machine()["cpu"],
        "changes": run.changes,
        "budget": budget,
        "epochs": epochs,
        "cpu_seconds_of_an_epoch": round(epoch, 3),
        "cpu_seconds_to_start": round(start, 1),
        "cpu_seconds": round(used),
        "parameters": sum(value.numel() for value in predictor.weights.values()),
        "knowing_nothing": {part: knowing_nothing(parts["train"], parts[part]) for part in judged},
    }
    for name, asked in (("trained", predictor), ("fine", refined(predictor))):
        found[name] = {part: errors(asked, parts[part]) for part in judged}
        found[name]["rotations"] = rotation_errors(asked, parts["test"])
    file = kept / f"{run.name}.json"
    file.with_suffix(".part").write_text(json.dumps(found) + "\n")
    file.with_suffix(".part").rename(file)
    test = {key: value for key, value in found["trained"]["test"].items() if key != "systems"}
    print(f"{run.name}: {epochs} epochs, {used:.0f} s", json.dumps(test), flush=True)


def find_costs(run: Run, work: Path, frames: Path) -> tuple[float, float]:
    """CPU seconds of the start of a training of this variant, and of each epoch."""
    stored = work / f"trial_{run.variant}.json"
    if not stored.exists():
        first = Run(run.variant, 0, run.changes)
        few, many = TRIALS[run.changes["model"]["name"]]
        costs = []
        # The first one compiles, and leaves the result in a cache for the others.
        for number, epochs in enumerate((few, few, many)):
            folder = work / f"trial_{run.variant}_{number}"
            train(first, folder, frames, epochs)
            costs.append(sum(spent(folder)))
        epoch = (costs[2] - costs[1]) / (many - few)
        if epoch <= 0:
            raise SystemExit(
                f"{run.variant}: {many} epochs took {costs[2]:.1f} s and {few} took "
                f"{costs[1]:.1f} s; remove {work}/trial_{run.variant}* and try again."
            )
        part = stored.with_suffix(".part")
        part.write_text(json.dumps([max(0.0, costs[1] - few * epoch), epoch]))
        part.rename(stored)
    start, epoch = json.loads(stored.read_text())
    return start, epoch


def train(run: Run, folder: Path, frames: Path, epochs: int) -> None:
    """In the folder of the frames; an interrupted run goes on, and its CPU time is added up."""
    if (folder / "potential.safetensors").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = deepcopy(yaml.safe_load(VARIANTS.read_text())["config"])
    for section, values in run.changes.items():
        config[section] = {**config.get(section, {}), **values}
    config["train"] |= {"epochs": epochs, "seed": run.seed}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    resume = ["--resume"] if (folder / "last.safetensors").exists() else []
    program = str(Path(sys.executable).parent / "surefoot")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        subprocess.run(
            [program, "train", str(folder / "config.yaml"), "-o", str(folder), *resume],
            cwd=frames,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=(folder / "train.log").open("a"),
        )
    finally:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        more = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        with (folder / SPENT).open("a") as file:
            file.write(f"{more:.2f}\n")


SPENT = "cpu_seconds"
"""File in the folder of a run: a line for each time that it began or went on."""


def spent(folder: Path) -> list[float]:
    """CPU seconds of the trainings in a folder, those that were interrupted included."""
    file = folder / SPENT
    return [float(line) for line in file.read_text().split()] if file.exists() else []


def prepare(work: Path) -> None:
    """The parts as files with adsorption energies: total energy minus reference."""
    folder = work / "frames"
    if (folder / "ood_ads.xyz").exists():  # the last one to be written
        return
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "valid", "test", "ood_ads"):
        lines = (SLABS / f"{part}.txt").read_text().splitlines()
        with gzip.open(SLABS / f"{part}.extxyz.gz", "rt") as file:
            frames = read(file, ":", format="extxyz")
        adsorbed = []
        for atoms, line in zip(frames, lines, strict=True):
            sid, fid, reference = line.split(",")
            if (sid, fid) != (f"random{atoms.info['sid']}", f"frame{atoms.info['fid']}"):
                raise SystemExit(f"{part}: the line {line} does not belong to its frame.")
            energy = atoms.get_potential_energy() - float(reference)
            forces = atoms.get_forces(apply_constraint=False)
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            atoms.info["group"] = sid
            adsorbed.append(atoms)
        file = folder / f"{part}.part"
        write(file, adsorbed, format="extxyz", columns=COLUMNS)
        file.rename(folder / f"{part}.xyz")


COLUMNS = ["symbols", "positions", "move_mask", "tags", "forces"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
