"""How equivariant has SCN to be? Rotation error against accuracy at equal budget, on slabs.

Usage: python benchmarks/scn.py [RUN …] [--minutes 100] [--budget 6] [--work FOLDER]
       python benchmarks/scn.py list | table

The set is benchmarks/scn/slabs (`scn_slabs.py`: adsorbates on Cu, Pd and Pt, GFN1-xTB). Every run
is one training and one JSON file in benchmarks/scn/, with as many epochs as fit into --budget
minutes of CPU time, found by a short trial of its variant. What is there is not run again; after
--minutes no further run begins, and one that was interrupted goes on. `table` writes
benchmarks/scn/README.md and the plot beside it.

Variants stand in benchmarks/scn/variants.yaml: the dial (orders, taps, bands and SO(2), forces
direct as published), and SCN beside SchNet and MACE with forces that are gradients.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from scipy.spatial.transform import Rotation

from surefoot.data.convert import to_graph
from surefoot.evaluate.oc20 import energy_mae, energy_within, forces_cosine, forces_mae
from surefoot.graph import collate
from surefoot.posteriors.predictor import Predictor, load_predictor

HERE = Path(__file__).parent
KEPT = HERE / "scn"
SLABS, VARIANTS = KEPT / "slabs", KEPT / "variants.yaml"
SEEDS = 3
TURNED, ROTATIONS = 48, 4  # structures whose rotations are tried, and how many of each
TRIAL = (1, 3)  # epochs of the two trials whose difference says what an epoch costs


@dataclass(frozen=True)
class Run:
    """One training."""

    variant: str
    seed: int
    changes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the JSON file and the folder."""
        return f"{self.variant}_{self.seed}"


def list_runs() -> Iterator[Run]:
    """All of them, one seed after the other."""
    variants: dict[str, Any] = yaml.safe_load(VARIANTS.read_text())["variants"]
    for seed in range(SEEDS):
        for name, changes in variants.items():
            yield Run(name, seed, changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="names of runs, `list` or `table`; all if none")
    parser.add_argument("--minutes", type=float, default=100.0, help="after which none begins")
    parser.add_argument("--budget", type=float, default=6.0, help="CPU minutes of a training")
    parser.add_argument("--work", type=Path, default=Path("runs/scn"))
    parser.add_argument("--kept", type=Path, default=KEPT, help="where the JSON files go")
    chosen = parser.parse_args()
    every = {run.name: run for run in list_runs()}
    if chosen.runs == ["table"]:
        describe(every, chosen.kept)
        return
    if chosen.runs == ["list"]:
        for name in every:
            print(name, "done" if (chosen.kept / f"{name}.json").exists() else "")
        return
    unknown = [name for name in chosen.runs if name not in every]
    if unknown:
        parser.error(f"there is no run {unknown[0]}; `list` names all.")
    end = time.monotonic() + 60 * chosen.minutes
    chosen.kept.mkdir(parents=True, exist_ok=True)
    for name in chosen.runs or every:
        if (chosen.kept / f"{name}.json").exists():
            continue
        if time.monotonic() > end:
            print(f"{chosen.minutes:g} minutes are over; the same command goes on with {name}")
            return
        do(every[name], chosen.work.resolve(), chosen.kept, 60 * chosen.budget)


def do(run: Run, work: Path, kept: Path, budget: float) -> None:
    """Find out how many epochs there are time for, train, judge, keep the figures."""
    frames, folder = prepare(work), work / run.name
    trial = find_epoch_cost(run, work, frames)
    epochs = max(2, round(budget / trial))
    used = 0.0
    potential = folder / "potential.safetensors"
    if not potential.exists():
        used = train(run, folder, frames, epochs)
    predictor = load_predictor(potential)
    found = {
        "variant": run.variant,
        "seed": run.seed,
        "changes": run.changes,
        "budget": budget,
        "epochs": epochs,
        "cpu_seconds_of_an_epoch": round(trial, 3),
        "cpu_seconds": round(used),
        "parameters": sum(value.numel() for value in predictor.weights.values()),
        **{part: errors(predictor, frames / f"{part}.xyz") for part in ("test", "ood_ads")},
        "rotations": rotation_errors(predictor, frames / "test.xyz"),
    }
    file = kept / f"{run.name}.json"
    file.with_suffix(".part").write_text(json.dumps(found) + "\n")
    file.with_suffix(".part").rename(file)
    print(f"{run.name}: {epochs} epochs, {used:.0f} s", json.dumps(found["test"]), flush=True)


