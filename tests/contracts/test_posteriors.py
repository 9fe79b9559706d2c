"""Laws of every posterior, and of the Predictor that mixes its draws."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from torch import Tensor

from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import Sample, to_graph, to_samples
from surefoot.data.read import Frame
from surefoot.evaluate.recalibrate import ensemble_factor
from surefoot.graph import Graph, collate
from surefoot.heads.scalar import Scalar
from surefoot.members import count_members, shares_model, stacks_model, take_members
from surefoot.models import Model
from surefoot.models.allegro import Allegro
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.models.scn import Scn
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.gate import fit_gate
from surefoot.posteriors.gaussian import DiagonalLaplace, Gaussian, Ivon, Swag
from surefoot.posteriors.last_layer import LastLayer, flatten_out
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
from surefoot.posteriors.shallow import Shallow
from surefoot.potential import Potential
from surefoot.train.checkpoint import RefusedFile, read_tree, write_tree

POTENTIAL = Potential(
    model=Schnet(name="schnet", cutoff=4.0, features=6, interactions=2, gaussians=6),
    head=Scalar(),
    baseline=Baseline(elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=0.7, neighbors=9.0),
)
MODELS: dict[str, Model] = {
    "schnet": POTENTIAL.model,
    "race": Race(
        cutoff=4.0, irreps="3x0e + 2x1o", channels=3, max_ell=1, interactions=2, radial=(5,)
    ),
    "allegro": Allegro(
        cutoff=4.0, lmax=1, layers=2, scalars=4, tensors=2, embed_width=5, latent_width=5
    ),
    "scn": Scn(
        cutoff=4.0,
        layers=1,
        lmax=1,
        messages="so2",
        channels=8,
        hidden=4,
        edge=3,
        gaussians=5,
        samples=8,
    ),
}
"""Rows of atoms of one layer, of several layers, of edges, and of points on the sphere."""
MEMBERS = 5


@pytest.fixture(params=MODELS)
def _model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in this file is then about that model."""
    replaced = replace(POTENTIAL, model=MODELS[request.param])
    monkeypatch.setitem(globals(), "POTENTIAL", replaced)


every_model = pytest.mark.usefixtures("_model")


def members() -> list[Weights]:
    return [POTENTIAL.init(seed, torch.float64) for seed in range(MEMBERS)]


def gaussian(kind: type[Gaussian], width: float = 0.05, rank: int = 2) -> Gaussian:
    """About the first member, as wide as said."""
    mean, generator = members()[0], torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return width * torch.randn(shape, generator=generator, dtype=torch.float64)

    return kind(
        mean=mean,
        variance={name: noise(*value.shape).square() for name, value in mean.items()},
        natural=MEMBERS,
        directions={name: noise(rank, *value.shape) for name, value in mean.items()},
    )


def last_layer(width: float = 0.05) -> LastLayer:
    point = members()[0]
    size = len(flatten_out(POTENTIAL.head, point))
    generator = torch.Generator().manual_seed(0)
    factor = width * torch.randn((size, size), generator=generator, dtype=torch.float64)
    return LastLayer(point=point, factor=factor, natural=MEMBERS)


def shallow() -> Shallow:
    model, heads = members()[0], stack(members())
    return Shallow({n: v if n.startswith("head.") else model[n] for n, v in heads.items()})


POSTERIOR: dict[str, Callable[[], Posterior]] = {
    "single": lambda: Single(members()[0]),
    "ensemble": lambda: Ensemble(stack(members())),
    "shallow": shallow,
    "swag": lambda: gaussian(Swag),
    "ivon": lambda: gaussian(Ivon, rank=0),
    "laplace": last_layer,
    "laplace_diagonal": lambda: gaussian(DiagonalLaplace, rank=0),
}
ZERO_WIDTH: dict[str, Callable[[], Posterior]] = {
    "single": POSTERIOR["single"],
    "ensemble": lambda: Ensemble(stack([members()[0]] * MEMBERS)),
    "shallow": lambda: Shallow(take_members(shallow().weights, torch.zeros(3, dtype=torch.long))),
    "swag": lambda: gaussian(Swag, width=0.0),
    "ivon": lambda: gaussian(Ivon, width=0.0, rank=0),
    "laplace": lambda: last_layer(width=0.0),
    "laplace_diagonal": lambda: gaussian(DiagonalLaplace, width=0.0, rank=0),
}
PARTIAL = {"shallow", "laplace"}
UNLIMITED = {"swag", "ivon", "laplace_diagonal"}
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


