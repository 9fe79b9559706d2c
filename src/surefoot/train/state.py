"""Everything a run must remember, as one tree of tensors and one JSON header."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from surefoot.blocks.dense import Weights, branch, under
from surefoot.members import count_models, stacks_model
from surefoot.train.schedule import Plateau


@dataclass
class State:
    """A run between two steps.

    Attributes:
        weights: what the optimiser moves; leaves.
        averages: running average of the weights: what is judged and kept.
        best: the averages at each member's best validation.
        best_scores: (members) validation loss of `best`.
        moments: per kind of the optimiser's moments a tree like the weights.
        collected: what an observer gathers over the epochs, such as the moments of SWAG.
        uncompiled: whether a step that was to be compiled could not be: then none is any more.
        step: optimiser steps taken.
        began: steps taken when the moments began; a change of the loss begins them anew.
        epoch: epochs finished.
        batch: batches of the running epoch that are done.
        sums: (terms, members) sums of the running epoch's loss terms.
        plateau: memory of the schedule.
        history: one record per epoch, for the log.
    """

    weights: Weights
    averages: Weights
    best: Weights
    best_scores: Tensor
    moments: dict[str, Weights]
    step: int = 0
    began: int = 0
    epoch: int = 0
    batch: int = 0
    sums: Weights = field(default_factory=dict)
    plateau: Plateau = field(default_factory=Plateau)
    history: list[dict[str, float]] = field(default_factory=list)
    collected: Weights = field(default_factory=dict)
    uncompiled: bool = False

    def tree(self) -> Weights:
        """All tensors under dotted names."""
        tree = under("weights", self.weights) | under("averages", self.averages)
        tree |= under("best", self.best) | under("sums", self.sums)
        tree |= under("collected", self.collected)
        for kind, moment in self.moments.items():
            tree |= under(f"moments.{kind}", moment)
        tree["best_scores"] = self.best_scores
        return tree

    def header(self) -> dict[str, Any]:
        """All numbers that are not tensors."""
        plateau = self.plateau
        best = None if plateau.best == float("inf") else plateau.best
        return {
            "step": self.step,
            "began": self.began,
            "epoch": self.epoch,
            "batch": self.batch,
            "plateau": asdict(plateau) | {"best": best},
            "history": self.history,
            "uncompiled": self.uncompiled,
        }


def fresh_state(
    weights: Weights,
    *,
    moments: dict[str, Weights],
    members: tuple[int, ...] | None = None,
) -> State:
    """The state before the first step.

    Args:
        weights: of one set or of stacked members; only what is learned.
        moments: of what moves them.
        members: shape of the member axis of the scores; that of the table of elements where not
            given.
    """
    shape = members
    if shape is None:
        shape = (count_models(weights),) if stacks_model(weights) else ()
    return State(
        weights=_copy(weights),
        averages=_copy(weights),
        best=_copy(weights),
        best_scores=torch.full(shape, torch.inf, dtype=torch.float64),
        moments=moments,
    )


def restore_state(tree: Weights, header: dict[str, Any]) -> State:
    """The state that `State.tree` and `State.header` describe.

    Raises:
        KeyError, TypeError, ValueError: if they describe none.
    """
    counts = [header[name] for name in ("step", "epoch", "batch")] + [header.get("began", 0)]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a count of steps, epochs or batches is none")
    plateau = header["plateau"]
    best = float("inf") if plateau["best"] is None else plateau["best"]
    kinds = sorted({name.split(".")[0] for name in branch(tree, "moments")})
    return State(
        weights=branch(tree, "weights"),
        averages=branch(tree, "averages"),
        best=branch(tree, "best"),
        best_scores=tree["best_scores"],
        moments={kind: branch(tree, f"moments.{kind}") for kind in kinds},
        step=header["step"],
        began=header.get("began", 0),
        epoch=header["epoch"],
        batch=header["batch"],
        sums=branch(tree, "sums"),
        plateau=Plateau(**plateau | {"best": best}),
        history=header["history"],
        collected=branch(tree, "collected"),
        uncompiled=header.get("uncompiled", False),
    )


def _copy(weights: Weights) -> Weights:
    return {name: value.clone() for name, value in weights.items()}
