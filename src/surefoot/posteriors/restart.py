"""Checkpoints of a run, and what must be the same for it to go on as if nothing had happened."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from surefoot.blocks.dense import Weights
from surefoot.blocks.native import describe_form
from surefoot.posteriors.posterior import Method
from surefoot.posteriors.training import Plan, to_predictor, write_log
from surefoot.train.checkpoint import (
    BROKEN,
    RefusedFile,
    digest,
    read_tree,
    refuse_difference,
    write_tree,
)
from surefoot.train.distributed import ALONE, Team
from surefoot.train.fit import TrainSettings
from surefoot.train.state import State, restore_state

KIND = "checkpoint"
CHECKPOINT = "last.safetensors"
BEST = "best.safetensors"
LOG = "log.csv"
POTENTIAL = "potential.safetensors"
WRITTEN = (CHECKPOINT, BEST, LOG, POTENTIAL)
"""Files of a training."""
CHECKPOINT_SECONDS = 20.0  # between checkpoints of a running training


def _identity(plan: Plan) -> dict[str, Any]:
    """What must be the same for a resumed run to equal the uninterrupted one."""
    parts = plan.parts
    train = parts.train.model_dump(exclude={"epochs", "compile", "log"})
    # A cosine looks at the end, and so does the last validation where it is an extra one.
    extra = parts.train.epochs % parts.train.validate_every
    if parts.train.schedule.name == "cosine" or extra or plan.task.tail is not None:
        train["epochs"] = parts.train.epochs
    # Kernels and the plain form round differently, and so do compiled steps.
    # Frames on disk train the same weights as frames in memory.
    data = plan.provenance.get("config", {}).get("data", {})
    form = {"computed_by": describe_form(parts.train.dtype)} if parts.model.native else {}
    return {
        **form,
        "compiled_steps": plan.task.compiles,
        "model": parts.model.model_dump(),
        "head": parts.head.model_dump(),
        "conditioning": parts.conditioning.model_dump(),
        "loss": parts.loss.model_dump(),
        "train": train,
        "posterior": parts.posterior.model_dump(),
        "start": _origin(plan),
        "files": plan.provenance.get("files", {}),
        "data": {name: value for name, value in data.items() if name != "store"},
        "versions": plan.provenance["versions"],
        "threads": torch.get_num_threads(),
    }


def _origin(plan: Plan) -> dict[str, Any]:
    """The weights a run began from, where they are not fresh."""
    start = plan.parts.start
    if start.potential is None:
        return {}
    return {"learn": start.learn, "weights": digest(plan.learned), "kept": digest(plan.task.fixed)}


def fingerprint(plan: Plan, state: State) -> str:
    """SHA-256 of all that a run begins from; processes that train one run have the same."""
    text = json.dumps([_identity(plan), state.header()], sort_keys=True)
    return digest(state.tree(), text)


def save_checkpoint(path: Path, plan: Plan, state: State, processes: int = 1) -> None:
    """Write everything a restart needs, whole or not at all.

    Args:
        path: where to.
        plan: the run.
        state: where it stands.
        processes: how many train it.
    """
    header = {"identity": _identity(plan), "state": state.header(), "processes": processes}
    write_tree(path, KIND, state.tree(), header)


def load_checkpoint(path: Path, plan: Plan, processes: int = 1) -> State:
    """The state a run stopped in; a warning where it goes on in another number of processes.

    Args:
        path: of the checkpoint.
        plan: the run.
        processes: how many will train it.
    Raises:
        RefusedFile: if the file is damaged, foreign, or of a run that differs in anything that
            would change the weights.
    """
    tree, header = read_tree(path, KIND)
    refuse_difference(header.get("identity"), _identity(plan), path)
    try:
        state = restore_state(tree, header["state"])
        for held in (state.weights, state.averages, state.best):
            _require_shapes(held, plan)
    except BROKEN as error:
        raise RefusedFile(
            f"{path}: it is not the state of a training ({error}); start anew in another folder."
        ) from error
    before = header.get("processes", 1)
    if before != processes:
        warnings.warn(
            f"{path}: processes that trained this run: {before}, that go on with it: {processes}; "
            "the result agrees with that of the uninterrupted run only up to rounding.",
            RuntimeWarning,
            stacklevel=1,
        )
    return state


def _require_shapes(held: Weights, plan: Plan) -> None:
    """Refuse weights that are not those of the run."""
    for name in sorted(held.keys() | plan.learned.keys()):
        shapes = [None if name not in tree else tree[name].shape for tree in (held, plan.learned)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the weight {name:.100} has another shape, or is not there")


def take_threads(settings: TrainSettings, posterior: Method) -> TrainSettings:
    """Give torch the threads of a run, and say how many, since rounding depends on them.

    Members share the threads; inside an operation there is then nothing left to cut.
    """
    threads = settings.threads or torch.get_num_threads()
    apart = posterior.name == "ensemble" and posterior.members > 1
    torch.set_num_threads(1 if apart else threads)
    return settings.model_copy(update={"threads": threads})


class Keeper:
    """Keeps a run safe: a checkpoint now and then, the log and the best weights with it.

    In the first process; in others it does nothing.
    """

    def __init__(self, plan: Plan, state: State, checkpoint: Path, team: Team = ALONE) -> None:
        """Begin to count the time.

        Args:
            plan: the run.
            state: where it stands; it is changed by the run.
            checkpoint: where to; best weights and log stand beside it.
            team: processes that share the run.
        """
        self._plan, self._state, self._checkpoint, self._team = plan, state, checkpoint, team
        self._saved = time.monotonic()

    def save_checkpoint(self) -> None:
        """Only what a restart needs."""
        if self._team.leads:
            save_checkpoint(self._checkpoint, self._plan, self._state, self._team.count)

    def save(self) -> None:
        """Checkpoint, best weights and log."""
        if not self._team.leads:
            return
        folder = self._checkpoint.parent
        self.save_checkpoint()
        if self._state.history:
            to_predictor(self._plan, self._state).save(folder / BEST)
            write_log(folder / LOG, self._state.history)
        self._saved = time.monotonic()

    def look(self) -> bool:
        """Between two batches: save if the last time is long ago; never asks to stop."""
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.save()
        return False

    def close_epoch(self, state: State) -> None:
        """After the first epoch a checkpoint is there, whatever comes."""
        if state.epoch == 1:
            self.save()
