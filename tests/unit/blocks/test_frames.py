"""Frames of edges against whole rotation matrices, turns against rotations about an axis."""

import math

import pytest
import torch
from torch import Tensor

from surefoot.blocks.angular import harmonics, wigner
from surefoot.blocks.frames import (
    by_degree,
    count_rows,
    edge_frames,
    frame_weights,
    nearer_frame,
    orders,
    turn_table,
    wigner_blocks,
)


@pytest.fixture
def vectors(generator) -> Tensor:
    return 2 * torch.randn((30, 3), generator=generator, dtype=torch.float64)


def noise(vectors: Tensor) -> Tensor:
    """600 times as many vectors, spread evenly enough."""
    steps = torch.arange(600 * vectors.numel(), dtype=torch.float64)
    return 4 * torch.sin(steps**1.5).reshape(-1, 3)


def wigner_rows(rotations: Tensor, lmax: int, mmax: int) -> Tensor:
    """The blocks as one matrix, with its rows by order."""
    mmax = min(mmax, lmax)
    blocks = wigner_blocks(rotations, lmax, mmax)
    shapes = [(2 * min(degree, mmax) + 1, 2 * degree + 1) for degree in range(lmax + 1)]
    parts = blocks.split([rows * size for rows, size in shapes], dim=-1)
    whole = [
        torch.nn.functional.pad(
            part.unflatten(-1, shape), (degree**2, (lmax + 1) ** 2 - (degree + 1) ** 2)
        )
        for degree, (part, shape) in enumerate(zip(parts, shapes, strict=True))
    ]
    return torch.cat(whole, dim=-2)[..., list(by_degree(lmax, mmax)), :]


def all_rows(rotations: Tensor, lmax: int) -> Tensor:
    """The whole matrix of all degrees."""
    blocks = [wigner(rotations, degree) for degree in range(lmax + 1)]
    size = (lmax + 1) ** 2
    whole = rotations.new_zeros((*rotations.shape[:-2], size, size))
    for degree, block in enumerate(blocks):
        here = slice(degree**2, (degree + 1) ** 2)
        whole[..., here, here] = block
    return whole


@pytest.mark.parametrize(("lmax", "mmax", "rows"), [(6, 1, 19), (4, 1, 13), (6, 0, 7), (3, 9, 16)])
def test_numbers_of_rows(lmax, mmax, rows) -> None:
    assert count_rows(lmax, mmax) == rows
    assert sorted(by_degree(lmax, min(lmax, mmax))) == list(range(rows))


def test_rows_of_one_order_are_neighbours() -> None:
    assert orders(2, 1) == ((0, 0), (1, 0), (2, 0), (1, -1), (2, -1), (1, 1), (2, 1))
    assert by_degree(2, 1) == (0, 2, 5, 1, 4, 3, 6)


def test_an_edge_lands_on_the_polar_axis(vectors) -> None:
    """Both frames are proper rotations, and differ by a turn about the edge."""
    frames = edge_frames(vectors)
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    landed = (frames @ vectors[:, None, :, None]).squeeze(-1)
    expected = torch.zeros_like(landed)
    expected[..., 1] = lengths[:, None]
    torch.testing.assert_close(landed, expected, rtol=0, atol=1e-13)
    unit = torch.eye(3, dtype=torch.float64).expand(30, 2, 3, 3)
    torch.testing.assert_close(frames @ frames.mT, unit, rtol=0, atol=1e-12)
    assert (torch.linalg.det(frames) > 0).all()


def test_crystal_directions_are_far_from_singular() -> None:
    """Along the axes and diagonals of a cube the first frame is well away from its pole."""
    steps = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 3)
    directions = steps[steps.any(-1)]
    frames = edge_frames(directions)
    unit = torch.eye(3, dtype=torch.float64).expand(26, 2, 3, 3)
    torch.testing.assert_close(frames @ frames.mT, unit, rtol=0, atol=1e-12)


