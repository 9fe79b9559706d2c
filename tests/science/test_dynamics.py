"""Dynamics against closed forms: conservation, Maxwell–Boltzmann, equipartition, NPT volumes."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from scipy.integrate import quad
from scipy.stats import gamma, kstest

from surefoot.graph import Graph
from surefoot.md.integrator import Engine, conserved, draw_momenta, kick, move
from surefoot.md.noise import Noise
from surefoot.md.settings import Barostat, Bussi, Dynamics, Langevin
from surefoot.md.state import State, at_rest, count_modes, kinetic_energy, temperature
from surefoot.motion.lennard_jones import LennardJones
from surefoot.motion.skin import NeighborLists
from surefoot.motion.surface import Evaluation, Surface
from surefoot.motion.systems import join_systems
from surefoot.units import BOLTZMANN, GPA

ORACLES = Path(__file__).parent / "oracles"
KELVIN = 300.0
SMALLEST_P = 1e-3  # of a test that is right; seeds are fixed


@dataclass(frozen=True)
class Wells:
    """Every atom in a harmonic well of its own, and cells with an energy of their own.

    U = ½ k Σ r² + ½ B (V − V₀)² / V₀; with k = 0 and B = 0 this is the ideal gas.
    """

    stiffness: float = 0.0
    modulus: float = 0.0
    volume: float = 1.0
    cutoff: float = 0.1

    def require(self, *_: object) -> None:
        """Anything goes."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:  # noqa: ARG002
        by_atom = 0.5 * self.stiffness * graph.positions.square().sum(-1)
        energy = torch.zeros(len(graph.charge), dtype=torch.float64)
        energy = energy.index_add(0, graph.graph_index, by_atom)
        excess = graph.volume - self.volume
        energy = energy + 0.5 * self.modulus * excess**2 / self.volume
        outward = self.modulus * excess / self.volume
        return Evaluation(
            energy=energy,
            forces=-self.stiffness * graph.positions,
            stress=outward[:, None, None] * torch.eye(3, dtype=torch.float64),
        )


def integrate(
    structures: list[Atoms],
    surface: Surface,
    dynamics: Dynamics,
    steps: int,
    *,
    kelvin: float = KELVIN,
    cold: bool = False,
    keep: int = 0,
    note: Callable[[State], None] | None = None,
) -> tuple[State, Engine, list[torch.Tensor]]:
    """The engine without files: the last state, and what is conserved at every `keep`-th step.

    `note` is shown the state after each step.
    """
    systems, start = join_systems(structures)
    engine = Engine(
        systems=systems,
        dynamics=dynamics,
        temperatures=torch.full((systems.count,), kelvin, dtype=torch.float64),
        noise=Noise(3, range(systems.count)),
    )
    lists = NeighborLists(systems, surface.cutoff)
    bound = torch.zeros(len(systems.owner), dtype=torch.bool)
    momenta = draw_momenta(engine) * (0.1 if cold else 1.0)
    state = replace(at_rest(start, bound), momenta=momenta)
    stress = dynamics.barostat is not None

    alone = lists.graph(start) if isinstance(surface, Wells) else None  # nobody sees anybody

    def evaluated(state: State) -> State:
        if alone is None:
            graph = lists.graph(state.configuration)
        else:
            graph = replace(alone, positions=state.positions, cell=state.cell)
        return state.evaluated(surface(graph, stress=stress, uncertainty=False))

    state, kept = evaluated(state), []
    for step in range(steps):
        if keep and step % keep == 0:
            kept.append(conserved(state, engine))
        state = kick(evaluated(move(state, step, engine)), engine)
        if note is not None:
            note(state)
    return state, engine, kept


def crystal() -> Atoms:
    atoms = bulk("Ar", "fcc", 5.4, cubic=True)
    atoms.rattle(0.15, seed=1)
    return atoms


def test_nve_conserves_energy_to_second_order() -> None:
    """Fluctuations shrink with the square of the step, and the drift is none."""
    spread = []
    for timestep, steps in ((10.0, 150), (5.0, 300)):
        surface = LennardJones(cutoff=5.2, onset=4.2)
        _, engine, kept = integrate(
            [crystal()], surface, Dynamics(timestep=timestep), steps, kelvin=30.0, keep=1
        )
        energies = torch.stack(kept)[:, 0].numpy() / len(engine.systems.owner)
        slope = np.polyfit(np.arange(steps) * timestep / 1000, energies, 1)[0]
        spread.append(energies.std())
        assert abs(slope) < 5e-6  # eV/atom/ps
    assert spread[0] / spread[1] == pytest.approx(4.0, rel=0.25)


