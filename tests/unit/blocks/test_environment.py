"""Products with the environment against the plain sum over paths, and their laws."""

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

from surefoot.blocks import environment as module
from surefoot.blocks.angular import clebsch_gordan, wigner
from surefoot.blocks.couplings import Irreps, parse_irreps
from surefoot.blocks.environment import (
    EnvironmentCouplings,
    couple_environment,
    environment_couplings,
    multiply_rows,
)
from surefoot.blocks.native import plain_only
from surefoot.segments import Segments

COUNTS = (0, 1, 7, 8, 0, 17, 3, 0)
"""Rows of each atom."""


def irreps(text: str) -> Irreps:
    return tuple(irrep for _, irrep in parse_irreps(text))


NATURAL = irreps("0e + 1o + 2e")
BOTH = irreps("0e + 1o + 2e + 1e + 2o")


def segments(counts: tuple[int, ...]) -> Segments:
    lengths = torch.tensor(counts)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return Segments(
        index=torch.repeat_interleave(torch.arange(len(counts)), lengths), offsets=offsets
    )


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def operands(
    generator: torch.Generator,
    couplings: EnvironmentCouplings,
    counts: tuple[int, ...] = COUNTS,
    channels: int = 3,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, environment and weights."""
    second, first, _ = couplings.path.shape
    return (
        normal(generator, sum(counts), first, channels),
        normal(generator, len(counts), second, channels),
        normal(generator, len(couplings.paths), channels),
    )


def starts(of: Irreps) -> list[int]:
    found = [0]
    for irrep in of:
        found.append(found[-1] + irrep.dim)
    return found


def plain(
    rows: Tensor,
    environment: Tensor,
    weights: Tensor,
    couplings: EnvironmentCouplings,
    at: Segments,
) -> Tensor:
    """The formula: a product of each row with its atom's environment, path by path."""
    ones, twos, threes = map(starts, (couplings.inputs, couplings.environment, couplings.outputs))
    out = rows.new_zeros(rows.shape[0], threes[-1], rows.shape[-1])
    for path, (a, b, c) in enumerate(couplings.paths):
        third = couplings.outputs[c]
        degrees = couplings.inputs[a].degree, couplings.environment[b].degree, third.degree
        x = rows[:, ones[a] : ones[a + 1]]
        y = environment[at.index][:, twos[b] : twos[b + 1]]
        product = torch.einsum("ijk,eic,ejc->ekc", clebsch_gordan(*degrees), x, y)
        out[:, threes[c] : threes[c + 1]] += math.sqrt(third.dim) * weights[path] * product
    return out


@pytest.mark.parametrize(
    ("inputs", "outputs", "count"),
    [
        (NATURAL, NATURAL, 11),
        (NATURAL, BOTH, 15),
        (BOTH, BOTH, 25),
        (NATURAL, irreps("0e"), 3),
        (irreps("0e"), irreps("0e"), 1),
    ],
)
@pytest.mark.parametrize("channels", [3, 19])  # fewer and more than a vector holds
@pytest.mark.parametrize("form", [nullcontext, plain_only])
def test_plain_sum_over_paths(generator, inputs, outputs, count, channels, form) -> None:
    """Values, first and second derivatives, by kernels and without."""
    couplings = environment_couplings(inputs, NATURAL, outputs)
    assert len(couplings.paths) == count
    at = segments(COUNTS)
    leaves = [value.requires_grad_() for value in operands(generator, couplings, channels=channels)]
    with form():
        found = couple_environment(*leaves, couplings, at)
    expected = plain(*leaves, couplings, at)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    probe = normal(generator, *found.shape)
    slopes = [
        grad((value.tanh() * probe).sum(), leaves, create_graph=True) for value in (found, expected)
    ]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    curvatures = [grad(sum(s.square().sum() for s in slope), leaves) for slope in slopes]
    for one, other in zip(*curvatures, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_multiplication_to_second_order(generator) -> None:
    counts = (2, 0, 9)
    at = segments(counts)
    rows = normal(generator, sum(counts), 2, 2).requires_grad_()
    matrices = normal(generator, len(counts), 2, 3, 2).requires_grad_()

    def product(x: Tensor, m: Tensor) -> Tensor:
        return multiply_rows(x, m, at)

    assert gradcheck(product, (rows, matrices))
    assert gradgradcheck(product, (rows, matrices))


@pytest.mark.parametrize("counts", [COUNTS, (0, 0)])
def test_members_equal_a_loop(generator, counts) -> None:
    couplings = environment_couplings(NATURAL, NATURAL, BOTH)
    members = [operands(generator, couplings, counts) for _ in range(3)]
    at = segments(counts)
    stacked = [torch.stack(parts).requires_grad_() for parts in zip(*members, strict=True)]
    together = couple_environment(*stacked, couplings, at)
    slopes = grad(together.square().sum(), stacked)
    for index, parts in enumerate(members):
        leaves = [part.requires_grad_() for part in parts]
        alone = couple_environment(*leaves, couplings, at)
        torch.testing.assert_close(together[index], alone, rtol=1e-13, atol=1e-13)
        for one, other in zip(slopes, grad(alone.square().sum(), leaves), strict=True):
            torch.testing.assert_close(one[index], other, rtol=1e-12, atol=1e-12)


def turn(values: Tensor, of: Irreps, matrix: Tensor) -> Tensor:
    """Components under an orthogonal matrix; a reflection takes the parity of each irrep."""
    sign = torch.linalg.det(matrix).round()
    parts, at = [], starts(of)
    for index, irrep in enumerate(of):
        by = wigner(sign * matrix, irrep.degree)
        flip = irrep.parity if sign < 0 else 1
        parts.append(flip * torch.einsum("ab,ebc->eac", by, values[:, at[index] : at[index + 1]]))
    return torch.cat(parts, 1)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rotation", "rotation and inversion"])
def test_equivariance(generator, sign) -> None:
    couplings = environment_couplings(BOTH, NATURAL, BOTH)
    rows, environment, weights = operands(generator, couplings)
    orthogonal = torch.linalg.qr(normal(generator, 3, 3))[0]
    matrix = orthogonal * torch.linalg.det(orthogonal) * sign
    at = segments(COUNTS)
    before = couple_environment(rows, environment, weights, couplings, at)
    turned = couple_environment(
        turn(rows, BOTH, matrix), turn(environment, NATURAL, matrix), weights, couplings, at
    )
    torch.testing.assert_close(turned, turn(before, BOTH, matrix), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", ["0e 0e 0e", "1o 2e 1o", "2e 2e 0e", "1o 1o 2e", "2o 1o 1e"])
def test_unit_variance_stays_unit_variance_along_a_path(generator, path) -> None:
    couplings = environment_couplings(*(irreps(name) for name in path.split()))
    counts = (1,) * 20_000
    rows, environment, _ = operands(generator, couplings, counts)
    weights = torch.ones(1, 3, dtype=torch.float64)
    found = couple_environment(rows, environment, weights, couplings, segments(counts))
    torch.testing.assert_close(
        found.square().mean((0, 2)), torch.ones_like(found[0, :, 0]), rtol=0.05, atol=0
    )


def test_shapes_that_do_not_fit_are_refused(generator) -> None:
    """Never read past the end of anything."""
    at = segments((2, 3))
    rows, matrices = normal(generator, 5, 4, 3), normal(generator, 2, 4, 6, 3)
    run = partial(module._run, module.OUTPUT, offsets=at.offsets)
    assert run(rows, matrices).shape == (5, 6, 3)
    with pytest.raises(ValueError, match="do not fit"):
        run(rows[:, :3], matrices)
    with pytest.raises(ValueError, match="1 matrices are given for 2 atoms"):
        run(rows, matrices[:1])
    with pytest.raises(ValueError, match="4 rows are given, but the atoms have 5"):
        run(rows[:4], matrices)
