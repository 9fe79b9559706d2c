"""Where a run begins: fresh weights, or those of a saved potential, and which of them it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import Field, model_validator

from surefoot.blocks.conditioning import Conditioning
from surefoot.blocks.dense import Weights, cast, unstack
from surefoot.data.convert import Sample
from surefoot.heads import Head
from surefoot.heads.histogram import ErrorHistograms
from surefoot.members import count_members, shares_model
from surefoot.models import Model
from surefoot.posteriors.last_layer import LastLayer
from surefoot.posteriors.learnt import files_read
from surefoot.posteriors.posterior import Fitting, Method
from surefoot.posteriors.predictor import Predictor, load_predictor
from surefoot.potential import Potential
from surefoot.settings import Settings

Learn = Literal["everything", "heads", "judges", "nothing"]


class StartSettings(Settings):
    """A saved potential to begin from, and which of its weights move."""

    potential: str | None = Field(
        default=None, description="file of a saved potential; fresh weights where not set"
    )
    learn: Learn = Field(
        default="everything",
        description="everything: fine-tuning; heads: all weights of the head, the model stays; "
        "judges: weights that judge, energies and forces stay; nothing: only the posterior is made",
    )

    @model_validator(mode="after")
    def _begins(self) -> StartSettings:
        if self.potential is None and self.learn != "everything":
            raise ValueError(
                f"learn: {self.learn} keeps weights as they are, and fresh ones are worth nothing; "
                "name the file of a trained potential with `start: {potential: FILE}`"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Weights before the first step.

    Attributes:
        learned: what moves.
        fixed: what stays; with `learned` they are all weights, one set, stacked or partial.
    """

    learned: Weights
    fixed: Weights


def load_foundation(start: StartSettings) -> Predictor | None:
    """The potential that a run starts from; None where weights are fresh.

    Raises:
        RefusedFile: if the file is none of a potential.
    """
    return None if start.potential is None else load_predictor(Path(start.potential))


def adopt(
    foundation: Predictor, model: Model, head: Head, conditioning: Conditioning, file: str
) -> Potential:
    """The potential of a run that starts from another: the same, or with a head that judges.

    Args:
        foundation: what it starts from.
        model: as the run has it.
        head: as the run has it; its bins may still be missing.
        conditioning: as the run has it.
        file: name of the foundation, for messages.
    Raises:
        ValueError: if the weights of the one would mean something else in the other.
    """
    before = foundation.potential
    _require_same("model", before.model.model_dump(), model.model_dump(), file)
    had = "none" if before.states is None else "charge_spin"
    _require_same("conditioning", {"name": had}, conditioning.model_dump(), file)
    old, new = before.head.model_dump(), head.model_dump()
    if old["energy"] == new["energy"]:
        if new.get("measured", 0) is None:
            head, new = before.head, old
        _require_same("head", old, new, file)
    else:
        shared = (old.keys() & new.keys()) - {"energy", "measured"}
        mine, theirs = ({name: tree[name] for name in shared} for tree in (new, old))
        _require_same("head", theirs, mine, file)
    return replace(before, head=head)


def known_frames(
    foundation: Predictor | None,
    start: StartSettings,
    samples: Sequence[Sample],
    aside: Bool[np.ndarray, "members samples"],
    provenance: Mapping[str, Any],
) -> Bool[np.ndarray, "members samples"]:
    """Which frames the weights of each member have learnt from before this run.

    Args:
        foundation: what the run starts from.
        start: its name, for messages.
        samples: of the run.
        aside: which member does not learn from which in this run.
        provenance: of the run, with config and hashes of the files.
    Raises:
        ValueError: if an older potential has read the same files and does not say what it has
            learnt from, and they are split in another way now.
    """
    nothing = np.zeros_like(aside)
    if foundation is None or not aside.any():
        return nothing
    if foundation.learnt is not None:
        seen = foundation.learnt.seen(samples)
        return seen if len(seen) == len(aside) else nothing | seen.any(0)
    now, before = files_read(provenance), files_read(foundation.provenance)
    if not set(now) & set(before):
        return nothing
    if now == before and _splits_alike(foundation.provenance, provenance):
        return nothing | ~aside.all(0)
    raise ValueError(
        f"{start.potential} does not say which frames it has learnt from, as it is of an older "
        "version, and has read a file that is read here too; keep `data` and `train: {seed}` as "
        "they were, or take frames of other files."
    )


