"""Do error bars of energies grow with the size of clusters as the errors do?

Usage: SUREFOOT_DATA=… python benchmarks/solvents.py [CONFIG …] [--work FOLDER] [--kept FOLDER]
       … --every 10 --set train.epochs=3 --work FOLDER --kept FOLDER     a trial of a minute
       python benchmarks/solvents.py --table

Learns from clusters of up to three solvent molecules, calibrates on other clusters of up to three,
and asks of all sizes, up to six, for the slope of ln(RMSE / σ) against ln N: 0 where σ is as good
for large clusters as for small ones. Configs are those of benchmarks/solvents/: `template`, what is
recommended for so few frames, and `variances`, whose members state variances of their own.
Interrupted, the same command goes on; the result of each is one JSON file, and --table prints them.
Frames for calibration are of the same file as those that judge, and are none of them.
"""

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from surefoot.data.convert import to_samples
from surefoot.data.file_units import FileUnits
from surefoot.data.read import Keys, read_frames
from surefoot.evaluate.intervals import block_bootstrap_counts
from surefoot.posteriors.judge import predict_samples
from surefoot.posteriors.predictor import load_predictor

HERE = Path(__file__).parent
CONFIGS = {name: HERE / "solvents" / f"{name}.yaml" for name in ("template", "variances")}
RESULTS = HERE / "results"
TRAIN, TEST = "solvent_xtb_train_200.xyz.gz", "solvent_xtb_test.xyz.gz"
FEW = 3  # molecules of the clusters that are learned from and calibrated on
CLASSES = 8  # of sizes, with as many clusters each
MARK = 0.15  # largest slope


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="*", help=f"{' or '.join(CONFIGS)}, both if none")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    parser.add_argument("--every", type=int, default=1, help="so many clusters stand for one")
    parser.add_argument(
        "--set", action="append", default=[], help="section.key=value of the config"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/solvents"))
    parser.add_argument("--kept", type=Path, default=RESULTS, help="folder of the JSON files")
    chosen = parser.parse_args()
    names = chosen.configs or list(CONFIGS)
    if unknown := set(names) - CONFIGS.keys():
        parser.error(f"there is no config {min(unknown)}; there are {', '.join(CONFIGS)}.")
    trial = chosen.every != 1 or chosen.set
    if trial and chosen.kept.resolve() == RESULTS.resolve():
        parser.error("a trial is no result: set another folder by --kept.")
    for name in names:
        target: Path = chosen.kept / f"solvents_{name}.json"
        if not chosen.table and not target.exists():
            work = chosen.work.resolve()
            result = make(name, work / slug(chosen) if trial else work, chosen.every, chosen.set)
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".part")
            part.write_text(json.dumps(result, indent=1) + "\n")
            part.rename(target)
        told = describe(json.loads(target.read_text())) if target.exists() else "not yet run"
        print(f"{name}\n\n{told}\n")


def slug(chosen: argparse.Namespace) -> str:
    """A folder of its own for each kind of trial."""
    return "_".join((f"every_{chosen.every}", *chosen.set)).replace("/", "_")


def make(name: str, work: Path, every: int, changes: Sequence[str]) -> dict[str, Any]:
    """Train, calibrate and judge one of them, or go on with it."""
    prepare(work, every)
    result = judge(fit(name, work, changes), work / "test.xyz")
    result["config"], result["changes"] = CONFIGS[name].read_text(), list(changes)
    for part in ("learn", "valid", "held"):
        result[part] = len(ase.io.read(work / f"{part}.xyz", ":"))
    # What a user without frames to spare would have: the factor as trained beside that of `held`.
    for file in ("potential", "calibrated"):
        held = load_predictor(work / name / f"{file}.safetensors").calibration
        result[f"factor_{file}"] = [held.energy, held.source]
    return result


def prepare(work: Path, every: int) -> None:
    """The clusters as files: learn, valid, held and test."""
    done = work / "test.xyz"  # the last one to be written
    if done.exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(os.environ["SUREFOOT_DATA"]) / "xtb_solvents"
    # Isolated atoms are left out: energies are counted from what fits molecules best.
    small = [atoms for atoms in labelled(folder / TRAIN) if 0 < molecules(atoms) <= FEW][::every]
    tested = labelled(folder / TEST)[::every]
    few = [atoms for atoms in tested if molecules(atoms) <= FEW]
    many = [atoms for atoms in tested if molecules(atoms) > FEW]
    ase.io.write(work / "learn.xyz", [a for n, a in enumerate(small) if n % 10 != 9])
    ase.io.write(work / "valid.xyz", small[9::10])
    ase.io.write(work / "held.xyz", few[::2])
    ase.io.write(done, few[1::2] + many)


def molecules(atoms: Atoms) -> int:
    """0 of an isolated atom."""
    return int(atoms.info.get("Nmols", 0))


def labelled(file: Path) -> list[Atoms]:
    """Structures with their labels, each a group of its own, which it is in the files."""
    found = []
    keys = Keys(energy="energy_xtb", forces="forces_xtb")
    for number, frame in enumerate(read_frames([str(file)], keys, FileUnits())):
        info = frame.atoms.info
        atoms = Atoms(frame.atoms.numbers, frame.atoms.positions)
        atoms.info = {name: info[name] for name in ("Nmols", "Comp", "config_type") if name in info}
        atoms.info["group"] = f"{file.name} {number}"
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
        found.append(atoms)
    return found


