"""A run that was killed goes on as if it had not been, to the bit."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from surefoot.lock import LOCK, InUse, hold
from surefoot.md import loop
from surefoot.md.job import Job
from surefoot.md.run import resume, start
from surefoot.md.saved import KIND, STATE
from surefoot.md.settings import Dynamics, Langevin, Simulation
from surefoot.md.trajectory import INDEX, read_trajectory
from surefoot.motion.lennard_jones import LennardJones
from surefoot.train.checkpoint import RefusedFile, read_tree, write_tree

KILLED = Path(__file__).with_name("killed.py")
MOVING = ("step", "positions", "velocities", "cell", "energy", "forces", "conserved", "temperature")


def make_job(folder: Path) -> Job:
    return runpy.run_path(str(KILLED))["make_job"](folder)


def require_equal(folder: Path, other: Path, systems: int = 2) -> None:
    for system in range(systems):
        one, two = read_trajectory(folder, system), read_trajectory(other, system)
        for name in MOVING:
            assert np.array_equal(one[name], two[name]), (system, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    start(make_job(folder))
    return folder


def test_killed_by_sigkill(tmp_path, whole) -> None:
    folder = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen([sys.executable, KILLED, folder], env=environment)
    deadline = time.monotonic() + 120
    while not (folder / "parts" / "000001.h5").exists():
        assert running.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    reached = len(read_trajectory(folder, 0)["step"])
    assert 5 <= reached < 41
    report = resume(make_job(folder))
    assert report.step == 80
    require_equal(folder, whole)


def test_killed_before_the_first_chunk(tmp_path, whole) -> None:
    """The state is there before the first step: the run goes on, or makes room for another."""
    folder = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(KILLED), str(folder), "3"]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert {path.name for path in folder.iterdir()} == {
        LOCK,
        STATE,
    }  # the lock holds nothing any more
    job = make_job(folder)
    start(replace(job, settings=job.settings.model_copy(update={"steps": 0})), over=True)
    assert resume(job).step == 80
    require_equal(folder, whole)


def test_stopped_in_the_middle_of_a_chunk(tmp_path, whole) -> None:
    """Frames that wait are written, and the state is that of the step, not of a chunk."""
    folder = tmp_path / "run"
    steps: list[None] = []

    def asked() -> bool:
        steps.append(None)
        return len(steps) > 33

    stopped = start(replace(make_job(folder), asked=asked))
    assert stopped.step == 33
    assert resume(make_job(folder)).step == 80
    require_equal(folder, whole)


def test_frames_beyond_the_state_are_forgotten(tmp_path, whole) -> None:
    """As after a kill between the frames and the state."""
    folder = tmp_path / "run"
    job = make_job(folder)
    start(replace(job, settings=job.settings.model_copy(update={"steps": 20})))
    before = (folder / STATE).read_bytes()
    resume(replace(job, settings=job.settings.model_copy(update={"steps": 50})))
    (folder / STATE).write_bytes(before)
    (folder / "parts" / ".000009.h5.torn").write_bytes(b"half of a chunk")
    assert resume(job).step == 80
    require_equal(folder, whole)


def test_extended_xyz_is_cut_to_what_counts(tmp_path) -> None:
    settings = Simulation(
        dynamics=Dynamics(timestep=5.0, thermostat=Langevin(time=50)),
        steps=12,
        every=2,
        chunk=2,
        format="xyz",
    )
    job = replace(make_job(tmp_path / "whole"), settings=settings)
    start(job)
    torn = replace(job, folder=tmp_path / "torn")
    start(replace(torn, settings=settings.model_copy(update={"steps": 5})))
    with (tmp_path / "torn" / "system-0001.xyz").open("ab") as file:
        file.write(b"4\nLattice=")
    resume(torn)
    for name in ("system-0000.xyz", "system-0001.xyz"):
        one, two = (ase.io.read(tmp_path / f / name, ":") for f in ("whole", "torn"))
        assert isinstance(one, list)
        assert isinstance(two, list)
        assert [a.info["step"] for a in one] == [0, 2, 4, 6, 8, 10, 12]
        assert all(np.array_equal(a.positions, b.positions) for a, b in zip(one, two, strict=True))
        assert one[3].has("momenta")
    # Further frames would be put after one that is not what was calculated.
    file = tmp_path / "torn" / "system-0001.xyz"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"step=4", b"step=7"))
    with pytest.raises(RefusedFile, match=r"system-0001\.xyz: it is not as the run has written it"):
        resume(torn)
    file.write_bytes(content)
    assert resume(torn).step == 12


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda part: part.write_bytes(part.read_bytes()[:-100]), r"000001\.h5: .* is damaged"),
        (lambda part: part.unlink(), r"000001\.h5: .* is missing"),
        (
            lambda part: part.write_bytes((part.parent / "000002.h5").read_bytes()),
            "one of the first 9 parts of the trajectory is not as this run has written it",
        ),
    ],
)
def test_a_damaged_part_is_refused(tmp_path, whole, damage, words: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    job = make_job(folder)
    longer = replace(job, settings=job.settings.model_copy(update={"steps": 81}))
    damage(folder / "parts" / "000001.h5")
    with pytest.raises(RefusedFile, match=words):
        resume(longer)


def test_a_damaged_trajectory_is_told(tmp_path, whole) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for path in (folder / INDEX, folder / "parts" / "000001.h5"):
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], b"", bytes(len(content))):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=rf"{path.name}: it can not be read"):
                read_trajectory(folder, 0)
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=rf"{path.name}: .* does not match its sum"):
            read_trajectory(folder, 0)
        path.write_bytes(content)
    assert len(read_trajectory(folder, 0)["step"]) == 41


def test_a_folder_belongs_to_one_run(tmp_path, whole) -> None:
    """Neither a second one nor `--force` nor a restart comes in between."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    with hold(folder / LOCK, "held by the test"):
        for begin in (resume, partial(start, over=True)):
            with pytest.raises(InUse, match="another process runs dynamics in this folder"):
                begin(make_job(folder))
    assert (folder / STATE).is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda job: replace(job, temperatures=[30.0, 61.0]), "structures was"),
        (lambda job: replace(job, potential="another"), "potential was  and is now another"),
        (
            lambda job: replace(job, settings=job.settings.model_copy(update={"seed": 5})),
            "settings.seed was 4 and is now 5",
        ),
    ],
)
def test_another_run_is_refused(tmp_path, change, words: str) -> None:
    job = make_job(tmp_path / "run")
    job = replace(job, settings=job.settings.model_copy(update={"steps": 2}))
    start(job)
    with pytest.raises(RefusedFile, match=words):
        resume(change(job))


