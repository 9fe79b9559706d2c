"""The bias of an uncertainty: its forces and stress are slopes, and it never pulls unasked."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from pydantic import ValidationError

from surefoot.blocks.dense import under
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, collate
from surefoot.heads import MeanVariance
from surefoot.heads.sphere import Sphere
from surefoot.members import take_members
from surefoot.motion.bias import Bias, NothingToPull, find_push
from surefoot.motion.surface import Evaluation, PredictorSurface
from surefoot.posteriors.predictor import Predictor

CUTOFF = 4.0
STEP = 1e-4
NAMES = ("ethanol", "skewed_cell", "water_cluster")


def batch(structures: dict[str, Atoms]) -> Graph:
    return collate([to_graph(structures[name], CUTOFF) for name in NAMES])


def ask(predictor: Predictor, bias: Bias, graph: Graph, *, stress: bool = False) -> Evaluation:
    return PredictorSurface(predictor=predictor, bias=bias)(graph, stress=stress, uncertainty=True)


def pulled(evaluation: Evaluation) -> torch.Tensor:
    assert evaluation.bias_energy is not None
    return evaluation.bias_energy


@pytest.mark.parametrize(
    "bias", [Bias(of="energy", depth=2.0, width=2.0), Bias(of="ood", depth=2.0, width=3.0)]
)
def test_forces_are_slopes_of_the_bias(gated, small_structures, bias: Bias) -> None:
    """By central differences, of atoms of all elements in all structures at once."""
    graph = batch(small_structures)
    found = ask(gated, bias, graph)
    assert found.bias_forces is not None
    assert (pulled(found) < -0.01).all()
    assert float(found.bias_forces.abs().max()) > 1e-3
    first = graph.graph_offsets[:-1]
    for atom in (first, first + 1, first + 2):  # one of each structure: they do not see each other
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                positions = graph.positions.clone()
                positions[atom, axis] += sign * STEP
                ends.append(pulled(ask(gated, bias, replace(graph, positions=positions))))
            slope = (ends[0] - ends[1]) / (2 * STEP)
            assert torch.allclose(-slope, found.bias_forces[atom, axis], rtol=1e-5, atol=1e-7)


def test_stress_is_the_slope_by_strain(gated, small_structures) -> None:
    bias = Bias(of="energy", depth=1.0, width=2.0)
    graph = to_graph(small_structures["skewed_cell"], CUTOFF)
    found = ask(gated, bias, graph, stress=True).bias_stress
    assert found is not None
    for row, column in ((0, 0), (1, 2)):
        ends = []
        for sign in (1, -1):
            strain = torch.eye(3, dtype=torch.float64)
            strain[row, column] += 0.5 * sign * STEP
            strain[column, row] += 0.5 * sign * STEP
            moved = replace(graph, positions=graph.positions @ strain, cell=graph.cell @ strain)
            ends.append(pulled(ask(gated, bias, moved)))
        slope = (ends[0] - ends[1]) / (2 * STEP) / graph.volume
        assert torch.allclose(slope, found[:, row, column], rtol=1e-5)


def test_the_potential_says_what_it_says_without(gated, small_structures) -> None:
    """Energy, forces and uncertainties are not those of the bias."""
    graph = batch(small_structures)
    plain = PredictorSurface(predictor=gated)(graph, stress=False, uncertainty=True)
    found = ask(gated, Bias(of="energy", depth=1.0, width=0.1), graph)
    assert plain.bias_energy is None
    assert set(found.given()) - set(plain.given()) == {"bias_energy", "bias_forces"}
    for name, value in plain.given().items():
        assert torch.equal(found.given()[name], value), name


def test_it_is_never_deeper_than_its_depth(gated, small_structures) -> None:
    """And depends on √atoms: u² is the calibrated variance over atoms."""
    graph = batch(small_structures)
    narrow = ask(gated, Bias(of="energy", depth=0.7, width=1e-6), graph)
    assert torch.allclose(pulled(narrow), torch.tensor(-0.7, dtype=torch.float64))
    wide = ask(gated, Bias(of="energy", depth=1e8, width=1e4), graph)
    assert wide.energy_uncertainty is not None
    squares = wide.energy_uncertainty.square() / graph.atom_counts
    assert torch.allclose(pulled(wide), -0.5 * squares, rtol=1e-4)


def test_a_head_that_judges_adds_nothing(gated, small_structures) -> None:
    """u is the spread of the draws alone, of which `energy_uncertainty` is only a part then."""
    head = MeanVariance(width=4)
    potential = replace(gated.potential, head=head)
    judged = replace(gated, potential=potential, gate=None)
    judged = replace(judged, weights=potential.init_members(0, 3, torch.float64))
    graph = batch(small_structures)
    wide = ask(judged, Bias(of="energy", depth=1e8, width=1e4), graph)
    spread = judged(graph).energy.epistemic
    assert spread is not None
    assert wide.energy_uncertainty is not None
    assert torch.allclose(pulled(wide), -0.5 * spread / graph.atom_counts, rtol=1e-4)
    assert (wide.energy_uncertainty.square() > spread).all()


def test_the_first_draw_can_be_pulled_by_ood(gated, small_structures) -> None:
    graph, bias = batch(small_structures), Bias(of="ood", depth=1.0, width=2.0)
    surface = PredictorSurface(predictor=gated, bias=bias, drive="first")
    quick = surface(graph, stress=False, uncertainty=False)
    whole = ask(gated, bias, graph)
    assert torch.allclose(pulled(quick), pulled(whole))
    assert quick.bias_forces is not None
    assert whole.bias_forces is not None
    assert torch.allclose(quick.bias_forces, whole.bias_forces)


def test_what_can_not_pull_is_refused(gated, small_structures) -> None:
    energy, ood = (Bias(of="energy", depth=1, width=1), Bias(of="ood", depth=1, width=1))
    alone = replace(gated, weights=take_members(gated.weights, slice(0, 1)))
    with pytest.raises(NothingToPull, match="one set of weights"):
        PredictorSurface(predictor=alone, bias=energy)
    with pytest.raises(NothingToPull, match="needs a gate"):
        PredictorSurface(predictor=replace(gated, gate=None), bias=ood)
    with pytest.raises(NothingToPull, match="drive by the mean"):
        PredictorSurface(predictor=gated, bias=energy, drive="first")
    direct = replace(gated, potential=replace(gated.potential, head=Sphere(forces="direct")))
    with pytest.raises(NothingToPull, match="no slope of its energy"):
        PredictorSurface(predictor=direct, bias=energy)
    closed = replace(gated, weights=gated.weights | under("spread", gated.weights))
    with pytest.raises(NothingToPull, match="in closed form"):
        PredictorSurface(predictor=closed, bias=energy)
    graph = batch(small_structures)
    found = gated(graph, members=True)
    held = replace(found, energy=replace(found.energy, residual=found.energy.epistemic))
    with pytest.raises(NothingToPull, match="held-out"):
        find_push(energy, gated, graph, held)
    with pytest.raises(NothingToPull, match="gives no stress"):
        ask(gated, ood, to_graph(small_structures["skewed_cell"], CUTOFF), stress=True)
    for values in ({"depth": 0, "width": 1}, {"depth": 1, "width": -1}, {"depth": 1}):
        with pytest.raises(ValidationError):
            Bias(of="energy", **values)  # type: ignore[arg-type]
