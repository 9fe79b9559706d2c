"""Learning rates over a run: warm-up, then constant, cosine, plateau or steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, model_validator

from surefoot.settings import Settings


class ScheduleSettings(Settings):
    """How the learning rate moves."""

    name: Literal["constant", "cosine", "plateau", "steps"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0, description="steps in which the rate rises")
    warmup_from: float = Field(
        default=0.0, ge=0, lt=1, description="where it rises from, as a share of the first rate"
    )
    final: float = Field(default=0.01, gt=0, le=1, description="last rate as a share of the first")
    factor: float = Field(
        default=0.8, gt=0, lt=1, description="plateau, steps: what the rate is multiplied by"
    )
    milestones: list[int] = Field(
        default=[], description="steps: numbers of the steps from which on it is"
    )
    patience: int = Field(
        default=10, ge=1, description="plateau: validations without gain before that"
    )

    @model_validator(mode="after")
    def _milestones(self) -> ScheduleSettings:
        if (self.name == "steps") != bool(self.milestones):
            raise ValueError(
                "`name: steps` and `milestones: [1000, 2000]` belong together; set both, or none"
            )
        if self.milestones != sorted(set(self.milestones)) or min(self.milestones, default=1) < 1:
            raise ValueError(
                f"milestones are {self.milestones}; numbers of steps that rise from 1 are needed"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """What a plateau schedule remembers between validations.

    Attributes:
        share: the rate as a share of the first.
        best: lowest validation loss so far.
        stale: validations since then; early stopping reads it.
        waited: validations since then or since the share last fell.
    """

    share: float = 1.0
    best: float = math.inf
    stale: int = 0
    waited: int = 0


@dataclass(frozen=True, kw_only=True)
class Tail:
    """The end of a run, in which the rate does not move: what collects weights needs it.

    Attributes:
        begin: share of the steps after which it begins; the schedule is over by then.
        share: the rate as a share of the first.
    """

    begin: float
    share: float


def observe(plateau: Plateau, loss: float, settings: ScheduleSettings) -> Plateau:
    """The memory after a validation: the share falls when there was no gain for long enough."""
    if loss < plateau.best:
        return replace(plateau, best=loss, stale=0, waited=0)
    plateau = replace(plateau, stale=plateau.stale + 1, waited=plateau.waited + 1)
    if settings.name == "plateau" and plateau.waited > settings.patience:
        share = max(plateau.share * settings.factor, settings.final)
        return replace(plateau, share=share, waited=0)
    return plateau


def rate_share(
    step: int,
    steps: int,
    plateau: Plateau,
    settings: ScheduleSettings,
    tail: Tail | None = None,
    began: int = 0,
) -> float:
    """The learning rate of a step as a share of the first.

    Args:
        step: number of the step from 0.
        steps: how many there will be.
        plateau: memory of the validations.
        settings: the schedule.
        tail: what comes after it, if anything.
        began: step from which the warm-up counts.
    """
    if tail is not None:
        if step >= tail.begin * steps:
            return tail.share
        steps = max(1, round(tail.begin * steps))
    warm = 1.0
    if settings.warmup_steps:
        risen = min(1.0, (step - began + 1) / settings.warmup_steps)
        warm = settings.warmup_from + (1 - settings.warmup_from) * risen
    if settings.name == "cosine":
        progress = min(1.0, step / max(1, steps))
        wave = 0.5 * (1 + math.cos(math.pi * progress))
        return warm * (settings.final + (1 - settings.final) * wave)
    if settings.name == "plateau":
        return warm * plateau.share
    if settings.name == "steps":
        return float(warm * settings.factor ** sum(step >= place for place in settings.milestones))
    return warm
