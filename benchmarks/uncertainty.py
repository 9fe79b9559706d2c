"""Which error bars hold: losses, heads and posteriors on one small MACE, in distribution and out.

Usage: SUREFOOT_DATA=… python benchmarks/uncertainty.py [RUN …] [--minutes 100] [--work FOLDER]
       python benchmarks/uncertainty.py list | table | cost | rejudge [RUN …]

Every run is a training of a few minutes (or none) and one JSON file in benchmarks/uncertainty/.
What is there is not run again; after --minutes no further run begins. `rejudge` calibrates and
tests potentials in --work anew, `cost` times them side by side (on a quiet machine), and `table`
writes benchmarks/uncertainty/README.md, and the figures of docs/prices.md, from the JSON files.

Of the training frames of a set every tenth is set aside for calibration (`held`) and every tenth
for choosing epochs and teaching judges (`valid`); the others are learned from.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import price_list
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from speed.machine import describe_machine
from uncertainty_cost import measure_cost
from uncertainty_page import describe

from surefoot.data.file_units import FileUnits
from surefoot.data.read import Keys, read_frames

HERE = Path(__file__).parent
KEPT = HERE / "uncertainty"
CONFIG, METHODS = KEPT / "config.yaml", KEPT / "methods.yaml"
SPENT = "cpu_seconds.json"
TEST_FRAMES = 800  # of each test file, evenly spaced


@dataclass(frozen=True)
class Set:
    """A data set: frames to learn from, to test on, and others unlike them."""

    train: str
    test: str
    ood: str | None = None
    units: FileUnits = FileUnits()


SETS = {
    "3bpa": Set("3bpa/train_300K.xyz.gz", "3bpa/test_300K.xyz.gz", "3bpa/test_600K.xyz.gz"),
    "acac": Set("acac/train_300K.xyz.gz", "acac/test_MD_300K.xyz.gz"),
    "aspirin": Set(
        "rmd17/rmd17_aspirin_train_01.npz",
        "rmd17/rmd17_aspirin_test_01.npz",
        units=FileUnits(energy="kcal/mol"),
    ),
}


@dataclass(frozen=True)
class Run:
    """A training, or a fit to a trained potential.

    Attributes:
        method: what is compared; runs of one method differ by seed or members.
        seed: of the initial weights and the order of batches.
        data: key of SETS.
        changes: section or section.key → what it is instead of what config.yaml says.
        base: the run whose potential it begins from.
        pool: runs whose potentials are its members; nothing is trained then.
    """

    method: str
    seed: int
    data: str = "3bpa"
    changes: Mapping[str, Any] = field(default_factory=dict)
    base: str | None = None
    pool: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the JSON file and the folder."""
        return f"{lead_of(self.data)}{self.method}_{self.seed}"

    @property
    def trained(self) -> bool:
        """Whether all of its weights are trained, and not only something fitted to another's."""
        return self.base is None and not self.pool


def list_runs() -> Iterator[Run]:
    """All of them, what others need first."""
    methods: dict[str, dict[str, Any]] = yaml.safe_load(METHODS.read_text())
    for data in SETS:
        for method, entry in methods.items():
            yield from list_runs_of(method, entry, methods, data)


def list_runs_of(
    method: str, entry: Mapping[str, Any], methods: Mapping[str, Any], data: str
) -> Iterator[Run]:
    """The runs of a method on a set."""
    often = "seeds" if data == "3bpa" else "elsewhere"
    lead = lead_of(data)
    if "pool" in entry:
        pool = entry["pool"]
        chosen = list(combinations(range(methods[pool].get(often, 0)), entry.get("of", 5)))[::11][
            :5
        ]
        for number, seeds in enumerate(chosen[: None if lead == "" else entry.get(often, 0)]):
            members = tuple(f"{lead}{pool}_{seed}" for seed in seeds)
            yield Run(method, number, data, pool=members)
        return
    for seed in range(entry.get(often, 0)):
        base = f"{lead}{entry['base']}_{seed}" if "base" in entry else None
        yield Run(method, seed, data, entry.get("set", {}), base)


def lead_of(data: str) -> str:
    """What the names of the runs of a set begin with."""
    return "" if data == "3bpa" else f"{data}_"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="*", help="names of runs, all if none; or as above")
    parser.add_argument("--minutes", type=float, default=100.0, help="after which none begins")
    parser.add_argument("--work", type=Path, default=Path("runs/uncertainty"))
    chosen = parser.parse_args()
    every, work = {run.name: run for run in list_runs()}, chosen.work.resolve()
    command, *names = chosen.what or [""]
    if command == "table":
        (KEPT / "README.md").write_text(describe(every, KEPT))
        price_list.main()
    elif command == "list":
        for name in every:
            print(name, "done" if (KEPT / f"{name}.json").exists() else "")
    elif command == "cost":
        keep(KEPT / "cost.json", measure_cost(work))
    elif command == "rejudge":
        for name in names or every:
            if (KEPT / f"{name}.json").exists():
                (work / name / "calibrated.safetensors").unlink(missing_ok=True)
                judge(every[name], work)
    else:
        go_on(every, chosen.what, work, chosen.minutes)


def go_on(every: Mapping[str, Run], names: Sequence[str], work: Path, minutes: float) -> None:
    """Do what is not done."""
    end = time.monotonic() + 60 * minutes
    for name in names or every:
        if (KEPT / f"{name}.json").exists():
            continue
        if time.monotonic() > end:
            print(f"{minutes:g} minutes are over; the same command goes on with {name}")
            return
        make(every[name], work)
        judge(every[name], work)