def _splits_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs with the same files set the same frames aside."""

    def split(provenance: Mapping[str, Any]) -> list[Any]:
        config = provenance.get("config", {})
        data = config.get("data", {})
        valid = data.get("valid")
        files = len(valid) if isinstance(valid, list) else None
        begun = (config.get("start") or {}).get("potential") is not None
        return [data.get("split"), files or valid, config.get("train", {}).get("seed"), begun]

    before, now = split(one), split(other)
    return before[:3] == now[:3] and not before[3]


def require_new(
    head: Head, known: Bool[np.ndarray, "members frames"], start: StartSettings
) -> None:
    """Refuse errors on frames that were learnt from: they are too small to learn from them.

    Args:
        head: of the run.
        known: which of its training frames the potential it starts from has learnt from.
        start: its name, for messages.
    Raises:
        ValueError: with the number of such frames.
    """
    count = int(known.any(0).sum())
    if isinstance(head, ErrorHistograms) and head.measured is None and count:
        raise ValueError(
            f"{start.potential} has learnt from {count} of the {known.shape[1]} frames in data: "
            "{train}, so its errors there are too small to be judged by; a histogram head needs "
            "frames that were held out."
        )


def _require_same(section: str, old: Mapping[str, Any], new: Mapping[str, Any], file: str) -> None:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ValueError(
                f"{file}, from which this run starts, was made with {section}: {{{name}: "
                f"{old.get(name)}}} and the run has {new.get(name)}; write the same, or leave out "
                f"the section `{section}`, which then is that of the file."
            )


def begin(
    potential: Potential,
    method: Method,
    fitting: Fitting,
    start: StartSettings,
    foundation: Predictor | None,
    seed: int,
    dtype: torch.dtype,
) -> Beginning:
    """The weights before the first step; fresh ones of member m are of seed + m.

    Args:
        potential: of the run.
        method: how many members.
        fitting: whether they share a model.
        start: which weights move.
        foundation: what the run starts from.
        seed: of fresh weights.
        dtype: of all weights.
    Raises:
        ValueError: if the foundation has other weights, or nothing would be learned that should.
    """
    fresh = _fresh(potential, method, fitting, seed, dtype)
    weights = fresh
    if foundation is not None:
        weights = cast(_build_on(foundation, potential.head, fresh, method, fitting, start), dtype)
    if start.learn == "nothing" and fitting.needs_training is not None:
        raise ValueError(
            f"{fitting.needs_training}, so `start: {{learn: nothing}}` leaves it nothing to work "
            "on; choose everything, heads or judges, or posterior: {name: laplace}."
        )
    moves = _movers(potential, start.learn)
    return Beginning(
        learned={name: value for name, value in weights.items() if name.startswith(moves)},
        fixed={name: value for name, value in weights.items() if not name.startswith(moves)},
    )


def _movers(potential: Potential, learn: Learn) -> tuple[str, ...]:
    """Prefixes of the weights that move."""
    judging = tuple(f"head.{prefix}" for prefix in potential.head.judging())
    if learn == "judges" and not judging:
        raise ValueError(
            f"a {potential.head.energy} head has no weights that judge, so `start: {{learn: "
            "judges}` leaves nothing to learn; choose a head that judges, such as `head: {energy: "
            "mean_variance}`."
        )
    moves: dict[Learn, tuple[str, ...]] = {
        "everything": ("model.", "head."),
        "heads": ("head.",),
        "judges": judging,
        "nothing": (),
    }
    return moves[learn]


def _fresh(
    potential: Potential, method: Method, fitting: Fitting, seed: int, dtype: torch.dtype
) -> Weights:
    if method.members == 1:
        return potential.init(seed, dtype)
    stacked = potential.init_members(seed, method.members, dtype)
    if not fitting.joint:
        return stacked
    return {n: value if n.startswith("head.") else value[0] for n, value in stacked.items()}


def _build_on(
    foundation: Predictor,
    head: Head,
    fresh: Weights,
    method: Method,
    fitting: Fitting,
    start: StartSettings,
) -> Weights:
    """The weights of the foundation, with fresh ones where it has none."""
    found = _sets_of(foundation)
    if found is None:
        raise ValueError(
            f"{start.potential} holds a posterior of the kind {foundation.posterior.name}, and a "
            "run starts from plain sets of weights: one, or the members of an ensemble."
        )
    count, partial = count_members(found), shares_model(found)
    alike = count == method.members and partial == fitting.joint
    if count == 1 and not partial:
        (found,) = unstack(found)
    elif not alike:
        raise ValueError(
            f"{start.potential} holds {count} sets of weights{' on one model' if partial else ''}, "
            f"and posterior: {{name: {method.name}}} starts from "
            + ("one." if method.members == 1 else f"one, or {method.members} of its own kind.")
        )
    weights = dict(fresh)
    for name, value in found.items():
        # Heads on one model would all be the same; they begin from seeds of their own.
        if fitting.joint and not partial and name.startswith("head."):
            continue
        shape = weights[name].shape
        weights[name] = value.expand(shape).clone()
    if count == 1 and not fitting.joint:
        _require_spread(method, start, head)
    if fitting.joint and not partial and start.learn in ("judges", "nothing"):
        raise ValueError(
            f"start: {{learn: {start.learn}}} fits no heads, and {start.potential} has one only; "
            "a shallow ensemble on it needs `learn: heads`."
        )
    return weights


def _require_spread(method: Method, start: StartSettings, head: Head) -> None:
    """Refuse members that would say the same; histograms of errors need no spread."""
    stays = {"nothing": True, "judges": not isinstance(head, ErrorHistograms)}
    if method.members > 1 and stays.get(start.learn, False):
        raise ValueError(
            f"start: {{learn: {start.learn}}} with {method.members} members would make as many "
            f"copies of the one set of weights in {start.potential}, whose energies and forces "
            "have no spread; set `posterior: {members: 1, left_out: 0}`."
        )


def _sets_of(foundation: Predictor) -> Weights | None:
    """The draws of a posterior that consists of its draws, or the point of a last layer."""
    posterior = foundation.posterior
    if isinstance(posterior, LastLayer):
        return {name: value[None] for name, value in posterior.point.items()}
    if posterior.name not in ("single", "ensemble", "shallow"):
        return None
    own = ("model.", "head.")
    return {name: value for name, value in foundation.weights.items() if name.startswith(own)}
