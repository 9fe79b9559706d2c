"""What is cheap is looked at first, and all draws are asked only near the limits."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from surefoot.data.convert import to_graph
from surefoot.graph import Graph, collate
from surefoot.motion.guard import Guard, NoUncertainty, judge, look_closer
from surefoot.motion.lennard_jones import LennardJones
from surefoot.motion.slices import take_graphs
from surefoot.motion.surface import Evaluation, PredictorSurface

CUTOFF = 4.0
NAMES = ("ethanol", "skewed_cell", "slab", "atom", "water_cluster")


@dataclass(frozen=True)
class Counting(LennardJones):
    """Cheap: `ood`, by the number of atoms. Asked: twice as unsure; it remembers who asked."""

    asked: list[int] = field(default_factory=list)

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=False)
        ood = graph.atom_counts.double() / 10
        found = replace(found, ood=ood, ood_atoms=ood[graph.graph_index])
        if not uncertainty:
            return found
        self.asked.extend(graph.atom_counts.tolist())
        norm = 2 * ood[graph.graph_index]
        return replace(found, forces_uncertainty_norm=norm, energy_uncertainty=ood)


@pytest.fixture
def batch(small_structures) -> Graph:
    return collate([to_graph(small_structures[name], CUTOFF) for name in NAMES])


def test_only_those_near_the_limit_are_asked(batch) -> None:
    """Structures of 9, 3, 8, 1 and 12 atoms; ood is a tenth of that."""
    surface, guard = Counting(), Guard(uncertainty=1.7, near_ood=0.85)
    quick = surface(batch, stress=False, uncertainty=False)
    found, asked = look_closer(guard, surface, batch, quick)
    assert surface.asked == [9, 12]
    assert asked.tolist() == [True, False, False, False, True]
    norm = found.forces_uncertainty_norm
    assert norm is not None
    assert torch.equal(norm.isnan(), ~asked[batch.graph_index])
    assert torch.equal(found.forces, quick.forces)
    counts = torch.tensor([0, 4, 4, 4, 0])
    verdict = judge(guard, found, batch.graph_index, counts, asked)
    assert verdict.fired.tolist() == [True, False, False, False, True]
    assert verdict.score.tolist() == pytest.approx([1.8 / 1.7, 0, 0, 0, 2.4 / 1.7])
    # Who is not near has passed the check, so that its count begins anew.
    assert verdict.counts.tolist() == [1, 0, 0, 0, 1]
    assert not verdict.exploded.any()


def test_nobody_is_asked_where_all_is_firm_or_known(batch) -> None:
    surface, guard = Counting(), Guard(uncertainty=1.0, near_ood=5.0)
    quick = surface(batch, stress=False, uncertainty=False)
    _, asked = look_closer(guard, surface, batch, quick)
    assert not asked.any()
    assert not surface.asked
    known = surface(batch, stress=False, uncertainty=True)
    surface.asked.clear()
    same, asked = look_closer(guard, surface, batch, known)
    assert same is known
    assert not asked.any()  # a check finds the same, whatever is known already
    assert not surface.asked
    due = torch.tensor([True, False, False, False, True])
    guard = Guard(uncertainty=1.0, near_ood=0.85)
    assert look_closer(guard, surface, batch, known, due)[1].equal(due)
    assert look_closer(guard, surface, batch, quick, ~due)[1].any().item() is False


def test_a_number_that_is_none_is_near(batch) -> None:
    surface, guard = Counting(), Guard(uncertainty=1.0, near_ood=5.0)
    quick = surface(batch, stress=False, uncertainty=False)
    assert quick.ood is not None
    quick.ood[3] = torch.nan
    assert look_closer(guard, surface, batch, quick)[1].tolist() == [False] * 3 + [True, False]


def test_ood_is_judged_of_those_who_were_not_asked(batch) -> None:
    surface, guard = Counting(), Guard(uncertainty=50.0, ood=0.5, near_ood=5.0)
    found = look_closer(guard, surface, batch, surface(batch, stress=False, uncertainty=False))
    verdict = judge(guard, found[0], batch.graph_index, torch.zeros(5).long(), found[1])
    assert verdict.fired.tolist() == [True, False, True, False, True]


def test_what_is_not_cheap_is_refused(batch) -> None:
    surface = Counting()
    quick = surface(batch, stress=False, uncertainty=False)
    with pytest.raises(NoUncertainty, match="Laplace approximation of the last layer"):
        look_closer(Guard(uncertainty=1.0, near_energy=0.1), surface, batch, quick)
    bare = replace(quick, ood=None)
    with pytest.raises(NoUncertainty, match="has no gate"):
        look_closer(Guard(uncertainty=1.0, near_ood=0.1), surface, batch, bare)


def test_parts_of_a_batch_are_whole(gated, batch) -> None:
    keep = torch.tensor([True, False, True, False, True])
    surface = PredictorSurface(predictor=gated)
    whole = surface(batch, stress=True, uncertainty=True)
    part = surface(take_graphs(batch, keep), stress=True, uncertainty=True)
    wanted = whole.select(keep, keep[batch.graph_index])
    for name, value in wanted.given().items():
        assert torch.allclose(part.given()[name], value, atol=1e-12, equal_nan=True), name


def test_all_draws_say_the_same_when_asked_late(gated, batch) -> None:
    """The shortcut changes who is asked, and neither forces nor what is answered."""
    surface = PredictorSurface(predictor=gated, drive="first")
    whole = surface(batch, stress=False, uncertainty=True)
    quick = surface(batch, stress=False, uncertainty=False)
    assert quick.ood is not None
    limit = float(quick.ood.median())
    found, asked = look_closer(Guard(uncertainty=1.0, near_ood=limit), surface, batch, quick)
    assert 0 < int(asked.sum()) < len(NAMES)
    atoms = asked[batch.graph_index]
    assert found.forces_uncertainty_norm is not None
    assert whole.forces_uncertainty_norm is not None
    assert torch.allclose(
        found.forces_uncertainty_norm[atoms], whole.forces_uncertainty_norm[atoms], atol=1e-12
    )
    assert torch.equal(found.forces, whole.forces)
