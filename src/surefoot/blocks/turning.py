"""Coefficients of atoms in the frames of their edges, and back: rotations split by degree.

    out_e[m] = Σ_k D_e[m, k] x_{a(e)}[k]          within each degree, channel by channel

A rotation leaves degrees apart, so of each edge only the blocks D_l are kept, rows |m| ≤ mmax, as
`frames.wigner_blocks` gives them: Σ_l (2 min(l, mmax) + 1)(2l + 1) numbers, which is what a
coefficient of an edge costs too. Rows come out by order, as `frames.orders` has them.

With a cotangent g this is a form linear in g, D and x. Its three derivatives are the rotation, its
transpose summed over the edges of each atom, and the slope of D: one kernel in C each, to any
order, and nothing is ever gathered to edges.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.blocks.forms import without
from surefoot.blocks.frames import by_degree, count_rows
from surefoot.blocks.native import address, kernels, share
from surefoot.compilation import operator
from surefoot.segments import Segments, gather, segment_sum

LEAST = 64  # fewer edges, or atoms, than this are not worth a thread of their own
HIGHEST = 11  # degree; the kernels keep the components of one, WIDEST in turns.h, at hand
OUTPUT, MATRIX, ATOMS = range(3)
"""The factors g, D and x."""


@dataclass(frozen=True, eq=False)
class Ends:
    """The atoms at one or both ends of each edge, as arrays with a leading axis of ends.

    Attributes:
        atoms: (ends, edges) which they are.
        order: (ends, edges) sorts the edges by the atom at this end.
        offsets: (ends, atoms + 1) where the edges of each atom begin in that order.
    """

    atoms: Int[Tensor, "ends edges"]
    order: Int[Tensor, "ends edges"]
    offsets: Int[Tensor, "ends bounds"]

    def side(self, end: int) -> Segments:
        """The edges by the atom at one end."""
        return Segments(index=self.atoms[end], offsets=self.offsets[end], order=self.order[end])

    def only(self, end: int) -> Ends:
        """One end alone."""
        part = slice(end, end + 1)
        return Ends(self.atoms[part], self.order[part], self.offsets[part])

    def repeat(self, count: int) -> Ends:
        """Each edge so many times in a row."""
        if count == 1:
            return self
        copies = torch.arange(count, device=self.order.device)
        order = (count * self.order.unsqueeze(-1) + copies).flatten(-2)
        return Ends(self.atoms.repeat_interleave(count, dim=-1), order, count * self.offsets)


def ends_of(*sides: Segments) -> Ends:
    """Both ends of edges, or one: edges by the atom there."""
    place = torch.arange(sides[0].index.shape[0], device=sides[0].index.device)
    orders = [place if side.order is None else side.order for side in sides]
    return Ends(
        torch.stack([side.index for side in sides]),
        torch.stack(orders),
        torch.stack([side.offsets for side in sides]),
    )


def turn(
    x: Float[Tensor, "*members atoms components channels"],
    matrices: Float[Tensor, "*members edges entries"],
    ends: Ends,
    lmax: int,
    mmax: int,
) -> Float[Tensor, "*members edges rows wide"]:
    """Coefficients of the atoms at the ends of each edge, in the edge's frame; see the top.

    Args:
        x: (…, atoms, components, channels), degrees lmax and more.
        matrices: of `wigner_blocks`.
        ends: of the edges; channels of the ends stand side by side in the result.
        lmax: highest degree that is turned.
        mmax: highest order that is kept, at most lmax.
    """
    if kernels(x, matrices) is None:
        parts = [_turn(gather(x, ends.side(n), axis=-3), matrices, lmax, mmax) for n in _each(ends)]
        return torch.cat(parts, dim=-1)
    return _without(OUTPUT, matrices, x, ends, lmax, mmax, x.shape[-2])


def turn_back(
    x: Float[Tensor, "*members edges rows wide"],
    matrices: Float[Tensor, "*members edges entries"],
    ends: Ends,
    lmax: int,
    mmax: int,
    components: int,
) -> Float[Tensor, "*members atoms components channels"]:
    """The transpose of `turn`: what edges say in their frames, summed at the atoms of their ends.

    Args:
        x: (…, edges, rows, ends · channels).
        matrices: of `wigner_blocks`.
        ends: of the edges.
        lmax: highest degree that is turned.
        mmax: highest order that is there, at most lmax.
        components: of the result, (lmax + 1)² or more; zero above.
    """
    if kernels(x, matrices) is None:
        parts = x.chunk(ends.atoms.shape[0], dim=-1)
        sums = [
            segment_sum(_back(part, matrices, lmax, mmax), ends.side(n), axis=-3)
            for n, part in zip(_each(ends), parts, strict=True)
        ]
        missing = components - (lmax + 1) ** 2
        return torch.nn.functional.pad(torch.stack(sums).sum(0), (0, 0, 0, missing))
    return _without(ATOMS, x, matrices, ends, lmax, mmax, components)


def _each(ends: Ends) -> range:
    return range(ends.atoms.shape[0])


def _turn(x: Tensor, matrices: Tensor, lmax: int, mmax: int) -> Tensor:
    """The same in plain torch: degree by degree, of coefficients that are at the edges already."""
    sizes = [2 * degree + 1 for degree in range(lmax + 1)]
    parts = zip(
        _blocks(matrices, lmax, mmax), x[..., : sum(sizes), :].split(sizes, -2), strict=True
    )
    turned = torch.cat([block @ part for block, part in parts], dim=-2)
    return turned.index_select(-2, _places(lmax, mmax, x.device)[0])


def _back(x: Tensor, matrices: Tensor, lmax: int, mmax: int) -> Tensor:
    kept = [2 * min(degree, mmax) + 1 for degree in range(lmax + 1)]
    rows = x.index_select(-2, _places(lmax, mmax, x.device)[1])
    parts = zip(_blocks(matrices, lmax, mmax), rows.split(kept, -2), strict=True)
    return torch.cat([block.mT @ part for block, part in parts], dim=-2)


def _blocks(matrices: Tensor, lmax: int, mmax: int) -> list[Tensor]:
    shapes = [(2 * min(degree, mmax) + 1, 2 * degree + 1) for degree in range(lmax + 1)]
    parts = matrices.split([rows * size for rows, size in shapes], dim=-1)
    return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]


def count_entries(lmax: int, mmax: int) -> int:
    """Numbers that an edge's rotation is kept as."""
    return sum((2 * min(degree, mmax) + 1) * (2 * degree + 1) for degree in range(lmax + 1))


