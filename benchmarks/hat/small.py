"""The DFT set of small transfers: from scratch, fine-tuned from tight binding, delta-learned."""

import gzip
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hat.dft import make
from hat.peptides import best_architecture, best_rate
from hat.scores import judge_paths, whole_paths
from hat.training import Plan, epochs_for, find_cost, train
from hat.work import CONFIG, HERE, Piece, Setting, label, need, sha256, surefoot
from surefoot.barriers.heights import Curve
from surefoot.barriers.paths import TransferPath
from surefoot.cli.predict import write_images
from surefoot.data.read import read_frames
from surefoot.label.journal import content_hash
from surefoot.posteriors.predictor import load_predictor

DFT = HERE / "dft.xyz.gz"
VALID = 8  # each so many frames choose epochs


def list_pieces(_: Setting) -> Iterator[tuple[str, Piece]]:
    yield "dft_pretrain", pretrain
    for fold in range(len(CONFIG["folds"])):
        for way in CONFIG["ways"]:
            yield f"dft_{way}_{fold}", partial(learn_fold, fold=fold, way=way)


def pretrain(setting: Setting) -> dict[str, Any]:
    """Other structures of the same molecules on spGFN2-xTB, and the DFT set's own on it too."""
    if not DFT.exists():
        raise SystemExit(f"{DFT}: the DFT set is not there; label it first (hat/dft.py).")
    folder, budget = setting.folder("dft"), setting.scale["dft"]
    structures = folder / "pretrain.xyz"
    if not structures.exists():
        images = [atoms for seed in range(budget["pretrain_seeds"]) for atoms in make(seed + 1)]
        write_images(structures, images)
    with gzip.open(DFT, "rt") as file:
        own = ase.io.read(file, ":", format="extxyz")
    if not (folder / "own.xyz").exists():
        ase.io.write(folder / "own.xyz", own, format="extxyz")
    method = ("--method", CONFIG["main"])
    counts = {
        "pretrain": label(structures, folder / "pretrain_xtb.xyz", *method),
        "own": label(folder / "own.xyz", folder / "own_xtb.xyz", *method),
    }
    images = ase.io.read(folder / "pretrain_xtb.xyz", ":")
    for name, chosen in split(images).items():
        ase.io.write(folder / f"pretrain_{name}.xyz", chosen, format="extxyz")
    name = best_architecture(setting)
    files = {"train": ["pretrain_learn.xyz"], "valid": ["pretrain_valid.xyz"]}
    count = len(split(images)["learn"])
    cost = find_cost(name, folder, files, count, folder / "trial")
    epochs = epochs_for(budget["seconds"], cost, count)
    plan = Plan(
        architecture=name, rate=best_rate(setting, CONFIG["main"], name), epochs=epochs,
        members=budget["members"],
    )  # fmt: skip
    made = train(folder / "pretrained", folder, files, plan)
    return {
        "architecture": name, "labels": counts, "epochs": epochs, "cpu_s_per_frame_and_epoch": cost,
        "sha256": sha256(made), "dft": sha256(DFT), "frames": len(own),
    }  # fmt: skip


def split(images: list[Atoms]) -> dict[str, list[Atoms]]:
    """Whole systems to choose epochs with, the others to learn from."""
    systems = list(dict.fromkeys(str(atoms.info["system"]) for atoms in images))
    valid = set(systems[VALID - 1 :: VALID])
    return {
        "learn": [atoms for atoms in images if str(atoms.info["system"]) not in valid],
        "valid": [atoms for atoms in images if str(atoms.info["system"]) in valid],
    }


