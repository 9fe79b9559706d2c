"""Does the guard stop in time? Trajectories driven out of the training region, and the true error.

Usage: SUREFOOT_DATA=… python benchmarks/guard.py [PIECE …] [--posterior ensemble] [--minutes 60]
           [--scale full] [--work FOLDER]
       python benchmarks/guard.py list | table

The truth is GFN2-xTB: the 300 K frames of acetylacetone that are published are of a DFT that can
not be run here, so its molecule is sampled anew by dynamics at 300 K on GFN2-xTB, and every frame
of the test is labelled by that too. Errors are those of a small MACE trained on it.

Pieces, each one JSON file in benchmarks/guard/POSTERIOR/ (those of the data in benchmarks/guard/),
those that others need first: sample_0 …, data, train, quiet_0 … (300 K), each kind of
driven trajectory, cost. What is there is not made again, an interrupted piece goes on, and after
--minutes none begins. A piece of another potential or config is refused. `table` chooses thresholds
on the quiet trajectories with even numbers and writes benchmarks/guard/README.md and a picture from
those with odd ones and from all that were driven. The posterior `single` has no uncertainty to be
stopped by: it is only trained, for `laplace` to begin from.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write
from ase.md.langevin import Langevin
from guard import cost, origin
from guard.choice import find_near
from guard.drive import GROUPS, TIMESTEP, drives, energy_per_root, highs, relabel, run
from guard.origin import sha256

from surefoot.calculator import predict_atoms
from surefoot.label.xtb import Xtb
from surefoot.motion.surface import PredictorSurface
from surefoot.posteriors.predictor import driver, knows_energies, load_predictor

HERE = Path(__file__).parent / "guard"
CONFIG: dict[str, Any] = yaml.safe_load((HERE / "config.yaml").read_text())
PER_PIECE = 5  # starts that one piece samples
ROLES = {"learn": 0.58, "valid": 0.67, "held": 0.76, "test": 1.0}
"""Starts up to this share of all go to each file: frames of one start are of one trajectory."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is run where."""

    posterior: str
    scale: dict[str, Any]
    work: Path
    kept: Path

    @property
    def data(self) -> Path:
        return self.work / "data"

    @property
    def potential(self) -> Path:
        return self.work / self.posterior / "calibrated" / "calibrated.safetensors"

    @property
    def data_settings(self) -> str:
        return origin.of_data(self.scale, ROLES)

    @property
    def settings(self) -> str:
        return origin.of_posterior(CONFIG, self.scale, self.posterior, self.data_settings)

    def alike(self, posterior: str) -> "Setting":
        return replace(self, posterior=posterior)


