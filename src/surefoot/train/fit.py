"""The only epoch loop of the package.

Gradients come from the pure step; AdamW, clipping, the schedule and weight averages act outside,
on the weight tree, elementwise or per member: a stack of members trains as its members would
alone. The data order follows from seed and epoch, so a state is all a restart needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field, field_validator
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.data.batches import BatchLimits, ahead, order_of_epoch, plan_batches
from surefoot.data.convert import Sample, on_disk
from surefoot.graph import Memory
from surefoot.models import Model
from surefoot.potential import Potential
from surefoot.settings import Settings
from surefoot.train.adamw import AdamW, Step
from surefoot.train.distributed import (
    ALONE,
    Part,
    Team,
    batch_gradients,
    require_graphs,
    require_same_state,
    take_part,
)
from surefoot.train.loss import LossSettings
from surefoot.train.schedule import Plateau, ScheduleSettings, Tail, observe, rate_share
from surefoot.train.state import State
from surefoot.train.step import Gradients, compile_gradients, loss_gradients, shared_gradients
from surefoot.train.validate import judge

WORTH_COMPILING = 10_000  # steps; each gains some ten milliseconds or more


class TrainSettings(Settings):
    """How long, how fast and how exactly a potential is trained."""

    epochs: int = Field(default=200, ge=1, description="passes over the training data")
    batch: BatchLimits = BatchLimits()
    learning_rate: float = Field(default=1e-3, gt=0, description="highest learning rate")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW: of all but biases")
    amsgrad: bool = Field(default=True, description="AMSGrad: second moments never fall")
    schedule: ScheduleSettings = ScheduleSettings()
    clip: float = Field(
        default=10.0,
        gt=0,
        description="largest gradient norm of a member, in units of the root of its running mean "
        "square",
    )
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="largest gradient norm of a member as it is, in units of the loss; AdamW only",
    )
    average: float = Field(
        default=0.99, ge=0, lt=1, description="decay of the weight average per step"
    )
    validate_every: int = Field(default=1, ge=1, description="epochs between validations")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="stop after so many validations without gain, not in a warm-up of the loss",
    )
    precision: Literal["float32", "float64"] = "float32"
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="compile the training step, which takes a minute or two and halves its time; "
        f"auto does so from {WORTH_COMPILING} steps on",
        # A bare on or off is a word to some readers of YAML and a truth value to others.
        json_schema_extra={
            "type": ["string", "boolean"],
            "enum": ["auto", "on", "off", True, False],
        },
    )
    memory: Memory = Field(
        default="keep",
        description="the radial weights of all pairs of a batch are kept for the derivatives, or, "
        "with recompute, made anew for some pairs at a time: less memory, more time (MACE, RACE)",
    )
    seed: int = Field(default=0, ge=0, description="of weights and data order")
    threads: int | None = Field(default=None, ge=1, description="of torch; all where not set")
    log: Literal["csv", "tensorboard"] = Field(
        default="csv",
        description="of each epoch: log.csv, or event files for TensorBoard as well, in the folder "
        "tensorboard; changes no weight",
    )

    @field_validator("compile", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        """YAML reads a bare on and off as true and false."""
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch names it."""
        return {"float32": torch.float32, "float64": torch.float64}[self.precision]


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which member learns from which sample and which judge it.

    Attributes:
        learn: (members, samples) weight in the member's loss; 0 leaves it out. (samples) for one
            set of weights.
        judge: the same shape, which samples validate the member.
    """

    learn: Float[Tensor, "*members samples"]
    judge: Bool[Tensor, "*members samples"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is fitted to what: constant over a run.

    Attributes:
        potential: without weights.
        loss: what is made small.
        settings: how long and how fast.
        samples: of the training and validation splits.
        roles: who learns from which.
        fixed: weights that are not learned; with those of the state they are all there are.
        joint: whether members share some weights, so that they are clipped and kept as one.
        step: what moves the weights; AdamW by the settings where not given.
        tail: the end of the run at a constant rate, if any.
        collect: called with the state after every epoch, before other observers, if anything is
            gathered for a posterior.
    Raises:
        ValueError: if a setting of AdamW is given where something else moves the weights.
    """

    potential: Potential
    loss: LossSettings
    settings: TrainSettings
    samples: Sequence[Sample]
    roles: Roles
    fixed: Weights = field(default_factory=dict)
    joint: bool = False
    step: Step | None = None
    tail: Tail | None = None
    collect: Callable[[State], None] | None = None

    def __post_init__(self) -> None:
        if self.step is not None and self.settings.clip_norm is not None:
            raise ValueError(
                f"train: {{clip_norm: {self.settings.clip_norm:g}}} bounds the steps of AdamW, and "
                "this posterior moves the weights by steps of its own; leave it out."
            )

    @property
    def mover(self) -> Step:
        """What moves the weights."""
        settings = self.settings
        return self.step or AdamW(
            weight_decay=settings.weight_decay,
            amsgrad=settings.amsgrad,
            clip=settings.clip,
            clip_norm=settings.clip_norm,
        )

    @cached_property
    def compiles(self) -> bool:
        """Whether the step is compiled; it follows from the task, so a restart does the same."""
        if self.settings.compile != "auto":
            return self.settings.compile == "on"
        return self.settings.epochs * len(_plan_epoch(self, 0)) >= WORTH_COMPILING


