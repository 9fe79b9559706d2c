"""One training step as a pure function: (weights, batch) → (loss terms, gradient tree)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.graph import Graph, Targets
from surefoot.potential import Potential
from surefoot.train.loss import LossSettings, loss_terms, total_loss


def loss_gradients(
    potential: Potential,
    settings: LossSettings,
    weights: Weights,
    graph: Graph,
    targets: Targets,
    importance: Float[Tensor, "*members graphs"],
) -> tuple[dict[str, Tensor], Weights]:
    """Loss terms and the gradient of the total loss, for one set of weights or many.

    Members do not see each other, so the gradient of the sum of their losses is each member's own.
    Optimiser, clipping and averages act outside, on the trees.

    Returns:
        name → term of each member, detached, `total` included; the gradient tree.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
    output = potential(
        leaves,
        graph,
        forces=settings.forces > 0,
        stress=settings.stress > 0,
        differentiable=True,
    )
    terms = loss_terms(output, graph, targets, settings, importance)
    total = total_loss(terms, settings)
    gradients = torch.autograd.grad(
        total.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    detached = {name: term.detach() for name, term in terms.items()}
    detached["total"] = total.detach()
    return detached, dict(zip(leaves, gradients, strict=True))


def shared_gradients(
    pool: Executor,
    workers: int,
    potential: Potential,
    settings: LossSettings,
    weights: Weights,
    graph: Graph,
    targets: Targets,
    importance: Float[Tensor, "members graphs"],
) -> tuple[dict[str, Tensor], Weights]:
    """The same as `loss_gradients`, with the members shared out among threads.

    Tensors of a small batch are too small to be cut inside an operation, but members do not see
    each other: each thread takes some. The same count of workers gives the same bits; another
    count rounds differently, because matrix products of one member and of several do.

    Args:
        pool: threads.
        workers: how many of them.
        potential: as in `loss_gradients`.
        settings: as there.
        weights: as there, stacked.
        graph: as there.
        targets: as there.
        importance: as there, with a member axis.
    """
    bounds = torch.linspace(0, importance.shape[0], workers + 1).round().int().tolist()
    parts = [slice(low, high) for low, high in pairwise(bounds) if high > low]
    tasks = [
        pool.submit(
            loss_gradients,
            potential,
            settings,
            {name: value[part] for name, value in weights.items()},
            graph,
            targets,
            importance[part],
        )
        for part in parts
    ]
    terms, gradients = zip(*(task.result() for task in tasks), strict=True)
    return _join(terms), _join(gradients)


def _join(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def clip_gradients(gradients: Weights, limit: float, *, stacked: bool) -> Weights:
    """Scale the gradient of each member so that its norm stays below the limit.

    Args:
        gradients: the tree; with `stacked` the first axis of every leaf is the member.
        limit: largest norm over all leaves of a member.
        stacked: whether there is a member axis.
    """
    # By name, not in the order of the tree: a tree from a file has another order, and a restart
    # must round as the uninterrupted run does.
    square = sum(
        gradients[name].double().square().flatten(1 if stacked else 0).sum(-1)
        for name in sorted(gradients)
    )
    norm = torch.as_tensor(square).sqrt()
    factor = torch.where(norm > limit, limit / norm, 1.0)
    return {
        name: value
        * factor.to(value.dtype).reshape(factor.shape + (1,) * (value.dim() - factor.dim()))
        for name, value in gradients.items()
    }
