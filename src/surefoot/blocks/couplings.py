"""Irreducible representations of O(3), and the equivariant polynomials that couple them.

Features of a row carry irreps. The products of n copies of them that turn with an output irrep
form the space of equivariant maps Sym^n(V) → output; `symmetric_couplings` gives an orthonormal
basis of it, as a list of monomials and their coefficients. A monomial stands for all orders of its
factors, so the list is up to n! times shorter than the symmetric tensor, and zeros are left out.

V is a sum of irreps, so Sym^n(V) is a sum over contents: how often each irrep is a factor. Contents
share no monomials. Inside a content the powers of different irreps are coupled by Clebsch-Gordan
coefficients, which keeps them orthonormal; only within the power of one irrep are products of a
lower power and one more factor linearly dependent, and are orthonormalised.

Source: the symmetric products of Batatia et al. 2022 (MACE), eq. 10, and of Dusson et al. 2022.
Differs: complete and linearly independent, where generalised Clebsch-Gordan tensors are neither
symmetric nor independent.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from surefoot.blocks.angular import clebsch_gordan

NEGLIGIBLE = 1e-12  # coefficients below are rounding errors of an exact zero
DEPENDENT = 1e-10  # squared norm left of a candidate, relative to its factors: rounding is 1e-30
TIED = 1e-6  # squared norms closer than this are equal, so that rounding decides nothing
OUTSIDE = 1e-9  # relative residual above which a foreign tensor is not in the span

TERM = re.compile(r"(?:(\d+)\s*x\s*)?(\d+)([eo])")


@dataclass(frozen=True)
class Irrep:
    """An irreducible representation of O(3): 2 degree + 1 components of one parity.

    Args:
        degree: l, not negative.
        parity: 1 (even) or −1 (odd) under inversion.
    Raises:
        ValueError: for any other degree or parity.
    """

    degree: int
    parity: int

    def __post_init__(self) -> None:
        if self.degree < 0 or self.parity not in (1, -1):
            raise ValueError(
                f"an irrep of degree {self.degree} and parity {self.parity} does not exist; the "
                "degree is 0 or more, the parity 1 or -1."
            )

    def __str__(self) -> str:
        return f"{self.degree}{'e' if self.parity == 1 else 'o'}"

    @property
    def dim(self) -> int:
        """The number of components, 2 degree + 1."""
        return 2 * self.degree + 1

    @property
    def natural(self) -> bool:
        """Whether the parity is (−1)^degree, as that of the spherical harmonics."""
        return self.parity == (-1) ** self.degree


Irreps = tuple[Irrep, ...]
"""Irreps whose components follow each other."""

Multiplicities = tuple[tuple[int, Irrep], ...]
"""Irreps with the number of channels of each."""


def _place(irrep: Irrep) -> tuple[bool, int]:
    """Where an irrep stands in the house layout: natural parity first, then by degree."""
    return not irrep.natural, irrep.degree


def parse_irreps(text: str) -> Multiplicities:
    """Irreps and their multiplicities from text such as "64x0e + 64x1o", in the house layout.

    A missing multiplicity is 1; multiplicities of one irrep are added.

    Raises:
        ValueError: if a term is not understood or a multiplicity is 0.
    """
    counts: dict[Irrep, int] = {}
    for term in text.split("+"):
        match = TERM.fullmatch(term.strip())
        if match is None:
            raise ValueError(
                f"'{term.strip()}' in the irreps '{text}' is not understood; write "
                "<multiplicity>x<degree><e or o> joined by +, such as 64x0e + 64x1o."
            )
        multiplicity = int(match[1] or 1)
        if multiplicity == 0:
            raise ValueError(
                f"'{term.strip()}' in the irreps '{text}' has no channels; the multiplicity is "
                "at least 1, or the term is left out."
            )
        irrep = Irrep(int(match[2]), 1 if match[3] == "e" else -1)
        counts[irrep] = counts.get(irrep, 0) + multiplicity
    return tuple((counts[irrep], irrep) for irrep in sorted(counts, key=_place))


def format_irreps(irreps: Multiplicities) -> str:
    """The text that `parse_irreps` reads, such as "64x0e + 64x1o"."""
    return " + ".join(f"{multiplicity}x{irrep}" for multiplicity, irrep in irreps)


def couple_irreps(first: Irrep, second: Irrep) -> Irreps:
    """The irreps in the product of two: degrees |l1 − l2| … l1 + l2, by degree."""
    parity = first.parity * second.parity
    degrees = range(abs(first.degree - second.degree), first.degree + second.degree + 1)
    return tuple(Irrep(degree, parity) for degree in degrees)


@dataclass(frozen=True, eq=False)
class SymmetricCouplings:
    """An orthonormal basis of the equivariant maps from a symmetric power to one irrep.

    B_k^M(A) = Σ_t values[k, t, M] Π_i A[monomials[t, i]]

    Args:
        inputs: the irreps of A, each once, in the house layout.
        output: the irrep of B.
        order: the number n of factors.
        monomials: (terms, order) components of A, rows rising and in lexicographic order; those
            that no map has are left out.
        values: (paths, terms, 2L+1) coefficients. The symmetric tensors behind them have the
            inner products δ_kk' δ_MM' / n!.
    """

    inputs: Irreps
    output: Irrep
    order: int
    monomials: Int[np.ndarray, "terms order"]
    values: Float[np.ndarray, "paths terms components"]

    @property
    def dim(self) -> int:
        """The number of components of the inputs."""
        return sum(irrep.dim for irrep in self.inputs)


@functools.cache
def symmetric_couplings(inputs: Irreps, output: Irrep, order: int) -> SymmetricCouplings:
    """A complete, minimal, orthonormal basis of the equivariant maps Sym^n(inputs) → output.

    The inner products of the symmetric tensors T are ⟨T_k^M, T_k'^M'⟩ = δ_kk' δ_MM' / n!. If the
    components of A are independent Gaussians of unit variance, the part of B of degree n in them
    (without contractions of A with itself) has unit variance.

    Paths are sorted by content (how often each input is a factor) and signed such that the first
    coefficient of each is positive: the same in every process. Results are shared and read-only.

    Args:
        inputs: irreps, each once, in the house layout: natural parity by degree, then the others.
        output: the irrep to couple to.
        order: n, the number of factors, at least 1.
    Raises:
        ValueError: if the inputs are not in the house layout or the order is below 1.
    """
    if list(inputs) != sorted(set(inputs), key=_place):
        raise ValueError(
            f"the inputs {' + '.join(map(str, inputs))} are not in order; each irrep may be there "
            "once, first those of parity (-1)^degree by degree, then the others by degree."
        )
    if order < 1:
        raise ValueError(f"a product of order {order} has no factors; the order is at least 1.")
    blocks = [
        (components[_monomials(groups)], values)
        for groups, components in _contents(inputs, output.parity, order)
        if len(values := _equivariants(groups, output.degree))
    ]
    return _assemble(inputs, output, order, blocks)


def project_couplings(
    couplings: SymmetricCouplings, foreign: Float[np.ndarray, "..."], tolerance: float = OUTSIDE
) -> Float[np.ndarray, "paths foreign"]:
    """Another package's coupling tensors in this basis, to convert the weights that go with them.

    Finds T with  U_k'(A) = Σ_k B_k(A) T[k, k']  for all A, so that weights w' of the foreign paths
    become T w'. The tensors need not be symmetric: only the symmetric part acts on one A.

    Args:
        couplings: the basis, with the same inputs, output and order.
        foreign: (dim, …, dim, 2L+1, foreign), one axis per factor; double precision.
        tolerance: relative size of what may lie outside the span; more for tensors that were
            stored in single precision.
    Raises:
        ValueError: if the shape does not fit, or the tensors are not in the span of the basis.
    """
    dim, order = couplings.dim, couplings.order
    shape = (dim,) * order + (couplings.output.dim,)
    if foreign.shape[:-1] != shape:
        raise ValueError(
            f"foreign coupling tensors of shape {foreign.shape} do not fit; expected {shape} and "
            "one last axis of paths."
        )
    flat = np.asarray(foreign, dtype=np.float64).reshape(dim**order, shape[-1], -1)
    rising = np.sort(np.indices((dim,) * order).reshape(order, -1).T, axis=1)
    coefficients = np.zeros_like(flat)
    np.add.at(coefficients, np.ravel_multi_index(tuple(rising.T), (dim,) * order), flat)

    rows = np.ravel_multi_index(tuple(couplings.monomials.T), (dim,) * order)
    dual = couplings.values / _permutations(couplings.monomials)[:, None]
    scale = math.factorial(order) / shape[-1]
    projection = scale * np.einsum("ktM,tMf->kf", dual, coefficients[rows])
    coefficients[rows] -= np.einsum("ktM,kf->tMf", couplings.values, projection)
    rest = np.sqrt(np.square(coefficients).sum((0, 1)))
    size = np.sqrt(np.square(flat).sum((0, 1)))
    residual = float(np.max(rest / np.where(size > 0, size, 1.0), initial=0.0))
    if residual > tolerance:
        raise ValueError(
            f"the foreign coupling tensors are not equivariant maps to {couplings.output}: "
            f"relative residual {residual:.1e}, allowed {tolerance:.0e}; check the order of the "
            "components, the parities and that the tensors are double precision."
        )
    return projection


Groups = tuple[tuple[int, int], ...]
"""A content: degree of each irrep that is a factor, and how often it is one."""


def _contents(
    inputs: Irreps, parity: int, order: int
) -> Iterator[tuple[Groups, Int[np.ndarray, " present"]]]:
    """Contents of this order and parity, each with the components of the irreps in it."""
    ends = np.cumsum([irrep.dim for irrep in inputs])
    slices = [np.arange(end - irrep.dim, end) for end, irrep in zip(ends, inputs, strict=True)]
    for chosen in itertools.combinations_with_replacement(range(len(inputs)), order):
        if math.prod(inputs[index].parity for index in chosen) == parity:
            present = sorted(set(chosen))
            groups = tuple((inputs[index].degree, chosen.count(index)) for index in present)
            yield groups, np.concatenate([slices[index] for index in present])


@functools.cache
def _monomials(groups: Groups) -> Int[np.ndarray, "terms order"]:
    """All monomials of a content in lexicographic order; components count from its first irrep."""
    starts = np.cumsum([0, *(2 * degree + 1 for degree, _ in groups)]).tolist()
    powers = [
        list(itertools.combinations_with_replacement(range(start, end), count))
        for start, end, (_, count) in zip(starts[:-1], starts[1:], groups, strict=True)
    ]
    rows = [list(itertools.chain(*row)) for row in itertools.product(*powers)]
    return np.array(rows, dtype=np.int64)


@functools.cache
def _equivariants(groups: Groups, output: int) -> Float[np.ndarray, "paths terms components"]:
    """Orthonormal maps of a content to one degree, as coefficients of its monomials.

    Splits off the last irrep's power, or one factor if there is no other irrep. Every map is a sum
    of couplings of the two parts' maps, since multiplying polynomials of the two parts gives all.
    """
    monomials = _monomials(groups)
    (degree, count), alone = groups[-1], len(groups) == 1
    if alone and count == 1:
        return np.eye(2 * degree + 1)[None] if degree == output else _nothing(monomials, output)
    left: Groups = ((degree, count - 1),) if alone else groups[:-1]
    right: Groups = ((degree, 1),) if alone else groups[-1:]
    candidates = list(_couple(left, right, output))
    if not candidates:
        return _nothing(monomials, output)
    products = np.concatenate(candidates)
    if alone:
        products = _collect(products, degree, count)
    factors = math.factorial(sum(n for _, n in left)) * math.factorial(sum(n for _, n in right))
    return _orthonormalise(products, monomials, DEPENDENT / factors)


def _nothing(
    monomials: Int[np.ndarray, "terms order"], output: int
) -> Float[np.ndarray, "0 terms components"]:
    """No maps at all."""
    return np.zeros((0, len(monomials), 2 * output + 1))


def _couple(
    left: Groups, right: Groups, output: int
) -> Iterator[Float[np.ndarray, "products terms components"]]:
    """Products of the two parts' maps; terms are pairs of monomials, the left one slower."""
    highest = sum(degree * count for degree, count in left)
    for second in range(sum(degree * count for degree, count in right) + 1):
        lowest = abs(output - second)
        if lowest > highest or not len(b := _equivariants(right, second)):
            continue
        for first in range(lowest, min(output + second, highest) + 1):
            a = _equivariants(left, first)
            if len(a):
                coefficients = clebsch_gordan(first, second, output).numpy()
                half = np.tensordot(a, coefficients, 1)
                product = np.einsum("atnM,bun->abtuM", half, b)
                yield product.reshape(len(a) * len(b), -1, 2 * output + 1)


