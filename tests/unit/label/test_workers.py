"""How a run is stopped, and what is kept and ended then."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from surefoot.data.read import Frame
from surefoot.label.journal import Journal
from surefoot.label.labeler import LabelingFailed, Labels, NotSettled
from surefoot.label.run import Conduct, WorkerDied, label_frames
from surefoot.label.timeout import TimeExceeded
from surefoot.label.workers import worker_pool
from surefoot.label.xtb_program import XtbProgram


@dataclass
class Spring:
    """Harmonic forces towards the origin, after some time, or an exception where told."""

    seconds: float = 0.0
    error: Exception | None = None
    calls: int = 0
    name: str = "spring"

    def settings(self) -> dict[str, Any]:
        return {"name": self.name}

    def describe(self) -> str:
        return "spring (test)"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        self.calls += 1
        time.sleep(self.seconds)
        if self.error is not None and atoms.positions[0, 0] == 1:
            raise self.error
        return Labels(0.5 * float((atoms.positions**2).sum()) + charge * spin, -atoms.positions)


def frames(count: int) -> list[Frame]:
    return [
        Frame(
            atoms=Atoms("He", [[float(index), 0.0, 0.0]]),
            group="g",
            config_type="c",
            file="in.xyz",
            index=index,
            charge=0,
            spin=1,
        )
        for index in range(count)
    ]


def count_kept(output: Path) -> int:
    with Journal(output.with_name(f"{output.name}.journal.jsonl")) as journal:
        return len(journal)


def stop_after_one(done: int, _of: int) -> None:
    if done:
        raise KeyboardInterrupt


class AllAtOnce(ThreadPoolExecutor):
    """All calculations are finished when the first is looked at."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        wait([future])
        return future


def test_what_is_finished_when_a_run_stops_is_kept(tmp_path: Path) -> None:
    with AllAtOnce(1) as executor, pytest.raises(KeyboardInterrupt):
        label_frames(frames(5), Spring(), tmp_path / "out.xyz", executor, stop_after_one)
    assert count_kept(tmp_path / "out.xyz") == 5


def test_what_runs_when_a_run_stops_is_waited_for_and_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor, pytest.raises(KeyboardInterrupt):
        label_frames(frames(8), Spring(0.2), tmp_path / "out.xyz", executor, stop_after_one)
    kept = count_kept(tmp_path / "out.xyz")
    assert 2 <= kept < 8