def fit(name: str, work: Path, changes: Sequence[str]) -> Path:
    """Train, or go on, then calibrate on clusters that nobody has learned from."""
    run = work / name
    calibrated = run / "calibrated.safetensors"
    if not (run / "potential.safetensors").exists():
        resume = ["--resume"] if (run / "last.safetensors").exists() else []
        changed = [part for change in changes for part in ("--set", change)]
        surefoot("train", str(CONFIGS[name]), "-o", str(run), *resume, *changed, cwd=work)
    if not calibrated.exists():
        made = str(run / "potential.safetensors")
        held = ("--held-out", str(work / "held.xyz"))
        surefoot("calibrate", made, *held, "-o", str(calibrated), cwd=work)
    return calibrated


def surefoot(*arguments: str, cwd: Path) -> None:
    program = str(Path(sys.executable).parent / "surefoot")
    subprocess.run(
        [program, *arguments], cwd=cwd, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def judge(potential: Path, file: Path) -> dict[str, Any]:
    """Errors and error bars of energies by size, and slopes of their ratio."""
    predictor = load_predictor(potential)
    frames = read_frames([str(file)], Keys(), FileUnits())
    samples = to_samples(frames, predictor.cutoff)
    judged = predict_samples(predictor, samples)
    energy, sizes = judged.prediction.energy, judged.sizes
    residuals = (judged.targets.energy - energy.mean).numpy()
    variances = {
        "total": energy.total,
        "aleatoric": energy.aleatoric,
        "epistemic": energy.epistemic,
    }
    blocks = np.array([str(frame.atoms.info["Comp"]) for frame in frames])
    found: dict[str, Any] = {
        "sha256": hashlib.sha256(potential.read_bytes()).hexdigest(),
        "epochs": predictor.provenance.get("epochs"),
        "learned_from": f"{TRAIN}, up to {FEW} molecules",
        "structures": len(sizes),
        "compositions": len(set(blocks)),
        "slopes": {},
    }
    for name, variance in variances.items():
        if variance is None:
            continue
        std = variance.sqrt().numpy()
        slope = slope_by_counts(residuals, std, sizes)
        interval = block_bootstrap_counts(slope, blocks, np.random.default_rng(0), 1000)
        every = np.ones(len(sizes), dtype=np.int64)
        found["slopes"][name] = [slope(every), interval.low, interval.high]
        if name == "total":
            found["classes"] = classes(residuals, std, sizes)
    return found


def divide(sizes: np.ndarray) -> np.ndarray:
    """The class of each size, from small to large, with about as many structures in each."""
    order = np.argsort(np.argsort(sizes, kind="stable"), kind="stable")
    first = {size: int(order[sizes == size].min()) for size in np.unique(sizes)}
    return np.array([first[size] * CLASSES // len(sizes) for size in sizes])


def slope_by_counts(
    residuals: np.ndarray, std: np.ndarray, sizes: np.ndarray
) -> Callable[[np.ndarray], float]:
    """Slope of ln(RMSE / rms σ) of classes of sizes against ⟨ln N⟩, from how often each counts."""
    _, codes = np.unique(divide(sizes), return_inverse=True)

    def slope(counts: np.ndarray) -> float:
        held, logs, squares, widths = (
            np.bincount(codes, weights=counts * values)
            for values in (np.ones(len(sizes)), np.log(sizes), residuals**2, std**2)
        )
        there = held > 0
        x = logs[there] / held[there]
        y = 0.5 * np.log(squares[there] / widths[there])
        return float(np.polyfit(x, y, 1, w=np.sqrt(held[there]))[0])

    return slope


def classes(residuals: np.ndarray, std: np.ndarray, sizes: np.ndarray) -> list[dict[str, float]]:
    """Errors and error bars in meV by class of sizes."""
    where = divide(sizes)
    rows = []
    for number in np.unique(where):
        chosen = where == number
        rms = [1000 * math.sqrt(np.mean(values[chosen] ** 2)) for values in (residuals, std)]
        rows.append({
            "from": int(sizes[chosen].min()), "to": int(sizes[chosen].max()),
            "structures": int(chosen.sum()), "rmse": rms[0], "sigma": rms[1],
        })  # fmt: skip
    return rows


def describe(result: dict[str, Any]) -> str:
    """Table and slopes as text."""
    lines = ["| atoms | structures | RMSE (meV) | σ (meV) | RMSE / σ |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['from']} – {row['to']} | {row['structures']} | {row['rmse']:.1f} | "
        f"{row['sigma']:.1f} | {row['rmse'] / row['sigma']:.2f} |"
        for row in result["classes"]
    ]
    factors = (
        f"factor on σ of energies: {value:.2f} ({source})"
        for value, source in (result["factor_potential"], result["factor_calibrated"])
    )
    return "\n".join([*lines, "", *say_slopes(result["slopes"]), *factors])


def say_slopes(slopes: dict[str, list[float]]) -> Iterable[str]:
    for name, (value, low, high) in slopes.items():
        told = "within" if abs(value) <= MARK else "beyond"
        sure = low >= -MARK and high <= MARK if told == "within" else low > MARK or high < -MARK
        mark = f", {told} ± {MARK}{'' if sure else ', which the interval leaves open'}"
        yield (
            f"ln(RMSE / σ) against ln N, {name} σ: {value:+.2f} [{low:+.2f}, {high:+.2f}]"
            f"{mark if name == 'total' else ''}"
        )


if __name__ == "__main__":
    main()
