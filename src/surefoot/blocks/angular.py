"""Real spherical harmonics, their couplings and their rotations.

One convention everywhere: order m = −l … l, polar axis y, degree 1 = (x, y, z), no phase
(−1)^m, component normalisation Σ_m Y_lm² = 2l + 1. Couplings have the signs of e3nn 0.6, so that
weights of its models keep their meaning; `sign_in_e3nn_04` leads to the signs of e3nn 0.4, which
MACE's models use.

Everything here hangs on one tensor, the coupling of degrees l − 1 and 1 to l: it builds harmonics
and rotations of degree l from those of degree l − 1, and it is the gradient of a harmonic.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

MAX_DEGREE = 11  # to here the tests hold the accuracy; the formulas know no limit


def harmonics(
    vectors: Float[Tensor, "*members edges 3"], lmax: int
) -> Float[Tensor, "*members edges components"]:
    """Real spherical harmonics of the direction of each vector, differentiable to any order.

    Y_lm(v) = R_lm(v / |v|), with R_lm the harmonic polynomials of degree l, Σ_m Y_lm² = 2l + 1

    The polynomials come from R_l ∝ (R_{l−1} ⊗ v) coupled to l, which loses less accuracy than a
    recursion in Legendre functions, and their gradient is exact: a constant matrix times R_{l−1}.

    Args:
        vectors: (…, edges, 3) in any unit. With a member axis all members hold the same values;
            the polynomials are evaluated once, and each member has its own gradient.
        lmax: highest degree, 0 to 11.
    Returns:
        (…, edges, (lmax + 1)²), degree by degree, contiguous. A vector of length zero has Y_00 = 1,
        zeros in the higher degrees, and zero derivatives of any order.
    Raises:
        ValueError: lmax out of range.
    """
    _check_degree(lmax, "The highest degree of the harmonics")
    return _Polynomials.apply(_directions(vectors), lmax)  # type: ignore[no-any-return]


def clebsch_gordan(l1: int, l2: int, l3: int) -> Float[Tensor, "first second third"]:
    """The coupling of two real degrees to a third, float64, a fresh copy of the cached table.

    Σ_{m1 m2} C[m1, m2, m3] a_m1 b_m2 turns like degree l3 where a and b turn like l1 and l2;
    Σ C² = 1, and the sign is that of wigner_3j in e3nn 0.6. Where l1 + l2 + l3 is even two axes can
    be exchanged, with their degrees; where it is odd, C changes its sign in that.

    Source: Racah 1942, eq. 16, in exact integers up to one square root, then the unitary change
    from complex to real harmonics on all three axes; the factor (−i)^(l1 + l2 − l3) makes it real.

    Args:
        l1: first degree.
        l2: second degree.
        l3: degree they couple to.
    Returns:
        (2 l1 + 1, 2 l2 + 1, 2 l3 + 1).
    Raises:
        ValueError: a degree is negative, or the three make no triangle |l1 − l2| ≤ l3 ≤ l1 + l2.
    """
    if min(l1, l2, l3) < 0:
        raise ValueError(f"Degrees of a coupling are 0 or more; got {l1}, {l2} and {l3}.")
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(
            f"Degrees {l1} and {l2} couple to degrees {abs(l1 - l2)} to {l1 + l2}, not to {l3}."
        )
    return torch.tensor(_real_coupling(l1, l2, l3))


def sign_in_e3nn_04(l1: int, l2: int, l3: int) -> int:
    """The factor ±1 from `clebsch_gordan` to the coupling of the same degrees in e3nn 0.4.

    That version found its tables numerically and chose their signs: for an odd sum of degrees the
    first entry that is not zero is positive when the degrees are in ascending order. It differs
    from the analytic sign for (1, l, l) with l ≥ 2, (3, 4, 6), (4, 4, 5) and more; all of them
    couple natural parities (−1)^l to the other parity. For an even sum both agree.

    Args:
        l1: first degree.
        l2: second degree.
        l3: degree they couple to.
    Raises:
        ValueError: as `clebsch_gordan`.
    """
    ascending = clebsch_gordan(*sorted((l1, l2, l3))).flatten()
    # Entries that count are above 1e-4 up to degree 11; the others are rounding, if not zero.
    filled = ascending[ascending.abs() > 1e-12]
    return -1 if (l1 + l2 + l3) % 2 and filled[0] < 0 else 1


def wigner(
    rotations: Float[Tensor, "*batch 3 3"], degree: int
) -> Float[Tensor, "*batch size size"]:
    """The matrix D with Y_l(R v) = D_l(R) Y_l(v), as a polynomial in the entries of R.

    D_l = (2l + 1) Cᵀ (D_{l−1} ⊗ R) C with C the coupling of l − 1 and 1 to l

    No angles, so no singular directions, and derivatives of any order exist. A reflection gives
    the matrix of the harmonics, D_l(−R) = (−1)^l D_l(R).

    Args:
        rotations: (…, 3, 3) orthogonal matrices that act on columns (x, y, z).
        degree: l, 0 to 11.
    Returns:
        (…, 2l + 1, 2l + 1).
    Raises:
        ValueError: degree out of range.
    """
    _check_degree(degree, "The degree of a rotation matrix")
    batch = rotations.shape[:-2]
    matrix = rotations.new_ones((*batch, 1, 1))
    for lower in range(degree):
        step = _step(lower + 1, rotations.dtype, rotations.device)
        product = matrix[..., :, None, :, None] * rotations[..., None, :, None, :]
        square = product.reshape(*batch, step.shape[1], step.shape[1])
        # The matrix of a step is the coupling times a number; its rows have this square norm.
        matrix = step @ square @ step.mT / step[0].square().sum()
    return matrix


def _check_degree(degree: int, what: str) -> None:
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"{what} is {degree}; it has to be from 0 to {MAX_DEGREE}.")


def _directions(vectors: Float[Tensor, "*members edges 3"]) -> Float[Tensor, "*members edges 3"]:
    """Unit vectors; zero, with all derivatives, where |v|² is below the smallest normal number."""
    squares = vectors.square().sum(-1, keepdim=True)
    degenerate = squares < torch.finfo(vectors.dtype).tiny
    # Masked twice: before the root for its derivatives, after it for the value.
    inverse = squares.masked_fill(degenerate, 1.0).rsqrt().masked_fill(degenerate, 0.0)
    return vectors * inverse


class _Polynomials(torch.autograd.Function):
    """All R_lm of the vectors, evaluated once for all members."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, lmax: int) -> Tensor:
        if vectors.dim() == 2:
            values = _evaluate(vectors, lmax)
        else:
            values = _evaluate(vectors.flatten(0, -3)[0], lmax)
            # A view with stride 0 would do, but batched matrix products crawl on it.
            values = values.expand(*vectors.shape[:-2], -1, -1).contiguous()
        ctx.lmax = lmax
        ctx.save_for_backward(values)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        # The gradient of degree l needs degree l − 1 and nothing else. That stands in the output,
        # which autograd follows back to this function when a higher derivative is asked for.
        (values,) = ctx.saved_tensors
        lower = values[..., : ctx.lmax**2]
        slopes = grads[0] @ _gradient(ctx.lmax, values.dtype, values.device)
        slopes = slopes.unflatten(-1, (3, lower.shape[-1]))
        return torch.matmul(slopes, lower.unsqueeze(-1)).squeeze(-1), None


