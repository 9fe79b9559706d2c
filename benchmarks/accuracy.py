"""Train on public sets and test beside published figures; trainings run in resumable pieces.

Usage: SUREFOOT_DATA=… python benchmarks/accuracy.py CASE … [--minutes 40] [--runs runs/accuracy]
       python benchmarks/accuracy.py table

A case is a config in benchmarks/accuracy/, or several that are combined. After --minutes a training
is interrupted; the same command goes on with it. A finished case leaves its potential beside its
config and its figures in results/accuracy.json; `table` writes accuracy/README.md from those.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONFIGS, RESULTS = HERE / "accuracy", HERE / "results" / "accuracy.json"
MACE = "MACE, arXiv:2206.07697"
RACE = "RACE, arXiv:2510.03046"
ALLEGRO = "Allegro, arXiv:2204.05249"
KCAL = ("--energy-unit", "kcal/mol")


@dataclass(frozen=True)
class Test:
    """A test file, its error measure, and what was published for it.

    Attributes:
        file: below SUREFOOT_DATA.
        measure: rmse or mae.
        options: of `surefoot evaluate`.
        quoted: source → (energy in meV, forces in meV/Å), of the whole structure.
        goal: what this project set itself, in the same units.
    """

    file: str
    measure: str
    options: tuple[str, ...] = ()
    quoted: tuple[tuple[str, float, float], ...] = ()
    goal: str = ""


ACAC = Test("acac/test_MD_300K.xyz.gz", "rmse", (), ((MACE, 0.9, 5.1),), "energy ≤ 1.5, forces ≤ 9")
BPA_300 = Test(
    "3bpa/test_300K.xyz.gz",
    "rmse",
    (),
    ((MACE, 3.0, 8.8), (ALLEGRO, 3.84, 12.98), (RACE, 3.4, 12.1)),
    "forces ≤ 15",
)
BPA_600 = Test(
    "3bpa/test_600K.xyz.gz",
    "rmse",
    (),
    ((MACE, 9.7, 21.8), (ALLEGRO, 12.07, 29.17), (RACE, 11.7, 31.8)),
)
ETHANOL = Test(
    "rmd17/rmd17_ethanol_test_01.npz",
    "mae",
    KCAL,
    ((MACE, 0.4, 2.1), (ALLEGRO, 0.4, 2.1), (RACE, 0.8, 3.6)),
    "forces ≤ 4",
)
ASPIRIN = Test(
    "rmd17/rmd17_aspirin_test_01.npz",
    "mae",
    KCAL,
    ((MACE, 2.2, 6.6), (ALLEGRO, 2.3, 7.3), (RACE, 3.3, 9.6)),
)
STRESS = ("--stress-key", "virial_stress_kbar", "--stress-unit", "VASP")
ORDER = ("--stress-order", "xx yy zz xy xz yz")  # not VASP's; shears agree with EMT
COPPER = Test("mlearn/Cu_test.extxyz.gz", "mae", STRESS + ORDER)
TESTS = {
    "acac": (ACAC,),
    "bpa": (BPA_300, BPA_600),
    "ethanol": (ETHANOL,),
    "aspirin": (ASPIRIN,),
    "copper": (COPPER,),
}


COMBINED = {"ethanol_mace_pair": ("ethanol_mace_1", "ethanol_mace_2")}
"""Ensembles of potentials that are cases of their own: their predictions are the means."""

REASONS = (
    "RACE and Allegro lie above 1.3 times the forces of MACE at 300 K. Two reasons are known. They "
    "were given half the epochs of MACE or less (200 and 150 against 400), since an epoch of RACE "
    "takes three to five times as long and one of Allegro up to twice, and time was the limit. And "
    "the published models, larger and trained to their end, have ratios of 1.38 (RACE) and 1.48 "
    "(Allegro) to MACE on 3BPA at 300 K, by the quoted figures. That more epochs would bring either"
    " below 1.3 has not been shown."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", help="configs of benchmarks/accuracy, or `table`")
    parser.add_argument("--minutes", type=float, default=40.0, help="of training in this run")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    chosen = parser.parse_args()
    if chosen.cases == ["table"]:
        write_table()
        return
    data = Path(os.environ["SUREFOOT_DATA"])
    for case in chosen.cases:
        run = chosen.runs.resolve() / case
        finish = combine if case in COMBINED else train
        if finish(case, run, data, 60 * chosen.minutes):
            record(case, run, data)
        else:
            print(f"{case}: interrupted after {chosen.minutes:g} minutes; the same command goes on")


def train(case: str, run: Path, data: Path, seconds: float) -> bool:
    """Train for so long at most; whether it came to its end."""
    if (run / "potential.safetensors").exists():
        return True
    command = [program(), "train", str(CONFIGS / f"{case}.yaml"), "-o", str(run)]
    if (run / "last.safetensors").exists():
        command.append("--resume")
    with subprocess.Popen(command, cwd=data) as process:
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
            return False
    if status:
        raise SystemExit(f"{case}: the training failed with exit status {status}.")
    return True


def combine(case: str, run: Path, data: Path, seconds: float) -> bool:
    """Train the members, so long at most for each, and join them; whether it came to that."""
    members, runs = COMBINED[case], run.parent
    if not all(train(member, runs / member, data, seconds) for member in members):
        return False
    run.mkdir(exist_ok=True)
    (run / "potential.safetensors").unlink(missing_ok=True)
    # The ensemble keeps the names of its members as they are given.
    files = [f"{one}/potential.safetensors" for one in (*members, case)]
    subprocess.run([program(), "combine", *files[:-1], "-o", files[-1]], cwd=runs, check=True)
    return True


def program() -> str:
    return str(Path(sys.executable).parent / "surefoot")


def record(case: str, run: Path, data: Path) -> None:
    """Errors on the test files, wall time and hash of the potential."""
    potential = run / "potential.safetensors"
    tests = []
    for test in TESTS[case.partition("_")[0]]:
        report = run / f"{Path(test.file).name}.json"
        command = [program(), "evaluate", str(potential), test.file, "-o", str(report)]
        subprocess.run([*command, *test.options], cwd=data, check=True)
        accuracy = json.loads(report.read_text())["accuracy"]
        errors = {name: {**part["all"], "unit": part["unit"]} for name, part in accuracy.items()}
        tests.append({"file": test.file, "errors": errors})
    kept = CONFIGS / f"{case}.safetensors"
    shutil.copy(potential, kept)
    cases = COMBINED.get(case, (case,))
    logs = [(run.parent / member / "log.csv").read_text() for member in cases]
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found[case] = {
        "command": f"python benchmarks/accuracy.py {case}",
        "config": "\n".join((CONFIGS / f"{member}.yaml").read_text() for member in cases),
        "epochs": max(log.count("\n") - 1 for log in logs),
        "training_seconds": round(sum(map(training_seconds, logs))),
        "parameters": parameters(kept),
        "sha256": hashlib.sha256(kept.read_bytes()).hexdigest(),
        "tests": tests,
        "machine": platform.processor() or platform.machine(),
    }
    RESULTS.write_text(json.dumps(dict(sorted(found.items())), indent=2) + "\n")


def training_seconds(log: str) -> float:
    """Of all epochs of a log."""
    head, *lines = (line.split(",") for line in log.splitlines())
    return sum(float(line[head.index("seconds")]) for line in lines)


def parameters(potential: Path) -> int:
    from surefoot.posteriors.predictor import load_predictor

    return sum(value.numel() for value in load_predictor(potential).weights.values())


def write_table() -> None:
    """accuracy/README.md: our figures, and the published ones as quoted."""
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    lines = [
        "# Accuracy on public sets",
        "",
        "Written by `python benchmarks/accuracy.py table` from `results/accuracy.json`. Configs and"
        " potentials stand beside this page. The seed is 0, or the number in the name; a pair is"
        " the ensemble of two potentials of different seeds, whose mean is judged.",
        "Energies in meV per structure where all structures have as many atoms, else in meV/atom;"
        " forces in meV/Å, per component. Quoted figures are those of the cited papers.",
        "",
        "| case | test | measure | energy | forces | stress, meV/Å³ | parameters | epochs |"
        " training |"
        " quoted (energy / forces) | aim |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case, result in found.items():
        cases = {test.file: test for test in TESTS[case.partition("_")[0]]}
        for entry in result["tests"]:
            test = cases[entry["file"]]
            lines.append(row(case, test, entry["errors"], result, goal(case, test, entry, found)))
    lines += ["", REASONS]
    hashes = [f"| `{case}.safetensors` | {r['sha256']} |" for case, r in found.items()]
    lines += ["", "| file | SHA-256 |", "|---|---|", *hashes]
    (CONFIGS / "README.md").write_text("\n".join(lines) + "\n")


def goal(case: str, test: Test, entry: dict[str, Any], found: dict[str, Any]) -> str:
    """That of MACE is a number; those of the other models are beside it, at as many parameters."""
    system, _, model = case.partition("_")
    other = found.get(f"{system}_mace", {"tests": []})["tests"]
    beside = [one["errors"] for one in other if one["file"] == test.file]
    if model.startswith("mace") or not beside:
        return test.goal
    ratio = entry["errors"]["forces"][test.measure] / beside[0]["forces"][test.measure]
    return f"{ratio:.2f} times the forces of MACE, aim ≤ 1.3"


ATOMS = {"acac": 15, "3bpa": 27, "ethanol": 9, "aspirin": 21}


def row(case: str, test: Test, errors: dict[str, Any], result: dict[str, Any], aim: str) -> str:
    atoms = next((n for name, n in ATOMS.items() if name in test.file), None)
    energy = errors["energy"][test.measure]
    shown = f"{energy:.2f} /atom" if atoms is None else f"{energy * atoms:.2f}"
    stress = errors.get("stress")
    quoted = "; ".join(f"{source}: {e:g} / {f:g}" for source, e, f in test.quoted)
    cells = [
        case,
        test.file,
        test.measure.upper(),
        shown,
        f"{errors['forces'][test.measure]:.2f}",
        "" if stress is None else f"{stress[test.measure]:.3f}",
        str(result["parameters"]),
        str(result["epochs"]),
        f"{result['training_seconds'] / 60:.0f} min",
        quoted,
        aim,
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
