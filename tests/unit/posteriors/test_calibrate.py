"""Calibration: labels made from the members themselves, so that the right factor is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import Sample, to_samples
from surefoot.data.read import Frame
from surefoot.evaluate.mixture import mixture_factor
from surefoot.evaluate.quantiles import REST
from surefoot.evaluate.recalibrate import ensemble_factor, fit_factor
from surefoot.graph import collate, split_atoms
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.members import take_members
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibrate import FEWEST, calibrate
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import Ensemble, EnsembleSettings, unseen_frames
from surefoot.posteriors.judge import predict_samples
from surefoot.posteriors.points import pair_frames, points_of
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Predictor, build_predictor, recalibrated
from surefoot.potential import Potential

CUTOFF = 3.0
MEMBERS = 6
POTENTIAL = Potential(
    model=Schnet(cutoff=CUTOFF, features=6, interactions=1, gaussians=6),
    head=Scalar(),
    baseline=Baseline(elements=(1, 6, 8), energies=(-13.0, -7.0, -3.0), scale=1.0, neighbors=5.0),
)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Members that nobody trained."""
    ensemble = Ensemble(POTENTIAL.init_members(0, MEMBERS, torch.float64))
    return build_predictor(POTENTIAL, ensemble, Calibration(), {})


def frame(atoms: Atoms, index: int = 0, group: str = "g", **labels: object) -> Frame:
    return Frame(atoms=atoms, group=group, config_type="c", file="f", index=index, **labels)


def structures(count: int, seed: int) -> list[Atoms]:
    """Rattled molecules, every fourth a crystal."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        atoms = molecule(("H2O", "CH3OH", "CO2", "H2O")[number % 4])
        if number % 4 == 3:
            atoms.set_cell(np.diag([3.5, 3.6, 3.7]))
            atoms.pbc = True
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        images.append(atoms)
    return images


def label(predictor: Predictor, images: list[Atoms], noise: float, seed: int) -> list[Sample]:
    """Labels = mean of the members + noise times their standard deviation, in groups of 4."""
    rng = np.random.default_rng(seed)
    frames = []
    for number, atoms in enumerate(images):
        periodic = bool(atoms.pbc.all())
        (sample,) = to_samples([frame(atoms)], CUTOFF)
        found = predictor(sample.graph, stress=periodic, members=True)
        labels = {}
        for name in ("energy", "forces", "stress") if periodic else ("energy", "forces"):
            draws = getattr(found, f"{name}_draws").numpy()
            value = draws.mean(0) + noise * draws.std(0, ddof=1) * rng.normal(size=draws[0].shape)
            labels[name] = float(value[0]) if name == "energy" else value
        if periodic:
            labels["stress"] = 0.5 * (labels["stress"][0] + labels["stress"][0].T)
        frames.append(frame(atoms, number, f"g{number // 4}", **labels))
    return to_samples(frames, CUTOFF)


def leave_out(samples: list[Sample], left_out: int = 2) -> np.ndarray:
    settings = EnsembleSettings(members=MEMBERS, left_out=left_out)
    return unseen_frames([sample.group for sample in samples], settings, 0)


@pytest.fixture(scope="module")
def samples(predictor) -> list[Sample]:
    return label(predictor, structures(48, 0), 1.5, 1)


# --- the same numbers, gathered by hand -----------------------------------------------------


def fit_by_hand(
    predictor: Predictor, samples: list[Sample], unseen: np.ndarray
) -> dict[str, tuple[float, int]]:
    """Factor and number of points of each quantity, one frame at a time."""
    points = {name: [] for name in ("energy", "forces", "stress")}
    for number, sample in enumerate(samples):
        periodic = bool(sample.graph.pbc.all())
        found = predictor(sample.graph, stress=periodic, members=True)
        who = unseen[:, number]
        draws = found.energy_draws.numpy()[:, 0]
        points["energy"].append((float(sample.targets.energy), draws, who))
        for atom in range(len(sample.graph.numbers)):
            for axis in range(3):
                draws = found.forces_draws.numpy()[:, atom, axis]
                points["forces"].append((float(sample.targets.forces[atom, axis]), draws, who))
        if periodic:
            for row, column in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
                draws = found.stress_draws.numpy()[:, 0, row, column]
                target = float(sample.targets.stress[0, row, column])
                points["stress"].append((target, draws, who))
    fitted = {}
    for name, found in points.items():
        targets, draws, who = (np.array(part) for part in zip(*found, strict=True))
        fitted[name] = (fit_factor(targets, draws.T, who.T).value, len(targets))
    return fitted


@pytest.mark.parametrize("left_out", [2, 3])
def test_factors_are_those_of_the_same_numbers_by_hand(predictor, samples, left_out) -> None:
    unseen = leave_out(samples, left_out)
    calibration, factors = calibrate(predictor, samples, unseen)
    expected = fit_by_hand(predictor, samples, unseen)
    assert factors.keys() == {*expected, "difference"}
    for name, (value, points) in expected.items():
        assert getattr(calibration, name) == pytest.approx(value, rel=1e-6)
        assert factors[name].value == getattr(calibration, name)
        assert factors[name].points == points
    assert (
        calibration.source == "48 frames in 12 groups, each judged by members that had not seen it"
    )


def test_larger_errors_give_larger_factors(predictor, samples) -> None:
    """Five times the noise: five times the factor, as the members' own share is small."""
    images = structures(48, 0)
    factors = []
    for noise in (2.0, 10.0):
        noisy = label(predictor, images, noise, 2)
        factors.append(calibrate(predictor, noisy, leave_out(noisy))[0])
    assert factors[1].forces / factors[0].forces == pytest.approx(5.0, rel=0.25)
    assert factors[1].energy > 2 * factors[0].energy
    # Noise of variance 2² v about the mean of all makes c + 1/M = 2²; a new point's spread is
    # uncertain, which adds (M − 1) / (M − 3).
    expected = 2.0 * ((MEMBERS - 1) / (MEMBERS - 3)) ** 0.5
    assert factors[0].forces == pytest.approx(expected, rel=0.2)


