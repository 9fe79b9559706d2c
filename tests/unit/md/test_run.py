"""What ends a run, what the guard does in it, and what is refused before it begins."""

import errno
from dataclasses import dataclass, replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from pydantic import ValidationError

from surefoot.graph import Graph
from surefoot.md import loop
from surefoot.md.job import Job
from surefoot.md.run import RunExists, resume, start
from surefoot.md.settings import Barostat, Bussi, Dynamics, Langevin, Simulation
from surefoot.md.timestep import fastest_periods
from surefoot.md.trajectory import read_trajectory
from surefoot.motion.guard import Guard, NoUncertainty, Watch
from surefoot.motion.lennard_jones import LennardJones
from surefoot.motion.skin import NeighborLists
from surefoot.motion.surface import Evaluation
from surefoot.motion.systems import UnfitStructure, join_systems
from surefoot.units import DALTON


def pair(distance: float = 3.8, speed: float = 1.0) -> Atoms:
    """Two argon atoms that fly apart."""
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, distance]])
    atoms.set_momenta([[0, 0, -speed], [0, 0, speed]])
    return atoms


def make_job(folder: Path, structures: list[Atoms], surface: object = None, **more) -> Job:
    told: list[str] = []
    watch = more.pop("watch", None)
    dynamics = more.pop("dynamics", Dynamics(timestep=5.0))
    # Fast pairs are hot, and not what most of these tests are about.
    settings = Simulation(
        **{"dynamics": dynamics, "steps": 40, "momenta": "given", "hottest": 1e9, **more}
    )
    return Job(
        structures=structures,
        temperatures=[20.0] * len(structures),
        surface=surface or LennardJones(),  # type: ignore[arg-type]
        settings=settings,
        folder=folder / "run",
        places=[f"file, frame {number}" for number in range(len(structures))],
        watch=watch,
        warn=told.append,
    )


@dataclass(frozen=True)
class Wrong(LennardJones):
    """Numbers that are none, or forces that are no slope, once two atoms are far apart."""

    beyond: float = 4.2
    factor: float = torch.nan

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        z = (
            graph.positions[graph.graph_offsets[1:] - 1, 2]
            - graph.positions[graph.graph_offsets[:-1], 2]
        )
        far = (z > self.beyond)[graph.graph_index, None]
        return replace(found, forces=torch.where(far, found.forces * self.factor, found.forces))


def test_a_broken_system_leaves_its_last_good_frame(tmp_path) -> None:
    job = make_job(tmp_path, [pair(speed=15), pair(speed=0.1)], Wrong(), every=1)
    report = start(job)
    assert set(report.endings) == {0}
    assert report.step == 40
    assert "energy or forces are no longer finite" in report.endings[0].reason
    assert "last-good-0000.xyz" in report.endings[0].reason
    good = ase.io.read(tmp_path / "run" / "last-good-0000.xyz")
    assert isinstance(good, Atoms)
    assert good.get_distance(0, 1) < 4.2
    assert good.info["step"] == report.endings[0].step - 1
    frames = read_trajectory(tmp_path / "run", 0)
    assert np.allclose(frames["positions"][-1], good.positions)
    assert np.isfinite(frames["forces"]).all()
    assert len(read_trajectory(tmp_path / "run", 1)["step"]) == 41


def test_heat_ends_a_run(tmp_path) -> None:
    report = start(make_job(tmp_path, [pair(speed=2)], Wrong(factor=-1e5), hottest=None))
    assert "above the 3000 K that end a run" in report.endings[0].reason
    assert report.last is None
    cooler = make_job(tmp_path / "cooler", [pair(speed=2)], hottest=1.0)
    assert "above the 1 K" in start(cooler).endings[0].reason


def test_drift_ends_a_run(tmp_path) -> None:
    """No forces, though the energy has a slope."""
    surface = Wrong(beyond=0.0, factor=0.0, epsilon=0.05)
    more = {"dynamics": Dynamics(timestep=10.0), "steps": 100, "every": 50}
    report = start(make_job(tmp_path, [pair(3.8, 0.5)], surface, drift=0.01, **more))
    assert "what should be conserved has changed by" in report.endings[0].reason
    sound = make_job(tmp_path / "sound", [pair(4.2, 0.3)], drift=1e-3, **more)
    assert not start(sound).endings


def test_lost_atoms_end_a_run_unless_allowed(tmp_path) -> None:
    job = make_job(tmp_path, [pair(speed=40)], steps=100)
    assert "atom 0 has left" in start(job).endings[0].reason
    allowed = make_job(tmp_path / "b", [pair(speed=40)], steps=100, lost="allow")
    assert not start(allowed).endings
    alone = Atoms("Ar", positions=[[0, 0, 0]])
    alone.set_momenta([[1, 0, 0]])
    assert not start(make_job(tmp_path / "c", [alone])).endings


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
    assert told
    assert (tmp_path / "run" / "guard").exists() == (action != "warn")
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


