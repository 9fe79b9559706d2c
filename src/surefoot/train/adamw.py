"""How a step moves the weights: the protocol, and AdamW, which is what moves them by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from surefoot.blocks.dense import Weights
from surefoot.train.state import State
from surefoot.train.step import clip_gradients, usual_norm

MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
BETAS = (0.9, 0.999)
EPSILON = 1e-8

Gradient = Callable[[Weights], tuple[dict[str, Tensor], Weights]]
"""Loss terms and gradients of one batch at any weights; raises where the loss is not a number."""


@runtime_checkable
class Step(Protocol):
    """What moves the weights of a state, one batch at a time."""

    def fresh(self, weights: Weights) -> dict[str, Weights]:
        """The moments before the first step, per kind a tree like the weights."""
        ...

    def __call__(
        self, state: State, gradient: Gradient, rate: float, *, stacked: bool
    ) -> dict[str, Tensor]:
        """Move weights and moments of the state in place; return the loss terms.

        Args:
            state: of the run; untouched where `gradient` raises.
            gradient: of the batch.
            rate: learning rate of this step.
            stacked: whether the first axis of every leaf is a member that learns on its own.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW with AMSGrad on the tree, after clipping by the usual norm.

    Source: Loshchilov and Hutter 2019; Reddi et al. 2018. Decay acts on all but biases.

    Attributes:
        weight_decay: of all weights but biases, which the end of their names tells: a member axis
            that some leaves have and others have not makes a matrix of a bias.
        amsgrad: whether second moments never fall.
        clip: largest gradient norm of a member in units of the usual one.
        clip_norm: largest gradient norm of a member as it is, if that is bounded too.
    """

    weight_decay: float
    amsgrad: bool
    clip: float
    clip_norm: float | None = None

    def fresh(self, weights: Weights) -> dict[str, Weights]:
        """Zeros."""
        return {
            kind: {name: torch.zeros_like(value) for name, value in weights.items()}
            for kind in MOMENTS
        }

    def __call__(
        self, state: State, gradient: Gradient, rate: float, *, stacked: bool
    ) -> dict[str, Tensor]:
        """One step; see `Step`."""
        terms, gradients = gradient(state.weights)
        squares = state.moments["exp_avg_sq"]
        usual = usual_norm(squares, state.step - state.began, BETAS[1], stacked=stacked)
        gradients = clip_gradients(gradients, usual, self.clip, stacked=stacked)
        if self.clip_norm is not None:
            one = torch.ones_like(usual)
            gradients = clip_gradients(gradients, one, self.clip_norm, stacked=stacked)
        for decayed in (True, False):
            names = [n for n in state.weights if n.endswith("bias") is not decayed]
            adamw(
                [state.weights[name].detach() for name in names],
                [gradients[name] for name in names],
                [state.moments["exp_avg"][name] for name in names],
                [state.moments["exp_avg_sq"][name] for name in names],
                [state.moments["max_exp_avg_sq"][name] for name in names],
                [torch.tensor(float(state.step - state.began)) for _ in names],
                amsgrad=self.amsgrad,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=rate,
                weight_decay=self.weight_decay if decayed else 0.0,
                eps=EPSILON,
                maximize=False,
            )
        return terms
