"""Through the C++ compiler: graphs give what their functions give, to the precision they have.

That every model and head has a graph is checked in `test_traced.py`. Here one is compiled that has
kernels, products and a second derivative; and one of sums alone, for its order.
"""

import shutil

import pytest
import torch
from torch import Tensor

from surefoot.blocks.dense import cast, stack
from surefoot.blocks.reference import Baseline
from surefoot.compiled import compile_potential
from surefoot.data.convert import to_graph
from surefoot.graph import collate, collate_targets
from surefoot.heads.scalar import Scalar
from surefoot.models.mace import Mace
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.prediction import Output
from surefoot.train.loss import LossSettings
from surefoot.train.step import compile_gradients, loss_gradients

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("compiling"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
]

CUTOFF = 4.0
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
MACE = Potential(
    model=Mace(
        cutoff=CUTOFF, irreps="8x0e + 8x1o", max_ell=1, correlation=2, interactions=1, radial=()
    ),
    head=Scalar(),
    baseline=BASELINE,
)
SCHNET = Potential(
    model=Schnet(cutoff=CUTOFF, features=8, interactions=1, gaussians=16),
    head=Scalar(),
    baseline=BASELINE,
)
LOSS = LossSettings(energy=1.0, forces=2.0, stress=0.5)


def parts(output: Output) -> list[Tensor]:
    assert output.forces is not None
    assert output.stress is not None
    means = (output.energy.mean, output.forces.mean, output.stress.mean)
    return [mean.detach().nan_to_num() for mean in means]  # no cell, no stress


def difference(found: Tensor, expected: Tensor) -> float:
    """As a share of the largest value."""
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) / (largest or 1.0)


def test_members_in_single_precision_are_as_near_to_double_as_uncompiled_ones(
    small_structures, count_graphs
) -> None:
    """Stacked in one graph for all sizes; each of them alone, uncompiled, beside it."""
    members = [MACE.init(seed, torch.float32) for seed in (3, 4, 5)]
    evaluate = compile_potential(MACE)
    cell = small_structures["skewed_cell"]
    names = ("ethanol", "water_cluster")
    for atoms in (*(small_structures[name] for name in names), cell, cell.repeat((2, 2, 3))):
        graph = to_graph(atoms, CUTOFF)
        together = parts(evaluate(stack(members), graph, stress=True))
        for index, weights in enumerate(members):
            expected = parts(MACE(weights, graph, stress=True))
            exact = parts(MACE(cast(weights, torch.float64), graph, stress=True))
            for one, other, true in zip(together, expected, exact, strict=True):
                assert difference(one[index], other) < 1e-6 + 2 * difference(other, true)
    assert count_graphs() == 1


def test_double_precision(small_structures, count_graphs) -> None:
    weights = MACE.init(3, torch.float64)
    evaluate = compile_potential(MACE)
    for name in ("ethanol", "water_cluster"):
        graph = to_graph(small_structures[name], CUTOFF)
        found, expected = (parts(f(weights, graph, stress=True)) for f in (evaluate, MACE))
        for one, other in zip(found, expected, strict=True):
            assert difference(one, other) < 1e-12
    assert count_graphs() == 1


def test_gradients_of_the_loss(make_samples, count_graphs) -> None:
    """To 1e-10 in float64, also after a batch of another size."""
    weights = MACE.init(3, torch.float64)
    compiled = compile_gradients(MACE)
    samples = make_samples()
    for chosen in (samples, samples[1:4]):
        graph = collate([s.graph for s in chosen])
        targets = collate_targets([s.targets for s in chosen])
        importance = torch.linspace(0.3, 1.2, len(chosen), dtype=torch.float64)
        batch = (graph, targets, importance)
        _, found = compiled(MACE, LOSS, weights, *batch)
        _, expected = loss_gradients(MACE, LOSS, weights, *batch)
        for name, gradient in expected.items():
            assert difference(found[name], gradient) < 1e-10, name
    assert count_graphs() == 1


def test_two_threads_give_the_same_bits_in_every_call(make_samples, count_graphs) -> None:
    """No sum in whatever order threads come; and those of uncompiled gradients to 1e-5."""
    weights = SCHNET.init(3, torch.float32)
    samples = make_samples(copies=6)
    graph = collate([s.graph for s in samples])
    targets = collate_targets([s.targets for s in samples])
    importance = torch.ones(len(samples), dtype=torch.float64)
    torch.set_num_threads(2)
    try:
        step = compile_gradients(SCHNET)
        answers = [step(SCHNET, LOSS, weights, graph, targets, importance) for _ in range(25)]
        _, expected = loss_gradients(SCHNET, LOSS, weights, graph, targets, importance)
    finally:
        torch.set_num_threads(1)
    assert count_graphs() == 1
    for name, gradient in expected.items():
        assert difference(answers[0][1][name], gradient) < 1e-5, name
    for _, gradients in answers[1:]:
        assert all(torch.equal(gradients[name], answers[0][1][name]) for name in gradients)
