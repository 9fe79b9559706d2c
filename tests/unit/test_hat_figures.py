"""The figures of benchmarks/hat.py: errors by molecule, the baseline, the spring, who is broken."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from surefoot.barriers.paths import TransferPath
from surefoot.data.convert import to_graph
from surefoot.motion.surface import Evaluation

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _beside() -> Any:
    """The scripts find each other beside themselves."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def room(name: str) -> ModuleType:
    return importlib.import_module(f"hat.{name}")


def row(donor: str, translation: float, label: float, value: float, pair: str = "C–C") -> dict:
    inside = abs(value - label) < 1.0
    one = [label, value, 0.6, inside]
    return {"path": "p", "donor": donor, "pair": pair, "translation": translation, "forward": one,
            "reverse": one}  # fmt: skip


def test_errors_and_shares_of_barriers() -> None:
    rows = [row("A", 1.0, 10.0, 11.5), row("A", 2.0, 20.0, 20.5), row("B", 1.5, 12.0, 12.0),
            row("B", 1.5, 18.0, 18.0)]  # fmt: skip
    found = room("scores").Barriers(rows)
    value, low, high = found.mae()
    assert value == pytest.approx(1 / 2, abs=1e-4)
    assert (low, high) == (pytest.approx(0.0), pytest.approx(1.0))  # B alone, A alone
    assert found.coverage()[0] == pytest.approx(3 / 4, abs=1e-4)
    assert found.r_squared()[0] == pytest.approx(1 - 2.5 / 68.0, abs=1e-4)
    assert room("scores").by_donor(found) == {"A": [4.0, 4], "B": [0.0, 4]}


def test_the_baseline_knows_lines_of_each_pair_but_not_the_molecule() -> None:
    lines = {"C–C": (2.0, 8.0), "C–O": (5.0, 3.0)}
    rows = [
        row(donor, way, lines[pair][0] + lines[pair][1] * way, 0.0, pair)
        for donor in "ABCD"
        for way in (1.0, 1.7, 2.6)
        for pair in lines
    ]
    scores = room("scores")
    assert scores.Barriers(rows).regression()[0] == pytest.approx(0.0, abs=1e-6)
    for one in rows:
        if one["donor"] == "A":
            one["forward"] = [one["forward"][0] + 4.0, 0.0, None, None]
    # A is told by the others, which do not know of its 4 kcal/mol; they see A as one of three.
    value = scores.Barriers(rows, ("forward",)).regression()[0]
    assert value == pytest.approx((4.0 + 3 * 4 / 3) / 4, abs=1e-6)


def test_exponents_of_learning_curves() -> None:
    sizes = [100, 200, 400]
    sums = [{name: [7 * 3.0 * size**-0.5, 7] for name in "AB"} for size in sizes]
    value, low, high = room("scores").exponent(sizes, sums)
    assert (value, low, high) == (pytest.approx(-0.5),) * 3


class Flat:
    """A surface without forces."""

    cutoff = 3.0

    def __call__(self, graph: Any, **_: Any) -> Evaluation:
        return Evaluation(
            energy=torch.zeros(1, dtype=torch.float64), forces=torch.zeros_like(graph.positions)
        )


def test_the_spring_pushes_as_its_energy_falls(rng: np.random.Generator) -> None:
    motion = room("motion")
    spring = motion.Spring(atoms=(0, 1, 2), spring=1.3, target=0.4)
    surface = motion.Steered(surface=Flat(), bias=spring)
    atoms = Atoms("CHC", rng.normal(0, 1, (3, 3)))

    def ask(places: np.ndarray) -> Evaluation:
        moved = Atoms(atoms.numbers, places)
        return surface(to_graph(moved, 3.0, 0, 2), stress=False, uncertainty=False)

    forces, step = ask(atoms.positions).bias_forces, 1e-5
    for place in np.ndindex(3, 3):
        off = np.zeros((3, 3))
        off[place] = step
        up, down = (float(ask(atoms.positions + s * off).bias_energy) for s in (1, -1))
        assert float(forces[place]) == pytest.approx(-(up - down) / (2 * step), abs=1e-5)


def trajectory(places: list[np.ndarray], numbers: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "numbers": numbers,
        "positions": np.array(places),
        "time": 60.0 * np.arange(len(places)),
    }


def test_bonds_are_whole_moved_or_broken() -> None:
    atoms = molecule("CH3OH")
    path = TransferPath(name="p", images=(atoms,), hydrogen=2, donor=0, acceptor=1, reference=None,
                        method="", place="")  # fmt: skip
    rest = atoms.positions
    hydrogens = np.flatnonzero(atoms.numbers == 1)
    (far,) = [n for n in hydrogens if atoms.get_distance(1, n) < 1.1]
    apart, over = rest.copy(), rest.copy()
    apart[far] += 3.0 * (rest[far] - rest[1])
    over[far] = rest[0] - 1.1 * (rest[1] - rest[0]) / np.linalg.norm(rest[1] - rest[0])
    judge = room("motion").judge_bonds
    for places, told in (
        ([rest] * 4, "whole"),
        ([rest, apart, rest, rest], "whole"),  # for a moment
        ([rest, apart, apart, apart], "broken"),
        ([rest, over, over, over], "moved"),
    ):
        assert judge(path, trajectory(places, atoms.numbers)) == told


def test_the_atoms_of_a_saddle_that_hold_the_hydrogen() -> None:
    saddle = Atoms("CHOH", [[0, 0, 0], [1.3, 0, 0], [2.5, 0, 0], [2.9, 0.9, 0]])
    assert room("bh9").find_pair(saddle) == "C–O"
