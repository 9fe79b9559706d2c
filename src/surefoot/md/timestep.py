"""The fastest vibration of a structure, and whether a timestep can follow it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.motion.skin import NeighborLists
from surefoot.motion.surface import Surface
from surefoot.motion.systems import Configuration, Systems

ITERATIONS = 10
NUDGE = 1e-3  # Å, of the atom that is moved farthest
FEWEST_STEPS = 8  # in a period; Verlet's frequency is then 2.6 % too high


def fastest_periods(
    systems: Systems, start: Configuration, surface: Surface, lists: NeighborLists
) -> Float[Tensor, " systems"]:
    """The shortest period 2π/ω of each system, fs; inf where no direction is stiff.

    ω² is the largest eigenvalue of the Hessian over masses, found by Lanczos with differences of
    forces: twenty evaluations, whatever the size. It is approached from below, so periods are
    rather too long than too short.

    Args:
        systems: with their masses.
        start: positions and cells.
        surface: what they move on, with its bias.
        lists: of these systems.
    """
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(start.positions.shape, generator=generator, dtype=torch.float64)
    vector = _unit(torch.where(systems.fixed[:, None], 0.0, vector), systems)
    before, scale = torch.zeros_like(vector), torch.zeros(systems.count, dtype=torch.float64)
    diagonal, beside = [], []
    for _ in range(ITERATIONS):
        image = _curvature(vector, systems, start, surface, lists)
        overlap = _dot(vector, image, systems)
        image = image - overlap[systems.owner, None] * vector - scale[systems.owner, None] * before
        diagonal.append(overlap)
        scale = _dot(image, image, systems).sqrt()
        beside.append(scale)
        before, vector = vector, _unit(image, systems)
    matrix = torch.diag_embed(torch.stack(diagonal, -1))
    for place, value in enumerate(beside[:-1]):
        matrix[:, place, place + 1] = matrix[:, place + 1, place] = value
    stiffest = torch.linalg.eigvalsh(matrix)[:, -1]
    return torch.where(stiffest > 0, 2 * math.pi / stiffest.clamp(min=1e-300).sqrt(), torch.inf)


def _curvature(
    vector: Tensor, systems: Systems, start: Configuration, surface: Surface, lists: NeighborLists
) -> Tensor:
    """The mass-weighted Hessian times a vector, from forces on both sides."""
    roots = systems.masses.sqrt()[:, None]
    direction = vector / roots
    lengths = torch.linalg.vector_norm(direction, dim=-1)
    farthest = lengths.new_zeros(systems.count).scatter_reduce(0, systems.owner, lengths, "amax")
    size = (NUDGE / farthest.clamp(min=1e-300))[systems.owner, None]
    size = torch.where(farthest[systems.owner, None] > 0, size, 0.0)
    forces = []
    for sign in (1.0, -1.0):
        moved = Configuration(positions=start.positions + sign * size * direction, cell=start.cell)
        graph = lists.graph(moved)
        found = surface(graph, stress=False, uncertainty=False)
        pull = found.bias_forces
        forces.append(found.forces if pull is None else found.forces + pull)
    slope = (forces[1] - forces[0]) / torch.where(size > 0, 2 * size, 1.0)
    return torch.where(systems.fixed[:, None], 0.0, slope / roots)


def _dot(a: Tensor, b: Tensor, systems: Systems) -> Float[Tensor, " systems"]:
    return systems.sum((a * b).sum(-1))


def _unit(vector: Tensor, systems: Systems) -> Tensor:
    """Of length one in each system; zero where there is nothing left."""
    length = _dot(vector, vector, systems).sqrt()[systems.owner, None]
    return torch.where(length > 1e-12, vector / length.clamp(min=1e-300), 0.0)


def say_too_long(period: float, timestep: float, place: str) -> str:
    """A warning where a timestep can not follow the fastest vibration; empty where it can."""
    if timestep * FEWEST_STEPS <= period:
        return ""
    return (
        f"{place}: the fastest vibration has a period of {period:.1f} fs and a timestep of "
        f"{timestep} fs is {timestep / period:.0%} of it; at most {period / FEWEST_STEPS:.2f} fs "
        "follow it well, and beyond a third the motion explodes."
    )
