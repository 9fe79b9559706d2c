"""One step of many systems: kick, drift, bath, drift, kick.

    p ← p + ½Δt F    r ← r + ½Δt p/m    O    r ← r + ½Δt p/m    F = F(r)    p ← p + ½Δt F

O is nothing for NVE, which makes this velocity Verlet, and the bath otherwise: BAOAB for Langevin
(Leimkuhler and Matthews, J. Chem. Phys. 138 (2013) 174102), stochastic velocity rescaling (Bussi,
Donadio and Parrinello, J. Chem. Phys. 126 (2007) 014101), and for constant pressure stochastic cell
rescaling, isotropic (Bernetti and Bussi, J. Chem. Phys. 153 (2020) 114107). The barostat acts in
the middle too, where no force is waiting to be used, and knows pressure and volume of the beginning
of the step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.md.noise import Noise
from surefoot.md.settings import Barostat, Bussi, Dynamics, Langevin
from surefoot.md.state import State, count_modes, kinetic_energy, tension
from surefoot.motion.systems import Systems
from surefoot.units import BOLTZMANN, GPA


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What moves and how.

    Attributes:
        systems: those that still move.
        dynamics: integrator and baths.
        temperatures: (systems) K of the thermostat, or of the momenta that are drawn.
        noise: of these systems.
    """

    systems: Systems
    dynamics: Dynamics
    temperatures: Float[Tensor, " systems"]
    noise: Noise

    @property
    def modes(self) -> Int[Tensor, " systems"]:
        """Degrees of freedom with kinetic energy; Langevin noise moves the centre of mass too."""
        langevin = isinstance(self.dynamics.thermostat, Langevin)
        return count_modes(self.systems, keeps_momentum=not langevin)

    def select(self, keep: Tensor) -> Engine:
        """That of some systems; they draw what they would have drawn."""
        systems = self.systems.select(keep)
        return Engine(
            systems=systems,
            dynamics=self.dynamics,
            temperatures=self.temperatures[keep],
            noise=Noise(self.noise.seed, systems.ids.tolist()),
        )


def draw_momenta(engine: Engine) -> Float[Tensor, "atoms 3"]:
    """Momenta of the Maxwell–Boltzmann distribution, eV·fs/Å.

    Fixed atoms have none, and neither has the centre of mass of a system without fixed atoms.
    """
    systems = engine.systems
    spread = (systems.masses * BOLTZMANN * engine.temperatures[systems.owner]).sqrt()
    normals = engine.noise.vectors("momenta", 0, systems.atom_counts.tolist())
    return rest(torch.where(systems.fixed[:, None], 0.0, spread[:, None] * normals), systems)


def rest(momenta: Float[Tensor, "atoms 3"], systems: Systems) -> Float[Tensor, "atoms 3"]:
    """Momenta without that of the centre of mass, in systems without fixed atoms."""
    total = torch.stack([systems.sum(momenta[:, axis]) for axis in range(3)], -1)
    held = systems.sum(systems.fixed.double()) > 0
    velocity = total / systems.sum(systems.masses)[:, None]
    velocity = torch.where(held[:, None], 0.0, velocity)
    return momenta - systems.masses[:, None] * velocity[systems.owner]


def move(state: State, step: int, engine: Engine) -> State:
    """The first part of a step, up to the new positions; forces are still the old ones.

    Args:
        state: after a whole step.
        step: number of the step that begins, from 0.
        engine: what moves and how.
    """
    dynamics, systems = engine.dynamics, engine.systems
    half = 0.5 * dynamics.timestep
    pressure = inner_pressure(state, engine) if dynamics.barostat is not None else None
    state = kick(state, engine)
    drift = half / systems.masses[:, None]
    state = replace(state, positions=state.positions + drift * state.momenta)
    if isinstance(dynamics.thermostat, Langevin):
        state = _langevin(state, step, engine, dynamics.thermostat)
    elif isinstance(dynamics.thermostat, Bussi):
        state = _bussi(state, step, engine, dynamics.thermostat)
    if dynamics.barostat is not None and pressure is not None:
        state = _rescale(state, step, engine, dynamics.barostat, pressure)
    return replace(state, positions=state.positions + drift * state.momenta)


