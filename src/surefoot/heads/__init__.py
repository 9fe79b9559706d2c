"""Heads turn features into distributions. May import blocks and below; they know no model.

Comes in: weights and `Features`. Goes out: a `Distribution` of the energy of each graph.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch

from surefoot.blocks.dense import Weights
from surefoot.graph import Features
from surefoot.heads.scalar import Scalar
from surefoot.prediction import Distribution


@runtime_checkable
class Head(Protocol):
    """What the rest of the house knows of a head."""

    @property
    def energy(self) -> str:
        """As a config spells it."""
        ...

    @property
    def forces(self) -> str:
        """Where the forces come from."""
        ...

    def model_dump(self) -> dict[str, Any]:
        """The settings, for the saved file."""
        ...

    def init(self, generator: torch.Generator, widths: tuple[int, ...]) -> Weights:
        """Fresh weights in float64 for read-out layers of these widths."""
        ...

    def __call__(self, weights: Weights, features: Features) -> Distribution:
        """The energy of each graph, in units of the baseline's scale."""
        ...


HEADS: dict[str, type[Scalar]] = {"scalar": Scalar}
"""Name of the energy head in a config → head."""
