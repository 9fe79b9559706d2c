"""What is tortured: small runs of each verb, how one goes on with them, and what they come to."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import h5py
import numpy as np
from ase import Atoms
from ase.build import molecule

from surefoot.md.trajectory import read_trajectory
from surefoot.train.checkpoint import digest, read_tree
from torture.process import run

TRAINING = """
data: {{train: [{inputs}/{data}.xyz], valid: {valid}, split: random, store: {store}}}
model: {model}
head: {head}
loss: {loss}
train:
  {{epochs: {epochs}, batch: {{graphs: 4}}, threads: 1, compile: "{compile}", learning_rate: 0.01,
   precision: {precision}, seed: {seed}, average: 0.9}}
posterior: {posterior}
"""
SCHNET = "{name: schnet, features: 4, interactions: 1, gaussians: 8, cutoff: 3.0}"
MACE = "{name: mace, cutoff: 3.0, irreps: 4x0e + 4x1o, max_ell: 2, correlation: 2}"
PLACE = "PLACE"  # of the run, in a config
USUAL = {
    "data": "first",
    "valid": 0.25,
    "store": "null",
    "model": SCHNET,
    "head": "{energy: scalar}",
    "loss": "{}",
    "epochs": 6,
    "compile": "off",
    "precision": "float32",
    "seed": 0,
    "posterior": "{name: ensemble, members: 3, left_out: 0}",
}
NLL = {
    "head": "{energy: mean_variance}",
    "loss": "{energy_rule: nll, forces_rule: nll}",
}
TRAININGS: dict[str, dict[str, Any]] = {
    "ensemble": {},
    "folds": {"posterior": "{name: ensemble, members: 4, left_out: 2}", "valid": 0.0},
    "swag": {"posterior": "{name: swag, start: 0.3, rank: 3, draws: 4}", "epochs": 8},
    "ivon": {"posterior": "{name: ivon, noise: 0.5, samples: 2, draws: 3}"},
    "laplace": {"posterior": "{name: laplace, draws: 3}"},
    "mace": {"model": MACE, "precision": "float64"},
    "variance": NLL,
    "stored": {"store": f"{PLACE}/frames", "epochs": 2},
    "compiled": {"compile": "on", "posterior": "{name: ensemble, members: 2, left_out: 0}"},
    "compiled_swag": {
        "compile": "on",
        "posterior": "{name: swag, start: 0.3, rank: 3, draws: 4}",
        "epochs": 8,
    },
}
"""What differs from `USUAL`."""
CAMPAIGN = """
data: {{train: [{inputs}/first.xyz], test: [{inputs}/test.xyz], valid: 0.2, split: random}}
model: {{name: schnet, features: 4, interactions: 1, gaussians: 8, cutoff: 3.0}}
train: {{epochs: 4, batch: {{graphs: 4}}, threads: 1, compile: "off", seed: {seed}}}
posterior: {{name: ensemble, members: 2, left_out: 0}}
labeler: {{name: xtb}}
explore:
  - {{name: rattle, count: 8, width: 0.2}}
  - {{name: dynamics, runs: 2, steps: 40, every: 10, guard: null, temperatures: [200.0]}}
acquire: {{by: [bald_forces, random], count: 4}}
again: {{epochs: 2, valid: 0.2, seed: {seed}}}
rules: {{rounds: 2}}
engine: {{name: processes, workers: 1}}
"""
Command = list[object]
KEY = re.compile(rb'"key": "(\w+)"')  # of a label that was calculated
POTENTIAL, CHECKPOINT = "potential.safetensors", "last.safetensors"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run of one verb.

    Attributes:
        name: of the case, beginning with the verb.
        next: from a folder as it is and a seed, the command that a person gives who wants the run
            to come to its end, or None where it is there; another seed is another run.
        outcome: what a run has come to; equal runs have equal ones.
        given: names of files that are put into the folder before, from the inputs.
        checkpoints: seconds between checkpoints of a training, of which one is drawn; None is as
            usual.
        spared: patterns of files that are not damaged, since another content is another question.
    """

    name: str
    next: Callable[[Path, int], Command | None]
    outcome: Callable[[Path], Any]
    given: tuple[str, ...] = ()
    checkpoints: tuple[float | None, ...] = (None,)
    spared: tuple[str, ...] = ()


def list_cases(inputs: Path) -> dict[str, Case]:
    """All cases by name.

    Args:
        inputs: where `prepare` has put what they begin from.
    """
    cases = [train(name, inputs) for name in TRAININGS]
    cases += [label(inputs), evaluate(), learn(inputs), *motions(inputs), *relaxations(inputs)]
    return {case.name: case for case in cases}