def require_memory(settings: TrainSettings, model: Model) -> None:
    """Refuse to save memory with a model that has no large weights to make anew.

    Raises:
        ValueError: if the setting would do nothing.
    """
    if settings.memory == "recompute" and not model.recomputes:
        raise ValueError(
            f"train: {{memory: recompute}} does nothing for a {model.name}, which holds no radial "
            "weights of all pairs; leave it out, and lower `train: {batch: {edges}}` instead."
        )


Observer = Callable[[State], None]
"""Called after every epoch, when the state is whole."""


def fit(
    task: Task,
    state: State,
    *,
    observers: Sequence[Observer] = (),
    stop: Callable[[], bool] = lambda: False,
    workers: int = 1,
    team: Team = ALONE,
) -> bool:
    """Train until the epochs are done, patience ends or `stop` says so.

    Args:
        task: constant over the run.
        state: where to begin; it is moved along.
        observers: called with the state after every epoch.
        stop: asked after every batch; the state then stands between two batches.
        workers: threads that share the members; set torch itself to one thread then. Another
            count gives the same weights up to rounding.
        team: processes that share each batch, all of which call this with the same task and state
            and answers of `stop`; another count gives the same weights up to rounding.
    Returns:
        Whether the run is finished, rather than stopped in between.
    """
    settings = task.settings
    require_graphs(team, settings.batch)
    if not state.weights:
        return True
    workers = 1 if task.joint else min(workers, math.prod(task.roles.learn.shape[:-1]))
    with ThreadPoolExecutor(workers) as threads:
        step: Gradients = partial(loss_gradients, memory=settings.memory)
        if task.compiles and not state.uncompiled:
            # The state remembers it, for a restart has to round as the run did.
            failed = partial(setattr, state, "uncompiled", True)
            step = compile_gradients(task.potential, settings.memory, failed)
        if workers > 1:
            step = partial(shared_gradients, step, threads, workers)
        gradients = partial(batch_gradients, team, step)
        while state.epoch < settings.epochs and not _exhausted(task, state):
            if not _run_epoch(task, state, gradients, stop, team):
                return False
            if task.collect is not None:
                task.collect(state)
            require_same_state(team, state)
            for observe_state in observers:
                observe_state(state)
            if stop():
                return state.epoch >= settings.epochs
    return True


