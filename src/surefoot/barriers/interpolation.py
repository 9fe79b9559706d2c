"""First images of a band: between two structures in a straight line, or with distances in one.

The straight line may lead atoms through each other. The image-dependent pair potential of Smidstrup
et al., J. Chem. Phys. 140 (2014) 214106, moves images to where all distances lie between those of
the ends,

    S = Σ_{a<b} (d_ab − d⁰_ab)² / d_ab⁴,

with d⁰ interpolated in a straight line, on a band of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.geometry import find_mic
from jaxtyping import Float
from torch import Tensor

from surefoot.barriers.bands import BandSettings, find_band_forces
from surefoot.motion.systems import find_fixed
from surefoot.relax.fire import Fire
from surefoot.relax.rows import Rows

SPRING = 0.1  # of the band of the pair potential
ENOUGH = 0.02  # longest force left on it; only the start of another band hangs on it
STEPS = 500


def interpolate(
    first: Atoms, last: Atoms, settings: BandSettings
) -> Float[Tensor, "images atoms 3"]:
    """Images from one structure to another, both among them, Å.

    A molecule that is free to move is laid on the first one before.

    Args:
        first: where the band begins.
        last: where it ends, of the same atoms.
        settings: how many images, and how they are made.
    Raises:
        ValueError: if the pair potential is asked for and the structure is periodic.
    """
    if settings.interpolation == "idpp" and first.pbc.any():
        raise ValueError(
            "the structure is periodic, and the image-dependent pair potential takes molecules; "
            "set `interpolation: linear`."
        )
    start, end = first.positions, last.positions
    if first.pbc.any():
        end = start + find_mic(end - start, first.cell, first.pbc)[0]  # pyright: ignore[reportArgumentType]
    elif not find_fixed(first).any():
        end = lay_on(end, start)
    parts = torch.linspace(0, 1, settings.images, dtype=torch.float64)[:, None, None]
    path = torch.tensor(start) + parts * torch.tensor(end - start)
    if settings.interpolation == "linear":
        return path
    return _relax_distances(path, torch.tensor(find_fixed(first)))


def lay_on(
    moved: Float[np.ndarray, "atoms 3"], target: Float[np.ndarray, "atoms 3"]
) -> Float[np.ndarray, "atoms 3"]:
    """Positions shifted and turned so that they are closest to others.

    Kabsch, Acta Cryst. A 32 (1976) 922.
    """
    centre, goal = moved.mean(0), target.mean(0)
    left, _, right = np.linalg.svd((moved - centre).T @ (target - goal))
    proper = np.diag([1.0, 1.0, np.linalg.det(left @ right)])
    return (moved - centre) @ (left @ proper @ right) + goal


def _relax_distances(path: Tensor, fixed: Tensor) -> Float[Tensor, "images atoms 3"]:
    """The band on the surface of the pair potential."""
    path, inside = path.clone(), len(path) - 2
    one, other = torch.triu_indices(path.shape[1], path.shape[1], 1)
    ends = (path[[0, -1]][:, one] - path[[0, -1]][:, other]).norm(dim=-1)
    parts = torch.linspace(0, 1, len(path), dtype=torch.float64)[:, None]
    wanted = ends[:1] + parts * (ends[1:] - ends[:1])
    fire, rows = Fire(), Rows(owner=torch.zeros(inside * path.shape[1], dtype=torch.int64), count=1)
    memory = fire.begin(rows)
    for _ in range(STEPS):
        free = path.clone().requires_grad_()
        lengths = (free[:, one] - free[:, other]).norm(dim=-1)
        energies = ((lengths - wanted).square() / lengths.pow(4)).sum(-1)
        (slope,) = torch.autograd.grad(energies.sum(), free)
        forces = torch.where(fixed[:, None], 0.0, -slope[1:-1])
        push = find_band_forces(path, energies.detach(), forces, SPRING)
        push = torch.where(fixed[:, None], 0.0, push)
        if float(push.norm(dim=-1).max()) < ENOUGH:
            break
        here = path[1:-1].reshape(-1, 3)
        memory, step = fire.step(memory, rows, here, push.reshape(-1, 3))
        path[1:-1] += step.reshape(inside, -1, 3)
    return path