def _evaluate(vectors: Float[Tensor, "edges 3"], lmax: int) -> Float[Tensor, "edges components"]:
    """R_l = S_l (R_{l−1} ⊗ v), degree by degree, with edges along rows meanwhile: it is faster."""
    axes = vectors.T.contiguous()
    values = vectors.new_empty(((lmax + 1) ** 2, vectors.shape[0]))
    values[0] = 1.0
    for degree in range(1, lmax + 1):
        before = values[(degree - 1) ** 2 : degree**2]
        product = (before.unsqueeze(1) * axes).flatten(0, 1)
        step = _step(degree, vectors.dtype, vectors.device)
        torch.mm(step, product, out=values[degree**2 : (degree + 1) ** 2])
    return values.T.contiguous()


def _step_table(degree: int) -> Float[np.ndarray, "lower axes components"]:
    """S with R_lm = Σ S[m', d, m] R_{l−1,m'} v_d: the coupling times a number.

    The number follows from the polar axis, where only m = 0 is there and R_l0 = √(2l + 1).
    """
    coupling = _real_coupling(degree - 1, 1, degree)
    pole = coupling[degree - 1, 1, degree]
    return coupling * math.sqrt((2 * degree + 1) / (2 * degree - 1)) / pole


@cache
def _step(
    degree: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "components products"]:
    """The matrix from R_{l−1} ⊗ v to R_l, (2l + 1, (2l − 1) 3)."""
    table = _step_table(degree)
    return _constant(table.reshape(-1, 2 * degree + 1).T, dtype, device)


