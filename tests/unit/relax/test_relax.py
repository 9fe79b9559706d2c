"""Batched relaxation ends where ASE's optimisers end, system by system."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.constraints import FixAtoms
from ase.filters import UnitCellFilter
from ase.optimize import FIRE, LBFGS

from surefoot.data.batches import BatchLimits
from surefoot.graph import Graph
from surefoot.motion.bias import Bias
from surefoot.motion.guard import Guard, NoUncertainty, Watch
from surefoot.motion.lennard_jones import LennardJones
from surefoot.motion.skin import NeighborLists
from surefoot.motion.surface import Evaluation
from surefoot.motion.systems import UnfitStructure, join_systems
from surefoot.relax import Fire, Lbfgs
from surefoot.relax.coordinates import Coordinates, free_cells
from surefoot.relax.run import Relaxation, relax
from surefoot.units import GPA

SURFACE = LennardJones(epsilon=3.0, sigma=2.3, cutoff=6.0, onset=4.5)


def ase_surface() -> AseLennardJones:
    return AseLennardJones(epsilon=3.0, sigma=2.3, rc=6.0, ro=4.5, smooth=True)


def cluster(count: int, seed: int) -> Atoms:
    """The atoms of a rattled crystal around one of its octahedral holes."""
    whole = bulk("Ar", "fcc", 3.6, cubic=True) * (3, 3, 3)
    whole.rattle(0.05, seed=seed)
    near = np.argsort(np.linalg.norm(whole.positions - [5.4, 5.4, 3.6], axis=1))[:count]
    return Atoms("Ar" * count, positions=whole.positions[near])


def held_slab() -> Atoms:
    atoms = fcc111("Al", (2, 2, 3), a=3.6, vacuum=5.0)
    atoms.rattle(0.05, seed=5)
    atoms.set_constraint(FixAtoms(indices=range(4)))
    return atoms


def structures() -> list[Atoms]:
    return [cluster(6, 1), held_slab(), cluster(6, 3)]


@pytest.mark.parametrize(
    ("optimizer", "peer"), [(Lbfgs(), LBFGS), (Lbfgs(memory=5), LBFGS), (Fire(), FIRE)]
)
def test_relaxed_as_by_ase(optimizer: Lbfgs | Fire, peer) -> None:
    settings = Relaxation(optimizer=optimizer, fmax=5e-3, steps=500)
    found = relax(structures(), SURFACE, settings)
    for atoms, one in zip(structures(), found, strict=True):
        atoms.calc = ase_surface()
        more = {"memory": 5} if getattr(optimizer, "memory", 0) == 5 else {}
        dynamics = peer(atoms, logfile=None, **more)
        dynamics.run(fmax=5e-3, steps=500)
        assert one.status == "converged"
        assert one.steps == dynamics.nsteps
        assert np.abs(one.atoms.positions - atoms.positions).max() < 1e-5
        assert float(one.evaluation.energy[0]) == pytest.approx(
            atoms.get_potential_energy(), abs=1e-8
        )
        assert one.fmax < 5e-3
    assert np.array_equal(found[1].atoms.positions[:4], structures()[1].positions[:4])
    assert len(found[1].atoms.constraints) == 1


@pytest.mark.parametrize(("optimizer", "steps"), [(Lbfgs(), 100), (Fire(), 12)])
def test_systems_do_not_see_each_other(optimizer: Lbfgs | Fire, steps: int) -> None:
    """All at once, one by one, or in a batch that is refilled: the same steps."""
    settings = Relaxation(optimizer=optimizer, fmax=0.05, steps=steps)
    whole = relax(structures(), SURFACE, settings)
    narrow = relax(structures(), SURFACE, settings, limits=BatchLimits(graphs=2, edges=None))
    few = relax(structures(), SURFACE, settings, limits=BatchLimits(graphs=9, atoms=13, edges=None))
    alone = [relax([atoms], SURFACE, settings)[0] for atoms in structures()]
    for found in (narrow, few, alone):
        assert [one.steps for one in found] == [one.steps for one in whole]
        for one, other in zip(found, whole, strict=True):
            assert np.allclose(one.atoms.positions, other.atoms.positions, atol=1e-7)


@pytest.mark.parametrize("pressure", [0.0, 3.0])
def test_free_cells_reach_the_pressure_as_in_ase(pressure: float) -> None:
    crystals = [bulk("Ar", "fcc", 3.75, cubic=True), bulk("Ar", "fcc", 3.3)]
    for number, atoms in enumerate(crystals):
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * np.triu(np.ones((3, 3)))), True)
        atoms.rattle(0.05, seed=number)
    settings = Relaxation(fmax=1e-4, cell="free", pressure=pressure, stress=1e-3, steps=400)
    found = relax(crystals, SURFACE, settings)
    for atoms, one in zip(crystals, found, strict=True):
        assert one.status == "converged"
        peer = atoms.copy()
        peer.calc = ase_surface()
        LBFGS(UnitCellFilter(peer, scalar_pressure=pressure * GPA), logfile=None).run(
            fmax=1e-6, steps=400
        )
        assert one.atoms.get_volume() == pytest.approx(peer.get_volume(), rel=1e-4)
        assert np.allclose(one.atoms.cell.lengths(), peer.cell.lengths(), rtol=1e-3)
        stress = one.evaluation.stress
        assert stress is not None
        assert np.allclose(stress[0] / GPA, -pressure * np.eye(3), atol=1e-3)


def test_forces_on_coordinates_are_slopes() -> None:
    """Of E + P V, in a cell that is strained and turned, by central differences."""
    crystals = [bulk("Ar", "fcc", 3.6), bulk("Ar", "fcc", 3.5, cubic=True)]
    crystals[1].rattle(0.1, seed=3)
    systems, start = join_systems(crystals)
    pressure = 0.05
    at = free_cells(systems, start, pressure)
    push = torch.randn(at.values.shape, generator=torch.Generator().manual_seed(2)).double()
    at = at.moved(torch.where(at.of_cell[:, None], 0.1, 0.02) * push)

    def enthalpy(where: Coordinates) -> torch.Tensor:
        configuration = where.configuration()
        graph = NeighborLists(systems, SURFACE.cutoff).graph(configuration)
        energy = SURFACE(graph, stress=False, uncertainty=False).energy
        return energy + pressure * configuration.volume

    configuration = at.configuration()
    graph = NeighborLists(systems, SURFACE.cutoff).graph(configuration)
    found = SURFACE(graph, stress=True, uncertainty=False)
    forces = at.forces(found, systems, configuration.cell)
    for row in (0, 1, 2, 3, 5, 8, 9, 10):
        for axis in range(3):
            step = torch.zeros_like(at.values)
            step[row, axis] = 1e-5
            slope = (enthalpy(at.moved(step)) - enthalpy(at.moved(-step))).sum() / 2e-5
            assert float(forces[row, axis]) == pytest.approx(-float(slope), abs=1e-5), (row, axis)


def test_cells_that_are_no_cells_are_refused() -> None:
    with pytest.raises(UnfitStructure, match="structure 1: its cell can not be relaxed"):
        relax([bulk("Ar"), cluster(4, 0)], SURFACE, Relaxation(cell="free"))


def test_steps_run_out() -> None:
    found = relax(structures(), SURFACE, Relaxation(fmax=1e-9, steps=3))
    assert {one.status for one in found} == {"exhausted"}
    assert {one.steps for one in found} == {3}
    still = relax(structures(), SURFACE, Relaxation(fmax=1e-9, steps=0))
    assert np.array_equal(still[1].atoms.positions, structures()[1].positions)
    assert still[1].first_energy == float(still[1].evaluation.energy[0])


@dataclass(frozen=True)
class Unsure(LennardJones):
    """More unsure the nearer two atoms are to each other."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        norm = torch.linalg.vector_norm(found.forces, dim=-1)
        return replace(found, forces_uncertainty_norm=norm, ood_atoms=norm / 2)


