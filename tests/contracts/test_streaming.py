"""Large batches: SchNet by blocks of pairs, Allegro part by part, say what they say as a whole."""

from collections.abc import Iterator

import pytest
import torch
from ase import Atoms
from torch import Tensor

from surefoot import parts
from surefoot.blocks import filters
from surefoot.blocks.conditioning import States
from surefoot.blocks.dense import Weights, stack, under
from surefoot.blocks.native import plain_only
from surefoot.blocks.reference import Baseline
from surefoot.blocks.repulsion import Repulsion
from surefoot.compiled import compile_potential
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, collate
from surefoot.heads import Head
from surefoot.heads.histogram import ErrorHistograms
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.heads.sphere import Sphere
from surefoot.models import MODELS, Model
from surefoot.models.allegro import Allegro
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.prediction import Output

CUTOFF = 4.0
MODEL: dict[str, Model] = {
    "schnet": Schnet(cutoff=CUTOFF, features=10, interactions=2, gaussians=8),
    "allegro": Allegro(cutoff=CUTOFF, layers=2, scalars=8, tensors=4, latent_width=8),
}
BASELINE = Baseline(
    elements=(1, 6, 8),
    energies=(-1.3, -3.7, -2.2),
    scale=1.7,
    neighbors=12.0,
    repulsion=Repulsion(radii=(0.5, 1.2, 1.1)),
)
ERRORS = torch.linspace(0.01, 0.4, 40, dtype=torch.float64)
SIZES = torch.full((40,), 9)
HEAD: dict[str, Head] = {
    "scalar": Scalar(hidden=4),
    "mean_variance": MeanVariance(width=4),
    "variance of energies": MeanVariance(width=4, covariance="none"),
    "histogram": ErrorHistograms(system_bins=8, atom_bins=8, width=4).measure(
        ERRORS, SIZES, ERRORS, 1.7
    ),
    "sphere": Sphere(offset=0.3),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    """So that small structures have several blocks and parts."""
    monkeypatch.setattr(filters, "BLOCK", 16)
    monkeypatch.setattr(parts, "EDGES", 40)


def make(model: str, head: str = "scalar", states: States | None = None) -> Potential:
    return Potential(model=MODEL[model], head=HEAD[head], baseline=BASELINE, states=states)


def random_weights(potential: Potential, seed: int = 3) -> Weights:
    """Fresh weights with last maps that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in potential.init(seed, torch.float64).items()
    }


@pytest.fixture
def graph(small_structures: dict[str, Atoms]) -> Graph:
    """Several structures, one with a cell and one that is an atom alone."""
    chosen = (small_structures[name] for name in ("skewed_cell", "ethanol"))
    return collate([to_graph(atoms, CUTOFF) for atoms in (*chosen, Atoms("O"))])


def numbers(output: Output) -> Iterator[Tensor]:
    """All that an output says."""
    for given in (output.energy, output.forces, output.stress):
        if given is not None:
            yield from (given.mean.detach(), given.variance.detach())
    yield from output.ood or ()
    if output.energy_factor is not None:
        yield output.energy_factor


def assert_same(found: Output, expected: Output, tolerance: float = 1e-12) -> None:
    for one, other in zip(numbers(found), numbers(expected), strict=True):
        assert one.dtype == other.dtype
        scale = float(other.nan_to_num().abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale, equal_nan=True)


def test_every_model_that_streams_by_itself_is_here() -> None:
    streaming = {name for name, model in MODELS.items() if model.most_kept is not None}
    assert set(MODEL) == streaming - {name for name in MODELS if MODELS[name].recomputes}
    assert {name for name in MODELS if MODELS[name].local} == {"allegro"}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("model", MODEL)
def test_as_a_whole(model, members, dtype, graph) -> None:
    potential = make(model)
    weights = random_weights(potential)
    if members is not None:
        weights = stack([weights, random_weights(potential, 4)])
    weights = {name: value.to(dtype) for name, value in weights.items()}
    kept, streamed = (
        potential(weights, graph, stress=True, memory=memory) for memory in ("keep", "recompute")
    )
    assert_same(streamed, kept, TOLERANCE[dtype])
    alone = potential(weights, graph, forces=False, memory="recompute")
    assert alone.forces is None
    assert_same(alone, Output(**{**vars(kept), "forces": None, "stress": None}), TOLERANCE[dtype])


@pytest.mark.parametrize("head", HEAD)
@pytest.mark.parametrize("model", MODEL)
def test_heads(model, head, graph) -> None:
    """Variances and histograms too; and features, as who asks for no slope of them sees them."""
    potential = make(model, head)
    weights = random_weights(potential)
    kept, streamed = (
        potential(weights, graph, stress=True, memory=memory) for memory in ("keep", "recompute")
    )
    assert_same(streamed, kept)
    assert kept.features is not None
    assert streamed.features is not None
    for one, other in zip(streamed.features.layers, kept.features.layers, strict=True):
        assert one.values.shape == other.values.shape
        torch.testing.assert_close(one.values.sum(-2), other.values.detach().sum(-2))


def judges(potential: Potential, weights: Weights) -> Weights:
    """Weights of a gate and of a last layer in closed form, at random."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    width = sum(width.values for width in potential.model.widths)
    gate = {
        "centre": draw(3, width),
        "axes": draw(3, width, 2),
        "inverse": draw(3, 2),
        "tail": draw(3),
        "shortest": 1.0 + draw(3, 3),
        "width": draw(3, 3),
        "edges": draw(2),
    }
    spread = {
        name.removeprefix("head."): value if ".hidden." in name else draw(4, *value.shape)
        for name, value in weights.items()
        if name.startswith("head.")
    }
    return under("gate", gate) | under("spread", spread)


@pytest.mark.parametrize("model", MODEL)
def test_a_gate_and_a_closed_form(model, graph, small_structures) -> None:
    """Distances to the training data and energies in closed form look at all features."""
    graph = collate([to_graph(a, CUTOFF) for a in list(small_structures.values())[:3]])
    potential = make(model)
    weights = random_weights(potential)
    weights |= judges(potential, weights)
    kept, streamed = (potential(weights, graph, memory=memory) for memory in ("keep", "recompute"))
    assert streamed.ood is not None
    assert streamed.energy_factor is not None
    assert_same(streamed, kept)


@pytest.mark.parametrize("model", MODEL)
def test_members_that_share_a_model(model, graph) -> None:
    potential = make(model)
    members = [random_weights(potential, seed) for seed in (3, 4)]
    heads = stack([{n: v for n, v in m.items() if n.startswith("head.")} for m in members])
    weights = members[0] | heads
    kept, streamed = (
        potential(weights, graph, stress=True, memory=memory) for memory in ("keep", "recompute")
    )
    assert kept.energy.mean.shape[0] == 2
    assert_same(streamed, kept)


@pytest.mark.parametrize("model", MODEL)
def test_states(model, small_structures) -> None:
    """What an atom is as a sender depends on the charge of its structure too."""
    potential = make(model, states=States(((0, 1), (1, 2))))
    weights = random_weights(potential)
    atoms = small_structures["ethanol"]
    graphs = [to_graph(atoms, CUTOFF)]
    atoms.info |= {"charge": 1, "spin": 2}
    charged = to_graph(atoms, CUTOFF)
    for pair, (charge, spin) in zip((graphs[0], charged), potential.states.pairs, strict=True):  # type: ignore[union-attr]
        pair.charge.fill_(charge)
        pair.spin.fill_(spin)
    graph = collate([*graphs, charged])
    kept, streamed = (potential(weights, graph, memory=memory) for memory in ("keep", "recompute"))
    assert abs(float(kept.energy.mean.detach().diff())) > 1e-3
    assert_same(streamed, kept)


@pytest.mark.parametrize("model", MODEL)
def test_slopes_of_forces_with_constant_weights(model, small_structures) -> None:
    """Who wants to differentiate further can, in whatever memory."""
    potential = make(model)
    weights, graph = random_weights(potential), to_graph(small_structures["ethanol"], CUTOFF)
    slopes = []
    for memory in ("keep", "recompute"):
        output = potential(weights, graph, differentiable=True, memory=memory)
        assert output.forces is not None
        vectors = output.features.geometry.vectors  # type: ignore[union-attr]
        slopes += torch.autograd.grad(output.forces.mean.square().sum(), vectors)
    scale = float(slopes[0].abs().max())
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0, atol=1e-11 * scale)
    assert scale > 1e-2


