"""`surefoot hat candidates`."""

import csv
import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from surefoot.hat.compounds import peptide
from surefoot.hat.peptides import embed


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Ace-Ala-NMe as extended XYZ with names, two frames."""
    made = peptide("chain", ("ALA",), "ACE", "NME")
    atoms = embed(made.smiles, 1, 0)[0]
    names, residues, numbers = [], [], []
    heavy = atoms.positions[atoms.numbers > 1]
    for index, position in enumerate(atoms.positions):
        nearest = int(np.linalg.norm(heavy - position, axis=1).argmin())
        residue, _, name = made.names[nearest].rpartition("-")
        residues.append(residue or "ALA")
        numbers.append({"ACE": 1, "ALA": 2, "NME": 3}[residues[-1]])
        names.append(name if atoms.numbers[index] > 1 else f"H{index}")
    order = np.argsort(numbers, kind="stable")
    atoms = Atoms(atoms.numbers[order], atoms.positions[order])
    for key, values in (("atom_names", names), ("residuenames", residues),
                        ("residuenumbers", numbers)):  # fmt: skip
        atoms.arrays[key] = np.array(values)[order]
    moved = atoms.copy()
    moved.rattle(0.03, seed=1)
    ase.io.write(tmp_path / "ala.xyz", [atoms, moved], format="extxyz")
    return tmp_path / "ala.xyz"


def test_candidates_of_a_radical(surefoot, frames: Path, tmp_path: Path) -> None:
    refused = surefoot("hat", "candidates", frames, "-o", tmp_path / "out", check=False)
    assert "every atom has all its bonds" in refused.stderr
    asked = surefoot(
        "hat", "candidates", frames, "-o", tmp_path / "out", "--radical", "2:CB", check=False
    )
    choice = asked.stderr.split("taken away: ")[1].split()[0]
    done = surefoot(
        "hat", "candidates", frames, "-o", tmp_path / "out", "--radical", choice, "--points", 9
    )
    assert "2 frames" in done.stdout
    assert "searching 2/2" in done.stderr
    scans = ase.io.read(tmp_path / "out" / "scans.xyz", ":")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(scans) == 9 * manifest["scans"] > 0
    with (tmp_path / "out" / "candidates.csv").open() as file:
        table = list(csv.DictReader(file))
    systems = [record["scan"] for record in table if record["scan"]]
    assert systems == [atoms.info["system"] for atoms in scans[::9]]
    again = surefoot("hat", "candidates", frames, "-o", tmp_path / "out", check=False)
    assert "is not empty" in again.stderr


def test_wrong_options_are_one_sentence(surefoot, frames: Path, tmp_path: Path) -> None:
    for options, sentence in (
        (("--caps", "none"), "--caps: Input should be 'ace_nme' or 'hydrogen'"),
        (("--charge", "XYZ"), "--charge XYZ: write a residue and a whole number"),
        (("--radical", "9:CA"), "has no residue '9'"),
    ):
        done = surefoot("hat", "candidates", frames, "-o", tmp_path / "o", *options, check=False)
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


def test_recipes_of_candidates(surefoot, frames: Path, tmp_path: Path) -> None:
    potential = Path(__file__).parents[2] / "benchmarks" / "demo" / "potential.safetensors"
    found, heights, table = tmp_path / "found", tmp_path / "heights", tmp_path / "recipes.csv"
    radical = ("--radical", "2:CA-H14", "--every", "1", "--points", "5", "--shortest", "1")
    surefoot("hat", "candidates", frames, "-o", found, *radical)
    surefoot("barrier", potential, found / "scans.xyz", "-o", heights, "--method", "arrhenius")
    times = ("--frame-time", "2.5", "--begin", "10")
    done = surefoot("hat", "recipes", found, heights, "-o", table, *times)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    records = json.loads((heights / "barriers.json").read_text())["records"]
    rates = {one["path"]: one["rate_per_ps"] for one in records if one["direction"] == "forward"}
    assert f"{len(rows)} recipes of {len(rates)} scans" in done.stdout
    assert "0.288" in done.stdout
    assert [row["rates"] for row in rows] == [f"[{one!r}]" for one in rates.values() if one != ""]
    assert {row["timespans"] for row in rows} <= {"[(10.0, 12.5)]", "[(12.5, 15.0)]"}
    for options, sentence in (
        ((found, found), "can not be read"),
        ((found, heights, "--uncertain", "never"), "uncertain"),
        ((found, heights, "--uncertain", "skip", "--ood-limit", "1e-9"), "may be used"),
    ):
        refused = surefoot("hat", "recipes", *options, "-o", tmp_path / "n", *times, check=False)
        assert sentence in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (tmp_path / "n").exists()
