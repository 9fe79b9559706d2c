# SPDX-License-Identifier: GPL-3.0-or-later
"""Peptides as KIMMDY has them, without water."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Peptide:
    """KIMMDY's topology, a GRO file of its atoms alone, and their positions in Å."""

    top: Any
    gro: Path
    positions: np.ndarray
    box: np.ndarray


def load(folder: Path, name: str, tmp: Path, removed: str | None = None) -> Peptide:
    """A peptide without water; one atom, named by its number, is taken out."""
    from biotite.structure.io.gro import GROFile
    from kimmdy.topology.topology import Topology

    path = tmp / "topol.top"
    path.write_bytes(gzip.decompress((folder / f"{name}.top.gz").read_bytes()))
    top = Topology.from_path(path)
    count = len(top.atoms)
    packed = folder / f"{name}_water_npt.gro.gz"
    text = gzip.decompress(packed.read_bytes()).decode().splitlines()
    lines = text[2 : 2 + count]
    if removed is not None:
        del lines[int(removed) - 1]
        top.del_atom(removed)
    gro = tmp / "npt.gro"
    gro.write_text("\n".join([name, f"{len(lines)}", *lines, text[-1]]) + "\n")
    array = GROFile.read(str(gro)).get_structure(model=1)
    return Peptide(top, gro, array.coord, array.box)


def write_xtc(peptide: Peptide, path: Path, frames: int) -> np.ndarray:
    """Thermal frames 2 ps apart, from 100 ps on; the times."""
    from biotite.structure.io.xtc import XTCFile

    rng = np.random.default_rng(3)
    moved = peptide.positions + rng.normal(0, 0.03, (frames, *peptide.positions.shape))
    times = 100.0 + 2.0 * np.arange(frames)
    file = XTCFile()
    file.set_coord(moved.astype(np.float32))
    file.set_box(np.repeat(peptide.box[None], frames, 0).astype(np.float32))
    file.set_time(times.astype(np.float32))
    file.write(str(path))
    return times
