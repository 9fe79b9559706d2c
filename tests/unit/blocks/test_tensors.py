"""Tensors of degree 2 and their exponential, against eigenvalues and torch.matrix_exp."""

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from surefoot.blocks.angular import harmonics, wigner
from surefoot.blocks.tensors import LARGEST, bound_norm, exponential, to_matrix


def tensors(generator: torch.Generator, count: int, largest: float) -> Tensor:
    """Traceless symmetric matrices, the largest eigenvalue of each as given."""
    components = torch.randn((count, 5), generator=generator, dtype=torch.float64)
    matrices = to_matrix(components)
    sizes = torch.linalg.eigvalsh(matrices).abs().amax(-1)
    return matrices * (largest / sizes)[:, None, None]


def test_a_matrix_of_the_same_norm(generator) -> None:
    components = torch.randn((50, 5), generator=generator, dtype=torch.float64)
    matrices = to_matrix(components)
    torch.testing.assert_close(matrices.square().sum((-1, -2)), components.square().sum(-1))
    assert torch.equal(matrices, matrices.mT)
    assert float(matrices.diagonal(dim1=-2, dim2=-1).sum(-1).abs().max()) < 1e-14


def test_harmonics_become_products_of_the_direction(generator) -> None:
    """Of a unit vector √(15/2) (v vᵀ − 1/3): the direction's own axis, which no frame names."""
    vectors = torch.randn((20, 3), generator=generator, dtype=torch.float64)
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    expected = unit[:, :, None] * unit[:, None, :] - torch.eye(3, dtype=torch.float64) / 3
    found = to_matrix(harmonics(vectors, 2)[:, 4:])
    torch.testing.assert_close(found, 7.5**0.5 * expected, rtol=1e-12, atol=1e-14)


def test_components_turn_as_the_matrix_does(generator) -> None:
    turn = torch.as_tensor(Rotation.random(random_state=3).as_matrix())
    components = torch.randn((20, 5), generator=generator, dtype=torch.float64)
    found = to_matrix(components @ wigner(turn, 2).T)
    torch.testing.assert_close(found, turn @ to_matrix(components) @ turn.T, rtol=0, atol=1e-13)


@pytest.mark.parametrize("largest", [1e-8, 0.3, 2.0, LARGEST])
@pytest.mark.parametrize("sign", [1, -1])
def test_exponential_is_that_of_torch(largest, sign, generator) -> None:
    """Entries to 1e-13 of the largest, and so does each eigenvalue, small ones included."""
    matrices = sign * tensors(generator, 200, largest)
    found, expected = exponential(matrices), torch.matrix_exp(matrices)
    scale = expected.abs().amax((-1, -2), keepdim=True)
    assert float(((found - expected) / scale).abs().max()) < 1e-13
    sizes = torch.linalg.eigvalsh(found) / torch.linalg.eigvalsh(matrices).exp()
    assert float((sizes - 1).abs().max()) < 1e-11


def test_where_eigenvalues_meet(generator) -> None:
    """Two or three of them equal: nothing special, derivatives included."""
    zero = torch.zeros((3, 3), dtype=torch.float64)
    round_about_z = torch.diag(torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64))
    for matrix in (zero, round_about_z):
        torch.testing.assert_close(exponential(matrix), torch.matrix_exp(matrix))
        assert gradcheck(exponential, matrix.clone().requires_grad_())
        assert gradgradcheck(exponential, matrix.clone().requires_grad_())


def test_derivatives(generator) -> None:
    components = torch.randn((3, 5), generator=generator, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: exponential(to_matrix(x)), components)
    assert gradgradcheck(lambda x: exponential(to_matrix(x)), components)


def test_leading_axes(generator) -> None:
    matrices = tensors(generator, 6, 1.0)
    together = exponential(matrices.reshape(2, 3, 3, 3))
    assert torch.equal(together.reshape(6, 3, 3), exponential(matrices))


def test_bound_norm(generator) -> None:
    """Small vectors as they are, large ones as long as the limit, in their own direction."""
    direction = torch.randn((8, 5), generator=generator, dtype=torch.float64)
    direction /= direction.norm(dim=-1, keepdim=True)
    for size in (1e-6, 1.0, 1e6):
        found = bound_norm(size * direction, 5.0)
        torch.testing.assert_close(found / found.norm(dim=-1, keepdim=True), direction)
        assert float(found.norm(dim=-1).max()) <= min(size, 5.0) * (1 + 1e-12)
    torch.testing.assert_close(bound_norm(1e-6 * direction, 5.0), 1e-6 * direction)
    torch.testing.assert_close(bound_norm(1e6 * direction, 5.0), 5 * direction)
    zero = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(bound_norm(zero, 5.0).sum(), zero)
    assert slope.tolist() == [1.0] * 5
