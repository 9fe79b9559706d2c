"""`surefoot relax` and `surefoot md`: files in, files out, and what is refused."""

import subprocess
import sys
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms

from surefoot.md.trajectory import read_trajectory


@pytest.fixture(scope="module")
def few(folder: Path) -> Path:
    """Two of the test structures, with labels that no longer hold when they move."""
    path = folder / "few.xyz"
    ase.io.write(path, ase.io.read(folder / "test.xyz", ":2"))
    return path


def test_relax_writes_where_structures_end(surefoot, potential, few, tmp_path) -> None:
    output = tmp_path / "relaxed.xyz"
    done = surefoot("relax", potential, few, "-o", output, "--fmax", 1e-3, "--steps", 5)
    images = ase.io.read(output, ":")
    assert isinstance(images, list)
    assert len(images) == 2
    for before, after in zip(ase.io.read(few, ":"), images, strict=True):
        assert after.info["relax_status"] in ("converged", "exhausted")
        assert after.info["relax_energy_change"] < 0
        assert after.info["predicted_by"].startswith("surefoot ")
        assert after.arrays["forces_uncertainty_norm"].shape == (4,)
        assert not np.allclose(before.positions, after.positions)
    assert "structure" in done.stdout
    assert "2 structures" in done.stdout
    assert "relaxing 2/2" in done.stderr


def test_relax_stops_where_the_potential_is_unsure(surefoot, potential, few, tmp_path) -> None:
    output, kept = tmp_path / "relaxed.xyz", tmp_path / "unsure.xyz"
    guard = ("--guard-uncertainty", 1e-6, "--record", kept)
    done = surefoot("relax", potential, few, "-o", output, *guard)
    assert "2 stopped by the guard" in done.stdout
    assert "step 0: the potential is unsure" in done.stderr
    frames = ase.io.read(kept, ":")
    assert len(frames) == 2
    assert frames[0].info["guard_score"] > 1
    told = surefoot("relax", potential, few, "-o", output, *guard, "--force").stdout
    assert "2 frames that are worth labelling" in told