# --- what counts and what does not ----------------------------------------------------------


def test_frames_seen_by_all_but_one_member_do_not_count(predictor, samples) -> None:
    unseen = leave_out(samples)
    spoilt = [
        replace(sample, targets=replace(sample.targets, energy=sample.targets.energy + 1e6))
        if number < 8
        else sample
        for number, sample in enumerate(samples)
    ]
    unseen[:, :4] = False
    unseen[:, 4:8] = np.arange(MEMBERS)[:, None] == 2
    calibration, factors = calibrate(predictor, spoilt, unseen)
    assert calibration.source.startswith("40 frames")
    assert factors["energy"].points == 40
    assert calibration.energy == calibrate(predictor, samples[8:], unseen[:, 8:])[0].energy


def test_points_on_which_unseen_members_agree_are_left_out(predictor) -> None:
    """Across the axis of a linear molecule all forces are zero by symmetry."""
    images = [Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7 + 0.02 * i]]) for i in range(12)]
    aligned = label(predictor, images, 1.0, 0)
    unseen = np.ones((MEMBERS, 12), bool)
    calibration, factors = calibrate(predictor, aligned, unseen)
    assert factors["forces"].points == 12 * 2
    assert np.isfinite(calibration.forces)
    assert factors["energy"].points == 12


def test_labels_that_are_absent_and_fixed_atoms_do_not_count(predictor) -> None:
    images = structures(3, 0)  # water, methanol, carbon dioxide
    labels = [{"energy": -50.0, "forces": np.ones((3, 3))}, {"energy": -80.0}, {}]
    images[0].set_constraint(FixAtoms([1]))
    few = to_samples([frame(a, **ls) for a, ls in zip(images, labels, strict=True)], CUTOFF)
    calibration, factors = calibrate(predictor, few, np.ones((MEMBERS, 3), bool))
    assert factors["energy"].points == 2
    assert factors["forces"].points == 2 * 3
    assert factors.keys() == {"energy", "forces"}
    assert calibration.stress is None
    assert calibration.difference is None  # no pair of frames


