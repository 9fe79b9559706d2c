"""Models give the same whether radial weights are kept or made anew, in less memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from surefoot.blocks import convolution, factors
from surefoot.blocks.dense import Weights, cast, stack
from surefoot.blocks.reference import Baseline
from surefoot.compiled import compile_potential
from surefoot.data.convert import to_graph
from surefoot.graph import Features, Geometry, collate, collate_targets
from surefoot.heads.scalar import Scalar
from surefoot.models import MODELS, Model
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.potential import Potential, splined
from surefoot.prediction import Output
from surefoot.train.fit import TrainSettings, require_memory
from surefoot.train.loss import LossSettings
from surefoot.train.step import compile_gradients, loss_gradients

CUTOFF = 4.0
SMALL: dict[str, Model] = {
    "mace": Mace(cutoff=CUTOFF, irreps="8x0e + 8x1o", max_ell=2, radial=(8, 8)),
    "mace, envelope": Mace(cutoff=CUTOFF, irreps="8x0e", max_ell=1, envelope="weights"),
    "race": Race(cutoff=CUTOFF, irreps="8x0e + 6x1o", channels=8, interactions=2, radial=(8,)),
}
ONE_LAYER = Mace(
    cutoff=CUTOFF, irreps="8x0e + 8x1o", max_ell=1, correlation=1, interactions=1, radial=(8,)
)
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
LOSS = LossSettings(energy=1.0, forces=2.0, stress=0.5)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch) -> None:
    """So that small structures have several."""
    monkeypatch.setattr(convolution, "BLOCK", 16)
    monkeypatch.setattr(factors, "BLOCK", 16)


def make(model: Model) -> Potential:
    return Potential(model=model, head=Scalar(), baseline=BASELINE)


def parts(output: Output) -> list[Tensor]:
    assert output.forces is not None
    assert output.stress is not None
    return [d.mean.detach() for d in (output.energy, output.forces, output.stress)]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(other.nan_to_num().abs().max()))
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale, equal_nan=True)


def test_every_model_that_can_is_here() -> None:
    able = {name for name, model in MODELS.items() if model.recomputes}
    assert {model.name for model in SMALL.values()} == able


@pytest.mark.parametrize("name", MODELS)
def test_of_other_models_nothing_is_saved_and_that_is_said(name) -> None:
    settings, model = TrainSettings(memory="recompute"), MODELS[name]()
    if model.recomputes:
        require_memory(settings, model)
    else:
        with pytest.raises(ValueError, match=f"recompute}} does nothing for a {name}"):
            require_memory(settings, model)
    require_memory(TrainSettings(), model)


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("name", SMALL)
def test_energies_forces_and_stress(name, members, small_structures) -> None:
    potential = make(SMALL[name])
    weights = potential.init(3, torch.float64)
    if members is not None:
        weights = stack([weights, potential.init(4, torch.float64)])
    graph = collate([to_graph(atoms, CUTOFF) for atoms in small_structures.values()])
    keep, recompute = (
        parts(potential(weights, graph, stress=True, memory=memory))
        for memory in ("keep", "recompute")
    )
    assert_same(recompute, keep, 1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str
)
@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_the_loss(name, dtype, tolerance, make_samples) -> None:
    potential = make(SMALL[name])
    weights = potential.init(3, dtype)
    samples = make_samples(copies=1)
    batch = (
        collate([s.graph for s in samples]),
        collate_targets([s.targets for s in samples]),
        torch.ones(len(samples), dtype=torch.float64),
    )
    _, keep = loss_gradients(potential, LOSS, weights, *batch)
    _, recompute = loss_gradients(potential, LOSS, weights, *batch, memory="recompute")
    if dtype == torch.float32:  # where both round, of the exact ones
        keep = cast(loss_gradients(potential, LOSS, cast(weights, torch.float64), *batch)[1], dtype)
    assert_same([recompute[n] for n in keep], list(keep.values()), tolerance)


def test_slopes_of_forces_by_positions_with_constant_weights(small_structures) -> None:
    """As without `recompute`: what is not kept can still be differentiated."""
    potential = make(SMALL["mace"])
    weights = potential.init(3, torch.float64)
    typed = potential.assign(to_graph(small_structures["ethanol"], CUTOFF))
    slopes = []
    for memory in ("keep", "recompute"):
        output = potential.evaluate(
            weights, typed, forces=True, stress=False, differentiable=True, memory=memory
        )
        assert output.forces is not None
        lengths = output.features.geometry.vectors  # type: ignore[union-attr]
        slopes += torch.autograd.grad(output.forces.mean.square().sum(), lengths)
    assert_same(slopes[1:], slopes[:1], 1e-11)
    assert slopes[0].abs().max() > 1e-2


@pytest.mark.parametrize("name", ["mace", "race"])
def test_splines_are_kept(name, small_structures) -> None:
    potential = make(SMALL[name])
    weights = splined(potential, potential.init(3, torch.float64))
    graph = to_graph(small_structures["skewed_cell"], CUTOFF)
    keep, recompute = (
        parts(potential(weights, graph, stress=True, memory=memory))
        for memory in ("keep", "recompute")
    )
    assert all(torch.equal(a, b) for a, b in zip(keep, recompute, strict=True))


def test_large_batches_are_evaluated_in_less_memory(small_structures, monkeypatch) -> None:
    potential = make(SMALL["mace"])
    weights = potential.init(3, torch.float64)
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    pairs = graph.pair_edges.shape[1]
    seen = []
    model = Mace.__call__

    def look(self: Mace, weights: Weights, geometry: Geometry) -> Features:
        seen.append(geometry.memory)
        return model(self, weights, geometry)

    monkeypatch.setattr(Mace, "__call__", look)
    for most in (2 * pairs, 2 * pairs - 1, pairs, pairs - 1):
        monkeypatch.setattr(Mace, "most_kept", most)
        potential(weights, graph)
        potential(stack([weights, weights]), graph)
    keep, recompute = "keep", "recompute"
    assert seen == [keep, keep, keep, recompute, keep, recompute, recompute, recompute]


@pytest.mark.usefixtures("tracing")
def test_traced_and_large(small_structures, monkeypatch) -> None:
    potential = make(ONE_LAYER)
    weights = potential.init(3, torch.float64)
    graph = to_graph(small_structures["skewed_cell"], CUTOFF)
    expected = parts(potential(weights, graph, stress=True, memory="keep"))
    monkeypatch.setattr(Mace, "most_kept", 0)
    evaluate = compile_potential(potential)
    assert_same(parts(evaluate(weights, graph, stress=True)), expected, 1e-12)


@pytest.mark.usefixtures("tracing")
def test_traced_gradients(make_samples) -> None:
    """The graph that would be compiled: nothing in it holds for the sizes of the trace only."""
    potential, loss = make(ONE_LAYER), LossSettings(energy=1.0, forces=2.0)
    weights = potential.init(3, torch.float64)
    step = compile_gradients(potential, "recompute")
    samples = make_samples(copies=1)
    for chosen in (samples, samples[:2]):
        batch = (
            collate([s.graph for s in chosen]),
            collate_targets([s.targets for s in chosen]),
            torch.ones(len(chosen), dtype=torch.float64),
        )
        _, keep = loss_gradients(potential, loss, weights, *batch)
        _, found = step(potential, loss, weights, *batch)
        assert_same([found[n] for n in keep], list(keep.values()), 1e-11)


PROGRAM = """
import sys
import numpy as np, torch
from ase import Atoms
torch.set_num_threads(1)
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.heads.scalar import Scalar
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential

