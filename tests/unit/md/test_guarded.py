"""What the guard does in a run, and whom it asks."""

import errno
from dataclasses import dataclass, field, replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from surefoot.graph import Graph
from surefoot.md import loop
from surefoot.md.job import Job
from surefoot.md.run import start
from surefoot.md.settings import Dynamics, Simulation
from surefoot.md.trajectory import read_trajectory
from surefoot.motion.guard import Guard, NoUncertainty, Watch
from surefoot.motion.lennard_jones import LennardJones
from surefoot.motion.surface import Evaluation, Surface


def pair(distance: float = 3.8, speed: float = 1.0) -> Atoms:
    """Two argon atoms that fly apart."""
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, distance]])
    atoms.set_momenta([[0, 0, -speed], [0, 0, speed]])
    return atoms


def make_job(folder: Path, structures: list[Atoms], surface: Surface, watch=None, **more) -> Job:
    quick = {"dynamics": Dynamics(timestep=5.0), "steps": 40, "momenta": "given", "hottest": 1e9}
    return Job(
        structures=structures,
        temperatures=[20.0] * len(structures),
        surface=surface,
        settings=Simulation(**(quick | more)),
        folder=folder / "run",
        places=[f"file, frame {number}" for number in range(len(structures))],
        watch=watch,
    )


