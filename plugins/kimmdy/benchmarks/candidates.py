# SPDX-License-Identifier: GPL-3.0-or-later
"""Time of candidates with 10 Å cut-outs: search and cut-outs, scans and barriers, recipes.

A stretch of a collagen triple helix with hydrogens, in thermal frames, with one radical in its
middle, goes through what the reaction does after it has read KIMMDY's files. So many candidates
are measured and the time is given for 1,000; barriers take nearly all of it, and it is
proportional to atoms, points and draws of the potential. The atoms are what matters here, not
whether the potential knows collagen.

    python plugins/kimmdy/benchmarks/candidates.py --candidates 16 --threads 2
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from surefoot.hat.frames import search_frames
from surefoot.hat.protein_files import read_structure
from surefoot.hat.proteins import Snapshot, Topology
from surefoot.hat.regions import around
from surefoot.hat.valence import Radical, read_radical
from surefoot.posteriors.predictor import load_predictor

from surefoot_kimmdy.options import Options
from surefoot_kimmdy.predictions import predict

ROOT = Path(__file__).parents[3]
FILE = "colbuilder_homosapiens_N_HLKNL_C_HLKNL.pdb.gz"
RADICALS = "A:GLY{}:CA-HA2"
WIDE = 16.0  # Å, of the stretch: all that cut-outs of 10 Å and their caps may need
THERMAL = 0.03  # Å
FIRST = 300  # residue from which a neutral cut-out is sought


def stretch(options: Options) -> tuple[Topology, np.ndarray, Radical]:
    """Atoms, positions in Å and the radical, all hydrogens there, of a cut-out that is neutral."""
    folder = Path(os.environ["SUREFOOT_DATA"]) / "peptides"
    topology, frames = read_structure(folder / FILE, by_distance=["L4Y", "L5Y"])
    alone = replace(frames[0], cell=None)  # one helix, without its images
    for residue in topology.residues:
        if residue.chain != "A" or residue.name != "GLY" or int(residue.number) < FIRST:
            continue
        radical, hydrogen = read_radical(topology, RADICALS.format(residue.number))
        try:
            region = around(topology, alone, radical, hydrogen, WIDE, rebuild=True)
            count = len(region.positions)
            own = replace(region.topology, source=np.arange(count), atoms_in_file=count)
            found = [(Radical(region.radical), None)]
            findings = search_frames(own, thermal(region.positions, 1), found, options.search())
        except ValueError:
            continue
        cutout = next(row.cutout for row in findings.rows if row.cutout is not None)
        if cutout.charge == 0:
            return own, region.positions, found[0][0]
    raise SystemExit("no neutral cut-out was found")


def thermal(positions: np.ndarray, frames: int) -> Iterator[Snapshot]:
    rng = np.random.default_rng(0)
    for frame in range(frames):
        yield Snapshot(frame, positions + rng.normal(0, THERMAL, positions.shape), None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of candidates in KIMMDY.")
    default = ROOT / "benchmarks" / "demo" / "potential.safetensors"
    parser.add_argument("--potential", type=Path, default=default)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    options = Options(potential=given.potential, radius=10.0)
    predictor = load_predictor(given.potential)
    topology, positions, radical = stretch(options)
    begin = time.perf_counter()
    frames = thermal(positions, given.frames)
    findings = search_frames(topology, frames, [(radical, None)], options.search())
    searched = time.perf_counter() - begin
    found = [row for row in findings.rows if row.cutout is not None]
    chosen = {id(row) for row in found[: given.candidates]}
    findings.rows = [row for row in findings.rows if id(row) in chosen]
    atoms = [len(row.cutout.atoms) for row in findings.rows if row.cutout is not None]
    begin, used = time.perf_counter(), time.process_time()
    predictions = list(predict(topology, findings, predictor, options))
    wall, used = time.perf_counter() - begin, time.process_time() - used
    scale = 1000 / len(predictions)
    print(f"{len(predictions)} candidates of {min(atoms)} to {max(atoms)} atoms, "
          f"{options.points} points, {predictor.draws} draws, {given.threads} threads")  # fmt: skip
    print(f"search and cut-outs: {1000 * searched / len(found):.1f} s for 1,000 candidates "
          f"({given.frames} frames, {len(found)} candidates)")  # fmt: skip
    print(f"scans and barriers: {wall * scale:.0f} s for 1,000 candidates, "
          f"{used * scale:.0f} s of processor time")  # fmt: skip


if __name__ == "__main__":
    main()
