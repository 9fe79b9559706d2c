"""Deep ensemble: members that differ by their initial seed and by what they have not seen.

Source: Lakshminarayanan et al. 2017. Differs: each member leaves out some folds of the training
groups, so that error bars are calibrated on residuals of members that never saw the frame. The
folds left out overlap from member to member (member m leaves out folds m, m+1, …), because
members that leave out the same folds resemble each other more than they should.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import Field, model_validator

from surefoot.blocks.dense import Weights
from surefoot.data.splits import assign_folds
from surefoot.heads import Head
from surefoot.members import count_members, take_members
from surefoot.posteriors.posterior import Fitting, Method, Posterior, Single
from surefoot.settings import Settings
from surefoot.train.fit import Task, TrainSettings
from surefoot.train.loss import LossSettings
from surefoot.train.state import State


class EnsembleSettings(Settings):
    """How many members, and what each does not see."""

    name: Literal["ensemble"] = "ensemble"
    members: int = Field(
        default=8, ge=1, description="sets of weights, trained together; 1 has no spread"
    )
    left_out: int = Field(
        default=2,
        ge=0,
        description="folds (of as many as members) a member does not see; 0 trains all on all, "
        "then `data: {valid}` calibrates",
    )

    @model_validator(mode="after")
    def _calibratable(self) -> EnsembleSettings:
        if self.members > 1 and self.left_out == 1:
            raise ValueError(
                f"left_out is 1 with {self.members} members; a fold needs at least two members "
                "that have not seen it: 0, or 2 up to members − 1"
            )
        require_some_seen(self)
        return self

    def fitting(
        self,
        learnt: int,  # noqa: ARG002
        settings: TrainSettings,  # noqa: ARG002
        loss: LossSettings,  # noqa: ARG002
        head: Head,  # noqa: ARG002
    ) -> Fitting:
        """Nothing beyond members that train side by side."""
        return Fitting()

    def posterior(self, task: Task, state: State) -> Posterior:
        """The best weights of each member."""
        weights = task.fixed | state.best
        return Single(weights) if self.members == 1 else Ensemble(weights)


def require_some_seen(settings: Method) -> None:
    """Refuse members that would learn from nothing.

    Raises:
        ValueError: if all folds are left out.
    """
    if settings.members > 1 and settings.left_out >= settings.members:
        raise ValueError(
            f"left_out is {settings.left_out} with {settings.members} members, so each would learn "
            "from nothing; it is at most members − 1"
        )


@dataclass(frozen=True)
class Stack:
    """Members along the first axis of every tensor that they do not share."""

    weights: Weights
    name: ClassVar[str]

    @classmethod
    def read(cls, tree: Weights) -> Stack:
        """From the stacked members."""
        return cls(tree)

    def draws(self, generator: torch.Generator, count: int | None) -> Weights:
        """The members, or `count` of them: the first, which the gate knows, and others by chance.

        Raises:
            ValueError: if there are fewer members.
        """
        if count is None:
            return self.weights
        members = count_members(self.weights)
        if not 1 <= count <= members:
            raise ValueError(
                f"{count} draws of an ensemble of {members}; allowed are 1 to {members}."
            )
        others = 1 + torch.randperm(members - 1, generator=generator)[: count - 1]
        return take_members(self.weights, torch.cat([torch.zeros(1, dtype=torch.long), others]))

    def tree(self) -> Weights:
        """The stacked members."""
        return self.weights


class Ensemble(Stack):
    """Whole members: a frame that one has not seen judges it."""

    name: ClassVar[str] = "ensemble"


def unseen_frames(
    groups: Sequence[str], settings: Method, seed: int
) -> Bool[np.ndarray, "members frames"]:
    """Which member leaves out which frame of the training split.

    Groups are dealt to as many folds as there are members; member m leaves out the folds
    m, m+1, …, m+left_out−1 (modulo members).
    """
    members = settings.members
    if settings.left_out == 0 or members == 1:
        return np.zeros((members, len(groups)), bool)
    folds = assign_folds(groups, members, seed)
    distance = (folds[None, :] - np.arange(members)[:, None]) % members
    return distance < settings.left_out
