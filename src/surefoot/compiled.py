"""A potential as compiled graphs: of whole batches, or of the parts of large ones."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import Protocol, get_args, runtime_checkable

from surefoot.blocks.dense import Weights
from surefoot.blocks.native import open_compiled_cache, plainly
from surefoot.compilation import Compiled
from surefoot.graph import Graph, Memory, TypedGraph
from surefoot.heads import Scalar
from surefoot.potential import Potential
from surefoot.prediction import Output


@runtime_checkable
class Evaluate(Protocol):
    """A potential, or a faster form of it."""

    def __call__(
        self, weights: Weights, graph: Graph, *, forces: bool = True, stress: bool = False
    ) -> Output:
        """What these weights say of the batch."""
        ...


def compile_potential(potential: Potential) -> Evaluate:
    """The potential as compiled graphs, for energies, forces and stress: the same to rounding.

    A graph is compiled when it is first needed, which takes a minute or two; a cache in the user's
    folder spares other processes most of it. Sizes of batches may vary; only one structure and
    several of them, and one element and several, are told apart. A lone atom or pair is computed
    uncompiled. Nothing can be differentiated further, and features are not kept.
    """
    forms = {
        wanted: Compiled(partial(_answer, potential, *wanted), open_compiled_cache, plainly)
        for wanted in itertools.product((False, True), (False, True), get_args(Memory))
    }
    parts: dict[tuple[bool, bool], Compiled] = {}

    def evaluate(
        weights: Weights, graph: Graph, *, forces: bool = True, stress: bool = False
    ) -> Output:
        if min(graph.pair_edges.shape[1], graph.numbers.shape[0]) < 2:
            # Each size of one would be a graph of its own.
            return potential(weights, graph, forces=forces, stress=stress)
        memory, typed = potential.memory_for(weights, graph), potential.assign(graph)
        if potential.has_parts and memory == "recompute":
            rows = type(potential.head) is not Scalar or _looked_at(weights)
            asked = potential.asked(forces=forces, stress=stress, rows=rows)
            fresh = Compiled(asked, open_compiled_cache, plainly)
            ask = parts.setdefault((asked.sloped, rows), fresh)
            output = potential.by_parts(ask, weights, typed, forces=forces, stress=stress)
            return replace(output, features=None)
        return forms[forces, stress, memory](weights, typed)  # type: ignore[no-any-return]

    return evaluate


def _looked_at(weights: Weights) -> bool:
    """Whether somebody beside the head looks at features."""
    return any(name.startswith(("gate.", "spread.")) for name in weights)


def _answer(
    potential: Potential,
    forces: bool,
    stress: bool,
    memory: Memory,
    weights: Weights,
    typed: TypedGraph,
) -> Output:
    output = potential.evaluate(
        weights, typed, forces=forces, stress=stress, differentiable=False, memory=memory
    )
    return replace(output, features=None)