Piece = Callable[[Setting], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", nargs="*", help="names of pieces, `list` or `table`; all if none")
    parser.add_argument("--posterior", default="ensemble", choices=CONFIG["posteriors"])
    parser.add_argument("--minutes", type=float, default=60.0, help="after which none begins")
    parser.add_argument("--scale", default="full", choices=CONFIG["scales"])
    parser.add_argument("--work", type=Path, default=Path("runs/guard"))
    parser.add_argument("--kept", type=Path, default=HERE, help="folder of the JSON files")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting(
        posterior=chosen.posterior,
        scale=CONFIG["scales"][chosen.scale],
        work=chosen.work.resolve() / chosen.scale,
        kept=chosen.kept.resolve(),
    )
    every = dict(list_pieces(setting))
    if chosen.pieces == ["table"]:
        from guard.page import write_page

        for posterior in CONFIG["posteriors"]:
            made = setting.alike(posterior)
            for name, _ in list_pieces(made):
                if file_of(name, made).exists():
                    need(name, made)
        write_page(setting.kept, CONFIG)
        return
    if chosen.pieces == ["list"]:
        for name in every:
            print(name, "done" if file_of(name, setting).exists() else "")
        return
    end = time.monotonic() + 60 * chosen.minutes
    for name in chosen.pieces or every:
        if file_of(name, setting).exists():
            need(name, setting)
            continue
        if time.monotonic() > end:
            print(f"{chosen.minutes:g} minutes are over; the same command goes on with {name}")
            return
        keep(name, every[name], setting)


def list_pieces(setting: Setting) -> Iterator[tuple[str, Piece]]:
    for number in range(-(-setting.scale["starts"] // PER_PIECE)):
        yield f"sample_{number}", lambda s, n=number: sample(s, n)
    yield "data", gather
    yield "train", train
    if setting.posterior == "single":
        return
    for number in range(setting.scale["quiet"]["pieces"]):
        yield f"quiet_{number}", lambda s, n=number: be_quiet(s, n)
    for name, kind in CONFIG["driven"].items():
        yield name, lambda s, n=name, k=kind: be_driven(s, n, k)
    yield "cost", measure_cost


def file_of(name: str, setting: Setting) -> Path:
    shared = name.startswith("sample") or name == "data"
    return (setting.kept if shared else setting.kept / setting.posterior) / f"{name}.json"


def made_of(name: str, setting: Setting) -> dict[str, str]:
    """The config of a piece, and the potential of those that come after it."""
    if name.startswith("sample") or name == "data":
        return {"config": setting.data_settings}
    made = {"config": setting.settings}
    if name != "train" and setting.potential.exists():
        made["potential"] = sha256(setting.potential)
    elif name != "train":  # on another machine the JSON files have to do
        made["potential"] = need("train", setting)["sha256"]
    return made


def keep(name: str, piece: Piece, setting: Setting) -> None:
    began, processor = time.monotonic(), os.times()
    found = piece(setting)
    spent = os.times()
    used = sum(spent[:4]) - sum(processor[:4])  # by children too
    found["made_of"] = made_of(name, setting)
    found |= {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(used, 1)}
    file = file_of(name, setting)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".part").write_text(json.dumps(found) + "\n")
    file.with_suffix(".part").rename(file)
    print(f"{name}: {found['seconds']} s, {found['cpu_seconds']} s of CPU", flush=True)


def need(name: str, setting: Setting) -> dict[str, Any]:
    file = file_of(name, setting)
    if not file.exists():
        raise SystemExit(f"{name} comes first: {file} is not there.")
    found = json.loads(file.read_text())
    origin.require(file, found["made_of"], made_of(name, setting))
    if name == "train" and setting.potential.exists():
        origin.require(file, found, {"sha256": sha256(setting.potential)})
    return found


class Reference(Calculator):
    """The labeler as a calculator of ASE."""

    implemented_properties = ("energy", "forces")  # type: ignore[assignment]
    labeler = Xtb()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        labels = self.labeler.label(self.atoms, 0, 1)
        self.results = {"energy": labels.energy, "forces": labels.forces}


def sample(setting: Setting, number: int) -> dict[str, Any]:
    """Dynamics at 300 K on the reference, each start for itself."""
    scale = setting.scale
    published = Path(os.environ["SUREFOOT_DATA"]) / "acac" / "train_300K.xyz.gz"
    frames = list(iread(published, format="extxyz"))
    places = np.linspace(0, len(frames) - 1, scale["starts"]).round().astype(int)
    origin.claim(setting.data, {"config": setting.data_settings})
    chosen = range(number * PER_PIECE, min((number + 1) * PER_PIECE, scale["starts"]))
    counts = []
    for place in chosen:
        file = setting.data / f"start_{place:02d}.xyz"
        if not file.exists():
            images = follow(frames[places[place]], place, scale)
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file.with_suffix(".part"), images, format="extxyz")
            file.with_suffix(".part").rename(file)
        counts.append(len(list(iread(file))))
    return {"labeler": Xtb().describe(), "frames": counts}


def follow(first: Atoms, number: int, scale: dict[str, Any]) -> list[Atoms]:
    atoms = Atoms(first.numbers, first.positions)
    generator = np.random.default_rng(number)
    spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * 300.0)
    atoms.set_momenta(spread * generator.normal(size=(len(atoms), 3)))
    atoms.calc = Reference()
    dynamics = Langevin(
        atoms, units.fs, temperature_K=300, friction=0.01 / units.fs, fixcm=False, rng=generator
    )
    images = []
    for fs in dynamics.irun(scale["sampled"]):
        del fs
        done = dynamics.nsteps
        if done < scale["settle"] or (done - scale["settle"]) % scale["apart"]:
            continue
        image = Atoms(atoms.numbers, atoms.positions, info={"group": f"start-{number}"})
        image.calc = SinglePointCalculator(
            image, energy=atoms.get_potential_energy(), forces=atoms.get_forces(md=True)
        )
        images.append(image)
    return images


