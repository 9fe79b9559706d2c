import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from surefoot.data.read import Frame, read_frames
from surefoot.label.labeler import LabelingFailed, Labels
from surefoot.label.run import Conduct, label_frames
from surefoot.label.workers import worker_pool
from surefoot.label.xtb import Xtb


@dataclass
class Spring:
    """Harmonic forces towards the origin; counts, fails and stops on request."""

    strength: float = 1.0
    name: str = "spring"
    fail_at: float = np.inf
    stop_after: int = 10**9
    calls: list[float] = field(default_factory=list)

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "strength": self.strength}

    def describe(self) -> str:
        return "spring (test)"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        if len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        assert spin >= 1
        place = float(atoms.positions[0, 0])
        self.calls.append(place)
        if place >= self.fail_at:
            raise LabelingFailed("too far out")
        energy = 0.5 * self.strength * float((atoms.positions**2).sum()) + charge
        return Labels(energy, -self.strength * atoms.positions)


def frame(place: float, index: int = 0, **stated: Any) -> Frame:
    atoms = Atoms("He", [[place, 0.0, 0.0]], info={"group": "g", "config_type": "c", "id": index})
    atoms.arrays["tag"] = np.array([index])
    state = {"charge": 0, "spin": 1} | stated
    return Frame(atoms=atoms, group="g", config_type="c", file="in.xyz", index=index, **state)


def frames(count: int) -> list[Frame]:
    return [frame(float(index), index) for index in range(count)]


def test_labels_stand_in_the_file_with_all_that_was_there(tmp_path: Path) -> None:
    report = label_frames(frames(3), Spring(strength=2.0), tmp_path / "out.xyz")
    assert (report.labelled, report.reused, report.failed) == (3, 0, [])
    for index, read in enumerate(read_frames([tmp_path / "out.xyz"])):
        assert read.energy == pytest.approx(index**2)
        np.testing.assert_allclose(read.forces, [[-2.0 * index, 0, 0]])
        assert (read.charge, read.spin, read.group, read.config_type) == (0, 1, "g", "c")
        assert read.atoms.info["id"] == index
        assert read.atoms.arrays["tag"][0] == index
        assert read.atoms.info["label_method"] == "spring (test)"
        assert read.atoms.info["label_settings"] == {"name": "spring", "strength": 2.0}
        assert "spin_squared" not in read.atoms.info
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"out.xyz", "out.xyz.journal.jsonl"}


def test_labels_of_an_earlier_method_are_replaced_and_its_stress_dropped(tmp_path: Path) -> None:
    one = frame(1.0)
    one.atoms.info |= {"REF_energy": 99.0, "REF_stress": np.ones(6), "virial": np.ones(9)}
    one.atoms.info["reference_energy"] = 98.0
    label_frames([one], Spring(), tmp_path / "out.xyz")
    (read,) = read_frames([tmp_path / "out.xyz"])
    assert read.energy == pytest.approx(0.5)
    assert read.stress is None
    assert "reference_energy" not in read.atoms.info
    assert one.atoms.info["REF_energy"] == 99.0


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    output = tmp_path / "out.xyz"
    with pytest.raises(KeyboardInterrupt):
        label_frames(frames(5), Spring(stop_after=2), output)
    assert not output.exists()
    journal = tmp_path / "out.xyz.journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"key": "torn')
    again = Spring()
    report = label_frames(frames(5), again, output)
    assert again.calls == [2.0, 3.0, 4.0]
    assert (report.labelled, report.reused) == (3, 2)
    whole = label_frames(frames(5), Spring(), tmp_path / "other.xyz")
    assert whole.labelled == 5
    assert output.read_bytes() == (tmp_path / "other.xyz").read_bytes()


def test_a_later_run_calculates_only_what_is_new(tmp_path: Path) -> None:
    label_frames(frames(3), Spring(), tmp_path / "out.xyz")
    more, stronger = Spring(), Spring(strength=3.0)
    report = label_frames(frames(4), more, tmp_path / "out.xyz")
    assert more.calls == [3.0]
    assert (report.labelled, report.reused) == (1, 3)
    label_frames(frames(4), stronger, tmp_path / "out.xyz")
    assert len(stronger.calls) == 4
    assert read_frames([tmp_path / "out.xyz"])[1].energy == pytest.approx(1.5)


def test_equal_frames_are_calculated_once(tmp_path: Path) -> None:
    labeler = Spring()
    twice = [frame(1.0, 0), frame(2.0, 1), frame(1.0, 2), frame(1.0, 3, charge=1, spin=2)]
    report = label_frames(twice, labeler, tmp_path / "out.xyz")
    assert labeler.calls == [1.0, 2.0, 1.0]
    assert (report.labelled, report.reused) == (3, 1)
    energies = [read.energy for read in read_frames([tmp_path / "out.xyz"])]
    np.testing.assert_allclose(np.array(energies, float), [0.5, 2.0, 0.5, 1.5])


