"""SWAG: moments in float64, the published covariance, weights collected when they should be."""

import numpy as np
import pytest
import torch

from surefoot.blocks.dense import Weights
from surefoot.heads.scalar import Scalar
from surefoot.posteriors.gaussian import Swag
from surefoot.posteriors.swag import Collector, SwagSettings, gather, make_swag
from surefoot.train.fit import TrainSettings
from surefoot.train.loss import LossSettings
from surefoot.train.schedule import Plateau, ScheduleSettings, Tail, rate_share
from surefoot.train.state import State, fresh_state

LOSS = LossSettings()


def collect(rows: torch.Tensor, rank: int) -> State:
    """A run whose weights were these rows, one after the other."""
    state = fresh_state({"a": rows[0], "b": rows[0, :2]}, members=(), moments={})
    for row in rows:
        weights: Weights = {"a": row, "b": row[:2]}
        state.collected = gather(state.collected, weights, rank)
    return state


def test_moments_of_weights_that_hardly_move(rng) -> None:
    """Mean 1, variance 1e-10 in float32: no variance is below zero, and all are right."""
    rows = torch.tensor(1.0 + 1e-5 * rng.normal(size=(200, 1000))).float()
    posterior = make_swag(collect(rows, 3), {}, 2)
    exact = rows.double().numpy()
    assert float(posterior.variance["a"].min()) > 0
    np.testing.assert_allclose(posterior.variance["a"], exact.var(0) / 2, rtol=1e-5)
    np.testing.assert_allclose(posterior.mean["a"], exact.mean(0), rtol=1e-7)
    assert posterior.mean["a"].dtype == torch.float32
    naive = (rows**2).mean(0) - rows.mean(0) ** 2
    assert float((naive < 0).float().mean()) > 0.1  # what is avoided


@pytest.mark.parametrize("count", [4, 9])
def test_covariance_of_draws_is_the_published_one(rng, count) -> None:
    """½ (diag(σ²) + D Dᵀ / (K − 1)) within 2 %, D the last K deviations from means so far."""
    rank = 5
    rows = rng.normal(size=(count, 4)) @ rng.normal(size=(4, 4)) + 3.0
    posterior = make_swag(collect(torch.tensor(rows), rank), {}, 2)
    kept = min(rank, count)
    means = np.cumsum(rows, axis=0) / np.arange(1, count + 1)[:, None]
    columns = (rows - means)[-kept:]
    expected = 0.5 * (np.diag(rows.var(0)) + columns.T @ columns / (kept - 1))
    draws = posterior.draws(torch.Generator().manual_seed(1), 80_000)
    found = np.cov(draws["a"].numpy(), rowvar=False)
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)
    np.testing.assert_allclose(draws["a"].mean(0), rows.mean(0), atol=0.02)
    # All leaves move along the same directions.
    shared = np.cov(draws["a"][:, 0].numpy(), draws["b"][:, 1].numpy())[0, 1]
    assert shared == pytest.approx(0.5 * (columns.T @ columns)[0, 1] / (kept - 1), abs=0.02)


def test_weights_are_collected_late_and_now_and_then() -> None:
    state = fresh_state({"a": torch.zeros(1)}, members=(), moments={})
    observe = Collector(first=5, every=3, rank=2)
    for epoch in range(1, 13):
        state.epoch = epoch
        state.weights = {"a": torch.tensor([float(epoch)])}
        observe(state)
    assert int(state.collected["count"]) == 3  # after 5, 8 and 11
    assert float(state.collected["mean.a"]) == 8.0
    # The last two deviations from the mean so far: 8 from 6.5, 11 from 8.
    assert state.collected["deviations.a"].squeeze(1).tolist() == [1.5, 3.0]


def test_the_rate_is_constant_while_collecting() -> None:
    schedule = ScheduleSettings(name="cosine", warmup_steps=0, final=0.01)
    tail = Tail(begin=0.6, share=0.3)
    shares = [rate_share(step, 100, Plateau(), schedule, tail) for step in range(100)]
    assert shares[60:] == [0.3] * 40
    alone = [rate_share(step, 60, Plateau(), schedule) for step in range(60)]
    assert shares[:60] == alone
    fitting = SwagSettings(start=0.6, rate=0.3).fitting(
        10, TrainSettings(epochs=100), LOSS, Scalar()
    )
    assert fitting.tail == tail
    assert fitting.collect == Collector(first=61, every=1, rank=20)


@pytest.mark.parametrize(
    ("settings", "changes", "text"),
    [
        (SwagSettings(), {"patience": 3}, r"patience: 3.* before SWAG"),
        (SwagSettings(), {"epochs": 5}, r"collect 2 sets of weights in 5 epochs"),
        (SwagSettings(every=40), {"epochs": 100}, r"collect 1 sets"),
    ],
)
def test_runs_that_collect_too_little_are_refused(settings, changes, text) -> None:
    with pytest.raises(ValueError, match=text):
        settings.fitting(10, TrainSettings().model_copy(update=changes), LOSS, Scalar())


def test_too_little_collected_is_refused() -> None:
    with pytest.raises(ValueError, match="collected 2 sets of weights and needs 3"):
        make_swag(collect(torch.zeros((2, 3)), 5), {}, 2)


def test_weights_that_were_not_learned_are_in_every_draw() -> None:
    rows = torch.arange(12.0).reshape(4, 3)
    posterior = make_swag(collect(rows, 5), {"c": torch.tensor([7.0])}, 6)
    draws = Swag.read(posterior.tree()).draws(torch.Generator().manual_seed(0), None)
    assert draws["c"].tolist() == [[7.0]] * 6
    assert float(draws["a"].std(0).min()) > 0