@pytest.mark.parametrize("gone", ["bias", "settings.uncertainty_every"])
def test_a_state_of_an_older_version_is_refused(tmp_path, gone: str, monkeypatch) -> None:
    """It names no setting that did not exist, which nobody could set back."""
    job = make_job(tmp_path / "run")
    short = replace(job, settings=job.settings.model_copy(update={"steps": 4}))
    *room, name = gone.split(".")
    old = short.identity
    del (old[room[0]] if room else old)[name]
    whole = loop.save
    monkeypatch.setattr(loop, "save", lambda folder, saved, _: whole(folder, saved, old))
    start(short)
    with pytest.raises(RefusedFile, match="another version of surefoot has written it"):
        resume(short)


def test_a_state_that_lacks_what_is_carried_on_now_is_refused(tmp_path) -> None:
    job = make_job(tmp_path / "run")
    job = replace(job, settings=job.settings.model_copy(update={"steps": 2}))
    start(job)
    tree, header = read_tree(job.folder / STATE, KIND)
    del tree["state.swelled"]
    header = {name: value for name, value in header.items() if name not in ("format", "kind")}
    write_tree(job.folder / STATE, KIND, tree, header)
    with pytest.raises(RefusedFile, match="another version of surefoot has written it"):
        resume(job)


def change_structures(job: Job, change) -> Job:
    structures = [atoms.copy() for atoms in job.structures]
    for atoms in structures:
        change(atoms)
    return replace(job, structures=structures)


