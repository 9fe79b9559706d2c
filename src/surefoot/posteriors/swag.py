"""SWAG: a Gaussian through the weights that training passes at a constant rate.

Paper: Maddox et al. 2019, arXiv:1902.02476. After a first share of the run the learning rate stays
constant; now and then the weights θ join the running mean and variance, and their deviation from
the mean so far becomes a column of D, of which the last K are kept.

    Cov(θ) = ½ (diag(σ²) + D Dᵀ / (K − 1))

Faithful: both parts halved (the released code doubles them unless told otherwise); weights as the
optimiser leaves them, not their averages.
Differs: steps are AdamW's, like those before; moments by Welford's recurrence in float64, since
⟨θ²⟩ − ⟨θ⟩² in float32 is below zero for most weights that hardly move. No layer here keeps
statistics of batches, so nothing has to be measured anew for a draw.
Cost: training as it is, K + 4 trees of memory, a prediction per draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field

from surefoot.blocks.dense import Weights, branch, under
from surefoot.heads import Head
from surefoot.posteriors.gaussian import Swag
from surefoot.posteriors.posterior import Fitting, OneSet, Posterior
from surefoot.train.fit import Task, TrainSettings
from surefoot.train.loss import LossSettings
from surefoot.train.schedule import Tail
from surefoot.train.state import State

FEWEST = 3  # collected sets of weights, for a spread and its directions


class SwagSettings(OneSet):
    """When weights are collected, how many directions are kept, how many draws are taken."""

    name: Literal["swag"] = "swag"
    start: float = Field(
        default=0.6, gt=0, lt=1, description="share of the epochs before weights are collected"
    )
    every: int = Field(default=1, ge=1, description="epochs from one collected set to the next")
    rank: int = Field(default=20, ge=2, description="deviations that are kept, K")
    rate: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="constant rate while collecting, as a share of train: {learning_rate}; the "
        "schedule is over by then",
    )
    draws: int = Field(default=30, ge=2, description="sets of weights a prediction mixes")

    def fitting(
        self,
        learnt: int,  # noqa: ARG002
        settings: TrainSettings,
        loss: LossSettings,
        head: Head,  # noqa: ARG002
    ) -> Fitting:
        """A tail at a constant rate in which weights are collected.

        Raises:
            ValueError: if the epochs give too few sets, the run could end before they are done, or
                some would come from the warm-up of the loss.
        """
        if settings.patience is not None:
            raise ValueError(
                f"train: {{patience: {settings.patience}}} may end a run before SWAG has collected "
                "its weights; remove it."
            )
        first = math.floor(self.start * settings.epochs) + 1
        sets = max(0, (settings.epochs - first) // self.every + 1)
        if sets < FEWEST:
            raise ValueError(
                f"SWAG would collect {sets} sets of weights in {settings.epochs} epochs, and needs "
                f"at least {FEWEST}; raise train: {{epochs}}, or lower posterior: {{start, every}}."
            )
        if first <= loss.warmup.epochs:
            raise ValueError(
                f"SWAG would collect weights after epoch {first}, and loss: {{warmup: {{epochs: "
                f"{loss.warmup.epochs}}}}} is about another loss until then; shorten the warm-up "
                "or raise posterior: {start}."
            )
        return Fitting(
            tail=Tail(begin=self.start, share=self.rate),
            collect=Collector(first=first, every=self.every, rank=self.rank),
            needs_training="SWAG collects weights while it trains",
        )

    def posterior(self, task: Task, state: State) -> Posterior:
        """The Gaussian of the collected weights."""
        return make_swag(state, task.fixed, self.draws)


@dataclass(frozen=True, kw_only=True)
class Collector:
    """An observer that gathers weights into `State.collected`.

    Attributes:
        first: epoch after which weights are collected for the first time.
        every: epochs from one time to the next.
        rank: how many deviations are kept.
    """

    first: int
    every: int
    rank: int

    def __call__(self, state: State) -> None:
        """After an epoch."""
        late = state.epoch - self.first
        if late >= 0 and late % self.every == 0:
            state.collected = gather(state.collected, state.weights, self.rank)


def gather(collected: Weights, weights: Weights, rank: int) -> Weights:
    """Moments and deviations with one more set of weights.

    n ← n + 1,  δ = θ − mean,  mean ← mean + δ / n,  squares ← squares + δ (θ − mean)

    and the last column of D is θ − mean.

    Args:
        collected: `mean`, `squares` and `deviations` of each weight, and `count`; empty at first.
        weights: θ.
        rank: columns of D that are kept.
    """
    count = collected.get("count", torch.tensor(0)) + 1
    mean, squares = branch(collected, "mean"), branch(collected, "squares")
    columns = branch(collected, "deviations")
    for name, value in weights.items():
        exact = value.detach().double()
        before = mean.get(name, torch.zeros_like(exact))
        off = exact - before
        mean[name] = before + off / count
        left = exact - mean[name]
        squares[name] = squares.get(name, torch.zeros_like(exact)) + off * left
        column = left.to(value.dtype)[None]
        kept = columns[name] if name in columns else column[:0]
        columns[name] = torch.cat([kept, column])[-rank:]
    return (
        under("mean", mean)
        | under("squares", squares)
        | under("deviations", columns)
        | {"count": count}
    )


def make_swag(state: State, fixed: Weights, draws: int) -> Swag:
    """The Gaussian of what was collected.

    Args:
        state: at the end of the run.
        fixed: weights that were not learned.
        draws: how many are natural.
    Raises:
        ValueError: if too little was collected.
    """
    count = int(state.collected.get("count", torch.tensor(0)))
    if count < FEWEST:
        raise ValueError(f"SWAG has collected {count} sets of weights and needs {FEWEST}.")
    dtype = {name: value.dtype for name, value in state.weights.items()}
    columns = branch(state.collected, "deviations")
    kept = next(iter(columns.values())).shape[0]
    width = math.sqrt(2 * (kept - 1))
    squares = branch(state.collected, "squares")
    mean = branch(state.collected, "mean")
    return Swag(
        mean={name: value.to(dtype[name]) for name, value in mean.items()},
        variance={n: (0.5 / count * value).to(dtype[n]) for n, value in squares.items()},
        natural=draws,
        fixed=fixed,
        directions={name: value / width for name, value in columns.items()},
    )
