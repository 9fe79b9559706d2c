"""Campaigns on 3BPA whose labels are known: hot frames are chosen for a potential of cold ones."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from ase.io import write
from uncertainty import change, labelled, surefoot

from active.campaigns import Piece, Setting, read_rounds
from surefoot.active.choose import Acquire
from surefoot.data.file_units import FileUnits

CONFIG = "pool.yaml"
SOON = 1e-9  # hours: a campaign that ends after its first training
One = TypeVar("One")


def list_pool(setting: Setting) -> Iterator[tuple[str, Piece]]:
    """All pieces, those that others need first; whole repetitions one after the other."""
    config, known = setting.config(CONFIG), set()
    for runs in config["runs"]:
        posterior = runs["posterior"]
        for number in range(runs["repetitions"]):
            first = f"first_{posterior}_{number}"
            if first not in known:
                known.add(first)
                yield first, lambda p=posterior, n=number: begin(setting, p, n)
            for strategy in runs["strategies"]:
                yield (
                    f"{posterior}_{strategy}_{number}",
                    lambda p=posterior, s=strategy, n=number, r=runs["rounds"]: go_on(
                        setting, p, s, n, r
                    ),
                )


def split_blocks(frames: Sequence[One], blocks: int) -> tuple[list[One], list[One]]:
    """Pool and test: blocks of a trajectory in turn, since neighbours in time are alike.

    Args:
        frames: in the order of time.
        blocks: how many, of equal length to one.
    """
    places = np.array_split(np.arange(len(frames)), blocks)
    pool, test = (
        [frames[index] for block in places[begin::2] for index in block.tolist()]
        for begin in (0, 1)
    )
    return pool, test


def spread(frames: Sequence[One], count: int) -> list[One]:
    """So many at most, evenly spaced."""
    places = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return [frames[index] for index in places.tolist()]


def prepare(setting: Setting, number: int) -> Path:
    """Pool and test frames, and the first frames of a repetition, as files."""
    config, folder = setting.config(CONFIG), setting.work / f"repetition_{number}"
    if (folder / "first.xyz").exists():  # the last one to be written
        return folder
    data = Path(os.environ["SUREFOOT_DATA"]) / "3bpa"
    folder.mkdir(parents=True, exist_ok=True)
    if not (setting.work / "test.xyz").exists():
        pool, test = split_blocks(
            labelled(data / "test_600K.xyz.gz", FileUnits()), config["blocks"]
        )
        write(setting.work / "pool.xyz", pool)
        write(setting.work / "test.xyz", spread(test, config["tests"]))
    frames = labelled(data / "train_300K.xyz.gz", FileUnits())
    order = np.random.default_rng(number).permutation(len(frames))[: config["first"]].tolist()
    write(folder / "valid.xyz", [frames[index] for index in order[: config["valid"]]])
    write(folder / "first.xyz", [frames[index] for index in order[config["valid"] :]])
    return folder


def begin(setting: Setting, posterior: str, number: int) -> dict[str, Any]:
    """The potential before anything is chosen: a campaign that ends with its first round."""
    folder = prepare(setting, number)
    place = folder / f"first_{posterior}"
    learn(setting, posterior, place, number, {"acquire.by": "random"}, {"hours": SOON})
    return {"posterior": posterior, "repetition": number, "rounds": read_rounds(place)}


def go_on(
    setting: Setting, posterior: str, strategy: str, number: int, rounds: int
) -> dict[str, Any]:
    """From there, with a strategy."""
    config, folder = setting.config(CONFIG), prepare(setting, number)
    place, first = folder / f"{posterior}_{strategy}", folder / f"first_{posterior}"
    if not (first / "rounds" / "000" / "round.json").exists():
        begin(setting, posterior, number)
    changes = config["strategies"][strategy]
    if not place.exists():
        copy = place.with_suffix(".part")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(first, copy)
        # Nothing has been chosen there: how it shall be is the only thing that may be another.
        acquire = change({"acquire": config["campaign"]["acquire"]}, changes)["acquire"]
        state = json.loads((copy / "campaign.json").read_text())
        state["fixed"]["acquire"] = Acquire.model_validate(acquire).model_dump(mode="json")
        (copy / "campaign.json").write_text(json.dumps(state))
        copy.rename(place)
    learn(setting, posterior, place, number, changes, {"rounds": rounds})
    return {
        "posterior": posterior,
        "strategy": strategy,
        "repetition": number,
        "rounds": read_rounds(place),
    }


def learn(
    setting: Setting,
    posterior: str,
    place: Path,
    number: int,
    changes: dict[str, Any],
    rules: dict[str, Any],
) -> None:
    """`surefoot learn` in the folder of the repetition; an interrupted one goes on."""
    config = setting.config(CONFIG)
    seeds = {"train.seed": number, "again.seed": number}
    changes = config["posteriors"][posterior] | changes | seeds | {"rules": rules}
    if setting.scale != "full":  # its epochs are its own
        changes.pop("train.epochs", None)
    file = place.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(change(config["campaign"], changes)))
    surefoot("learn", str(file), "-o", str(place), cwd=place.parent)
