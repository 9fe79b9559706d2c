"""A training run from splits to a calibrated Predictor: who sees what, who judges, what is kept.

Everything the verb `train` does, without its screen; `examples/01_train.py` is the short version.
"""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from surefoot import __version__
from surefoot.blocks.conditioning import Conditioning, find_states
from surefoot.blocks.dense import Weights
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import Sample, number_groups, to_samples
from surefoot.data.load import Splits
from surefoot.data.read import Frame
from surefoot.data.statistics import References, Statistics, measure
from surefoot.evaluate.recalibrate import Factor
from surefoot.heads import Head
from surefoot.members import shares_model, stacks_model
from surefoot.models import Model
from surefoot.posteriors.calibrate import calibrate
from surefoot.posteriors.ensemble import Ensemble, EnsembleSettings, unseen_frames
from surefoot.posteriors.learnt import Learnt, join, remember
from surefoot.posteriors.measure import lay_bins
from surefoot.posteriors.posterior import Method, Posterior, Single
from surefoot.posteriors.predictor import (
    Calibration,
    Predictor,
    build_predictor,
    recalibrated,
    with_gate,
)
from surefoot.posteriors.shallow import Shallow
from surefoot.posteriors.start import (
    StartSettings,
    adopt,
    begin,
    known_frames,
    load_foundation,
    require_new,
)
from surefoot.potential import Potential
from surefoot.train.checkpoint import (
    write_atomically,
)
from surefoot.train.fit import Roles, Task, TrainSettings, require_memory
from surefoot.train.loss import LossSettings, require_rules
from surefoot.train.state import State, fresh_state


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run combines: one of each, from a config or made by hand."""

    model: Model
    head: Head
    conditioning: Conditioning = Conditioning()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
    posterior: Method = EnsembleSettings()
    start: StartSettings = StartSettings()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that has not begun: everything but the weights.

    Attributes:
        parts: model, head, conditioning, loss, settings, posterior.
        task: what `fit` needs.
        statistics: measured on the training split.
        unseen: (members, samples) which member has never learnt from which sample, neither in this
            run nor in the one that it began from.
        learned: the weights before the first step that move; the others are the task's.
        provenance: config, hashes and versions, kept in every file of the run.
        foundation: what the run starts from; None where weights are fresh.
        learnt: which frames each member will have learnt from, those of the foundation included;
            None where nobody knows them all.
        notes: what a user should know before it begins, in words.
    """

    parts: Parts
    task: Task
    statistics: Statistics
    unseen: Bool[np.ndarray, "members samples"]
    learned: Weights
    provenance: dict[str, Any]
    foundation: Predictor | None = None
    learnt: Learnt | None = None
    notes: tuple[str, ...] = ()


def plan_training(
    splits: Splits,
    parts: Parts,
    references: References = "auto",
    provenance: dict[str, Any] | None = None,
    scale: float | None = None,
) -> Plan:
    """Measure the training split, make graphs, and decide who learns from what.

    Args:
        splits: frames by role.
        parts: what is combined.
        references: where the energies of free atoms come from.
        provenance: what the files of the run say of their origin.
        scale: of energies and forces in eV and eV/Å; measured where not given.
    Raises:
        ValueError: if there is nothing to learn from, no neighbour within the cutoff, too few
            groups for the folds, an element or a state to tell apart that only the validation
            split holds, settings that look at validations where there are none, or frames of which
            nobody knows whether the potential that the run starts from has learnt from them.
    """
    _require_labels(splits, parts.loss)
    require_memory(parts.train, parts.model)
    provenance = provenance or {}
    aside = _leave_out(splits, parts)
    _require_judges(aside, parts.train)
    groups = number_groups(splits.train + splits.valid)
    samples = to_samples(splits.train + splits.valid, parts.model.cutoff, groups)
    foundation = load_foundation(parts.start)
    known = known_frames(foundation, parts.start, samples, aside, provenance)
    if parts.start.learn == "judges":
        require_new(parts.head, known[:, : len(splits.train)], parts.start)
    statistics, potential = _find_potential(splits, samples, parts, references, scale, foundation)
    parts = replace(parts, head=potential.head)
    method, settings = parts.posterior, parts.train
    fitting = method.fitting(len(splits.train), settings, parts.loss, potential.head)
    beginning = begin(
        potential, method, fitting, parts.start, foundation, settings.seed, settings.dtype
    )
    require_rules(parts.loss, potential.head, settings.epochs, beginning.learned.keys())
    task = Task(
        potential=potential,
        loss=parts.loss,
        settings=settings,
        samples=samples,
        roles=_roles(aside),
        fixed=beginning.fixed,
        joint=fitting.joint,
        step=fitting.step,
        tail=fitting.tail,
        collect=fitting.collect,
    )
    return Plan(
        parts=parts,
        task=task,
        statistics=statistics,
        unseen=aside & ~known,
        learned=beginning.learned,
        provenance={
            **provenance,
            "states": _stated(splits.train),
            "versions": find_versions(),
            **({} if foundation is None else {"began_from": foundation.provenance}),
        },
        foundation=foundation,
        learnt=_join_learnt(foundation, remember(samples, ~aside)),
        notes=tuple(note for note in (fitting.note, _say_known(aside, known)) if note),
    )


