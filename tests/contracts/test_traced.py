"""The graph of every model and head gives what they give, for any sizes, in one graph or two."""

from collections.abc import Callable

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch import Tensor

from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.native import plain_only
from surefoot.blocks.reference import Baseline
from surefoot.compiled import compile_potential
from surefoot.data.batches import EVALUATION
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, collate, collate_targets
from surefoot.heads import HEADS, Head
from surefoot.heads.categorical import Categorical
from surefoot.heads.histogram import ErrorHistograms
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.heads.sphere import Sphere
from surefoot.models import MODELS, Model
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.models.scn import Scn
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.predictor import build_predictor, compiled
from surefoot.potential import Potential
from surefoot.prediction import Output
from surefoot.train.loss import LossSettings
from surefoot.train.step import compile_gradients, loss_gradients

pytestmark = pytest.mark.usefixtures("tracing")

CUTOFF = 4.0
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
MODEL: dict[str, Model] = {
    "schnet": Schnet(cutoff=CUTOFF, features=8, interactions=1, gaussians=8),
    "mace": Mace(
        cutoff=CUTOFF, irreps="8x0e + 8x1o", max_ell=2, correlation=3, interactions=1, radial=(8,)
    ),
    "race": Race(cutoff=CUTOFF, irreps="8x0e + 8x1o", channels=8, interactions=1, radial=(8,)),
    "allegro": Allegro(cutoff=CUTOFF, layers=1, scalars=8, tensors=8, latent_width=8),
    "scn": Scn(cutoff=CUTOFF, layers=1, lmax=2, channels=4, hidden=8, edge=6, samples=32),
    "scn so2": Scn(
        cutoff=CUTOFF,
        layers=1,
        lmax=2,
        mmax=1,
        messages="so2",
        resolutions=2,
        limit=14,
        channels=4,
        hidden=8,
        edge=6,
        aggregation="gate",
        readout="scalars",
    ),
}
PUBLISHED = Scn(
    form="published",
    cutoff=CUTOFF,
    layers=1,
    lmax=3,
    resolutions=2,
    limit=14,
    channels=4,
    hidden=8,
    edge=6,
    samples=32,
)
ERRORS = torch.linspace(0.01, 0.4, 40, dtype=torch.float64)
SIZES = torch.full((40,), 9)
HEAD: dict[str, Head] = {
    "mean_variance": MeanVariance(width=4),
    "cholesky": MeanVariance(width=4, covariance="cholesky", epsilon=1e-3),
    "histogram": ErrorHistograms(system_bins=8, atom_bins=8, width=4).measure(
        ERRORS, SIZES, ERRORS, 1.7
    ),
    "categorical A": Categorical(bins=16, width=4, forces="direct_frame").measure(
        40 * ERRORS, SIZES, ERRORS, 1.7
    ),
    "categorical B": Categorical(
        design="B", bins=16, width=4, encoding="two_hot", forces="direct_lab"
    ).measure(40 * ERRORS, SIZES, ERRORS, 1.7),
}
CASE = {
    **{name: (model, Scalar()) for name, model in MODEL.items()},
    **{name: (MODEL["schnet"], head) for name, head in HEAD.items()},
    "features of degree 2": (MODEL["allegro"], MeanVariance(width=4)),
    "sphere": (MODEL["scn"], Sphere(forces="direct")),
    "scn published": (PUBLISHED, Sphere(forces="direct")),
}
QUICK = ("schnet", "mace", "histogram")
every_case = pytest.mark.parametrize(
    "case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASE]
)


def make(case: str) -> Potential:
    model, head = CASE[case]
    return Potential(model=model, head=head, baseline=BASELINE)