def test_without_kernels(graph) -> None:
    potential = make("schnet")
    weights = random_weights(potential)
    with plain_only():
        kept, streamed = (
            potential(weights, graph, memory=memory) for memory in ("keep", "recompute")
        )
    assert torch.equal(kept.energy.mean, streamed.energy.mean)


ONE_LAYER: dict[str, Model] = {
    "schnet": Schnet(cutoff=CUTOFF, features=8, interactions=1, gaussians=8),
    "allegro": Allegro(cutoff=CUTOFF, layers=1, scalars=8, tensors=4, lmax=1, latent_width=8),
}


@pytest.mark.slow
@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("model", ONE_LAYER)
def test_sizes_on_both_sides_take_two_graphs(
    model, small_structures, count_graphs, monkeypatch
) -> None:
    """One of whole batches and one of large ones, however many blocks or parts these have."""
    monkeypatch.setattr(parts, "EDGES", 400)
    potential = Potential(model=ONE_LAYER[model], head=Scalar(hidden=4), baseline=BASELINE)
    weights = stack([random_weights(potential, seed) for seed in (3, 4)])
    cell = small_structures["skewed_cell"]
    structures = (small_structures["ethanol"], cell.repeat(2), cell.repeat((2, 2, 1)))
    graphs = [to_graph(atoms, CUTOFF) for atoms in structures]
    evaluate = compile_potential(potential)
    for graph in graphs:
        monkeypatch.setattr(MODELS[model], "most_kept", 10**9)
        expected = potential(weights, graph, stress=True)
        monkeypatch.setattr(MODELS[model], "most_kept", 2 * graphs[0].pair_edges.shape[1])
        assert_same(evaluate(weights, graph, stress=True), expected, 1e-11)
    assert count_graphs() == 2


