"""The inputs: a molecule of 27 atoms, and boxes of liquid water; the same numbers for everybody."""

import os
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

ELEMENTS = (1, 6, 7, 8)
MOLECULES = "3bpa/train_300K.xyz.gz"  # below SUREFOOT_DATA
SPACING = 3.104  # Å; a molecule of water on a cubic lattice of 0.1 atoms/Å³
SEED = 20


def molecules(count: int) -> tuple[list[Atoms], str]:
    """Frames of 27 atoms of C, H, N and O, and where they are from."""
    folder = os.environ.get("SUREFOOT_DATA")
    if folder is not None and (Path(folder) / MOLECULES).exists():
        frames = ase.io.read(Path(folder) / MOLECULES, index=f":{count}")
        return [
            Atoms(f.numbers, positions=f.positions) for f in frames if isinstance(f, Atoms)
        ], "3BPA"
    return [built(np.random.default_rng([SEED, n])) for n in range(count)], "built"


def built(rng: np.random.Generator) -> Atoms:
    """Pyridine, benzene and formaldehyde in a stack: about as many neighbours as 3BPA has."""
    stack = Atoms()
    for height, name in ((0.0, "C5H5N"), (3.4, "C6H6"), (6.6, "H2CO")):
        part = molecule(name)
        part.positions -= part.positions.mean(0)
        if name == "C5H5N":  # the only one that lies in another plane
            part.rotate(90, "y")
        part.positions[:, 2] += height
        stack += part
    stack.positions += 0.05 * rng.normal(size=stack.positions.shape)
    return stack


def water(side: int) -> Atoms:
    """side³ molecules on a cubic lattice, each turned at random: 3·side³ atoms."""
    rng = np.random.default_rng([SEED, side])
    shape = molecule("H2O").positions
    shape -= shape.mean(0)
    places = SPACING * np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1)
    places = places.reshape(-1, 3) + 0.1 * rng.normal(size=(side**3, 3))
    turned = Rotation.random(side**3, rng=rng).as_matrix() @ shape.T
    positions = (places[:, :, None] + turned).transpose(0, 2, 1).reshape(-1, 3)
    numbers = np.tile([8, 1, 1], side**3)
    return Atoms(numbers, positions=positions, cell=[SPACING * side] * 3, pbc=True)


def describe(atoms: Atoms) -> dict[str, Any]:
    """As JSON, which gives back every bit of a float64."""
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": np.array(atoms.cell).tolist(),
        "pbc": atoms.pbc.tolist(),
    }