@cache
def _places(lmax: int, mmax: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows by degree of the rows by order, and the other way round."""
    with torch.inference_mode(mode=False):
        index = torch.tensor(by_degree(lmax, mmax), device=device)
        return index, torch.argsort(index)


class _Plan(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("atoms", "order", "offsets", "places")),
        *((name, ctypes.c_int64) for name in ("edges", "atom_count")),
        *(
            (name, ctypes.c_int32)
            for name in ("lmax", "mmax", "ends", "rows", "entries", "components", "channels")
        ),
    )


def _empty(
    slot: int,
    a: Tensor,
    b: Tensor,
    atoms: Tensor,
    order: Tensor,  # noqa: ARG001
    offsets: Tensor,
    sizes: Sequence[int],
) -> Tensor:
    lmax, mmax, components = sizes
    ends, edges = atoms.shape
    if slot == OUTPUT:  # from D and x
        shape = (*a.shape[:-2], edges, count_rows(lmax, mmax), ends * b.shape[-1])
    elif slot == MATRIX:  # from g and x
        shape = (*a.shape[:-3], edges, count_entries(lmax, mmax))
    else:  # from g and D
        shape = (*a.shape[:-3], offsets.shape[-1] - 1, components, a.shape[-1] // ends)
    return a.new_empty(shape)


def _run(
    slot: int,
    a: Tensor,
    b: Tensor,
    atoms: Tensor,
    order: Tensor,
    offsets: Tensor,
    sizes: Sequence[int],
) -> Tensor:
    """The form without one factor; the other two in the order g, D, x."""
    library = kernels(a, b)
    if library is None:
        raise RuntimeError("a derivative was asked for where the kernels are not to be used.")
    a, b, atoms, order, offsets = (v.contiguous() for v in (a, b, atoms, order, offsets))
    out = _empty(slot, a, b, atoms, order, offsets, sizes)
    g, matrices, x = _factors(slot, a, b, out)
    plan = _plan(g, matrices, x, atoms, order, offsets, sizes)
    kernel = (library.turns_in, library.turns_slope, library.turns_back)[slot]
    count = plan.atom_count if slot == ATOMS else plan.edges
    members = matrices.dim() > 2
    for parts in zip(a, b, out, strict=True) if members else [(a, b, out)]:
        places = [address(part) for part in parts]

        def work(begin: int, end: int, places: list[ctypes.c_void_p] = places) -> None:
            kernel(ctypes.byref(plan), *places, ctypes.c_int64(begin), ctypes.c_int64(end))

        share(count, LEAST, work)
    return out


def _factors(slot: int, a: Tensor, b: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    factors = [a, b]
    factors.insert(slot, out)
    return factors[0], factors[1], factors[2]


def _plan(
    g: Tensor,
    matrices: Tensor,
    x: Tensor,
    atoms: Tensor,
    order: Tensor,
    offsets: Tensor,
    sizes: Sequence[int],
) -> _Plan:
    """What the kernels need to know.

    They read raw memory: what does not fit would be read past its end.
    """
    lmax, mmax, components = sizes
    if not 0 <= mmax <= lmax <= HIGHEST:
        raise ValueError(f"lmax: {lmax} and mmax: {mmax}; 0 ≤ mmax ≤ lmax ≤ {HIGHEST} is allowed.")
    (ends, edges), channels = atoms.shape, x.shape[-1]
    rows, entries = count_rows(lmax, mmax), count_entries(lmax, mmax)
    fits = (
        g.shape[-3:] == (edges, rows, ends * channels)
        and matrices.shape[-2:] == (edges, entries)
        and x.shape[-3:-1] == (offsets.shape[-1] - 1, components)
        and components >= (lmax + 1) ** 2
        and order.shape == atoms.shape
        and offsets.shape[0] == ends
        and g.shape[:-3] == matrices.shape[:-2] == x.shape[:-3]
    )
    if not fits:
        raise ValueError(
            f"coefficients {tuple(x.shape)} of atoms and {tuple(g.shape)} of edges do not fit to "
            f"rotations {tuple(matrices.shape)} at {ends} ends of {edges} edges."
        )
    count = offsets.shape[-1] - 1
    _require_order(atoms, order, offsets)
    places = _places(lmax, mmax, g.device)[1]
    tables = (address(table) for table in (atoms, order, offsets, places))
    sizes_of_rows = (lmax, mmax, ends, rows, entries, components, channels)
    return _Plan(*tables, edges, count, *sizes_of_rows)


def _require_order(atoms: Tensor, order: Tensor, offsets: Tensor) -> None:
    """Refuse edges that are sorted by something else than their atoms."""
    edges, count = atoms.shape[-1], offsets.shape[-1] - 1
    bounded = bool((offsets[:, 0] == 0).all()) and bool((offsets[:, -1] == edges).all())
    if not bounded or bool((offsets[:, 1:] < offsets[:, :-1]).any()):
        raise ValueError(
            f"{edges} edges are given, but the offsets of their atoms do not rise from 0 to that."
        )
    if edges and (int(order.min()) < 0 or int(order.max()) >= edges):
        raise ValueError(
            f"an order of {edges} edges names edges {int(order.min())} to {int(order.max())}."
        )
    if edges and (int(atoms.min()) < 0 or int(atoms.max()) >= count):
        raise ValueError(
            f"edges end at atoms {int(atoms.min())} to {int(atoms.max())}; there are {count}."
        )


_form = operator(
    "turns(int slot, Tensor a, Tensor b, Tensor atoms, Tensor order, Tensor offsets, int[] sizes)"
    " -> Tensor",
    _run,
    _empty,
)


def _without(
    slot: int, a: Tensor, b: Tensor, ends: Ends, lmax: int, mmax: int, components: int
) -> Tensor:
    arrays, sizes = (ends.atoms, ends.order, ends.offsets), (lmax, mmax, components)
    return without(lambda left, *two: _form(left, *two, *arrays, sizes), slot, a, b)
