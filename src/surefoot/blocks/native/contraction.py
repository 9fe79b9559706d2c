"""The call of contraction.h: one set of weights, threads sharing the channels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from torch import Tensor

from surefoot.blocks.native import address, kernels, share

VECTOR = 64  # bytes, of the widest vector of channels that a kernel works on at once
LEAST_CHANNELS = 16  # fewer channels than this are not worth a thread of their own


@runtime_checkable
class Plan(Protocol):
    """What the kernels know of a contraction; see `blocks/contraction.py`."""

    @property
    def parents(self) -> Int[np.ndarray, " nodes"]:
        """(nodes) −1 where the product is the component itself."""
        ...

    @property
    def components(self) -> Int[np.ndarray, " nodes"]:
        """(nodes) what each node multiplies its parent with."""
        ...

    @property
    def offsets(self) -> Int[np.ndarray, " bounds"]:
        """(nodes + 1) where each node's terms begin."""
        ...

    @property
    def results(self) -> Int[np.ndarray, " terms"]:
        """(terms) the result each term adds to."""
        ...

    @property
    def inputs(self) -> int:
        """Components of A."""
        ...

    @property
    def outputs(self) -> int:
        """Components of B."""
        ...


class _Tree(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("parents", "components", "offsets", "results")),
        ("species", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("nodes", "terms", "inputs", "outputs", "channels")),
    )


def run_contraction(
    kind: str, plan: Plan, species: Tensor, factors: list[Tensor], results: Sequence[Tensor]
) -> None:
    """One kernel: "value", "slope", "table" or "tangent" of B, into the results."""
    library = kernels(factors[0])
    if library is None:
        raise RuntimeError("a derivative was asked for where the kernels are not to be used.")
    features, table, *others = factors
    channels = features.shape[-1]
    tree = _Tree(
        parents=plan.parents.ctypes.data,
        components=plan.components.ctypes.data,
        offsets=plan.offsets.ctypes.data,
        results=plan.results.ctypes.data,
        species=address(species),
        rows=features.shape[0],
        nodes=len(plan.parents),
        terms=len(plan.results),
        inputs=plan.inputs,
        outputs=plan.outputs,
        channels=channels,
    )
    a, k = address(features), address(table)
    rest = [address(other) for other in others]
    ends = [address(result) for result in results]
    null = ctypes.c_void_p(None)
    kernel, places = {
        "value": (library.contraction_value, [a, k, *ends]),
        "slope": (library.contraction_gradient, [a, k, *rest, *ends, null]),
        "table": (library.contraction_gradient, [a, null, *rest, null, *ends]),
        "tangent": (library.contraction_tangent, [a, k, *rest, *ends]),
    }[kind]
    size = 4 * len(plan.parents) + 3 * plan.inputs + 2 * plan.outputs
    bound = ctypes.c_int64

    def work(begin: int, end: int) -> None:
        space = ctypes.create_string_buffer(size * VECTOR)
        kernel(ctypes.byref(tree), *places, space, bound(begin), bound(end))

    share(channels, LEAST_CHANNELS, work)
