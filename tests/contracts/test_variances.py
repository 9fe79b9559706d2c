"""Laws of what a mean-variance head says of energies and forces, for every model."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from ase import Atoms
from pydantic import ValidationError
from scipy.spatial.transform import Rotation
from torch import Tensor

from surefoot.blocks.dense import Weights, cast, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, collate, collate_targets
from surefoot.heads.mean_variance import Covariance, MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.models import MODELS, Model
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.models.scn import Scn
from surefoot.potential import Potential
from surefoot.prediction import mix
from surefoot.train.loss import LossSettings
from surefoot.train.step import loss_gradients

CUTOFF = 4.0
SMALL: dict[str, Model] = {
    "schnet": Schnet(name="schnet", cutoff=CUTOFF, features=8, interactions=2, gaussians=8),
    "mace": Mace(cutoff=CUTOFF, irreps="4x0e + 4x1o + 4x2e", max_ell=2, correlation=2, radial=(8,)),
    "allegro": Allegro(cutoff=CUTOFF, layers=1, scalars=6, tensors=4, latent_width=8),
    "race": Race(
        cutoff=CUTOFF, irreps="4x0e + 4x1o + 3x2e", channels=4, interactions=3, radial=(8,)
    ),
    "scn": Scn(
        cutoff=CUTOFF,
        layers=2,
        lmax=2,
        messages="so2",
        channels=4,
        hidden=8,
        edge=6,
        gaussians=8,
        aggregation="gate",
        readout="scalars",
    ),
}
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
NLL = LossSettings(energy=1.0, forces=3.0, energy_rule="nll", forces_rule="nll")
NAMES = ("ethanol", "skewed_cell", "far_atoms")
FRAMED: tuple[Covariance, ...] = ("diagonal", "cholesky")
INVARIANT: tuple[Covariance, ...] = ("equivariant", "isotropic")


@dataclass(frozen=True)
class Case:
    """A potential with weights, in float64."""

    potential: Potential
    weights: Weights


def make(name: str, head: Scalar | None = None, seed: int = 1) -> Case:
    """Random weights, zeros and biases included."""
    potential = Potential(model=SMALL[name], head=head or MeanVariance(), baseline=BASELINE)
    generator = torch.Generator().manual_seed(seed)
    weights = potential.init(seed, torch.float64)
    return Case(
        potential,
        {
            name: value + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for name, value in weights.items()
        },
    )


@pytest.fixture(params=SMALL)
def case(request: pytest.FixtureRequest) -> Case:
    return make(request.param)


def ask(case: Case, graph: Graph) -> tuple[Tensor, Tensor]:
    """Variances of energies, covariances of forces."""
    output = case.potential(case.weights, graph)
    assert output.forces is not None
    assert output.energy.spread == output.forces.spread == "noise"
    return output.energy.variance.detach(), output.forces.variance.detach()


def turned(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ matrix.T)
    copy.positions = atoms.positions @ matrix.T
    return copy


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def rotation_error(case: Case, atoms: Atoms, matrix: np.ndarray) -> tuple[float, float]:
    """Of energies and of forces: Σ(R x) against R Σ(x) Rᵀ."""
    energy, forces = ask(case, to_graph(atoms, CUTOFF))
    turned_energy, turned_forces = ask(case, to_graph(turned(atoms, matrix), CUTOFF))
    turn = torch.as_tensor(matrix)
    return off(turned_energy, energy), off(turned_forces, turn @ forces @ turn.mT)


def test_every_model_is_here() -> None:
    assert {model.name for model in SMALL.values()} == set(MODELS)


@pytest.mark.parametrize(("name", "sign"), [("skewed_cell", 1), ("ethanol", -1)])
def test_covariances_turn_with_the_structure(case, name, sign, small_structures, rng) -> None:
    matrix = sign * Rotation.random(random_state=rng).as_matrix()
    energy, forces = rotation_error(case, small_structures[name], matrix)
    assert energy < 1e-8
    assert forces < 1e-8


def test_covariances_are_worth_turning(case, small_structures) -> None:
    """Far from spheres, and differently for each atom: the law above can fail."""
    covariance = ask(case, to_graph(small_structures["ethanol"], CUTOFF))[1]
    sizes = torch.linalg.eigvalsh(covariance)
    assert float(sizes.min()) > 0
    assert float((sizes[:, 2] / sizes[:, 0]).median()) > 1.2
    assert float(sizes.log().mean(-1).std()) > 0.05


@pytest.mark.parametrize("covariance", FRAMED)
def test_invariants_as_entries_break_rotation(covariance, small_structures, rng) -> None:
    """The paper's Cholesky factor, and three variances along fixed axes, are in the laboratory."""
    matrix = Rotation.random(random_state=rng).as_matrix()
    case = make("schnet", MeanVariance(covariance=covariance))
    energy, forces = rotation_error(case, small_structures["ethanol"], matrix)
    assert energy < 1e-8
    assert forces > 0.1


