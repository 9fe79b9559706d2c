"""Laplace approximations against Bayesian regression done in another way, and what they promise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import Sample, to_graph
from surefoot.graph import collate
from surefoot.heads import HEADS, Head
from surefoot.heads.categorical import Categorical
from surefoot.heads.histogram import ErrorHistograms
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.heads.sphere import Sphere
from surefoot.models.mace import Mace
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.evidence import Rows, find_scales, log_evidence
from surefoot.posteriors.laplace import LaplaceSettings, fit_diagonal, fit_last_layer, invert
from surefoot.posteriors.last_layer import LastLayer, balanced, flatten_out, out_leaves, to_heads
from surefoot.posteriors.predictor import Predictor, build_predictor, compiled
from surefoot.potential import Potential
from surefoot.prediction import Prediction
from surefoot.train.fit import TrainSettings
from surefoot.train.loss import LossSettings

CUTOFF = 4.0
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=0.7, neighbors=6.0)
SCHNET = Schnet(cutoff=CUTOFF, features=6, interactions=1, gaussians=6)
MACE = Mace(
    cutoff=CUTOFF, irreps="8x0e + 8x1o", max_ell=2, correlation=2, interactions=2, radial=(8,)
)
POTENTIALS = {
    "schnet": Potential(model=SCHNET, head=Scalar(), baseline=BASELINE),
    "mace": Potential(
        model=MACE,
        head=Scalar(hidden=4, activation="silu", layers="last", scaling="normal"),
        baseline=BASELINE,
    ),
    "mean_variance": Potential(model=SCHNET, head=MeanVariance(width=4), baseline=BASELINE),
    "sphere": Potential(model=SCHNET, head=Sphere(hidden=4, offset=-3.0), baseline=BASELINE),
}
SETTINGS = LaplaceSettings(energy_noise=0.3, forces_noise=0.5, prior=2.0, draws=4)
NOISE = {"energy": 0.3, "forces": 0.5}
LOSS = LossSettings()
every_potential = pytest.mark.parametrize("name", POTENTIALS)


def weights_of(potential: Potential) -> Weights:
    return potential.init(3, torch.float64)


def moved(weights: Weights, theta: Tensor) -> Weights:
    """The same weights with other last linear maps."""
    heads = to_heads(weights, theta[None])
    return weights | {name: value[0] for name, value in heads.items()}


def design(
    potential: Potential, weights: Weights, samples: list[Sample]
) -> tuple[Float[np.ndarray, "rows weights"], Float[np.ndarray, "rows weights"]]:
    """Derivatives of all energies and all forces, one weight at a time, one frame at a time."""
    theta = flatten_out(potential.head, weights)
    energies, forces = [], []
    for sample in samples:
        zero = potential(moved(weights, 0 * theta), sample.graph)
        columns = []
        for unit in torch.eye(len(theta), dtype=torch.float64):
            one = potential(moved(weights, unit), sample.graph)
            columns.append(
                (
                    (one.energy.mean - zero.energy.mean).detach(),
                    (one.forces.mean - zero.forces.mean).detach().reshape(-1),
                )
            )
        energies.append(torch.stack([column[0] for column in columns], dim=1))
        forces.append(torch.stack([column[1] for column in columns], dim=1))
    return torch.cat(energies).numpy(), torch.cat(forces).numpy()


def regress(energies: np.ndarray, forces: np.ndarray, prior: float = 2.0) -> np.ndarray:
    """Posterior covariance by the singular values of all rows, the prior's included."""
    size = energies.shape[1]
    rows = np.concatenate(
        [energies / NOISE["energy"], forces / NOISE["forces"], np.sqrt(prior) * np.eye(size)]
    )
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    return (right.T / values**2) @ right


@pytest.fixture
def samples(make_samples) -> list[Sample]:
    return make_samples(names=("ethanol", "skewed_cell"), copies=2, cutoff=CUTOFF)


