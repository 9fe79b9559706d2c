"""Label many structures in parallel and lose no finished calculation.

Beside the output `a.xyz` stand `a.xyz.journal.jsonl` with every finished label and, if frames
failed, `a.xyz.failed.json` with the reasons. The journal stays after success: a later run with more
frames, or after an interruption, calculates only what is new. Failures are not kept in it, so each
run tries them again. Removing the journal is safe whenever the output is there.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path

import ase.io
from ase import Atoms

from surefoot.data.read import STRESS_KEYS, VIRIAL_KEYS, Frame, check_output
from surefoot.label.journal import Journal, content_hash
from surefoot.label.labeler import Labeler, LabelingFailed, Labels, check_state

IN_FLIGHT = 512  # structures handed to the executor at once: bounds memory, feeds any node
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Failure:
    """One frame without labels: its file, its number there from 0, and the reason."""

    file: str
    frame: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """What a run of `label_frames` did; the three counts add up to the frames given.

    Attributes:
        labelled: frames calculated in this run.
        reused: frames whose labels were in the journal, or equal to another frame of this run.
        failed: frames that are not in the output.
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


def label_frames(
    frames: Sequence[Frame],
    labeler: Labeler,
    output: Path,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    charge: int | None = None,
    spin: int | None = None,
) -> LabelReport:
    """Calculate the labels of all frames and write them as extended XYZ.

    Every output frame keeps its info and arrays and gains info `REF_energy` (eV), `charge`, `spin`,
    `label_method` and array `REF_forces` (eV/Å). Stresses of an earlier method are dropped: they do
    not belong to the new energies.

    Args:
        frames: structures to label; labels they already have are replaced.
        labeler: the source of labels.
        output: a file ending in .xyz or .extxyz; it appears only when the run is through.
        executor: runs the calculations, for example `worker_pool(2)`; None runs them here.
        progress: called with frames done and frames in all.
        charge: total charge in e of frames that state none.
        spin: multiplicity of frames that state none.

    Raises:
        ValueError: before anything runs, if the output can not be used, or charge or spin is
            missing or impossible.
        LabelingFailed: if no frame could be labelled, or a worker process died.
    """
    if not frames:
        raise ValueError("There are no frames to label.")
    check_output(output, sorted({frame.file for frame in frames}))
    tasks = _tasks(frames, labeler, charge, spin)
    output.parent.mkdir(parents=True, exist_ok=True)
    with Journal(_beside(output, "journal.jsonl")) as journal:
        known = len(journal)
        reasons = _calculate_new(tasks, labeler, executor, journal, progress)
        failed = _failures(frames, tasks, reasons)
        _write_failed(_beside(output, "failed.json"), failed)
        if len(failed) == len(frames):
            raise LabelingFailed(
                f"None of the {len(frames)} frames could be labelled. The first one, "
                f"{frames[0].place}: {failed[0].reason}."
            )
        _write_output(output, frames, tasks, journal, labeler.describe())
        labelled = len(journal) - known
    return LabelReport(
        labelled=labelled,
        reused=len(frames) - labelled - len(failed),
        failed=failed,
        journal=journal.path,
    )


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that calculate one structure each, on one thread each.

    A structure of 100 atoms is too small for threads: tblite on two threads is 2 to 7 times slower
    than on one. Use it as a context manager, and in a script under `if __name__ == "__main__":`,
    because the processes are started anew (spawn) and read the script again. They end with the
    process that started them, however it ends.

    Args:
        workers: number of processes, for example the cores of the machine.
    """
    return ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_single_threaded
    )


def _start_single_threaded() -> None:
    # The libraries read these once, when tblite is imported by the first calculation.
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    # Ctrl-C reaches the whole process group; only the process that keeps the journal answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker that waits for its next task does not notice by itself that nobody will send one.
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _tasks(
    frames: Sequence[Frame], labeler: Labeler, charge: int | None, spin: int | None
) -> list[_Task]:
    settings = labeler.settings()
    tasks = []
    for frame in frames:
        frame_charge = charge if frame.charge is None else frame.charge
        frame_spin = spin if frame.spin is None else frame.spin
        if frame_charge is None or frame_spin is None:
            missing = "charge" if frame_charge is None else "spin (multiplicity 2S+1)"
            raise ValueError(
                f"{frame.place}: the {missing} is not stated and is never guessed. Write charge "
                "and spin into the info of every frame, or give a value for all that lack one."
            )
        try:
            check_state(frame.atoms.numbers, frame_charge, frame_spin)
        except ValueError as error:
            raise ValueError(f"{frame.place}: {error}.") from error
        plain = Atoms(
            frame.atoms.numbers, frame.atoms.positions, cell=frame.atoms.cell, pbc=frame.atoms.pbc
        )
        key = content_hash(plain, frame_charge, frame_spin, settings)
        tasks.append(_Task(key, plain, frame_charge, frame_spin))
    return tasks


def _calculate_new(
    tasks: Sequence[_Task],
    labeler: Labeler,
    executor: Executor | None,
    journal: Journal,
    progress: Callable[[int, int], None] | None,
) -> dict[str, str]:
    """Calculate what the journal does not hold, each structure once, and keep it there.

    Returns:
        Reasons of the failures by content hash.
    """
    copies = Counter(task.key for task in tasks)
    new = {task.key: task for task in tasks if task.key not in journal}
    done = len(tasks) - sum(copies[key] for key in new)
    if progress is not None:
        progress(done, len(tasks))
    reasons: dict[str, str] = {}
    outcomes = _outcomes(list(new.values()), labeler, executor)
    try:
        for key, outcome in outcomes:
            if isinstance(outcome, Labels):
                journal.append(key, outcome)
            else:
                reasons[key] = str(outcome)
            done += copies[key]
            if progress is not None:
                progress(done, len(tasks))
    except BrokenExecutor as error:
        raise LabelingFailed(
            f"A worker process died, perhaps for lack of memory; {len(journal)} finished labels "
            f"are kept in {journal.path}. Start the same run again to go on from there, with fewer "
            "workers if it dies again."
        ) from error
    finally:
        outcomes.close()  # now, and not when the traceback of an interruption is forgotten
    return reasons


def _outcomes(
    tasks: Sequence[_Task], labeler: Labeler, executor: Executor | None
) -> Generator[tuple[str, Labels | LabelingFailed], None, None]:
    """Hashes and results in the order in which they are ready."""
    if executor is None:
        for task in tasks:
            yield task.key, _calculate(labeler, task)
        return
    waiting = iter(tasks)
    futures: dict[Future[Labels | LabelingFailed], str] = {}
    try:
        while True:
            for task in islice(waiting, IN_FLIGHT - len(futures)):
                futures[executor.submit(_calculate, labeler, task)] = task.key
            if not futures:
                return
            ready, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in ready:
                yield futures.pop(future), future.result()
    finally:
        for future in futures:  # after Ctrl-C nothing new may start
            future.cancel()


def _calculate(labeler: Labeler, task: _Task) -> Labels | LabelingFailed:
    """Labels of one structure; runs in a worker process, hence top level and picklable."""
    try:
        return labeler.label(task.atoms, task.charge, task.spin)
    except LabelingFailed as error:
        return LabelingFailed(str(error))  # without its cause, which may not be picklable


def _failures(
    frames: Sequence[Frame], tasks: Sequence[_Task], reasons: dict[str, str]
) -> list[Failure]:
    return [
        Failure(frame.file, frame.index, reasons[task.key])
        for frame, task in zip(frames, tasks, strict=True)
        if task.key in reasons
    ]


def _write_failed(path: Path, failed: list[Failure]) -> None:
    if not failed:
        path.unlink(missing_ok=True)
        return
    unfinished = _beside(path, "unfinished")
    unfinished.write_text(json.dumps([asdict(failure) for failure in failed], indent=1) + "\n")
    _put_in_place(unfinished, path)


def _write_output(
    output: Path, frames: Sequence[Frame], tasks: Sequence[_Task], journal: Journal, method: str
) -> None:
    labelled = [
        _labelled(frame.atoms, task, journal[task.key], method)
        for frame, task in zip(frames, tasks, strict=True)
        if task.key in journal
    ]
    unfinished = _beside(output, "unfinished")
    ase.io.write(unfinished, labelled, format="extxyz")
    _put_in_place(unfinished, output)


def _put_in_place(unfinished: Path, path: Path) -> None:
    # The content is on the disk before the name is: whole or not at all, whatever happens.
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def _labelled(atoms: Atoms, task: _Task, labels: Labels, method: str) -> Atoms:
    labelled = atoms.copy()
    for key in (*STRESS_KEYS, *VIRIAL_KEYS, "stress"):
        labelled.info.pop(key, None)
    labelled.info |= {
        "REF_energy": labels.energy,
        "charge": task.charge,
        "spin": task.spin,
        "label_method": method,
    }
    labelled.arrays["REF_forces"] = labels.forces
    return labelled


def _beside(output: Path, ending: str) -> Path:
    return output.with_name(f"{output.name}.{ending}")