UNSURE = Unsure(epsilon=3.0, sigma=2.3, cutoff=6.0, onset=4.5)


def test_the_guard_stops_one_and_lets_the_others_go_on() -> None:
    strained = [cluster(6, 3), cluster(6, 3)]
    strained[0].positions[0] *= 1.1
    kept: list[Atoms] = []
    watch = Watch(guard=Guard(uncertainty=20.0, every=1), record=kept.append)
    found = relax(strained, UNSURE, Relaxation(), watch=watch)
    assert [one.status for one in found] == ["unsure", "converged"]
    assert found[0].steps == 0
    assert "structure 0, step 0: the potential is unsure" in found[0].reason
    scores = found[0].score, found[1].score
    assert scores[0] is not None
    assert scores[0] >= 1 > scores[1]
    assert kept[0].info["guard_score"] == pytest.approx(scores[0])
    assert 0 in kept[0].info["guard_atoms"]


@pytest.mark.parametrize("action", ["warn", "record", "damp"])
def test_other_actions_go_on(action) -> None:
    strained = cluster(6, 3)
    strained.positions[0] *= 1.1
    told: list[str] = []
    kept: list[Atoms] = []
    guard = Guard(ood=5, action=action, every=1, damping=0.5)
    watch = Watch(guard=guard, warn=told.append, record=kept.append)
    found = relax([strained], UNSURE, Relaxation(), watch=watch)[0]
    assert found.status == "converged"
    assert len(told) == 1 if action != "damp" else len(told) > 0
    assert len(kept) == (0 if action == "warn" else len(told))


