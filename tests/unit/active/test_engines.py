"""Labels come back from every engine, and what dies on the way loses nothing."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from pydantic import ValidationError

from surefoot.active import engines
from surefoot.active.engines import Dask, Processes, Slurm, require_engine
from surefoot.active.jobs import Patience, has_waiting
from surefoot.data.read import Frame, read_frames
from surefoot.label.run import Conduct, label_frames
from surefoot.label.xtb import Xtb

distributed = pytest.importorskip("distributed")
# Dask's own clean-up at the end of a cluster is not ours to judge.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture
def frames(tmp_path: Path, rng: np.random.Generator) -> list[Frame]:
    images = []
    for _ in range(12):
        atoms = molecule("C6H6")
        atoms.positions += rng.normal(0.0, 0.02, (12, 3))
        atoms.info |= {"charge": 0, "spin": 1}
        images.append(atoms)
    path = tmp_path / "frames.xyz"
    ase.io.write(path, images, format="extxyz")
    return read_frames([path])


def energies(file: Path) -> list[float]:
    return [frame.energy for frame in read_frames([file]) if frame.energy is not None]


@pytest.mark.slow
def test_processes_give_the_labels_of_this_one(frames: list[Frame], tmp_path: Path) -> None:
    label_frames(frames, Xtb(), tmp_path / "here.xyz")
    with Processes(workers=1).open(tmp_path) as executor:
        label_frames(frames, Xtb(), tmp_path / "there.xyz", executor=executor)
    assert energies(tmp_path / "there.xyz") == energies(tmp_path / "here.xyz")


@pytest.mark.slow
def test_a_killed_worker_of_dask_loses_nothing(frames: list[Frame], tmp_path: Path) -> None:
    label_frames(frames, Xtb(), tmp_path / "here.xyz")
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if done >= 2 and not killed:
            pids = distributed.default_client().run(os.getpid)
            killed.append(next(iter(pids.values())))
            os.kill(killed[0], signal.SIGKILL)

    with Dask(workers=2).open(tmp_path / "dask") as executor:
        report = label_frames(
            frames, Xtb(), tmp_path / "there.xyz", executor=executor, progress=kill_one
        )
    assert killed
    assert not report.failed
    assert report.labelled == len(frames)
    assert energies(tmp_path / "there.xyz") == pytest.approx(energies(tmp_path / "here.xyz"))


class Told:
    """Stands for a call of a Dask client: what is told of it, one status at each look."""

    key = "call"

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)

    @property
    def status(self) -> str:
        return self.statuses[0]

    def add_done_callback(self, hand_on: Callable[[Told], None]) -> None:
        hand_on(self)
        self.statuses = self.statuses[1:] or self.statuses

    def result(self) -> str:
        if self.status == "cancelled":
            raise distributed.client.FutureCancelledError("call", "scheduler restarted")
        if self.status == "error":
            raise distributed.KilledWorker("call", SimpleNamespace(address="tcp://1"), 3)
        return "answer"


@pytest.mark.parametrize("gone", [("lost",), ("pending",), ("pending", "lost", "lost")])
def test_an_answer_that_died_with_its_worker_is_waited_for(
    gone: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "AGAIN", 0.04)
    executor = engines._DaskExecutor(Client(Told(*gone, "finished")))
    call = executor.submit(int)
    assert not call.done()
    assert executor.waits
    assert call.result(timeout=10.0) == "answer"
    assert not executor.waits


@pytest.mark.parametrize("status", ["error", "cancelled"])
def test_what_will_never_be_answered_breaks_the_executor(status: str) -> None:
    executor = engines._DaskExecutor(Client(Told(status)))
    with pytest.raises(BrokenExecutor):
        executor.submit(int).result(timeout=10.0)
    assert not executor.waits


@dataclass
class Client:
    """Stands for a Dask client of one call."""

    told: Told

    def submit(self, function: object, *, pure: bool) -> Told:  # noqa: ARG002
        return self.told


SBATCH = """#!/bin/sh
# A stand-in for Slurm: a copy of the script runs here, since the script itself is removed.
cp "$1" {folder}/submitted.sh
sh {folder}/submitted.sh >{folder}/job.log 2>&1 &
echo $! >>{folder}/pids
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill "$@" 2>/dev/null
exit 0
"""


SQUEUE = """#!/bin/sh
exit 0
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL), ("squeue", SQUEUE)):
        (programs / name).write_text(text.format(folder=tmp_path))
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@pytest.mark.slow
@pytest.mark.usefixtures("queue")
def test_slurm_jobs_that_die_at_their_start_are_a_sentence(
    frames: list[Frame], tmp_path: Path
) -> None:
    engine = Slurm(jobs=1, cores=1, memory="1GB", prologue=("exit 1",), start=3.0)
    with (
        engine.open(tmp_path / "slurm") as executor,
        pytest.raises(ChildProcessError, match=r"for 3 s, .*submitted: \d+"),
    ):
        label_frames(frames[:2], Xtb(), tmp_path / "there.xyz", executor=executor)