def _join_learnt(foundation: Predictor | None, own: Learnt) -> Learnt | None:
    if foundation is None:
        return own
    return None if foundation.learnt is None else join([own, foundation.learnt], len(own.by))


def _say_known(
    aside: Bool[np.ndarray, "members samples"], known: Bool[np.ndarray, "members samples"]
) -> str | None:
    spoilt = int((aside & known).any(0).sum())
    if not spoilt:
        return None
    return (
        f"{spoilt} of {int(aside.any(0).sum())} frames that are set aside were learnt from by the "
        "potential that this run starts from, and calibrate nothing"
    )


def _find_potential(
    splits: Splits,
    samples: Sequence[Sample],
    parts: Parts,
    references: References,
    scale: float | None,
    foundation: Predictor | None,
) -> tuple[Statistics, Potential]:
    """What is measured, and the potential."""
    learnt = samples[: len(splits.train)]
    if foundation is not None:
        file = str(parts.start.potential)
        if scale is not None:
            raise ValueError(
                f"data: {{scale: {scale}}} does not go with start: {{potential}}, whose scale "
                "stays as it is; leave it out."
            )
        potential = adopt(foundation, parts.model, parts.head, parts.conditioning, file)
        known = potential.baseline
        statistics = Statistics(
            elements=known.elements, energies=known.energies, source=file, scale=known.scale
        )
    else:
        statistics = measure(splits.train + splits.isolated, references, scale)
        potential = Potential(
            model=parts.model,
            head=parts.head,
            baseline=_to_baseline(statistics, learnt, parts.model.cutoff),
            states=find_states(sample.bare for sample in learnt)
            if parts.conditioning.name == "charge_spin"
            else None,
        )
    for frame in splits.valid if foundation is None else splits.train + splits.valid:
        potential.baseline.require(frame.structure.numbers, frame.place)
        if potential.states is not None:
            potential.states.require(frame.charge, frame.spin, frame.place)
    head = lay_bins(potential.head, potential.baseline, learnt, foundation)
    return statistics, replace(potential, head=head)


def _leave_out(splits: Splits, parts: Parts) -> Bool[np.ndarray, "members samples"]:
    """Which member never learns from which sample; nobody learns from the validation split."""
    groups = [frame.group for frame in splits.train]
    folds = unseen_frames(groups, parts.posterior, parts.train.seed)
    aside = np.ones((parts.posterior.members, len(splits.valid)), bool)
    return np.concatenate([folds, aside], axis=1)


def _to_baseline(statistics: Statistics, learnt: Sequence[Sample], cutoff: float) -> Baseline:
    atoms = sum(sample.atoms for sample in learnt)
    edges = sum(sample.edges for sample in learnt)
    if edges == 0:
        raise ValueError(
            f"no two atoms of the training data are within the cutoff of {cutoff:g} Å, so there is "
            "nothing to learn; raise model.cutoff, or check that positions are in Å."
        )
    return Baseline(
        elements=statistics.elements,
        energies=statistics.energies,
        scale=statistics.scale,
        neighbors=edges / atoms,
    )


def _stated(frames: Sequence[Frame]) -> list[list[int | None]]:
    """The distinct [charge, spin] of all frames; None for what one of them does not state.

    Of that nobody knows what was learnt, so a list would refuse what is among it.
    """
    charges = all(frame.charge is not None for frame in frames)
    spins = all(frame.spin is not None for frame in frames)
    states = {(f.charge if charges else None, f.spin if spins else None) for f in frames}
    return [list(state) for state in sorted(states)] if charges or spins else []