@pytest.mark.parametrize("optimizer", [Lbfgs(), Fire()])
def test_damping_shortens_the_step(optimizer: Lbfgs | Fire) -> None:
    strained = cluster(6, 3)
    strained.positions[0] *= 1.1
    settings = Relaxation(optimizer=optimizer, steps=1)
    guard = Guard(ood=1e-3, action="damp", every=1, damping=0.25)
    plain = relax([strained], UNSURE, settings)[0]
    damped = relax([strained], UNSURE, settings, watch=Watch(guard=guard))[0]
    moved = [one.atoms.positions - strained.positions for one in (plain, damped)]
    assert np.abs(moved[0]).max() > 1e-3
    assert np.allclose(moved[1], 0.25 * moved[0], rtol=1e-9, atol=1e-12)


def test_a_free_cell_needs_a_stress() -> None:
    crystal = bulk("Ar", "fcc", 3.6)
    with pytest.raises(ValueError, match="this surface gives no stress"):
        relax([crystal], Tensionless(epsilon=3.0, sigma=2.3), Relaxation(cell="free"))


@dataclass(frozen=True)
class Tensionless(LennardJones):
    """No stress, whoever asks."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        del stress
        return super().__call__(graph, stress=False, uncertainty=uncertainty)


def test_an_exploded_frame_is_stopped_and_not_recorded() -> None:
    strained = cluster(6, 3)
    strained.positions[0] *= 1.1
    kept: list[Atoms] = []
    guard = Guard(uncertainty=0.5, uncertainty_upper=1.0, action="record", every=1)
    watch = Watch(guard=guard, record=kept.append)
    found = relax([strained], UNSURE, Relaxation(), watch=watch)[0]
    assert found.status == "unsure"
    assert "not worth labelling" in found.reason
    assert not kept


@dataclass(frozen=True)
class Breaking(LennardJones):
    """No number at all for structures with more than six atoms."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        large = (graph.atom_counts > 6)[graph.graph_index]
        return replace(found, forces=found.forces.where(~large[:, None], torch.nan))


def test_numbers_that_are_not_finite_end_one_system() -> None:
    surface = Breaking(epsilon=3.0, sigma=2.3, cutoff=6.0, onset=4.5)
    found = relax(structures(), surface, Relaxation())
    assert [one.status for one in found] == ["converged", "broken", "converged"]
    assert "structure 1, step 0: the forces are no longer finite" in found[1].reason


