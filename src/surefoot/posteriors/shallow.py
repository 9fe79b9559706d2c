"""Shallow ensemble: members share one model and have heads of their own.

Source: Kellner and Ceriotti 2024 (doi 10.1088/2632-2153/ad594a). Differs: heads leave out folds of
the training groups, as the members of our deep ensemble do: heads that are fitted to the same
features, data and loss end in the same place, whatever seed they began from. The loss is that of
each head, whatever it is, not a likelihood of their spread.

Trained together with the model, or afterwards on one that is kept as it is
(`start: {potential: FILE, learn: heads}`). The model has seen every training frame in either
case, so only a validation split can calibrate.

Cost: features once; forces and stress take one backward pass for each head.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from surefoot.heads import Head
from surefoot.posteriors.ensemble import Stack, require_some_seen
from surefoot.posteriors.posterior import Fitting, Posterior
from surefoot.settings import Settings
from surefoot.train.fit import Task, TrainSettings
from surefoot.train.loss import LossSettings
from surefoot.train.state import State


class ShallowSettings(Settings):
    """How many heads, and what each does not see."""

    name: Literal["shallow"] = "shallow"
    members: int = Field(default=8, ge=2, description="heads on one model")
    left_out: int = Field(
        default=2, ge=0, description="folds (of as many as members) a head does not learn from"
    )

    @model_validator(mode="after")
    def _sees_some(self) -> ShallowSettings:
        require_some_seen(self)
        return self

    def fitting(
        self,
        learnt: int,  # noqa: ARG002
        settings: TrainSettings,  # noqa: ARG002
        loss: LossSettings,  # noqa: ARG002
        head: Head,  # noqa: ARG002
    ) -> Fitting:
        """Heads are clipped and kept as one, since they share what they read."""
        return Fitting(joint=True)

    def posterior(self, task: Task, state: State) -> Posterior:
        """The weights at the best mean validation."""
        return Shallow(task.fixed | state.best)


class Shallow(Stack):
    """One model and stacked heads: a partial stack, of which only the heads are members."""

    name: ClassVar[str] = "shallow"
