"""Label many structures in parallel and lose no finished calculation.

Beside the output `a.xyz` stand `a.xyz.journal.jsonl` with every finished label and every failure
and, if frames failed, `a.xyz.failed.json` with the reasons. The journal stays after success: a
later run with more frames, or after an interruption, calculates only what is new. Removing it is
safe whenever the output is there and no frame failed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms
from pydantic import Field

from surefoot.data.read import Frame, check_output
from surefoot.label.elsewhere import ExecutorBroke, calculate_elsewhere
from surefoot.label.journal import Journal, content_hash
from surefoot.label.labeler import (
    Labeler,
    LabelingFailed,
    Labels,
    LeavesOutCores,
    NotSettled,
    check_state,
)
from surefoot.label.output import (
    Failure,
    Origin,
    beside,
    with_labels,
    write_failed,
    write_labelled,
)
from surefoot.label.timeout import TimeExceeded, time_limit
from surefoot.label.workers import check_not_held
from surefoot.settings import Settings


class Conduct(Settings):
    """What is not taken as a label, whatever the labeler.

    Attributes:
        timeout: seconds of the clock one structure may take; no limit where not set. Not with
            executors of threads.
        contamination: largest ⟨S²⟩ − S(S+1) of a label that is written; where it is larger the
            state that was asked for is mixed with one of higher spin. Such labels stay in the
            journal, so that another limit costs nothing.
        retry: calculate again what failed in an earlier run.
        deaths: of worker processes that calculate a structure alone, before it is given up.
    """

    timeout: float | None = Field(default=None, gt=0)
    contamination: float = Field(default=0.1, ge=0)
    retry: bool = False
    deaths: int = Field(default=2, ge=1)


class WorkerDied(LabelingFailed):
    """A worker process died; the executor is of no more use, and with another one a run goes on.

    Attributes:
        suspects: structures that it may have died of. They are calculated last and one by one when
            the run goes on, so that each such end brings one of them nearer to being given up.
        given_up: structures of which workers have died too often so far.
        finished: labels that are kept.
    """

    def __init__(self, sentence: str, *, suspects: int, given_up: int, finished: int) -> None:
        super().__init__(sentence)
        self.suspects, self.given_up, self.finished = suspects, given_up, finished


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """What a run of `label_frames` did; the three counts add up to the frames given.

    Attributes:
        labelled: frames calculated in this run.
        reused: frames whose labels were in the journal, or equal to another frame of this run.
        failed: frames that are not in the output, in this run or an earlier one.
        journal: the file of finished labels.
    """

    labelled: int
    reused: int
    failed: list[Failure]
    journal: Path


@dataclass(frozen=True)
class _Task:
    """One structure to be calculated and its hash."""

    key: str
    atoms: Atoms
    charge: int
    spin: int
    cores: dict[str, int]


_Outcome = tuple[Labels | LabelingFailed, float]
"""Labels, or why there are none, and the processor time in seconds."""


def label_frames(
    frames: Sequence[Frame],
    labeler: Labeler,
    output: Path,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    state: tuple[int | None, int | None] = (None, None),
    conduct: Conduct = Conduct(),
) -> LabelReport:
    """Calculate the labels of all frames and write them as extended XYZ.

    Every output frame keeps its info and arrays and gains info `REF_energy` (eV), `charge`, `spin`,
    `label_method`, `label_settings` (all settings and versions), `label_level` (a hash of them),
    where the method has it `spin_squared` (⟨S²⟩) and `label_cores` (electrons that core potentials
    stand for), and array `REF_forces` (eV/Å). Stresses and references of an earlier method are
    dropped: they do not belong to the new energies.

    Args:
        frames: structures to label; labels they already have are replaced.
        labeler: the source of labels.
        output: a file ending in .xyz or .extxyz; it appears only when the run is through.
        executor: runs the calculations, for example `worker_pool(2)`; None runs them here.
        progress: called with frames done and frames in all, with an executor at least every half
            second. If it raises, for example KeyboardInterrupt, nothing new begins, and what runs
            is waited for and kept. An exception that comes while that is waited for, such as a
            second Ctrl-C, ends a pool of `worker_pool` at once.
        state: total charge in e and multiplicity of frames that state none.
        conduct: what is not taken as a label.

    Raises:
        ValueError: before anything runs, if the output can not be used, the labeler can not
            calculate with its settings, or charge or spin is missing or impossible.
        LabelingFailed: if no frame could be labelled.
        WorkerDied: if a worker process died.
    """
    if not frames:
        raise ValueError("There are no frames to label.")
    check_output(output, sorted({frame.file for frame in frames}))
    settings = labeler.settings()
    tasks = [_task(frame, labeler, settings, state) for frame in frames]
    output.parent.mkdir(parents=True, exist_ok=True)
    with Journal(beside(output, "journal.jsonl")) as journal:
        new = _calculate_new(tasks, labeler, executor, journal, progress, conduct)
        reasons = {task.key: _find_fault(task, journal, conduct) for task in tasks}
        failed = [
            Failure(frame.file, frame.index, reason)
            for frame, task in zip(frames, tasks, strict=True)
            if (reason := reasons[task.key]) is not None
        ]
        write_failed(beside(output, "failed.json"), failed)
        if len(failed) == len(frames):
            raise LabelingFailed(
                f"None of the {len(frames)} frames could be labelled. The first one, "
                f"{frames[0].place}: {failed[0].reason}."
                + ("" if new else " That was found in an earlier run; `retry` calculates again.")
            )
        origin = Origin(labeler.describe(), settings)
        images = [
            with_labels(
                frame.atoms, journal[task.key], (task.charge, task.spin), origin, task.cores
            )
            for frame, task in zip(frames, tasks, strict=True)
            if reasons[task.key] is None
        ]
        write_labelled(output, images)
    labelled = sum(reasons[key] is None for key in new)
    return LabelReport(
        labelled=labelled,
        reused=len(images) - labelled,
        failed=failed,
        journal=journal.path,
    )


def _task(
    frame: Frame,
    labeler: Labeler,
    settings: dict[str, Any],
    state: tuple[int | None, int | None],
) -> _Task:
    charge = state[0] if frame.charge is None else frame.charge
    spin = state[1] if frame.spin is None else frame.spin
    if charge is None or spin is None:
        missing = "charge" if charge is None else "spin (multiplicity 2S+1)"
        raise ValueError(
            f"{frame.place}: the {missing} is not stated and is never guessed. Write charge "
            "and spin into the info of every frame, or give a value for all that lack one."
        )
    try:
        check_state(frame.atoms.numbers, charge, spin)
    except ValueError as error:
        raise ValueError(f"{frame.place}: {error}.") from error
    plain = Atoms(
        frame.atoms.numbers, frame.atoms.positions, cell=frame.atoms.cell, pbc=frame.atoms.pbc
    )
    cores = labeler.cores(plain.numbers) if isinstance(labeler, LeavesOutCores) else {}
    said = {**settings, "cores": cores} if cores else settings
    return _Task(content_hash(plain, charge, spin, said), plain, charge, spin, cores)


def _find_fault(task: _Task, journal: Journal, conduct: Conduct) -> str | None:
    """Why a structure has no label that can be used; None if it has one."""
    if _is_given_up(task.key, journal, conduct):
        count = journal.deaths(task.key)
        return f"its worker process died, {count} times while nothing else was calculated"
    if task.key not in journal:
        return journal.reason(task.key) or "not calculated"
    spin_squared = journal[task.key].spin_squared
    pure = (task.spin**2 - 1) / 4
    if spin_squared is None or spin_squared - pure <= conduct.contamination:
        return None
    return (
        f"<S^2> is {spin_squared:.3f} where a pure spin {task.spin} has {pure:g}: more than the "
        f"contamination of {conduct.contamination:g} that is allowed"
    )


def _calculate_new(
    tasks: Sequence[_Task],
    labeler: Labeler,
    executor: Executor | None,
    journal: Journal,
    progress: Callable[[int, int], None] | None,
    conduct: Conduct,
) -> list[str]:
    """Calculate what the journal does not hold, each structure once, and keep it there.

    Returns:
        Content hashes of what was calculated, with or without success.
    """
    copies = Counter(task.key for task in tasks)
    new = {
        task.key: task
        for task in tasks
        if task.key not in journal
        and not _is_given_up(task.key, journal, conduct)
        and (conduct.retry or not journal.is_settled(task.key, conduct.timeout))
    }
    done = len(tasks) - sum(copies[key] for key in new)

    def look() -> None:
        if progress is not None:
            progress(done, len(tasks))

    def keep(key: str, outcome: _Outcome) -> None:
        nonlocal done
        _keep(journal, key, outcome, conduct)
        done += copies[key]

    look()
    calculate = partial(_calculate, labeler, conduct)
    if executor is None:
        for task in new.values():
            keep(task.key, calculate(task))
            look()
        return list(new)
    suspects = [task for task in new.values() if journal.deaths(task.key) is not None]
    others = [task for task in new.values() if journal.deaths(task.key) is None]
    for batch in (others, *([task] for task in suspects)):
        try:
            calculate_elsewhere([(one.key, one) for one in batch], calculate, executor, keep, look)
        except ExecutorBroke as error:
            raise _accuse(error, list(copies), journal, conduct) from error.__cause__
    return list(new)


def _is_given_up(key: str, journal: Journal, conduct: Conduct) -> bool:
    return key not in journal and (journal.deaths(key) or 0) >= conduct.deaths


def _accuse(
    error: ExecutorBroke, keys: Sequence[str], journal: Journal, conduct: Conduct
) -> WorkerDied:
    """Keep of what a worker may have died."""
    for key in error.suspects:
        journal.append_death(str(key), alone=len(error.suspects) == 1)
    given_up = sum(_is_given_up(key, journal, conduct) for key in keys)
    return WorkerDied(
        f"A worker process died, perhaps for lack of memory; {len(journal)} finished labels "
        f"are kept in {journal.path}. Start the same run again to go on from there, with fewer "
        "workers if it dies again; what it may have died of is then calculated last and alone, and "
        f"given up after {conduct.deaths} further deaths.",
        suspects=len(error.suspects),
        given_up=given_up,
        finished=len(journal),
    )


def _keep(journal: Journal, key: str, outcome: _Outcome, conduct: Conduct) -> None:
    found, seconds = outcome
    if isinstance(found, Labels):
        journal.append(key, found, seconds)
    elif isinstance(found, TimeExceeded):
        journal.append_failure(key, str(found), seconds, conduct.timeout)
    elif isinstance(found, NotSettled):
        journal.note_failure(key, str(found))
    else:
        journal.append_failure(key, str(found), seconds)


def _calculate(labeler: Labeler, conduct: Conduct, task: _Task) -> _Outcome:
    """Labels of one structure; runs in a worker process, hence top level and picklable."""
    check_not_held()
    begin = _processor_seconds()
    outcome: Labels | LabelingFailed
    try:
        with time_limit(conduct.timeout):
            outcome = _try(labeler, task)
    except TimeExceeded as error:
        outcome = TimeExceeded(str(error))
    return outcome, _processor_seconds() - begin


def _try(labeler: Labeler, task: _Task) -> Labels | LabelingFailed:
    """Labels or a failure without its cause, which may not be picklable."""
    try:
        return labeler.label(task.atoms, task.charge, task.spin)
    except LabelingFailed as error:
        kinds = (kind for kind in (TimeExceeded, NotSettled) if isinstance(error, kind))
        return next(kinds, LabelingFailed)(str(error))
    except ModuleNotFoundError:
        raise  # the answer is to install something, not to try the next frame
    except Exception as error:  # noqa: BLE001  a code raises what it likes
        return NotSettled(f"{type(error).__name__}: {error}")


def _processor_seconds() -> float:
    """Processor time of this process and of those it has waited for."""
    return sum(os.times()[:4])