@dataclass(frozen=True)
class Hole(LennardJones):
    """The atoms of pairs are pulled to one place."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        forces = found.forces.clone()
        for first, count in zip(
            graph.graph_offsets.tolist(), graph.atom_counts.tolist(), strict=False
        ):
            if count == 2:
                apart = graph.positions[first + 1] - graph.positions[first]
                forces[first : first + 2] = 70.0 / 2 * torch.stack([apart, -apart])
        return replace(found, forces=forces)


def test_a_collapsed_structure_leaves_and_the_others_go_on() -> None:
    """Two atoms at one place have no list of neighbours."""
    surface = Hole(epsilon=3.0, sigma=2.3, cutoff=6.0, onset=4.5)
    two = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 0.32]])
    settings = Relaxation(optimizer=Lbfgs(longest_step=1.0), skin=0.1)
    found = relax([cluster(6, 1), two], surface, settings)
    assert [one.status for one in found] == ["converged", "broken"]
    assert "structure 1, step 1: two atoms are at one place" in found[1].reason


@dataclass(frozen=True)
class Asked(Unsure):
    """The same with an `ood` that needs no asking, and a memory of who was asked."""

    who: list[int] = field(default_factory=list)

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        ood = torch.zeros(len(graph.charge), dtype=torch.float64)
        assert found.ood_atoms is not None
        ood = ood.scatter_reduce(0, graph.graph_index, found.ood_atoms, "amax")
        if uncertainty:
            self.who.append(len(ood))
            return replace(found, ood=ood)
        return replace(found, ood=ood, forces_uncertainty_norm=None)


def test_the_shortcut_asks_near_the_limit_and_at_the_end() -> None:
    strained = [cluster(6, 3), cluster(6, 3)]
    strained[0].positions[0] *= 1.1
    surface = Asked(epsilon=3.0, sigma=2.3, cutoff=6.0, onset=4.5)
    guard = Guard(uncertainty=20.0, near_ood=9.0)
    found = relax(strained, surface, Relaxation(), watch=Watch(guard=guard))
    assert [one.status for one in found] == ["unsure", "converged"]
    # Whether it can say anything, near the limit, and where the other one ended.
    assert surface.who == [1, 1, 1]
    for one in found:
        assert one.score is not None
        assert one.evaluation.forces_uncertainty_norm is not None
        worst = float(one.evaluation.forces_uncertainty_norm.max())
        assert one.score == pytest.approx(worst / 20.0)
        assert bool(one.evaluation.forces_uncertainty_norm.isfinite().all())


def test_the_shortcut_asks_nobody_between_checks() -> None:
    """All are near: asked at steps 0, 4, 8 …, and where it ends."""
    surface = Asked(epsilon=3.0, sigma=2.3, cutoff=6.0, onset=4.5)
    guard = Guard(uncertainty=1e9, near_ood=1e-9, every=4)
    found = relax([cluster(6, 3)], surface, Relaxation(steps=10), watch=Watch(guard=guard))
    assert found[0].steps == 10
    assert len(surface.who) == 1 + 3 + 1


def test_a_guard_needs_what_it_judges_before_anything_moves() -> None:
    """However far from `near_ood` everything is."""
    moved: list[int] = []

    class Silent(Asked):
        def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
            moved.append(len(graph.charge))
            found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
            return replace(found, forces_uncertainty_norm=None)

    surface = Silent(epsilon=3.0, sigma=2.3, cutoff=6.0, onset=4.5)
    watch = Watch(guard=Guard(uncertainty=0.1, near_ood=1e9))
    with pytest.raises(NoUncertainty, match="this potential gives none"):
        relax([cluster(6, 3)], surface, Relaxation(steps=3), watch=watch)
    assert len(moved) == 2


def test_a_bias_is_refused() -> None:
    class Pulled(LennardJones):
        @property
        def bias(self) -> Bias:  # type: ignore[override]
            return Bias(of="ood", depth=1.0, width=1.0)

    with pytest.raises(ValueError, match="this surface has a bias"):
        relax([cluster(6, 3)], Pulled())


def test_nothing_to_relax() -> None:
    assert relax([], SURFACE) == []