def make(run: Run, work: Path) -> None:
    """The potential, unless it is there."""
    frames = prepare(run.data, work)
    folder = work / run.name
    made = folder / "potential.safetensors"
    if made.exists():
        return
    if run.pool:
        folder.mkdir(parents=True, exist_ok=True)
        members = [str(work / name / "potential.safetensors") for name in run.pool]
        surefoot("combine", *members, "-o", str(made))
    else:
        train(run, work, frames)


def judge(run: Run, work: Path) -> None:
    """Calibrate it on frames held out, test it, keep the figures."""
    frames = prepare(run.data, work)
    folder = work / run.name
    made, potential = folder / "potential.safetensors", folder / "calibrated.safetensors"
    if not potential.exists():
        surefoot(
            *("calibrate", str(made), "--held-out", str(frames / "held.xyz")),
            *("--train", str(frames / "learn.xyz"), "-o", str(potential)),
        )
    tests = [str(frames / "test.xyz")]
    tests += ["--ood", str(frames / "ood.xyz")] if (frames / "ood.xyz").exists() else []
    surefoot("compare", str(potential), *tests, "-o", str(folder / "compare"))
    report = json.loads((folder / "compare" / "report.json").read_text())
    (figures,) = report["potentials"].values()
    spent = [seconds_of(work / name) for name in run.pool or (run.name,)]
    found = {
        "method": run.method,
        "seed": run.seed,
        "data": run.data,
        "changes": run.changes,
        "base": run.base,
        "pool": run.pool,
        "processor": describe_machine()["cpu"],
        "cpu_seconds": None if None in spent else round(sum(filter(None, spent))),
        "frames": report["frames"],
        "sha256": hashlib.sha256(potential.read_bytes()).hexdigest(),
        "figures": trim(figures),
    }
    keep(KEPT / f"{run.name}.json", found)
    print(f"{run.name}: done", flush=True)


def keep(file: Path, found: Mapping[str, Any]) -> None:
    file.with_suffix(".part").write_text(json.dumps(found) + "\n")
    file.with_suffix(".part").rename(file)


def train(run: Run, work: Path, frames: Path) -> None:
    """In the folder of the frames; an interrupted one goes on."""
    folder = work / run.name
    changes = {**run.changes, "train.seed": run.seed}
    drop: tuple[str, ...] = ()
    if run.base is not None:
        changes["start.potential"] = str(work / run.base / "potential.safetensors")
        drop = ("model", "head")  # those of the file, but for what is changed
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(configure(changes, drop))
    resume = ["--resume"] if (folder / "last.safetensors").exists() else []
    before = seconds_of(folder) if resume else 0.0
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        surefoot("train", str(folder / "config.yaml"), "-o", str(folder), *resume, cwd=frames)
    finally:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
        total = None if before is None else before + own
        (folder / SPENT).write_text(json.dumps(total))


def seconds_of(folder: Path) -> float | None:
    """Processor seconds of a training, compilation included; None where nobody has counted."""
    file = folder / SPENT
    return json.loads(file.read_text()) if file.exists() else None


def configure(changes: Mapping[str, Any], drop: tuple[str, ...]) -> str:
    """config.yaml without some sections and with the changes."""
    content: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    kept = {name: part for name, part in content.items() if name not in drop}
    return yaml.safe_dump(change(kept, changes))


def change(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with changes by section or section.key, whole sections first."""
    kept: dict[str, Any] = deepcopy(dict(content))
    for key in sorted(changes, key=lambda key: key.count(".")):
        section, _, name = key.partition(".")
        if name:
            kept.setdefault(section, {})[name] = changes[key]
        else:
            kept[section] = deepcopy(changes[key])
    return kept


def prepare(name: str, work: Path) -> Path:
    """The frames of a set as files: learn, valid, held, test and, where there are any, ood."""
    folder = work / name
    done = folder / "test.xyz"  # the last one to be written
    if done.exists():
        return folder
    data, chosen = Path(os.environ["SUREFOOT_DATA"]), SETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    frames = labelled(data / chosen.train, chosen.units)
    for number, atoms in enumerate(frames):  # chosen at random by who made the set
        atoms.info["group"] = f"{name}-{number}"
    aside = {"valid.xyz": slice(4, None, 10), "held.xyz": slice(9, None, 10)}
    for file, places in aside.items():
        write(folder / file, frames[places])
    write(folder / "learn.xyz", [f for n, f in enumerate(frames) if n % 5 != 4])
    for file, source in (("ood.xyz", chosen.ood), ("test.xyz", chosen.test)):
        if source is not None:
            tested = labelled(data / source, chosen.units)
            places = np.linspace(0, len(tested) - 1, min(TEST_FRAMES, len(tested))).round()
            write(folder / file, [tested[int(n)] for n in places])
    return folder


def labelled(file: Path, units: FileUnits) -> list[Atoms]:
    """Structures with energies in eV and forces in eV/Å, isolated atoms left out."""
    found = []
    for frame in read_frames([str(file)], Keys(), units):
        if len(frame.atoms) > 1:
            atoms = frame.atoms.copy()
            atoms.info, atoms.arrays = {}, {k: atoms.arrays[k] for k in ("numbers", "positions")}
            atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
            found.append(atoms)
    return found


def surefoot(*arguments: str, cwd: Path | None = None) -> None:
    program = str(Path(sys.executable).parent / "surefoot")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([program, *arguments], cwd=cwd, check=True, env=environment)


def trim(figures: dict[str, Any]) -> dict[str, Any]:
    """Without machine paths, times of a busy machine, and curves that are not looked at again."""
    kept = {name: part for name, part in figures.items() if name not in ("file", "cost")}
    for part in ("test", "ood"):
        for held in kept.get(part, {}).get("uncertainty", {}).values():
            curves = held.pop("curves", {})
            held["curves"] = {n: curves[n] for n in ("calibration", "pit") if n in curves}
    return kept


if __name__ == "__main__":
    main()
