import numpy as np
import pytest

from surefoot.evaluate.intervals import block_bootstrap, block_bootstrap_counts
from surefoot.evaluate.ranking import (
    auroc,
    auroc_by_counts,
    ause,
    ause_by_counts,
    sparsification_curve,
)


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    std = np.round(generator.lognormal(size=300), 2) + 0.1
    return std * generator.normal(size=300), std


def test_the_curve_is_the_rmse_of_what_is_left() -> None:
    residuals, score = np.array([3.0, -1.0, 2.0]), np.array([5.0, 1.0, 2.0])
    expected = [1.0, np.sqrt(2.5), np.sqrt(14 / 3)]
    assert np.allclose(sparsification_curve(residuals, score), expected)


def test_ause_of_the_oracle_is_zero_and_of_chance_one(points) -> None:
    residuals, _ = points
    assert ause(residuals, np.abs(residuals)) == pytest.approx(0.0, abs=1e-12)
    generator = np.random.default_rng(1)
    chance = [ause(residuals, generator.normal(size=300)) for _ in range(200)]
    assert np.mean(chance) == pytest.approx(1.0, abs=0.05)
    assert ause(residuals, -np.abs(residuals)) > 1.5


def test_ause_by_quadrature(points) -> None:
    residuals, std = points
    curve = sparsification_curve(residuals, std).mean()
    oracle = sparsification_curve(residuals, np.abs(residuals)).mean()
    rmse = np.sqrt(np.mean(residuals**2))
    assert ause(residuals, std) == pytest.approx((curve - oracle) / (rmse - oracle))
    assert ause(residuals, 7.0 * std) == ause(residuals, std)


def test_ties_have_no_order() -> None:
    """However the points stand in the file; by counts too."""
    generator = np.random.default_rng(4)
    residuals = generator.normal(size=1000)
    score = np.repeat([0.0, 1.0, 2.0], [500, 490, 10])
    rising = np.concatenate([np.sort(np.abs(part)) for part in np.split(residuals, [500, 990])])
    falling = np.concatenate([part[::-1] for part in np.split(rising, [500, 990])])
    assert ause(rising, score) == pytest.approx(ause(falling, score), rel=1e-12)
    counts = generator.integers(3, size=1000)
    twice = np.repeat(np.arange(1000), counts)
    expected = ause(rising[twice], score[twice])
    assert ause_by_counts(rising, score)(counts) == pytest.approx(expected, rel=1e-12)
    # That of orders drawn at random, to within their scatter.
    shuffled = [ause(rising, score + 1e-6 * generator.random(1000)) for _ in range(200)]
    assert ause(rising, score) == pytest.approx(np.mean(shuffled), abs=0.01)


def test_without_an_order_ause_is_nan() -> None:
    assert np.isnan(ause(np.array([1.0, 2.0]), np.ones(2)))
    assert np.isnan(ause(np.array([1.0, -1.0]), np.array([1.0, 2.0])))


def test_auroc_of_trivial_scores() -> None:
    failed = np.array([False, False, True, True])
    assert auroc(np.array([1.0, 2.0, 3.0, 4.0]), failed) == 1.0
    assert auroc(np.array([4.0, 3.0, 2.0, 1.0]), failed) == 0.0
    assert auroc(np.ones(4), failed) == 0.5
    assert np.isnan(auroc(np.ones(4), np.ones(4, bool)))


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    generator = np.random.default_rng(2)
    score, failed = np.round(generator.normal(size=60), 1), generator.random(60) < 0.3
    pairs = score[failed][:, None] - score[~failed][None]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert auroc(score, failed) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_a_score_without_knowledge_is_a_half() -> None:
    generator = np.random.default_rng(3)
    found = auroc(generator.normal(size=20_000), generator.random(20_000) < 0.2)
    assert found == pytest.approx(0.5, abs=0.02)


def test_counts_are_repeated_points(points) -> None:
    residuals, std = points
    generator = np.random.default_rng(4)
    counts = generator.integers(4, size=300)
    drawn = np.repeat(np.arange(300), counts)
    failed = np.abs(residuals) > 1.0
    assert ause_by_counts(residuals, std)(counts) == pytest.approx(
        ause(residuals[drawn], std[drawn]), abs=1e-12
    )
    assert auroc_by_counts(std, failed)(counts) == pytest.approx(
        auroc(std[drawn], failed[drawn]), abs=1e-12
    )


def test_the_quick_bootstrap_is_the_plain_one(points) -> None:
    residuals, std = points
    groups = np.arange(300) // 10
    quick = block_bootstrap_counts(
        ause_by_counts(residuals, std), groups, np.random.default_rng(5), draws=50
    )
    plain = block_bootstrap(
        lambda drawn: ause(residuals[drawn], std[drawn]), groups, np.random.default_rng(5), draws=50
    )
    assert (quick.low, quick.high) == pytest.approx((plain.low, plain.high), abs=1e-12)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"score of point 1 is nan"):
        auroc(np.array([1.0, np.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"residual of point 0 is inf"):
        ause(np.array([np.inf]), np.ones(1))
