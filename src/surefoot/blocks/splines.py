"""Functions of a distance as splines: what a trained radial network says, looked up in a table.

Between knots a polynomial of degree 5 takes value, slope and curvature from both ends, so the
spline is twice continuously differentiable and knows of no other knot; its error is of sixth order
in the spacing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.forms import without
from surefoot.blocks.native import address, kernels, share
from surefoot.compilation import operator

FEWEST_KNOTS, MOST_KNOTS = 81, 1281
ACCURACY = (1e-8, 1e-6)
"""Of values and slopes between knots, as a share of the largest."""
FARTHEST_OFF = (0.5 - 0.5 / 5**0.5, 0.5, 0.5 + 0.5 / 5**0.5)  # between two knots
LOWEST = 0.2  # Å; nearer atoms are on the continued first polynomial
LEAST_LENGTHS = 256  # fewer than these are not worth a thread of their own

Curves = Callable[[Float[Tensor, " lengths"]], Float[Tensor, "lengths outputs"]]


def tabulate(
    members: Sequence[Curves], cutoff: float
) -> Float[Tensor, "members intervals powers outputs"]:
    """Tables of as many knots as it takes: between them all curves are met to `ACCURACY`.

    Args:
        members: for each member the same function of its weights: lengths in Å, float64, to
            values, differentiable twice.
        cutoff: the last knot in Å.
    Raises:
        ValueError: if `MOST_KNOTS` are too few.
    """
    knots = FEWEST_KNOTS
    while knots <= MOST_KNOTS:
        tables = [place_knots(curves, cutoff, knots) for curves in members]
        pairs = zip(members, tables, strict=True)
        if all(_meets(table, curves, cutoff) for curves, table in pairs):
            return torch.stack(tables)
        knots = 2 * knots - 1
    raise ValueError(
        f"a radial network bends too much for splines of {MOST_KNOTS} knots; use the potential as "
        "it is."
    )


def _meets(table: Tensor, curves: Curves, cutoff: float) -> bool:
    """Whether values and slopes are met where a spline is farthest off.

    To leading order that is t³ (1 − t)³ of what the sixth derivative makes: largest at t = ½, with
    its steepest slopes at t = (1 ± 1/√5) / 2.
    """
    intervals = table.shape[0]
    steps = torch.arange(intervals, dtype=torch.float64)[:, None] + torch.tensor(
        FARTHEST_OFF, dtype=torch.float64
    )
    lengths = LOWEST + steps.flatten() * ((cutoff - LOWEST) / intervals)
    with torch.enable_grad():
        lengths.requires_grad_()
        values = [curves(lengths), interpolate(lengths, table, cutoff)]
        slopes = [_slope(value, lengths) for value in values]
    for (one, other), accuracy in zip((values, slopes), ACCURACY, strict=True):
        off = (one - other).detach().abs().max()
        if float(off) > accuracy * float(one.detach().abs().max()):
            return False
    return True


def place_knots(
    curves: Curves, cutoff: float, knots: int
) -> Float[Tensor, "intervals powers outputs"]:
    """The polynomial from each of equally spaced knots to the next, in powers of t = 0 … 1.

    Args:
        curves: lengths in Å, float64, to values, differentiable twice.
        cutoff: the last knot in Å.
        knots: how many.
    """
    lengths = torch.linspace(LOWEST, cutoff, knots, dtype=torch.float64)
    spacing = (cutoff - LOWEST) / (knots - 1)
    # A cutoff function is zero at the last knot and beyond; slopes are those from within.
    lengths[-1] = cutoff * (1 - 1e-12)
    with torch.enable_grad():
        lengths.requires_grad_()
        value = curves(lengths)
        slope = _slope(value, lengths)
        curvature = _slope(slope, lengths)
    ends = [part.detach() for part in (value, spacing * slope, spacing**2 * curvature)]
    (f, s, c), (f1, s1, c1) = ([end[:-1] for end in ends], [end[1:] for end in ends])
    # What the quadratic from the left end misses at the right one.
    df, ds, dc = f1 - f - s - 0.5 * c, s1 - s - c, c1 - c
    high = (10 * df - 4 * ds + 0.5 * dc, -15 * df + 7 * ds - dc, 6 * df - 3 * ds + 0.5 * dc)
    return torch.stack([f, s, 0.5 * c, *high], 1)


def _slope(values: Tensor, lengths: Tensor) -> Tensor:
    """The derivative of each row by its own length, for all outputs at once."""
    # A backward pass is linear in its cotangent, and its slope by that is a forward pass.
    cotangent = torch.zeros_like(values, requires_grad=True)
    (pulled,) = torch.autograd.grad(values, lengths, cotangent, create_graph=True)
    (slope,) = torch.autograd.grad(pulled, cotangent, torch.ones_like(pulled), create_graph=True)
    return slope


def interpolate(
    lengths: Float[Tensor, "*members pairs"],
    table: Float[Tensor, "*members intervals powers outputs"],
    cutoff: float,
) -> Float[Tensor, "*members pairs outputs"]:
    """The splines of a table at these lengths.

    f(r) = Σ_n c_{k n} t^n,    t = (r − r_k) / spacing

    Args:
        lengths: (…, pairs) Å; with a member axis all members hold the same values.
        table: from `tabulate`, stacked where there are members.
        cutoff: as there.
    """
    intervals = table.shape[-3]
    # In double precision: what is left of a place between knots has few digits.
    place = (lengths.double() - LOWEST) * (intervals / (cutoff - LOWEST))
    below = place.detach().nan_to_num().floor().clamp(0, intervals - 1)
    t = (place - below).unsqueeze(-1).to(table)
    index = below[0].long() if below.dim() > 1 else below.long()
    powers = torch.cat([torch.ones_like(t), t, t**2, t**3, t**4, t**5], -1)
    rows = table.detach().flatten(-3, -2)
    # Σ g_c t^n c_{k n}: without the cotangent g the values, without the powers their slopes.
    return without(lambda slot, one: (_spline_out, _spline_in)[slot](index, one, rows), 0, powers)


def _run(name: str, index: Tensor, values: Tensor, table: Tensor) -> Tensor:
    """One of both sums, by the kernel or in plain torch."""
    outward = name == "spline_out"
    library = kernels(values, table)
    if library is None:
        rows = 6 * index.unsqueeze(-1) + torch.arange(6, device=index.device)
        picked = table.index_select(-2, rows.flatten()).unflatten(-2, (-1, 6))
        if outward:
            return (values.unsqueeze(-2) @ picked).squeeze(-2)
        return (picked @ values.unsqueeze(-1)).squeeze(-1)
    values, table = values.contiguous(), table.contiguous()
    width = table.shape[-1]
    out = values.new_empty((*values.shape[:-1], width if outward else 6))
    # The kernel reads raw memory: what does not fit would be read past its end.
    if values.shape[-2:] != (index.shape[0], 6 if outward else width):
        raise ValueError(f"{tuple(values.shape)} do not fit to splines of {width} outputs.")
    kernel, bound = getattr(library, name), ctypes.c_int64
    if values.dim() == 2:
        sets = [(values, table, out)]
    else:
        sets = list(zip(values, table, out, strict=True))
    for one, rows, result in sets:
        places = [address(index), address(one), address(rows), address(result), bound(width)]

        def work(begin: int, end: int, places: list[Any] = places) -> None:
            kernel(*places, bound(begin), bound(end))

        share(index.shape[0], LEAST_LENGTHS, work)
    return out


def _operator(name: str, width: Callable[[Tensor], int]) -> Callable[..., Any]:
    return operator(
        f"{name}(Tensor index, Tensor values, Tensor table) -> Tensor",
        partial(_run, name),
        lambda _, values, table: values.new_empty((*values.shape[:-1], width(table))),
        device="CompositeExplicitAutograd",  # any
    )


_spline_out = _operator("spline_out", lambda table: table.shape[-1])
_spline_in = _operator("spline_in", lambda _: 6)
