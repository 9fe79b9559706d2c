"""What pieces of a benchmark have in common, and what is kept of a campaign."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from uncertainty import change

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is run where.

    Attributes:
        scale: key of `scales` in the configs.
        work: folder of all that is not kept.
        kept: folder of the JSON files.
        end: when nothing more begins, by the monotonic clock.
    """

    scale: str
    work: Path
    kept: Path
    end: float

    def file(self, name: str) -> Path:
        return self.kept / ("live" if name.startswith("live_") else "pool") / f"{name}.json"

    def config(self, file: str) -> dict[str, Any]:
        """A config of this folder at its scale."""
        content: dict[str, Any] = yaml.safe_load((HERE / file).read_text())
        changes = content.pop("scales")[self.scale]
        return change(content, changes)


Piece = Callable[[], dict[str, Any]]


def keep(name: str, piece: Piece, setting: Setting) -> None:
    """Do it, and write its figures with the time it took."""
    began, processor = time.monotonic(), os.times()
    found = piece()
    spent = os.times()
    used = sum(spent[:4]) - sum(processor[:4])  # by children too
    found |= {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(used, 1)}
    write(setting.file(name), found)
    print(f"{name}: {found['seconds']:.0f} s", flush=True)


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content) + "\n")
    part.rename(file)


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """Figures, labels, seconds and what was chosen of each round of a campaign's folder."""
    rounds, labels = [], 0
    for place in sorted((folder / "rounds").iterdir()):
        summary = json.loads((place / "round.json").read_text())
        one = {
            "labels": labels,  # that its potential knows
            "figures": {name: float(f"{v:.6g}") for name, v in summary["figures"].items()},
            "stages": summary["seconds"],
            "choice_share": summary["choice_share"],
            "ended": summary["ended"],
        }
        if (place / "choice.json").exists():
            choice = json.loads((place / "choice.json").read_text())
            one["chosen"] = [entry["candidate"] for entry in choice["chosen"]]
            one["refused"] = choice["refused"]
        labels += summary["labelled"]
        rounds.append(one)
    return rounds