def test_nve_runs_backwards() -> None:
    """Velocity Verlet is reversible: turn the momenta, and the start comes back."""
    surface = LennardJones(cutoff=5.2, onset=4.2)
    dynamics = Dynamics(timestep=10.0)
    systems, start = join_systems([crystal()])
    state, engine, _ = integrate([crystal()], surface, dynamics, 60, kelvin=30.0)
    assert float((state.positions - start.positions).abs().max()) > 0.05
    lists = NeighborLists(systems, surface.cutoff)
    state = State(**{**state.tree(), "momenta": -state.momenta})
    for step in range(60):
        moved = move(state, step, engine)
        graph = lists.graph(moved.configuration)
        state = kick(moved.evaluated(surface(graph, stress=False, uncertainty=False)), engine)
    assert torch.allclose(state.positions, start.positions, atol=1e-9)


def test_drawn_momenta_are_maxwell_boltzmann() -> None:
    clusters = [Atoms("HOAr", positions=np.eye(3) * 5) for _ in range(300)]
    systems, _ = join_systems(clusters)
    engine = Engine(
        systems=systems,
        dynamics=Dynamics(),
        temperatures=torch.full((300,), KELVIN, dtype=torch.float64),
        noise=Noise(1, range(300)),
    )
    momenta = draw_momenta(engine)
    total = momenta.reshape(300, 3, 3).sum(1)
    assert float(total.abs().max()) < 1e-9
    kinetic = kinetic_energy(momenta, systems)
    modes = count_modes(systems, keeps_momentum=True)
    assert modes.tolist() == [6] * 300
    assert kstest(kinetic / (BOLTZMANN * KELVIN), gamma(3).cdf).pvalue > SMALLEST_P
    assert float(temperature(kinetic, modes).mean()) == pytest.approx(KELVIN, rel=0.1)


@pytest.mark.parametrize("bath", [Langevin(time=40.0), Bussi(time=40.0)])
def test_baths_make_the_canonical_distribution_from_cold(bath) -> None:
    """Atoms of three masses, begun at a hundredth of the temperature.

    In wells for Langevin; free for Bussi, since wells would change the total momentum.
    """
    count = 250
    molecules = [Atoms("HOAr", positions=np.eye(3) * 1e-3 + np.eye(3)) for _ in range(count)]
    stiffness = 2.0 if isinstance(bath, Langevin) else 0.0
    dynamics = Dynamics(timestep=1.0, thermostat=bath)
    surface = Wells(stiffness=stiffness)
    for atoms in molecules:
        atoms.positions *= 0.35  # apart, and near the bottom
    state, engine, _ = integrate(molecules, surface, dynamics, 400, cold=True)
    thermal = BOLTZMANN * KELVIN
    systems = engine.systems
    kinetic = kinetic_energy(state.momenta, systems)
    modes = engine.modes
    assert kstest(kinetic / thermal, gamma(float(modes[0]) / 2).cdf).pvalue > SMALLEST_P
    if isinstance(bath, Langevin):
        scaled = state.momenta / (systems.masses * thermal).sqrt()[:, None]
        potential = stiffness * state.positions.square() / thermal
        for element in (1, 8, 18):
            mine = systems.numbers == element
            assert kstest(scaled[mine].flatten(), "norm").pvalue > SMALLEST_P
            # Equipartition: ½ k x² is a gamma of ½ too, for whatever mass.
            assert kstest(0.5 * potential[mine].flatten(), gamma(0.5).cdf).pvalue > SMALLEST_P


