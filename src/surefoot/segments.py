"""Rows that belong to items: taking an item's value to its rows, and sums over its rows.

`gather` and `segment_sum` are one pair of operators, each the other's derivative, to any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from surefoot.compilation import BOUNDS, operator

LARGE = 100_000
"""Numbers in sorted rows of which the kernel for tables is the faster one."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Rows that belong to items, and the order in which rows of one item are neighbours.

    Attributes:
        index: (rows) the item of each row.
        offsets: (items + 1) where each item's rows begin in the sorted order.
        order: (rows) sorts the rows by item; None where they are sorted already.
    """

    index: Int[Tensor, " rows"]
    offsets: Int[Tensor, " bounds"] = field(metadata={BOUNDS: True})
    order: Int[Tensor, " rows"] | None = None

    @property
    def count(self) -> int:
        """Number of items."""
        return self.offsets.shape[0] - 1


def group(index: Int[Tensor, " rows"], count: int) -> Segments:
    """Rows by item, for an index in any order.

    Args:
        index: (rows) the item of each row.
        count: number of items.
    """
    order = torch.argsort(index, stable=True)
    return Segments(index=index, offsets=find_offsets(index, count), order=order)


def find_offsets(index: Int[Tensor, " rows"], count: int) -> Int[Tensor, " bounds"]:
    """Where the rows of each item begin once they are sorted."""
    counts = torch.bincount(index, minlength=count)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def gather(values: Tensor, segments: Segments, axis: int = -2) -> Tensor:
    """The value of each row's item: out[row] = values[item(row)], along `axis`."""
    return _Gather.apply(values, segments, axis)  # type: ignore[no-any-return]


def segment_sum(rows: Tensor, segments: Segments, axis: int = -2) -> Tensor:
    """The sum of each item's rows: out[item] = Σ_{row of item} rows[row], along `axis`."""
    return _SegmentSum.apply(rows, segments, axis)  # type: ignore[no-any-return]


def _add_rows(rows: Tensor, index: Tensor, count: int, axis: int) -> Tensor:
    # On sorted rows this walks memory once and in one order: no atomics on the CPU.
    return _no_rows(rows, index, count, axis).zero_().index_add_(axis, index, rows)


def _no_rows(rows: Tensor, index: Tensor, count: int, axis: int) -> Tensor:  # noqa: ARG001
    shape = list(rows.shape)
    shape[axis] = count
    return rows.new_empty(shape)


# Whole, since compilers make of a sum by index one in whatever order threads come.
add_rows = operator(
    "add_rows(Tensor rows, Tensor index, SymInt count, int axis) -> Tensor",
    _add_rows,
    _no_rows,
    device="CompositeExplicitAutograd",  # any
)


def _sum_rows(
    rows: Tensor, index: Tensor, order: Tensor | None, offsets: Tensor, axis: int
) -> Tensor:
    if _is_table(rows, axis) and (order is not None or rows.numel() >= LARGE):
        # One kernel that reads the rows where they lie, in less than half the time of sorting
        # and adding.
        places = torch.arange(len(rows)) if order is None else order
        table = rows.detach()  # nothing is kept for a derivative, which is ours
        return torch.embedding_bag(table, places, offsets, mode=0, include_last_offset=True)[0]
    if order is not None:
        rows, index = rows.index_select(axis, order), index[order]
    return _add_rows(rows, index, offsets.shape[0] - 1, axis)


def _is_table(rows: Tensor, axis: int) -> bool:
    """Whether rows are those of a table in float32, which the CPU's kernel for tables takes."""
    table = rows.dim() == 2 and axis in (0, -2) and rows.numel() > 0 and rows.is_contiguous()
    return table and rows.dtype == torch.float32 and rows.device.type == "cpu"


def _no_sums(
    rows: Tensor,
    index: Tensor,
    order: Tensor | None,  # noqa: ARG001
    offsets: Tensor,
    axis: int,
) -> Tensor:
    return _no_rows(rows, index, offsets.shape[0] - 1, axis)


sum_rows = operator(
    "sum_rows(Tensor rows, Tensor index, Tensor? order, Tensor offsets, int axis) -> Tensor",
    _sum_rows,
    _no_sums,
    device="CompositeExplicitAutograd",  # any
)


class _Gather(torch.autograd.Function):
    """Item values to rows; its derivative is `_SegmentSum`, whose derivative is this."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Segments, axis: int) -> Tensor:
        ctx.segments, ctx.axis = segments, axis
        return values.index_select(axis, segments.index)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return segment_sum(grads[0], ctx.segments, ctx.axis), None, None


class _SegmentSum(torch.autograd.Function):
    """Sum of rows by item."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, segments: Segments, axis: int) -> Tensor:
        ctx.segments, ctx.axis = segments, axis
        return sum_rows(rows, segments.index, segments.order, segments.offsets, axis)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return gather(grads[0], ctx.segments, ctx.axis), None, None