def test_batches_and_singles_move_alike(tmp_path) -> None:
    """The noise of a system hangs on its number, not on its company."""
    cluster = [pair(3.8 + 0.1 * n) for n in range(3)]
    bath = Dynamics(timestep=5.0, thermostat=Langevin(time=50))
    start(make_job(tmp_path, cluster, dynamics=bath, momenta="drawn", every=5))
    two = [cluster[0], cluster[1]]
    start(make_job(tmp_path / "two", two, dynamics=bath, momenta="drawn", every=5))
    for system in range(2):
        one = read_trajectory(tmp_path / "run", system)["positions"]
        other = read_trajectory(tmp_path / "two" / "run", system)["positions"]
        assert np.allclose(one, other, atol=1e-12)


def test_fixed_atoms_stay(tmp_path) -> None:
    crystal = bulk("Ar", "fcc", 5.3, cubic=True)
    crystal.set_constraint(FixAtoms([0, 2]))
    bath = Dynamics(timestep=5.0, thermostat=Langevin(time=50))
    start(make_job(tmp_path, [crystal], dynamics=bath, momenta="drawn"))
    frames = read_trajectory(tmp_path / "run", 0)
    assert np.array_equal(frames["positions"][-1, [0, 2]], crystal.positions[[0, 2]])
    assert (np.abs(frames["positions"][-1, [1, 3]] - crystal.positions[[1, 3]]) > 1e-3).all()


def test_a_folder_in_use_is_left_alone(tmp_path) -> None:
    job = make_job(tmp_path, [pair()], steps=2)
    start(job)
    with pytest.raises(RunExists, match="nothing is written over another run"):
        start(job)


def test_a_full_disk_is_told_and_survived(tmp_path, monkeypatch) -> None:
    job = make_job(tmp_path, [pair()], every=1, chunk=5)
    whole = loop.save

    def full(*arguments) -> None:
        if arguments[1].step > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(*arguments)

    monkeypatch.setattr(loop, "save", full)
    with pytest.raises(ValueError, match="the disk is full at step 24") as found:
        start(job)
    assert "resume" in str(found.value)
    monkeypatch.setattr(loop, "save", whole)
    assert resume(job).step == 40
    assert read_trajectory(tmp_path / "run", 0)["step"].tolist() == list(range(41))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"barostat": Barostat()}, "a barostat without a thermostat"),
        ({"thermostat": Langevin(time=1.0)}, "less than five steps"),
        ({"timestep": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other(values, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Dynamics(**values)


def held() -> Atoms:
    atoms = bulk("Ar", "fcc", 5.3, cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    return atoms


NPT = Dynamics(timestep=5.0, thermostat=Bussi(), barostat=Barostat())


@pytest.mark.parametrize(
    ("structures", "more", "error", "words"),
    [
        ([pair(), molecule("H2O")], {}, UnfitStructure, "frame 1: it states no momenta"),
        ([pair(speed=0)], {"dynamics": Dynamics(thermostat=Bussi())}, UnfitStructure, "zero"),
        ([pair()], {"dynamics": NPT}, UnfitStructure, "frame 0: constant pressure needs three"),
        ([held()], {"dynamics": NPT}, UnfitStructure, "it has fixed atoms"),
        (
            [Atoms("Ar")],
            {"dynamics": Dynamics(thermostat=Bussi()), "momenta": "drawn"},
            ValueError,
            "nothing could move with this thermostat",
        ),
        ([pair(0.1)], {}, UnfitStructure, "0.100 Å apart"),
    ],
)
def test_what_can_not_begin_is_refused(tmp_path, structures, more, error, words: str) -> None:
    with pytest.raises(error, match=words):
        start(make_job(tmp_path, structures, **more))
    assert not (tmp_path / "run").exists()


def test_the_fastest_vibration_is_found_and_told(tmp_path) -> None:
    """A pair at its minimum: ω² = φ''/μ with φ'' = 57.1 ε/σ² and μ half of a mass."""
    surface = LennardJones()
    bottom = 2 ** (1 / 6) * surface.sigma
    pairs = [pair(bottom), pair(bottom)]
    pairs[1].set_masses([40.0, 1.0])
    systems, at = join_systems(pairs)
    lists = NeighborLists(systems, surface.cutoff)
    found = fastest_periods(systems, at, surface, lists)
    stiffness = 72 / 2 ** (1 / 3) * surface.epsilon / surface.sigma**2
    masses = [39.948 / 2, 40.0 / 41.0]
    for period, mass in zip(found.tolist(), masses, strict=True):
        assert period == pytest.approx(2 * np.pi * np.sqrt(mass * DALTON / stiffness), rel=2e-3)
    told: list[str] = []
    job = make_job(tmp_path, pairs, dynamics=Dynamics(timestep=100.0), steps=0)
    start(replace(job, warn=told.append))
    assert len(told) == 1
    assert f"period of {found[1]:.1f} fs" in told[0]
    assert told[0].startswith("file, frame 1: ")
