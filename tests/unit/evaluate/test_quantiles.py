import numpy as np
import pytest
from scipy import stats
from scipy.special import stdtr

from surefoot.evaluate.pit import kolmogorov_smirnov
from surefoot.evaluate.quantiles import (
    FEWEST,
    LARGEST,
    MOST_KINDS,
    REST,
    SPACED,
    Conformal,
    TooFewGroups,
    fit_conformal,
    fit_grouped,
    fit_isotonic,
    needed_groups,
)


def fit(residuals: np.ndarray, std: np.ndarray) -> Conformal:
    """Each point a group of its own."""
    return fit_conformal(residuals, std, np.arange(len(std)))


def test_the_width_is_the_finite_sample_quantile() -> None:
    residuals = np.arange(1.0, 20.0)  # 19 scores, 1 to 19
    found = fit(residuals, np.ones(19))
    assert found.bounds(0.95) == (-19.0, 19.0)  # ⌈20 · 0.95⌉ = 19
    assert found.bounds(0.90) == (-18.0, 18.0)
    assert found.bounds(0.901) == (-19.0, 19.0)
    assert fit(-residuals, np.full(19, 2.0)).bounds(0.5) == (-5.0, 5.0)


def test_coverage_is_beta_distributed() -> None:
    """Over calibration sets: mean ⌈(n + 1) p⌉ / (n + 1), whatever the distribution."""
    generator = np.random.default_rng(0)
    for count, level in ((39, 0.9), (59, 0.5)):
        rank = np.ceil((count + 1) * level - 1e-9)
        covered = []
        for _ in range(1000):
            scores = generator.standard_t(2, size=count)
            _, high = fit(scores, np.ones(count)).bounds(level)
            covered.append(2 * stdtr(2, high) - 1)
        expected = stats.beta(rank, count + 1 - rank)
        assert np.mean(covered) == pytest.approx(expected.mean(), abs=4 * expected.std() / 31)
        assert np.std(covered) == pytest.approx(expected.std(), rel=0.1)
        assert expected.mean() >= level - 1e-12


def test_needed_groups() -> None:
    for level, count in ((0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99)):
        assert needed_groups(level) == count
        fit(np.ones(count), np.ones(count)).bounds(level)
        if count > 1:
            few = fit(np.ones(count - 1), np.ones(count - 1))
            with pytest.raises(TooFewGroups, match=rf"at least {count} .* there are {count - 1}"):
                few.bounds(level)


def frames(generator: np.random.Generator, count: int, points: int) -> np.ndarray:
    """Residuals of frames that are easy or hard as a whole: (frames, points)."""
    scale = np.exp(generator.normal(size=(count, 1)))
    return scale * generator.normal(size=(count, points))


@pytest.mark.parametrize(("count", "points", "level"), [(19, 81, 0.95), (9, 30, 0.9)])
def test_points_of_new_groups_are_covered(count: int, points: int, level: float) -> None:
    """Few frames of many force components; taken for independent they would cover too little."""
    generator = np.random.default_rng(8)
    covered, naive = [], []
    groups, ones = np.repeat(np.arange(count), points), np.ones(count * points)
    for _ in range(1000):
        scores = frames(generator, count, points).reshape(-1)
        new = np.abs(frames(generator, 100, 1))
        covered.append(np.mean(new <= fit_conformal(scores, ones, groups).bounds(level)[1]))
        naive.append(np.mean(new <= fit(scores, ones).bounds(level)[1]))
    deviation = 4 * np.std(covered) / np.sqrt(1000)
    assert level - deviation < np.mean(covered) < level + 1 / (count + 1) + deviation
    assert np.mean(naive) < level - 4 * np.std(naive) / np.sqrt(1000)


def test_groups_count_once_however_many_points_they_have() -> None:
    scores = np.concatenate([np.full(1000, 1.0), np.arange(2.0, 20.0)])
    groups = np.concatenate([np.zeros(1000), np.arange(1, 19)])
    found = fit_conformal(scores, np.ones(1018), groups)
    assert found.count == 19
    assert found.bounds(0.95)[1] == 19.0
    assert found.bounds(0.05)[1] == 1.0
    assert found.bounds(0.0501)[1] == 2.0
    with pytest.raises(TooFewGroups, match=r"at least 24 groups .* there are 19.*`group`"):
        found.bounds(0.96)