def highest():  # what getrusage says is that of the parent, as long as that is more
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

def run(count, memory):
    side = (10 * count) ** (1 / 3)  # Å, a tenth of an atom per Å³
    places = np.random.default_rng(1).uniform(0, side, (count, 3))
    graph = to_graph(Atoms(numbers=[1] * count, positions=places, cell=[side] * 3, pbc=True), 5.0)
    potential(weights, graph, memory=memory)

baseline = Baseline(elements=(1,), energies=(0.0,), scale=1.0, neighbors=50.0)
models = {
    "allegro": Allegro(tensors=16),
    "mace": Mace(irreps="32x0e + 32x1o", max_ell=2, correlation=2),
    "schnet": Schnet(features=64, gaussians=20),
}
potential = Potential(model=models[sys.argv[1]], head=Scalar(), baseline=baseline)
weights = potential.init(0, torch.float32)
run(60, "keep")
peaks = [highest()]
for memory in ("recompute", "keep"):
    run(600, memory)
    peaks.append(highest())
print(*peaks)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="this system does not tell the peak of a process"
)
@pytest.mark.parametrize("model", ["allegro", "mace", "schnet"])
def test_peak_memory(model) -> None:
    program = [sys.executable, "-c", PROGRAM, model]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    before, recompute, keep = (int(peak) for peak in done.stdout.split())
    assert keep - before > 20_000  # kB
    assert recompute - before < 0.5 * (keep - before)