def _collect(
    products: Float[np.ndarray, "products pairs components"], degree: int, count: int
) -> Float[np.ndarray, "products terms components"]:
    """Adds up the terms (monomial of count − 1 factors) × (component) that are one monomial."""
    dim = 2 * degree + 1
    lower = _monomials(((degree, count - 1),))
    pairs = np.hstack([np.repeat(lower, dim, 0), np.tile(np.arange(dim), len(lower))[:, None]])
    # Ranks of rising rows in base dim are in lexicographic order, as the monomials are.
    ranks = np.ravel_multi_index(tuple(np.sort(pairs, axis=1).T), (dim,) * count)
    found, places = np.unique(ranks, return_inverse=True)
    sums = np.zeros((len(found), len(products), products.shape[2]))
    np.add.at(sums, places, products.transpose(1, 0, 2))
    return sums.transpose(1, 0, 2)


def _permutations(monomials: Int[np.ndarray, "terms order"]) -> Float[np.ndarray, " terms"]:
    """The number of distinct orders of each monomial's factors: n! / Π (multiplicity)!."""
    order = monomials.shape[1]
    run = np.ones(len(monomials))
    repeats = np.ones(len(monomials))
    for i in range(1, order):
        run = np.where(monomials[:, i] == monomials[:, i - 1], run + 1, 1)
        repeats *= run
    return math.factorial(order) / repeats


