"""What beginning over an old run removes, and when: only what a run writes, and never in vain."""

from dataclasses import replace
from pathlib import Path

import pytest
from ase import Atoms

from surefoot.md.folder import find_strangers, remove_run
from surefoot.md.job import Job
from surefoot.md.run import RunExists, start
from surefoot.md.settings import Dynamics, Simulation
from surefoot.md.trajectory import read_trajectory
from surefoot.motion.guard import Guard, NoUncertainty, Watch
from surefoot.motion.lennard_jones import LennardJones


def make_job(folder: Path, **more) -> Job:
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8]])
    return Job(
        structures=[atoms],
        temperatures=[20.0],
        surface=LennardJones(),
        settings=Simulation(dynamics=Dynamics(timestep=1.0), steps=4, every=2, chunk=1, **more),
        folder=folder,
        places=["a pair"],
    )


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    return folder


@pytest.mark.parametrize(
    ("names", "strangers"),
    [
        (["parts/thesis.txt"], ["parts"]),
        (["system-0001.xyz"], ["system-0001.xyz"]),
        (["parts/000000.h5"], ["parts"]),
        (["state.safetensors", "guard/my-labels.xyz"], ["guard/my-labels.xyz"]),
        (["state.safetensors", "parts/old/000000.h5"], ["parts/old", "parts/old/000000.h5"]),
        (["trajectory.h5", "notes.md"], ["notes.md"]),
        (["state.safetensors/thesis.txt"], ["state.safetensors"]),
        (["trajectory.h5", "parts/000000.h5", "parts/.000001.h5.a_1"], []),
        ([".state.safetensors.x1y2", "system-0000.xyz", "last-good-0000.xyz"], []),
        (["state.safetensors", "guard/system-0000-step-000000010.xyz"], []),
    ],
)
def test_a_run_is_known_by_what_it_writes(tmp_path, names, strangers) -> None:
    assert find_strangers(fill(tmp_path / "run", names)) == strangers


@pytest.mark.parametrize("kind", ["h5", "xyz"])
def test_only_a_run_is_removed(tmp_path, kind: str) -> None:
    job = make_job(tmp_path / "run", format=kind)
    start(job)
    assert find_strangers(job.folder) == []
    start(job, over=True)
    mine = fill(job.folder, ["guard/my-labels.xyz"]) / "guard" / "my-labels.xyz"
    with pytest.raises(RunExists, match=r"guard/my-labels\.xyz is no part of one"):
        start(job, over=True)
    assert mine.exists()
    assert (job.folder / "state.safetensors").exists()
    remove_run(job.folder)
    assert [path.name for path in job.folder.rglob("*")] == ["guard", "my-labels.xyz"]


def test_a_folder_elsewhere_is_not_followed(tmp_path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", ["000000.h5"])
    run = fill(tmp_path / "run", ["state.safetensors"])
    (run / "parts").symlink_to(elsewhere)
    assert find_strangers(run) == ["parts"]


def test_what_can_not_begin_removes_nothing_and_leaves_nothing(tmp_path) -> None:
    job = make_job(tmp_path / "run")
    start(job)
    unfit = replace(job, watch=Watch(guard=Guard(ood=1.0)))
    with pytest.raises(NoUncertainty):
        start(unfit, over=True)
    assert read_trajectory(job.folder, 0)["step"].tolist() == [0, 2, 4]
    with pytest.raises(NoUncertainty):
        start(replace(unfit, folder=tmp_path / "new"))
    assert not (tmp_path / "new").exists()
