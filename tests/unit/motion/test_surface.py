"""The surface of a saved potential: in parts or whole, driven by the mean or by one draw."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones as AseLennardJones

from surefoot.blocks.reference import Baseline
from surefoot.data.batches import BatchLimits
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, collate
from surefoot.heads import Scalar
from surefoot.members import take_members
from surefoot.models import Schnet
from surefoot.motion.lennard_jones import LennardJones
from surefoot.motion.slices import slice_graph
from surefoot.motion.surface import PredictorSurface
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.predictor import Calibration, Predictor, build_predictor
from surefoot.potential import Potential

CUTOFF = 4.0


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    potential = Potential(
        model=Schnet(features=8, interactions=1, gaussians=10, cutoff=CUTOFF),
        head=Scalar(),
        baseline=Baseline(
            elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=0.3, neighbors=10.0
        ),
    )
    weights = potential.init_members(0, 3, torch.float64)
    calibration = Calibration(forces=2.0, source="a test")
    return build_predictor(potential, Ensemble(weights), calibration, {})


@pytest.fixture
def batch(small_structures) -> Graph:
    names = ("ethanol", "atom", "skewed_cell", "slab", "water_cluster")
    return collate([to_graph(small_structures[name], CUTOFF) for name in names])


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        (BatchLimits(graphs=2), 3),
        (BatchLimits(graphs=9, atoms=10), 4),
        (BatchLimits(graphs=9, edges=1), 5),
        (BatchLimits(graphs=9), 1),
    ],
)
def test_parts_say_what_the_whole_says(predictor, batch, limits, parts: int) -> None:
    assert len(slice_graph(batch, limits)) == parts
    whole = PredictorSurface(predictor=predictor)(batch, stress=True, uncertainty=True)
    cut = PredictorSurface(predictor=predictor, limits=limits)
    found = cut(batch, stress=True, uncertainty=True)
    assert set(found.given()) == set(whole.given())
    for name, value in whole.given().items():
        assert torch.allclose(found.given()[name], value, atol=1e-12, equal_nan=True), name


def test_the_first_draw_moves_and_all_judge(predictor, batch) -> None:
    whole = PredictorSurface(predictor=predictor)(batch, stress=False, uncertainty=True)
    surface = PredictorSurface(predictor=predictor, drive="first")
    plain = surface(batch, stress=False, uncertainty=False)
    asked = surface(batch, stress=False, uncertainty=True)
    alone = replace(predictor, weights=take_members(predictor.weights, slice(0, 1)))
    first = PredictorSurface(predictor=alone)(batch, stress=False, uncertainty=True)
    assert torch.equal(plain.forces, first.forces)
    assert torch.equal(plain.forces, asked.forces)
    assert torch.equal(plain.energy, asked.energy)
    assert not torch.allclose(plain.forces, whole.forces)
    assert plain.forces_uncertainty_norm is None
    assert first.forces_uncertainty_norm is None
    assert asked.forces_uncertainty_norm is not None
    assert whole.forces_uncertainty_norm is not None
    assert torch.equal(asked.forces_uncertainty_norm, whole.forces_uncertainty_norm)


def test_lennard_jones_is_that_of_ase(rng) -> None:
    crystal = bulk("Ar", "fcc", 5.3, cubic=True)
    crystal.rattle(0.3, seed=1)
    cluster = Atoms("Ar4", positions=rng.normal(size=(4, 3)) + 4 * np.eye(4, 3))
    surface = LennardJones(cutoff=6.0, onset=4.5)
    graphs = [to_graph(atoms, surface.cutoff) for atoms in (crystal, cluster)]
    found = surface(collate(graphs), stress=True, uncertainty=False)
    first = 0
    for number, atoms in enumerate((crystal, cluster)):
        atoms.calc = AseLennardJones(
            sigma=surface.sigma, epsilon=surface.epsilon, rc=6.0, ro=4.5, smooth=True
        )
        mine = slice(first, first + len(atoms))
        first += len(atoms)
        assert float(found.energy[number]) == pytest.approx(atoms.get_potential_energy())
        assert np.allclose(found.forces[mine], atoms.get_forces(), atol=1e-10)
    assert found.stress is not None
    assert np.allclose(found.stress[0], crystal.get_stress(voigt=False), atol=1e-12)
    assert found.stress[1].isnan().all()
