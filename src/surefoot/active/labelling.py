"""Labels of a round, through deaths of workers and other accidents."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

from surefoot.active.campaign import Campaign, stop_if_asked
from surefoot.active.folder import Round, is_noted, note_sum, read_json, read_structures
from surefoot.data.read import IGNORE, Keys, read_frames
from surefoot.label.labeler import LabelingFailed
from surefoot.label.output import beside
from surefoot.label.run import WorkerDied, label_frames

HOPELESS = 3  # structures given up for the deaths of their workers, before any has a label
NO_LABELS = Keys(energy=IGNORE, forces=IGNORE, stress=IGNORE)


def label_chosen(campaign: Campaign, this: Round) -> None:
    """Labels of what was chosen, as far as they are not there; accidents are tried again.

    A structure of which workers die is given up after some deaths, and the others are labelled.

    Args:
        campaign: that says how.
        this: round whose choice is labelled.
    Raises:
        LabelingFailed: if none could be labelled, with the commonest reason, or the engine is
            broken.
    """
    again, folder = campaign.again, campaign.folder / "engine"
    frames = read_frames([this.chosen], NO_LABELS)
    if _are_labelled(this, len(frames)):
        return
    with ExitStack() as stack:
        executor, turn = stack.enter_context(campaign.engine.open(folder)), 0
        while True:
            try:
                report = label_frames(
                    frames,
                    campaign.labeler,
                    this.labels,
                    executor=executor,
                    progress=lambda done, total: _follow(campaign, done, total),
                    state=(again.charge, again.spin),
                    conduct=campaign.conduct,
                )
            except WorkerDied as error:
                if error.given_up >= HOPELESS and not error.finished:
                    raise LabelingFailed(_say_hopeless(this, error.given_up)) from error
                if not error.suspects and turn == again.retries:
                    raise
                turn += not error.suspects  # the others are given up one after the other
                stack.close()  # it stays broken
                executor = stack.enter_context(campaign.engine.open(folder))
                continue
            except LabelingFailed as error:
                if turn == again.retries:
                    raise LabelingFailed(_say_commonest(this, str(error))) from error
            else:
                if not report.failed or turn == again.retries:
                    note_sum(this, this.labels)
                    return
            turn += 1


def _are_labelled(this: Round, count: int) -> bool:
    """Whether all have labels: what a killed process has written before its last turn is not."""
    if not is_noted(this, this.labels):
        return False
    return len(read_structures(this.labels)) == count


def _follow(campaign: Campaign, done: int, total: int) -> None:
    campaign.told.labels(done, total)
    stop_if_asked(campaign)


def _say_hopeless(this: Round, given_up: int) -> str:
    return (
        f"workers of the engine die whatever they calculate: {given_up} structures of round "
        f"{this.number} have each ended several, and none has a label. Give the workers more "
        "memory, or mend the labeler, then give the same command with a higher `conduct: {deaths}`."
    )


def _say_commonest(this: Round, first: str) -> str:
    file = beside(this.labels, "failed.json")
    if not file.exists():
        return first
    reasons = Counter(failure["reason"] for failure in read_json(file))
    reason, count = reasons.most_common(1)[0]
    return (
        f"none of the {reasons.total()} structures of round {this.number} could be labelled; "
        f"{count} of them: {reason}. They stand in {this.chosen}; mend the labeler and give the "
        "same command."
    )
