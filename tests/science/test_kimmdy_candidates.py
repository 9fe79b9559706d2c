"""End positions and candidates are those of kimmdy-hat's rules (1.2.0, see oracles)."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from surefoot.hat.candidates import REACH, ends_of, find_candidates
from surefoot.hat.proteins import ResidueId, Topology

ORACLES = Path(__file__).parent / "oracles"
ROUNDING = 2e-5  # Å: MDAnalysis holds positions in single precision


@dataclasses.dataclass(frozen=True)
class Case:
    topology: Topology
    positions: np.ndarray
    left: np.ndarray
    radical: int
    ends: np.ndarray
    hydrogens: np.ndarray
    targets: np.ndarray


def read_cases(path: Path) -> dict[str, Case]:
    values = np.load(path)
    return {
        name: read_case(values, name, atom)
        for name, atom in json.loads(str(values["cases"])).items()
    }


def read_case(values: np.lib.npyio.NpzFile, name: str, atom: int) -> Case:
    structure = name.partition("/")[0]
    numbers, bonds = values[f"{structure}/numbers"], values[f"{structure}/bonds"]
    left = np.setdiff1d(np.arange(len(numbers)), [int(values[f"{name}/removed"])])
    whole = Topology(
        file=structure,
        numbers=numbers,
        names=("X",) * len(numbers),
        owner=np.zeros(len(numbers), int),
        residues=(ResidueId("", "1", "ALA"),),
        bonds=bonds,
        degree=np.bincount(bonds.ravel(), minlength=len(numbers)),
        source=np.arange(len(numbers)),
        atoms_in_file=len(numbers),
    ).take(left)
    degree = np.bincount(whole.bonds.ravel(), minlength=len(left))
    return Case(
        topology=dataclasses.replace(whole, degree=degree),
        positions=values[f"{structure}/positions"].astype(float)[left],
        left=left,
        radical=int(np.searchsorted(left, atom)),
        ends=values[f"{name}/ends"],
        hydrogens=values[f"{name}/hydrogens"],
        targets=values[f"{name}/targets"],
    )


def check(case: Case) -> int:
    """Ours are theirs; how many."""
    ends = ends_of(case.topology, case.positions, case.radical, "laboratory")
    np.testing.assert_allclose(ends, case.ends, atol=ROUNDING)
    found = find_candidates(case.topology, case.positions, case.radical, "laboratory")
    # Theirs pair a hydrogen that is near one end position with all others, however far.
    starts = case.positions[np.searchsorted(case.left, case.hydrogens)]
    near = np.linalg.norm(case.targets - starts, axis=1) < REACH
    ours = sorted((int(case.left[one.hydrogen]), *one.end) for one in found if not one.clash)
    theirs = sorted(
        (int(hydrogen), *target)
        for hydrogen, target in zip(case.hydrogens[near], case.targets[near], strict=True)
    )
    assert [one[0] for one in ours] == [one[0] for one in theirs]
    np.testing.assert_allclose(
        np.array(ours).reshape(-1, 4), np.array(theirs).reshape(-1, 4), atol=ROUNDING
    )
    return len(ours)


CASES = read_cases(ORACLES / "kimmdy_hat.npz")


def test_candidates_are_those_of_kimmdy() -> None:
    assert sum(check(case) for case in CASES.values()) > 300


def test_all_kinds_of_radicals_are_compared() -> None:
    kinds = {(len(case.topology.bonded(case.radical)), len(case.ends)) for case in CASES.values()}
    assert kinds == {(1, 9), (2, 1), (3, 1), (3, 2)}
    clashing = sum(
        one.clash
        for case in CASES.values()
        for one in find_candidates(case.topology, case.positions, case.radical, "laboratory")
    )
    assert clashing > 20


@pytest.mark.slow
def test_live_values_are_the_frozen_ones(tmp_path: Path) -> None:
    python = os.environ.get("SUREFOOT_KIMMDY_PYTHON")
    if python is None:
        pytest.skip("SUREFOOT_KIMMDY_PYTHON names no Python that has kimmdy-hat.")
    script = ORACLES / "kimmdy_hat_values.py"
    subprocess.run([python, script, tmp_path], check=True)
    live = read_cases(tmp_path / "kimmdy_hat.npz")
    assert live.keys() == CASES.keys()
    for name, case in live.items():
        np.testing.assert_allclose(case.ends, CASES[name].ends, atol=ROUNDING)
        np.testing.assert_array_equal(case.hydrogens, CASES[name].hydrogens)
        check(case)
