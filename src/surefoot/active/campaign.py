"""What a campaign is made of, what it may not change, and who is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from surefoot.active.choose import Acquire
from surefoot.active.engines import Engine
from surefoot.active.explore import Pool
from surefoot.active.explore.explorer import Explorer
from surefoot.active.rules import Rules
from surefoot.active.teach import hash_structures
from surefoot.data.load import Splits
from surefoot.data.read import IGNORE, Frame, Keys, read_frames
from surefoot.data.statistics import References, is_isolated
from surefoot.label.labeler import Labeler
from surefoot.label.run import Conduct
from surefoot.posteriors.training import Parts
from surefoot.settings import Settings
from surefoot.train.state import State


class Again(Settings):
    """How later rounds train, and what becomes of new labels.

    Attributes:
        begin: warm from the weights of the round before, or from scratch.
        epochs: of each later round; those of the first where not set.
        valid: share of new labels that nobody learns from; they judge and calibrate.
        train_on: where trainings run.
        retries: further tries of calculations that failed for no reason of the structure.
        charge, spin: of structures that state none.
        seed: of exploration and choice.
    """

    begin: Literal["warm", "scratch"] = Field(
        default="warm", description="from the weights of the round before, or from scratch"
    )
    epochs: int | None = Field(
        default=None, ge=1, description="of later rounds; those of the first where not set"
    )
    valid: float = Field(
        default=0.1, ge=0, lt=1, description="share of new labels that nobody learns from"
    )
    train_on: Literal["here", "engine"] = Field(
        default="here", description="trainings run here, or where labels are calculated"
    )
    retries: int = Field(default=1, ge=0, description="of calculations that failed by accident")
    charge: int | None = Field(default=None, description="of structures that state none")
    spin: int | None = Field(default=None, ge=1, description="2S+1 of structures that state none")
    seed: int = Field(default=0, ge=0, description="of exploration and choice")


@dataclass(frozen=True, kw_only=True)
class Told:
    """Who is told what; nobody, where not set.

    Attributes:
        say: a sentence.
        epoch: the state of a training after each epoch, and how many there are.
        labels: structures done and in all.
        asked: whether to stop.
    """

    say: Callable[[str], None] = lambda _: None
    epoch: Callable[[State, int], None] = lambda _state, _epochs: None
    labels: Callable[[int, int], None] = lambda _done, _total: None
    asked: Callable[[], bool] = lambda: False


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Active learning from its first frames to its end.

    Attributes:
        folder: its whole state.
        splits: labelled frames to begin with, and those that judge.
        parts: what is trained.
        again: how later rounds train.
        explorers: where structures come from.
        acquire: how they are chosen.
        labeler: the source of labels.
        conduct: what is taken as a label.
        engine: where labels are calculated.
        rules: what ends it.
        references, scale: of the data.
        config: as the user wrote it, for the files.
        told: who is told.
    """

    folder: Path
    splits: Splits
    parts: Parts
    again: Again = Again()
    explorers: tuple[Explorer, ...]
    acquire: Acquire = Acquire()
    labeler: Labeler
    conduct: Conduct = Conduct()
    engine: Engine
    rules: Rules = Rules()
    references: References = "auto"
    scale: float | None = None
    config: dict[str, Any]
    told: Told = Told()

    @property
    def fixed(self) -> dict[str, Any]:
        """What may not change between rounds."""
        parts, again = self.parts, self.again
        frames = [*self.splits.train, *self.splits.isolated]
        roles = {"data": frames, "valid": self.splits.valid, "test": self.splits.test}
        return {
            **{name: _digest(held) for name, held in roles.items()},
            "model": parts.model.model_dump(),
            "head": {n: v for n, v in parts.head.model_dump().items() if n != "measured"},
            "conditioning": parts.conditioning.model_dump(mode="json"),
            "loss": parts.loss.model_dump(mode="json"),
            "train": parts.train.model_dump(mode="json", exclude={"threads", "compile"}),
            "posterior": parts.posterior.model_dump(),
            "start": parts.start.model_dump(mode="json"),
            "again": again.model_dump(mode="json", exclude={"retries", "train_on"}),
            "explore": [one.model_dump(mode="json") for one in self._settings()],
            "acquire": self.acquire.model_dump(mode="json"),
            "labeler": self.labeler.settings(),
        }

    def _settings(self) -> list[Settings]:
        return [one for one in self.explorers if isinstance(one, Settings)]


def _digest(frames: Sequence[Frame]) -> str:
    digest = hashlib.sha256(hash_structures(frames).tobytes() if frames else b"")
    for frame in frames:
        digest.update(repr(frame.energy).encode())
    return digest.hexdigest()


class Overlap(ValueError):
    """Test frames among what may be learnt from."""


def require_apart(campaign: Campaign) -> None:
    """Refuse a campaign whose error would be that of frames it may learn from.

    Raises:
        Overlap: if test frames are among the first frames or in a pool.
        ValueError: if there is nothing to judge by, or a pool is empty.
    """
    splits = campaign.splits
    if not splits.test:
        raise ValueError(
            "a campaign needs frames that judge it and that no round learns from: name files with "
            "`data: {test: [FILE]}`."
        )
    test = hash_structures(splits.test)
    first = [*splits.train, *splits.valid]
    _require_none(hash_structures(first), first, test, "the first frames")
    for pool in campaign.explorers:
        if not isinstance(pool, Pool):
            continue
        frames = read_frames(pool.files, Keys(energy=IGNORE, forces=IGNORE, stress=IGNORE))
        frames = [frame for frame in frames if not is_isolated(frame)]
        if not frames:
            raise ValueError(f"the pool {', '.join(pool.files)} holds no structure.")
        _require_none(hash_structures(frames), frames, test, "the pool")


def _require_none(hashes: np.ndarray, frames: Sequence[Frame], test: np.ndarray, name: str) -> None:
    shared = np.flatnonzero(np.isin(hashes, test))
    if len(shared):
        raise Overlap(
            f"{name} and the test frames share {len(shared)} structures, the first of them "
            f"{frames[shared[0]].place}: an error on frames that were learnt from says nothing. "
            "Take them out of one of the two."
        )