def test_an_interrupted_relaxation_goes_on(surefoot, potential, few, tmp_path) -> None:
    """As after a kill when the first structure had left: its line is kept, torn ones are not."""
    whole, output = tmp_path / "whole.xyz", tmp_path / "relaxed.xyz"
    options = ("--steps", 3, "--together", 1, "--trajectory", tmp_path / "path.xyz")
    surefoot("relax", potential, few, "-o", whole, *options, "--fmax", 1e-6)
    path = ase.io.read(tmp_path / "path.xyz", ":")
    assert [a.info["relax_structure"] for a in path] == [0] * 4 + [1] * 4
    assert [a.info["relax_step"] for a in path] == [0, 1, 2, 3] * 2
    assert "forces_uncertainty_norm" in path[0].arrays
    (tmp_path / "path.xyz").unlink()
    # The second structure is not there to be written: the disk is full at its first line.
    patched = (
        "import errno, surefoot.relax.journal as j; add = j.Journal.add\n"
        "def full(self, kind, number, text):\n"
        "    if number == 1 and kind == 'result':\n"
        "        self.path.open('a').write('{\"kind\": \"res')\n"
        "        raise OSError(errno.ENOSPC, 'No space left on device', str(self.path))\n"
        "    add(self, kind, number, text)\n"
        "j.Journal.add = full\n"
        "from surefoot.cli.main import main; main()"
    )
    order = ("relax", potential, few, "-o", output, *options, "--fmax", 1e-6)
    command = [sys.executable, "-c", patched, *map(str, order)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "No space left" in done.stderr
    assert "1 of 2 structures are done; the same command with --resume" in done.stderr
    assert not output.exists()
    again = surefoot(*order, check=False)
    assert "an interrupted relaxation has left this" in again.stderr
    other = surefoot(*order, "--steps", 4, "--resume", check=False)
    assert "settings.steps was 3 and is now 4" in other.stderr
    surefoot(*order, "--resume")
    assert output.read_text() == whole.read_text()
    assert len(ase.io.read(tmp_path / "path.xyz", ":")) == 8
    assert not list(tmp_path.glob("*.journal"))
    refused = surefoot(*order, check=False)
    assert "nothing is written over without --force" in refused.stderr
    assert "there is nothing to go on from" in surefoot(*order, "--resume", check=False).stderr


def test_md_runs_and_goes_on(surefoot, potential, few, tmp_path) -> None:
    run = tmp_path / "run"
    first = ("md", potential, few, "-o", run, "-T", 100, "-T", 200, "--every", 2, "--chunk", 3)
    done = surefoot(*first, "--steps", 6)
    assert "4 systems to step 6 (0.003 ps)" in done.stdout
    assert "ns/day" in done.stdout
    refused = surefoot(*first, "--steps", 6, check=False)
    assert refused.returncode == 1
    assert "nothing is written over another run" in refused.stderr
    surefoot(*first, "--steps", 10, "--resume")
    frames = read_trajectory(run, 3)
    assert frames["step"].tolist() == [0, 2, 4, 6, 8, 10]
    assert frames["target_temperature"] == 200.0
    assert frames["forces_uncertainty_norm"].shape == (6, 4)
    assert (frames["energy_uncertainty"] > 0).all()
    whole = tmp_path / "whole"
    surefoot(*("md", potential, few, "-o", whole, *first[5:]), "--steps", 10)
    for name, value in read_trajectory(whole, 3).items():
        assert np.array_equal(value, frames[name]), name  # to the bit, with a potential too
    changed = surefoot(*first, "--steps", 12, "--resume", "--seed", 1, check=False)
    assert changed.returncode == 1
    assert "settings.seed was 0 and is now 1" in changed.stderr
    surefoot(*first, "--steps", 2, "--force")
    assert read_trajectory(run, 0)["step"].tolist() == [0, 2]


def test_md_writes_extended_xyz(surefoot, potential, few, tmp_path) -> None:
    run = tmp_path / "run"
    surefoot("md", potential, few, "-o", run, "--steps", 4, "--every", 2, "--trajectory", "xyz",
             "--drive", "first", "--ensemble", "nve")  # fmt: skip
    images = ase.io.read(run / "system-0001.xyz", ":")
    assert isinstance(images, list)
    assert [atoms.info["step"] for atoms in images] == [0, 2, 4]
    assert images[2].arrays["forces_uncertainty_norm"].shape == (4,)
    # What a potential says is no label: reading the file again finds none.
    labelled = surefoot("check", run / "system-0001.xyz", check=False)
    assert "energy 0/3" in labelled.stdout


def test_a_broken_system_is_told_and_the_exit_status_says_so(
    surefoot, potential, few, tmp_path
) -> None:
    run = tmp_path / "run"
    done = surefoot(
        "md", potential, few, "-o", run, "--steps", 5, "--hottest", 1, "-T", 300, check=False
    )
    assert done.returncode == 1
    assert "above the 1 K that end a run" in done.stderr
    assert "2 broken" in done.stdout
    assert (run / "last-good-0001.xyz").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ensemble", "nvt"], "--ensemble nvt: not known; there is nve"),
        (["--ensemble", "nve", "--time-constant", "50"], "nve has nothing that it could set"),
        (["--pressure", "1"], "langevin has nothing that it could set"),
        (["--ensemble", "npt"], "constant pressure needs three periodic axes"),
        (["--time-constant", "1"], "less than five steps"),
        (["--resume", "--force"], "choose one"),
        (["--resume"], "there is no state.safetensors to go on from"),
        (["--drive", "second"], "--drive second: not known"),
        (["-T", "-5"], "it must be 0 K or more"),
        (["-T", "0"], "it is to be held at 0.0 K"),
        (["--momenta", "given"], "it states no momenta"),
        (["--guard-action", "warn"], "a guard needs a limit"),
        (["--guard-uncertainty", "1", "--guard-action", "panic"], "--action panic"),
        (["--guard-uncertainty", "1", "--guard-upper", "0.5"], "it must exceed 1"),
        (["--guard-near-ood", "1", "--drive", "first"], "a guard needs a limit"),
        (["--guard-every", "5"], "a guard needs a limit"),
        (["--guard-consecutive", "2"], "a guard needs a limit"),
        (
            ["--guard-uncertainty", "1", "--guard-near-ood", "1"],
            "with --drive mean all members are asked at every step anyway",
        ),
        (["--uncertainty-every", "5"], "with --drive mean all members are asked"),
        (["--bias", "temperature"], "there is energy and ood"),
        (["--bias", "energy"], "it has no depth and width by itself"),
        (["--bias-depth", "1"], "belong to a bias"),
        (
            ["--bias", "energy", "--bias-depth", "1", "--bias-width", "1", "--drive", "first"],
            "drive by the mean",
        ),
        (["--bias", "energy", "--bias-depth", "-1", "--bias-width", "1"], "greater than 0"),
        (["-T", "inf"], "and finite"),
        (["--timestep", "-1"], "greater than 0"),
    ],
)
def test_md_refuses_in_one_sentence(
    surefoot, potential, few, tmp_path, options: list[str], words: str
) -> None:
    done = surefoot("md", potential, few, "-o", tmp_path / "run", *options, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def broken_structures() -> dict[str, Atoms]:
    """What no dynamics begins with, by the words that say so."""
    copper = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]])
    strange, heavy, flat, close = (copper.copy() for _ in range(4))
    strange.numbers[0] = 7
    heavy.set_masses([63.5, 0.0])
    flat.set_cell([[5, 0, 0], [5, 0, 0], [0, 0, 5]])
    flat.pbc = True
    close.positions[1, 2] = 0.1
    return {
        "element N ": strange,
        "atom 1 (Cu) has the mass 0.0": heavy,
        "so there is no room for 2 atoms": flat,
        "atoms 0 and 1 are 0.100 Å apart": close,
    }