@every_model
@every_posterior
def test_draws_are_stacked_and_do_not_change_the_posterior(name) -> None:
    posterior = POSTERIOR[name]()
    before = {key: value.clone() for key, value in posterior.tree().items()}
    weights = draw(posterior, 0, None)
    fresh = POTENTIAL.init(0, torch.float64)
    count = 1 if name == "single" else MEMBERS
    assert count_members(weights) == count
    partial = shares_model(weights)
    assert partial == (name in PARTIAL)
    sets = {n: () if partial and n.startswith("model.") else (count,) for n in fresh}
    assert {n: tuple(value.shape) for n, value in weights.items()} == {
        n: (*sets[n], *value.shape) for n, value in fresh.items()
    }
    assert same(posterior.tree(), before)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        (name, count)
        for name in POSTERIOR
        for count in (0, -1, 1000)
        if count < 1 or name not in UNLIMITED
    ],
)
def test_impossible_numbers_of_draws_are_refused(name, count) -> None:
    with pytest.raises(ValueError, match=rf"{count}"):
        draw(POSTERIOR[name](), 0, count)


@every_model
@every_posterior
def test_zero_width_is_the_point(name, small_structures) -> None:
    """All draws say what the one set of weights says."""
    weights = draw(ZERO_WIDTH[name](), 0, None)
    graph = collate(graphs_of(small_structures))
    one, all_draws = POTENTIAL(members()[0], graph), POTENTIAL(weights, graph)
    for quantity in ("energy", "forces"):
        point, found = getattr(one, quantity).mean, getattr(all_draws, quantity).mean
        torch.testing.assert_close(found, point.expand_as(found), rtol=1e-12, atol=1e-12)


@every_posterior
@pytest.mark.parametrize("place", ["surefoot.heads.scalar.Scalar.__call__", "torch.autograd.grad"])
def test_a_failed_prediction_changes_nothing(name, place, small_structures, monkeypatch) -> None:
    """Neither on the way forward nor on the way back."""
    predictor, graph = predictor_of(name), collate(graphs_of(small_structures))

    def look() -> Weights:
        prediction = predictor(graph)
        parts = {"forces": prediction.forces.mean}
        if prediction.forces.total is not None:  # one set of weights has none
            parts["variance"] = prediction.forces.total
        kept = {f"kept {n}": value.clone() for n, value in predictor.posterior.tree().items()}
        held = {f"held {n}": value.clone() for n, value in predictor.weights.items()}
        return {"energy": prediction.energy.mean, **parts, **kept, **held}

    before, state = look(), (torch.get_rng_state(), torch.is_grad_enabled())
    seen = []

    def fail(*_: object, **__: object) -> object:
        seen.append(place)
        raise FloatingPointError("in the middle of a prediction")

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(FloatingPointError, match="in the middle"):
            predictor(graph)
    assert seen
    assert torch.equal(torch.get_rng_state(), state[0])
    assert torch.is_grad_enabled() == state[1]
    assert not any(value.requires_grad for value in predictor.weights.values())
    assert same(look(), before)


@every_model
@every_posterior
def test_partial_draws_are_whole_draws(name, small_structures) -> None:
    """One model and many heads say what as many whole sets of weights say."""
    weights = draw(POSTERIOR[name](), 1, None)
    count = count_members(weights)
    single = {n: v for n, v in weights.items() if not stacks_model(weights)}
    whole = weights | {
        n: v.expand(count, *v.shape) for n, v in single.items() if n.startswith("model.")
    }
    graph = collate(graphs_of(small_structures))
    one, other = (POTENTIAL(w, graph, stress=True) for w in (weights, whole))
    for quantity in ("energy", "forces", "stress"):
        found, expected = getattr(one, quantity).mean, getattr(other, quantity).mean
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12, equal_nan=True)


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