def predictor_of(potential: Potential, posterior: LastLayer, draws: int | None = None) -> Predictor:
    return build_predictor(potential, posterior, Calibration(), {}, draws=draws)


# --- exact on what is linear ----------------------------------------------------------------


@every_potential
def test_last_layer_is_bayesian_regression(name, samples) -> None:
    """Rows of energies and of forces: variances of energies, of differences, 3×3 of forces."""
    potential = POTENTIALS[name]
    weights = weights_of(potential)
    posterior = fit_last_layer(potential, weights, samples, LOSS, SETTINGS)
    energies, forces = design(potential, weights, samples)
    covariance = regress(energies, forces)
    exact = predictor_of(potential, posterior, draws=len(covariance) + 1)
    found = exact(collate([sample.graph for sample in samples]))
    expected = energies @ covariance @ energies.T
    assert found.energy.epistemic is not None
    np.testing.assert_allclose(found.energy.epistemic, expected.diagonal(), rtol=1e-8)
    assert found.energy_factor is not None
    product = (found.energy_factor @ found.energy_factor.T).numpy()
    np.testing.assert_allclose(product, expected, rtol=1e-8, atol=1e-8 * expected.max())
    assert found.forces is not None
    assert found.forces.epistemic is not None
    by_atom = forces.reshape(-1, 3, len(covariance))
    expected = np.einsum("aik,kl,ajl->aij", by_atom, covariance, by_atom)
    np.testing.assert_allclose(
        found.forces.epistemic, expected, rtol=1e-8, atol=1e-8 * expected.max()
    )


def test_without_force_rows_other_covariances_come_out(samples) -> None:
    """Each kind of label counts, and those that the loss leaves out do not."""
    potential = POTENTIALS["schnet"]
    weights = weights_of(potential)
    energies, forces = design(potential, weights, samples)
    only = fit_last_layer(potential, weights, samples, LossSettings(forces=0.0), SETTINGS)
    expected = regress(energies, forces[:0])
    np.testing.assert_allclose(only.factor @ only.factor.T, expected, rtol=1e-8, atol=1e-12)
    both = fit_last_layer(potential, weights, samples, LOSS, SETTINGS)
    assert float((both.factor @ both.factor.T).trace()) < 0.99 * expected.trace()
    fixed = [
        replace(s, targets=replace(s.targets, fixed=torch.ones_like(s.targets.fixed)))
        for s in samples
    ]
    alone = fit_last_layer(potential, weights, fixed, LOSS, SETTINGS)
    np.testing.assert_allclose(alone.factor @ alone.factor.T, expected, rtol=1e-8, atol=1e-12)


@every_potential
def test_the_mean_is_the_point(name, samples) -> None:
    potential = POTENTIALS[name]
    weights = weights_of(potential)
    posterior = fit_last_layer(potential, weights, samples, LOSS, SETTINGS)
    graph = collate([sample.graph for sample in samples])
    point = potential(weights, graph)
    for draws in (1, 2, None):
        found = predictor_of(potential, posterior, draws)(graph)
        assert found.forces is not None
        torch.testing.assert_close(
            found.energy.mean, point.energy.mean.detach(), rtol=1e-12, atol=0
        )
        torch.testing.assert_close(found.forces.mean, point.forces.mean.detach().double())
        assert found.energy.epistemic is not None
        assert (found.forces.epistemic is None) == (draws == 1)


def test_few_draws_have_the_right_mean_covariance() -> None:
    """Over many seeds; and the balance of the draws is exact in each."""
    generator = torch.Generator().manual_seed(0)
    point = weights_of(POTENTIALS["schnet"])
    size = len(flatten_out(Scalar(), point))
    factor = torch.randn((size, size), generator=generator, dtype=torch.float64)
    posterior = LastLayer(point=point, factor=factor, natural=3)
    theta, total = flatten_out(Scalar(), point), torch.zeros_like(factor)
    for _ in range(3000):
        drawn = posterior.draws(generator, None)
        rows = torch.cat([drawn[name].reshape(3, -1) for name in out_leaves(point)], dim=1) - theta
        assert float(rows.mean(0).abs().max()) < 1e-12
        total += rows.T @ rows / 2 / 3000
    expected = factor @ factor.T
    assert float((total - expected).norm() / expected.norm()) < 0.05


