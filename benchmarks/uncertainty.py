"""Which error bars hold: losses, heads and posteriors on one small MACE, in distribution and out.

Usage: SUREFOOT_DATA=… python benchmarks/uncertainty.py [RUN …] [--minutes 100] [--work FOLDER]
       python benchmarks/uncertainty.py list | table

Every run is a training of a few minutes (or none) and one JSON file in benchmarks/uncertainty/.
What is there is not run again; after --minutes no further run begins. `table` writes
benchmarks/uncertainty/README.md from the JSON files.

Of the training frames of a set every tenth is set aside for calibration (`held`) and every tenth
for choosing epochs and teaching judges (`valid`); the others are learned from.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from surefoot.data.file_units import FileUnits
from surefoot.data.read import Keys, read_frames

HERE = Path(__file__).parent
KEPT = HERE / "uncertainty"
CONFIG, METHODS = KEPT / "config.yaml", KEPT / "methods.yaml"
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
        lead = "" if self.data == "3bpa" else f"{self.data}_"
        return f"{lead}{self.method}_{self.seed}"


ELSEWHERE = ("squared", "joint_nll")  # methods that are tried on other sets too


def list_runs() -> Iterator[Run]:
    """All of them, what others need first."""
    methods: dict[str, dict[str, Any]] = yaml.safe_load(METHODS.read_text())
    for method, entry in methods.items():
        if "pool" in entry:
            seeds = range(methods[entry["pool"]]["seeds"])
            for number, chosen in enumerate(list(combinations(seeds, 5))[::11][:5]):
                yield Run(method, number, pool=tuple(f"{entry['pool']}_{seed}" for seed in chosen))
        for seed in range(entry.get("seeds", 0)):
            base = f"{entry['base']}_{seed}" if "base" in entry else None
            yield Run(method, seed, changes=entry.get("set", {}), base=base)
    for data in SETS:
        for method in ELSEWHERE if data != "3bpa" else ():
            yield Run(method, 0, data, methods[method].get("set", {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="names of runs, `list` or `table`; all if none")
    parser.add_argument("--minutes", type=float, default=100.0, help="after which none begins")
    parser.add_argument("--work", type=Path, default=Path("runs/uncertainty"))
    chosen = parser.parse_args()
    every = {run.name: run for run in list_runs()}
    if chosen.runs == ["table"]:
        (KEPT / "README.md").write_text(describe(every))
        return
    if chosen.runs == ["list"]:
        for name in every:
            print(name, "done" if (KEPT / f"{name}.json").exists() else "")
        return
    end = time.monotonic() + 60 * chosen.minutes
    work = chosen.work.resolve()
    for name in chosen.runs or every:
        if (KEPT / f"{name}.json").exists():
            continue
        if time.monotonic() > end:
            print(f"{chosen.minutes:g} minutes are over; the same command goes on with {name}")
            return
        do(every[name], work)


def do(run: Run, work: Path) -> None:
    """Train or fit it, calibrate it on frames held out, judge it, keep the figures."""
    frames = prepare(run.data, work)
    folder = work / run.name
    potential = folder / "calibrated.safetensors"
    began = time.monotonic()
    if not potential.exists():
        made = folder / "potential.safetensors"
        if run.pool:
            folder.mkdir(parents=True, exist_ok=True)
            members = [str(work / name / "potential.safetensors") for name in run.pool]
            made.unlink(missing_ok=True)
            surefoot("combine", *members, "-o", str(made))
        elif not made.exists():
            train(run, work, frames)
        surefoot(
            *("calibrate", str(made), "--held-out", str(frames / "held.xyz")),
            *("--train", str(frames / "learn.xyz"), "-o", str(potential)),
        )
    seconds = time.monotonic() - began
    tests = [str(frames / "test.xyz")]
    tests += ["--ood", str(frames / "ood.xyz")] if (frames / "ood.xyz").exists() else []
    surefoot("compare", str(potential), *tests, "-o", str(folder / "compare"))
    report = json.loads((folder / "compare" / "report.json").read_text())
    (figures,) = report["potentials"].values()
    found = {
        "method": run.method,
        "seed": run.seed,
        "data": run.data,
        "changes": run.changes,
        "base": run.base,
        "pool": run.pool,
        "seconds": round(seconds),
        "frames": report["frames"],
        "plain_milliseconds": report["cost"]["milliseconds"],
        "sha256": hashlib.sha256(potential.read_bytes()).hexdigest(),
        "figures": trim(figures),
    }
    file = KEPT / f"{run.name}.json"
    file.with_suffix(".part").write_text(json.dumps(found) + "\n")
    file.with_suffix(".part").rename(file)
    print(f"{run.name}: {seconds:.0f} s", flush=True)


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
    surefoot("train", str(folder / "config.yaml"), "-o", str(folder), *resume, cwd=frames)


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
    """Without curves and machine paths."""
    kept = {name: part for name, part in figures.items() if name != "file"}
    for part in ("test", "ood"):
        for held in kept.get(part, {}).get("uncertainty", {}).values():
            held.pop("curves", None)
    return kept


@dataclass(frozen=True)
class Column:
    """A figure of each run.

    Attributes:
        title: with its unit.
        path: where it stands among the figures; the first number of a list counts.
        form: how it is printed.
    """

    title: str
    path: tuple[str, ...]
    form: str = ".2f"


def errors(part: str, quantity: str) -> tuple[str, ...]:
    return (part, "accuracy", quantity, "all", "rmse")


def bars(part: str, quantity: str, *row: str) -> tuple[str, ...]:
    return (part, "uncertainty", quantity, *row)


TABLES = {
    "Errors and cost (RMSE; meV/atom and meV/Å)": (
        Column("energy", errors("test", "energy")),
        Column("forces", errors("test", "forces"), ".1f"),
        Column("energy, other", errors("ood", "energy")),
        Column("forces, other", errors("ood", "forces"), ".1f"),
        Column("energy σ / plain", ("cost", "over_plain_energy")),
        Column("force σ / plain", ("cost", "over_plain")),
    ),
    "Energies: error bars": (
        Column("95 % before", bars("test", "energy", "before", "coverage_95"), ".3f"),
        Column("after", bars("test", "energy", "after", "coverage_95"), ".3f"),
        Column("other", bars("ood", "energy", "after", "coverage_95"), ".3f"),
        Column("CRPS", bars("test", "energy", "after", "crps")),
        Column("Spearman", bars("test", "energy", "after", "spearman")),
        Column("AUSE", bars("test", "energy", "after", "ause")),
    ),
    "Forces: error bars": (
        Column("95 % before", bars("test", "forces", "before", "coverage_95"), ".3f"),
        Column("after", bars("test", "forces", "after", "coverage_95"), ".3f"),
        Column(
            "conformal", bars("test", "forces", "recalibrated", "conformal", "coverage_95"), ".3f"
        ),
        Column("other", bars("ood", "forces", "after", "coverage_95"), ".3f"),
        Column("CRPS", bars("test", "forces", "after", "crps")),
        Column("Spearman", bars("test", "forces", "after", "spearman")),
        Column("AUSE", bars("test", "forces", "after", "ause")),
    ),
    "Finding failures: AUROC in a 1:1 mixture of test and other structures": (
        Column("gate", ("failures", "auroc", "ood", "failures"), ".3f"),
        Column("force σ", ("failures", "auroc", "force σ, rms of atoms", "failures"), ".3f"),
        Column("energy σ", ("failures", "auroc", "energy σ per atom", "failures"), ".3f"),
        Column(
            "predicted energy",
            ("failures", "auroc", "predicted energy per atom", "failures"),
            ".3f",
        ),
        Column("predicted force", ("failures", "auroc", "predicted rms force", "failures"), ".3f"),
    ),
}


def describe(every: Mapping[str, Run]) -> str:
    """A page of tables: means over the runs of a method, their standard deviation in brackets."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, run in every.items():
        file = KEPT / f"{name}.json"
        if file.exists():
            key = run.method if run.data == "3bpa" else f"{run.data}: {run.method}"
            found.setdefault(key, []).append(json.loads(file.read_text()))
    lines = ["# Error bars that were tried", "", *INTRODUCTION]
    for title, columns in TABLES.items():
        lines += ["", f"## {title}", ""]
        lines += [f"| method | runs | {' | '.join(c.title for c in columns)} |"]
        lines += ["|" + "---|" * (len(columns) + 2)]
        for method, entries in found.items():
            cells = [show(column, entries) for column in columns]
            lines.append(f"| {method} | {len(entries)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def show(column: Column, entries: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over runs; a dash where there is none."""
    values = [value for entry in entries if (value := look(entry["figures"], column)) is not None]
    if not values:
        return "–"
    mean = format(float(np.mean(values)), column.form)
    if len(values) == 1:
        return mean
    return f"{mean} ({format(float(np.std(values, ddof=1)), column.form)})"


def look(figures: Mapping[str, Any], column: Column) -> float | None:
    place: Any = figures
    for name in column.path:
        if not isinstance(place, dict) or name not in place:
            return None
        place = place[name]
    return place[0] if isinstance(place, list) else place


INTRODUCTION = [
    "Written by `python benchmarks/uncertainty.py table` from the JSON files beside this page, one"
    " for each run; configs: `config.yaml` and `methods.yaml`.",
    "",
    "3BPA unless another set is named: learned from 400 frames at 300 K, epochs chosen on 50,"
    " calibrated on another 50, tested on 800 at 300 K (*test*) and 800 at 600 K (*other*)."
    " Mean over runs, standard deviation over runs in brackets. Ensembles are five of eight members"
    " each, so their runs share members.",
]


if __name__ == "__main__":
    main()
