"""What ends the motion of a system: heat, drift, lost atoms, numbers that are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.graph import Graph
from surefoot.md.integrator import Engine, conserved
from surefoot.md.settings import Simulation
from surefoot.md.state import State, kinetic_energy, temperature

COOLEST_EXPLOSION = 3000.0  # K; small systems that begin off a minimum get hot without exploding
DRIFT_WINDOW = 1000.0  # fs over which drift is measured


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run allows.

    Attributes:
        hottest: (systems) K.
        drift: eV/atom/ps.
        lost: whether lost atoms end it.
        window: steps over which drift is measured.
    """

    hottest: Float[Tensor, " systems"]
    drift: float
    lost: bool
    window: int


def find_limits(settings: Simulation, temperatures: Float[Tensor, " systems"]) -> Limits:
    """The limits that settings name, with what they leave open."""
    hottest = (10 * temperatures).clamp(min=COOLEST_EXPLOSION)
    if settings.hottest is not None:
        hottest = torch.full_like(temperatures, settings.hottest)
    return Limits(
        hottest=hottest,
        drift=settings.drift,
        lost=settings.lost == "stop",
        window=max(1, round(DRIFT_WINDOW / settings.dynamics.timestep)),
    )


def find_adrift(state: State, engine: Engine) -> Bool[Tensor, " systems"]:
    """Systems with a position or cell that no list of neighbours can be made for."""
    systems = engine.systems
    bad = systems.sum((~state.positions.isfinite().all(-1)).double()) > 0
    return bad | ~state.cell.flatten(1).isfinite().all(-1)


def examine(
    state: State, graph: Graph, step: int, engine: Engine, limits: Limits
) -> tuple[dict[int, str], State]:
    """What is wrong after a step, by number of the system, and the state with its anchor moved.

    Args:
        state: after a whole step.
        graph: of which its forces are.
        step: how many have been made.
        engine: what moves.
        limits: of the run.
    """
    reasons = _not_finite(state, engine)
    _too_hot(reasons, state, engine, limits)
    if limits.lost:
        _lost(reasons, state, graph, engine)
    if step % limits.window == 0:
        state = _drift(reasons, state, engine, limits)
    return reasons, state


def _not_finite(state: State, engine: Engine) -> dict[int, str]:
    fine = state.forces.isfinite().all(-1) & state.momenta.isfinite().all(-1)
    bad = engine.systems.sum((~fine).double()) > 0
    bad |= ~state.energy.isfinite()
    return dict.fromkeys(
        _numbers(bad),
        "energy or forces are no longer finite; the structure has left what the potential can "
        "describe",
    )


def _too_hot(reasons: dict[int, str], state: State, engine: Engine, limits: Limits) -> None:
    found = temperature(kinetic_energy(state.momenta, engine.systems), engine.modes)
    for number in _numbers(found > limits.hottest):
        reasons.setdefault(
            number,
            f"the temperature is {float(found[number]):.0f} K, above the "
            f"{float(limits.hottest[number]):.0f} K that end a run; use a shorter timestep or "
            "begin nearer to a minimum, and look at the uncertainty of the last frames",
        )


def _lost(reasons: dict[int, str], state: State, graph: Graph, engine: Engine) -> None:
    alone = state.bound & (graph.receiver_offsets.diff() == 0)
    first = engine.systems.atoms.offsets
    for atom in alone.nonzero()[:, 0].tolist():
        number = int(engine.systems.owner[atom])
        reasons.setdefault(
            number,
            f"atom {atom - int(first[number])} has left: nothing is within the cutoff of it any "
            "more; allow lost atoms if molecules may come apart",
        )


def _drift(reasons: dict[int, str], state: State, engine: Engine, limits: Limits) -> State:
    now = conserved(state, engine)
    picoseconds = limits.window * engine.dynamics.timestep / 1000
    change = (now - state.anchor) / engine.systems.atom_counts / picoseconds
    for number in _numbers(change.abs() > limits.drift):
        reasons.setdefault(
            number,
            f"what should be conserved has changed by {float(change[number]):.3g} eV/atom in one "
            f"picosecond, more than {limits.drift}; use a shorter timestep",
        )
    return State(**{**state.tree(), "anchor": now})


def _numbers(which: Int[Tensor, " systems"] | Bool[Tensor, " systems"]) -> list[int]:
    return which.nonzero()[:, 0].tolist()


def say_momentless(
    modes: Int[Tensor, " systems"], kelvin: Float[Tensor, " systems"], places: Sequence[str]
) -> str:
    """Why a system can not be held at its temperature; empty where all can."""
    still = _numbers(modes <= 0)
    if still:
        return (
            f"{places[still[0]]}: nothing could move with this thermostat, since its atoms are "
            "fixed or it is one atom at rest; use langevin, or free some atoms"
        )
    cold = _numbers(~(kelvin > 0))
    if cold:
        return f"{places[cold[0]]}: it is to be held at {float(kelvin[cold[0]])} K, and 0 K is none"
    return ""