def learn_fold(setting: Setting, fold: int, way: str) -> dict[str, Any]:
    """Train without some donors, and judge their scans."""
    before, budget = need("dft_pretrain", setting), setting.scale["dft"]
    name = before["architecture"]
    folder = setting.folder(f"dft/fold_{fold}")
    low, high = _labels(setting)
    frames = write_fold(folder, fold, way, high, low)
    rate = best_rate(setting, CONFIG["main"], name)
    pretrained = setting.work / "dft" / "pretrained" / "potential.safetensors"
    made, epochs = pretrained, 0
    if way != "pretrained":
        tuned = way == "fine_tuned"
        seconds = budget["tuned" if tuned else "seconds"]
        epochs = epochs_for(seconds, before["cpu_s_per_frame_and_epoch"], frames["learn"])
        plan = Plan(
            architecture=name, rate=rate * (CONFIG["fine_tuning"] if tuned else 1.0),
            epochs=epochs, members=budget["members"], start=pretrained if tuned else None,
        )  # fmt: skip
        files = {part: [f"{way}_{part}.xyz"] for part in ("train", "valid")}
        made = train(folder / way, folder, files, plan)
    calibrated = made
    if way != "pretrained":
        calibrated = folder / way / "calibrated.safetensors"
        if not calibrated.exists():
            held = folder / f"{way}_valid.xyz"
            surefoot(
                "calibrate", made, "--held-out", held, "-o", calibrated, log=folder / "log.txt"
            )
    predictor, paths = load_predictor(calibrated), whole_paths(folder / "test.xyz")
    rows = judge_paths(predictor, paths, CONFIG["level"], _added(low) if way == "delta" else _same)
    return {
        "architecture": name, "way": way, "fold": fold, "frames": frames, "epochs": epochs,
        "donors": CONFIG["folds"][fold], "sha256": sha256(calibrated), "rows": rows,
    }  # fmt: skip


def _same(_: TransferPath, curve: Curve) -> Curve:
    return curve


def _key(atoms: Atoms) -> str:
    return content_hash(atoms, int(atoms.info["charge"]), int(atoms.info["spin"]), {})


Labels = dict[str, tuple[float, np.ndarray]]


def _labels(setting: Setting) -> tuple[Labels, list[Atoms]]:
    """Tight-binding labels by structure; frames with those of DFT that have both."""
    folder = setting.work / "dft"
    low = {
        _key(frame.atoms): (frame.energy, frame.forces)
        for frame in read_frames([str(folder / "own_xtb.xyz")])
        if frame.energy is not None and frame.forces is not None
    }
    high = []
    for frame in read_frames([str(DFT)]):
        if frame.energy is None or _key(frame.atoms) not in low:
            continue
        atoms = frame.atoms.copy()
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
        high.append(atoms)
    return low, high


def write_fold(
    folder: Path, fold: int, way: str, images: list[Atoms], low: Labels
) -> dict[str, int]:
    """Frames to learn from and to choose epochs with, of other donors, and scans that judge."""
    judges = CONFIG["folds"][fold]
    test = [
        atoms for atoms in images
        if atoms.info["donor"] in judges and atoms.info["config_type"] == "path"
    ]  # fmt: skip
    parts = split([atoms for atoms in images if atoms.info["donor"] not in judges])
    if way == "delta":
        parts = {name: [_less(atoms, low) for atoms in part] for name, part in parts.items()}
    ase.io.write(folder / f"{way}_train.xyz", parts["learn"], format="extxyz")
    ase.io.write(folder / f"{way}_valid.xyz", parts["valid"], format="extxyz")
    ase.io.write(folder / "test.xyz", test, format="extxyz")
    return {"learn": len(parts["learn"]), "valid": len(parts["valid"]), "test": len(test)}


def _less(atoms: Atoms, low: Labels) -> Atoms:
    """The frame with DFT minus tight binding as its labels."""
    energy, forces = low[_key(atoms)]
    made = atoms.copy()
    made.calc = SinglePointCalculator(
        made, energy=atoms.get_potential_energy() - energy, forces=atoms.get_forces() - forces
    )
    return made


def _added(low: Labels) -> Any:
    """What makes a curve of a difference a curve of DFT: tight binding itself, which is certain."""

    def add(path: TransferPath, curve: Curve) -> Curve:
        energies = np.array([low[_key(image)][0] for image in path.images])
        return replace(curve, energies=curve.energies + energies)

    return add