def _orthonormalise(
    candidates: Float[np.ndarray, "candidates terms components"],
    monomials: Int[np.ndarray, "terms order"],
    dependent: float,
) -> Float[np.ndarray, "paths terms components"]:
    """A basis of the candidates' span, by Gram-Schmidt that takes the largest remainder first.

    Among equal remainders the first is taken, so that the basis does not depend on rounding.
    Equivariance makes all components of a map equally long, and orthogonal to other components of
    any map: orthogonality of the sums over components is enough.
    """
    _, terms, dim = candidates.shape
    roots = np.sqrt(_permutations(monomials))[:, None]
    rest = (candidates / roots).reshape(len(candidates), -1)
    basis = np.zeros((0, terms * dim))
    while (sizes := np.square(rest).sum(1)).max() > dependent:
        pick = int(np.argmax(sizes > (1 - TIED) * sizes.max()))
        vector = rest[pick] - (basis @ rest[pick]) @ basis
        vector /= np.linalg.norm(vector)
        vector *= np.sign(vector[np.argmax(np.abs(vector) > NEGLIGIBLE)])
        rest = rest - np.outer(rest @ vector, vector)
        basis = np.vstack([basis, vector])
    scale = math.sqrt(dim / math.factorial(monomials.shape[1]))
    values = scale * roots * basis.reshape(-1, terms, dim)
    return np.where(np.abs(values) < NEGLIGIBLE, 0.0, values)


