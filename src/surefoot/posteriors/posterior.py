"""What a posterior is: a source of weight trees. Nothing outside this room asks which one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from surefoot.blocks.dense import Weights, stack


@runtime_checkable
class Posterior(Protocol):
    """Draws of weights, all of equal shape."""

    @property
    def name(self) -> str:
        """As a file spells it."""
        ...

    def draws(self, generator: torch.Generator, count: int | None) -> Weights:
        """Weight trees stacked along a leading axis of draws; None takes the natural number."""
        ...

    def tree(self) -> Weights:
        """All tensors the posterior consists of, for its file."""
        ...


class Single:
    """One set of weights: no spread over weights, hence no epistemic part."""

    name = "single"

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def draws(self, generator: torch.Generator, count: int | None) -> Weights:  # noqa: ARG002
        """The one set of weights.

        Raises:
            ValueError: if more than one draw is asked for.
        """
        if count not in (None, 1):
            raise ValueError(f"one set of weights gives one draw, not {count}.")
        return stack([self._weights])

    def tree(self) -> Weights:
        """The weights."""
        return self._weights
