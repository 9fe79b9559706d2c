import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import special_ortho_group
from torch import Tensor

from surefoot.active.acquisition import (
    ACQUISITIONS,
    NOISE_ENERGY,
    NOISE_FORCES,
    NoScore,
    combine_atoms,
    score_structures,
)
from surefoot.distributions.densities import Normal, Point, VectorNormal
from surefoot.prediction import Prediction, mix
from surefoot.segments import Segments

SIZES = torch.tensor([2, 3, 1])
ATOMS = Segments(
    index=torch.repeat_interleave(torch.arange(3), SIZES), offsets=torch.tensor([0, 2, 5, 6])
)
DRAWS = 4


def whitening(generator: torch.Generator, draws: int = DRAWS) -> Tensor:
    """Matrices of positive determinant."""
    matrices = torch.randn(draws, 6, 3, 3, generator=generator, dtype=torch.float64)
    return matrices @ matrices.mT + 0.5 * torch.eye(3, dtype=torch.float64)


def predict(
    generator: torch.Generator, *, disagree: float = 1.0, noise: bool = True, draws: int = DRAWS
) -> Prediction:
    energies = disagree * torch.randn(draws, 3, generator=generator, dtype=torch.float64)
    forces = disagree * torch.randn(draws, 6, 3, generator=generator, dtype=torch.float64)
    if not noise:
        return Prediction(energy=mix(Point(energies)), forces=mix(Point(forces), vector=True))
    logs = torch.randn(1, 3, generator=generator, dtype=torch.float64).expand(draws, 3)
    root = whitening(generator, 1).expand(draws, 6, 3, 3)
    return Prediction(
        energy=mix(Normal(energies, logs + disagree * torch.arange(draws)[:, None])),
        forces=mix(VectorNormal(forces, root, -2 * torch.linalg.slogdet(root)[1]), vector=True),
    )


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("name", ["bald_energy", "bald_forces"])
def test_bald_is_positive_and_zero_where_all_agree(
    generator: torch.Generator, name: str, noise: bool
) -> None:
    score = ACQUISITIONS[name].score
    assert (score(predict(generator, noise=noise), ATOMS) > 1e-3).all()
    agreed = score(predict(generator, disagree=0.0, noise=noise), ATOMS)
    torch.testing.assert_close(agreed, torch.zeros_like(agreed), atol=1e-12, rtol=0)


def test_bald_of_energies_is_the_published_one(generator: torch.Generator) -> None:
    means = torch.randn(DRAWS, 3, generator=generator, dtype=torch.float64)
    variances = torch.rand(DRAWS, 3, generator=generator, dtype=torch.float64) + 0.1
    found = ACQUISITIONS["bald_energy"].score(
        Prediction(energy=mix(Normal(means, variances.log()))), ATOMS
    )
    for column in range(3):
        total = np.mean(variances[:, column].numpy()) + np.var(means[:, column].numpy(), ddof=1)
        logs = [math.log(value) for value in variances[:, column].tolist()]
        assert found[column].item() == pytest.approx(0.5 * (math.log(total) - np.mean(logs)))


def test_bald_of_forces_is_that_of_determinants(generator: torch.Generator) -> None:
    means = torch.randn(DRAWS, 6, 3, generator=generator, dtype=torch.float64)
    root = whitening(generator)
    forces = VectorNormal(means, root, -2 * torch.linalg.slogdet(root)[1])
    prediction = Prediction(energy=mix(Point(torch.zeros(2, 3))), forces=mix(forces, vector=True))
    found = ACQUISITIONS["bald_forces"].score(prediction, ATOMS)
    covariances = torch.linalg.inv(root.mT @ root).numpy()
    for atom in range(6):
        total = covariances[:, atom].mean(0) + np.cov(means[:, atom].numpy().T, ddof=1)
        logs = [np.linalg.slogdet(matrix)[1] for matrix in covariances[:, atom]]
        expected = 0.5 * (np.linalg.slogdet(total)[1] - np.mean(logs))
        assert found[atom].item() == pytest.approx(expected)


