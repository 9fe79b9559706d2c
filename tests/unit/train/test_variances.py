"""A variance that collapses or explodes is found, and only then."""

from dataclasses import replace

import pytest
import torch

from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import Sample
from surefoot.heads.mean_variance import MeanVariance
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.train.loss import LossSettings
from surefoot.train.validate import judge

POTENTIAL = Potential(
    model=Schnet(name="schnet", cutoff=3.0, features=5, interactions=1, gaussians=5),
    head=MeanVariance(),
    baseline=Baseline(elements=(1, 6, 8), energies=(0.0, 0.0, 0.0), scale=0.5, neighbors=6.0),
)
NLL = LossSettings(energy_rule="nll", forces_rule="nll")


@pytest.fixture
def samples(make_samples) -> list[Sample]:
    return make_samples(names=("ethanol",), copies=4, cutoff=3.0)


def with_sizes(seed: int, **biases: float) -> Weights:
    """Fresh weights that say ln σ² in units of the scale, everywhere the same."""
    weights = POTENTIAL.init(seed, torch.float64)
    for branch, bias in biases.items():
        name = f"head.{branch}.layer0.out.bias"
        weights[name] = torch.full_like(weights[name], bias)
    return weights


def judged(weights: Weights, samples: list[Sample], loss: LossSettings = NLL) -> None:
    members = weights["model.embedding"].shape[:-2]
    judge(POTENTIAL, loss, weights, samples, torch.ones((*members, 4), dtype=torch.bool))


@pytest.mark.parametrize(
    ("branch", "bias", "sentence"),
    [
        ("variance", -14.0, "variance of the energy has collapsed.*learning_rate.*warmup"),
        ("covariance", -14.0, "variance of the forces has collapsed"),
        ("variance", 10.0, "variance of the energy has exploded"),
        ("covariance", 10.0, "variance of the forces has exploded"),
    ],
)
def test_it_stops_with_a_sentence(branch, bias, sentence, samples) -> None:
    with pytest.raises(FloatingPointError, match=sentence):
        judged(with_sizes(0, **{branch: bias}), samples)


@pytest.mark.parametrize("bias", [-6.0, 0.0, 6.0])
def test_errors_twenty_times_off_are_training(bias, samples) -> None:
    judged(with_sizes(0, variance=bias, covariance=bias), samples)


def test_fresh_weights_may_be_far_from_their_labels(samples) -> None:
    """Energies 300 times the usual σ away from their references, with nothing learned yet."""
    far = [
        replace(s, targets=replace(s.targets, energy=s.targets.energy + 300 * 0.5 * 3))
        for s in samples
    ]
    judged(with_sizes(0), far)
    with pytest.raises(FloatingPointError, match="energy has collapsed"):
        judged(with_sizes(0, variance=-14.0), far)


def test_the_member_is_named(samples) -> None:
    members = stack([with_sizes(0), with_sizes(1, covariance=-14.0), with_sizes(2)])
    with pytest.raises(FloatingPointError, match="member 1"):
        judged(members, samples)


def test_a_few_labels_far_off_are_not_a_collapse(samples) -> None:
    """Three frames are right, and the wrong label of one is a million times its σ."""
    weights = with_sizes(0)
    output = POTENTIAL(weights, samples[0].graph)
    assert output.forces is not None
    spoilt = replace(samples[0].targets, forces=samples[0].targets.forces + 1e6)
    judged(weights, [replace(samples[0], targets=spoilt), *samples[1:]])


def test_other_losses_do_not_look(samples) -> None:
    """In the warm-up variances have learned nothing yet."""
    judged(with_sizes(0, variance=-14.0, covariance=10.0), samples, LossSettings())


@pytest.mark.parametrize("copies", [1, 3])
def test_without_judges_training_frames_are_looked_at(copies, samples) -> None:
    def watch(weights: Weights) -> object:
        members = stack([with_sizes(0)] * (copies - 1) + [weights]) if copies > 1 else weights
        nobody = torch.zeros((copies, 4) if copies > 1 else 4, dtype=torch.bool)
        return judge(POTENTIAL, NLL, members, samples, nobody)

    assert watch(with_sizes(0)) is None
    for bias, fate in ((-14.0, "collapsed"), (10.0, "exploded")):
        words = f"{fate}.*most training frames .member {copies - 1}"
        with pytest.raises(FloatingPointError, match=words):
            watch(with_sizes(0, covariance=bias))
