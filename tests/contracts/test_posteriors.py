"""Laws of every posterior, and of the Predictor that mixes its draws."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, collate
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.posterior import Posterior, Single
from surefoot.posteriors.predictor import (
    KIND,
    POSTERIORS,
    Calibration,
    Predictor,
    build_predictor,
    join_predictions,
    load_predictor,
    recalibrated,
)
from surefoot.potential import Potential
from surefoot.train.checkpoint import RefusedFile, read_tree, write_tree

POTENTIAL = Potential(
    model=Schnet(name="schnet", cutoff=4.0, features=6, interactions=2, gaussians=6),
    head=Scalar(),
    baseline=Baseline(elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=0.7, neighbors=9.0),
)
MEMBERS = 5


def members() -> list[Weights]:
    return [POTENTIAL.init(seed, torch.float64) for seed in range(MEMBERS)]


POSTERIOR: dict[str, Callable[[], Posterior]] = {
    "single": lambda: Single(members()[0]),
    "ensemble": lambda: Ensemble(stack(members())),
}
every_posterior = pytest.mark.parametrize("name", POSTERIOR)


def predictor_of(name: str, calibration: Calibration | None = None) -> Predictor:
    return build_predictor(
        POTENTIAL, POSTERIOR[name](), calibration or Calibration(), {"config": {"seed": 1}}
    )


def graphs_of(small_structures) -> list[Graph]:
    return [to_graph(atoms, 4.0) for atoms in small_structures.values()]


def draw(posterior: Posterior, seed: int, count: int | None) -> Weights:
    return posterior.draws(torch.Generator().manual_seed(seed), count)


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_every_posterior_is_under_test() -> None:
    assert set(POSTERIOR) == set(POSTERIORS)
    for name, build in POSTERIOR.items():
        assert isinstance(build(), POSTERIORS[name])
        assert build().name == name


@every_posterior
@pytest.mark.parametrize("count", [None, 1])
def test_same_generator_same_draw(name, count) -> None:
    posterior = POSTERIOR[name]()
    before = torch.get_rng_state()
    first, second = (draw(posterior, 3, count) for _ in range(2))
    assert same(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@every_posterior
def test_draws_are_stacked_and_do_not_change_the_posterior(name) -> None:
    posterior = POSTERIOR[name]()
    before = {key: value.clone() for key, value in posterior.tree().items()}
    weights = draw(posterior, 0, None)
    fresh = POTENTIAL.init(0, torch.float64)
    counts = {value.shape[0] for value in weights.values()}
    assert counts == {1 if name == "single" else MEMBERS}
    assert {key: value.shape[1:] for key, value in weights.items()} == {
        key: value.shape for key, value in fresh.items()
    }
    assert same(posterior.tree(), before)


@every_posterior
@pytest.mark.parametrize("count", [0, -1, MEMBERS + 1])
def test_impossible_numbers_of_draws_are_refused(name, count) -> None:
    with pytest.raises(ValueError, match=rf"{count}"):
        draw(POSTERIOR[name](), 0, count)


def test_draws_of_an_ensemble_are_members_without_replacement() -> None:
    posterior = POSTERIOR["ensemble"]()
    originals = members()
    chosen = set()
    for seed in range(10):
        drawn = draw(posterior, seed, 3)
        found = [
            next(
                m
                for m in range(MEMBERS)
                if all(torch.equal(drawn[n][d], w) for n, w in originals[m].items())
            )
            for d in range(3)
        ]
        assert len(set(found)) == 3
        chosen.add(tuple(found))
    assert len(chosen) > 3


@every_posterior
def test_saved_and_loaded(name, tmp_path, small_structures) -> None:
    before = predictor_of(name, Calibration(energy=1.2, forces=0.8, stress=1.1, source="a test"))
    path = tmp_path / "folder" / "model.surefoot"
    before.save(path)
    after = load_predictor(str(path))
    assert after.potential == before.potential
    assert after.calibration == before.calibration
    assert after.provenance == before.provenance
    assert after.posterior.name == name
    assert same(after.weights, before.weights)
    graph = collate(graphs_of(small_structures))
    assert torch.equal(after(graph).energy.mean, before(graph).energy.mean)


def test_loaded_in_another_precision(tmp_path, small_structures) -> None:
    predictor_of("ensemble").save(tmp_path / "model")
    single = load_predictor(tmp_path / "model", dtype=torch.float32)
    assert {value.dtype for value in single.weights.values()} == {torch.float32}
    graph = collate(graphs_of(small_structures))
    exact = predictor_of("ensemble")(graph).energy.mean
    torch.testing.assert_close(single(graph).energy.mean, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("place", "value"),
    [("model", {"name": "nonet"}), ("head", {"energy": "oracle"}), ("posterior", "crystal ball")],
)
def test_unknown_parts_are_refused(place, value, tmp_path) -> None:
    path = tmp_path / "model"
    predictor_of("single").save(path)
    tree, header = read_tree(path, KIND)
    kept = {key: header[key] for key in header if key not in ("format", "kind")}
    write_tree(path, KIND, tree, {**kept, place: value})
    with pytest.raises(RefusedFile, match="does not have"):
        load_predictor(path)


def test_one_set_of_weights_has_no_error_bar(small_structures) -> None:
    prediction = predictor_of("single")(collate(graphs_of(small_structures)), stress=True)
    for moments in (prediction.energy, prediction.forces, prediction.stress):
        assert moments is not None
        assert moments.epistemic is None
        assert moments.aleatoric is None
        assert moments.total is None
    assert prediction.energy_factor is None


def test_ensemble_variances_are_unbiased(small_structures) -> None:
    graph = collate(graphs_of(small_structures))
    outputs = [POTENTIAL(weights, graph, stress=True) for weights in members()]
    prediction = predictor_of("ensemble")(graph, stress=True, members=True)
    energies = np.stack([output.energy.mean.detach().numpy() for output in outputs])
    assert np.allclose(prediction.energy.mean, energies.mean(0), rtol=1e-12)
    assert np.allclose(prediction.energy.epistemic, energies.var(0, ddof=1), rtol=1e-10)
    assert np.allclose(prediction.energy_draws, energies, rtol=1e-12)
    forces = np.stack([o.forces.mean.detach().numpy() for o in outputs if o.forces is not None])
    assert prediction.forces is not None
    assert np.allclose(prediction.forces_draws, forces, atol=1e-12)
    covariance = prediction.forces.epistemic
    assert covariance is not None
    for atom in range(forces.shape[1]):
        expected = np.cov(forces[:, atom], rowvar=False, ddof=1)
        assert np.allclose(covariance[atom], expected, rtol=1e-9, atol=1e-14)
    assert prediction.stress is not None
    stress = np.stack([o.stress.mean.detach().numpy() for o in outputs if o.stress is not None])
    variance = stress.var(0, ddof=1)
    assert np.allclose(prediction.stress.epistemic, variance, rtol=1e-9, equal_nan=True)


@every_posterior
def test_prediction_does_not_depend_on_batching(name, small_structures) -> None:
    predictor = predictor_of(name)
    graphs = graphs_of(small_structures)
    whole = predictor(collate(graphs), members=True)
    parts = [collate(graphs[:1]), collate(graphs[1:4]), collate(graphs[4:])]
    joined = join_predictions([predictor(part, members=True) for part in parts])
    assert whole.forces is not None
    assert joined.forces is not None
    pairs = [
        (whole.energy.mean, joined.energy.mean),
        (whole.energy.epistemic, joined.energy.epistemic),
        (whole.forces.mean, joined.forces.mean),
        (whole.forces.epistemic, joined.forces.epistemic),
        (whole.energy_draws, joined.energy_draws),
        (whole.forces_draws, joined.forces_draws),
        (whole.energy_factor, joined.energy_factor),
    ]
    for one, other in pairs:
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_energy_factor_gives_variances_of_differences(small_structures) -> None:
    """Across batches of one Predictor, with the factor of differences."""
    predictor = predictor_of("ensemble", Calibration(energy=5.0, difference=1.7))
    prediction = join_predictions([predictor(graph) for graph in graphs_of(small_structures)])
    factor, draws = prediction.energy_factor, prediction.energy_draws
    assert factor is not None
    assert draws is not None
    count = draws.shape[1]
    for a in range(count):
        for b in range(count):
            expected = 1.7**2 * np.var((draws[:, a] - draws[:, b]).numpy(), ddof=1)
            found = float((factor[a] - factor[b]).square().sum())
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-20)
    raw = torch.as_tensor(np.var(draws.numpy(), axis=0, ddof=1))
    torch.testing.assert_close(factor.square().sum(1), 1.7**2 * raw)


def test_calibration_multiplies_standard_deviations(small_structures) -> None:
    graph = collate(graphs_of(small_structures))
    plain = predictor_of("ensemble")
    scaled = recalibrated(plain, Calibration(energy=2.0, forces=3.0, stress=4.0))
    before, after = plain(graph, stress=True), scaled(graph, stress=True)
    for quantity, factor in (("energy", 2.0), ("forces", 3.0), ("stress", 4.0)):
        one, other = getattr(before, quantity), getattr(after, quantity)
        torch.testing.assert_close(other.mean, one.mean, equal_nan=True)
        torch.testing.assert_close(other.total, one.total * factor**2, equal_nan=True)


def test_prediction_is_detached(small_structures) -> None:
    predictor = predictor_of("ensemble")
    tracked = {name: value.clone().requires_grad_() for name, value in predictor.weights.items()}
    prediction = replace(predictor, weights=tracked)(
        collate(graphs_of(small_structures)), members=True
    )
    assert prediction.forces is not None
    tensors = [
        prediction.energy.mean,
        prediction.energy.epistemic,
        prediction.forces.mean,
        prediction.forces.epistemic,
        prediction.energy_draws,
        prediction.forces_draws,
        prediction.energy_factor,
    ]
    assert not any(tensor is None or tensor.requires_grad for tensor in tensors)