@pytest.mark.slow
@pytest.mark.usefixtures("tracing")
def test_traced_with_what_looks_at_features(small_structures, monkeypatch) -> None:
    head = HEAD["mean_variance"]
    potential = Potential(model=ONE_LAYER["allegro"], head=head, baseline=BASELINE)
    weights = random_weights(potential)
    graph = to_graph(small_structures["skewed_cell"], CUTOFF)
    expected = potential(weights, graph, stress=True, memory="keep")
    monkeypatch.setattr(Allegro, "most_kept", 0)
    found = compile_potential(potential)(weights, graph, stress=True)
    assert found.features is None
    assert_same(found, expected, 1e-11)


def test_parts_are_all_atoms_once(graph) -> None:
    """Each edge is in the part of its receiver; and no part is empty."""
    potential = make("allegro")
    typed = potential.assign(graph)
    vectors = torch.arange(3.0 * graph.edge_index.shape[1]).reshape(-1, 3)
    seen: list[parts.Part] = []

    def ask(_: Weights, part: parts.Part) -> parts.Found:
        seen.append(part)
        return parts.Found(energy=torch.ones(3), slope=part.vectors, layers=())

    found = parts.ask_parts(ask, random_weights(potential), typed, vectors)
    assert len(seen) > 3
    assert found.slope is not None
    assert torch.equal(found.slope, vectors)
    assert torch.equal(found.energy, torch.full((3,), float(len(seen))))
    numbers = torch.cat([part.typed.graph.numbers for part in seen])
    assert torch.equal(numbers, graph.numbers)
    for part in seen:
        own = part.typed.graph
        receiver, sender = own.edge_index
        assert len(own.numbers) > 0
        assert bool((receiver < len(own.numbers)).all())
        assert bool((sender >= len(own.numbers)).all())
        assert torch.equal(
            own.receiver_offsets.diff(), receiver.bincount(minlength=len(own.numbers))
        )
