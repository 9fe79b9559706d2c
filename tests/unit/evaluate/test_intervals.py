import numpy as np
import pytest

from surefoot.evaluate.intervals import (
    Interval,
    block_bootstrap,
    block_bootstrap_counts,
    block_bootstrap_mean,
)


def width(interval: Interval) -> float:
    return interval.high - interval.low


def test_three_ways_give_one_interval() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=400)
    groups = generator.integers(30, size=400).astype(str)
    general = block_bootstrap(
        lambda drawn: float(np.mean(values[drawn])), groups, np.random.default_rng(1), draws=200
    )
    counts = block_bootstrap_counts(
        lambda times: float(times @ values / np.sum(times)),
        groups,
        np.random.default_rng(1),
        draws=200,
    )
    mean = block_bootstrap_mean(values, groups, np.random.default_rng(1), draws=200)
    assert (general.low, general.high) == pytest.approx((mean.low, mean.high), abs=1e-12)
    assert (counts.low, counts.high) == pytest.approx((mean.low, mean.high), abs=1e-12)


def test_width_of_independent_points_is_the_standard_error() -> None:
    values = np.random.default_rng(2).normal(size=2000)
    found = block_bootstrap_mean(values, np.arange(2000), np.random.default_rng(3), draws=2000)
    # A bound from 2000 draws scatters by about 4 % of the width.
    assert width(found) == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.1)


def test_correlated_blocks_give_the_width_of_their_number() -> None:
    generator = np.random.default_rng(4)
    blocks = np.repeat(np.arange(100), 25)
    values = generator.normal(size=100)[blocks]  # all points of a block are the same
    by_block = block_bootstrap_mean(values, blocks, np.random.default_rng(5), draws=1000)
    by_point = block_bootstrap_mean(values, np.arange(2500), np.random.default_rng(5), draws=1000)
    assert width(by_block) / width(by_point) == pytest.approx(5.0, rel=0.2)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_intervals_cover_the_truth_as_often_as_they_say(level: float) -> None:
    generator = np.random.default_rng(6)
    blocks = np.repeat(np.arange(60), 4)
    inside = 0
    for _ in range(300):
        values = (generator.normal(size=60)[blocks] + generator.normal(size=240)) + 1.0
        found = block_bootstrap_mean(values, blocks, generator, draws=200, level=level)
        inside += found.low <= 1.0 <= found.high
    assert inside / 300 == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 300) + 0.015)


def test_groups_stay_whole() -> None:
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    seen: list[np.ndarray] = []

    def keep(drawn: np.ndarray) -> float:
        seen.append(np.bincount(drawn, minlength=6))
        return 0.0

    block_bootstrap(keep, groups, np.random.default_rng(7), draws=20)
    assert len(seen) == 20
    for times in seen:
        assert times[0] == times[2] == times[5]
        assert times[1] == times[4]
        assert times[0] + times[1] + times[3] == 3  # as many groups as there are
    assert len({tuple(times) for times in seen}) > 3


def test_one_group_has_no_interval() -> None:
    groups = np.zeros(10, dtype=int)
    generator = np.random.default_rng(8)
    for found in (
        block_bootstrap(lambda _: 1.0, groups, generator),
        block_bootstrap_counts(lambda _: 1.0, groups, generator),
        block_bootstrap_mean(np.ones(10), groups, generator),
    ):
        assert np.isnan(found.low)
        assert np.isnan(found.high)


def test_nan_statistics_give_nan() -> None:
    found = block_bootstrap(lambda _: np.nan, np.arange(5), np.random.default_rng(9), draws=5)
    assert np.isnan(found.low)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(10).normal(size=50)
    first, second = (
        block_bootstrap_mean(values, np.arange(50), np.random.default_rng(11)) for _ in range(2)
    )
    assert first == second


def test_wrong_settings_are_refused() -> None:
    generator = np.random.default_rng(12)
    with pytest.raises(ValueError, match="bootstrap of 0 draws"):
        block_bootstrap_mean(np.ones(3), np.arange(3), generator, draws=0)
    with pytest.raises(ValueError, match=r"level of an interval is 95\.0"):
        block_bootstrap_mean(np.ones(3), np.arange(3), generator, level=95.0)