def prepare(inputs: Path) -> None:
    """Water with labels by GFN2-xTB, structures to move, and configs."""
    from surefoot.data.read import read_frames
    from surefoot.label.run import label_frames
    from surefoot.label.xtb import Xtb

    inputs.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for name, count, width in (("first", 16, 0.05), ("test", 6, 0.15), ("bare", 8, 0.05)):
        if (inputs / f"{name}.xyz").exists():
            continue
        images = [shaken(width, generator, f"{name} {n // 2}") for n in range(count)]
        plain = inputs / ("bare.xyz" if name == "bare" else f"plain_{name}.xyz")
        ase.io.write(plain, images, format="extxyz")
        if name != "bare":
            label_frames(read_frames([plain]), Xtb(), inputs / f"{name}.xyz")
    if not (inputs / POTENTIAL).exists():
        text = TRAINING.format(inputs=inputs, **USUAL).replace("epochs: 6", "epochs: 100")
        (inputs / "good.yaml").write_text(text)
        ended = run(["train", inputs / "good.yaml", "-o", inputs / "good"], inputs / "good")
        if ended.status:
            raise RuntimeError(ended.err)
        shutil.copyfile(inputs / "good" / POTENTIAL, inputs / POTENTIAL)
    few = ase.io.read(inputs / "bare.xyz", ":2")
    ase.io.write(inputs / "few.xyz", few, format="extxyz")
    for seed in (0, 1):
        (inputs / f"campaign_{seed}.yaml").write_text(CAMPAIGN.format(inputs=inputs, seed=seed))
        (inputs / f"label_{seed}.yaml").write_text(
            f"labeler: {{name: xtb, accuracy: {1 - seed / 2}}}"
        )


def shaken(width: float, generator: np.random.Generator, group: str) -> Atoms:
    """Water off its minimum."""
    atoms = molecule("H2O")
    atoms.positions += generator.normal(0.0, width, (3, 3))
    atoms.info |= {"charge": 0, "spin": 1, "group": group}
    return atoms


def train(name: str, inputs: Path) -> Case:
    """A training: `--resume` where there is a checkpoint."""

    def following(place: Path, seed: int) -> Command:
        settings = {**USUAL, **TRAININGS[name], "seed": seed}
        config = place.with_name(f"config_{seed}.yaml")
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(TRAINING.format(inputs=inputs, **settings).replace(PLACE, str(place)))
        resume = ["--resume"] if (place / CHECKPOINT).exists() else []
        return ["train", config, "-o", place, *resume]

    return Case(
        name=f"train {name}",
        next=following,
        outcome=lambda place: (weigh(place / POTENTIAL), read_log(place / "log.csv")),
        checkpoints=(0.0, 0.1, None),
    )


def weigh(path: Path) -> str:
    """A hash of all that a potential holds but the seconds it took."""
    tree, header = read_tree(path, "predictor")
    header["provenance"].pop("seconds")
    return digest(tree, json.dumps(header, sort_keys=True).replace(str(path.parent), PLACE))


def read_log(path: Path) -> list[dict[str, str]]:
    """The records of all epochs without their seconds."""
    with path.open() as file:
        return [{n: v for n, v in row.items() if n != "seconds"} for row in csv.DictReader(file)]


def label(inputs: Path) -> Case:
    """Labels by GFN2-xTB: the same command again."""
    output = "labels.xyz"

    def following(place: Path, seed: int) -> Command:
        config = inputs / f"label_{seed}.yaml"
        command = ["label", inputs / "bare.xyz", "-o", place / output, "--config", config]
        return [*command, "--workers", 1]

    def outcome(place: Path) -> Any:
        keys = KEY.findall((place / f"{output}.journal.jsonl").read_bytes())
        return (place / output).read_text(), len(keys) == len(set(keys))

    return Case(name="label", next=following, outcome=outcome)


def evaluate() -> Case:
    """Figures and a page of a potential: the same command again."""

    def following(place: Path, seed: int) -> Command:
        files = [place / POTENTIAL, place / "test.xyz"]
        written = ["-o", place / "out.json", "--report", place / "out.html"]
        return ["evaluate", *files, *written, "--seed", seed]

    def outcome(place: Path) -> Any:
        texts = [(place / name).read_text() for name in ("out.json", "out.html")]
        return [text.replace(str(place), "…") for text in texts]

    return Case(
        name="evaluate",
        next=following,
        outcome=outcome,
        given=(POTENTIAL, "test.xyz"),
        spared=("test.xyz",),
    )


def learn(inputs: Path) -> Case:
    """A campaign of two rounds: the same command again."""

    def following(place: Path, seed: int) -> Command:
        return ["learn", inputs / f"campaign_{seed}.yaml", "-o", place]

    return Case(name="learn", next=following, outcome=judge_campaign, checkpoints=(0.0, 0.1, None))