def random_weights(potential: Potential, seed: int = 3) -> Weights:
    """Fresh weights with biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in potential.init(seed, torch.float64).items()
    }


def numbers(output: Output) -> list[Tensor]:
    """Means and variances of all quantities."""
    given = [d for d in (output.energy, output.forces, output.stress) if d is not None]
    return [x.detach() for d in given for x in (d.mean, d.variance)]


def assert_same(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-11) -> None:
    """Nothing of an amount that matters beside the largest value of each."""
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.isnan(), other.isnan())
        scale = max(1.0, float(other.nan_to_num().abs().max()))
        torch.testing.assert_close(
            one, other, rtol=0.0, atol=rtol * scale, check_dtype=True, equal_nan=True
        )


def test_every_model_and_head_is_here() -> None:
    assert {model.name for model, _ in CASE.values()} == set(MODELS)
    assert {head.energy for _, head in CASE.values()} == set(HEADS)


@every_case
def test_predictions(case, small_structures, count_graphs) -> None:
    """With and without a cell, of growing and shrinking sizes; stress where there is one."""
    potential = make(case)
    weights = random_weights(potential)
    evaluate = compile_potential(potential)
    stress = potential.head.forces == "gradient"
    for name in ("skewed_cell", "ethanol", "water_cluster"):
        graph = to_graph(small_structures[name], CUTOFF)
        found, expected = (f(weights, graph, stress=stress) for f in (evaluate, potential))
        assert_same(numbers(found), numbers(expected))
    assert count_graphs() == 1


@every_case
def test_gradients_of_the_loss(case, make_samples, count_graphs) -> None:
    """Also after a batch of another size."""
    potential = make(case)
    rules = potential.head.rules
    loss = LossSettings(
        energy_rule=rules["energy"][0],
        forces=2.0,
        forces_rule=rules["forces"][0],
        stress=0.5 if isinstance(potential.head, Scalar) and case != "scn published" else 0.0,
    )
    weights = random_weights(potential)
    step = compile_gradients(potential)
    samples = make_samples()
    for chosen in (samples, samples[1:4]):
        graph = collate([s.graph for s in chosen])
        targets = collate_targets([s.targets for s in chosen])
        importance = torch.linspace(0.3, 1.2, len(chosen), dtype=torch.float64)
        batch = (graph, targets, importance)
        terms, found = step(potential, loss, weights, *batch)
        expected_terms, expected = loss_gradients(potential, loss, weights, *batch)
        assert terms.keys() == expected_terms.keys()
        assert found.keys() == expected.keys()
        assert_same([found[n] for n in expected], list(expected.values()), 1e-10)
    assert count_graphs() == 1


@pytest.mark.parametrize("case", ["mace", "histogram"])
def test_members_equal_a_loop_with_distinct_weights(
    case, small_structures, count_graphs: Callable[[], int]
) -> None:
    potential = make(case)
    members = [random_weights(potential, seed) for seed in (3, 4, 5)]
    evaluate = compile_potential(potential)
    for name in ("skewed_cell", "ethanol", "water_cluster"):
        graph = to_graph(small_structures[name], CUTOFF)
        together = numbers(evaluate(stack(members), graph))
        for index, weights in enumerate(members):
            assert_same([part[index] for part in together], numbers(potential(weights, graph)))
    assert count_graphs() == 1


def test_draws_are_taken_together_or_one_by_one(
    small_structures, count_graphs, monkeypatch
) -> None:
    """As many at once as fit would be another graph for each size of a structure."""
    potential = make("schnet")
    members = stack([random_weights(potential, seed) for seed in range(5)])
    plain = build_predictor(potential, Ensemble(members), Calibration(), {})
    quick = compiled(plain)
    for name in ("skewed_cell", "ethanol", "water_cluster"):
        graph = to_graph(small_structures[name], CUTOFF)
        edges = graph.edge_index.shape[1]
        for fit in (5, 3, 2, 1):
            limits = EVALUATION.model_copy(update={"edges": fit * edges})
            monkeypatch.setattr("surefoot.posteriors.predictor.EVALUATION", limits)
            one, other = quick(graph), plain(graph)
            assert one.forces is not None
            assert other.forces is not None
            assert_same([one.energy.mean, one.forces.mean], [other.energy.mean, other.forces.mean])
    assert count_graphs() == 2  # of all draws, and of one


def test_one_structure_and_several_take_two_graphs(small_structures, count_graphs) -> None:
    potential = make("schnet")
    weights = random_weights(potential)
    evaluate = compile_potential(potential)
    graphs: list[Graph] = [
        to_graph(small_structures[name], CUTOFF) for name in ("ethanol", "water_cluster")
    ]
    for graph in (*graphs, collate(graphs), collate(graphs[:1] + graphs)):
        evaluate(weights, graph, stress=True)
    assert count_graphs() == 2


def test_structures_of_one_element_take_another_and_the_smallest_none(count_graphs) -> None:
    potential = make("schnet")
    weights = random_weights(potential)
    evaluate = compile_potential(potential)
    cell = Atoms("C", cell=[2.1, 2.1, 2.1], pbc=True)
    for atoms in (molecule("C6H6"), molecule("CH4"), cell.repeat(2), molecule("H2"), cell):
        graph = to_graph(atoms, CUTOFF)
        assert_same(numbers(evaluate(weights, graph)), numbers(potential(weights, graph)))
    assert count_graphs() == 2


def test_a_share_of_a_batch_with_fixed_weights(make_samples, count_graphs) -> None:
    """What processes that share a batch, and trainings of some weights alone, hand over."""
    potential = make("schnet")
    weights = random_weights(potential)
    learned = {name: value for name, value in weights.items() if name.startswith("head")}
    fixed = {name: value for name, value in weights.items() if name not in learned}
    samples = make_samples()[:3]
    graph = collate([s.graph for s in samples])
    targets = collate_targets([s.targets for s in samples])
    counts = {name: torch.tensor(7.0, dtype=torch.float64) for name in ("energy", "forces")}
    batch = (graph, targets, torch.ones(len(samples), dtype=torch.float64))
    loss, given = LossSettings(forces=2.0), {"counts": counts, "fixed": fixed}
    terms, found = compile_gradients(potential)(potential, loss, learned, *batch, **given)
    expected_terms, expected = loss_gradients(potential, loss, learned, *batch, **given)
    assert terms.keys() == expected_terms.keys()
    assert found.keys() == learned.keys()
    assert_same([found[n] for n in expected], list(expected.values()), 1e-10)
    assert count_graphs() == 1


def test_plain_forms_are_graphs_of_their_own(small_structures, count_graphs) -> None:
    potential = make("mace")
    weights = random_weights(potential)
    evaluate = compile_potential(potential)
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    with_kernels = numbers(evaluate(weights, graph, stress=True))
    with plain_only():
        plain = numbers(evaluate(weights, graph, stress=True))
    assert_same(plain, with_kernels)
    assert count_graphs() == 2
