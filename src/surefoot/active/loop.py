"""The loop: train, judge, explore, choose, label, and again; each stage leaves a file and is done.

Randomness of a stage follows from the seed, the number of the round and the stage alone, and each
stage reads what the one before has written, so that a campaign that was killed at any moment ends
as one that was not.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from surefoot.active.campaign import Campaign, require_sound, stop_if_asked, with_states
from surefoot.active.choose import Chosen, NothingToChoose, choose
from surefoot.active.engines import require_engine
from surefoot.active.explore.explorer import Interrupted, Scene, is_whole, note, unlabelled
from surefoot.active.folder import (
    Round,
    agree,
    as_json,
    as_xyz,
    find_rounds,
    hold,
    is_noted,
    note_sum,
    open_round,
    put,
    read_json,
    read_structures,
    require_whole,
)
from surefoot.active.judge import Figures, judge, judge_paths
from surefoot.active.labelling import label_chosen
from surefoot.active.report import write_report
from surefoot.active.rules import why_end
from surefoot.active.summary import (
    Outcome,
    clock,
    count_labels,
    count_seconds,
    count_whole,
    record_choice,
    report,
    show_figures,
    summarize,
)
from surefoot.active.teach import POTENTIAL, Lesson, Stopped, hash_structures, teach
from surefoot.data.convert import Sample, to_samples
from surefoot.data.load import Splits
from surefoot.data.read import Frame, read_frames, read_state
from surefoot.label.elsewhere import LOOK
from surefoot.label.workers import WorkerPool
from surefoot.posteriors.predictor import Predictor, load_predictor
from surefoot.train.checkpoint import write_atomically

CHOICE = 1000  # stream of random numbers of the choice; explorers have those from 0


def run(campaign: Campaign) -> Outcome:
    """Begin a campaign, or go on with it, to its end.

    Args:
        campaign: what it is made of.
    Raises:
        InUse: if another process works in the folder.
        OtherCampaign: if it is that of another campaign, or a file is not as it was written.
        Overlap, ValueError: if it can not be judged, or can not begin.
        LabelingFailed: if no structure of a round could be labelled, with the commonest reason.
        NoScore: if the potential can not give a score that is asked for.
    """
    campaign = with_states(campaign)
    require_sound(campaign)
    require_engine(campaign.engine, campaign.conduct)
    with hold(campaign.folder):
        agree(campaign.folder, campaign.fixed, write=True)
        require_whole(campaign.folder)
        threads, ended = _threads(campaign), None
        try:
            number = count_whole(campaign.folder)
            while ended is None:
                ended = _run_round(campaign, open_round(campaign.folder, number), threads)
                write_report(campaign, ended)
                number += 1
        except (Stopped, Interrupted):
            campaign.told.say("stopped; the same command goes on")
        return report(campaign.folder, ended)


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What the next round would label.

    Attributes:
        number: of the round.
        candidates: what exploration found.
        chosen: which of them.
    """

    number: int
    candidates: list[Atoms]
    chosen: Chosen


def preview(campaign: Campaign) -> Preview | None:
    """The next choice, with nothing written; None where a training has to come first.

    Raises:
        NothingToChoose: if no candidate is left.
        OtherCampaign: if the folder is that of another campaign, or a file is not as it was
            written.
    """
    campaign = with_states(campaign)
    require_sound(campaign)
    if not campaign.folder.is_dir():
        return None
    agree(campaign.folder, campaign.fixed, write=False)
    require_whole(campaign.folder)
    rounds = find_rounds(campaign.folder)
    if not rounds or not (rounds[-1].training / POTENTIAL).exists():
        return None
    last = rounds[-1]
    if last.summary.exists() and read_json(last.summary)["ended"] is None:
        return None
    torch.set_num_threads(_threads(campaign))
    predictor = load_predictor(last.training / POTENTIAL)
    if last.candidates.exists():
        candidates = read_structures(last.candidates)
    else:
        with tempfile.TemporaryDirectory() as place:
            candidates = _explore(campaign, Round(last.number, Path(place)), predictor, last)
    chosen = _choose(campaign, last, predictor, candidates)
    return Preview(number=last.number, candidates=candidates, chosen=chosen)