def find_epoch_cost(run: Run, work: Path, frames: Path) -> float:
    """CPU seconds of an epoch of this variant, start and compilation not counted."""
    stored = work / f"trial_{run.variant}.json"
    if not stored.exists():
        first = Run(run.variant, 0, run.changes)
        # The first one compiles, and leaves the result in a cache for the others.
        epochs = (TRIAL[0], *TRIAL)
        costs = [
            train(first, work / f"trial_{run.variant}_{number}", frames, count)
            for number, count in enumerate(epochs)
        ]
        stored.write_text(json.dumps((costs[2] - costs[1]) / (TRIAL[1] - TRIAL[0])))
    return max(0.01, float(json.loads(stored.read_text())))


def train(run: Run, folder: Path, frames: Path, epochs: int) -> float:
    """In the folder of the frames; an interrupted run goes on. CPU seconds that it took."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = deepcopy(yaml.safe_load(VARIANTS.read_text())["config"])
    for section, values in run.changes.items():
        config[section] = {**config.get(section, {}), **values}
    config["train"] |= {"epochs": epochs, "seed": run.seed}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    resume = ["--resume"] if (folder / "last.safetensors").exists() else []
    program = str(Path(sys.executable).parent / "surefoot")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [program, "train", str(folder / "config.yaml"), "-o", str(folder), *resume],
        cwd=frames,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "train.log").open("a"),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(work: Path) -> Path:
    """The parts as files with adsorption energies: total energy minus reference."""
    folder = work / "frames"
    if (folder / "ood_ads.xyz").exists():  # the last one to be written
        return folder
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
        write(folder / f"{part}.xyz", adsorbed, format="extxyz", columns=COLUMNS)
    return folder


COLUMNS = ["symbols", "positions", "move_mask", "tags", "forces"]


def free(atoms: Atoms) -> np.ndarray:
    return atoms.get_tags() != 0


def ask(predictor: Predictor, frames: list[Atoms]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Energies and forces, some structures at a time."""
    energies, forces = [], []
    for begin in range(0, len(frames), 32):
        part = frames[begin : begin + 32]
        found = predictor(collate([to_graph(atoms, predictor.cutoff) for atoms in part]))
        energies.append(found.energy.mean.double().numpy())
        parts = found.forces.mean.double().split([len(atoms) for atoms in part])
        forces += [piece.numpy() for piece in parts]
    return np.concatenate(energies), forces


def errors(predictor: Predictor, file: Path) -> dict[str, float]:
    """Errors in meV and meV/Å, of forces on free atoms; and those of who knows nothing."""
    frames = read(file, ":")
    energies, forces = ask(predictor, frames)
    right = np.array([atoms.get_potential_energy() for atoms in frames])
    true = np.concatenate([a.get_forces(apply_constraint=False)[free(a)] for a in frames])
    found = np.concatenate([f[free(a)] for a, f in zip(frames, forces, strict=True)])
    return {
        "energy_mae": 1000 * energy_mae(energies - right),
        "energy_mae_of_mean": 1000 * energy_mae(right - right.mean()),
        "energy_within": energy_within(energies - right),
        "forces_mae": 1000 * forces_mae(found - true),
        "forces_mae_of_zero": 1000 * forces_mae(true),
        "forces_cosine": forces_cosine(found, true),
    }


