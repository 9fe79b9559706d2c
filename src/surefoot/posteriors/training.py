"""A training run from splits to a calibrated Predictor: who sees what, who judges, what is kept.

Everything the verb `train` does, without its screen; `examples/01_train.py` is the short version.
"""

from __future__ import annotations

import csv
import io
import json
import platform
import warnings
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
from surefoot.blocks.native import describe_form
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import Sample, number_groups, to_samples
from surefoot.data.load import Splits
from surefoot.data.read import Frame
from surefoot.data.statistics import References, Statistics, measure
from surefoot.evaluate.recalibrate import Factor
from surefoot.heads import Head
from surefoot.models import Model
from surefoot.posteriors.calibrate import calibrate
from surefoot.posteriors.ensemble import Ensemble, EnsembleSettings, unseen_frames
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
from surefoot.posteriors.start import StartSettings, adopt, begin, load_foundation
from surefoot.potential import Potential, shares_model, stacks_model
from surefoot.train.checkpoint import (
    digest,
    read_tree,
    refuse_difference,
    write_atomically,
    write_tree,
)
from surefoot.train.fit import Roles, Task, TrainSettings, compiles
from surefoot.train.loss import LossSettings, require_rules
from surefoot.train.state import State, fresh_state, restore_state

KIND = "checkpoint"


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
        unseen: (members, samples) which member never learns from which sample.
        learned: the weights before the first step that move; the others are the task's.
        provenance: config, hashes and versions, kept in every file of the run.
    """

    parts: Parts
    task: Task
    statistics: Statistics
    unseen: Bool[np.ndarray, "members samples"]
    learned: Weights
    provenance: dict[str, Any]


def plan_training(
    splits: Splits,
    parts: Parts,
    references: References = "auto",
    provenance: dict[str, Any] | None = None,
) -> Plan:
    """Measure the training split, make graphs, and decide who learns from what.

    Args:
        splits: frames by role.
        parts: what is combined.
        references: where the energies of free atoms come from.
        provenance: what the files of the run say of their origin.
    Raises:
        ValueError: if there is nothing to learn from, no neighbour within the cutoff, too few
            groups for the folds, an element or a state to tell apart that only the validation
            split holds, or settings that look at validations where there are none.
    """
    _require_labels(splits, parts.loss)
    require_rules(parts.loss, parts.head, parts.train.epochs)
    unseen = _leave_out(splits, parts)
    _require_judges(unseen, parts.train)
    groups = number_groups(splits.train + splits.valid)
    samples = to_samples(splits.train + splits.valid, parts.model.cutoff, groups)
    statistics, potential, foundation = _find_potential(splits, samples, parts, references)
    parts = replace(parts, head=potential.head)
    method, settings = parts.posterior, parts.train
    fitting = method.fitting(len(splits.train), settings, parts.loss)
    beginning = begin(
        potential, method, fitting, parts.start, foundation, settings.seed, settings.dtype
    )
    task = Task(
        potential=potential,
        loss=parts.loss,
        settings=settings,
        samples=samples,
        roles=_roles(unseen),
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
        unseen=unseen,
        learned=beginning.learned,
        provenance={
            **(provenance or {}),
            "states": _stated(splits.train),
            "versions": _versions(),
        },
    )


def _find_potential(
    splits: Splits, samples: Sequence[Sample], parts: Parts, references: References
) -> tuple[Statistics, Potential, Predictor | None]:
    """What is measured, the potential, and what it starts from."""
    foundation = load_foundation(parts.start)
    learnt = samples[: len(splits.train)]
    if foundation is not None:
        file = str(parts.start.potential)
        potential = adopt(foundation, parts.model, parts.head, parts.conditioning, file)
        known = potential.baseline
        statistics = Statistics(
            elements=known.elements, energies=known.energies, source=file, scale=known.scale
        )
    else:
        statistics = measure(splits.train + splits.isolated, references)
        potential = Potential(
            model=parts.model,
            head=parts.head,
            baseline=_to_baseline(statistics, learnt, parts.model.cutoff),
            states=find_states(sample.graph for sample in learnt)
            if parts.conditioning.name == "charge_spin"
            else None,
        )
    for frame in splits.valid if foundation is None else splits.train + splits.valid:
        potential.baseline.require(frame.atoms.numbers, frame.place)
        if potential.states is not None:
            potential.states.require(frame.charge, frame.spin, frame.place)
    head = lay_bins(potential.head, potential.baseline, learnt, foundation)
    return statistics, replace(potential, head=head), foundation


def _leave_out(splits: Splits, parts: Parts) -> Bool[np.ndarray, "members samples"]:
    """Which member never learns from which sample; nobody learns from the validation split."""
    groups = [frame.group for frame in splits.train]
    folds = unseen_frames(groups, parts.posterior, parts.train.seed)
    aside = np.ones((parts.posterior.members, len(splits.valid)), bool)
    return np.concatenate([folds, aside], axis=1)


def _to_baseline(statistics: Statistics, learnt: Sequence[Sample], cutoff: float) -> Baseline:
    atoms = sum(sample.graph.numbers.shape[0] for sample in learnt)
    edges = sum(sample.graph.edge_index.shape[1] for sample in learnt)
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


def _stated(frames: Sequence[Frame]) -> list[list[int]]:
    """The distinct [charge, spin] of all frames; empty where one does not state both.

    Then nobody knows what was learnt, so a list would refuse states that are among it.
    """
    states: set[tuple[int, int]] = set()
    for frame in frames:
        if frame.charge is None or frame.spin is None:
            return []
        states.add((frame.charge, frame.spin))
    return [list(state) for state in sorted(states)]


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


def _versions() -> dict[str, str]:
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
    foundation = load_foundation(plan.parts.start)
    if foundation is None or foundation.gate is None or plan.parts.start.learn == "everything":
        return with_gate(predictor, plan.task.samples, aside)
    return replace(predictor, gate=foundation.gate)


def _build(plan: Plan, state: State, posterior: Posterior) -> Predictor:
    provenance = {
        **plan.provenance,
        "references": plan.statistics.source,
        "epochs": state.epoch,
        "threads": torch.get_num_threads(),
    }
    return build_predictor(plan.task.potential, posterior, Calibration(), provenance)


def write_log(path: Path, history: Sequence[dict[str, float]]) -> None:
    """The records of all epochs as CSV: losses, errors in eV/atom and eV/Å, seconds."""
    columns = list(dict.fromkeys(name for record in history for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())