def _threads(campaign: Campaign) -> int:
    """Threads of this process, whether it trains or finds a training done: rounding is theirs."""
    return campaign.parts.train.threads or torch.get_num_threads()


def _run_round(campaign: Campaign, this: Round, threads: int) -> str | None:
    """One round from where it stands; the sentence that ends the campaign, or None.

    A round that ended the campaign goes on where the rules would not have it end any more.
    """
    say = campaign.told.say
    with clock(this, "train"):
        potential = _train(campaign, this)
    if not is_noted(this, potential):
        note_sum(this, potential)
    torch.set_num_threads(threads)
    predictor = load_predictor(potential)
    with clock(this, "judge"):
        figures = _judge(campaign, this, predictor)
    write_atomically(campaign.folder / POTENTIAL, potential.read_bytes())
    # Later rounds are there where a file of this one is made again.
    sofar = [one for one in find_rounds(campaign.folder) if one.number <= this.number]
    history = [read_json(one.figures) for one in sofar]
    labelled = count_labels(campaign.folder, this.number)
    say(f"round {this.number}: {show_figures(figures)}, {labelled} new labels so far")
    ended = why_end(campaign.rules, history, labelled, count_seconds(campaign.folder))
    if ended is None:
        try:
            _extend(campaign, this, predictor)
        except NothingToChoose as error:
            ended = f"nothing is left to be labelled: {error}"
    put(this, this.summary, as_json({**summarize(this, figures), "ended": ended}))
    return ended


def _extend(campaign: Campaign, this: Round, predictor: Predictor) -> None:
    """Exploration, choice and labels of a round, as far as they are not there."""
    if not all(file.exists() for file in (this.candidates, this.choice, this.chosen)):
        if not this.candidates.exists():
            with clock(this, "explore"):
                found = _explore(campaign, this, predictor, this)
            put(this, this.candidates, as_xyz(found))
        shutil.rmtree(this.exploration, ignore_errors=True)
        stop_if_asked(campaign)
        with clock(this, "choose"):
            candidates = read_structures(this.candidates)
            chosen = _choose(campaign, this, predictor, candidates)
            put(this, this.choice, as_json(record_choice(chosen, candidates)))
            put(this, this.chosen, as_xyz([candidates[index] for index in chosen.indices]))
    stop_if_asked(campaign)
    with clock(this, "label"):
        label_chosen(campaign, this)


def _train(campaign: Campaign, this: Round) -> Path:
    """The potential of a round; later rounds begin from the one before, if they shall."""
    splits = _learnt(campaign, this.number)
    parts, again = campaign.parts, campaign.again
    if this.number > 0:
        epochs = again.epochs or parts.train.epochs
        parts = replace(parts, train=parts.train.model_copy(update={"epochs": epochs}))
        if again.begin == "warm":
            before = open_round(campaign.folder, this.number - 1).training / POTENTIAL
            start = parts.start.model_copy(update={"potential": str(before)})
            parts = replace(parts, start=start)
    warm = parts.start.potential is not None
    lesson = Lesson(
        folder=this.training,
        splits=splits,
        parts=parts,
        references=campaign.references,
        scale=None if warm else campaign.scale,
        config=campaign.config,
    )
    told = campaign.told
    if again.train_on == "engine":
        return _teach_elsewhere(campaign, lesson)
    epochs = parts.train.epochs
    return teach(lesson, lambda state: told.epoch(state, epochs), told.asked)


def _teach_elsewhere(campaign: Campaign, lesson: Lesson) -> Path:
    """A training where labels are calculated; its checkpoint is what a stop leaves."""
    with campaign.engine.open(campaign.folder / "engine") as executor:
        try:
            future = executor.submit(teach, lesson)
            while not wait([future], timeout=LOOK).done:
                stop_if_asked(campaign)
            return future.result()
        except BrokenExecutor as error:
            raise ChildProcessError(
                f"{lesson.folder}: the process of this training died, perhaps for lack of memory; "
                "the same command goes on from its last checkpoint."
            ) from error
        except Stopped:
            if isinstance(executor, WorkerPool):
                executor.end_now()
            raise