@pytest.mark.parametrize(
    "change",
    [
        lambda atoms: atoms.set_constraint(FixAtoms([0])),
        lambda atoms: atoms.set_pbc((True, True, False)),
        lambda atoms: atoms.info.update(charge=1),
        lambda atoms: atoms.info.update(spin=3),
    ],
)
def test_other_structures_are_another_run(tmp_path, change) -> None:
    """Also where they differ in nothing but what is held, periodic or charged."""
    job = make_job(tmp_path / "run")
    settings = job.settings.model_copy(
        update={"steps": 2, "dynamics": Dynamics(timestep=5.0, thermostat=Langevin(time=50))}
    )
    job = replace(job, settings=settings)
    start(job)
    with pytest.raises(RefusedFile, match="structures was"):
        resume(change_structures(job, change))


@pytest.mark.parametrize(("kind", "name"), [("h5", "parts/000001.h5"), ("xyz", "system-0001.xyz")])
def test_a_trajectory_that_was_taken_away_is_missed(tmp_path, kind: str, name: str) -> None:
    """Not a run whose first frames are zeros, or are not there."""
    job = make_job(tmp_path / "run")
    bath = Dynamics(timestep=5.0, thermostat=Langevin(time=50))
    update = {"format": kind, "dynamics": bath, "steps": 30}
    job = replace(job, settings=job.settings.model_copy(update=update))
    start(job)
    (job.folder / name).unlink()
    with pytest.raises(RefusedFile, match=name):
        resume(job)


def test_nothing_to_go_on_from(tmp_path) -> None:
    with pytest.raises(RefusedFile, match=r"there is no state\.safetensors to go on from"):
        resume(make_job(tmp_path / "run"))


def test_what_had_left_stays_away(tmp_path) -> None:
    """A system that broke before the kill is not in the run that goes on."""
    apart = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8]])
    apart.set_momenta([[0, 0, -40], [0, 0, 40]])
    stays = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8]])
    stays.set_momenta([[0, 0, -1], [0, 0, 1]])
    settings = Simulation(
        dynamics=Dynamics(timestep=5.0), steps=200, every=5, chunk=4, momenta="given", hottest=1e9
    )
    job = Job(
        structures=[apart, stays],
        temperatures=[10.0, 10.0],
        surface=LennardJones(),
        settings=settings,
        folder=tmp_path / "whole",
        places=["apart", "stays"],
    )
    report = start(job)
    assert "atom 0 has left" in report.endings[0].reason
    torn = replace(job, folder=tmp_path / "torn")
    halves = settings.model_copy(update={"steps": report.endings[0].step + 20})
    start(replace(torn, settings=halves))
    again = resume(torn)
    assert again.endings[0].step == report.endings[0].step
    require_equal(tmp_path / "whole", tmp_path / "torn")
    assert len(read_trajectory(torn.folder, 0)["step"]) < len(
        read_trajectory(torn.folder, 1)["step"]
    )


def test_a_run_that_all_have_left_has_no_pace(tmp_path) -> None:
    apart = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8]])
    apart.set_momenta([[0, 0, -40], [0, 0, 40]])
    settings = Simulation(
        dynamics=Dynamics(timestep=5.0), steps=200, momenta="given", hottest=1e9, every=5
    )
    job = Job(
        structures=[apart],
        temperatures=[10.0],
        surface=LennardJones(),
        settings=settings,
        folder=tmp_path / "run",
        places=["apart"],
    )
    assert start(job).endings[0].status == "broken"
    assert resume(job).pace == 0.0