def gather(setting: Setting) -> dict[str, Any]:
    """All frames as files of roles; frames of one start have one role."""
    files = sorted(setting.data.glob("start_*.xyz"))
    if len(files) < setting.scale["starts"]:
        raise SystemExit(f"{len(files)} of {setting.scale['starts']} starts are sampled yet.")
    roles: dict[str, list[Atoms]] = {role: [] for role in ROLES}
    for number, file in enumerate(files):
        share = (number * 7 % len(files) + 0.5) / len(files)  # the set is in order of time
        role = next(name for name, end in ROLES.items() if share < end)
        roles[role] += list(iread(file))
    for role, images in roles.items():
        write(setting.data / f"{role}.xyz", images, format="extxyz")
    return {
        "frames": {role: len(images) for role, images in roles.items()},
        "sha256": {role: sha256(setting.data / f"{role}.xyz") for role in roles},
        "atoms": len(roles["learn"][0]),
    }


def train(setting: Setting) -> dict[str, Any]:
    """Train, calibrate on frames held out, and say what the error in distribution is."""
    data = need("data", setting)
    entry = dict(CONFIG["posteriors"][setting.posterior])
    base = entry.pop("base", None)
    content = {name: CONFIG[name] for name in ("model", "head", "loss")}
    content["train"] = CONFIG["train"] | {"epochs": setting.scale["epochs"]}
    content["data"] = {"train": ["learn.xyz"], "valid": ["valid.xyz"]}
    content |= entry
    if base is not None:
        made = setting.alike(base)
        data = {**data, "base": need("train", made)["sha256"]}
        content["start"] = content["start"] | {"potential": str(made.potential)}
        content = {k: v for k, v in content.items() if k not in ("model", "head")}
    folder = setting.potential.parent.parent
    origin.claim(
        folder, {"config": setting.settings, "data": data["sha256"], "base": data.get("base")}
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    if not (folder / "potential.safetensors").exists():
        resumed = ["--resume"] if (folder / "last.safetensors").exists() else []
        surefoot(
            "train", str(folder / "config.yaml"), "-o", str(folder), *resumed, cwd=setting.data
        )
    calibrated = folder / "calibrated"
    origin.claim(calibrated, {"potential": sha256(folder / "potential.safetensors")})
    if not setting.potential.exists():
        surefoot(
            *("calibrate", str(folder / "potential.safetensors"), "-o", str(setting.potential)),
            *(
                "--held-out",
                str(setting.data / "held.xyz"),
                "--train",
                str(setting.data / "learn.xyz"),
            ),
        )
    return {"sha256": sha256(setting.potential), **in_distribution(setting)}


def in_distribution(setting: Setting) -> dict[str, Any]:
    """Errors of what moves the atoms, the first draw, on frames of other starts at 300 K."""
    test = list(iread(setting.data / "test.xyz"))
    found = predict_atoms(driver(load_predictor(setting.potential)), test)
    errors = [
        np.linalg.norm(result["forces"] - atoms.get_forces(), axis=1)
        for result, atoms in zip(found, test, strict=True)
    ]
    worst = np.array([error.max() for error in errors])
    return {
        "rms_force_error": float(np.sqrt(np.mean(np.square(np.concatenate(errors))))),
        "worst_95": float(np.quantile(worst, 0.95)),
        "limit": float(CONFIG["limit"] * np.quantile(worst, 0.95)),
        "draws": load_predictor(setting.potential).draws,
        "closed": knows_energies(load_predictor(setting.potential)),
    }


def surefoot(*arguments: str, cwd: Path | None = None) -> None:
    program = [sys.executable, "-m", "surefoot"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*program, *arguments], cwd=cwd, check=True, env=environment)