def kick(state: State, engine: Engine) -> State:
    """Half a step of the forces on momenta: the last part of a step, too."""
    push = 0.5 * engine.dynamics.timestep * state.forces
    push = torch.where(engine.systems.fixed[:, None], 0.0, push)
    return replace(state, momenta=state.momenta + push)


def _langevin(state: State, step: int, engine: Engine, bath: Langevin) -> State:
    """Friction and noise: p ← c p + √((1 − c²) m kT) ξ with c = exp(−Δt/τ)."""
    systems = engine.systems
    keep = torch.exp(torch.tensor(-engine.dynamics.timestep / bath.time, dtype=torch.float64))
    thermal = systems.masses * BOLTZMANN * engine.temperatures[systems.owner]
    normals = engine.noise.vectors("thermostat", step, systems.atom_counts.tolist())
    momenta = keep * state.momenta + ((1 - keep**2) * thermal).sqrt()[:, None] * normals
    return _exchange(state, torch.where(systems.fixed[:, None], 0.0, momenta), systems)


def _bussi(state: State, step: int, engine: Engine, bath: Bussi) -> State:
    """One factor, p ← α p; α² is the new kinetic energy, which is drawn, over the old one."""
    systems, modes = engine.systems, engine.modes
    kinetic = kinetic_energy(state.momenta, systems)
    keep = torch.exp(torch.tensor(-engine.dynamics.timestep / bath.time, dtype=torch.float64))
    share = 0.5 * BOLTZMANN * engine.temperatures * (1 - keep) / kinetic
    first = engine.noise.normals("thermostat", step)
    others = engine.noise.squares("thermostat", step, (modes - 1).tolist())
    squared = keep + share * (first**2 + others) + 2 * first * (keep * share).sqrt()
    turned = torch.where(first + (keep / share).sqrt() < 0, -1.0, 1.0)
    scale = turned * squared.sqrt()
    return _exchange(state, scale[systems.owner, None] * state.momenta, systems)


def _exchange(state: State, momenta: Tensor, systems: Systems) -> State:
    """Other momenta, and what they have cost the bath."""
    gained = kinetic_energy(momenta, systems) - kinetic_energy(state.momenta, systems)
    return replace(state, momenta=momenta, exchanged=state.exchanged + gained)


def inner_pressure(state: State, engine: Engine) -> Float[Tensor, " systems"]:
    """(2K/3 + missing kT/3) / V − tr σ / 3, eV/Å³.

    K lacks the centre of mass where its momentum is zero, but its position is scaled like any
    other, so the three modes are put back with their mean.
    """
    systems = engine.systems
    missing = (3 * systems.atom_counts - engine.modes) * BOLTZMANN * engine.temperatures
    kinetic = 2 * kinetic_energy(state.momenta, systems) + missing
    return kinetic / (3 * state.configuration.volume) - tension(state.stress)


def _rescale(
    state: State, step: int, engine: Engine, bath: Barostat, pressure: Float[Tensor, " systems"]
) -> State:
    """Scale cell and positions by μ and momenta by 1/μ, with λ = √V, of which the noise is even.

    dλ = λβ/2τ (P − P⁰ + kT/2V) dt + √(kTβ/2τ) dW

    What this puts in on the side of positions is counted with the next forces; see
    `State.evaluated`.
    """
    systems, timestep = engine.systems, engine.dynamics.timestep
    volume = state.configuration.volume
    thermal = BOLTZMANN * engine.temperatures
    pace = bath.compressibility / GPA / (2 * bath.time)
    root = volume.sqrt()
    drift = root * pace * (pressure - bath.pressure * GPA + thermal / (2 * volume)) * timestep
    normals = engine.noise.normals("barostat", step)
    root = root + drift + (thermal * pace * timestep).sqrt() * normals
    scale = (root.square() / volume) ** (1 / 3)
    scaled = _exchange(state, state.momenta / scale[systems.owner, None], systems)
    return replace(
        scaled,
        positions=state.positions * scale[systems.owner, None],
        cell=state.cell * scale[:, None, None],
        swelled=state.swelled + root.square() - volume,
    )


def conserved(state: State, engine: Engine) -> Float[Tensor, " systems"]:
    """Energy without what baths have put in, eV: constant for small steps."""
    return state.energy + kinetic_energy(state.momenta, engine.systems) - state.exchanged
