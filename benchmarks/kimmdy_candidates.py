"""Time of candidates with 10 Å cut-outs: search and cut-outs, scans and barriers, recipes.

Usage: SUREFOOT_DATA=… python benchmarks/kimmdy_candidates.py [--candidates 1000] [--threads 1]
           [--potential FILE] [--points 11] [--target FILE]

A stretch of a collagen triple helix with hydrogens, in frames that are displaced at random, with
one radical in its middle, goes through what `surefoot hat candidates`, `barrier` and `hat recipes`
do, which is what KIMMDY's reaction does after it has read KIMMDY's files. Where fewer candidates
are measured the time is also given for 1,000: barriers take nearly all of it, and it is
proportional to atoms, points and draws of the potential. The atoms are what matters here, not
whether the potential knows collagen.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hat.collagen import displaced, find_stretch

from surefoot import __version__
from surefoot.barriers.curves import predict_curves
from surefoot.barriers.paths import read_paths
from surefoot.barriers.records import ReportSettings, record_scan
from surefoot.barriers.scans import judge_scan
from surefoot.data.read import read_frames
from surefoot.hat.candidate_files import SCANS, TABLE, write_folder
from surefoot.hat.frames import Search, search_frames
from surefoot.hat.recipes import make_recipes, write_recipes
from surefoot.posteriors.predictor import load_predictor

HERE = Path(__file__).parent
RESULT = HERE / "results" / "kimmdy_candidates.json"
RADIUS = 10.0  # Å
TOGETHER = 16  # scans
PER_FRAME = 0.03  # Å, standard deviation of displacements


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = HERE / "demo" / "potential.safetensors"
    parser.add_argument("--potential", type=Path, default=default)
    parser.add_argument("--candidates", type=int, default=1000, help="scans that are measured")
    parser.add_argument("--points", type=int, default=11, help="of each scan")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target", type=Path, default=RESULT)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(chosen, Path(folder))
    chosen.target.parent.mkdir(parents=True, exist_ok=True)
    part = chosen.target.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.rename(chosen.target)
    print(json.dumps(result, indent=1))


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Wall and processor seconds of each stage, as measured and for 1,000 candidates."""
    search = Search(radius=RADIUS, points=chosen.points)
    stretch = find_stretch(search)
    predictor = load_predictor(chosen.potential)
    clock = Clock()
    frames, found = 0, []
    while len(found) < chosen.candidates:  # as many frames as it needs, each time from the first
        frames = max(1, 2 * frames)
        clock = Clock()
        findings = search_frames(
            stretch.topology, displaced(stretch.positions, frames, PER_FRAME),
            [(stretch.radical, None)], search.model_copy(update={"shortest": 10**6}),
        )  # fmt: skip
        found = [row for row in findings.rows if row.cutout is not None]
    searched = len(found)
    findings.rows = found[: chosen.candidates]
    clock.lap("search and cut-outs")
    write_folder(folder / "out", stretch.topology, [(stretch.radical, None)], findings, search, [])
    paths = read_paths(read_frames([str(folder / "out" / SCANS)]))
    clock.lap("scans written and read")
    records = []
    for at in range(0, len(paths), TOGETHER):
        some = paths[at : at + TOGETHER]
        curves = predict_curves(predictor, [path.images for path in some])
        for path, curve in zip(some, curves, strict=True):
            records += record_scan(judge_scan(path, curve), ReportSettings())
    clock.lap("barriers")
    spans = {row.frame: (float(row.frame), row.frame + 1.0) for row in findings.rows}
    recipes = make_recipes(records, paths, folder / "out" / TABLE, spans)
    write_recipes(folder / "recipes.csv", recipes)
    clock.lap("recipes")
    scale = {name: 1000 / len(paths) for name in clock.laps}
    scale["search and cut-outs"] = 1000 / searched
    atoms = [len(path.images[0]) for path in paths]
    return {
        "candidates": len(paths),
        "recipes": len(recipes),
        "frames": frames,
        "atoms": [min(atoms), max(atoms)],
        "points": chosen.points,
        "draws": predictor.draws,
        "threads": chosen.threads,
        "potential": hashlib.sha256(chosen.potential.read_bytes()).hexdigest(),
        "measured_s": clock.laps,
        "per_1000_s": {
            name: {kind: round(scale[name] * value, 2) for kind, value in lap.items()}
            for name, lap in clock.laps.items()
        },
        "load": os.getloadavg()[0],
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"surefoot": __version__, "torch": torch.__version__},
    }


class Clock:
    """Wall and processor seconds of stages that follow each other."""

    def __init__(self) -> None:
        self.laps: dict[str, dict[str, float]] = {}
        self._last = self._now()

    def lap(self, name: str) -> None:
        """The stage of this name ends here."""
        now = self._now()
        pairs = zip(("wall", "cpu"), self._last, now, strict=True)
        self.laps[name] = {kind: round(end - begin, 3) for kind, begin, end in pairs}
        self._last = now

    @staticmethod
    def _now() -> tuple[float, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return time.perf_counter(), used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