def test_stress_of_a_molecule_does_not_count(predictor) -> None:
    """A label of something without a volume, beside a crystal that has one."""
    water, _, _, crystal = structures(4, 0)
    labels = {"energy": -50.0, "stress": np.eye(3)}
    both = to_samples([frame(water, **labels), frame(crystal, **labels)], CUTOFF)
    _, factors = calibrate(predictor, both, np.ones((MEMBERS, 2), bool))
    assert factors["stress"].points == 6


@pytest.mark.parametrize("labels", [{}, {"energy": -50.0}])
def test_without_unseen_frames_or_labels_nothing_is_calibrated(predictor, labels) -> None:
    few = to_samples([frame(atoms, **labels) for atoms in structures(4, 0)], CUTOFF)
    unseen = np.full((MEMBERS, 4), not labels)
    calibration, factors = calibrate(predictor, few, unseen)
    assert calibration.source.startswith("not calibrated")
    assert factors == {}
    assert (calibration.energy, calibration.forces, calibration.stress) == (None, None, None)


def test_one_member_is_not_calibrated(samples) -> None:
    single = build_predictor(POTENTIAL, Single(POTENTIAL.init(0, torch.float64)), Calibration(), {})
    calibration, factors = calibrate(single, samples, np.ones((1, len(samples)), bool))
    assert calibration.source.startswith("not calibrated")
    assert factors == {}
    assert calibration.energy is None


# --- differences within a composition -------------------------------------------------------


def pair(samples: list[Sample]) -> np.ndarray:
    return pair_frames(samples, [one.group for one in samples])


def test_pairs_are_consecutive_frames_of_one_group_and_composition() -> None:
    water, twin = molecule("H2O"), molecule("H2O")[[1, 0, 2]]  # the same atoms in another order
    methanol = molecule("CH3OH")
    rows = [
        ("a", water, -1.0),  # 0
        ("b", water, -1.0),  # 1
        ("a", methanol, -1.0),  # 2
        ("a", twin, -1.0),  # 3: with 0
        ("b", water, None),  # 4: no label
        ("a", water, -1.0),  # 5: with 3
        ("b", water, -1.0),  # 6: with 1
    ]
    frames = [frame(atoms, i, group, energy=e) for i, (group, atoms, e) in enumerate(rows)]
    assert pair(to_samples(frames, CUTOFF)).tolist() == [[0, 3], [3, 5], [1, 6]]
    assert pair([]).shape == (0, 2)


def test_frames_in_two_states_are_no_pair() -> None:
    """Between two surfaces little of the error is shared."""
    water = molecule("H2O")
    states = [(0, 1), (0, 3), (0, 1), (1, None), (0, 3)]
    frames = [
        frame(water, index, energy=0.0, charge=charge, spin=spin)
        for index, (charge, spin) in enumerate(states)
    ]
    assert pair(to_samples(frames, CUTOFF)).tolist() == [[0, 2], [1, 4]]


def test_differences_by_hand(predictor, samples, rng) -> None:
    """A difference is unseen by those who saw neither frame; here any three leave out each."""
    unseen = np.argsort(rng.random((MEMBERS, len(samples))), axis=0) < 3
    calibration, factors = calibrate(predictor, samples, unseen)
    whole = predictor(collate([sample.graph for sample in samples]))
    targets = np.array([float(sample.targets.energy) for sample in samples])
    draws = whole.energy_draws.numpy()
    # In each group the first and the last of the four are water.
    pairs = [
        (first, first + 3)
        for first in range(0, 48, 4)
        if np.sum(unseen[:, first] & unseen[:, first + 3]) >= 2
    ]
    assert 0 < len(pairs) < 12
    first, second = np.array(pairs).T
    expected = fit_factor(
        targets[second] - targets[first],
        draws[:, second] - draws[:, first],
        unseen[:, first] & unseen[:, second],
    )
    assert factors["difference"].points == len(pairs)
    assert calibration.difference == pytest.approx(expected.value, rel=1e-6)


