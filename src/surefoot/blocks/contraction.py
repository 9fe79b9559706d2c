"""The symmetric contraction: all equivariant polynomials of a row's features up to one order.

    B[i, o, c] = Σ_t K[z_i, t, c] Π_{a in monomial(t)} A[i, a, c],    K[z] = U W[z]

Terms t are the monomials that occur in a coupling of `symmetric_couplings`, once for each result
they lead to; U holds the couplings and W the weights of the paths for each species. Monomials form
a tree, each the product of its parent and one more component, so that every product is one
multiplication, and the derivatives run through the tree backwards.

Source: Batatia et al. 2022 (MACE), eqs. 10 and 11. Differs: the paths are linearly independent, so
there are fewer weights for the same functions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.blocks.couplings import Irreps, symmetric_couplings
from surefoot.blocks.native import kernels
from surefoot.blocks.native.contraction import run_contraction
from surefoot.compilation import operator
from surefoot.graph import Kinds


@dataclass(frozen=True, eq=False)
class Contraction:
    """Which monomials there are, and how they couple.

    Attributes:
        parents: (nodes) −1 where the product is the component itself.
        components: (nodes) what each node multiplies its parent with.
        offsets: (nodes + 1) where each node's terms begin.
        results: (terms) the result each term adds to.
        couplings: (terms, paths) U, float64, with 1/√(paths of one result and order) in it.
        inputs: components of A.
        outputs: components of B.
        paths: (result index, order, count) of each group of paths, in the order of W's rows.
        name: the same in every process: by it a compiled graph tells plans apart.
    """

    parents: Int[np.ndarray, " nodes"]
    components: Int[np.ndarray, " nodes"]
    offsets: Int[np.ndarray, " bounds"]
    results: Int[np.ndarray, " terms"]
    couplings: Float[Tensor, "terms paths"]
    inputs: int
    outputs: int
    paths: tuple[tuple[int, int, int], ...]
    name: str

    @property
    def path_count(self) -> int:
        """Rows of W."""
        return self.couplings.shape[1]


@functools.cache
def contraction(inputs: Irreps, outputs: Irreps, correlation: int) -> Contraction:
    """The polynomials of orders 1 … correlation from these irreps to those."""
    bases = [
        (index, symmetric_couplings(inputs, irrep, order))
        for index, irrep in enumerate(outputs)
        for order in range(1, correlation + 1)
    ]
    starts = np.cumsum([0, *(irrep.dim for irrep in outputs)]).tolist()
    columns = np.cumsum([0, *(len(basis.values) for _, basis in bases)]).tolist()
    monomials = {m for _, basis in bases for m in map(tuple, basis.monomials.tolist())}
    prefixes = {m[:n] for m in monomials for n in range(1, len(m) + 1)}
    nodes = {monomial: place for place, monomial in enumerate(sorted(prefixes))}
    # A row for each node and result that any path has; a key is node · results + result.
    entries = []
    for (index, basis), column in zip(bases, columns, strict=False):
        path, term, m = np.nonzero(basis.values)
        scale = 1.0 / math.sqrt(max(len(basis.values), 1))
        node = np.array([nodes[tuple(t)] for t in basis.monomials.tolist()], np.int64)[term]
        key = node * starts[-1] + starts[index] + m
        entries.append((key, column + path, scale * basis.values[path, term, m]))
    keys, places, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    found, rows = np.unique(keys, return_inverse=True)
    table = np.zeros((len(found), columns[-1]))
    table[rows, places] = values
    # A tensor born in inference mode could never again take part in a derivative.
    with torch.inference_mode(mode=False):
        couplings = torch.from_numpy(table)
    counts = np.bincount(found // starts[-1], minlength=len(nodes))
    return Contraction(
        parents=np.array([nodes.get(m[:-1], -1) for m in nodes], np.int32),
        components=np.array([m[-1] for m in nodes], np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        results=(found % starts[-1]).astype(np.int32),
        couplings=couplings,
        inputs=sum(irrep.dim for irrep in inputs),
        outputs=starts[-1],
        paths=tuple(
            (index, basis.order, len(basis.values)) for index, basis in bases if len(basis.values)
        ),
        name=f"{'+'.join(map(str, inputs))} to {'+'.join(map(str, outputs))} by {correlation}",
    )


def contract(
    features: Float[Tensor, "*members rows inputs channels"],
    weights: Float[Tensor, "*members species paths channels"],
    kinds: Kinds,
    plan: Contraction,
) -> Float[Tensor, "*members rows outputs channels"]:
    """The symmetric contraction of each row, with the weights of its species.

    Args:
        features: A, (…, rows, inputs, channels).
        weights: W, (…, species, paths, channels).
        kinds: rows by species.
        plan: which polynomials.
    Raises:
        ValueError: if the shapes do not fit each other.
    """
    fitting = (*weights.shape[:-3], kinds.atoms.index.shape[0], plan.inputs, weights.shape[-1])
    if features.shape != fitting:
        raise ValueError(f"features {tuple(features.shape)} of a contraction have to be {fitting}.")
    table = plan.couplings.to(weights) @ weights.index_select(-3, kinds.present)
    if kernels(features, table) is None:
        return _plain(features, table, kinds.atoms.index, plan)
    return _contract(features, table, kinds.atoms.index, plan)


def _contract(features: Tensor, table: Tensor, species: Tensor, plan: Contraction) -> Tensor:
    value = _Value.apply(features, table, species, plan)
    if table.requires_grad:
        value = value + _TableBranch.apply(table, (features,), species, plan)
    return value  # type: ignore[no-any-return]


def _plain(features: Tensor, table: Tensor, species: Tensor, plan: Contraction) -> Tensor:
    """The same in plain torch, differentiable to any order: all products of an order at once."""
    depths = _depths(plan.parents)
    order = np.argsort(depths, kind="stable")
    place = np.argsort(order)
    levels: list[Tensor] = []
    for depth in range(int(depths.max()) + 1):
        nodes = np.flatnonzero(depths == depth)
        product = features.index_select(-2, _indices(plan.components[nodes], species))
        if depth:
            first = int((depths < depth - 1).sum())
            parents = place[plan.parents[nodes]] - first
            product = product * levels[-1].index_select(-2, _indices(parents, species))
        levels.append(product)
    owner = place[np.repeat(np.arange(len(depths)), np.diff(plan.offsets))]
    values = torch.cat(levels, -2).index_select(-2, _indices(owner, species))
    terms = values * table.index_select(-3, species)
    out = terms.new_zeros((*terms.shape[:-2], plan.outputs, terms.shape[-1]))
    return out.index_add(-2, _indices(plan.results, species), terms)


def _depths(parents: Int[np.ndarray, " nodes"]) -> Int[np.ndarray, " nodes"]:
    """How many factors stand before the last one of each node's product."""
    depths = np.zeros(len(parents), np.int64)
    for node, parent in enumerate(parents):
        depths[node] = depths[parent] + 1 if parent >= 0 else 0
    return depths


