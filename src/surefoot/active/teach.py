"""One training of a campaign: resumable, without a screen, wherever an executor runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surefoot.data.convert import to_samples
from surefoot.data.load import Splits
from surefoot.data.read import Frame
from surefoot.data.statistics import References
from surefoot.posteriors.learnt import hash_frames
from surefoot.posteriors.restart import (
    CHECKPOINT,
    POTENTIAL,
    WRITTEN,
    Keeper,
    load_checkpoint,
    take_threads,
)
from surefoot.posteriors.training import Parts, finish, plan_training, start
from surefoot.train.checkpoint import sweep
from surefoot.train.fit import fit
from surefoot.train.state import State


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one training needs; it can be sent to another process.

    Attributes:
        folder: for checkpoint, log and potential.
        splits: frames to learn from and to judge with.
        parts: what is combined.
        references: where energies of free atoms come from.
        scale: of energies and forces in eV and eV/Å; measured where not given.
        config: kept in the file of the potential.
    """

    folder: Path
    splits: Splits
    parts: Parts
    references: References = "auto"
    scale: float | None = None
    config: dict[str, Any]


class Stopped(Exception):
    """A training that was asked to stop; its checkpoint is whole."""


def teach(
    lesson: Lesson,
    observe: Callable[[State], None] = lambda _: None,
    asked: Callable[[], bool] = lambda: False,
) -> Path:
    """Train to the end, or go on where an earlier call was ended, however it ended.

    Args:
        lesson: what is learnt.
        observe: called after each epoch.
        asked: whether to stop.
    Returns:
        The file of the calibrated potential.
    Raises:
        Stopped: if it was asked to stop before the end.
        ValueError: if these frames can not be learnt from with these parts.
    """
    potential = lesson.folder / POTENTIAL
    if potential.exists():
        return potential
    lesson.folder.mkdir(parents=True, exist_ok=True)
    sweep(lesson.folder, WRITTEN)
    train = take_threads(lesson.parts.train, lesson.parts.posterior)
    threads = train.threads or 1
    parts = replace(lesson.parts, train=train)
    provenance = {"config": lesson.config, "files": {"frames": fingerprint(lesson.splits)}}
    plan = plan_training(lesson.splits, parts, lesson.references, provenance, lesson.scale)
    checkpoint = lesson.folder / CHECKPOINT
    state = load_checkpoint(checkpoint, plan) if checkpoint.exists() else start(plan)
    keeper = Keeper(plan, state, checkpoint)
    finished = fit(
        plan.task,
        state,
        observers=[keeper.close_epoch, observe],
        stop=lambda: keeper.look() or asked(),
        workers=threads,
    )
    keeper.save()
    if not finished:
        raise Stopped(f"stopped in epoch {state.epoch + 1}")
    torch.set_num_threads(threads)
    predictor, _ = finish(plan, state)
    predictor.save(potential)
    return potential


def fingerprint(splits: Splits) -> str:
    """SHA-256 of all structures and labels, by role."""
    roles = (splits.train, splits.valid, splits.isolated)
    return hashlib.sha256("".join(map(hash_labelled, roles)).encode()).hexdigest()


def hash_labelled(frames: Sequence[Frame]) -> str:
    """SHA-256 of structures and all their labels."""
    digest = hashlib.sha256(len(frames).to_bytes(8, "little"))
    digest.update(hash_structures(frames).tobytes())
    for frame in frames:
        digest.update(repr(frame.energy).encode())
        for label in (frame.forces, frame.stress):
            digest.update(b"none" if label is None else np.asarray(label, "<f8").tobytes())
    return digest.hexdigest()


def hash_structures(frames: Sequence[Frame]) -> Any:
    """The hash by which potentials know their frames, of each."""
    return hash_frames(to_samples(frames, 1.0))