def test_isotropic_covariances_are_spheres(small_structures, rng) -> None:
    case = make("schnet", MeanVariance(covariance="isotropic"))
    matrix = Rotation.random(random_state=rng).as_matrix()
    assert rotation_error(case, small_structures["ethanol"], matrix)[1] < 1e-8
    covariance = ask(case, to_graph(small_structures["ethanol"], CUTOFF))[1]
    sphere = covariance[:, :1, :1] * torch.eye(3)
    torch.testing.assert_close(covariance, sphere, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("covariance", [*INVARIANT, *FRAMED])
def test_determinant_and_inverse_belong_to_the_covariance(covariance, small_structures) -> None:
    case = make("schnet", MeanVariance(covariance=covariance))
    output = case.potential(case.weights, to_graph(small_structures["ethanol"], CUTOFF))
    forces = output.forces
    torch.testing.assert_close(torch.logdet(forces.variance), forces.log_determinant)
    unit = torch.eye(3, dtype=torch.float64).expand_as(forces.whitening)
    inverse = forces.whitening.mT @ forces.whitening
    torch.testing.assert_close(forces.variance @ inverse, unit, rtol=1e-9, atol=1e-9)


def test_epsilon_is_added_to_the_factors_covariance(small_structures) -> None:
    """In (eV/Å)², as in the released code, whatever the scale; other forms have no factor."""
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    plain, more = (
        ask(make("schnet", MeanVariance(covariance="cholesky", epsilon=epsilon)), graph)[1]
        for epsilon in (0.0, 1e-3)
    )
    unit = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(more, plain + 1e-3 * unit, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValidationError, match="epsilon belongs to covariance: cholesky"):
        MeanVariance(epsilon=1e-3)


@pytest.mark.parametrize("covariance", [*INVARIANT, *FRAMED])
def test_lengths_of_residuals_in_single_precision(covariance, small_structures, generator) -> None:
    """None is negative, however stretched a covariance is; σ from 1e-3 to 1 here."""
    case = make("schnet", MeanVariance(covariance=covariance))
    entries = {"cholesky": [-14.0] * 3 + [1.0] * 3, "diagonal": [-14.0, 0.0, 2.0]}
    bias = torch.tensor(entries.get(covariance, [-14.0]), dtype=torch.float64)
    weights = cast(case.weights | {"head.covariance.layer0.out.bias": bias}, torch.float32)
    forces = case.potential(weights, to_graph(small_structures["ethanol"], CUTOFF)).forces
    for _ in range(100):
        target = torch.randn((9, 3), generator=generator)
        assert bool((forces.mahalanobis(target) >= 0).all())
        assert bool(forces.sample(generator).isfinite().all())


def test_none_leaves_forces_without_error_bars(small_structures) -> None:
    case = make("schnet", MeanVariance(covariance="none"))
    output = case.potential(case.weights, to_graph(small_structures["ethanol"], CUTOFF))
    assert output.energy.spread == "noise"
    assert output.forces.spread == "none"
    assert case.potential.head.judging() == ("variance",)
    assert not any("covariance" in name for name in case.weights)


def test_batch_equals_singles_and_atoms_may_be_renamed(case, small_structures, rng) -> None:
    structures = [small_structures[name] for name in NAMES]
    energies, forces = ask(case, collate([to_graph(atoms, CUTOFF) for atoms in structures]))
    parts = forces.split([len(atoms) for atoms in structures])
    for index, atoms in enumerate(structures):
        order = rng.permutation(len(atoms))
        energy, covariance = ask(case, to_graph(atoms[order], CUTOFF))
        torch.testing.assert_close(energies[index : index + 1], energy, rtol=1e-11, atol=0)
        torch.testing.assert_close(parts[index][order], covariance, rtol=1e-10, atol=1e-12)


def test_members_equal_a_loop(case, small_structures) -> None:
    graph = collate([to_graph(small_structures[name], CUTOFF) for name in NAMES])
    names = [case.potential.model.name] * 3
    members = [make(name, seed=seed).weights for seed, name in enumerate(names)]
    energies, forces = ask(replace(case, weights=stack(members)), graph)
    for index, weights in enumerate(members):
        energy, covariance = ask(replace(case, weights=weights), graph)
        torch.testing.assert_close(energies[index], energy, rtol=1e-11, atol=0)
        torch.testing.assert_close(forces[index], covariance, rtol=1e-10, atol=1e-12)
    assert float(energies.log().std(0).min()) > 1e-3


def test_judges_of_members_on_one_model_equal_a_loop(small_structures) -> None:
    """Only the head has a member axis, as where many last layers share a model."""
    case = make("mace")
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    weights = {n.removeprefix("head."): v for n, v in case.weights.items() if n.startswith("head.")}
    judges = [
        {name: value * factor for name, value in weights.items()} for factor in (0.7, 1.0, 1.4)
    ]
    head, output = case.potential.head, case.potential(case.weights, graph)
    together = head.force_distribution(stack(judges), output.features, output.forces.mean, 1.7)
    energies = head(stack(judges), output.features).variance
    for index, one in enumerate(judges):
        alone = head.force_distribution(one, output.features, output.forces.mean, 1.7)
        torch.testing.assert_close(together.whitening[index], alone.whitening)
        torch.testing.assert_close(energies[index], head(one, output.features).variance)


@pytest.mark.parametrize("name", ["atom", "far_atoms"])
def test_without_neighbours_the_covariance_is_a_sphere(case, name, small_structures) -> None:
    energy, covariance = ask(case, to_graph(small_structures[name], CUTOFF))
    assert bool(energy.isfinite().all())
    sphere = covariance[:, :1, :1] * torch.eye(3)
    torch.testing.assert_close(covariance, sphere, rtol=1e-12, atol=0)
    assert bool((covariance.diagonal(dim1=-2, dim2=-1) > 0).all())


def test_neighbours_come_and_go_smoothly(case) -> None:
    """Across the cutoff Σ is continuous, and so is its slope."""
    places = [[0, 0, 0], [1.1, 0.3, 0], [0.2, 1.3, 0.5]]

    def covariance(distance: float) -> Tensor:
        direction = np.array([0.6, 0.0, 0.8])
        atoms = Atoms("OCHC", positions=[*places, distance * direction])
        energy, forces = ask(case, to_graph(atoms, CUTOFF))
        return torch.cat([forces[0].flatten(), energy])

    step = 1e-3
    far, edge, near = (covariance(CUTOFF + k * step) for k in (1, 0, -1))
    nearer = covariance(CUTOFF - 0.5)
    # A jump of the slope would be seen as a part of the mean slope over half an ångström.
    change = float((nearer - edge).abs().max())
    assert change > 1e-4
    assert float((far - 2 * edge + near).abs().max()) < 0.03 * step * change / 0.5


@pytest.mark.parametrize(
    ("name", "covariance"),
    [(name, "equivariant") for name in SMALL]
    + [("schnet", other) for other in ("isotropic", *FRAMED)],
)
def test_every_weight_that_judges_learns(name, covariance, make_samples) -> None:
    """None is cut off from the likelihood; invariants are read alike in all models."""
    case = make(name, MeanVariance(covariance=covariance))
    samples = make_samples()
    graph, targets = collate([s.graph for s in samples]), [s.targets for s in samples]
    importance = torch.ones(len(samples), dtype=torch.float64)
    _, gradients = loss_gradients(
        case.potential, NLL, case.weights, graph, collate_targets(targets), importance
    )
    for prefix in case.potential.head.judging():
        judges = {n: g for n, g in gradients.items() if n.startswith(f"head.{prefix}.")}
        assert judges
        assert all(float(gradient.abs().max()) > 1e-8 for gradient in judges.values())


def test_fresh_judges_know_nothing_and_learn_all_the_same(small_structures) -> None:
    """σ is the scale for each atom; what ends in zeros has a slope there."""
    potential = make("mace").potential
    weights = potential.init(0, torch.float64)
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    energy, covariance = ask(Case(potential, weights), graph)
    atoms = graph.numbers.shape[0]
    assert float(energy) == pytest.approx(atoms * 1.7**2, rel=1e-5)
    unit = 1.7**2 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(covariance, unit.expand_as(covariance), rtol=1e-5, atol=1e-12)
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    output = potential(leaves, graph, differentiable=True)
    score = output.forces.score(output.forces.mean.detach() + 1, "nll").sum()
    (slope,) = torch.autograd.grad(score, leaves["head.covariance.edge"])
    assert float(slope.abs().max()) > 1e-6


@pytest.mark.parametrize("features", ["joint", "detached"])
def test_detached_variances_do_not_teach_the_model(features, small_structures) -> None:
    case = make("mace", MeanVariance(features=features))
    leaves = {name: value.clone().requires_grad_() for name, value in case.weights.items()}
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    output = case.potential(leaves, graph, differentiable=True)
    judged = output.energy.variance.log().sum() + output.forces.variance.square().sum()
    gradients = torch.autograd.grad(judged, list(leaves.values()), allow_unused=True)
    reached = {n for n, g in zip(leaves, gradients, strict=True) if g is not None and g.any()}
    judges = {n for n in leaves if n.startswith(("head.variance.", "head.covariance."))}
    assert judges <= reached
    assert ("model.embedding" in reached) == (features == "joint")
    assert not any(name.startswith("head.layer") for name in reached)


def test_energies_and_forces_are_the_scalar_heads_to_the_bit(case, small_structures) -> None:
    """Whatever the weights that judge: they can be fitted afterwards."""
    scalar = replace(case.potential, head=Scalar())
    weights = {
        name: value
        for name, value in case.weights.items()
        if not name.startswith(("head.variance.", "head.covariance."))
    }
    assert weights.keys() == scalar.init(0, torch.float64).keys()
    graph = collate([to_graph(atoms, CUTOFF) for atoms in small_structures.values()])
    plain, judged = (
        scalar(weights, graph, stress=True),
        case.potential(case.weights, graph, stress=True),
    )
    for quantity in ("energy", "forces", "stress"):
        one, other = getattr(plain, quantity).mean, getattr(judged, quantity).mean
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_fresh_weights_of_the_mean_are_the_scalar_heads() -> None:
    judged = make("mace").potential
    plain = replace(judged, head=Scalar()).init(3, torch.float64)
    fresh = judged.init(3, torch.float64)
    assert all(torch.equal(fresh[name], value) for name, value in plain.items())


def replicas(cell: Atoms) -> tuple[np.ndarray, Graph]:
    """Logarithms of the atoms of a cell and its multiples, and all of them as one batch."""
    copies = [cell.repeat(times) for times in ((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2))]
    graph = collate([to_graph(atoms, CUTOFF) for atoms in copies])
    return np.log([len(atoms) for atoms in copies]), graph


def test_noise_of_energies_grows_as_the_root_of_atoms(case, small_structures) -> None:
    sizes, graph = replicas(small_structures["skewed_cell"])
    energy, forces = ask(case, graph)
    slope = np.polyfit(sizes, energy.sqrt().log().numpy(), 1)[0]
    assert slope == pytest.approx(0.5, abs=0.02)
    parts = forces.split(graph.atom_counts.tolist())
    for part in parts[1:]:  # that of an atom does not change
        expected = parts[0].repeat(part.shape[0] // 3, 1, 1)
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-12)


def test_spread_of_members_grows_with_the_atoms(case, small_structures) -> None:
    """Copies of a cell err together, so what members disagree on is N times as large."""
    sizes, graph = replicas(small_structures["skewed_cell"])
    members = [make(case.potential.model.name, seed=seed).weights for seed in range(5)]
    moments = mix(case.potential(stack(members), graph, forces=False).energy)
    slope = np.polyfit(sizes, moments.epistemic.sqrt().log().numpy(), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.02)
    slope = np.polyfit(sizes, moments.aleatoric.sqrt().log().numpy(), 1)[0]
    assert slope == pytest.approx(0.5, abs=0.02)
