"""How many sets of weights a tree of a potential holds: one, a stack, or heads on one model.

The table of elements, which every model has, tells: it has one axis more where models are stacked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from surefoot.blocks.dense import Weights

TABLE = "model.embedding"
"""The leaf that every model has, (…, species, features)."""


def precision(weights: Weights) -> torch.dtype:
    """In which the model computes."""
    return weights[TABLE].dtype


def stacks_model(weights: Weights) -> bool:
    """Whether every leaf has a member axis."""
    return weights[TABLE].dim() == 3


def shares_model(weights: Weights) -> bool:
    """Whether these are members that share one model, each with a head of its own.

    Such a stack is partial: the leaves of the head have a member axis and those of the model have
    none. Features are then computed once, and the backward pass runs once for each member.
    """
    return not stacks_model(weights) and _count_heads(weights) is not None


def count_models(weights: Weights) -> int:
    """How many models are evaluated; 1 where heads share one."""
    return weights[TABLE].shape[0] if stacks_model(weights) else 1


def count_members(weights: Weights) -> int:
    """How many sets of weights a stack holds, whole or partial; 1 where there is no member axis."""
    if stacks_model(weights):
        return weights[TABLE].shape[0]
    return _count_heads(weights) or 1


def take_members(weights: Weights, chosen: Tensor | slice) -> Weights:
    """Some members of a stack, whole or partial."""
    stacked = ("model.", "head.") if stacks_model(weights) else ("head.",)
    return {n: v[chosen] if n.startswith(stacked) else v for n, v in weights.items()}


def _count_heads(weights: Weights) -> int | None:
    """Sets of weights of the head, whose linear maps are matrices; None without a member axis."""
    maps = (v for n, v in weights.items() if n.startswith("head.") and n.endswith(".weight"))
    found = next(maps)
    return found.shape[0] if found.dim() == 3 else None
