"""Every model compiled gives what it gives uncompiled, for any sizes, in one graph or two."""

import shutil
from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from ase import Atoms
from torch import Tensor

from surefoot.blocks.dense import Weights, cast, stack
from surefoot.blocks.native import plain_only
from surefoot.blocks.reference import Baseline
from surefoot.compilation import Compiled
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, collate, collate_targets
from surefoot.heads import Head
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.models import MODELS, Model
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential, compile_potential
from surefoot.prediction import Output
from surefoot.train.loss import LossSettings
from surefoot.train.step import compile_gradients, loss_gradients

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
]

CUTOFF = 4.0
SMALL: dict[str, Model] = {
    "schnet": Schnet(name="schnet", cutoff=CUTOFF, features=8, interactions=1, gaussians=8),
    "mace": Mace(
        cutoff=CUTOFF, irreps="8x0e + 8x1o", max_ell=2, correlation=3, interactions=1, radial=(8,)
    ),
    "race": Race(cutoff=CUTOFF, irreps="8x0e + 8x1o", channels=8, interactions=1, radial=(8,)),
    "allegro": Allegro(cutoff=CUTOFF, layers=1, scalars=8, tensors=8, latent_width=8),
}
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
SINGLE = ("skewed_cell", "ethanol", "water_cluster")
LOSS = LossSettings(energy=1.0, forces=2.0, stress=0.5)
LIKELIHOOD = LossSettings(forces=2.0, energy_rule="nll", forces_rule="nll")
TAUGHT: dict[str, tuple[Head, LossSettings]] = {
    "schnet": (MeanVariance(width=4), LIKELIHOOD),  # with one model: heads know none of them
    "mace": (Scalar(), LOSS),
    "race": (Scalar(), LOSS),
    "allegro": (Scalar(), LOSS),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch) -> None:
    """Nothing is left in the user's folder, and nothing found there."""
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path_factory.getbasetemp()))


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    """A size without a value is no int, which checks of types in tests would refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def make(name: str, head: Head | None = None) -> Potential:
    return Potential(model=SMALL[name], head=head or Scalar(), baseline=BASELINE)


def test_every_model_is_here() -> None:
    assert {model.name for model in SMALL.values()} == set(MODELS)


@pytest.fixture
def count_graphs(monkeypatch) -> Callable[[], int]:
    """How many graphs were compiled since; a failure to compile fails the test."""
    made: list[Compiled] = []
    init = Compiled.__init__

    def remember(self: Compiled, *args: object) -> None:
        init(self, *args)
        made.append(self)

    monkeypatch.setattr(Compiled, "__init__", remember)

    def count() -> int:
        graphs = [graph for one in made for graph in one.graphs.values()]
        assert None not in graphs
        return len(graphs)

    return count


def parts(output: Output) -> list[Tensor]:
    assert output.forces is not None
    assert output.stress is not None
    return [d.mean.detach() for d in (output.energy, output.forces, output.stress)]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        present = ~other.isnan()
        assert torch.equal(present, ~one.isnan())
        scale = max(1.0, float(other[present].abs().max()) if present.any() else 0.0)
        error = float((one - other)[present].abs().max()) if present.any() else 0.0
        assert error < tolerance * scale


def single(structures: dict[str, Atoms]) -> list[Graph]:
    """Structures with and without a cell, in growing and shrinking sizes."""
    return [to_graph(structures[name], CUTOFF) for name in SINGLE]


@pytest.mark.parametrize("name", SMALL)
def test_energies_forces_and_stress(name, small_structures, count_graphs) -> None:
    potential = make(name)
    weights = potential.init(3, torch.float64)
    evaluate = compile_potential(potential)
    for graph in single(small_structures):
        found, expected = (f(weights, graph, stress=True) for f in (evaluate, potential))
        assert_same(parts(found), parts(expected), 1e-12)
    assert 1 <= count_graphs() <= 2  # structures of one element count as a kind of their own


def test_one_structure_and_several_take_two_graphs(small_structures, count_graphs) -> None:
    """In single precision: as near to double precision as uncompiled."""
    potential = make("mace")
    weights = potential.init(3, torch.float32)
    evaluate = compile_potential(potential)
    graphs = single(small_structures)
    for graph in (*graphs[1:], collate(graphs), collate(graphs[:2] + graphs)):
        found, expected = (f(weights, graph, stress=True) for f in (evaluate, potential))
        exact = potential(cast(weights, torch.float64), graph, stress=True)
        for one, other, true in zip(parts(found), parts(expected), parts(exact), strict=True):
            rounding = float((other - true).nan_to_num().abs().max())
            assert_same([one], [other], 1e-6 + 2 * rounding)
    assert count_graphs() == 2


def test_members_equal_a_loop_with_distinct_weights(small_structures, count_graphs) -> None:
    potential = make("mace")
    members = [potential.init(seed, torch.float64) for seed in (3, 4, 5)]
    evaluate = compile_potential(potential)
    for graph in single(small_structures):
        together = parts(evaluate(stack(members), graph, stress=True))
        for index, weights in enumerate(members):
            alone = parts(potential(weights, graph, stress=True))
            assert_same([part[index] for part in together], alone, 1e-12)
    assert count_graphs() <= 2


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_the_loss(name, make_samples, count_graphs) -> None:
    """To 1e-10 in float64, also after a batch of another size."""
    head, loss = TAUGHT[name]
    potential = make(name, head)
    weights = random_weights(potential)
    compiled = compile_gradients(potential)
    samples = make_samples()
    for chosen in (samples, samples[1:4]):
        graph = collate([s.graph for s in chosen])
        targets = collate_targets([s.targets for s in chosen])
        importance = torch.linspace(0.3, 1.2, len(chosen), dtype=torch.float64)
        batch = (graph, targets, importance)
        terms, gradients = compiled(potential, loss, weights, *batch)
        expected_terms, expected = loss_gradients(potential, loss, weights, *batch)
        assert terms.keys() == expected_terms.keys()
        assert gradients.keys() == expected.keys()
        names = sorted(expected)
        assert_same([gradients[n] for n in names], [expected[n] for n in names], 1e-10)
    assert count_graphs() == 1


def random_weights(potential: Potential) -> Weights:
    """Fresh weights with biases that are not zero."""
    generator = torch.Generator().manual_seed(8)
    weights = cast(potential.init(3, torch.float64), torch.float64)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in weights.items()
    }


def test_two_threads_give_the_same_bits_in_every_call(make_samples, count_graphs) -> None:
    """No sum in whatever order threads come."""
    potential = Potential(
        model=Schnet(cutoff=CUTOFF, features=32, interactions=1, gaussians=16),
        head=Scalar(),
        baseline=BASELINE,
    )
    weights = potential.init(3, torch.float32)
    samples = make_samples(copies=6)
    graph = collate([s.graph for s in samples])
    targets = collate_targets([s.targets for s in samples])
    importance = torch.ones(len(samples), dtype=torch.float64)
    torch.set_num_threads(2)
    try:
        step = compile_gradients(potential)
        answers = [step(potential, LOSS, weights, graph, targets, importance) for _ in range(25)]
    finally:
        torch.set_num_threads(1)
    assert count_graphs() == 1
    for _, gradients in answers[1:]:
        assert all(torch.equal(gradients[name], answers[0][1][name]) for name in gradients)


def test_plain_forms_are_graphs_of_their_own(small_structures, count_graphs) -> None:
    potential = make("mace")
    weights = potential.init(3, torch.float64)
    evaluate = compile_potential(potential)
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    with_kernels = parts(evaluate(weights, graph, stress=True))
    with plain_only():
        plain = parts(evaluate(weights, graph, stress=True))
    assert_same(plain, with_kernels, 1e-12)
    assert count_graphs() == 2