def rotation_errors(predictor: Predictor, file: Path) -> dict[str, float]:
    """What turning a structure changes: energies in meV, forces in meV/Å and relative."""
    frames = read(file, ":")
    frames = frames[:: max(1, len(frames) // TURNED)][:TURNED]
    energies, forces = ask(predictor, frames)
    moved, pulled, size = [], [], np.concatenate(forces)
    for number in range(ROTATIONS):
        matrix = Rotation.random(random_state=number).as_matrix()
        turned = [atoms.copy() for atoms in frames]
        for atoms in turned:
            atoms.set_cell(atoms.cell.array @ matrix.T)
            atoms.positions = atoms.positions @ matrix.T
        others, there = ask(predictor, turned)
        moved.append(np.abs(others - energies))
        pulled.append(np.concatenate(there) - size @ matrix.T)
    difference = np.stack(pulled)
    return {
        "energy_mae": 1000 * float(np.stack(moved).mean()),
        "forces_mae": 1000 * float(np.abs(difference).mean()),
        "forces_relative": float(np.linalg.norm(difference) / np.linalg.norm(size))
        / ROTATIONS**0.5,
    }


FIGURES = {
    "epochs": ("epochs",),
    "energy, meV": ("test", "energy_mae"),
    "forces, meV/Å": ("test", "forces_mae"),
    "cosine": ("test", "forces_cosine"),
    "energy, unseen": ("ood_ads", "energy_mae"),
    "forces, unseen": ("ood_ads", "forces_mae"),
    "ΔE by turning, meV": ("rotations", "energy_mae"),
    "ΔF by turning, relative": ("rotations", "forces_relative"),
}


def describe(every: Mapping[str, Run], kept: Path) -> None:
    """A page with a table, means and standard deviations over seeds, and the plot."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, run in every.items():
        file = kept / f"{name}.json"
        if file.exists():
            found.setdefault(run.variant, []).append(json.loads(file.read_text()))
    lines = ["# SCN as a dial of equivariance", "", *INTRODUCTION, ""]
    lines += [f"| variant | seeds | {' | '.join(FIGURES)} |", "|---" * (len(FIGURES) + 2) + "|"]
    for variant, entries in found.items():
        cells = [show([look(entry, path) for entry in entries]) for path in FIGURES.values()]
        lines.append(f"| {variant} | {len(entries)} | {' | '.join(cells)} |")
    example = next(iter(found.values()), [None])[0]
    if example:
        lines += ["", baseline_line(example)]
    lines += ["", "![rotation error against accuracy](dial.svg)"]
    (kept / "README.md").write_text("\n".join(lines) + "\n")
    draw(found, kept / "dial.svg")


def baseline_line(entry: Mapping[str, Any]) -> str:
    test, unseen = entry["test"], entry["ood_ads"]
    return (
        f"Who always says the mean energy is off by {test['energy_mae_of_mean']:.0f} meV"
        f" ({unseen['energy_mae_of_mean']:.0f} unseen), who says no force by "
        f"{test['forces_mae_of_zero']:.0f} meV/Å ({unseen['forces_mae_of_zero']:.0f})."
    )


def look(entry: Any, path: tuple[str, ...]) -> float:
    for name in path:
        entry = entry[name]
    return float(entry)


def show(values: list[float]) -> str:
    """Three digits of the mean, and two of the standard deviation over seeds."""
    mean = f"{np.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({np.std(values, ddof=1):.2g})"


def draw(found: Mapping[str, list[dict[str, Any]]], target: Path) -> None:
    """Force error against rotation error, both on logarithmic axes, as SVG by hand."""
    points = [
        (
            variant,
            look(entry, ("rotations", "forces_relative")),
            look(entry, ("test", "forces_mae")),
        )
        for variant, entries in found.items()
        for entry in entries
    ]
    if not points:
        return
    sys.path.insert(0, str(HERE))
    from scn.plot import scatter

    target.write_text(
        scatter(points, "rotation error of forces, relative", "force MAE, meV/Å, free atoms")
    )


INTRODUCTION = [
    "Written by `python benchmarks/scn.py table` from the JSON files beside this page, one for each"
    " run; variants: `variants.yaml`; data: `slabs` (GFN1-xTB, made by `scn_slabs.py`).",
    "",
    "Every run has the same CPU time on one thread. Mean over seeds, standard deviation over seeds"
    " in brackets; errors are mean absolute ones, of adsorption energies and of forces on free"
    " atoms. *Unseen* is an adsorbate that was not learned from. *Turning*: what changes when a"
    " structure is turned at random. `scn_…`, `schnet` and `mace` have forces that are gradients;"
    " the others direct ones.",
]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
