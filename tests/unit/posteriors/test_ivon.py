"""IVON: its equations, the posterior of a quadratic, and what must not harm it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.heads.scalar import Scalar
from surefoot.posteriors.ivon import IvonSettings, IvonStep
from surefoot.train.adamw import Gradient
from surefoot.train.fit import TrainSettings
from surefoot.train.loss import LossSettings
from surefoot.train.state import State, fresh_state

DATA = 50.0


def make_step(**changes: float | int | tuple[float, float]) -> IvonStep:
    settings = {
        "data": DATA,
        "factor": 1.0,
        "decay": 0.1,
        "initial": 1.0,
        "betas": (0.9, 0.99),
        "clip_radius": 10.0,
        "samples": 1,
        "seed": 0,
    }
    return IvonStep(**{**settings, **changes})


def make_state(step: IvonStep, **weights: list[float]) -> State:
    tree = {name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}
    return fresh_state(tree, members=(), moments=step.fresh(tree))


CURVATURE = {"a": torch.tensor([0.5, 2.0, 8.0]).double(), "b": torch.tensor([3.0]).double()}
LOWEST = {"a": torch.tensor([1.0, -2.0, 0.5]).double(), "b": torch.tensor([4.0]).double()}


def quadratic(weights: Weights) -> tuple[dict[str, Tensor], Weights]:
    """½ Σ a (θ − θ₀)²; weights it does not know have no gradient."""
    off = {name: weights[name] - LOWEST[name] for name in LOWEST if name in weights}
    slopes = {
        n: CURVATURE[n] * off[n] if n in off else torch.zeros_like(weights[n]) for n in weights
    }
    total = sum((0.5 * CURVATURE[n] * off[n] ** 2).sum() for n in off)
    return {"total": torch.as_tensor(total)}, slopes


def run(step: IvonStep, state: State, steps: int, rate: float, gradient: Gradient) -> None:
    for number in range(steps):
        step(state, gradient, rate * (1 - number / steps), stacked=False)
        state.step += 1


@pytest.mark.parametrize(("samples", "steps"), [(1, 2000), (4, 500)])
def test_posterior_of_a_quadratic(samples, steps) -> None:
    """Precision λ (a + δ), mean a θ₀ / (a + δ)."""
    step = make_step(samples=samples, betas=(0.9, 1 - 6 / steps))
    state = make_state(step, a=[0.0, 0.0, 0.0], b=[0.0])
    run(step, state, steps, 0.1, quadratic)
    variance = step.variance(state.moments["curvature"])
    for name, curvature in CURVATURE.items():
        mean = curvature * LOWEST[name] / (curvature + 0.1)
        torch.testing.assert_close(
            variance[name] * DATA * (curvature + 0.1), 1.0 + 0 * mean, rtol=0.15, atol=0
        )
        assert float(((state.weights[name] - mean).abs() / variance[name].sqrt()).max()) < 0.3


def test_one_step_by_hand() -> None:
    step = make_step(samples=1, clip_radius=0.05)
    state = make_state(step, a=[0.3, -0.2, 0.1])
    before = state.weights["a"].clone()
    seen: list[Tensor] = []

    def gradient(weights: Weights) -> tuple[dict[str, Tensor], Weights]:
        seen.append(weights["a"].clone())
        return {"total": torch.tensor(1.0)}, {
            "a": torch.tensor([2.0, -0.5, 0.01], dtype=torch.float64)
        }

    step(state, gradient, 0.2, stacked=False)
    g, noise = np.array([2.0, -0.5, 0.01]), (seen[0] - before).numpy()
    sigma2 = 1 / (DATA * 1.1)
    bend = g * noise / sigma2
    h = 0.99 * 1.0 + 0.01 * bend + 0.5 * 0.01**2 * (1.0 - bend) ** 2 / 1.1
    change = np.clip((0.1 * g / 0.1 + 0.1 * before.numpy()) / (h + 0.1), -0.05, 0.05)
    np.testing.assert_allclose(state.moments["curvature"]["a"], h, rtol=1e-9)
    np.testing.assert_allclose(state.moments["gradient"]["a"], 0.1 * g, rtol=1e-12)
    np.testing.assert_allclose(state.weights["a"], before.numpy() - 0.2 * 1.1 * change, rtol=1e-9)
    assert np.abs(noise).max() < 5 * sigma2**0.5


def test_an_exception_leaves_the_mean() -> None:
    step = make_step(samples=3)
    state = make_state(step, a=[0.3, -0.2, 0.1])
    run(step, state, 3, 0.1, quadratic)
    before = {name: value.clone() for name, value in state.tree().items()}
    calls = 0

    def fail(weights: Weights) -> tuple[dict[str, Tensor], Weights]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise FloatingPointError("in the middle of a step")
        return quadratic(weights)

    with pytest.raises(FloatingPointError):
        step(state, fail, 0.1, stacked=False)
    assert all(torch.equal(value, before[name]) for name, value in state.tree().items())


def test_weights_without_gradient_fall_back_to_the_prior() -> None:
    step = make_step(betas=(0.9, 0.9))
    state = make_state(step, a=[0.0, 0.0, 0.0], unused=[2.0])
    run(step, state, 300, 0.1, quadratic)
    variance = step.variance(state.moments["curvature"])["unused"]
    assert float(variance) == pytest.approx(1 / (DATA * 0.1), rel=1e-3)
    assert 0 <= float(state.weights["unused"].abs()) < 2.0


def test_a_restart_draws_the_same_noise() -> None:
    """The tree of a file has another order, and the number of the step is in the state."""
    step = make_step(samples=2)
    whole, first = (make_state(step, a=[0.0, 0.0, 0.0], b=[1.0]) for _ in range(2))
    for number in range(10):
        step(whole, quadratic, 0.1, stacked=False)
        whole.step += 1
        if number == 4:
            first = State(
                weights={n: whole.weights[n].clone() for n in ("b", "a")},
                averages={},
                best={},
                best_scores=torch.tensor(0.0),
                moments={
                    kind: {n: tree[n].clone() for n in ("b", "a")}
                    for kind, tree in whole.moments.items()
                },
                step=whole.step,
            )
    for _ in range(5):
        step(first, quadratic, 0.1, stacked=False)
        first.step += 1
    assert all(torch.equal(first.weights[n], whole.weights[n]) for n in ("a", "b"))


def test_noise_of_weights_and_steps_is_not_the_same() -> None:
    variance = {"a": torch.ones(1000).double(), "b": torch.ones(1000).double()}
    step = make_step()
    one, other = step._noise(variance, 0, 0), step._noise(variance, 1, 0)
    again = step._noise(variance, 0, 1)
    for left, right in ((one["a"], one["b"]), (one["a"], other["a"]), (one["a"], again["a"])):
        assert abs(float(np.corrcoef(left, right)[0, 1])) < 0.15
    assert float(one["a"].std()) == pytest.approx(1.0, rel=0.1)


def test_curvature_stays_positive() -> None:
    """Whatever the gradients: the last term of its recurrence sees to it."""
    step = make_step(decay=1e-6, betas=(0.9, 0.5))
    state = make_state(step, a=[0.0, 0.0, 0.0])
    for number in range(200):
        wild = torch.tensor([(-1.0) ** number, 1.0, -1.0]).double() * 10.0 ** (number % 7 - 3)
        step(state, lambda _, g=wild: ({"total": g.sum()}, {"a": g}), 1e-3, stacked=False)
        state.step += 1
        assert float(state.moments["curvature"]["a"].min()) > 0


def test_after_a_warm_up_the_mean_gradient_begins_anew() -> None:
    """Steps are counted from there: the first mean of a constant gradient is the gradient."""
    step = make_step(betas=(0.9, 0.99), clip_radius=10.0)
    state = make_state(step, a=[0.3, -0.2, 0.1])
    state.step = state.began = 7
    before = state.weights["a"].clone()
    slope = torch.tensor([2.0, -0.5, 0.01], dtype=torch.float64)
    step(state, lambda _: ({"total": torch.zeros(())}, {"a": slope.clone()}), 0.2, stacked=False)
    curvature = state.moments["curvature"]["a"]
    change = (slope + 0.1 * before) / (curvature + 0.1)
    torch.testing.assert_close(state.weights["a"], before - 0.2 * 1.1 * change, rtol=1e-9, atol=0)


# --- what the loss means --------------------------------------------------------------------

NLL = LossSettings(energy_rule="nll", forces_rule="nll")


def test_the_number_of_data_and_the_noise() -> None:
    step = IvonSettings(noise=0.1).fitting(37, TrainSettings(seed=5), LossSettings(), Scalar()).step
    assert isinstance(step, IvonStep)
    assert (step.data, step.factor, step.seed) == (37.0, pytest.approx(50.0), 5)
    step = IvonSettings(ess=1e4).fitting(37, TrainSettings(), NLL, Scalar()).step
    assert isinstance(step, IvonStep)
    assert (step.data, step.factor) == (1e4, 1.0)


@pytest.mark.parametrize(
    ("settings", "loss", "text"),
    [
        (IvonSettings(), LossSettings(), r"energy_rule: squared.* is none; set `posterior: {noise"),
        (IvonSettings(), NLL.model_copy(update={"forces_rule": "norm"}), "forces_rule: norm"),
        (IvonSettings(noise=0.1), NLL, r"energy_rule: nll.* already"),
        (IvonSettings(), NLL.model_copy(update={"forces_rule": "beta_nll"}), "one of nothing"),
        (IvonSettings(), NLL.model_copy(update={"weighting": "residual"}), "one of nothing"),
        (
            IvonSettings(),
            NLL.model_copy(update={"stress": 1.0}),
            "stress_rule: squared",
        ),
        (
            IvonSettings(noise=0.1),
            NLL.model_copy(update={"stress": 1.0}),
            "stress: 0}",
        ),
    ],
)
def test_losses_that_are_no_likelihood_are_refused(settings, loss, text) -> None:
    with pytest.raises(ValueError, match=text):
        settings.fitting(10, TrainSettings(), loss, Scalar())