def test_many_scores_are_thinned_to_the_safe_side() -> None:
    count = 20_007
    residuals = stats.norm.ppf((np.arange(count) + 0.5) / count)
    found = fit(residuals, np.ones(count))
    assert len(found.scores) == len(found.shares) <= SPACED + LARGEST
    exact = np.sort(np.abs(residuals))
    for level in (0.5, 0.9, 0.95, 0.999):
        width = found.bounds(level)[1]
        rank = int(np.ceil((count + 1) * level))
        assert exact[rank - 1] * (1 - 1e-5) <= width
        assert width == pytest.approx(stats.norm.ppf(0.5 + level / 2), rel=0.02)


def skewed(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.exponential(size=count) - 0.3


def test_isotonic_makes_new_levels_uniform() -> None:
    generator = np.random.default_rng(1)
    found = fit_isotonic(skewed(generator, 4000), np.full(4000, 0.4))
    u = stats.norm.cdf(skewed(generator, 20_000) / 0.4)
    assert kolmogorov_smirnov(u) > 0.3
    assert kolmogorov_smirnov(np.interp(u, found.predicted, found.observed)) < 0.03


def test_isotonic_intervals_are_central_in_levels() -> None:
    generator = np.random.default_rng(2)
    found = fit_isotonic(skewed(generator, 4000), np.full(4000, 0.4))
    new = skewed(generator, 20_000) / 0.4
    for level in (0.5, 0.9):
        low, high = found.bounds(level)
        assert np.mean(new < low) == pytest.approx(0.5 - level / 2, abs=0.02)
        assert np.mean(new > high) == pytest.approx(0.5 - level / 2, abs=0.02)
        assert -low < high


def test_isotonic_of_true_error_bars_is_that_of_a_normal() -> None:
    points = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    low, high = fit_isotonic(points, np.ones(2000)).bounds(0.9)
    assert (low, high) == pytest.approx(stats.norm.interval(0.9), abs=0.01)


def test_isotonic_rises_even_with_ties() -> None:
    found = fit_isotonic(np.array([0.0, 0.0, 0.0, 1.0, 50.0]), np.ones(5))
    assert (np.diff(found.predicted) > 0).all()
    assert (np.diff(found.observed) > 0).all()
    assert (found.predicted[0], found.predicted[-1]) == (0.0, 1.0)


def test_each_kind_is_covered_on_its_own() -> None:
    generator = np.random.default_rng(3)
    kinds = np.repeat(["6", "1", "8"], [500, 500, FEWEST - 1])
    width = np.where(kinds == "1", 0.2, 1.0)
    residuals = width * generator.normal(size=len(kinds))
    found = fit_grouped(residuals, np.ones(len(kinds)), kinds, np.arange(len(kinds)))
    assert set(found.maps) == {REST, "1", "6"}
    low, high = found.bounds(0.9, np.array(["1", "6", "8", "never seen"]))
    assert np.allclose(low, -high)
    assert high[0] == pytest.approx(0.2 * 1.645, rel=0.15)
    assert high[1] == pytest.approx(1.645, rel=0.15)
    assert high[2] == high[3] == found.maps[REST].bounds(0.9)[1]


def test_a_kind_with_too_few_groups_for_a_level_takes_that_of_all() -> None:
    residuals = np.concatenate([np.full(200, 1.0), np.full(30, 5.0)])
    kinds = np.repeat(["a", "b"], [200, 30])
    found = fit_grouped(residuals, np.ones(230), kinds, np.arange(230))
    assert found.bounds(0.95, np.array(["b"]))[1][0] == 5.0
    assert found.bounds(0.5, np.array(["b"]))[1][0] == 5.0
    assert found.bounds(0.99, np.array(["a"]))[1][0] == 1.0
    assert found.bounds(0.99, np.array(["b"]))[1][0] == 5.0  # 99 groups are needed, of all 230


def test_only_the_largest_kinds_have_maps_of_their_own() -> None:
    kinds = np.repeat([f"k{n}" for n in range(MOST_KINDS + 9)], FEWEST + np.arange(MOST_KINDS + 9))
    found = fit_grouped(np.ones(len(kinds)), np.ones(len(kinds)), kinds, np.arange(len(kinds)))
    assert len(found.maps) == MOST_KINDS + 1
    assert "k0" not in found.maps
    assert f"k{MOST_KINDS + 8}" in found.maps


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="std of point 0"):
        fit(np.ones(1), np.zeros(1))
    with pytest.raises(ValueError, match=r"level of an interval is 1\.5"):
        fit(np.ones(30), np.ones(30)).bounds(1.5)