def _indices(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(like.device)


class _Value(torch.autograd.Function):
    """The contraction, with the slope of A; the slope of K comes from `_TableBranch`.

    Split because the backward pass of forces needs no slope of K, and an autograd function is not
    told which of its inputs are asked for.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, table: Tensor, species: Tensor, plan: Contraction
    ) -> Tensor:
        ctx.species, ctx.plan = species, plan
        ctx.save_for_backward(features, table)
        return _run("value", plan, species, features, table)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        slope = _Slope.apply(*ctx.saved_tensors, grads[0], ctx.species, ctx.plan)
        return slope, None, None, None


class _TableBranch(torch.autograd.Function):
    """Zero, whose slope with respect to K is that of the contraction.

    A is handed over in a tuple: as an input it would make the backward pass of forces come here.
    """

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, features: tuple[Tensor], species: Tensor, plan: Contraction
    ) -> Tensor:
        ctx.species, ctx.plan, ctx.features, ctx.table = species, plan, features[0], table.detach()
        rows = features[0]
        return rows.new_zeros(()).expand(*rows.shape[:-2], plan.outputs, rows.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        slope = _TableSlope.apply(ctx.features, grads[0], ctx.table, ctx.species, ctx.plan)
        return slope, None, None, None


class _Slope(torch.autograd.Function):
    """Σ g ∂B/∂A, of which the derivatives are the tangents of B and of both slopes along v."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, table: Tensor, grad: Tensor, species: Tensor, plan: Contraction
    ) -> Tensor:
        ctx.species, ctx.plan = species, plan
        ctx.save_for_backward(features, table, grad)
        return _run("slope", plan, species, features, table, grad)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        out, slope, table = _Tangent.apply(*ctx.saved_tensors, grads[0], ctx.species, ctx.plan)
        return slope, table, out, None, None