def _learnt(campaign: Campaign, number: int) -> Splits:
    """The first frames and all labels of earlier rounds, each in the role it keeps."""
    splits = campaign.splits
    train, valid = list(splits.train), list(splits.valid)
    for earlier in range(number):
        frames = read_frames([open_round(campaign.folder, earlier).labels])
        aside = _roles(frames, campaign.again.valid)
        train += [frame for frame, judges in zip(frames, aside, strict=True) if not judges]
        valid += [frame for frame, judges in zip(frames, aside, strict=True) if judges]
    return replace(splits, train=train, valid=valid)


def _roles(frames: Sequence[Frame], share: float) -> np.ndarray:
    """Which frames judge: by their structure alone, so that none ever changes its role."""
    chance = hash_structures(frames).astype(np.uint64) / 2.0**64
    return chance < share


def _judge(campaign: Campaign, this: Round, predictor: Predictor) -> Figures:
    if not this.figures.exists():
        test = campaign.splits.test
        figures = judge(predictor, to_samples(test, predictor.cutoff))
        put(this, this.figures, as_json(figures | judge_paths(predictor, test)))
    return read_json(this.figures)


def _explore(campaign: Campaign, place: Round, predictor: Predictor, this: Round) -> list[Atoms]:
    """Candidates of all explorers, each with the name of its explorer as config_type."""
    # Not from those that judge: what is found beside them would be learnt from.
    starts = [unlabelled(frame) for frame in _learnt(campaign, this.number).train]
    found = []
    for turn, explorer in enumerate(campaign.explorers):
        folder = place.exploration / f"{turn}-{explorer.name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        scene = Scene(
            predictor=predictor,
            potential=this.training / POTENTIAL,
            number=this.number,
            starts=starts,
            folder=folder,
            generator=np.random.default_rng([campaign.again.seed, this.number, turn]),
            seed=campaign.again.seed,
            warn=campaign.told.say,
            asked=campaign.told.asked,
        )
        candidates = explorer.explore(scene)
        stop_if_asked(campaign)
        whole = [atoms for atoms in candidates if is_whole(atoms)]
        if len(whole) < len(candidates):
            campaign.told.say(
                f"{len(candidates) - len(whole)} structures of {explorer.name} have exploded: "
                "atoms at one place, or at none"
            )
        for atoms in whole:
            charge, spin = read_state(atoms.info)
            note(
                atoms,
                charge=campaign.again.charge if charge is None else charge,
                spin=campaign.again.spin if spin is None else spin,
                config_type=explorer.name,
            )
        found += whole
    return found


def _choose(
    campaign: Campaign, this: Round, predictor: Predictor, candidates: Sequence[Atoms]
) -> Chosen:
    splits, cutoff, settings = campaign.splits, predictor.cutoff, campaign.acquire
    if campaign.rules.labels is not None:
        left = max(1, campaign.rules.labels - count_labels(campaign.folder, this.number))
        settings = settings.model_copy(update={"count": min(settings.count, left)})
    known = [*splits.train, *splits.valid]
    for earlier in range(this.number):
        # What could not be labelled would be chosen again and again.
        known += _to_frames(read_structures(open_round(campaign.folder, earlier).chosen))
    generator = np.random.default_rng([campaign.again.seed, this.number, CHOICE])
    samples: list[Sample] = to_samples(_to_frames(candidates), cutoff)
    return choose(
        predictor,
        samples,
        to_samples(known, cutoff),
        settings,
        generator,
        forbidden=to_samples(splits.test, cutoff),
    )


def _to_frames(structures: Sequence[Atoms]) -> list[Frame]:
    frames = []
    for number, atoms in enumerate(structures):
        charge, spin = read_state(atoms.info)
        frames.append(
            Frame(
                atoms=atoms,
                charge=charge,
                spin=spin,
                group=str(atoms.info.get("group", number)),
                config_type=str(atoms.info.get("config_type", "Default")),
                file="candidates",
                index=number,
            )
        )
    return frames