def test_failed_frames_are_reported_and_left_out(tmp_path: Path) -> None:
    output, failed = tmp_path / "out.xyz", tmp_path / "out.xyz.failed.json"
    report = label_frames(frames(4), Spring(fail_at=3.0), output)
    assert [(f.file, f.frame, f.reason) for f in report.failed] == [("in.xyz", 3, "too far out")]
    assert (report.labelled, report.reused) == (3, 0)
    assert json.loads(failed.read_text()) == [
        {"file": "in.xyz", "frame": 3, "reason": "too far out"}
    ]
    assert [read.atoms.info["id"] for read in read_frames([output])] == [0, 1, 2]


def test_failures_are_remembered_and_tried_again_where_asked(tmp_path: Path) -> None:
    output, failed = tmp_path / "out.xyz", tmp_path / "out.xyz.failed.json"
    label_frames(frames(4), Spring(fail_at=3.0), output)
    again, retry = Spring(), Spring()
    report = label_frames(frames(4), again, output)
    assert again.calls == []
    assert [one.reason for one in report.failed] == ["too far out"]
    assert (report.labelled, report.reused) == (0, 3)
    report = label_frames(frames(4), retry, output, conduct=Conduct(retry=True))
    assert retry.calls == [3.0]
    assert (report.labelled, report.reused, report.failed) == (1, 3, [])
    assert not failed.exists()


def test_failures_of_a_killed_run_are_not_lost(tmp_path: Path) -> None:
    output = tmp_path / "out.xyz"
    with pytest.raises(KeyboardInterrupt):
        label_frames(frames(5), Spring(fail_at=3.0, stop_after=4), output)
    again = Spring()
    report = label_frames(frames(5), again, output)
    assert again.calls == [4.0]
    assert [one.frame for one in report.failed] == [3]


@dataclass
class Mixed(Spring):
    """Says that the spin is mixed the more, the further out the atom is."""

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        labels = super().label(atoms, charge, spin)
        return replace(labels, spin_squared=0.75 + float(atoms.positions[0, 0]) / 10)


def test_mixed_spins_are_left_out_with_their_number(tmp_path: Path) -> None:
    output = tmp_path / "out.xyz"
    doublets = [frame(float(index), index, charge=1, spin=2) for index in range(4)]
    report = label_frames(doublets, Mixed(), output, conduct=Conduct(contamination=0.15))
    assert [one.frame for one in report.failed] == [2, 3]
    assert "<S^2> is 0.950 where a pure spin 2 has 0.75" in report.failed[0].reason
    assert (report.labelled, report.reused) == (2, 0)
    assert [read.atoms.info["spin_squared"] for read in read_frames([output])] == [0.75, 0.85]
    wider = Mixed()
    report = label_frames(doublets, wider, output, conduct=Conduct(contamination=0.25))
    assert wider.calls == []
    assert [one.frame for one in report.failed] == [3]
    assert report.reused == 3


def test_a_report_of_failures_is_whole_or_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, failed = tmp_path / "out.xyz", tmp_path / "out.xyz.failed.json"
    doublets = [frame(float(index), index, charge=1, spin=2) for index in range(4)]
    label_frames(doublets, Mixed(), output, conduct=Conduct(contamination=0.25))
    before = failed.read_bytes()

    def stop(_handle: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("surefoot.label.output.os.fsync", stop)
    with pytest.raises(OSError, match="disk is full"):
        label_frames(doublets, Mixed(), output, conduct=Conduct(contamination=0.15))
    assert failed.read_bytes() == before


@dataclass
class Slow(Spring):
    """Takes its time with every frame but the first."""

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        labels = super().label(atoms, charge, spin)
        time.sleep(30.0 if atoms.positions[0, 0] else 0.0)
        return labels


def test_a_frame_that_takes_too_long_fails(tmp_path: Path) -> None:
    begin = time.monotonic()
    report = label_frames(frames(2), Slow(), tmp_path / "out.xyz", conduct=Conduct(timeout=0.3))
    assert [(one.frame, one.reason) for one in report.failed] == [(1, "not finished within 0.3 s")]
    assert time.monotonic() - begin < 20
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_threads_can_not_be_stopped(tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(ValueError, match="A time limit needs processes"),
    ):
        label_frames(
            frames(1), Slow(), tmp_path / "out.xyz", executor, conduct=Conduct(timeout=5.0)
        )


def test_the_time_each_label_took_stands_in_the_journal(tmp_path: Path) -> None:
    label_frames(frames(2), Spring(), tmp_path / "out.xyz")
    lines = (tmp_path / "out.xyz.journal.jsonl").read_text().splitlines()
    assert all(0 <= json.loads(line)["seconds"] < 60 for line in lines)


def test_if_all_fail_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(LabelingFailed, match=r"None of the 2 frames .* in.xyz, frame 0: too far"):
        label_frames(frames(2), Spring(fail_at=-1.0), tmp_path / "out.xyz")
    assert not (tmp_path / "out.xyz").exists()
    assert (tmp_path / "out.xyz.failed.json").exists()


def test_progress_counts_every_frame(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    twice = [*frames(3), frame(1.0, 3)]
    label_frames(
        twice, Spring(), tmp_path / "out.xyz", progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(0, 4), (1, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"charge": None}, "in.xyz, frame 1: the charge is not stated"),
        ({"spin": None}, r"in.xyz, frame 1: the spin \(multiplicity 2S\+1\) is not stated"),
        ({"spin": 2}, "in.xyz, frame 1: spin 2 .* does not fit an even number"),
    ],
)
def test_a_missing_or_wrong_state_stops_before_anything_runs(
    tmp_path: Path, stated: dict[str, Any], said: str
) -> None:
    labeler = Spring()
    with pytest.raises(ValueError, match=said):
        label_frames([frame(0.0), frame(1.0, 1, **stated)], labeler, tmp_path / "out.xyz")
    assert labeler.calls == []
    assert list(tmp_path.iterdir()) == []


