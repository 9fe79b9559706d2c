"""What a campaign is made of, what it may not change, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from surefoot.active.choose import Acquire
from surefoot.active.engines import Engine
from surefoot.active.explore import Molecular, Pool
from surefoot.active.explore.explorer import Explorer
from surefoot.active.rules import Rules
from surefoot.active.teach import Stopped, hash_labelled, hash_structures
from surefoot.data.load import Splits
from surefoot.data.read import Frame
from surefoot.data.statistics import References
from surefoot.label.labeler import Labeler, check_state
from surefoot.label.run import Conduct
from surefoot.posteriors.ensemble import unseen_frames
from surefoot.posteriors.gate import FEWEST
from surefoot.posteriors.laplace import LaplaceSettings
from surefoot.posteriors.start import load_foundation
from surefoot.posteriors.training import Parts
from surefoot.settings import Settings
from surefoot.train.state import State

BY_GATE = ("latent_distance", "latent_distance_atoms")


class Again(Settings):
    """How later rounds train, and what becomes of new labels.

    Attributes:
        begin: warm from the weights of the round before, or from scratch.
        epochs: of each later round; those of the first where not set.
        valid: share of new labels that nobody learns from; they judge and calibrate.
        train_on: where trainings run.
        retries: further tries of calculations that failed for no reason of the structure.
        charge, spin: of structures that state none, the first frames among them.
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


def stop_if_asked(campaign: Campaign) -> None:
    """Between two steps of a stage.

    Raises:
        Stopped: if somebody asked for it.
    """
    if campaign.told.asked():
        raise Stopped


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
            **{name: hash_labelled(held) for name, held in roles.items()},
            "references": self.references,
            "scale": self.scale,
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


def with_states(campaign: Campaign) -> Campaign:
    """The campaign with the charge and spin of `again` where a frame states none.

    Labels are those of a stated charge and spin: without it the first frames would be in another
    state than the frames that come to them.
    """
    splits, again = campaign.splits, campaign.again
    roles = {
        name: state_frames(getattr(splits, name), again) for name in ("train", "valid", "test")
    }
    return replace(campaign, splits=replace(splits, **roles))


def state_frames(frames: Sequence[Frame], again: Again) -> list[Frame]:
    """Frames with the charge and spin of `again` where they state none."""
    return [
        replace(
            frame,
            charge=again.charge if frame.charge is None else frame.charge,
            spin=again.spin if frame.spin is None else frame.spin,
        )
        for frame in frames
    ]


class Overlap(ValueError):
    """Test frames among what may be learnt from."""


def require_sound(campaign: Campaign) -> None:
    """Refuse what would fail, or say nothing, only after a training and its labels.

    Args:
        campaign: with states.
    Raises:
        Overlap: if test frames are among the first frames, in a pool, or were learnt from by the
            potential that the campaign starts from.
        ValueError: if there is nothing to judge by, a pool is empty, a structure that would be
            labelled states no charge or spin, or later rounds could not begin as they shall.
    """
    splits = campaign.splits
    if not splits.test:
        raise ValueError(
            "a campaign needs frames that judge it and that no round learns from: name files with "
            "`data: {test: [FILE]}`."
        )
    _require_way(campaign)
    _require_gate(campaign)
    _require_none([*splits.train, *splits.valid], splits.test, "the first frames")
    if not all(isinstance(one, Pool) for one in campaign.explorers):
        _require_states(splits.train)
    for pool in campaign.explorers:
        if not isinstance(pool, Pool):
            continue
        frames = pool.read()
        if not frames:
            raise ValueError(f"the pool {', '.join(pool.files)} holds no structure.")
        frames = state_frames(frames, campaign.again)
        _require_states(frames)
        _require_none(frames, splits.test, "the pool")


def _require_way(campaign: Campaign) -> None:
    """Refuse weights that no round can go on from, and those that have learnt from test frames."""
    posterior, start = campaign.parts.posterior, campaign.parts.start
    of_all = isinstance(posterior, LaplaceSettings) and posterior.weights == "all"
    if campaign.again.begin == "warm" and (of_all or posterior.name in ("swag", "ivon")):
        raise ValueError(
            f"`again: {{begin: warm}}` goes on from plain sets of weights, and posterior: {{name: "
            f"{posterior.name}}} keeps none; set `again: {{begin: scratch}}`."
        )
    foundation = load_foundation(start)
    if foundation is None or foundation.learnt is None:
        return
    test = campaign.splits.test
    hashes = np.concatenate([hash_structures(test), hash_structures(_without_states(test))])
    count = int(foundation.learnt.find(hashes).any(0).reshape(2, -1).any(0).sum())
    if count:
        raise Overlap(
            f"{start.potential}, from which the campaign starts, has learnt from {count} of the "
            "test frames: an error on them says nothing. Name other test frames."
        )


def _require_gate(campaign: Campaign) -> None:
    """Refuse what looks at `ood` where too few frames are set aside for a gate."""
    acquire, parts, splits = campaign.acquire, campaign.parts, campaign.splits
    needing = [f"acquire: {{by: {name}}}" for name in acquire.by if name in BY_GATE]
    needing += ["acquire: {highest_ood}"] * (acquire.highest_ood is not None)
    needing += [
        "the guard of dynamics"
        for one in campaign.explorers
        if isinstance(one, Molecular) and one.guard is not None and one.guard.ood is not None
    ]
    if not needing or parts.start.potential is not None:
        return
    groups = [frame.group for frame in splits.train]
    folds = unseen_frames(groups, parts.posterior, parts.train.seed)
    aside = int(folds[0].sum()) + len(splits.valid)
    if aside < FEWEST:
        raise ValueError(
            f"{needing[0]} looks at ood, the distance to the training data, which needs {FEWEST} "
            f"frames that are set aside, and there are {aside}: raise `data: {{valid}}`, or leave "
            "ood out (a guard may have a limit on `uncertainty` instead)."
        )


def _require_states(frames: Sequence[Frame]) -> None:
    for frame in frames:
        if frame.charge is None or frame.spin is None:
            missing = "charge" if frame.charge is None else "spin (multiplicity 2S+1)"
            raise ValueError(
                f"{frame.place}: the {missing} is not stated, and labels are those of a stated "
                "one. Write charge and spin into the info of every frame, or give those of all "
                "that state none with `again: {charge: 0, spin: 1}`."
            )
        try:
            check_state(frame.atoms.numbers, frame.charge, frame.spin)
        except ValueError as error:
            raise ValueError(f"{frame.place}: {error}.") from error


def _require_none(frames: Sequence[Frame], test: Sequence[Frame], name: str) -> None:
    """Refuse structures that are among the test frames; states that nobody states are any."""
    judging: dict[int, list[Frame]] = {}
    for frame, key in zip(test, hash_structures(_without_states(test)).tolist(), strict=True):
        judging.setdefault(key, []).append(frame)
    shared = [
        frame
        for frame, key in zip(frames, hash_structures(_without_states(frames)), strict=True)
        if any(_may_be_alike(frame, other) for other in judging.get(int(key), ()))
    ]
    if shared:
        raise Overlap(
            f"{name} and the test frames share {len(shared)} structures, the first of them "
            f"{shared[0].place}: an error on frames that were learnt from says nothing. "
            "Take them out of one of the two."
        )


def _without_states(frames: Sequence[Frame]) -> list[Frame]:
    return [replace(frame, charge=None, spin=None) for frame in frames]


def _may_be_alike(frame: Frame, other: Frame) -> bool:
    states = (frame.charge, other.charge), (frame.spin, other.spin)
    return all(None in pair or pair[0] == pair[1] for pair in states)