@pytest.mark.parametrize("words", broken_structures())
@pytest.mark.parametrize("verb", ["md", "relax"])
def test_what_can_not_move_is_refused(surefoot, potential, tmp_path, verb, words: str) -> None:
    file, output = tmp_path / "bad.xyz", tmp_path / "out.xyz"
    ase.io.write(file, broken_structures()[words], format="extxyz")
    if verb == "md":
        output = tmp_path / "run"
    done = surefoot(verb, potential, file, "-o", output, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "frame 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_a_timestep_that_is_too_long_is_told_with_its_number(
    surefoot, potential, few, tmp_path
) -> None:
    options = ("--steps", 0, "--timestep", 400, "--time-constant", 1e4)
    done = surefoot("md", potential, few, "-o", tmp_path / "run", *options)
    assert "the fastest vibration has a period of" in done.stderr
    assert "a timestep of 400.0 fs is" in done.stderr


def test_a_bias_is_never_silent(surefoot, potential, few, tmp_path) -> None:
    """The trajectory says what pulled, and a restart without it is another run."""
    run = ("md", potential, few, "-o", tmp_path / "run", "--every", 1, "--ensemble", "nve")
    bias = ("--bias", "energy", "--bias-depth", 20, "--bias-width", 1.0)
    done = surefoot(*run, *bias, "--steps", 8)
    assert "pulled by a bias on energy: no sample of the ensemble" in done.stdout
    with h5py.File(tmp_path / "run" / "trajectory.h5") as file:
        assert '"of":"energy"' in str(file.attrs["bias"])
    frames = read_trajectory(tmp_path / "run", 0)
    assert (frames["bias_energy"] < 0).all()
    assert np.abs(frames["bias_forces"]).max() > 0
    # With the bias the energy is conserved; without it there would be a hole in it.
    whole = frames["energy"] + frames["bias_energy"] + frames["kinetic_energy"]
    assert np.allclose(whole, frames["conserved"])
    assert np.ptp(frames["conserved"]) < 0.05 * np.ptp(frames["energy"])
    assert "lets go" not in done.stderr
    refused = surefoot(*run, "--steps", 9, "--resume", check=False)
    assert refused.returncode == 1
    assert "bias" in refused.stderr
    narrow = (*bias[:-1], 1e-3)
    xyz = ("md", potential, few, "-o", tmp_path / "xyz", *narrow, "--trajectory", "xyz")
    done = surefoot(*xyz, "--steps", 1, "--every", 1)
    assert "its width of 0.001 is far below the uncertainty" in done.stderr
    image = ase.io.read(tmp_path / "xyz" / "system-0000.xyz", "-1")
    assert isinstance(image, Atoms)
    assert '"of":"energy"' in image.info["bias"]
    assert image.info["bias_energy"] < 0


