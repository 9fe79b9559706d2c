"""Where the experiments work, the program that they call, and the figures that are kept."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CONFIG: dict[str, Any] = yaml.safe_load((HERE / "config.yaml").read_text())


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is run where.

    Attributes:
        scale: sizes, from config.yaml.
        work: folder of frames, potentials and trajectories.
        kept: folder of the JSON files.
    """

    scale: dict[str, Any]
    work: Path
    kept: Path

    @property
    def methods(self) -> list[str]:
        """The labels that are compared."""
        return CONFIG["methods"][-self.scale["methods"] :]

    def rates(self, architecture: str) -> list[float]:
        """The learning rates that are tried."""
        return CONFIG["architectures"][architecture]["rates"][: self.scale["rates"]]

    def folder(self, name: str) -> Path:
        """A folder for this to work in, which is there."""
        made = self.work / name
        made.mkdir(parents=True, exist_ok=True)
        return made


Piece = Callable[[Setting], dict[str, Any]]


def file_of(name: str, setting: Setting) -> Path:
    return setting.kept / f"{name}.json"


def need(name: str, setting: Setting) -> dict[str, Any]:
    """The figures of a piece that comes before."""
    file = file_of(name, setting)
    if not file.exists():
        raise SystemExit(f"{name} comes first: {file} is not there.")
    return json.loads(file.read_text())


def keep(name: str, piece: Piece, setting: Setting) -> None:
    """Make a piece and keep its figures, with wall and processor seconds, children's among them."""
    began, processor = time.monotonic(), os.times()
    found = piece(setting)
    used = sum(os.times()[:4]) - sum(processor[:4])
    found |= {"wall_s": round(time.monotonic() - began, 1), "cpu_s": round(used, 1)}
    file = file_of(name, setting)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".part").write_text(json.dumps(found) + "\n")
    file.with_suffix(".part").rename(file)
    print(f"{name}: {found['wall_s']} s, {found['cpu_s']} s of CPU", flush=True)


def surefoot(*arguments: object, cwd: Path | None = None, log: Path | None = None) -> float:
    """The program; processor seconds that it took.

    Args:
        arguments: verb and options.
        cwd: where it works.
        log: file that takes what it says; the screen where not set.
    """
    command = [sys.executable, "-m", "surefoot", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    before = os.times()
    if log is None:
        subprocess.run(command, cwd=cwd, check=True, env=environment)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            subprocess.run(command, cwd=cwd, check=True, env=environment, stdout=file, stderr=file)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def label(structures: Path, output: Path, *options: object) -> dict[str, int]:
    """Label on one core, or go on; how many frames have labels, and how many have failed."""
    surefoot("label", structures, "-o", output, "--workers", 1, *options, log=_log(output))
    failed = output.with_name(output.name + ".failed.json")
    count = output.read_text().count("Properties=")
    return {
        "frames": count,
        "failed": len(json.loads(failed.read_text())) if failed.exists() else 0,
    }


def _log(output: Path) -> Path:
    return output.with_suffix(".log")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