def _plan_epoch(task: Task, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch."""
    settings = task.settings
    # A sample from which nobody learns is left out of the batches altogether.
    learns = task.roles.learn.reshape(-1, len(task.samples)).sum(0) > 0
    pool = torch.nonzero(learns).squeeze(1).numpy()
    order = pool[order_of_epoch(len(pool), settings.seed, epoch)]
    limits = settings.batch.shared_by(math.prod(task.roles.learn.shape[:-1]))
    return plan_batches(task.samples, order, limits)


def _run_epoch(
    task: Task,
    state: State,
    gradients: Gradients,
    stop: Callable[[], bool],
    team: Team,
) -> bool:
    """The rest of the running epoch; whether it came to its end."""
    batches = _plan_epoch(task, state.epoch)
    started = time.perf_counter()
    with closing(_load(task, team, batches[state.batch :])) as loaded:
        for importance, part in loaded:
            _advance(task, state, part, importance, len(batches), gradients)
            if stop():
                return False
    _close_epoch(task, state, len(batches), time.perf_counter() - started, team)
    return True


def _load(
    task: Task, team: Team, batches: Sequence[np.ndarray]
) -> Generator[tuple[Tensor, Part | None], None, None]:
    """Weights in the losses, and what this process does, of each batch."""

    def load(indices: np.ndarray) -> tuple[Tensor, Part | None]:
        importance = task.roles.learn[..., torch.as_tensor(indices)]
        return importance, take_part(team, task.samples, indices, importance)

    return ahead(load, batches, threaded=on_disk(task.samples))


def _exhausted(task: Task, state: State) -> bool:
    """Whether patience is over; in a warm-up the loss itself is still to come."""
    patience = task.settings.patience
    warm = state.epoch < task.loss.warmup.epochs
    return patience is not None and not warm and state.plateau.stale >= patience


def _advance(
    task: Task,
    state: State,
    part: Part | None,
    importance: Tensor,
    batches: int,
    gradients_of: Gradients,
) -> None:
    """One optimiser step on one batch."""
    settings = task.settings
    loss = task.loss.in_epoch(state.epoch)

    def gradient(weights: Weights) -> tuple[dict[str, Tensor], Weights]:
        terms, gradients = gradients_of(task.potential, loss, weights, part, importance, task.fixed)
        _require_finite(terms["total"], state.step)
        return terms, gradients

    steps = settings.epochs * batches
    share = rate_share(state.step, steps, state.plateau, settings.schedule, task.tail, state.began)
    stacked = importance.dim() == 2 and not task.joint
    terms = task.mover(state, gradient, settings.learning_rate * share, stacked=stacked)
    state.step += 1
    state.batch += 1
    _average(state, settings.average)
    for name, term in terms.items():
        state.sums[name] = state.sums.get(name, torch.zeros_like(term)) + term


def _require_finite(loss: Tensor, step: int) -> None:
    if not bool(torch.isfinite(loss).all()):
        raise FloatingPointError(
            f"the loss is not a number in step {step + 1}; lower `train: {{learning_rate}}` "
            "or look at the data with `surefoot check`. The weights before this step are unharmed."
        )


def _average(state: State, longest: float) -> None:
    """The running average after a step."""
    # Early averages forget their random start: the decay grows to its set value.
    decay = min(longest, state.step / (9 + state.step))
    names = list(state.weights)
    torch._foreach_lerp_(
        [state.averages[name] for name in names],
        [state.weights[name].detach() for name in names],
        1 - decay,
    )


def _close_epoch(task: Task, state: State, batches: int, seconds: float, team: Team) -> None:
    """Validate, keep the best, move the schedule, write the record of the epoch."""
    settings = task.settings
    losses = {name: float(total.mean()) / batches for name, total in state.sums.items()}
    loss, epoch = task.loss.in_epoch(state.epoch), state.epoch + 1
    record = {"epoch": float(epoch), "seconds": seconds}
    record |= {f"train_{name}": value for name, value in losses.items()}
    judged = epoch % settings.validate_every == 0 or epoch == settings.epochs
    verdict = None
    if judged:  # before the state is touched: what stands on disk after a failure is whole
        weights = task.fixed | state.averages
        criterion = loss.for_validation()
        verdict = judge(task.potential, criterion, weights, task.samples, task.roles.judge, team)
    if verdict is not None:
        record |= {"valid_total": float(verdict.scores.mean())} | verdict.errors
    if not all(math.isfinite(value) for value in record.values()):
        raise FloatingPointError(
            f"the validation loss is not a number after epoch {epoch}; lower "
            "`train: {learning_rate}` or look at the data with `surefoot check`."
        )
    if verdict is not None:
        _keep_best(state, verdict.scores.mean() if task.joint else verdict.scores)
        state.plateau = observe(state.plateau, record["valid_total"], settings.schedule)
    elif judged:
        state.best = {name: value.clone() for name, value in state.averages.items()}
    state.epoch, state.batch, state.sums = epoch, 0, {}
    state.history.append(record)
    if task.loss.in_epoch(epoch) != loss:
        _begin_anew(task, state)


def _begin_anew(task: Task, state: State) -> None:
    """Another loss follows: what was learned of the slopes and scores of the last is forgotten."""
    state.best_scores = torch.full_like(state.best_scores, torch.inf)
    state.plateau = Plateau()
    state.moments = task.mover.fresh(state.weights)
    state.began = state.step


def _keep_best(state: State, scores: Float[Tensor, "*members"]) -> None:
    better = scores < state.best_scores
    state.best_scores = torch.where(better, scores, state.best_scores)
    for name, value in state.averages.items():
        mask = better.reshape(better.shape + (1,) * (value.dim() - better.dim()))
        state.best[name] = torch.where(mask, value, state.best[name])
