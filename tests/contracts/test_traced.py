"""Heads of histograms can be traced with sizes as symbols, which is what compiling needs."""

import warnings
from collections.abc import Iterator

import jaxtyping
import pytest
import torch

from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.reference import Baseline
from surefoot.compilation import Compiled
from surefoot.data.convert import to_graph
from surefoot.graph import collate, collate_targets
from surefoot.heads import Head
from surefoot.heads.categorical import Categorical
from surefoot.heads.histogram import ErrorHistograms
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential, compile_potential
from surefoot.train.loss import LossSettings
from surefoot.train.step import compile_gradients, loss_gradients

CUTOFF = 4.0
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
MADE_UP = torch.linspace(0.01, 0.4, 40, dtype=torch.float64)
SIZES = torch.full((40,), 9)
HEAD: dict[str, Head] = {
    "histogram": ErrorHistograms(system_bins=8, atom_bins=8, width=4).measure(
        MADE_UP, SIZES, MADE_UP, 1.7
    ),
    "categorical A": Categorical(bins=16, width=4, forces="direct_frame").measure(
        40 * MADE_UP, SIZES, MADE_UP, 1.7
    ),
    "categorical B": Categorical(
        design="B", bins=16, width=4, encoding="two_hot", forces="direct_lab"
    ).measure(40 * MADE_UP, SIZES, MADE_UP, 1.7),
}
every_head = pytest.mark.parametrize(
    "head",
    [
        pytest.param(head, id=name, marks=[] if name == "histogram" else [pytest.mark.slow])
        for name, head in HEAD.items()
    ],
)


@pytest.fixture(autouse=True)
def _traced_only(monkeypatch, tmp_path) -> Iterator[None]:
    """The traced graph runs as it is; a size without a value is no int for checks of types."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import
        from torch._inductor import compile_fx
    monkeypatch.setattr(compile_fx, "compile_fx", lambda graph, _: graph)
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def made(monkeypatch) -> list[Compiled]:
    """What was traced; a failure leaves None among the graphs."""
    found: list[Compiled] = []
    init = Compiled.__init__

    def remember(self: Compiled, *args: object) -> None:
        init(self, *args)
        found.append(self)

    monkeypatch.setattr(Compiled, "__init__", remember)
    return found


def graphs_of(made: list[Compiled]) -> int:
    graphs = [graph for one in made for graph in one.graphs.values()]
    assert None not in graphs
    return len(graphs)


def potential_with(head: Head) -> Potential:
    model = Schnet(cutoff=CUTOFF, features=8, interactions=1, gaussians=8)
    return Potential(model=model, head=head, baseline=BASELINE)


def random_weights(potential: Potential, seed: int = 3) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in potential.init(seed, torch.float64).items()
    }


@every_head
def test_predictions(head, small_structures, made) -> None:
    """Means and variances of two members, for other sizes too."""
    potential = potential_with(head)
    weights = stack([random_weights(potential, seed) for seed in (3, 4)])
    evaluate = compile_potential(potential)
    for name in ("skewed_cell", "ethanol", "water_cluster"):
        graph = to_graph(small_structures[name], CUTOFF)
        found, expected = (f(weights, graph) for f in (evaluate, potential))
        for quantity in ("energy", "forces"):
            one, other = getattr(found, quantity), getattr(expected, quantity)
            assert type(one) is type(other)
            torch.testing.assert_close(one.mean, other.mean.detach(), rtol=1e-11, atol=1e-12)
            torch.testing.assert_close(
                one.variance, other.variance.detach(), rtol=1e-11, atol=1e-12
            )
    assert graphs_of(made) <= 2  # structures of one element count as a kind of their own


@every_head
def test_gradients_of_the_loss(head, make_samples, made) -> None:
    potential = potential_with(head)
    weights = random_weights(potential)
    settings = LossSettings(
        energy_rule=head.rules["energy"][0], forces_rule=head.rules["forces"][0]
    )
    step = compile_gradients(potential)
    samples = make_samples()
    for chosen in (samples, samples[1:4]):
        graph = collate([s.graph for s in chosen])
        targets = collate_targets([s.targets for s in chosen])
        importance = torch.linspace(0.3, 1.2, len(chosen), dtype=torch.float64)
        batch = (graph, targets, importance)
        _, found = step(potential, settings, weights, *batch)
        _, expected = loss_gradients(potential, settings, weights, *batch)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-10)
    assert graphs_of(made) == 1