def _require_judges(unseen: Bool[np.ndarray, "members samples"], settings: TrainSettings) -> None:
    """Refuse settings that wait for a validation which never comes."""
    alone = np.flatnonzero(~unseen.any(axis=1))
    if not len(alone):
        return
    waiting = {
        f"patience: {settings.patience}": settings.patience is not None,
        "schedule: {name: plateau}": settings.schedule.name == "plateau",
    }
    for name in [name for name, waits in waiting.items() if waits]:
        raise ValueError(
            f"train: {{{name}}} looks at validations, but no frame judges member {alone[0]}: "
            "nothing is left out and there is no validation split; set `data: {valid: 0.1}` or "
            "`posterior: {members: 8, left_out: 2}`, or remove the setting."
        )


def _roles(unseen: Bool[np.ndarray, "members samples"]) -> Roles:
    judge = torch.tensor(unseen)
    learn = (~judge).double()
    return (
        Roles(learn=learn, judge=judge)
        if len(unseen) > 1
        else Roles(learn=learn[0], judge=judge[0])
    )


def _require_labels(splits: Splits, loss: LossSettings) -> None:
    if not splits.train:
        raise ValueError("the training split has no structures besides isolated atoms.")
    for name in ("energy", "forces", "stress"):
        labelled = any(getattr(frame, name) is not None for frame in splits.train)
        if getattr(loss, name) > 0 and not labelled:
            raise ValueError(
                f"loss: {{{name}: {getattr(loss, name)}}} asks for {name}, but no training frame "
                f"has it; set it to 0, or name the key with `data: {{keys: {{{name}: …}}}}`."
            )


def find_versions() -> dict[str, str]:
    """Versions of what calculates, by name."""
    packages = ("torch", "numpy", "ase", "vesin")
    return {
        "surefoot": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def start(plan: Plan) -> State:
    """The state before the first step."""
    members = () if plan.task.joint else plan.task.roles.learn.shape[:-1]
    moments = plan.task.mover.fresh(plan.learned)
    return fresh_state(plan.learned, members=tuple(members), moments=moments)


def to_predictor(plan: Plan, state: State) -> Predictor:
    """The best weights so far as a Predictor, not calibrated, without the spread of the end."""
    weights = plan.task.fixed | state.best
    kind = Shallow if shares_model(weights) else Ensemble if stacks_model(weights) else Single
    return _build(plan, state, kind(weights))


def finish(plan: Plan, state: State) -> tuple[Predictor, dict[str, Factor]]:
    """The calibrated Predictor of a finished run, and how each factor was found."""
    predictor = _build(plan, state, plan.parts.posterior.posterior(plan.task, state))
    unseen = plan.unseen
    if not isinstance(predictor.posterior, Ensemble):
        # What all draws share has seen every training frame.
        unseen = np.asarray(unseen.all(0))[None]
    predictor = _give_gate(plan, predictor, unseen[0])
    calibration, factors = calibrate(predictor, plan.task.samples, unseen)
    return recalibrated(predictor, calibration), factors


def _give_gate(plan: Plan, predictor: Predictor, aside: Bool[np.ndarray, " samples"]) -> Predictor:
    """The gate of the potential whose model it still is, else one of this run's frames."""
    foundation = plan.foundation
    if foundation is None or foundation.gate is None or plan.parts.start.learn == "everything":
        return with_gate(predictor, plan.task.samples, aside)
    return replace(predictor, gate=foundation.gate)


def _build(plan: Plan, state: State, posterior: Posterior) -> Predictor:
    provenance = {
        **plan.provenance,
        "references": plan.statistics.source,
        "epochs": state.epoch,
        "seconds": _seconds(plan, state),
        "threads": torch.get_num_threads(),
    }
    found = build_predictor(plan.task.potential, posterior, Calibration(), provenance)
    if plan.learnt is None or isinstance(posterior, Ensemble):
        return replace(found, learnt=plan.learnt)
    return replace(found, learnt=join([plan.learnt], 1))


def _seconds(plan: Plan, state: State) -> float | None:
    """Of all training, that of the potential it began from included; None where nobody knows."""
    before = 0.0 if plan.foundation is None else plan.foundation.provenance.get("seconds")
    own = sum(record["seconds"] for record in state.history)
    return None if before is None else before + own


def write_log(path: Path, history: Sequence[dict[str, float]]) -> None:
    """The records of all epochs as CSV: losses, errors in eV/atom and eV/Å, seconds."""
    columns = list(dict.fromkeys(name for record in history for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())