@every_model
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


def gate_of_first(predictor: Predictor, samples: list[Sample]) -> Predictor:
    aside = np.arange(len(samples)) % 3 == 0
    return replace(predictor, gate=fit_gate(predictor, samples, aside))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        (name, count)
        for name in POSTERIOR
        for count in (1, 2, 4, 7)
        if count == 1 or name in UNLIMITED or (count <= MEMBERS and name != "single")
    ],
)
def test_the_gate_is_that_of_the_file_for_any_number_of_draws(name, count, tmp_path, rng) -> None:
    """It knows the features of the first draw, which does not depend on how many follow."""
    labels = {"energy": None, "forces": None, "group": "g", "config_type": "c", "file": "f"}
    frames = [Frame(atoms=molecule("CH3OH"), index=index, **labels) for index in range(36)]
    for frame in frames:
        frame.atoms.positions += 0.1 * rng.normal(size=frame.atoms.positions.shape)
    samples = to_samples(frames, 4.0)
    gate_of_first(predictor_of(name), samples[:30]).save(tmp_path / "p")
    whole, few = load_predictor(tmp_path / "p"), load_predictor(tmp_path / "p", draws=count)
    assert few.draws == count
    for sample in samples[30:]:
        expected = whole(sample.graph).ood
        assert expected is not None
        torch.testing.assert_close(few(sample.graph).ood, expected, rtol=1e-9, atol=0)


@every_posterior
def test_factors_for_another_number_of_draws_follow_or_are_dropped(name, tmp_path) -> None:
    held = Calibration(
        energy=1.2, forces=0.8, stress=1.1, source="a test", draws=MEMBERS,
        shared_error={"forces": 0.3},
    )  # fmt: skip
    predictor_of(name, held).save(tmp_path / "p")
    if name == "single":
        assert load_predictor(tmp_path / "p", draws=1).calibration.stress is None
        return
    found = load_predictor(tmp_path / "p", draws=4).calibration
    assert found.forces == ensemble_factor(0.3, 4)
    assert found.stress is None  # nobody knows how it depends on the draws
    assert found.energy == (1.2 if name == "laplace" else None)  # a closed form needs none
    assert found.draws == 4
    assert "stress" in found.describe()
    assert load_predictor(tmp_path / "p", draws=MEMBERS).calibration == held


INCOMPLETE = [
    ("swag", "variance.model.embedding", "variance.model.embedding is missing"),
    ("swag", "directions.model.embedding", "directions.model.embedding is missing"),
    ("swag", "mean.model.embedding", "mean.model.embedding is not"),
    ("ivon", "draws", "draws"),
    ("laplace", "factor", "factor"),
    ("laplace_diagonal", "variance.head.layer0.out.bias", "is missing"),
]


@pytest.mark.parametrize(("name", "leaf", "told"), INCOMPLETE)
def test_incomplete_trees_are_refused(name, leaf, told, tmp_path) -> None:
    path = tmp_path / "p"
    predictor_of(name).save(path)
    tree, header = read_tree(path, KIND)
    kept = {key: header[key] for key in header if key not in ("format", "kind")}
    del tree[leaf]
    write_tree(path, KIND, tree, kept)
    with pytest.raises(RefusedFile, match=f"{told}.*the file is of no use"):
        load_predictor(path)


@pytest.mark.parametrize(
    ("name", "leaf"), [("swag", "directions.model.embedding"), ("laplace", "factor")]
)
def test_trees_of_other_shapes_are_refused(name, leaf, tmp_path) -> None:
    path = tmp_path / "p"
    predictor_of(name).save(path)
    tree, header = read_tree(path, KIND)
    kept = {key: header[key] for key in header if key not in ("format", "kind")}
    tree[leaf] = tree[leaf][..., :-1].contiguous()
    write_tree(path, KIND, tree, kept)
    with pytest.raises(RefusedFile, match=rf"{leaf} has the shape .* is needed"):
        load_predictor(path)


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


@every_model
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
