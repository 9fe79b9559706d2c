import numpy as np
import pytest
from scipy import stats

from surefoot.evaluate.multivariate import (
    ellipsoid_bound,
    gaussian_nll_vectors,
    mahalanobis_squares,
)


@pytest.fixture
def ellipsoids() -> tuple[np.ndarray, np.ndarray]:
    """Residuals drawn from covariances that differ from point to point."""
    generator = np.random.default_rng(0)
    roots = generator.normal(size=(4000, 3, 3)) + 2.0 * np.eye(3)
    residuals = np.einsum("pij,pj->pi", roots, generator.normal(size=(4000, 3)))
    return residuals, roots @ roots.swapaxes(1, 2)


def test_squares_are_chi_squared_with_three(ellipsoids) -> None:
    squares = mahalanobis_squares(*ellipsoids)
    assert squares.mean() == pytest.approx(3.0, abs=3 * np.sqrt(6 / 4000))
    assert stats.kstest(squares, stats.chi2(3).cdf).pvalue > 0.01
    for level in (0.5, 0.95):
        assert np.mean(squares <= ellipsoid_bound(level)) == pytest.approx(level, abs=0.03)


def test_nll_agrees_with_scipy(ellipsoids) -> None:
    residuals, covariance = (part[:20] for part in ellipsoids)
    expected = [
        -stats.multivariate_normal(np.zeros(3), c).logpdf(r)
        for r, c in zip(residuals, covariance, strict=True)
    ]
    assert np.allclose(gaussian_nll_vectors(residuals, covariance), expected, rtol=1e-9)


def test_rotated_ellipsoids_have_the_same_squares(ellipsoids) -> None:
    residuals, covariance = (part[:50] for part in ellipsoids)
    turn = stats.special_ortho_group.rvs(3, random_state=1)
    turned = mahalanobis_squares(residuals @ turn.T, turn @ covariance @ turn.T)
    assert np.allclose(turned, mahalanobis_squares(residuals, covariance), rtol=1e-9)


def test_bounds_of_ellipsoids() -> None:
    assert ellipsoid_bound(0.95) == pytest.approx(7.814727903)
    assert ellipsoid_bound(0.6827, axes=1) == pytest.approx(1.0, abs=1e-3)


def test_covariances_without_rank_are_refused() -> None:
    flat = np.diag([1.0, 1.0, 0.0])[None]
    with pytest.raises(ValueError, match=r"smallest eigenvalue.*four draws"):
        mahalanobis_squares(np.ones((1, 3)), flat)
    with pytest.raises(ValueError, match="residual of point 1 is nan"):
        mahalanobis_squares(np.array([[0.0, np.nan, 0.0]]), np.eye(3)[None])
