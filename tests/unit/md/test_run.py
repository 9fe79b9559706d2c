"""What ends a run, and what is refused before it begins."""

import errno
import os
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
from surefoot.md import loop, trajectory
from surefoot.md.job import Job
from surefoot.md.run import RunExists, resume, start
from surefoot.md.settings import Barostat, Bussi, Dynamics, Langevin, Simulation
from surefoot.md.timestep import fastest_periods
from surefoot.md.trajectory import read_trajectory
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


@dataclass(frozen=True)
class Hole(LennardJones):
    """Pulls the atoms of pairs that are longer than 4 Å onto each other in one step."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        first, last = graph.graph_offsets[:-1], graph.graph_offsets[1:] - 1
        apart = graph.positions[last] - graph.positions[first]
        pull = torch.zeros_like(found.forces)
        # From rest a force moves an atom by F Δt² / 2m in the next step: both meet in the middle.
        pull[first] = apart * 39.948 * DALTON / 5.0**2
        pull[last] = -pull[first]
        long = (apart.norm(dim=-1) > 4.0)[graph.graph_index, None]
        return replace(found, forces=torch.where(long, pull, 0.0))


def test_a_collapsed_system_leaves_and_the_others_go_on(tmp_path) -> None:
    """Two atoms at one place have no list of neighbours, and that is no reason to end them all."""
    job = make_job(tmp_path, [pair(3.8, 0.0), pair(4.5, 0.0)], Hole(), skin=0.1, lost="allow")
    report = start(job)
    assert report.step == 40
    assert list(report.endings) == [1]
    assert "frame 1, step 1: two atoms are at one place" in report.endings[1].reason
    assert report.endings[1].step == 1
    assert len(read_trajectory(tmp_path / "run", 0)["step"]) == 5


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


def test_a_motion_of_the_whole_is_taken_out_and_told(tmp_path) -> None:
    """Bussi would scale it, and temperatures do not count it; Langevin may keep it."""
    drifting = pair(speed=1.0)
    drifting.set_momenta(drifting.get_momenta() + np.array([5.0, 0.0, 0.0]))
    told: list[str] = []
    job = make_job(tmp_path, [drifting, pair()], steps=10, every=1)
    start(replace(job, warn=told.append))
    assert len(told) == 1
    assert told[0].startswith("file, frame 0: its centre of mass moved with a kinetic energy of")
    one, other = (read_trajectory(tmp_path / "run", n) for n in (0, 1))
    assert np.allclose(one["temperature"], other["temperature"], rtol=1e-10)
    assert np.allclose(one["positions"], other["positions"], atol=1e-10)
    bath = Dynamics(timestep=5.0, thermostat=Langevin(time=1e9))
    start(make_job(tmp_path / "b", [drifting], dynamics=bath, steps=1, every=1))
    kept = read_trajectory(tmp_path / "b" / "run", 0)["velocities"][0]
    assert float(kept[:, 0].min()) > 0


def test_langevin_warms_up_what_is_at_rest(tmp_path) -> None:
    bath = Dynamics(timestep=5.0, thermostat=Langevin(time=50))
    start(make_job(tmp_path, [pair(speed=0.0)], dynamics=bath))
    assert read_trajectory(tmp_path / "run", 0)["temperature"][-1] > 0
    flying = pair(speed=0.0)
    flying.set_momenta(np.full((2, 3), 0.37))
    bussi = Dynamics(timestep=5.0, thermostat=Bussi())
    with pytest.raises(UnfitStructure, match="zero beside that of the whole"):
        start(make_job(tmp_path / "b", [flying], dynamics=bussi))


def test_progress_is_not_worked_out_at_every_step(tmp_path) -> None:
    """What a bar shows costs as much as some steps; the last step is always shown."""
    steps: list[int] = []
    job = make_job(tmp_path, [pair(speed=0.1)], steps=60, every=1)
    start(replace(job, progress=lambda at: steps.append(at.step)))
    assert steps[-1] == 60
    assert len(steps) < 30


def test_progress_is_told_where_a_run_is_interrupted(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "SHOWN", 1e9)
    steps: list[int] = []
    job = make_job(tmp_path, [pair(speed=0.1)], steps=60)
    start(replace(job, progress=lambda at: steps.append(at.step), asked=lambda: len(steps) > 0))
    steps.clear()
    left = iter([False] * 7 + [True])
    resume(replace(job, progress=lambda at: steps.append(at.step), asked=lambda: next(left)))
    assert len(set(steps)) == 2
    assert steps[-1] == max(steps)


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


def test_a_full_disk_is_told_where_a_system_breaks(tmp_path, monkeypatch) -> None:
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop, "write_frame", full)
    with pytest.raises(ValueError, match="the disk is full at step"):
        start(make_job(tmp_path, [pair(speed=15)], Wrong()))


def test_a_full_disk_leaves_no_half_frame(tmp_path, monkeypatch) -> None:
    """Of extended XYZ, to which chunks are appended: the file of the first system is cut back."""
    whole, written = os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) == 12:  # the second of two systems; each state is two, file and folder
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(handle)

    job = make_job(tmp_path, [pair(), pair(4.0)], format="xyz", every=1, chunk=5)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="the disk is full"):
        start(job)
    monkeypatch.setattr(os, "fsync", whole)
    lengths = [len(ase.io.read(tmp_path / "run" / f"system-000{n}.xyz", ":")) for n in (0, 1)]
    assert lengths[0] == lengths[1] > 0
    assert resume(job).step == 40
    images = ase.io.read(tmp_path / "run" / "system-0001.xyz", ":")
    assert [atoms.info["step"] for atoms in images] == list(range(41))  # type: ignore[union-attr]


def test_the_index_is_not_written_for_every_chunk(tmp_path, monkeypatch) -> None:
    """It holds all parts, so that would cost the square of their number."""
    written: list[int] = []
    whole = trajectory.HdfWriter._write_index

    def counted(writer: trajectory.HdfWriter) -> None:
        written.append(len(writer.shapes))
        whole(writer)

    monkeypatch.setattr(trajectory.HdfWriter, "_write_index", counted)
    start(make_job(tmp_path, [pair(speed=0.1)], steps=99, every=1, chunk=1))
    assert written[-1] == 100
    assert sum(written) < 12 * 100  # 8 + 1 times at most, but for the first few
    assert read_trajectory(tmp_path / "run", 0)["step"].tolist() == list(range(100))


@dataclass(frozen=True)
class Tensionless(LennardJones):
    """No stress, whoever asks."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        del stress
        return super().__call__(graph, stress=False, uncertainty=uncertainty)


def test_a_barostat_needs_a_stress(tmp_path) -> None:
    crystal = bulk("Ar", "fcc", 5.3, cubic=True)
    job = make_job(tmp_path, [crystal], Tensionless(), dynamics=NPT, momenta="drawn")
    with pytest.raises(ValueError, match="this surface gives no stress"):
        start(job)


def test_seeds_are_of_64_bits(tmp_path) -> None:
    with pytest.raises(ValidationError, match="less than 18446744073709551616"):
        Simulation(seed=2**64)
    assert start(make_job(tmp_path, [pair()], steps=1, momenta="drawn", seed=2**64 - 1)).step == 1


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
