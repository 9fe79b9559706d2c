"""A campaign that is killed at random moments, against one that nobody interrupts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase.build import molecule
from uncertainty import surefoot

from active.campaigns import HERE, Setting, write
from surefoot.data.read import read_frames
from surefoot.label.run import label_frames
from surefoot.label.xtb import Xtb
from surefoot.posteriors.predictor import load_predictor

CONFIG = HERE / "kill.yaml"
SEED = 0
DECIDED = ("figures.json", "candidates.xyz", "choice.json", "labels.xyz")


def kill(setting: Setting, times: int) -> None:
    """So many kills in as many campaigns as they take; what is done stays done."""
    folder = setting.work / "kill"
    prepare(folder)
    whole = folder / "whole.json"
    if not whole.exists():
        began = time.monotonic()
        surefoot("learn", str(CONFIG), "-o", str(folder / "whole"), cwd=folder)
        write(whole, {"seconds": time.monotonic() - began})
    length = json.loads(whole.read_text())["seconds"]
    notes = folder / "notes.json"
    found: dict[str, Any] = {"kills": [], "campaigns": []}
    if notes.exists():
        found = json.loads(notes.read_text())
    while len(found["kills"]) < times or found["campaigns"][-1:] == [None]:
        if time.monotonic() > setting.end:
            print(f"{len(found['kills'])} kills so far; the same command goes on")
            return
        kill_once(folder, found, times, length)
        write(notes, found)
    campaigns = found["campaigns"]
    summary = {
        "kills": len(found["kills"]),
        "seconds_uninterrupted": round(length, 1),
        "campaigns": len(campaigns),
        "with_the_same_end": sum(one["same"] for one in campaigns),
        "labels": sum(one["labels"] for one in campaigns),
        "labels_calculated_twice": sum(one["twice"] for one in campaigns),
        "reached_when_killed": dict(Counter(one["reached"] for one in found["kills"])),
        "moments": [one["seconds"] for one in found["kills"]],
    }
    write(setting.kept / "kill.json", summary)
    print(json.dumps(summary, indent=1))


def kill_once(folder: Path, found: dict[str, Any], times: int, length: float) -> None:
    """Go on with the campaign that is on its way, or a new one, until it is killed or ends."""
    if found["campaigns"][-1:] != [None]:
        found["campaigns"].append(None)  # begun, and not through
    number, count = len(found["campaigns"]) - 1, len(found["kills"])
    place = folder / f"killed_{number}"
    moment = np.random.default_rng([SEED, number, count]).uniform(0.0, length)
    reached = run(place, moment if count < times else None)
    if reached is None:
        found["campaigns"][-1] = compare(place, folder / "whole")
        print(f"campaign {number}: {found['campaigns'][-1]}", flush=True)
    else:
        kill = {"campaign": number, "seconds": round(moment, 2), "reached": reached}
        found["kills"].append(kill)
        print(f"kill {count}: after {moment:.1f} s of {length:.1f} s, {reached}", flush=True)


def prepare(folder: Path) -> None:
    """First frames and test frames with labels."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(SEED)
    for name, count, width in (("first", 12, 0.05), ("test", 6, 0.15)):
        images = []
        for _ in range(count):
            atoms = molecule("H2O")
            atoms.positions += generator.normal(0.0, width, (3, 3))
            atoms.info |= {"charge": 0, "spin": 1}
            images.append(atoms)
        if not (folder / f"{name}.xyz").exists():
            ase.io.write(folder / f"bare_{name}.xyz", images, format="extxyz")
            frames = read_frames([folder / f"bare_{name}.xyz"])
            label_frames(frames, Xtb(), folder / f"{name}.xyz")


def run(place: Path, moment: float | None) -> str | None:
    """The campaign until it ends (None) or is killed, then how far it was.

    Args:
        place: its folder.
        moment: seconds after which it is killed; None lets it come to its end.
    """
    program = str(Path(sys.executable).parent / "surefoot")
    with subprocess.Popen(
        [program, "learn", str(CONFIG), "-o", str(place)],
        cwd=place.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return how_far(place)
    if process.returncode:
        raise RuntimeError(f"{place}: {said}")
    return None


def how_far(place: Path) -> str:
    """The round and the stage that a campaign was in."""
    rounds = sorted((place / "rounds").glob("*"))
    if not rounds:
        return "before the first round"
    last = rounds[-1]
    stages = {
        "training": last / "train" / "potential.safetensors",
        "judging": last / "figures.json",
        "exploring": last / "candidates.xyz",
        "choosing": last / "chosen.xyz",
        "labelling": last / "labels.xyz",
        "summing up": last / "round.json",
    }
    stage = next((name for name, file in stages.items() if not file.exists()), "at its end")
    return f"round {int(last.name)}, {stage}"


def outcome(place: Path) -> list[Any]:
    """All that was decided in each round, its labels and its weights."""
    found: list[Any] = []
    for one in sorted((place / "rounds").iterdir()):
        files = [one / name for name in DECIDED]
        found += [file.read_text() if file.exists() else None for file in files]
        weights = load_predictor(one / "train" / "potential.safetensors").weights
        found += [(name, weights[name].tolist()) for name in sorted(weights)]
        found.append(json.loads((one / "round.json").read_text())["ended"])
    return found


def compare(place: Path, whole: Path) -> dict[str, Any]:
    """Whether two campaigns came to the same, and labels in the journals of the first."""
    keys = []
    for journal in place.glob("rounds/*/labels.xyz.journal.jsonl"):
        keys += [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    return {
        "same": outcome(place) == outcome(whole),
        "labels": len(keys),
        "twice": len(keys) - len(set(keys)),
    }
