"""Predictions beside labels: the numbers that figures are made from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.constraints import FixAtoms

from surefoot.blocks.reference import Baseline
from surefoot.data.convert import Sample, to_samples
from surefoot.data.read import Frame
from surefoot.evaluate.multivariate import mahalanobis_squares
from surefoot.heads.categorical import Categorical
from surefoot.heads.histogram import ErrorHistograms
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.differences import compare_differences
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.histograms import compare_histograms
from surefoot.posteriors.judge import (
    DRAWS,
    Judged,
    compare,
    compare_atoms,
    compare_structures,
    compare_vectors,
    find_common_errors,
    predict_samples,
)
from surefoot.posteriors.points import points_of
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Predictor, build_predictor, with_gate
from surefoot.potential import Potential

CUTOFF = 3.0
POTENTIAL = Potential(
    model=Schnet(cutoff=CUTOFF, features=6, interactions=1, gaussians=6),
    head=Scalar(),
    baseline=Baseline(elements=(1, 6, 8), energies=(-13.0, -7.0, -3.0), scale=1.0, neighbors=5.0),
)
ERRORS = torch.linspace(0.01, 2.0, 40, dtype=torch.float64)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Rattled molecules with labels near the prediction of nobody; one atom is fixed."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(24):
        atoms = molecule(("H2O", "CH3OH", "C2H6")[number % 3])
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        if number == 1:
            atoms.set_constraint(FixAtoms([0]))
        labels = {"energy": -30.0 + rng.normal(), "forces": rng.normal(size=(len(atoms), 3))}
        if number == 2:
            labels.pop("forces")
        frames.append(
            Frame(
                atoms=atoms,
                group=f"g{number // 4}",
                config_type="c",
                file="f",
                index=number,
                **labels,
            )
        )
    return to_samples(frames, CUTOFF)


def judged_by(head, samples: list[Sample]) -> tuple[Predictor, Judged]:
    potential = replace(POTENTIAL, head=head)
    weights = potential.init(0, torch.float64)
    predictor = build_predictor(potential, Single(weights), Calibration(), {})
    return predictor, predict_samples(predictor, samples)


def ensemble(count: int, samples: list[Sample]) -> Judged:
    members = Ensemble(POTENTIAL.init_members(0, count, torch.float64))
    predictor = build_predictor(POTENTIAL, members, Calibration(), {})
    aside = np.arange(len(samples)) % 2 == 0
    return predict_samples(with_gate(predictor, samples, aside), samples)


def test_strata_divide_the_points(samples) -> None:
    judged = ensemble(4, samples)
    energy, forces = compare(judged, samples)
    assert sorted(set(energy.strata["atoms"])) == ["   2 – 3", "   4 – 7", "   8 – 15"]
    assert set(forces.strata) == {"element", "atoms", "|force|"}
    counts = {z: int(np.sum(forces.strata["element"] == z)) for z in ("1", "6", "8")}
    chosen = judged.counted_atoms
    numbers = np.concatenate([sample.graph.numbers.numpy() for sample in samples])[chosen]
    assert counts == {str(z): 3 * int(np.sum(numbers == z)) for z in (1, 6, 8)}
    assert len(numbers) == 8 * (3 + 6 + 8) - 1 - 8  # a fixed atom, a frame without forces
    lengths = np.linalg.norm(judged.targets.forces.numpy()[chosen], axis=1)
    small = np.repeat(lengths < 0.5, 3)
    assert np.array_equal(forces.strata["|force|"] == "0 – 0.5 eV/Å", small)


def test_errors_and_scores_of_structures(samples) -> None:
    judged = ensemble(4, samples)
    assert find_common_errors(samples[:8], samples[8:]) == "forces"
    found = compare_structures(judged, samples, "forces")
    assert found.counted.sum() == len(samples) - 1
    number = 5
    place = number - 1  # one frame before it has no forces
    atoms = judged.graph_of_atom == number
    prediction = judged.prediction
    assert prediction.forces is not None
    residuals = (judged.targets.forces - prediction.forces.mean).numpy()[atoms]
    assert found.errors[place] == pytest.approx(1000 * np.sqrt(np.mean(residuals**2)))
    trace = prediction.forces.total.diagonal(dim1=-2, dim2=-1).sum(-1).numpy()[atoms]
    assert found.scores["force σ, worst atom"][place] == pytest.approx(np.sqrt(trace.max()))
    assert found.scores["force σ, rms of atoms"][place] == pytest.approx(np.sqrt(trace.mean()))
    assert found.scores["ood"][place] == float(prediction.ood[number])
    mean = float(prediction.energy.mean[number])
    assert found.scores["predicted energy per atom"][place] == pytest.approx(mean / 8)


def test_draws_of_energies_are_residuals_too(samples) -> None:
    energy = compare(ensemble(4, samples), samples)[0]
    assert energy.draws is not None
    assert energy.draws.shape == (4, len(samples))
    assert np.allclose(energy.draws.mean(0), energy.residuals)
    assert np.allclose(energy.draws.std(0, ddof=1), energy.std)
    assert compare(judged_by(Scalar(), samples)[1], samples)[0].draws is None


def test_without_forces_the_error_is_that_of_the_energy(samples) -> None:
    bare = [
        replace(s, targets=replace(s.targets, has_forces=torch.tensor([False]))) for s in samples
    ]
    _, judged = judged_by(Scalar(), bare)
    found = compare_structures(judged, bare, "energy")
    off = (judged.targets.energy - judged.prediction.energy.mean).abs().numpy()
    assert np.allclose(found.errors, 1000 * off / judged.sizes)
    assert list(found.scores) == ["predicted energy per atom"]
    # One kind of error for structures that are put in one order.
    for one, other in ((samples, bare), (bare, samples), (bare, bare)):
        assert find_common_errors(one, other) == "energy"
    nothing = [
        replace(s, targets=replace(s.targets, has_energy=torch.tensor([False]))) for s in bare
    ]
    assert find_common_errors(samples, nothing) is None


def test_stress_of_a_molecule_is_no_quantity(samples) -> None:
    """A label of something without a volume; of crystals six components count."""
    given = torch.tensor([True])
    few = [replace(s, targets=replace(s.targets, has_stress=given)) for s in samples[:3]]
    judged = ensemble(4, few)
    assert [quantity.name for quantity in compare(judged, few)] == ["energy", "forces"]
    assert "stress" not in points_of(judged)
    atoms = molecule("H2O")
    atoms.set_cell(3.5 * np.eye(3))
    atoms.pbc = True
    whole = Frame(
        atoms=atoms, energy=-14.0, forces=None, stress=0.01 * np.eye(3), group="g",
        config_type="c", file="f", index=0,
    )  # fmt: skip
    both = [*few, *to_samples([whole], CUTOFF)]
    judged = ensemble(4, both)
    stress = compare(judged, both)[-1]
    points = points_of(judged)["stress"]
    assert stress.name == "stress"
    assert len(stress.residuals) == len(points.residuals) == 6
    assert np.allclose(stress.residuals, 1000 * points.residuals)
    assert np.allclose(stress.std, 1000 * points.std)
    assert points.frame.tolist() == [3] * 6


def test_covariances_of_a_head_are_compared_whole(samples) -> None:
    _, judged = judged_by(MeanVariance(width=4), samples)
    found = compare_vectors(judged, samples)
    assert found is not None
    assert len(found.residuals) == judged.counted_atoms.sum()
    forces = judged.prediction.forces
    assert forces is not None
    first = (judged.targets.forces - forces.mean)[0].numpy()
    expected = first @ np.linalg.inv(forces.total[0].numpy()) @ first
    squares = mahalanobis_squares(found.residuals, found.covariance)
    assert squares[0] == pytest.approx(expected, rel=1e-9)


def test_the_spread_of_few_draws_is_no_covariance(samples) -> None:
    assert compare_vectors(ensemble(DRAWS - 1, samples), samples) is None
    assert compare_vectors(ensemble(DRAWS, samples), samples) is not None
    assert compare_vectors(judged_by(Scalar(), samples)[1], samples) is None


def test_atoms_are_ranked_by_the_length_of_their_error(samples) -> None:
    """Without fixed atoms, and with the scores that the potential has."""
    judged = ensemble(4, samples)
    found = compare_atoms(judged, samples)
    assert found is not None
    assert found.scores.keys() == {"force σ", "ood", "predicted force"}
    chosen, forces = judged.counted_atoms, judged.prediction.forces
    assert forces is not None
    assert forces.total is not None
    assert len(found.errors) == len(found.groups) == chosen.sum() < len(chosen)
    off = (judged.targets.forces - forces.mean)[torch.tensor(chosen)].norm(dim=1)
    np.testing.assert_allclose(found.errors, 1000 * off)
    last = np.flatnonzero(chosen)[-1]
    sigma = forces.total[last].trace().sqrt()
    assert found.scores["force σ"][-1] == pytest.approx(float(sigma))
    alone = compare_atoms(judged_by(Scalar(), samples)[1], samples)
    assert alone is not None
    assert alone.scores.keys() == {"predicted force"}


def test_differences_of_frames_know_what_errors_they_share(samples) -> None:
    """Consecutive frames of a group and a composition; none where nothing tells their error."""
    paired = [replace(s, group=f"{s.group[:1]}{n % 3}") for n, s in enumerate(samples)]
    judged = ensemble(4, paired)
    found = compare_differences(judged, paired)
    assert found is not None
    assert len(found.residuals) == len(samples) - 3
    energy, draws = judged.prediction.energy, judged.prediction.energy_draws
    assert draws is not None
    gap = (draws[:, 3] - draws[:, 0]).numpy()
    labels = (judged.targets.energy[3] - judged.targets.energy[0]).item()
    assert found.residuals[0] == pytest.approx(1000 * (labels - gap.mean()))
    assert found.std[0] == pytest.approx(1000 * gap.std(ddof=1))
    one, other = (1000 * energy.total.sqrt()[[0, 3]]).tolist()
    assert found.independent[0] == pytest.approx(np.hypot(one, other))
    assert found.correlated[0] == pytest.approx(abs(one - other))
    assert compare_differences(judged_by(Scalar(), paired)[1], paired) is None
    apart = [replace(s, group=str(n)) for n, s in enumerate(samples)]
    assert compare_differences(ensemble(4, apart), apart) is None


def test_labels_in_histograms(samples) -> None:
    head = ErrorHistograms(system_bins=16, atom_bins=12, width=4).measure(
        ERRORS * (-1) ** torch.arange(40), torch.full((40,), 6), ERRORS, 1.0
    )
    _, judged = judged_by(head, samples)
    energy, force = compare_histograms(judged, samples)
    assert (energy.name, energy.unit) == ("energy", "eV")
    assert (force.name, force.unit) == ("force error", "eV/Å")
    assert len(energy.pit) == len(samples)
    assert len(force.pit) == judged.counted_atoms.sum()
    bins, targets = judged.prediction.energy_bins, judged.targets.energy
    assert bins is not None
    assert np.allclose(energy.pit, bins.cdf(targets).numpy())
    assert np.allclose(energy.nll, -bins.log_prob(targets).numpy())
    assert np.allclose(energy.crps, bins.crps(targets).numpy())
    assert np.allclose(energy.errors, (targets - bins.mean).numpy())
    assert np.allclose(energy.beyond, bins.probabilities[:, -1].numpy())
    ends = bins.shift + bins.scale * bins.bins.edges[-1]
    assert np.array_equal(energy.in_last, (targets > ends).numpy())
    assert set(energy.scores) == {"standard deviation", "s_H", "relative entropy"}
    forces = judged.prediction.forces
    assert forces is not None
    errors = torch.linalg.vector_norm(judged.targets.forces - forces.mean, dim=-1)
    expected = judged.prediction.error_bins.cdf(errors).numpy()[judged.counted_atoms]
    assert np.allclose(force.pit, expected)
    assert np.allclose(force.errors, errors.numpy()[judged.counted_atoms])
    assert {"mean", "95 % quantile"} < set(force.scores)
    assert compare_histograms(judged_by(Scalar(), samples)[1], samples) == []


def test_labels_in_histograms_of_components(samples) -> None:
    """Three of each atom, along the axes of its own, with their groups."""
    sizes = torch.tensor([len(sample.graph.numbers) for sample in samples])
    energies = -5.0 * sizes + torch.linspace(-1, 1, len(samples), dtype=torch.float64)
    head = Categorical(bins=24, width=8, forces="direct_frame")
    _, judged = judged_by(head.measure(energies, sizes, 4 * ERRORS - 4, 1.0), samples)
    energy, force = compare_histograms(judged, samples)
    assert (energy.name, force.name, force.unit) == ("energy", "force component", "eV/Å")
    chosen = judged.counted_atoms
    assert len(force.pit) == len(force.groups) == 3 * chosen.sum()
    bins = judged.prediction.force_bins
    assert bins is not None
    assert bins.axes is not None
    turned = (bins.axes @ judged.targets.forces.unsqueeze(-1)).squeeze(-1)
    assert np.allclose(force.errors, (turned - bins.mean)[chosen].reshape(-1).numpy())
    assert force.groups[:3].tolist() == [samples[0].group] * 3
    assert force.beyond is None