def test_relax_has_a_place_for_what_it_records(surefoot, potential, few, tmp_path) -> None:
    output = tmp_path / "out.xyz"
    guard = ("--guard-uncertainty", 1)
    for options, words in (
        ((*guard, "--guard-action", "record"), "set --record FILE"),
        (("--record", tmp_path / "kept.xyz"), "nothing would be written to it"),
        ((*guard, "--guard-action", "warn", "--record", tmp_path / "kept.xyz"), "nothing would"),
        ((*guard, "--record", output), "this is the output too"),
    ):
        done = surefoot("relax", potential, few, "-o", output, *options, check=False)
        assert done.returncode == 1
        assert words in done.stderr
        assert not output.exists()


def test_relax_refuses_in_one_sentence(surefoot, potential, few, tmp_path) -> None:
    strange = tmp_path / "strange.xyz"
    ase.io.write(strange, Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.1]]))
    output = tmp_path / "out.xyz"
    for file, options, words in (
        (strange, [], "element N "),
        (few, ["--cell", "free"], "its cell can not be relaxed"),
        (few, ["--optimizer", "bfgs"], "bfgs"),
        (few, ["--fmax", "-1"], "greater than 0"),
        (few, ["--pressure", "1"], "fixed cells feel nothing of it"),
        (few, ["--stress", "1"], "fixed cells feel nothing of it"),
        (few, ["--guard-consecutive", "2"], "a guard needs a limit"),
    ):
        done = surefoot("relax", potential, file, "-o", output, *options, check=False)
        assert done.returncode == 1
        assert words in done.stderr
    assert not output.exists()


def test_force_keeps_a_run_that_nothing_could_replace(surefoot, potential, few, tmp_path) -> None:
    run = tmp_path / "run"
    surefoot("md", potential, few, "-o", run, "--steps", 2)
    done = surefoot("md", potential, few, "-o", run, "--force", "--ensemble", "npt", check=False)
    assert done.returncode == 1
    assert "constant pressure needs three periodic axes" in done.stderr
    unfit = ("--drive", "first", "--guard-uncertainty", 1, "--guard-near-energy", 1)
    done = surefoot("md", potential, few, "-o", run, "--force", *unfit, check=False)
    assert done.returncode == 1
    assert "this potential has none that needs no draws" in done.stderr
    assert read_trajectory(run, 0)["step"].tolist() == [0]


def test_force_removes_what_was_killed_before_its_first_state(
    surefoot, potential, few, tmp_path
) -> None:
    run = tmp_path / "run"
    surefoot("md", potential, few, "-o", run, "--steps", 2)
    (run / "state.safetensors").rename(run / ".state.safetensors.x1y2")
    refused = surefoot("md", potential, few, "-o", run, "--resume", check=False)
    assert "there is no state.safetensors to go on from" in refused.stderr
    surefoot("md", potential, few, "-o", run, "--steps", 2, "--force")
    assert read_trajectory(run, 0)["step"].tolist() == [0]


def test_force_removes_nothing_but_runs(surefoot, potential, few, tmp_path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("all of it")
    done = surefoot("md", potential, few, "-o", precious, "--force", check=False)
    assert done.returncode == 1
    assert "thesis.txt is no part of one" in done.stderr
    assert (precious / "thesis.txt").exists()
