"""Laws of the distance to the training data, for every model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.stats import special_ortho_group

from surefoot.blocks.dense import under
from surefoot.blocks.gate import gate
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import Sample, to_graph
from surefoot.graph import collate
from surefoot.heads.scalar import Scalar
from surefoot.models import MODELS
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.models.scn import Scn
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.gate import (
    EDGE,
    FEWEST,
    Gate,
    TooFewFrames,
    first_draw,
    fit_gate,
    gate_slope,
)
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import (
    Predictor,
    build_predictor,
    compiled,
    join_predictions,
    load_predictor,
    with_gate,
)
from surefoot.potential import Potential

CUTOFF = 3.5
FRAMES = 60
MODEL = {
    "schnet": Schnet(cutoff=CUTOFF, features=8, interactions=2, gaussians=8),
    "mace": Mace(cutoff=CUTOFF, irreps="4x0e + 4x1o", max_ell=2, correlation=2, radial=(8,)),
    "allegro": Allegro(
        cutoff=CUTOFF, lmax=1, layers=2, scalars=7, tensors=3, embed_width=8, latent_width=8
    ),
    "race": Race(cutoff=CUTOFF, irreps="4x0e + 3x1o", interactions=2, max_ell=1, radial=(8,)),
    "scn": Scn(
        cutoff=CUTOFF,
        layers=2,
        lmax=1,
        messages="so2",
        channels=4,
        hidden=8,
        edge=6,
        gaussians=8,
        aggregation="gate",
        readout="scalars",
    ),
    "scn, points": Scn(
        cutoff=CUTOFF,
        layers=1,
        lmax=1,
        messages="so2",
        channels=4,
        hidden=8,
        edge=6,
        gaussians=8,
        aggregation="gate",
        samples=128,
    ),
}
BASELINE = Baseline(
    elements=(1, 6, 8, 17), energies=(-1.0, -2.0, -3.0, -4.0), scale=1.0, neighbors=5.0
)
every_model = pytest.mark.parametrize("name", MODEL)


def chloromethanol(stretch: float = 1.0) -> Atoms:
    """C with H, H, Cl and OH; chlorine and the hydrogen of oxygen are never within the cutoff."""
    places = np.array(
        [[0, 0, 0], [-0.5, 0.9, 0.3], [-0.5, -0.5, 0.9], [-1.0, -0.6, -1.3], [1.3, 0.1, -0.4],
         [1.9, 0.8 * stretch, 0.2]]
    )  # fmt: skip
    return Atoms("CHHClOH", positions=places)


def rattled(count: int, seed: int, width: float = 0.05) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    images = [chloromethanol() for _ in range(count)]
    for atoms in images:
        atoms.positions += width * rng.normal(size=atoms.positions.shape)
    return images


def sample(atoms: Atoms, make_targets) -> Sample:
    targets = make_targets(atoms, np.random.default_rng(0))
    return Sample(
        graph=to_graph(atoms, CUTOFF), targets=targets, place="here", config_type="c", group="g"
    )


def fitted(name: str, make_targets, seed: int = 0) -> Predictor:
    """A potential that nobody trained, with a gate from rattled molecules."""
    potential = Potential(model=MODEL[name], head=Scalar(hidden=4), baseline=BASELINE)
    weights = potential.init(seed, torch.float64)
    predictor = build_predictor(potential, Single(weights), Calibration(), {})
    samples = [sample(atoms, make_targets) for atoms in rattled(FRAMES, 1)]
    return with_gate(predictor, samples, np.arange(FRAMES) % 3 == 0)


@pytest.fixture(scope="module")
def predictors(make_targets_of_module) -> dict[str, Predictor]:
    return {name: fitted(name, make_targets_of_module) for name in MODEL}


@pytest.fixture(scope="module")
def make_targets_of_module():
    from surefoot.graph import Targets

    def make(atoms: Atoms, _: np.random.Generator) -> Targets:
        return Targets(
            energy=torch.zeros(1, dtype=torch.float64),
            forces=torch.zeros((len(atoms), 3), dtype=torch.float64),
            stress=torch.zeros((1, 3, 3), dtype=torch.float64),
            has_energy=torch.tensor([False]),
            has_forces=torch.tensor([False]),
            has_stress=torch.tensor([False]),
            weight=torch.ones(1, dtype=torch.float64),
            fixed=torch.zeros(len(atoms), dtype=torch.bool),
            group=torch.zeros(1, dtype=torch.int64),
        )

    return make


def held(predictor: Predictor) -> Gate:
    assert predictor.gate is not None
    return predictor.gate


def distance(predictor: Predictor, atoms: Atoms) -> tuple[float, np.ndarray]:
    found = predictor(to_graph(atoms, CUTOFF), forces=False)
    assert found.ood is not None
    assert found.ood_atoms is not None
    return float(found.ood[0]), found.ood_atoms.numpy()


def test_every_model_is_under_test() -> None:
    assert {model.name for model in MODEL.values()} == set(MODELS)


@every_model
def test_one_is_the_edge_of_the_frames_set_aside(name, predictors) -> None:
    predictor = predictors[name]
    aside = [distance(predictor, atoms)[0] for atoms in rattled(FRAMES, 1)[::3]]
    count = len(aside)
    assert np.sort(aside)[int(np.ceil(EDGE * (count - 1)))] == pytest.approx(1.0, abs=1e-4)
    assert np.mean(np.array(aside) <= 1.0 + 1e-4) >= EDGE
    assert "edge encloses 95% of 20" in held(predictor).source


@every_model
def test_new_frames_of_the_same_kind_are_inside_and_others_are_not(name, predictors) -> None:
    new = [distance(predictors[name], atoms)[0] for atoms in rattled(40, 7)]
    hot = [distance(predictors[name], atoms)[0] for atoms in rattled(40, 8, width=0.15)]
    assert np.median(new) < 1.0 < np.median(hot)
    assert np.mean(np.array(new) < 1.3) > 0.8


@every_model
def test_rotation_inversion_translation_and_order_change_nothing(name, predictors) -> None:
    predictor, atoms = predictors[name], rattled(1, 3)[0]
    whole, parts = distance(predictor, atoms)
    turned, moved = atoms.copy(), atoms.copy()
    turned.positions = -atoms.positions @ special_ortho_group.rvs(3, random_state=0).T
    moved.positions += [3.0, -1.0, 2.0]
    for image in (turned, moved):
        found = distance(predictor, image)
        assert found[0] == pytest.approx(whole, rel=1e-6)
        assert np.allclose(found[1], parts, rtol=1e-6)
    order = [3, 0, 5, 1, 4, 2]
    found = distance(predictor, atoms[order])
    assert found[0] == pytest.approx(whole, rel=1e-6)
    assert np.allclose(found[1], parts[order], rtol=1e-6)


@every_model
def test_a_batch_is_its_structures(name, predictors) -> None:
    predictor = predictors[name]
    graphs = [to_graph(atoms, CUTOFF) for atoms in rattled(3, 4, width=0.1)]
    graphs.insert(1, to_graph(Atoms("O", positions=[[0, 0, 0]]), CUTOFF))  # no neighbours at all
    whole = predictor(collate(graphs))
    joined = join_predictions([predictor(graph) for graph in graphs])
    assert whole.ood is not None
    assert whole.ood_atoms is not None
    torch.testing.assert_close(whole.ood, joined.ood)
    torch.testing.assert_close(whole.ood_atoms, joined.ood_atoms)
    assert (whole.ood_atoms.shape, whole.ood.shape) == ((19,), (4,))


@every_model
def test_the_slope_is_that_of_finite_differences(name, predictors) -> None:
    predictor, atoms = predictors[name], rattled(1, 5, width=0.1)[0]
    atoms.positions[1] *= 0.7  # so that the guard has a part in it
    slope = gate_slope(predictor, held(predictor), to_graph(atoms, CUTOFF)).numpy()
    step = 1e-5
    for atom, axis in ((0, 0), (1, 1), (4, 2)):
        ends = []
        for sign in (1, -1):
            image = atoms.copy()
            image.positions[atom, axis] += sign * step
            ends.append(distance(predictor, image)[0])
        assert slope[atom, axis] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
    assert np.allclose(slope.sum(0), 0.0, atol=1e-9)


@every_model
def test_it_rises_along_a_compression_to_six_tenths_of_a_bond(name, predictors) -> None:
    predictor, path = predictors[name], []
    for share in np.linspace(1.0, 0.6, 9):
        atoms = chloromethanol()
        atoms.positions[1] *= share  # a hydrogen towards its carbon at the origin
        path.append(distance(predictor, atoms))
    whole = [point[0] for point in path]
    beyond = [value for value in whole if value > 0.5]
    assert len(beyond) >= 5
    assert (np.diff(beyond) > 0).all()
    assert whole[0] < 1.0
    assert whole[-1] > 2.0
    assert int(np.argmax(path[-1][1])) in (0, 1)  # the two atoms that are too close


@every_model
def test_elements_that_never_met_are_far_away(name, predictors) -> None:
    """Both elements are known; the hydrogen of oxygen and chlorine too, but not as neighbours."""
    predictor, path = predictors[name], []
    for gap in (3.4, 3.0, 2.6, 2.2):
        atoms = Atoms("ClCl", positions=[[0, 0, 0], [gap, 0, 0]])
        path.append(distance(predictor, atoms))
    guard = [point[1].max() for point in path]
    assert (np.diff(guard) > 0).all()
    assert path[-1][0] > 3.0
    tree = held(predictor).tree
    assert float(tree["shortest"][3, 3]) == CUTOFF


@every_model
def test_nothing_jumps_where_a_new_pair_enters_the_cutoff(name, predictors) -> None:
    predictor = predictors[name]
    ends = [
        distance(predictor, Atoms("ClCl", positions=[[0, 0, 0], [CUTOFF + step, 0, 0]]))[0]
        for step in (-1e-4, 1e-4)
    ]
    assert ends[0] == pytest.approx(ends[1], rel=1e-2)


def test_saved_loaded_and_predicted(predictors, tmp_path) -> None:
    predictor = predictors["mace"]
    predictor.save(tmp_path / "p.safetensors")
    loaded = load_predictor(tmp_path / "p.safetensors")
    assert held(loaded).source == held(predictor).source
    graph = to_graph(rattled(1, 6)[0], CUTOFF)
    before, after = predictor(graph), loaded(graph)
    assert before.ood is not None
    assert torch.equal(before.ood, after.ood)
    assert before.ood.requires_grad is False
    replace(predictor, gate=None).save(tmp_path / "q.safetensors")
    assert load_predictor(tmp_path / "q.safetensors").gate is None
    assert load_predictor(tmp_path / "q.safetensors")(graph).ood is None


def test_single_precision_says_the_same(predictors, tmp_path) -> None:
    predictors["mace"].save(tmp_path / "p.safetensors")
    single = load_predictor(tmp_path / "p.safetensors", dtype=torch.float32)
    graph = to_graph(rattled(1, 6)[0], CUTOFF)
    exact = predictors["mace"](graph).ood
    assert float(single(graph).ood) == pytest.approx(float(exact), rel=1e-3)


def test_a_gate_changes_no_energy_and_no_force(predictors) -> None:
    predictor = predictors["mace"]
    graph = collate([to_graph(atoms, CUTOFF) for atoms in rattled(2, 9)])
    with_it, without = predictor(graph), replace(predictor, gate=None)(graph)
    assert torch.equal(with_it.energy.mean, without.energy.mean)
    assert torch.equal(with_it.forces.mean, without.forces.mean)


def test_an_ensemble_has_the_gate_of_its_first_member(make_targets_of_module) -> None:
    """In any number of portions."""
    potential = Potential(model=MODEL["schnet"], head=Scalar(hidden=4), baseline=BASELINE)
    weights = potential.init_members(3, 4, torch.float64)
    samples = [sample(atoms, make_targets_of_module) for atoms in rattled(FRAMES, 1)]
    aside = np.arange(FRAMES) % 3 == 0
    ensemble = build_predictor(potential, Ensemble(weights), Calibration(), {})
    single = build_predictor(
        potential, Single({name: value[0] for name, value in weights.items()}), Calibration(), {}
    )
    one, other = (fit_gate(predictor, samples, aside) for predictor in (ensemble, single))
    graph = to_graph(rattled(1, 6, width=0.1)[0], CUTOFF)
    expected, found = replace(single, gate=other)(graph), replace(ensemble, gate=one)(graph)
    torch.testing.assert_close(found.ood, expected.ood)
    torch.testing.assert_close(found.ood_atoms, expected.ood_atoms)
    assert first_draw(weights)["model.embedding"].shape[0] == 1


def test_of_several_draws_only_the_first_counts(predictors) -> None:
    predictor = predictors["mace"]
    graph = to_graph(rattled(1, 6)[0], CUTOFF)
    potential, tree = predictor.potential, held(predictor).tree
    other = potential.init(9, torch.float64)
    stacked = {
        name: torch.stack([value[0], other[name]]) for name, value in predictor.weights.items()
    }
    output = potential(stacked | under("gate", tree), graph)
    assert output.ood is not None
    assert output.features is not None
    torch.testing.assert_close(output.ood[0], predictor(graph).ood)
    torch.testing.assert_close(gate(tree, output.features)[0], output.ood[0])


@pytest.mark.parametrize("aside", [0, FEWEST - 1, FRAMES])
def test_too_few_frames_are_a_sentence(aside, predictors, make_targets_of_module) -> None:
    samples = [sample(atoms, make_targets_of_module) for atoms in rattled(FRAMES, 1)]
    chosen = np.arange(FRAMES) < aside
    with pytest.raises(TooFewFrames, match=rf"at least {FEWEST} frames set aside.*are {aside} and"):
        fit_gate(predictors["schnet"], samples, chosen)
    assert with_gate(predictors["schnet"], samples, chosen).gate is None


def test_what_hinders_a_gate_is_not_swallowed(predictors, make_targets_of_module) -> None:
    """Only that too few frames are there is a reason to go without one."""
    samples = [sample(atoms, make_targets_of_module) for atoms in rattled(FRAMES, 1)]
    found = predictors["schnet"]
    damaged = {name: v for name, v in found.weights.items() if name != "model.embedding"}
    with pytest.raises(KeyError, match=r"model\.embedding|embedding"):
        with_gate(replace(found, weights=damaged), samples, np.arange(FRAMES) % 3 == 0)


@pytest.mark.usefixtures("tracing")
def test_as_a_graph_it_is_the_same(predictors, count_graphs) -> None:
    """In the one graph that gives energies."""
    batch = collate([to_graph(atoms, CUTOFF) for atoms in rattled(3, 11, width=0.1)])
    plain = predictors["schnet"](batch, forces=False)
    found = compiled(predictors["schnet"])(batch, forces=False)
    assert count_graphs() == 1
    torch.testing.assert_close(found.ood, plain.ood)
    torch.testing.assert_close(found.ood_atoms, plain.ood_atoms)
