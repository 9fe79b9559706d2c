"""Rules on the sphere integrate harmonics exactly, and grids give coefficients back."""

import math

import pytest
import torch

from surefoot.blocks.sphere import Points, equiangular, fibonacci, gauss, gauss_of


def integrals(points: Points, lmax: int) -> torch.Tensor:
    return points.weights @ points.harmonics(lmax)


@pytest.mark.parametrize("rings", [1, 2, 5, 8])
def test_gauss_is_exact_to_its_degree(rings) -> None:
    """Σ_p w_p Y_lm = δ_l0 to degree 2n − 1, and no further."""
    points = gauss(rings, 2 * rings)
    found = integrals(points, min(11, 2 * rings - 1))
    expected = torch.zeros_like(found)
    expected[0] = 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    if 2 * rings <= 11:
        assert integrals(points, 2 * rings).abs()[1:].max() > 1e-2


@pytest.mark.parametrize(("rings", "exact"), [(4, 3), (10, 9), (7, 7)])
def test_equal_angles_are_exact_to_half_of_that(rings, exact) -> None:
    points = equiangular(rings, 2 * exact + 1)
    assert integrals(points, exact)[1:].abs().max() < 1e-14
    assert integrals(points, exact + 1)[1:].abs().max() > 1e-3


@pytest.mark.parametrize("lmax", [0, 1, 4, 6, 11])
def test_coefficients_come_back_from_both_grids(lmax) -> None:
    unit = torch.eye((lmax + 1) ** 2, dtype=torch.float64)
    for grid in (equiangular(2 * lmax + 2, 2 * lmax + 3), gauss(lmax + 1, 2 * lmax + 2)):
        found = grid.analysis(lmax) @ grid.synthesis(lmax)
        torch.testing.assert_close(found, unit, rtol=0, atol=1e-13)
        assert abs(float(grid.weights.sum()) - 1) < 1e-14
    assert len(equiangular(14, 15).weights) == 210


@pytest.mark.parametrize(("count", "found"), [(1, 2), (128, 128), (129, 162), (2, 2)])
def test_at_least_so_many_points(count, found) -> None:
    assert len(gauss_of(count).weights) == found


def test_points_have_unit_length_where_they_should() -> None:
    for points in (gauss(5, 7), equiangular(6, 3)):
        lengths = torch.linalg.vector_norm(points.vectors, dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


@pytest.mark.parametrize(("count", "low", "high"), [(128, 0.983, 1.018), (32, 0.960, 1.012)])
def test_lengths_on_the_spiral(count, low, high) -> None:
    """As measured on the original."""
    lengths = torch.linalg.vector_norm(fibonacci(count).vectors, dim=-1)
    assert round(float(lengths.min()), 3) == low
    assert round(float(lengths.max()), 3) == high
    assert math.isclose(float(lengths.mean()), 1.0, rel_tol=1e-12)


def test_harmonics_off_the_sphere_are_polynomials() -> None:
    """Degree l grows with the length to the power of l."""
    near = fibonacci(9)
    far = Points(2 * near.vectors, near.weights)
    powers = torch.tensor([2.0**degree for degree in range(4) for _ in range(2 * degree + 1)])
    torch.testing.assert_close(far.harmonics(3), near.harmonics(3) * powers)
    x, y, z = near.vectors.unbind(-1)
    torch.testing.assert_close(near.harmonics(1)[:, 1:], math.sqrt(3) * torch.stack([x, y, z], -1))
