"""Campaigns on hydrogen transfers whose labels are calculated on the way."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from uncertainty import change, surefoot

from active.campaigns import Piece, Setting, read_rounds

CONFIG = "live.yaml"


def list_live(setting: Setting) -> Iterator[tuple[str, Piece]]:
    """The data, then strategies in turn."""
    config = setting.config(CONFIG)
    yield "live_data", lambda: build(setting)
    for number in range(config["repetitions"]):
        for strategy in config["strategies"]:
            yield f"live_{strategy}_{number}", lambda s=strategy, n=number: learn(setting, s, n)


def build(setting: Setting) -> dict[str, Any]:
    """First frames, and scans of other molecules, with labels."""
    config, folder = setting.config(CONFIG), setting.work / "live"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "built"
    if not (made / "scans_paths.xyz").exists():
        shutil.rmtree(made, ignore_errors=True)
        (folder / "build.yaml").write_text(yaml.safe_dump(config["build"]))
        surefoot("hat", "build", str(folder / "build.yaml"), "-o", str(made))
    method = config["build"]["labeler"]["method"]
    for source, name in (("first.xyz", "first"), ("scans_paths.xyz", "scans")):
        surefoot(
            *("label", str(made / source), "--method", method, "-o", str(folder / f"{name}.xyz"))
        )
    counts = {
        name: (folder / f"{name}.xyz").read_text().count("Properties=")
        for name in ("first", "scans")
    }
    return {"frames": counts}


def learn(setting: Setting, strategy: str, number: int) -> dict[str, Any]:
    """One campaign from its first training to its end; an interrupted one goes on."""
    config, folder = setting.config(CONFIG), setting.work / "live"
    if not (folder / "scans.xyz").exists():
        build(setting)
    place = folder / f"{strategy}_{number}"
    seeds = {"train.seed": number, "again.seed": number}
    changes = config["strategies"][strategy] | seeds
    file: Path = place.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(change(config["campaign"], changes)))
    surefoot("learn", str(file), "-o", str(place), cwd=folder)
    return {"strategy": strategy, "repetition": number, "rounds": read_rounds(place)}
