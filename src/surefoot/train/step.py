"""One training step as a pure function: (weights, batch) → (loss terms, gradient tree)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.blocks.native import open_compiled_cache, plainly
from surefoot.compilation import Compiled
from surefoot.graph import Graph, Memory, Targets, TypedGraph
from surefoot.potential import Potential
from surefoot.train.loss import LossSettings, loss_terms, total_loss

Gradients = Callable[..., tuple[dict[str, Tensor], Weights]]
"""Loss terms and gradients of a batch: `loss_gradients`, or one of its other forms."""


def loss_gradients(  # noqa: PLR0913 - what a loss depends on
    potential: Potential,
    settings: LossSettings,
    weights: Weights,
    graph: Graph,
    targets: Targets,
    importance: Float[Tensor, "*members graphs"],
    *,
    counts: Mapping[str, Float[Tensor, "*members"]] | None = None,
    fixed: Weights | None = None,
    memory: Memory = "keep",
) -> tuple[dict[str, Tensor], Weights]:
    """Loss terms and the gradient of the total loss, for one set of weights or many.

    Members do not see each other, so the gradient of the sum of their losses is each member's own;
    what they share gets the sum. Optimiser, clipping and averages act outside, on the trees. With
    the `counts` of a whole batch (see `loss_terms`) the results of its parts add up to those of the
    whole. The `fixed` weights are those of which no gradient is wanted. What `memory` is, see
    `Geometry`.

    Returns:
        name → term of each member, detached, `total` included; the gradient tree.
    """
    typed = potential.assign(graph)
    return differentiate(
        potential, settings, weights, typed, targets, importance, counts, fixed, memory
    )


def differentiate(  # noqa: PLR0913, PLR0917 - those of `loss_gradients`
    potential: Potential,
    settings: LossSettings,
    weights: Weights,
    typed: TypedGraph,
    targets: Targets,
    importance: Float[Tensor, "*members graphs"],
    counts: Mapping[str, Float[Tensor, "*members"]] | None = None,
    fixed: Weights | None = None,
    memory: Memory = "keep",
) -> tuple[dict[str, Tensor], Weights]:
    """The same for a typed graph: what is traced and compiled."""
    leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
    forces, stress = settings.forces > 0, settings.stress > 0
    output = potential.evaluate(
        (fixed or {}) | leaves,
        typed,
        forces=forces,
        stress=stress,
        # Weights that only judge do not move forces, which then need no second derivative.
        differentiable=moves_energy(potential, weights) or not (forces or stress),
        memory=memory,
    )
    terms = loss_terms(output, typed.graph, targets, settings, importance, counts)
    total = total_loss(terms, settings)
    gradients = torch.autograd.grad(
        total.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    detached = {name: term.detach() for name, term in terms.items()}
    detached["total"] = total.detach()
    return detached, dict(zip(leaves, gradients, strict=True))


def moves_energy(potential: Potential, weights: Weights) -> bool:
    """Whether some of these weights make energies, rather than only judge them."""
    judging = tuple(f"head.{prefix}" for prefix in potential.head.judging())
    return not all(name.startswith(judging) for name in weights)


def compile_gradients(
    potential: Potential, memory: Memory = "keep", failed: Callable[[], None] | None = None
) -> Gradients:
    """`loss_gradients` of this potential as compiled graphs, one per loss: the same to rounding.

    Args:
        potential: whose.
        memory: as there.
        failed: called before the first answer that could not be compiled; none is from there on.
    """
    graphs: dict[LossSettings, Compiled] = {}
    plain = partial(loss_gradients, memory=memory)

    def gradients(  # the potential and the settings are in the graph already
        _potential: Potential,
        settings: LossSettings,
        weights: Weights,
        graph: Graph,
        targets: Targets,
        importance: Tensor,
        counts: Mapping[str, Tensor] | None = None,
        fixed: Weights | None = None,
    ) -> tuple[dict[str, Tensor], Weights]:
        if any(known.failed for known in list(graphs.values())):  # threads add to them
            batch = (weights, graph, targets, importance)
            return plain(potential, settings, *batch, counts=counts, fixed=fixed)
        function = partial(differentiate, potential, settings, memory=memory)
        traced = graphs.setdefault(settings, Compiled(function, open_compiled_cache, plainly))
        typed = potential.assign(graph)
        given = None if counts is None else dict(counts)
        answer = traced(weights, typed, targets, importance, given, fixed)
        if traced.failed and failed is not None:
            failed()
        return answer  # type: ignore[no-any-return]

    return gradients


def shared_gradients(  # noqa: PLR0913, PLR0917 - those of `loss_gradients` and the threads
    step: Gradients,
    pool: Executor,
    workers: int,
    potential: Potential,
    settings: LossSettings,
    weights: Weights,
    graph: Graph,
    targets: Targets,
    importance: Float[Tensor, "members graphs"],
    *,
    counts: Mapping[str, Float[Tensor, " members"]] | None = None,
    fixed: Weights | None = None,
) -> tuple[dict[str, Tensor], Weights]:
    """The same as `loss_gradients`, with the members shared out among threads.

    Tensors of a small batch are too small to be cut inside an operation, but members do not see
    each other: each thread takes some. The same count of workers gives the same bits; another
    count rounds differently, because matrix products of one member and of several do.

    Args:
        step: `loss_gradients`, or the same compiled.
        pool: threads.
        workers: how many of them.
        potential: as in `loss_gradients`.
        settings: as there.
        weights: as there, stacked.
        graph: as there.
        targets: as there.
        importance: as there, with a member axis.
        counts: as there, with a member axis.
        fixed: as there; with a member axis too, where there are any.
    """
    bounds = torch.linspace(0, importance.shape[0], workers + 1).round().int().tolist()
    parts = [slice(low, high) for low, high in pairwise(bounds) if high > low]
    tasks = [
        pool.submit(
            step,
            potential,
            settings,
            {name: value[part] for name, value in weights.items()},
            graph,
            targets,
            importance[part],
            counts=counts and {name: count[part] for name, count in counts.items()},
            fixed=fixed and {name: value[part] for name, value in fixed.items()},
        )
        for part in parts
    ]
    terms, gradients = zip(*(task.result() for task in tasks), strict=True)
    return _join(terms), _join(gradients)


def _join(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def clip_gradients(
    gradients: Weights, usual: Float[Tensor, "*members"], limit: float, *, stacked: bool
) -> Weights:
    """Scale the gradient of each member so that its norm stays below a multiple of the usual one.

    g ← g · min(1, limit · usual / ‖g‖)

    A batch that pulls far harder than those before it would throw the weights off: the second
    moment, by which a step is divided, has not seen the like.

    Args:
        gradients: the tree; with `stacked` the first axis of every leaf is the member.
        usual: norm that is usual, from `usual_norm`.
        limit: largest norm in units of that.
        stacked: whether there is a member axis.
    """
    norm = _sum(gradients, torch.square, stacked=stacked).sqrt()
    factor = torch.where(norm > limit * usual, limit * usual / norm, 1.0)
    return {
        name: value
        * factor.to(value.dtype).reshape(factor.shape + (1,) * (value.dim() - factor.dim()))
        for name, value in gradients.items()
    }


def usual_norm(
    squares: Weights, step: int, decay: float, *, stacked: bool
) -> Float[Tensor, "*members"]:
    """The root of the running mean of ‖g‖², without the bias of its start.

    Infinite where there was no gradient yet: a member may be left out of the first batches, and of
    what is zero no multiple would ever let it move.

    Args:
        squares: running means of g², as AdamW keeps them.
        step: steps taken.
        decay: of the running mean.
        stacked: whether there is a member axis.
    """
    total = _sum(squares, torch.abs, stacked=stacked)
    usual = (total / (1 - decay ** max(step, 1))).sqrt()
    return torch.where(total > 0, usual, math.inf)


def _sum(tree: Weights, function: Callable[[Tensor], Tensor], *, stacked: bool) -> Tensor:
    # By name, not in the order of the tree: a tree from a file has another order, and a restart
    # must round as the uninterrupted run does.
    parts = (
        function(tree[name].double()).flatten(1 if stacked else 0).sum(-1) for name in sorted(tree)
    )
    return torch.as_tensor(sum(parts))