def first_frames(setting: Setting, count: int, seed: int) -> list[Atoms]:
    """Frames of 300 K that the potential has not learned from."""
    test = list(iread(setting.data / "test.xyz"))
    chosen = np.random.default_rng(seed).choice(len(test), count, replace=count > len(test))
    return [Atoms(test[n].numbers, test[n].positions) for n in chosen]


def surface_of(setting: Setting) -> PredictorSurface:
    return PredictorSurface(predictor=load_predictor(setting.potential), drive="first")


def surface_name(setting: Setting) -> str:
    """What tells the runs of one potential and config from those of another."""
    return f"{sha256(setting.potential)} {setting.settings}"


def seen(frames: dict[str, np.ndarray], stop: int | None = None) -> dict[str, list[float]]:
    """What the guard would have looked at, by check."""
    norm, atoms = frames["forces_uncertainty_norm"].max(1), frames["ood_atoms"].max(1)
    values = {"norm": norm, "ood_atoms": atoms, "ood": frames["ood"]}
    values["energy"] = energy_per_root(frames)
    return {name: [float(f"{v:.4g}") for v in value[:stop]] for name, value in values.items()}


def be_quiet(setting: Setting, number: int) -> dict[str, Any]:
    """300 K: whatever stops here stops for nothing, unless the error says otherwise."""
    limit, scale = need("train", setting)["limit"], setting.scale["quiet"]
    structures = first_frames(setting, scale["count"], 100 + number)
    folder = setting.work / setting.posterior / f"quiet_{number}"
    found = run(
        folder, surface_of(setting), structures,
        kelvin=300.0, steps=scale["steps"], every=CONFIG["every"], seed=100 + number,
        potential=surface_name(setting),
    )  # fmt: skip
    return {
        "kelvin": 300,
        "checks": [len(frames["step"]) for frames in found],
        "trajectories": [highs(frames, limit) for frames in found],
    }


def be_driven(setting: Setting, name: str, kind: dict[str, Any]) -> dict[str, Any]:
    """Out of the training region; relabelled until the error has passed the limit."""
    limit, scale = need("train", setting)["limit"], setting.scale["driven"]
    seed = list(CONFIG["driven"]).index(name)
    structures = first_frames(setting, scale["count"], seed)
    alike = "pull" not in kind and "spring" not in kind
    groups = 1 if alike else min(GROUPS, len(structures))
    trajectories = []
    for group, surface in enumerate(drives(surface_of(setting), structures[0], kind, groups)):
        found = run(
            setting.work / setting.posterior / name / str(group),
            surface,
            structures[group::groups],
            kelvin=float(kind["kelvin"]),
            steps=scale["steps"],
            every=CONFIG["every"],
            seed=1000 * seed + group,
            potential=surface_name(setting),
        )
        for frames in found:
            errors = relabel(Xtb(), frames, limit, CONFIG["margin"])
            known = [None if np.isinf(error) else float(f"{error:.4g}") for error in errors]
            trajectories.append({"error": known, **seen(frames, len(errors))})
    fs = CONFIG["every"] * TIMESTEP
    return {"kelvin": kind["kelvin"], "fs": fs, "trajectories": trajectories}


def measure_cost(setting: Setting) -> dict[str, Any]:
    """Processor seconds of runs with and without a guard, and of how many all draws were asked."""
    known, scale = need("train", setting), setting.scale["cost"]
    pieces = range(setting.scale["quiet"]["pieces"])
    quiet = [t for n in pieces for t in need(f"quiet_{n}", setting)["trajectories"]]
    near = find_near(quiet)
    near_energy = find_near(quiet, "energy") if known["closed"] else None
    found = cost.measure(
        load_predictor(setting.potential),
        first_frames(setting, scale["count"], 0),
        cost.list_guards(CONFIG["every"], near, near_energy),
        scale,
        CONFIG["every"],
        setting.work / setting.posterior / "cost",
    )
    return {"near_ood": near, "near_energy": near_energy, **found}


if __name__ == "__main__":
    main()