@pytest.mark.parametrize("bath", [Langevin(time=20.0), Bussi(time=20.0)])
@pytest.mark.parametrize("modulus", [0.0, 4.0])
def test_npt_volumes(bath, modulus: float) -> None:
    """P(V) ∝ Vᴺ exp(−(U(V) + P V) / kT): gamma for the ideal gas, by quadrature with U(V)."""
    count, atoms, pressure = 250, 3, 0.05
    thermal, outside = BOLTZMANN * KELVIN, pressure * GPA
    volume = (atoms + 1) * thermal / outside
    gas = Atoms("Ar" * atoms, cell=np.eye(3) * volume ** (1 / 3), pbc=True)
    gas.positions = np.arange(atoms)[:, None] * np.ones(3) * 2.0
    # The volume relaxes in `time` where the guess of the compressibility is right.
    stiff = modulus * outside
    compressibility = GPA / (outside + stiff)
    barostat = Barostat(pressure=pressure, compressibility=compressibility, time=40.0)
    dynamics = Dynamics(timestep=1.0, thermostat=bath, barostat=barostat)
    rest = 3 * volume  # far from the mean, so that the stress counts
    surface = Wells(modulus=stiff, volume=rest)
    state, _, _ = integrate([gas.copy() for _ in range(count)], surface, dynamics, 250)
    found = state.configuration.volume.numpy()

    def density(v: float) -> float:
        energy = 0.5 * stiff * (v - rest) ** 2 / rest + outside * v
        return (v / volume) ** atoms * np.exp(-energy / thermal)

    whole = quad(density, 0, 12 * volume)[0]
    cumulative = np.vectorize(lambda v: quad(density, 0, v)[0] / whole)
    assert kstest(found, cumulative).pvalue > SMALLEST_P
    mean = quad(lambda v: v * density(v) / whole, 0, 12 * volume)[0]
    error = found.std() / np.sqrt(count)
    assert found.mean() == pytest.approx(mean, abs=4 * error)
    if modulus == 0:
        assert mean == pytest.approx(volume, rel=1e-3)


@pytest.mark.slow
def test_npt_density_of_a_liquid_is_that_of_ase() -> None:
    """Of ASE's IsotropicMTKNPT, from a crystal that is 14 % denser."""
    known = json.loads((ORACLES / "lennard_jones_density.json").read_text())
    surface = LennardJones(**{k: known[k] for k in ("epsilon", "sigma", "cutoff", "onset")})
    crystal = bulk("Ar", "fcc", 5.5, cubic=True).repeat(known["repeats"])
    barostat = Barostat(pressure=known["pressure"] / GPA, compressibility=1.0, time=1000.0)
    dynamics = Dynamics(timestep=10.0, thermostat=Bussi(time=200.0), barostat=barostat)
    copies = [crystal.copy() for _ in range(6)]
    for seed, atoms in enumerate(copies):
        atoms.rattle(0.3, seed=seed)
    densities = []

    def note(state: State) -> None:
        densities.append(known["atoms"] / state.configuration.volume.numpy())

    integrate(copies, surface, dynamics, 1600, kelvin=known["kelvin"], note=note)
    assert densities[0].mean() > 1.1 * known["density"]
    each = np.stack(densities)[600:].mean(0)  # after 6 ps
    error = np.hypot(each.std(ddof=1) / np.sqrt(len(each)), known["standard_error"])
    assert error < 0.008 * known["density"]
    assert each.mean() == pytest.approx(known["density"], abs=3 * error)


def test_npt_conserves_what_baths_leave() -> None:
    """A stiff cell: ⟨ΔV²⟩ is of the order of the timestep, so its work has to be counted too."""
    atoms, modulus = 8, 100 * GPA
    cell = Atoms("Ar" * atoms, cell=np.eye(3) * 4.0, pbc=True)
    cell.positions = np.arange(atoms)[:, None] * np.ones(3) * 0.5
    barostat = Barostat(compressibility=GPA / modulus, time=200.0)
    dynamics = Dynamics(timestep=2.0, thermostat=Bussi(time=100.0), barostat=barostat)
    surface = Wells(modulus=modulus, volume=64.0)
    _, _, kept = integrate([cell] * 10, surface, dynamics, 200, keep=199)
    change = (kept[1] - kept[0]) / atoms / (199 * 2.0 / 1000)  # eV/atom/ps
    # The square of ΔV alone is B kT β / 2τ per atom and time, 0.016 eV/atom/ps; a stress that is
    # linear in the volume leaves nothing else.
    assert float(change.abs().max()) < 1e-6


def test_fixed_atoms_hold_no_kinetic_energy() -> None:
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0]))
    systems, _ = join_systems([atoms, crystal()])
    assert count_modes(systems, keeps_momentum=True).tolist() == [9, 9]
    assert count_modes(systems, keeps_momentum=False).tolist() == [9, 12]