def _assemble(
    inputs: Irreps,
    output: Irrep,
    order: int,
    blocks: list[tuple[Int[np.ndarray, "_ order"], Shaped[np.ndarray, "_ _ components"]]],
) -> SymmetricCouplings:
    """Blocks of different monomials as one basis; drops monomials that no path has.

    Nearly all values are zero, of which there may be gigabytes: each is written once or not at all.
    """
    kept = [block.any((0, 2)) for _, block in blocks]
    rows = [monomials[keep] for (monomials, _), keep in zip(blocks, kept, strict=True)]
    monomials = np.concatenate([np.zeros((0, order), np.int64), *rows])
    ranks = np.lexsort(monomials.T[::-1])
    places = np.empty_like(ranks)
    places[ranks] = np.arange(len(ranks))
    paths = sum(len(block) for _, block in blocks)
    values = np.zeros((paths, len(monomials), output.dim))
    path = term = 0
    for (_, block), keep in zip(blocks, kept, strict=True):
        terms = int(keep.sum())
        chosen = places[term : term + terms]
        values[path : path + len(block), chosen] = block[:, keep]
        path, term = path + len(block), term + terms
    monomials = monomials[ranks]
    for array in (monomials, values):
        array.flags.writeable = False
    return SymmetricCouplings(inputs, output, order, monomials, values)
