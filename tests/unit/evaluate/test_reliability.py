import numpy as np
import pytest

from surefoot.evaluate.intervals import block_bootstrap, block_bootstrap_counts
from surefoot.evaluate.reliability import (
    BINS,
    IN_A_BIN,
    ence,
    ence_by_counts,
    ence_reference,
    reliability,
)


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    std = np.exp(0.8 * generator.normal(size=2000))
    return std * generator.normal(size=2000), std


def test_bins_by_hand(points) -> None:
    residuals, std = points
    order = np.argsort(std)
    parts = np.split(order, BINS)
    found = reliability(residuals, std)
    assert np.allclose(found.std, [np.sqrt(np.mean(std[p] ** 2)) for p in parts])
    assert np.allclose(found.rmse, [np.sqrt(np.mean(residuals[p] ** 2)) for p in parts])
    expected = np.mean(np.abs(found.std - found.rmse) / found.std)
    assert ence(residuals, std) == pytest.approx(expected)


def test_a_factor_has_its_closed_form() -> None:
    """Errors as large as σ everywhere, error bars c times too large: |c − 1| / c."""
    std = np.linspace(1.0, 3.0, 400)
    for factor in (0.5, 2.0):
        found = ence(std, factor * std)
        assert found == pytest.approx(abs(factor - 1.0) / factor)
    assert ence(std, std) == pytest.approx(0.0, abs=1e-12)


def test_few_points_have_few_bins() -> None:
    assert len(reliability(np.ones(35), np.ones(35)).std) == 35 // IN_A_BIN
    assert len(reliability(np.ones(3), np.ones(3)).std) == 1


def test_true_error_bars_lie_in_the_range_of_the_reference() -> None:
    generator = np.random.default_rng(1)
    std = np.exp(0.8 * generator.normal(size=400))
    mean, spread = ence_reference(std, generator, 1000)
    found = [ence(std * generator.normal(size=400), std) for _ in range(300)]
    assert np.mean(found) == pytest.approx(mean, rel=0.05)
    inside = np.mean([(spread.low <= value <= spread.high) for value in found])
    assert inside == pytest.approx(0.95, abs=0.05)
    assert ence(1.5 * std * generator.normal(size=400), std) > spread.high


def test_the_reference_falls_with_the_number_of_points() -> None:
    generator = np.random.default_rng(2)
    few, many = (ence_reference(np.ones(n), generator, 50)[0] for n in (400, 6400))
    assert few / many == pytest.approx(4.0, rel=0.15)


def test_counts_are_repeated_points(points) -> None:
    residuals, std = (part[:173] for part in points)
    counts = np.random.default_rng(3).integers(4, size=173)
    drawn = np.repeat(np.arange(173), counts)
    found = ence_by_counts(residuals, std)(counts)
    assert found == pytest.approx(ence(residuals[drawn], std[drawn]), abs=1e-12)


def test_the_quick_bootstrap_is_the_plain_one(points) -> None:
    residuals, std = (part[:300] for part in points)
    groups = np.arange(300) // 10
    quick = block_bootstrap_counts(
        ence_by_counts(residuals, std), groups, np.random.default_rng(4), draws=50
    )
    plain = block_bootstrap(
        lambda drawn: ence(residuals[drawn], std[drawn]), groups, np.random.default_rng(4), draws=50
    )
    assert (quick.low, quick.high) == pytest.approx((plain.low, plain.high), abs=1e-12)


def test_wrong_error_bars_are_refused() -> None:
    with pytest.raises(ValueError, match=r"std of point 0 is 0\.0"):
        ence(np.zeros(2), np.zeros(2))