class _TableSlope(torch.autograd.Function):
    """Σ g ∂B/∂K; B is linear in K, so its own derivatives are B and its slope with u for K."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, grad: Tensor, table: Tensor, species: Tensor, plan: Contraction
    ) -> Tensor:
        ctx.species, ctx.plan = species, plan
        ctx.save_for_backward(features, grad)
        return _run("table", plan, species, features, table, grad)  # of K only its shape counts

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        features, grad = ctx.saved_tensors
        slope = _Slope.apply(features, grads[0], grad, ctx.species, ctx.plan)
        value = _contract(features, grads[0], ctx.species, ctx.plan)
        return slope, value, None, None, None


class _Tangent(torch.autograd.Function):
    """d/dε of B, Σ g ∂B/∂A and Σ g ∂B/∂K at A + ε v: what second derivatives are made of."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        table: Tensor,
        grad: Tensor,
        step: Tensor,
        species: Tensor,
        plan: Contraction,
    ) -> tuple[Tensor, ...]:
        ctx.species, ctx.plan = species, plan
        ctx.save_for_backward(features, table, grad, step)
        return _run("tangent", plan, species, features, table, grad, step)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Third and higher derivatives, through the plain form."""
        # Aliases: A may depend on K, but only what depends on the alias counts here.
        leaves = [t.view_as(t) if t.requires_grad else t.detach() for t in ctx.saved_tensors]
        features, table, grad, step = (leaf.requires_grad_() for leaf in leaves)
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            value = (grad * _plain(features, table, ctx.species, ctx.plan)).sum()
            (slope,) = torch.autograd.grad(value, features, create_graph=True)
            ends = (grad, features, table)
            tangents = torch.autograd.grad(  # of one factor only, the slope does not depend on A
                (step * slope).sum(), ends, create_graph=True, materialize_grads=True
            )
            parts = [(t * g).sum() for t, g in zip(tangents, grads, strict=True)]
            total = torch.stack(parts).sum()
            slopes = torch.autograd.grad(total, leaves, create_graph=further, allow_unused=True)
        return *slopes, None, None


_plans: dict[str, Contraction] = {}  # an operator is told a plan by its name


def _run(kind: str, plan: Contraction, species: Tensor, *factors: Tensor) -> Any:
    """One kernel, for A, K, g and the step of A, as far as it takes them."""
    _plans[plan.name] = plan
    return _operators[kind](plan.name, species, *factors)


def _shapes(
    kind: str, plan: Contraction, features: Tensor, table: Tensor
) -> tuple[tuple[int, ...], ...]:
    rows = (*features.shape[:-2], plan.outputs, features.shape[-1])
    return {
        "value": (rows,),
        "slope": (features.shape,),
        "table": (table.shape,),
        "tangent": (rows, features.shape, table.shape),
    }[kind]


def _empty(kind: str, name: str, _species: Tensor, *factors: Tensor) -> Any:
    shapes = _shapes(kind, _plans[name], factors[0], factors[1])
    results = [factors[0].new_empty(shape) for shape in shapes]
    return tuple(results) if len(results) > 1 else results[0]


def _run_members(kind: str, name: str, species: Tensor, *factors: Tensor) -> Any:
    plan = _plans[name]
    kept = [factor.contiguous() for factor in factors]
    features = kept[0]
    # The kernel reads raw memory: what does not fit would be read past its end.
    rows, like = features.shape[-3], features.shape[:-2]
    wanted = [features.shape, kept[1].shape, (*like, plan.outputs, features.shape[-1])]
    fits = all(k.shape == w for k, w in zip(kept, [*wanted, features.shape], strict=False))
    terms = (len(plan.results), features.shape[-1])
    if not fits or kept[1].shape[-2:] != terms or species.shape[0] != rows:
        raise ValueError(f"{[tuple(k.shape) for k in kept]} do not fit in a contraction.")
    zeroed = kind in ("table", "tangent")
    results = [
        features.new_zeros(shape) if zeroed else features.new_empty(shape)
        for shape in _shapes(kind, plan, features, kept[1])
    ]
    if features.dim() == 3:
        run_contraction(kind, plan, species, kept, results)
    else:
        for parts in zip(*kept, *results, strict=True):
            run_contraction(kind, plan, species, list(parts[: len(kept)]), parts[len(kept) :])
    return tuple(results) if len(results) > 1 else results[0]


def _operator(kind: str, factors: str, results: str) -> Callable[..., Any]:
    return operator(
        f"contraction_{kind}(str plan, Tensor species, {factors}) -> {results}",
        functools.partial(_run_members, kind),
        functools.partial(_empty, kind),
    )


_operators = {
    "value": _operator("value", "Tensor A, Tensor K", "Tensor"),
    "slope": _operator("slope", "Tensor A, Tensor K, Tensor g", "Tensor"),
    "table": _operator("table", "Tensor A, Tensor K, Tensor g", "Tensor"),
    "tangent": _operator(
        "tangent", "Tensor A, Tensor K, Tensor g, Tensor dA", "(Tensor, Tensor, Tensor)"
    ),
}
