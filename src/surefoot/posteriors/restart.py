"""Checkpoints of a run, and what must be the same for it to go on as if nothing had happened."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from surefoot.blocks.native import describe_form
from surefoot.posteriors.training import Plan
from surefoot.train.checkpoint import digest, read_tree, refuse_difference, write_tree
from surefoot.train.fit import compiles
from surefoot.train.state import State, restore_state

KIND = "checkpoint"


def _identity(plan: Plan) -> dict[str, Any]:
    """What must be the same for a resumed run to equal the uninterrupted one."""
    parts = plan.parts
    train = parts.train.model_dump(exclude={"epochs", "compile"})
    # A cosine looks at the end, and so does the last validation where it is an extra one.
    extra = parts.train.epochs % parts.train.validate_every
    if parts.train.schedule.name == "cosine" or extra or plan.task.tail is not None:
        train["epochs"] = parts.train.epochs
    # Kernels and the plain form round differently, and so do compiled steps.
    form = {"computed_by": describe_form(parts.train.dtype)} if parts.model.native else {}
    return {
        **form,
        "compiled_steps": compiles(plan.task),
        "model": parts.model.model_dump(),
        "head": parts.head.model_dump(),
        "conditioning": parts.conditioning.model_dump(),
        "loss": parts.loss.model_dump(),
        "train": train,
        "posterior": parts.posterior.model_dump(),
        "start": _origin(plan),
        "files": plan.provenance.get("files", {}),
        "data": plan.provenance.get("config", {}).get("data", {}),
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
    refuse_difference(header["identity"], _identity(plan), path)
    before = header.get("processes", 1)
    if before != processes:
        warnings.warn(
            f"{path}: processes that trained this run: {before}, that go on with it: {processes}; "
            "the result agrees with that of the uninterrupted run only up to rounding.",
            RuntimeWarning,
            stacklevel=1,
        )
    return restore_state(tree, header["state"])
