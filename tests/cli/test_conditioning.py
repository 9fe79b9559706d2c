"""Two states of one composition: refused without conditioning, one potential with it."""

from pathlib import Path

import ase.io
import pytest
from ase import Atoms

from surefoot.posteriors.predictor import load_predictor

TOLD = ("--set", "conditioning.name=charge_spin")


def charged(folder: Path, path: Path, *charges: int) -> Path:
    """The clusters of train.xyz in turns with these charges, lower by 3 eV per charge."""
    images: list[Atoms] = ase.io.read(folder / "train.xyz", ":")
    for number, atoms in enumerate(images):
        charge = charges[number % len(charges)]
        atoms.info["charge"] = charge
        atoms.calc.results["energy"] -= 3.0 * charge
    ase.io.write(path, images)
    return path


def test_one_potential_of_two_states(surefoot, folder: Path, tmp_path: Path) -> None:
    file = charged(folder, tmp_path / "t.xyz", 0, 2)
    train = ("train", folder / "config.yaml", "-o", tmp_path / "o", "--set", f"data.train=[{file}]")
    refused = surefoot(*train, check=False)
    assert refused.returncode == 1
    assert "error [two-states]" in refused.stdout
    assert "set `conditioning: {name: charge_spin}` in the config" in refused.stdout
    assert not (tmp_path / "o").exists()

    told = surefoot(*train, *TOLD).stdout
    assert "told apart: charge 0 and spin not stated, charge 2 and spin not stated" in told
    assert "two-states" not in told
    potential = tmp_path / "o" / "potential.safetensors"
    states = load_predictor(potential).potential.states
    assert states is not None
    assert states.pairs == ((0, 0), (2, 0))
    # Both are predicted from a file, which says the state of each frame.
    assert surefoot("evaluate", potential, file).returncode == 0
    surefoot("predict", potential, file, "-o", tmp_path / "p.xyz")
    written = ase.io.read(tmp_path / "p.xyz", ":")
    assert {atoms.info["charge"] for atoms in written} == {0, 2}

    other = charged(folder, tmp_path / "other.xyz", 0, 0, 1)
    for verb in (("evaluate", potential, other), ("predict", potential, other, "-o", "p.xyz")):
        done = surefoot(*verb, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "other.xyz, frame 2: charge 1 and a spin that is not stated" in done.stderr
        assert "charge 0 and spin not stated, charge 2 and spin not stated" in done.stderr


@pytest.mark.data
@pytest.mark.parametrize("name", ["ag3", "carbene"])
def test_databases_of_two_states_are_refused(
    surefoot, folder: Path, data_folder: Path, tmp_path: Path, name: str
) -> None:
    file = data_folder / "charge_spin" / f"ase_{name}_2200.db"
    train = ("train", folder / "config.yaml", "-o", tmp_path / "o", "--set", f"data.train=[{file}]")
    done = surefoot(*train, check=False)
    assert done.returncode == 1
    assert "read as unpaired electrons: 0 occurs" in done.stdout
    assert "error [two-states]" in done.stdout
    assert "conditioning: {name: charge_spin}" in done.stdout


def test_the_meaning_of_a_spin_is_an_option(surefoot, folder: Path, tmp_path: Path) -> None:
    """Cu4 has an even number of electrons: 2 is no multiplicity, but two electrons unpaired."""
    images = [
        atoms for atoms in ase.io.read(folder / "train.xyz", ":") if set(atoms.numbers) == {29}
    ]
    for atoms in images:
        atoms.info["spin"] = 2
    file = tmp_path / "t.xyz"
    ase.io.write(file, images)
    done = surefoot("check", file, check=False)
    assert done.returncode == 1
    assert "--spin-unit unpaired" in done.stdout
    told = surefoot("check", file, "--spin-unit", "unpaired").stdout
    assert "spin 14/14 (spin, read as unpaired electrons: as set)" in told
    wrong = surefoot("check", file, "--spin-unit", "2S", check=False)
    assert wrong.returncode == 1
    assert "--spin-unit 2S: not known; there is auto, multiplicity, unpaired" in wrong.stderr