def test_jobs_that_wait_for_their_turn_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\necho 41\necho 42\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert has_waiting({"42"})
    assert has_waiting({"7"}) is False
    program.write_text("#!/bin/sh\nexit 1\n")
    assert has_waiting({"42"}) is None
    patience = Patience(10.0)
    looks = [(0.0, True), (50.0, False), (59.0, False), (60.0, True), (70.0, False), (79.0, False)]
    assert not any(patience.is_over(now, hope=hope) for now, hope in looks)
    assert patience.is_over(80.0, hope=False)


@pytest.mark.slow
@pytest.mark.usefixtures("queue")
def test_slurm_jobs_label_and_end(frames: list[Frame], tmp_path: Path) -> None:
    engine = Slurm(
        jobs=1,
        cores=1,
        memory="1GB",
        queue="short",
        account="chem42",
        directives=("--exclusive",),
        prologue=("module load nothing || true",),
        walltime="00:10:00",
    )
    with engine.open(tmp_path / "slurm") as executor:
        label_frames(frames[:3], Xtb(), tmp_path / "there.xyz", executor=executor)
    script = (tmp_path / "submitted.sh").read_text()
    for line in ("-p short", "-A chem42", "--exclusive", "-t 00:10:00", "--mem=954M"):
        assert f"#SBATCH {line}" in script
    assert "module load nothing" in script
    assert len(energies(tmp_path / "there.xyz")) == 3


def test_workers_of_a_scheduler_are_its_own() -> None:
    with pytest.raises(ValidationError, match="has its workers already"):
        Dask(scheduler="tcp://localhost:8786", workers=2)


def test_what_an_engine_can_not_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_engine(Processes(), Conduct(timeout=1.0))
    require_engine(Dask(), Conduct())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="there is no `sbatch` here"):
        require_engine(Slurm(jobs=1, cores=1, memory="1GB"), Conduct())
    with pytest.raises(ValueError, match=r"timeout: 1\} needs engine: \{name: processes\}"):
        require_engine(Dask(), Conduct(timeout=1.0))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"needs distributed; .*surefoot\[cluster\]"):
        require_engine(Dask(), Conduct())


@pytest.mark.slow
def test_what_a_worker_of_dask_has_begun_is_not_cancelled(tmp_path: Path) -> None:
    def slow(folder: Path, number: int) -> int:
        (folder / f"begun-{number}").touch()
        time.sleep(3.0)
        return number

    def die(_: int) -> None:
        os._exit(1)

    with Dask(workers=1, deaths=0).open(tmp_path / "dask") as executor:
        calls = [executor.submit(slow, tmp_path, number) for number in range(6)]
        while not list(tmp_path.glob("begun-*")):
            assert not any(call.done() for call in calls)
            time.sleep(0.05)
        begun = [(tmp_path / f"begun-{number}").exists() for number in range(6)]
        assert [call.cancel() for call in calls] == [not one for one in begun]
        assert [call.result() for call in calls if not call.cancelled()] == [
            number for number in range(6) if begun[number]
        ]
        with pytest.raises(BrokenExecutor):
            executor.submit(die, 1).result()