def test_draws_without_noise_are_given_one(generator: torch.Generator) -> None:
    prediction = predict(generator, noise=False)
    spread = prediction.energy.epistemic
    assert spread is not None
    found = ACQUISITIONS["bald_energy"].score(prediction, ATOMS)
    torch.testing.assert_close(found, 0.5 * torch.log1p(spread / (SIZES * NOISE_ENERGY**2)))
    assert prediction.forces is not None
    covariance = prediction.forces.epistemic
    assert covariance is not None
    values = torch.linalg.eigvalsh(covariance).clamp(min=0.0)
    expected = 0.5 * torch.log1p(values / NOISE_FORCES**2).sum(-1)
    torch.testing.assert_close(ACQUISITIONS["bald_forces"].score(prediction, ATOMS), expected)


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("name", ["bald_forces", "forces_variance", "entropy_forces"])
def test_a_turned_structure_scores_the_same(
    generator: torch.Generator, rng: np.random.Generator, name: str, noise: bool
) -> None:
    prediction = predict(generator, noise=noise)
    rotation = torch.tensor(special_ortho_group.rvs(3, random_state=rng))
    forces = prediction.forces
    assert forces is not None

    def turn(covariance: Tensor | None) -> Tensor | None:
        return None if covariance is None else rotation @ covariance @ rotation.T

    turned = replace(
        forces,
        mean=forces.mean @ rotation.T,
        aleatoric=turn(forces.aleatoric),
        epistemic=turn(forces.epistemic),
    )
    score = ACQUISITIONS[name].score
    torch.testing.assert_close(
        score(replace(prediction, forces=turned), ATOMS), score(prediction, ATOMS)
    )


@pytest.mark.parametrize("name", ["bald_energy", "bald_forces"])
def test_calibration_does_not_change_bald(generator: torch.Generator, name: str) -> None:
    prediction = predict(generator)
    assert prediction.forces is not None
    scaled = replace(
        prediction, energy=prediction.energy.scaled(3.0), forces=prediction.forces.scaled(0.2)
    )
    score = ACQUISITIONS[name].score
    torch.testing.assert_close(score(scaled, ATOMS), score(prediction, ATOMS))


def test_atoms_are_combined() -> None:
    scores = torch.tensor([1.0, 3.0, 0.5, 0.1, 0.6, 7.0])
    assert combine_atoms(scores, ATOMS, "max").tolist() == pytest.approx([3.0, 0.6, 7.0])
    assert combine_atoms(scores, ATOMS, "sum").tolist() == pytest.approx([4.0, 1.2, 7.0])
    assert combine_atoms(scores, ATOMS, "mean").tolist() == pytest.approx([2.0, 0.4, 7.0])


def test_variances_are_total(generator: torch.Generator) -> None:
    prediction = predict(generator)
    energy, forces = prediction.energy, prediction.forces
    assert forces is not None
    assert energy.total is not None
    assert forces.total is not None
    found = score_structures("energy_variance", prediction, ATOMS)
    torch.testing.assert_close(found, energy.total / SIZES**2)
    found = ACQUISITIONS["forces_variance"].score(prediction, ATOMS)
    torch.testing.assert_close(found, torch.einsum("aii->a", forces.total))
    entropy = ACQUISITIONS["entropy_energy"].score(prediction, ATOMS)
    normal = torch.distributions.Normal(0.0, energy.total.sqrt() / SIZES)
    torch.testing.assert_close(entropy, normal.entropy())
    vectors = torch.distributions.MultivariateNormal(torch.zeros(6, 3).double(), forces.total)
    torch.testing.assert_close(
        ACQUISITIONS["entropy_forces"].score(prediction, ATOMS), vectors.entropy()
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bald_energy", "several draws"),
        ("forces_variance", "no error bar"),
        ("latent_distance", "no gate"),
        ("categorical_bald", "histograms"),
    ],
)
def test_what_one_set_of_weights_can_not_say_is_a_sentence(
    generator: torch.Generator, name: str, reason: str
) -> None:
    one = predict(generator, noise=False, draws=1)
    with pytest.raises(NoScore, match=reason):
        score_structures(name, one, ATOMS)


def test_a_stated_error_is_no_noise(generator: torch.Generator) -> None:
    energies = torch.randn(DRAWS, 3, generator=generator, dtype=torch.float64)
    judged = Normal(energies, torch.zeros_like(energies), "residual")
    with pytest.raises(NoScore, match="states the whole error"):
        score_structures("bald_energy", Prediction(energy=mix(judged)), ATOMS)