@dataclass(frozen=True)
class Unsure(LennardJones):
    """Unsure by what lies beyond 4 Å."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        first, last = graph.graph_offsets[:-1], graph.graph_offsets[1:] - 1
        z = (graph.positions[last, 2] - graph.positions[first, 2])[graph.graph_index]
        norm = (z - 4.0).clamp(min=0) if uncertainty else None
        return replace(found, forces_uncertainty_norm=norm)


def test_the_guard_stops_after_checks_in_a_row(tmp_path) -> None:
    guard = Guard(uncertainty=0.2, every=2, consecutive=3)
    kept: list[Atoms] = []
    watch = Watch(guard=guard, record=kept.append)
    job = make_job(tmp_path, [pair(speed=10), pair(speed=0.1)], Unsure(), every=1, watch=watch)
    report = start(job)
    assert report.endings[0].status == "unsure"
    assert "file, frame 0, step" in report.endings[0].reason
    assert "at atoms 0, 1" in report.endings[0].reason
    norms = read_trajectory(tmp_path / "run", 0)["forces_uncertainty_norm"].max(1)
    checked = np.flatnonzero(norms[::2] >= 0.2) * 2
    assert report.endings[0].step == checked[2]
    assert norms[-1] == norms[checked[2]]
    path = tmp_path / "run" / "guard" / f"system-0000-step-{checked[2]:09d}.xyz"
    frame = ase.io.read(path)
    assert isinstance(frame, Atoms)
    assert frame.info["guard_score"] == pytest.approx(norms[-1] / 0.2)
    assert list(frame.info["guard_atoms"]) == [0, 1]
    assert len(kept) == 1


@pytest.mark.parametrize("action", ["warn", "record", "damp"])
def test_other_actions_go_on(tmp_path, action) -> None:
    told: list[str] = []
    guard = Guard(uncertainty=0.2, every=2, action=action)
    watch = Watch(guard=guard, warn=told.append)
    job = make_job(tmp_path, [pair(speed=10)], Unsure(), every=1, steps=15, watch=watch)
    report = start(job)
    assert not report.endings
    # One excursion: told once, but slowed down at every check.
    assert len(told) == 1 if action != "damp" else len(told) > 1
    frames = list((tmp_path / "run" / "guard").glob("*.xyz"))
    assert len(frames) == (0 if action == "warn" else len(told))
    frames = read_trajectory(tmp_path / "run", 0)
    if action == "damp":
        assert frames["positions"][-1, 1, 2] < 5.0
        assert np.ptp(frames["conserved"]) < 1e-3  # the guard's part is counted, so is no drift
    else:
        assert frames["positions"][-1, 1, 2] > 5.0


def test_beyond_the_upper_limit_nothing_is_recorded(tmp_path) -> None:
    guard = Guard(uncertainty=0.01, uncertainty_upper=0.011, every=1, action="record")
    job = make_job(tmp_path, [pair(speed=60)], Unsure(), watch=Watch(guard=guard))
    report = start(job)
    assert report.endings[0].status == "unsure"
    assert "not worth labelling" in report.endings[0].reason
    assert not (tmp_path / "run" / "guard").exists()


def test_a_guard_needs_what_it_judges(tmp_path) -> None:
    watch = Watch(guard=Guard(ood=1.0))
    with pytest.raises(NoUncertainty, match="this potential has no gate"):
        start(make_job(tmp_path, [pair()], Unsure(), watch=watch))


@dataclass(frozen=True)
class Asked(Unsure):
    """With an `ood` that needs no asking: 1 at a distance of 4.1 Å."""

    who: list[int] = field(default_factory=list)

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        first, last = graph.graph_offsets[:-1], graph.graph_offsets[1:] - 1
        ood = (graph.positions[last, 2] - graph.positions[first, 2]) / 4.1
        if uncertainty:
            self.who.append(len(ood))
        return replace(found, ood=ood, ood_atoms=ood[graph.graph_index])


@pytest.mark.parametrize("shown", [0, 1, 3])
def test_the_shortcut_stops_where_the_whole_guard_does(tmp_path, shown: int) -> None:
    """All draws are asked of one system of two, and of it only from 4.1 Å on.

    Whose uncertainties are shown beside that changes nothing.
    """
    pairs = [pair(speed=10), pair(speed=0.1)]
    guard = Guard(uncertainty=0.2, every=2)
    job = make_job(tmp_path, pairs, Asked(), every=1, watch=Watch(guard=guard))
    whole = start(job)
    surface = Asked()
    quick = Guard(uncertainty=0.2, every=2, near_ood=1.0)
    more = {"every": 1, "uncertainty_every": shown, "watch": Watch(guard=quick)}
    found = start(make_job(tmp_path / "quick", pairs, surface, **more))
    assert found.endings[0] == replace(whole.endings[0], reason=found.endings[0].reason)
    frames = read_trajectory(tmp_path / "quick" / "run", 0)
    known = np.isfinite(frames["forces_uncertainty_norm"]).all(1)
    ood = frames["ood"]
    near = [n % 2 == 0 and ood[n] >= 1 for n in range(len(ood))]
    if shown == 0:
        assert set(surface.who) == {1}
        assert known.tolist() == near
    else:
        assert known.tolist() == [near[n] or n % shown == 0 for n in range(len(ood))]


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_who_is_shown_does_not_change_who_is_judged(tmp_path, shown: int) -> None:
    """Below `near_ood` a check is passed, whether or not the uncertainty is known anyway."""
    guard = Guard(uncertainty=1e-6, near_ood=1e6, every=2, consecutive=2)
    more = {"every": 2, "uncertainty_every": shown, "watch": Watch(guard=guard)}
    report = start(make_job(tmp_path, [pair(4.2)], Asked(), **more))
    assert not report.endings


@pytest.mark.parametrize(("shown", "saves"), [(1, False), (2, True), (0, True)])
def test_a_shortcut_that_saves_nothing_is_told(tmp_path, shown: int, saves: bool) -> None:
    told: list[str] = []
    guard = Guard(uncertainty=1e9, near_ood=1e6, every=10)
    more = {"every": 10, "uncertainty_every": shown, "watch": Watch(guard=guard)}
    job = make_job(tmp_path, [pair(speed=0.1)], Asked(), **more)
    start(replace(job, warn=told.append))
    assert (told == []) == saves
    assert all("asked at every check anyway" in line for line in told)


def test_a_guard_on_ood_alone_asks_nobody(tmp_path) -> None:
    surface = Asked()
    watch = Watch(guard=Guard(ood=1e9, every=2))
    start(make_job(tmp_path, [pair(speed=0.1)], surface, watch=watch, uncertainty_every=0))
    assert surface.who == []


def test_frames_with_uncertainties_now_and_then(tmp_path) -> None:
    surface = Asked()
    more = {"every": 2, "uncertainty_every": 3, "chunk": 2, "steps": 20}
    start(make_job(tmp_path, [pair(speed=0.1)], surface, **more))
    frames = read_trajectory(tmp_path / "run", 0)
    assert frames["step"].tolist() == list(range(0, 21, 2))
    known = np.isfinite(frames["forces_uncertainty_norm"]).all(1)
    assert frames["step"][known].tolist() == [0, 6, 12, 18]
    assert len(surface.who) == 4


def test_a_full_disk_is_told_where_a_frame_is_recorded(tmp_path, monkeypatch) -> None:
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop, "write_frame", full)
    watch = Watch(guard=Guard(uncertainty=0.2, every=2))
    with pytest.raises(ValueError, match="the disk is full at step"):
        start(make_job(tmp_path, [pair(speed=15)], Unsure(), watch=watch))