def test_mixed_frames_are_never_singular(vectors) -> None:
    """Where one has a weight, it is a rotation; all weights together are one."""
    many = torch.nn.functional.normalize(vectors.repeat(600, 1) + 0.3 * noise(vectors), dim=-1)
    weights, frames = frame_weights(many), edge_frames(many)
    torch.testing.assert_close(weights.sum(-1), torch.ones(18000, dtype=torch.float64))
    assert float(weights.min()) == 0.0
    off = (frames @ frames.mT - torch.eye(3, dtype=torch.float64)).abs().amax((-2, -1))
    assert float((off * (weights > 0)).max()) < 1e-12
    assert torch.autograd.gradcheck(frame_weights, vectors[:4].requires_grad_())


def test_the_nearer_frame(vectors) -> None:
    """One of both, well away from where it is singular, also in singular directions."""
    poles = torch.linalg.inv(edge_frames(vectors)[0, 0])[:, 1]
    for edges in (vectors, torch.stack([poles, -poles])):
        found = nearer_frame(edges)
        unit = torch.eye(3, dtype=torch.float64).expand_as(found)
        torch.testing.assert_close(found @ found.mT, unit, rtol=0, atol=1e-14)
        assert (found.unsqueeze(1) == edge_frames(edges)).all((-2, -1)).any(-1).all()


@pytest.mark.parametrize(
    ("lmax", "mmax"), [(6, 1), (11, 0), (8, 2), (4, 4), (3, 7), (11, 3), (11, 11)]
)
def test_rows_are_those_of_the_whole_matrix(lmax, mmax, vectors) -> None:
    rotations = edge_frames(vectors)
    found = wigner_rows(rotations, lmax, mmax)
    kept = [degree**2 + degree + m for degree, m in orders(lmax, min(lmax, mmax))]
    torch.testing.assert_close(found, all_rows(rotations, lmax)[..., kept, :], rtol=0, atol=1e-12)
    assert found.shape[-2] == count_rows(lmax, mmax)


@pytest.mark.parametrize("lmax", [2, 6])
def test_harmonics_turn_with_their_argument(lmax, vectors) -> None:
    """In single precision to 1e-6, of all harmonics at any point."""
    rotations = edge_frames(vectors)[:, 0]
    whole = wigner_rows(rotations, lmax, lmax)
    kept = [degree**2 + degree + m for degree, m in orders(lmax, lmax)]
    points = vectors.flip(0)
    turned = harmonics((rotations @ points.unsqueeze(-1)).squeeze(-1), lmax)[:, kept]
    found = (whole @ harmonics(points, lmax).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, turned, rtol=0, atol=1e-12)
    rough = wigner_rows(rotations.float(), lmax, 1)
    exact = wigner_rows(rotations, lmax, 1)
    torch.testing.assert_close(rough.double(), exact, rtol=0, atol=2e-6)


def test_derivatives_of_second_order(vectors) -> None:
    def rows(edges: Tensor) -> Tensor:
        return wigner_rows(edge_frames(edges), 3, 1)

    few = vectors[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(rows, few)
    assert torch.autograd.gradgradcheck(lambda x: rows(x)[..., ::3, ::4], few)


@pytest.mark.parametrize("mirrors", [1, 2])
def test_turns_are_rotations_and_mirrors_about_the_polar_axis(mirrors) -> None:
    found = torch.tensor([turn_table(m, 5, mirrors) for m in (1, 2, 3)], dtype=torch.float64)
    assert found.shape == (3, 5 * mirrors, 2, 2)
    for copy in range(5 * mirrors):
        angle = -2 * math.pi * (copy % 5) / 5
        cosine, sine = math.cos(angle), math.sin(angle)
        axes = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
        turn = torch.tensor(axes, dtype=torch.float64)
        flip = torch.diag(turn.new_tensor([-1.0 if copy >= 5 else 1.0, 1, 1]))
        for order in (1, 2, 3):
            ends = wigner(turn @ flip, order)[[0, -1]][:, [0, -1]]
            torch.testing.assert_close(found[order - 1, copy], ends, rtol=0, atol=1e-13)