DECIDED = ("figures.json", "candidates.xyz", "choice.json", "chosen.xyz", "labels.xyz")


def judge_campaign(place: Path) -> Any:
    """All that was decided in each round, its labels and its weights."""
    found: list[Any] = [hash_weights(place / POTENTIAL)]
    for one in sorted((place / "rounds").iterdir()):
        files = [one / name for name in DECIDED]
        found += [file.read_text() if file.exists() else None for file in files]
        found.append(hash_weights(one / "train" / POTENTIAL))
        found.append(json.loads((one / "round.json").read_text())["ended"])
        journal = one / "labels.xyz.journal.jsonl"
        keys = KEY.findall(journal.read_bytes()) if journal.exists() else []
        found.append(len(keys) == len(set(keys)))
    return found


def hash_weights(path: Path) -> str:
    """A hash of the tensors of a potential, whose description names seconds and folders."""
    return digest(read_tree(path, "predictor")[0])


MOTIONS: dict[str, Command] = {
    "langevin": ["--steps", 120, "-T", 100, "-T", 200],
    "bussi_guard": [
        *("--steps", 120, "-T", 200, "--ensemble", "bussi", "--trajectory", "xyz"),
        *("--guard-uncertainty", 0.5, "--guard-action", "record"),
    ],
    "compiled": ["--steps", 80, "-T", 200, "--compile"],
}


def motions(inputs: Path) -> list[Case]:
    """Dynamics: `--resume` where there is a state, `--force` over what has none."""

    def make(name: str, options: Command) -> Case:
        def following(place: Path, seed: int) -> Command:
            files = [inputs / POTENTIAL, inputs / "few.xyz"]
            command = ["md", *files, "-o", place, *options, "--every", 2, "--chunk", 4]
            command += ["--lost", "allow", "--hottest", 1e9, "--drift", 1e9]
            if (place / "state.safetensors").exists():
                return [*command, "--seed", seed, "--resume"]
            begun = place.is_dir() and any(place.iterdir())
            return [*command, "--seed", seed, *(["--force"] if begun else [])]

        handed_out = ("guard/*",)  # frames to be labelled, which are a user's from then on
        return Case(name=f"md {name}", next=following, outcome=judge_motion, spared=handed_out)

    return [make(name, options) for name, options in MOTIONS.items()]


def judge_motion(place: Path) -> Any:
    """All frames, and those that the guard has kept."""
    found: dict[str, Any] = {
        str(path.relative_to(place)): path.read_text() for path in sorted(place.rglob("*.xyz"))
    }
    if (place / "trajectory.h5").exists():
        with h5py.File(place / "trajectory.h5") as file:
            count = len(file["target_temperature"])
        for system in range(count):
            for name, value in read_trajectory(place, system).items():
                found[f"{system} {name}"] = (value.shape, value.tobytes())
    return found


RELAXATIONS: dict[str, Command] = {
    "lbfgs": ["--optimizer", "lbfgs"],
    "fire_path": [
        *("--optimizer", "fire", "--trajectory", "{place}/path.xyz"),
        *("--guard-uncertainty", 0.5, "--guard-action", "record", "--record", "{place}/record.xyz"),
    ],
}


def relaxations(inputs: Path) -> list[Case]:
    """Relaxations: `--resume` where there is a journal."""

    def make(name: str, options: Command) -> Case:
        def following(place: Path, seed: int) -> Command | None:
            files = [inputs / POTENTIAL, inputs / "bare.xyz", "-o", place / "out.xyz"]
            given = [str(one).format(place=place) for one in options]
            begun = (place / "out.xyz.journal").exists()
            if not begun and (place / "out.xyz").exists():
                return None
            limits = ["--fmax", [1e-3, 2e-3][seed], "--steps", 30, "--together", 4]
            resume = ["--resume"] if begun else []
            return ["relax", *files, *given, *limits, "--precision", "float64", *resume]

        return Case(name=f"relax {name}", next=following, outcome=judge_relaxation)

    return [make(name, options) for name, options in RELAXATIONS.items()]


def judge_relaxation(place: Path) -> Any:
    """All frames up to rounding: in another batch a structure is summed in another order."""
    found: dict[str, Any] = {}
    for path in sorted(place.glob("*.xyz")):
        frames = ase.io.read(path, ":")
        found[path.name] = [
            [plain(atoms.positions), *((key, plain(atoms.info[key])) for key in sorted(atoms.info))]
            for atoms in frames
        ]
    return found


def plain(value: Any) -> Any:
    """Numbers as lists, rounded."""
    array = np.asarray(value)
    return array.round(6).tolist() if array.dtype.kind == "f" else array.tolist()