def test_frames_of_different_groups_are_paired_where_nobody_knows_them(predictor, samples) -> None:
    """Frames set aside one by one, as of a shuffled set, have no pair within a group."""
    apart = [replace(one, group=f"g{number}") for number, one in enumerate(samples)]
    together = [replace(one, group="g") for one in samples]
    aside = np.ones((1, len(samples)), bool)
    found, factors = calibrate(predictor, apart, aside)
    assert found.difference is not None
    assert found.difference == calibrate(predictor, together, aside)[0].difference
    assert factors["difference"].points == len(pair(together))
    assert calibrate(predictor, apart, leave_out(apart))[0].difference is None


def test_an_error_common_to_a_composition_cancels_in_differences(predictor, samples) -> None:
    shifted = [
        replace(sample, targets=replace(sample.targets, energy=sample.targets.energy + 100.0))
        for sample in samples
    ]
    unseen = leave_out(samples)
    before, after = (calibrate(predictor, some, unseen)[0] for some in (samples, shifted))
    assert after.energy > 10 * before.energy
    assert after.difference == pytest.approx(before.difference, rel=1e-6)


# --- variances that are more than a spread ---------------------------------------------------

JUDGING = replace(POTENTIAL, head=MeanVariance(hidden=4, width=4))


def judging(weights: Weights) -> Weights:
    """The same with variances that differ from atom to atom: a fresh head gives all the same."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        if name.startswith(("head.variance", "head.covariance"))
        else value
        for name, value in weights.items()
    }


def noisy(
    predictor: Predictor, images: list[Atoms], noise: float | np.ndarray, seed: int
) -> list[Sample]:
    """Labels = mean + noise times the standard deviation that the predictor states."""
    rng = np.random.default_rng(seed)
    scales = np.broadcast_to(noise, len(images))
    graph = collate([sample.graph for sample in to_samples([frame(a) for a in images], CUTOFF)])
    found = predictor(graph)
    energies = found.energy.mean + torch.tensor(scales * rng.normal(size=len(images))) * (
        found.energy.total.sqrt()
    )
    owner = graph.graph_index.numpy()
    draws = torch.tensor(scales[owner, None, None] * rng.normal(size=(len(owner), 3, 1)))
    roots = torch.linalg.cholesky(found.forces.total)
    forces = split_atoms(found.forces.mean + (roots @ draws).squeeze(-1), graph)
    rows = zip(images, energies.tolist(), forces, strict=True)
    frames = [
        frame(atoms, number, f"g{number // 4}", energy=energy, forces=own.numpy())
        for number, (atoms, energy, own) in enumerate(rows)
    ]
    return to_samples(frames, CUTOFF)


@pytest.fixture(scope="module")
def stating() -> Predictor:
    """One set of weights with a variance."""
    weights = judging(JUDGING.init(0, torch.float64))
    return build_predictor(JUDGING, Single(weights), Calibration(), {})


def test_a_variance_gets_the_factor_of_its_errors(stating) -> None:
    few = noisy(stating, structures(120, 3), 2.5, 4)
    calibration, factors = calibrate(stating, few, np.ones((1, 120), bool))
    assert calibration.energy == pytest.approx(2.5, rel=3 / np.sqrt(240))
    assert calibration.forces == pytest.approx(2.5, rel=0.1)
    assert factors["forces"].shared_error is None
    assert factors["energy"].points == 120
    assert calibration.difference is None
    assert calibration.source == "120 frames in 30 groups set aside"
    assert set(calibration.levels) == {"energy", "forces"}


def test_frames_it_has_learnt_from_do_not_count(stating) -> None:
    few = noisy(stating, structures(60, 3), 2.0, 4)
    spoilt = [
        replace(s, targets=replace(s.targets, energy=s.targets.energy + 1e6)) for s in few[:20]
    ]
    unseen = (np.arange(60) >= 20)[None]
    calibration, _ = calibrate(stating, spoilt + few[20:], unseen)
    expected, _ = calibrate(stating, few[20:], np.ones((1, 40), bool))
    assert calibration == expected


def test_intervals_from_calibration_cover_new_frames(stating) -> None:
    """Errors with heavy tails, which a factor alone does not cover."""
    scales = np.exp(1.5 * np.random.default_rng(6).normal(size=(2, 400)))
    known, new = (noisy(stating, structures(400, n), scales[n], n) for n in range(2))
    calibration, _ = calibrate(stating, known, np.ones((1, 400), bool))
    prediction = recalibrated(stating, calibration)(collate([sample.graph for sample in new]))
    targets = torch.cat([sample.targets.energy for sample in new])
    for level in (0.5, 0.9):
        low, high = prediction.interval(level)
        share = float(((targets >= low) & (targets <= high)).double().mean())
        assert share == pytest.approx(level, abs=0.1)
    std = prediction.energy.total.sqrt()
    inside = ((targets - prediction.energy.mean).abs() < 0.6745 * std).double().mean()
    assert float(inside) > 0.65  # a normal of this width is far too wide in the middle


def test_an_ensemble_with_variances_is_judged_by_who_has_not_seen(stating) -> None:
    """Total variance of the unseen members, one frame at a time."""
    members = [judging(JUDGING.init(seed, torch.float64)) for seed in range(4)]
    ensemble = build_predictor(JUDGING, Ensemble(stack(members)), Calibration(), {})
    few = noisy(ensemble, structures(40, 9), 1.5, 10)
    unseen = np.array([[(n + m) % 4 < 2 for n in range(40)] for m in range(4)])
    calibration, factors = calibrate(ensemble, few, unseen)
    rows = []
    for number, sample in enumerate(few):
        who = [member for member, yes in zip(members, unseen[:, number], strict=True) if yes]
        some = build_predictor(JUDGING, Ensemble(stack(who)), Calibration(), {})(sample.graph)
        residual = sample.targets.energy - some.energy.mean
        rows.append([float(v) for v in (residual, some.energy.aleatoric, some.energy.epistemic)])
    expected = mixture_factor(*np.array(rows).T, np.full(40, 2), 4)
    assert calibration.energy == pytest.approx(expected, rel=0.01)
    assert factors["energy"].points == 40
    assert calibration.levels == {}  # nobody has seen none of them
    assert (
        calibration.source == "40 frames in 10 groups, each judged by members that had not seen it"
    )


def test_differences_of_an_ensemble_with_variances_have_the_factor_of_its_spread(stating) -> None:
    """Of members that have seen neither frame, since variances of frames do not add up here."""
    members = [judging(JUDGING.init(seed, torch.float64)) for seed in range(4)]
    ensemble = build_predictor(JUDGING, Ensemble(stack(members)), Calibration(), {})
    few = noisy(ensemble, structures(40, 9), 1.5, 10)
    unseen = np.array([[(n // 4 + m) % 4 < 2 for n in range(40)] for m in range(4)])
    alone = [build_predictor(JUDGING, Single(one), Calibration(), {}) for one in members]
    draws = np.array([predict_samples(one, few).prediction.energy.mean.numpy() for one in alone])
    labels = np.array([float(sample.targets.energy) for sample in few])
    first, second = pair(few).T
    gaps, aside = draws[:, second] - draws[:, first], unseen[:, first]
    by_hand = fit_factor(labels[second] - labels[first], gaps, aside)
    assert len(first) == 10
    calibration, factors = calibrate(ensemble, few, unseen)
    assert calibration.difference == pytest.approx(by_hand.value, rel=1e-6)
    assert factors["difference"].points == 10


def test_too_few_points_of_a_variance_are_not_calibrated(stating) -> None:
    few = noisy(stating, structures(FEWEST - 1, 3), 2.0, 4)
    calibration, factors = calibrate(stating, few, np.ones((1, FEWEST - 1), bool))
    assert factors == {}  # however many force components they have
    alone = [replace(s, targets=replace(s.targets, has_forces=torch.tensor([False]))) for s in few]
    calibration, factors = calibrate(stating, alone, np.ones((1, FEWEST - 1), bool))
    assert factors == {}
    assert f"at least {FEWEST} labelled frames set aside" in calibration.source
    assert f"{FEWEST - 1} frames" in calibration.source


def test_labels_that_are_no_numbers_are_refused(stating) -> None:
    few = noisy(stating, structures(12, 3), 2.0, 4)
    few[7] = replace(
        few[7], targets=replace(few[7].targets, energy=torch.tensor([torch.nan]).double())
    )
    with pytest.raises(ValueError, match=r"frame 7: a label of energy is not a number"):
        calibrate(stating, few, np.ones((1, 12), bool))


def test_draws_and_members_have_to_be_as_many(predictor, samples) -> None:
    with pytest.raises(ValueError, match=f"3 members were trained and there are {MEMBERS} draws"):
        calibrate(predictor, samples, np.ones((3, len(samples)), bool))


def test_frames_set_aside_from_all_members_give_intervals(predictor, samples) -> None:
    apart = [replace(sample, group=f"{number}") for number, sample in enumerate(samples)]
    calibration, _ = calibrate(predictor, apart, np.ones((MEMBERS, len(samples)), bool))
    assert set(calibration.levels) == {"energy", "forces"}
    assert calibration.source == "48 frames set aside"
    assert calibration.draws == MEMBERS


def test_intervals_need_groups_not_force_components(predictor, samples) -> None:
    """12 groups hold some hundred components, and can not promise 95 % of a new group."""
    calibration, factors = calibrate(predictor, samples, np.ones((MEMBERS, len(samples)), bool))
    assert factors["forces"].points > 400
    assert calibration.levels == {}
    assert calibration.source == "48 frames in 12 groups set aside"


def test_frames_drawn_one_by_one_from_known_groups_count_one_by_one(predictor, samples) -> None:
    """Half of each group was learnt from: what is set aside are frames, as with `split: random`."""
    unseen = np.repeat((np.arange(48) % 2 == 0)[None], MEMBERS, axis=0)
    calibration, _ = calibrate(predictor, samples, unseen)
    assert calibration.source == "24 frames set aside"
    assert calibration.levels["forces"].conformal.maps[REST].count == 24


def test_kinds_have_intervals_of_their_own_by_groups(predictor) -> None:
    """Every other molecule of a group is water; 20 groups have it, and 19 are enough."""
    images = [molecule(("H2O", "CO2")[number % 2]) for number in range(80)]
    rng = np.random.default_rng(0)
    for atoms in images:
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
    few = label(predictor, images, 1.0, 3)
    calibration, _ = calibrate(predictor, few, np.ones((MEMBERS, 80), bool))
    assert set(calibration.levels["energy"].conformal.maps) == {REST, "1:2 8:1", "6:1 8:2"}
    for name in ("energy", "forces"):
        held = calibration.levels[name].conformal.maps
        assert {found.count for found in held.values()} == {20}


def test_factors_hold_for_another_number_of_draws(predictor, samples) -> None:
    """Labels around one member as around the others: so any number of them has the same c."""
    unseen = np.ones((MEMBERS, len(samples)), bool)
    calibration, factors = calibrate(predictor, samples, unseen)
    shared = factors["forces"].shared_error
    assert calibration.shared_error["forces"] == shared
    for draws in (2, 4, 5):
        found = calibration.for_draws(draws)
        assert found.forces == pytest.approx(ensemble_factor(shared, draws), rel=1e-12)
        assert found.draws == draws
        assert found.levels == {}
        few = replace(predictor, weights=take_members(predictor.weights, slice(0, draws)))
        judged = predict_samples(recalibrated(few, found), samples)
        points = points_of(judged)["forces"].select(points_of(judged)["forces"].stated)
        inside = np.abs(points.residuals) < 1.96 * points.std
        # A factor of two draws is made for spreads that are tiny by chance; here none is.
        assert 0.91 <= np.mean(inside) <= (1.0 if draws == 2 else 0.99)
