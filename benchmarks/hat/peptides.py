"""SchNet, Allegro and MACE on transfers of capped amino acids, and the ensemble of the best."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ase.io

from hat.scores import Barriers, frame_errors, judge_paths, whole_paths
from hat.training import Plan, epochs_for, find_cost, train, trial_of
from hat.work import CONFIG, Piece, Setting, label, need, sha256, surefoot
from surefoot.posteriors.predictor import load_predictor

SEEDS = {"learn": 1, "valid": 2, "test": 3, "held": 4, "seen": 5, "held_paths": 6, "unseen": 7}
PARTS = ("learn", "valid", "test", "held", "held_paths", "seen_paths", "unseen_paths")
ARCHITECTURES = tuple(CONFIG["architectures"])


def list_pieces(setting: Setting) -> Iterator[tuple[str, Piece]]:
    """What others need first."""
    yield "structures", make_structures
    for method in setting.methods:
        yield f"labels_{method}", partial(make_labels, method=method)
    for name in ARCHITECTURES:
        yield f"cost_{name}", partial(measure_cost, architecture=name)
    for method in setting.methods:
        for name in ARCHITECTURES:
            for rate in setting.rates(name):
                piece = partial(tune, method=method, architecture=name, rate=rate)
                yield f"tune_{method}_{name}_{rate}", piece
    for method in setting.methods:
        for name in ARCHITECTURES:
            for size in setting.scale["sizes"]:
                piece = partial(learn, method=method, architecture=name, size=size)
                yield f"curve_{method}_{name}_{size}", piece
    for seed in range(1, setting.scale["members"]):
        yield f"member_{seed}", partial(add_member, seed=seed)
    yield "ensemble", gather


def make_structures(setting: Setting) -> dict[str, Any]:
    """Configurations and scans, by the program."""
    folder, scale = setting.folder("structures"), setting.scale
    counts = {
        "learn": max(scale["sizes"]), "valid": scale["valid"], "test": scale["test"],
        "held": scale["held"],
    }  # fmt: skip
    low, high = CONFIG["translations"]["sample"]
    for part, count in counts.items():
        donors = CONFIG["donors"]["held" if part == "held" else "learn"]
        _make(folder / f"{part}.xyz", "sample", donors, (low, high), SEEDS[part], "--count", count)
    kinds = {"seen": "learn", "held": "held", "unseen": "unseen"}
    for part, count in scale["paths"].items():
        file, donors = folder / f"{part}_paths.xyz", CONFIG["donors"][kinds[part]]
        seed = SEEDS.get(f"{part}_paths", SEEDS[part])
        more = ("--paths", count, "--points", CONFIG["points"])
        _make(file, "scan", donors, CONFIG["translations"]["scan"], seed, *more)
    found = {part: ase.io.read(folder / f"{part}.xyz", ":") for part in PARTS}
    return {
        "frames": {part: len(images) for part, images in found.items()},
        "atoms": [min(map(len, found["learn"])), max(map(len, found["unseen_paths"]))],
        "sha256": {part: sha256(folder / f"{part}.xyz") for part in PARTS},
    }


def _make(file: Path, verb: str, donors: list[str], ways: Any, seed: int, *more: object) -> None:
    if file.exists():
        return
    part = file.with_suffix(".part.xyz")
    low, high = ways
    surefoot(
        *("hat", verb, "-o", part, "--donors", ",".join(donors), "--seed", seed, *more),
        *("--radicals", ",".join(CONFIG["radicals"]), "--shortest", low, "--longest", high),
        log=file.with_suffix(".log"),
    )
    part.rename(file)


def make_labels(setting: Setting, method: str) -> dict[str, Any]:
    """Labels of all parts on one core, and the first frames as files of their own."""
    need("structures", setting)
    folder = setting.folder(method)
    found = {
        part: label(
            setting.work / "structures" / f"{part}.xyz", folder / f"{part}.xyz", "--method", method
        )
        for part in PARTS
    }
    images = ase.io.read(folder / "learn.xyz", ":")
    for size in {*setting.scale["sizes"], setting.scale["tune"]["size"]}:
        ase.io.write(folder / f"learn_{size}.xyz", images[:size], format="extxyz")
    return {"method": method, "parts": found}


def _files(size: int) -> dict[str, list[str]]:
    return {"train": [f"learn_{size}.xyz"], "valid": ["valid.xyz"]}


def measure_cost(setting: Setting, architecture: str) -> dict[str, Any]:
    """What a frame of an epoch costs, the same for both labels."""
    frames, size = setting.work / CONFIG["main"], setting.scale["tune"]["size"]
    need(f"labels_{CONFIG['main']}", setting)
    cost = find_cost(architecture, frames, _files(size), size, trial_of(architecture, setting))
    return {"architecture": architecture, "cpu_s_per_frame_and_epoch": cost}


def _train(
    setting: Setting, folder: str, method: str, size: int, seconds: float, plan: Plan
) -> tuple[Path, int]:
    """Train for so many CPU seconds; the potential and its epochs, for which `plan` has none."""
    need(f"labels_{method}", setting)
    cost = need(f"cost_{plan.architecture}", setting)["cpu_s_per_frame_and_epoch"]
    epochs = epochs_for(seconds, cost, size)
    done = replace(plan, epochs=epochs)
    return train(setting.work / folder, setting.work / method, _files(size), done), epochs


def tune(setting: Setting, method: str, architecture: str, rate: float) -> dict[str, Any]:
    """A short training at one rate, judged by the barriers of held residues."""
    budget = setting.scale["tune"]
    plan = Plan(architecture=architecture, rate=rate, epochs=0)
    folder = f"tune/{method}_{architecture}_{rate}"
    made, epochs = _train(setting, folder, method, budget["size"], budget["seconds"], plan)
    rows = _judge(made, setting, method, "held_paths")
    return {"rate": rate, "epochs": epochs, "held_mae": Barriers(rows).mae()}


def _judge(potential: Path, setting: Setting, method: str, part: str) -> list[dict[str, Any]]:
    paths = whole_paths(setting.work / method / f"{part}.xyz")
    return judge_paths(load_predictor(potential), paths, CONFIG["level"])


def best_rate(setting: Setting, method: str, architecture: str) -> float:
    rates = setting.rates(architecture)
    found = [need(f"tune_{method}_{architecture}_{rate}", setting) for rate in rates]
    return min(found, key=lambda one: one["held_mae"][0])["rate"]


def learn(setting: Setting, method: str, architecture: str, size: int) -> dict[str, Any]:
    """A training of the whole budget, and its errors."""
    rate = best_rate(setting, method, architecture)
    plan = Plan(architecture=architecture, rate=rate, epochs=0)
    folder = curve_folder(method, architecture, size)
    made, epochs = _train(setting, folder, method, size, setting.scale["seconds"], plan)
    return {
        "method": method, "architecture": architecture, "size": size, "rate": rate,
        "epochs": epochs, **judge(made, setting, method),
    }  # fmt: skip


def curve_folder(method: str, architecture: str, size: int) -> str:
    return f"curve/{method}_{architecture}_{size}"


def judge(potential: Path, setting: Setting, method: str) -> dict[str, Any]:
    """Errors in distribution, and of scans of residues learned from, held and unseen."""
    predictor, folder = load_predictor(potential), setting.work / method
    return {
        "sha256": sha256(potential),
        "parameters": sum(value.numel() for value in predictor.weights.values()),
        "draws": predictor.draws,
        "test": frame_errors(predictor, folder / "test.xyz"),
        "unseen": frame_errors(predictor, folder / "unseen_paths.xyz"),
        "paths": {
            part: _judge(potential, setting, method, f"{part}_paths")
            for part in ("seen", "held", "unseen")
        },
    }


def best_architecture(setting: Setting) -> str:
    """By barriers of held residues, at the largest size."""
    size = max(setting.scale["sizes"])
    rows = {
        name: need(f"curve_{CONFIG['main']}_{name}_{size}", setting)["paths"]["held"]
        for name in ARCHITECTURES
    }
    return min(rows, key=lambda name: Barriers(rows[name]).mae()[0])


def add_member(setting: Setting, seed: int) -> dict[str, Any]:
    """The best training once more from another seed."""
    name = best_architecture(setting)
    plan = Plan(
        architecture=name, rate=best_rate(setting, CONFIG["main"], name), epochs=0, seed=seed
    )
    size, seconds = max(setting.scale["sizes"]), setting.scale["seconds"]
    made, epochs = _train(setting, f"member/{seed}", CONFIG["main"], size, seconds, plan)
    return {"architecture": name, "seed": seed, "epochs": epochs, "sha256": sha256(made)}


def ensemble_of(setting: Setting) -> Path:
    return setting.work / "ensemble" / "calibrated.safetensors"


def gather(setting: Setting) -> dict[str, Any]:
    """All members as one, calibrated on residues that nobody has learned from."""
    name, method, size = best_architecture(setting), CONFIG["main"], max(setting.scale["sizes"])
    folder, frames = setting.folder("ensemble"), setting.work / method
    members = [setting.work / curve_folder(method, name, size) / "potential.safetensors"]
    for seed in range(1, setting.scale["members"]):
        need(f"member_{seed}", setting)
        members.append(setting.work / "member" / str(seed) / "potential.safetensors")
    pool, calibrated = folder / "pool.safetensors", ensemble_of(setting)
    if not calibrated.exists():
        pool.unlink(missing_ok=True)
        surefoot("combine", *members, "-o", pool, log=folder / "log.txt")
        surefoot(
            *("calibrate", pool, "-o", calibrated, "--train", frames / f"learn_{size}.xyz"),
            *("--held-out", frames / "held.xyz", "--held-out", frames / "held_paths.xyz"),
            log=folder / "log.txt",
        )
    return {"architecture": name, "method": method, **judge(calibrated, setting, method)}