def test_a_stop_is_seen_while_nothing_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surefoot.label.elsewhere.LOOK", 0.02)
    seen: list[int] = []

    def stop(done: int, _of: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        label_frames(frames(2), Spring(0.5), tmp_path / "out.xyz", executor, stop)
    assert seen == [0, 0, 0]
    assert count_kept(tmp_path / "out.xyz") == 1


def test_an_unforeseen_error_is_a_reason_and_not_remembered(tmp_path: Path) -> None:
    output = tmp_path / "out.xyz"
    report = label_frames(frames(3), Spring(error=OSError("no room")), output)
    assert [(one.frame, one.reason) for one in report.failed] == [(1, "OSError: no room")]
    again = Spring()
    assert label_frames(frames(3), again, output).failed == []
    assert again.calls == 1


@pytest.mark.parametrize(
    ("error", "timeout", "calls"),
    [
        (LabelingFailed("not converged"), 9.0, 0),
        (NotSettled("xtb can not be started"), 9.0, 1),
        (TimeExceeded("too long"), 9.0, 0),
        (TimeExceeded("too long"), 8.0, 0),
        (TimeExceeded("too long"), 20.0, 1),
        (TimeExceeded("too long"), None, 1),
    ],
)
def test_only_what_would_fail_again_is_remembered(
    tmp_path: Path, error: LabelingFailed, timeout: float | None, calls: int
) -> None:
    output = tmp_path / "out.xyz"
    label_frames(frames(2), Spring(error=error), output, conduct=Conduct(timeout=9.0))
    again = Spring()
    report = label_frames(frames(2), again, output, conduct=Conduct(timeout=timeout))
    assert again.calls == calls
    assert len(report.failed) == 1 - calls


def test_if_all_failed_before_it_is_said_how_to_try_again(tmp_path: Path) -> None:
    failing = Spring(error=LabelingFailed("not converged"))
    for said in (r"not converged\.$", r"found in an earlier run; `retry` calculates again"):
        with pytest.raises(LabelingFailed, match=said):
            label_frames(frames(2)[1:], failing, tmp_path / "out.xyz")


@dataclass
class Heavy(Spring):
    """Leaves out the core of krypton."""

    core: int = 28

    def cores(self, numbers: np.ndarray) -> dict[str, int]:
        return {"Kr": self.core} if 36 in numbers else {}


def test_core_potentials_belong_to_the_structures_that_have_them(tmp_path: Path) -> None:
    output, given = tmp_path / "out.xyz", frames(2)
    given[1].atoms.numbers[:] = 36
    label_frames(given, Spring(), output)
    heavy, other = Heavy(), Heavy(core=10)
    report = label_frames(given, heavy, output)
    assert (heavy.calls, report.reused) == (1, 1)  # helium is as it was
    label_frames(given, other, output)
    assert other.calls == 1


PARENT = """
import os, sys, time
from pathlib import Path
from surefoot.label.processes import run_program
from surefoot.label.workers import worker_pool
from surefoot.label.xtb_program import XtbProgram
if __name__ == "__main__":
    pool = worker_pool(1)
    script = "echo $$ > program; sleep 600 & echo $! > child; wait"
    running = pool.submit(run_program, ["sh", "-c", script], Path.cwd())
    while not (os.path.exists("child") and open("child").read().strip()):
        time.sleep(0.05)
    print("ready", flush=True)
    if sys.argv[1] == "end":
        pool.end_now()
        sys.exit()
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["kill", "end"])
def test_workers_and_their_programs_end_with_the_parent(
    tmp_path: Path, await_end: Callable[[list[int]], None], way: str
) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", way],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "ready"
    pids = [int((tmp_path / name).read_text()) for name in ("program", "child")]
    if way == "kill":
        parent.kill()
    try:
        # The worker holds the other end of this pipe, so the wait is over when it has ended.
        parent.communicate(timeout=20)
        await_end(pids)
    finally:
        parent.kill()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


STAND_IN = """#!/bin/sh
if [ "$1" = --version ]; then echo "xtb version 1.0"; exit 0; fi
sleep 0.5
printf '$grad\\n cycle = 1 SCF energy = -1.0 |dE/dxyz| = 0\\n0 0 0 He\\n0 0 0\\n$end\\n' > gradient
"""


@pytest.mark.slow
def test_a_stopped_pool_begins_nothing_more(tmp_path: Path) -> None:
    program, output = tmp_path / "xtb", tmp_path / "out.xyz"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    labeler = XtbProgram(program=str(program))
    with worker_pool(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            label_frames(frames(6), labeler, output, pool, stop_after_one)
        # One was finished and one ran; those in the queue of the pool can not be cancelled.
        assert 1 <= count_kept(output) <= 2
        assert label_frames(frames(6), labeler, output, pool).labelled >= 4


@dataclass
class Deadly(Spring):
    """Structures at 1 and 4 Å end the process that calculates them."""

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        if atoms.positions[0, 0] in (1, 4):
            os._exit(1)
        return super().label(atoms, charge, spin)


class Mortal(Executor):
    """A pool without processes, which dies of the same structures and of all that it holds then."""

    def __init__(self) -> None:
        self.dead = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.dead = self.dead or args[0].atoms.positions[0, 0] in (1, 4)
        if self.dead:
            future.set_exception(BrokenProcessPool("a process was killed"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def read_records(output: Path) -> list[dict[str, Any]]:
    journal = output.with_name(f"{output.name}.journal.jsonl")
    return [json.loads(line) for line in journal.read_text().splitlines()]


def test_what_kills_its_worker_is_given_up_and_the_others_are_labelled(tmp_path: Path) -> None:
    output, labeler, conduct = tmp_path / "out.xyz", Spring(), Conduct(deaths=2, retry=True)
    report = None
    ends = []
    while not ends or ends[-1] is not None:
        assert len(ends) < 9
        try:
            report = label_frames(frames(6), labeler, output, Mortal(), conduct=conduct)
            ends.append(None)
        except WorkerDied as error:
            ends.append((error.suspects, error.given_up))
    # Of the first death five are suspects, of each later one the structure that was alone.
    assert ends == [(5, 0), (1, 0), (1, 1), (1, 1), (1, 2), None]
    assert report is not None
    assert [one.frame for one in report.failed] == [1, 4]
    assert "died, 2 times while nothing else was calculated" in report.failed[0].reason
    assert labeler.calls == 4
    # Where more deaths are allowed they are tried again, and the others are not.
    with pytest.raises(WorkerDied):
        label_frames(frames(6), labeler, output, Mortal(), conduct=Conduct(deaths=3))
    assert labeler.calls == 4


@pytest.mark.slow
def test_a_pool_knows_what_its_worker_may_have_died_of(tmp_path: Path) -> None:
    output = tmp_path / "out.xyz"
    with worker_pool(1) as pool, pytest.raises(WorkerDied) as caught:
        label_frames(frames(4), Deadly(), output, pool)
    assert (caught.value.suspects, caught.value.finished) == (1, 1)
    first, second = read_records(output)
    assert "energy" in first
    assert second["died"] == "alone"