def test_given_charge_and_spin_fill_only_the_gaps(tmp_path: Path) -> None:
    given = [frame(0.0, 0, charge=None, spin=None), frame(1.0, 1)]
    label_frames(given, Spring(), tmp_path / "out.xyz", state=(1, 2))
    read = read_frames([tmp_path / "out.xyz"])
    assert [(one.charge, one.spin) for one in read] == [(1, 2), (0, 1)]


@pytest.mark.parametrize(
    ("given", "name", "said"),
    [
        ([], "out.xyz", "no frames"),
        (frames(1), "out.traj", "ends in .xyz or .extxyz"),
        (frames(1), "in.xyz", "one of the files to be read"),
    ],
)
def test_outputs_that_can_not_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[Frame], name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        label_frames(given, Spring(), Path(name))


def test_any_executor_gives_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surefoot.label.elsewhere.IN_FLIGHT", 3)
    label_frames(frames(10), Spring(), tmp_path / "here.xyz")
    with ThreadPoolExecutor(2) as executor:
        report = label_frames(frames(10), Spring(), tmp_path / "there.xyz", executor)
    assert report.labelled == 10
    assert (tmp_path / "here.xyz").read_bytes() == (tmp_path / "there.xyz").read_bytes()


class Dying(Executor):
    """Runs three calls and then loses its workers."""

    def __init__(self) -> None:
        self.left = 3

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.left -= 1
        if self.left < 0:
            future.set_exception(BrokenProcessPool("a process was killed"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_a_dead_worker_loses_no_finished_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surefoot.label.elsewhere.IN_FLIGHT", 1)
    with pytest.raises(LabelingFailed, match="3 finished labels are kept in"):
        label_frames(frames(5), Spring(), tmp_path / "out.xyz", Dying())
    again = Spring()
    label_frames(frames(5), again, tmp_path / "out.xyz")
    assert again.calls == [3.0, 4.0]


class Late(Executor):
    """Finishes the first call and never the others."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if not self.futures:
            future.set_result(fn(*args, **kwargs))
        self.futures.append(future)
        return future


def test_an_interruption_cancels_what_waits(tmp_path: Path) -> None:
    def stop(done: int, _of: int) -> None:
        if done:
            raise KeyboardInterrupt

    late = Late()
    with pytest.raises(KeyboardInterrupt) as held:
        label_frames(frames(4), Spring(), tmp_path / "out.xyz", late, stop)
    assert held.value.__traceback__ is not None  # it keeps all frames of the run alive
    assert [future.cancelled() for future in late.futures] == [False, True, True, True]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_worker_processes_give_the_labels_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "9")  # what a worker would take over
    atoms = [molecule("CH3", info={"charge": 0, "spin": 2, "id": index}) for index in range(3)]
    for index, one in enumerate(atoms):
        one.positions *= 1 + 0.01 * index
    ase.io.write(tmp_path / "in.xyz", atoms)
    given = read_frames([tmp_path / "in.xyz"])
    with worker_pool(1) as pool:
        threads = pool.submit(os.listdir, "/proc/self/task").result()
        label_frames(given, Xtb(), tmp_path / "there.xyz", pool)
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
        # tblite starts its threads, here eight, at the first calculation if it is allowed any.
        assert len(pool.submit(os.listdir, "/proc/self/task").result()) < len(threads) + 4
    label_frames(given, Xtb(), tmp_path / "here.xyz")
    for here, there in zip(
        read_frames([tmp_path / "here.xyz"]), read_frames([tmp_path / "there.xyz"]), strict=True
    ):
        assert here.energy == pytest.approx(there.energy, abs=1e-8)
