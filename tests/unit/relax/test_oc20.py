"""Relaxations of slabs with adsorbates with the settings of OC20, many at once."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.constraints import FixAtoms
from ase.optimize import LBFGS

from surefoot.cli.relax import describe
from surefoot.data.batches import BatchLimits
from surefoot.evaluate.oc20 import displacements, distance_within
from surefoot.graph import Graph
from surefoot.motion.guard import Guard, Watch
from surefoot.motion.lennard_jones import LennardJones
from surefoot.motion.surface import Evaluation
from surefoot.relax import OC20, Fire
from surefoot.relax.run import Relaxation, relax

SURFACE = LennardJones(epsilon=0.5, sigma=2.3, cutoff=6.0, onset=4.5)
ALIKE = {"epsilon": 0.5, "sigma": 2.3, "rc": 6.0, "ro": 4.5, "smooth": True}
SETTINGS = Relaxation(optimizer=OC20)


def slab(adsorbate: str, site: str, seed: int) -> Atoms:
    """An adsorbate on a slab whose lower layers are held, as OC20 has them."""
    atoms = fcc111("Cu", (2, 2, 3), a=3.6, vacuum=6.0)
    add_adsorbate(atoms, molecule(adsorbate), 2.2, site)
    atoms.set_pbc(True)
    atoms.info = {"sid": seed}
    atoms.set_tags([0] * 8 + [1] * 4 + [2] * (len(atoms) - 12))
    atoms.set_constraint(FixAtoms(np.flatnonzero(atoms.get_tags() == 0)))
    for number in range(13, len(atoms)):  # the surface knows no elements, so no short bonds
        atoms.positions[number] = atoms.positions[12] + [1.8, 0.3, 1.2]
    noise = np.random.default_rng(seed).normal(scale=0.05, size=(len(atoms), 3))
    atoms.positions[8:] += noise[8:]
    return atoms


def slabs() -> list[Atoms]:
    return [
        slab("O", "fcc", 0),
        slab("OH", "ontop", 1),
        slab("H", "bridge", 2),
        slab("CO", "hcp", 3),
        slab("O", "ontop", 4),
    ]


def test_defaults_are_those_published() -> None:
    assert (SETTINGS.fmax, SETTINGS.steps, SETTINGS.cell) == (0.02, 300, "fixed")
    assert (OC20.longest_step, OC20.memory, OC20.stiffness) == (0.04, 50, 70.0)


def test_structures_end_where_ase_takes_them_one_by_one() -> None:
    found = relax(slabs(), SURFACE, SETTINGS, limits=BatchLimits(graphs=3, edges=None))
    distances, steps = [], []
    for atoms, one in zip(slabs(), found, strict=True):
        atoms.calc = AseLennardJones(**ALIKE)
        with LBFGS(atoms, logfile=None, maxstep=0.04, memory=50, damping=1.0, alpha=70.0) as peer:
            peer.run(fmax=0.02, steps=300)
        assert one.status == "converged"
        assert one.steps == peer.nsteps
        assert np.abs(one.atoms.positions - atoms.positions).max() < 1e-6
        assert abs(float(one.evaluation.energy[0]) - atoms.get_potential_energy()) < 1e-8
        moved = displacements(one.atoms.positions, atoms.positions, atoms.cell.array, atoms.pbc)
        distances.append(moved[8:].mean())
        steps.append(one.steps)
        assert np.array_equal(one.atoms.positions[:8], atoms.positions[:8])  # held
    assert len(set(steps)) == len(steps)  # they left at different times
    assert distance_within(np.array(distances)) == 100.0


def test_fire_ends_in_the_same_minima() -> None:
    few = slabs()[:3]
    by_fire = relax(few, SURFACE, Relaxation(optimizer=Fire(), fmax=1e-3, steps=2000))
    by_lbfgs = relax(few, SURFACE, Relaxation(optimizer=OC20, fmax=1e-3, steps=2000))
    for one, other in zip(by_fire, by_lbfgs, strict=True):
        assert one.status == other.status == "converged"
        moved = displacements(
            one.atoms.positions, other.atoms.positions, one.atoms.cell.array, one.atoms.pbc
        )
        assert moved.max() < 0.02
        assert np.array_equal(one.atoms.positions[:8], other.atoms.positions[:8])


def test_what_is_known_of_a_structure_travels_along() -> None:
    for atoms, one in zip(slabs(), relax(slabs(), SURFACE, SETTINGS), strict=True):
        after = describe(one)
        assert after.info["sid"] == atoms.info["sid"]
        assert after.info["relax_status"] == "converged"
        assert np.array_equal(after.get_tags(), atoms.get_tags())
        assert np.array_equal(after.constraints[0].index, atoms.constraints[0].index)


@dataclass(frozen=True)
class Unsure(LennardJones):
    """A surface that knows nothing of atoms nearer than 2.4 Å to another."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        receiver, sender = graph.edge_index
        shift = torch.einsum(
            "es,esx->ex", graph.edge_shift.double(), graph.cell[graph.graph_index[receiver]]
        )
        apart = graph.positions[sender] + shift - graph.positions[receiver]
        nearest = torch.full(graph.numbers.shape, 9.0, dtype=torch.float64)
        nearest = nearest.scatter_reduce(0, receiver, apart.norm(dim=1), "amin")
        free = graph.numbers != 29
        return replace(found, ood_atoms=torch.where(free, 2.4 / nearest, 0.0))


def test_a_relaxation_that_leaves_what_is_known_is_stopped_and_flagged() -> None:
    """And the others go on to where they would have gone without it."""
    surface = Unsure(epsilon=0.5, sigma=2.3, cutoff=6.0, onset=4.5)
    told: list[str] = []
    watch = Watch(guard=Guard(ood=1.0, every=1), warn=told.append)
    pushed = slabs()
    pushed[1].positions[12] += [0, 0, 1.2]  # far above: it falls into what nobody knows
    pushed[1].positions[13] += [0, 0, 2.5]
    found = relax(pushed, surface, SETTINGS, watch=watch)
    statuses = [one.status for one in found]
    assert "unsure" in statuses
    assert "converged" in statuses
    plain = relax(pushed, SURFACE, SETTINGS)
    for one, free in zip(found, plain, strict=True):
        if one.status == "unsure":
            assert one.score is not None
            assert one.score >= 1
            assert "the potential is unsure" in one.reason
            assert one.steps < free.steps
            assert describe(one).info["relax_status"] == "unsure"
        else:
            assert np.allclose(one.atoms.positions, free.atoms.positions, atol=1e-9)