@cache
def _gradient(
    lmax: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "components products"]:
    """G with ∂R_i / ∂v_d = Σ_j G[i, d, j] R_j, as a matrix ((lmax + 1)², 3 lmax²).

    The gradient of a harmonic polynomial of degree l is harmonic, of degree l − 1, so it is a
    number times the coupling; Euler's v · ∇R_l = l R_l makes it l times the table of the step.
    """
    matrix = np.zeros(((lmax + 1) ** 2, 3, lmax**2))
    for degree in range(1, lmax + 1):
        here, below = slice(degree**2, (degree + 1) ** 2), slice((degree - 1) ** 2, degree**2)
        matrix[here, :, below] = degree * _step_table(degree).transpose(2, 1, 0)
    return _constant(matrix.reshape((lmax + 1) ** 2, -1), dtype, device)


def _constant(values: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A tensor born in inference mode could never again take part in a derivative.
    with torch.inference_mode(mode=False):
        return torch.tensor(values, dtype=dtype, device=device)


@cache
def _real_coupling(l1: int, l2: int, l3: int) -> Float[np.ndarray, "first second third"]:
    """The table behind `clebsch_gordan`; read-only, since all callers share it."""
    changes = _complex_from_real(l1), _complex_from_real(l2), _complex_from_real(l3).conj()
    real = np.einsum("abc,ai,bj,ck->ijk", _complex_coupling(l1, l2, l3), *changes, optimize=True)
    table = ((-1j) ** (l1 + l2 - l3) * real).real / math.sqrt(2 * l3 + 1)
    table.flags.writeable = False
    return table


def _complex_coupling(l1: int, l2: int, l3: int) -> Float[np.ndarray, "first second third"]:
    """⟨l1 m1 l2 m2 | l3 m3⟩ in the phases of Condon and Shortley.

    With a = l1 + l2 − l3, b = l1 − l2 + l3, c = l2 − l1 + l3 Racah's sum is one of integers,
    Σ_k (−1)^k binom(a, k) binom(b, l1 − m1 − k) binom(c, l2 + m2 − k).
    """
    table = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    a, b, c = l1 + l2 - l3, l1 - l2 + l3, l2 - l1 + l3
    triangle = math.prod(map(math.factorial, (l1 + l2 + l3 + 1, a, b, c)))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -l3 - m1), min(l2, l3 - m1) + 1):
            m3 = m1 + m2
            total = sum(
                (-1) ** k * math.comb(a, k) * math.comb(b, l1 - m1 - k) * math.comb(c, l2 + m2 - k)
                for k in range(min(a, l1 - m1, l2 + m2) + 1)
            )
            orders = (l1 + m1, l1 - m1, l2 + m2, l2 - m2, l3 + m3, l3 - m3)
            square = (2 * l3 + 1) * math.prod(map(math.factorial, orders))
            table[l1 + m1, l2 + m2, l3 + m3] = total * math.sqrt(square / triangle)
    return table


def _complex_from_real(degree: int) -> Complex[np.ndarray, "size size"]:
    """U with Y_complex = U Y_real: √½ (−1)^m (Y_m + i Y_−m) at m > 0, √½ (Y_m − i Y_−m) at −m."""
    change = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)
    change[degree, degree] = 1.0
    for m in range(1, degree + 1):
        places = [degree + m, degree - m]
        change[degree + m, places] = np.array([1, 1j]) * (-1) ** m * math.sqrt(0.5)
        change[degree - m, places] = np.array([1, -1j]) * math.sqrt(0.5)
    return change
