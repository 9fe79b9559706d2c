"""Trainings of equal cost: as many epochs as fit into a budget of processor time."""

import json
import os
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hat.work import CONFIG, Setting, surefoot

TRIAL = (1, 4)  # epochs of the two trials whose difference says what an epoch costs
FEWEST = 2  # epochs
VALIDATIONS = 25  # of a training


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training.

    Attributes:
        architecture: key of the config.
        rate: learning rate.
        epochs: of it.
        seed: of weights and order.
        members: of an ensemble that is trained at once.
        start: a potential that is fine-tuned.
    """

    architecture: str
    rate: float
    epochs: int
    seed: int = 0
    members: int = 1
    start: Path | None = None


def train(folder: Path, frames: Path, files: dict[str, list[str]], plan: Plan) -> Path:
    """Train in the folder of the frames, or go on; the potential.

    Args:
        folder: of the training.
        frames: where `files` are.
        files: the section `data`.
        plan: what is trained.
    """
    potential = folder / "potential.safetensors"
    if potential.exists():
        return potential
    folder.mkdir(parents=True, exist_ok=True)
    entry = CONFIG["architectures"][plan.architecture]
    config: dict[str, Any] = {
        "data": files,
        "loss": CONFIG["loss"],
        "train": deepcopy(CONFIG["train"]),
        "posterior": {"members": plan.members, "left_out": 0},
    }
    if plan.start is None:
        config |= {"model": entry["model"], "head": entry["head"]}
    else:
        config["start"] = {"potential": str(plan.start)}
    every = max(1, plan.epochs // VALIDATIONS)
    config["train"] |= {"epochs": plan.epochs, "seed": plan.seed, "learning_rate": plan.rate}
    config["train"] |= {"validate_every": every}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    resume = ["--resume"] if (folder / "last.safetensors").exists() else []
    surefoot(
        *("train", folder / "config.yaml", "-o", folder, *resume),
        cwd=frames,
        log=folder / "train.log",
    )
    return potential


def find_cost(
    architecture: str, frames: Path, files: dict[str, list[str]], count: int, folder: Path
) -> float:
    """CPU seconds of a frame in an epoch, start and compilation not counted.

    Args:
        architecture: key of the config.
        frames: where `files` are.
        files: the section `data`.
        count: of its frames.
        folder: of the trials.
    """
    stored = folder / "cost.json"
    if not stored.exists():
        rate = CONFIG["architectures"][architecture]["rates"][0]
        costs = []
        for number, epochs in enumerate((TRIAL[0], *TRIAL)):  # the first one fills caches
            before = _children()
            plan = Plan(architecture=architecture, rate=rate, epochs=epochs)
            train(folder / str(number), frames, files, plan)
            costs.append(_children() - before)
        each = (costs[2] - costs[1]) / (TRIAL[1] - TRIAL[0]) / count
        stored.write_text(json.dumps(max(each, 1e-4)))
    return float(json.loads(stored.read_text()))


def _children() -> float:
    return sum(os.times()[2:4])


def epochs_for(seconds: float, cost: float, count: int) -> int:
    """Epochs that take so many CPU seconds with so many frames."""
    return max(FEWEST, round(seconds / (cost * count)))


def trial_of(architecture: str, setting: Setting) -> Path:
    return setting.work / "trials" / architecture