@pytest.mark.parametrize("count", [1, 2, 7])
def test_balanced_numbers_are_orthonormal_and_sum_to_nothing(count) -> None:
    basis = balanced(count)
    assert basis.shape == (count, count - 1)
    torch.testing.assert_close(basis.T @ basis, torch.eye(count - 1, dtype=torch.float64))
    assert float(basis.sum(0).abs().sum()) < 1e-12


# --- what the variances have to obey --------------------------------------------------------


def _predict(name: str, samples: list[Sample], images: list[Atoms], draws: int) -> list[Prediction]:
    potential = POTENTIALS[name]
    posterior = fit_last_layer(potential, weights_of(potential), samples, LOSS, SETTINGS)
    predictor = predictor_of(potential, posterior, draws)
    return [predictor(to_graph(atoms, CUTOFF)) for atoms in images]


@pytest.mark.parametrize("name", ["schnet", "mace"])
def test_sigma_of_copies_of_a_cell_grows_with_their_number(name, samples) -> None:
    cell = bulk("C", cubic=True)
    cell.rattle(0.05, seed=0)
    copies = (1, 2, 4, 8)
    found = _predict(name, samples, [cell * (n, 1, 1) for n in copies], 1)
    sigma = [float(p.energy.total.sqrt()) for p in found if p.energy.total is not None]
    slope = np.polyfit(np.log(copies), np.log(sigma), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", ["schnet", "mace"])
def test_covariances_of_forces_turn_with_the_structure(name, samples) -> None:
    atoms = molecule("CH3CH2OH")
    turned = atoms.copy()
    matrix = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    turned.positions = atoms.positions @ matrix.T
    before, after = _predict(name, samples, [atoms, turned], 3)
    expected = matrix @ before.forces.total.numpy() @ matrix.T
    np.testing.assert_allclose(after.forces.total, expected, atol=1e-8 * np.abs(expected).max())
    assert float(after.energy.total) == pytest.approx(float(before.energy.total), rel=1e-8)


# --- noise and prior ------------------------------------------------------------------------


def linear_problem(rng: np.random.Generator, rows: int = 120, size: int = 5) -> dict[str, tuple]:
    """Design, labels and true noise of two quantities, of weights from a prior of variance 1/4."""
    theta = 0.5 * rng.normal(size=size)
    problem = {}
    for name, noise in (("energy", 0.2), ("forces", 0.05)):
        design = rng.normal(size=(rows, size))
        problem[name] = (design, design @ theta + noise * rng.normal(size=rows), noise)
    return problem


def to_rows(problem: dict[str, tuple], theta: np.ndarray) -> dict[str, Rows]:
    return {
        name: Rows(
            products=torch.tensor(design.T @ design),
            squares=float(np.square(labels - design @ theta).sum()),
            count=len(labels),
        )
        for name, (design, labels, _) in problem.items()
    }


def test_evidence_is_the_density_of_the_labels(rng) -> None:
    """At the maximum of the posterior: ln N(y; 0, noise + A Aᵀ / δ), the weights integrated out."""
    problem, prior = linear_problem(rng, rows=12), 3.0
    design = np.concatenate([part[0] for part in problem.values()])
    labels = np.concatenate([part[1] for part in problem.values()])
    variance = np.concatenate([np.full(12, part[2] ** 2) for part in problem.values()])
    precision = design.T @ (design / variance[:, None]) + prior * np.eye(5)
    theta = np.linalg.solve(precision, design.T @ (labels / variance))
    noise = {n: torch.tensor(part[2] ** 2, dtype=torch.float64) for n, part in problem.items()}
    found = log_evidence(
        to_rows(problem, theta), float(theta @ theta), noise, torch.tensor(prior).double()
    )
    whole = np.diag(variance) + design @ design.T / prior
    expected = -0.5 * (
        labels @ np.linalg.solve(whole, labels)
        + np.linalg.slogdet(whole)[1]
        + 24 * np.log(2 * np.pi)
    )
    assert float(found) == pytest.approx(expected, rel=1e-10)


def test_scales_are_found(rng) -> None:
    problem = linear_problem(rng, rows=2000)
    design, labels, _ = problem["forces"]
    theta = np.linalg.lstsq(design, labels, rcond=None)[0]
    rows = to_rows(problem, theta)
    norm = float(theta @ theta)
    scales = find_scales(rows, norm, dict.fromkeys(rows), None)
    for name, (_, _, noise) in problem.items():
        assert scales.noise[name] ** 0.5 == pytest.approx(noise, rel=0.05)
    assert scales.prior == pytest.approx(5 / norm, rel=0.01)  # all five weights are determined
    given = find_scales(rows, norm, {"energy": 0.7, "forces": None}, 11.0)
    assert (given.noise["energy"], given.prior) == (pytest.approx(0.7), 11.0)
    assert given.noise["forces"] == pytest.approx(scales.noise["forces"], rel=1e-3)


def test_noise_that_can_not_be_found_is_refused(rng) -> None:
    rows = {"energy": Rows(products=torch.eye(2).double(), squares=0.0, count=5)}
    with pytest.raises(ValueError, match=r"residuals of energy are zero.*energy_noise"):
        find_scales(rows, 1.0, {"energy": None}, None)
    with pytest.raises(ValueError, match="no label"):
        find_scales({}, 1.0, {}, None)


def test_precision_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not positive definite.*larger `posterior: {prior"):
        invert(torch.tensor([[1.0, 1.0], [1.0, 1.0 - 1e-6]], dtype=torch.float64))


# --- all weights ----------------------------------------------------------------------------


def test_diagonal_is_the_sum_of_squared_slopes(samples) -> None:
    """Against differences of energies and forces with each weight moved a little."""
    potential = Potential(
        model=Schnet(cutoff=CUTOFF, features=2, interactions=1, gaussians=3),
        head=Scalar(hidden=2),
        baseline=BASELINE,
    )
    weights, few = weights_of(potential), samples[:2]
    found = fit_diagonal(
        potential, weights, few, LOSS, SETTINGS.model_copy(update={"probes": 0, "weights": "all"})
    )
    step = 1e-5
    for name, value in weights.items():
        expected = torch.full_like(value, 2.0)
        for place in range(value.numel()):
            outputs = []
            for sign in (1, -1):
                shifted = value.clone()
                shifted.view(-1)[place] += sign * step
                for sample in few:
                    output = potential(weights | {name: shifted}, sample.graph)
                    outputs += [
                        output.energy.mean.detach() / NOISE["energy"],
                        output.forces.mean.detach().reshape(-1) / NOISE["forces"],
                    ]
            half = len(outputs) // 2
            slope = (torch.cat(outputs[:half]) - torch.cat(outputs[half:])) / (2 * step)
            expected.view(-1)[place] += slope.square().sum()
        torch.testing.assert_close(1 / found.variance[name], expected, rtol=1e-5, atol=1e-6)


def test_random_signs_give_the_same_on_average(samples) -> None:
    potential = POTENTIALS["schnet"]
    weights = weights_of(potential)
    exact, probed = (
        fit_diagonal(
            potential, weights, samples, LOSS, SETTINGS.model_copy(update={"probes": probes})
        )
        for probes in (0, 200)
    )
    ratios = torch.cat(
        [(probed.variance[name] / exact.variance[name]).reshape(-1) for name in exact.mean]
    )
    assert float(ratios.log().mean().abs()) < 0.05
    assert float(ratios.log().abs().max()) < 1.0


def test_weights_that_judge_do_not_vary(samples) -> None:
    potential = POTENTIALS["mean_variance"]
    weights = weights_of(potential)
    found = fit_diagonal(potential, weights, samples[:1], LOSS, SETTINGS)
    assert {name.split(".")[1] for name in found.fixed} == {"variance", "covariance"}
    assert found.mean.keys() | found.fixed.keys() == weights.keys()


# --- which heads ----------------------------------------------------------------------------


def test_heads_that_are_linear_in_their_last_weights(samples) -> None:
    """Every head either has a last layer or is refused with what to do."""
    linear: dict[str, Head] = {
        "scalar": Scalar(),
        "mean_variance": MeanVariance(),
        "histogram": ErrorHistograms().measure(
            torch.linspace(-1, 1, 100), torch.full((100,), 9), torch.linspace(0.01, 1, 100), 0.7
        ),
        "sphere": Sphere(),
    }
    assert linear.keys() | {"categorical"} == HEADS.keys()
    for head in linear.values():
        potential = replace(POTENTIALS["schnet"], head=head)
        weights, graph = potential.init(0, torch.float64), samples[0].graph
        theta = flatten_out(head, weights)
        zero, one, two = (
            potential(moved(weights, factor * theta), graph) for factor in (0.0, 1.0, 2.0)
        )
        for name in ("energy", "forces"):
            at_zero, at_one, at_two = (getattr(p, name).mean.detach() for p in (zero, one, two))
            assert float((at_one - at_zero).abs().max()) > 0.01
            torch.testing.assert_close(at_two - at_one, at_one - at_zero, rtol=1e-9, atol=1e-10)
    other = replace(POTENTIALS["schnet"], head=Categorical())
    with pytest.raises(ValueError, match=r"categorical head is not linear.*weights: all"):
        fit_last_layer(other, other.init(0, torch.float64), samples, LOSS, SETTINGS)


def test_what_has_no_last_layer_is_refused_before_training() -> None:
    for head, words in ((Categorical(), "not linear"), (Sphere(forces="direct"), "forces: direct")):
        with pytest.raises(ValueError, match=rf"{words}.*weights: all"):
            SETTINGS.fitting(10, TrainSettings(), LOSS, head)
        every = SETTINGS.model_copy(update={"weights": "all"})
        assert every.fitting(10, TrainSettings(), LOSS, head).note is None


def test_draws_hold_the_other_weights(samples) -> None:
    """Judging weights and hidden layers are those of the point in every draw."""
    potential = POTENTIALS["mean_variance"]
    weights = weights_of(potential)
    posterior = fit_last_layer(potential, weights, samples, LOSS, SETTINGS)
    drawn = posterior.draws(torch.Generator().manual_seed(0), None)
    varied = set(out_leaves(weights))
    for name, value in stack([weights] * 4).items():
        expected = value if name.startswith("head.") else weights[name]
        assert torch.equal(drawn[name], expected) == (name not in varied)


@pytest.mark.slow
@pytest.mark.usefixtures("tracing")
def test_traced_says_the_same(samples) -> None:
    """Closed-form energies and the loop over draws are in one graph."""
    potential = POTENTIALS["schnet"]
    posterior = fit_last_layer(potential, weights_of(potential), samples, LOSS, SETTINGS)
    predictor = predictor_of(potential, posterior, 3)
    for count in (1, 3):
        graph = collate([sample.graph for sample in samples[:count]])
        one, other = predictor(graph), compiled(predictor)(graph)
        for quantity in ("energy", "forces"):
            for part in ("mean", "epistemic"):
                before, after = (getattr(getattr(p, quantity), part) for p in (one, other))
                torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(other.energy_factor, one.energy_factor)
