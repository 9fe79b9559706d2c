"""What a posterior is: a source of weight trees. Nothing outside this room asks which one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from surefoot.blocks.dense import Weights, stack
from surefoot.heads import Head
from surefoot.settings import Settings
from surefoot.train.adamw import Step
from surefoot.train.fit import Observer, Task, TrainSettings
from surefoot.train.loss import LossSettings
from surefoot.train.schedule import Tail
from surefoot.train.state import State


@runtime_checkable
class Posterior(Protocol):
    """Draws of weights, all of equal shape.

    Attributes:
        name: as a file spells it.
    """

    name: ClassVar[str]

    def draws(self, generator: torch.Generator, count: int | None) -> Weights:
        """Weight trees stacked along a leading axis of draws; None takes the natural number.

        The model of the first draw does not depend on their number: the gate knows its features.
        Where only weights of the head vary, the stack is partial: see `potential.shares_model`.
        """
        ...

    def tree(self) -> Weights:
        """All tensors the posterior consists of, for its file."""
        ...

    @classmethod
    def read(cls, tree: Weights) -> Posterior:
        """The posterior of such a tree."""
        ...


@runtime_checkable
class ClosedForm(Protocol):
    """A posterior whose energy covariance needs no draws."""

    def spread(self) -> Weights:
        """Heads, stacked, whose energies are z with Cov(E_a, E_b) = z_a · z_b; float64."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How training differs for the sake of a posterior.

    Attributes:
        joint: whether members share weights.
        step: what moves the weights, if not AdamW.
        tail: the end of the run at a constant rate, if any.
        collect: called with the state after every epoch, if anything is gathered.
        needs_training: what a run without training lacks, in words; None if nothing.
        note: what the posterior makes of this loss and a user should know, in words; or None.
    """

    joint: bool = False
    step: Step | None = None
    tail: Tail | None = None
    collect: Observer | None = None
    needs_training: str | None = None
    note: str | None = None


@runtime_checkable
class Method(Protocol):
    """Settings of a posterior, and how it comes about."""

    @property
    def name(self) -> str:
        """As a config spells it."""
        ...

    @property
    def members(self) -> int:
        """How many stacked sets of weights, or of heads, are trained."""
        ...

    @property
    def left_out(self) -> int:
        """Folds a member does not learn from."""
        ...

    def model_dump(self) -> dict[str, Any]:
        """The settings, for the saved file."""
        ...

    def fitting(
        self, learnt: int, settings: TrainSettings, loss: LossSettings, head: Head
    ) -> Fitting:
        """What training has to do.

        Args:
            learnt: structures from which anything is learned.
            settings: of the training.
            loss: what is made small.
            head: what is trained.
        Raises:
            ValueError: if the settings do not go together.
        """
        ...

    def posterior(self, task: Task, state: State) -> Posterior:
        """The posterior of a finished run."""
        ...


class OneSet(Settings):
    """Settings of a method that trains one set of weights, on all training frames."""

    @property
    def members(self) -> int:
        """One set of weights is trained."""
        return 1

    @property
    def left_out(self) -> int:
        """It learns from all training frames."""
        return 0


@dataclass(frozen=True)
class Single:
    """One set of weights: no spread over weights, hence no epistemic part."""

    weights: Weights
    name: ClassVar[str] = "single"

    @classmethod
    def read(cls, tree: Weights) -> Single:
        """From its weights."""
        return cls(tree)

    def draws(self, generator: torch.Generator, count: int | None) -> Weights:  # noqa: ARG002
        """The one set of weights.

        Raises:
            ValueError: if more than one draw is asked for.
        """
        if count not in (None, 1):
            raise ValueError(f"one set of weights gives one draw, not {count}.")
        return stack([self.weights])

    def tree(self) -> Weights:
        """The weights."""
        return self.weights


def require_count(count: int | None, natural: int) -> int:
    """The number of draws that is meant.

    Raises:
        ValueError: if it is not at least 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"{count} draws are not possible; ask for 1 or more.")
    return natural if count is None else count


def complete(fixed: Mapping[str, torch.Tensor], drawn: Weights) -> Weights:
    """Draws of some leaves with those that do not vary: partial where only the head varies.

    Args:
        fixed: one set of weights; leaves that are drawn too are not looked at.
        drawn: leaves with a leading axis of draws.
    """
    count = next(iter(drawn.values())).shape[0]
    partial = all(name.startswith("head.") for name in drawn)
    rest = {
        name: value
        if partial and not name.startswith("head.")
        else value.expand(count, *value.shape).contiguous()
        for name, value in fixed.items()
        if name not in drawn
    }
    return rest | drawn
