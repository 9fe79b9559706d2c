"""The guard: scores, counts, limits, and its use in ASE's own runs."""

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.md.verlet import VelocityVerlet
from ase.optimize import LBFGS
from pydantic import ValidationError

from surefoot.motion.guard import Guard, NoUncertainty, Watch, judge
from surefoot.motion.observer import AseGuard, LostGround
from surefoot.motion.surface import Evaluation


def said(norm: list[float] | None, ood: list[float] | None = None) -> Evaluation:
    count = len(norm or ood or [])
    return Evaluation(
        energy=torch.zeros(2, dtype=torch.float64),
        forces=torch.zeros(count, 3, dtype=torch.float64),
        forces_uncertainty_norm=None if norm is None else torch.tensor(norm, dtype=torch.float64),
        ood_atoms=None if ood is None else torch.tensor(ood, dtype=torch.float64),
    )


OWNER = torch.tensor([0, 0, 1])
NONE = torch.zeros(2, dtype=torch.int64)


def test_a_system_is_as_unsure_as_its_worst_atom() -> None:
    guard = Guard(uncertainty=0.2, ood=2.0)
    verdict = judge(guard, said([0.1, 0.02, 0.1], [0.1, 3.0, 1.0]), OWNER, NONE)
    assert verdict.atom_scores.tolist() == pytest.approx([0.5, 1.5, 0.5])
    assert verdict.score.tolist() == pytest.approx([1.5, 0.5])
    assert verdict.fired.tolist() == [True, False]
    assert not verdict.exploded.any()


def test_it_acts_after_checks_in_a_row() -> None:
    guard = Guard(uncertainty=0.2, consecutive=2)
    counts, fired = NONE, []
    for worst in (0.3, 0.1, 0.2, 0.4, 0.5):
        verdict = judge(guard, said([worst, 0.0, 0.0]), OWNER, counts)
        counts = verdict.counts
        fired.append(bool(verdict.fired[0]))
    assert fired == [False, False, False, True, True]
    assert counts.tolist() == [3, 0]


@pytest.mark.parametrize("worst", [2.0, np.nan, np.inf])
def test_beyond_the_upper_limit_it_acts_at_once(worst: float) -> None:
    guard = Guard(uncertainty=0.2, uncertainty_upper=1.0, consecutive=5)
    verdict = judge(guard, said([0.0, worst, 0.0]), OWNER, NONE)
    assert verdict.fired.tolist() == verdict.exploded.tolist() == [True, False]


def test_what_is_not_said_can_not_be_judged() -> None:
    with pytest.raises(NoUncertainty, match="limit on the uncertainty of forces"):
        judge(Guard(uncertainty=1.0), said(None, [0.0, 0.0, 0.0]), OWNER, NONE)
    with pytest.raises(NoUncertainty, match="limit on ood"):
        judge(Guard(ood=1.0), said([0.0, 0.0, 0.0]), OWNER, NONE)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "a guard needs a limit"),
        ({"uncertainty": 1.0, "uncertainty_upper": 0.5}, "must lie above"),
        ({"uncertainty": 1.0, "ood_upper": 0.5}, "must lie above"),
        ({"ood": -1.0}, "greater than 0"),
        ({"ood": 1.0, "every": 0}, "greater than or equal to 1"),
        ({"ood": 1.0, "near_ood": 0.5}, "set its limit, `uncertainty`"),
        ({"ood": 1.0, "damping": 0.0}, "greater than 0"),
    ],
)
def test_limits_that_make_no_sense(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Guard(**values)


class Unsure(Calculator):
    """Lennard-Jones, unsure by how far the last atom is from the first beyond 4 Å."""

    implemented_properties = ("energy", "forces")  # type: ignore[assignment]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        plain = self.atoms.copy()  # type: ignore[union-attr]
        plain.calc = AseLennardJones(sigma=3.4, epsilon=0.0104, rc=8.5, ro=6.5, smooth=True)
        norm = np.full(len(plain), max(plain.get_distance(0, -1) - 4.0, 0.0))
        self.results = {
            "energy": plain.get_potential_energy(),
            "forces": plain.get_forces(),
            "forces_uncertainty_norm": norm,
        }


def flying() -> Atoms:
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8]], calculator=Unsure())
    atoms.set_momenta([[0, 0, -10], [0, 0, 10]])
    return atoms


def test_it_stops_a_run_of_ase() -> None:
    atoms, kept = flying(), []
    guard = Guard(uncertainty=0.3, every=2)
    dynamics = VelocityVerlet(atoms, 0.5)
    dynamics.attach(AseGuard(Watch(guard=guard, record=kept.append), atoms), interval=2)
    with pytest.raises(LostGround, match=r"the potential is unsure, 1\.\d+ times .* at atoms 0, 1"):
        dynamics.run(200)
    assert 4.3 <= atoms.get_distance(0, 1) < 4.6
    assert np.array_equal(kept[0].positions, atoms.positions)
    assert kept[0].arrays["guard_scores"].shape == (2,)
    assert kept[0].calc is None


@pytest.mark.parametrize("action", ["warn", "record", "damp"])
def test_other_actions_in_a_run_of_ase(action) -> None:
    atoms = flying()
    kept: list[Atoms] = []
    told: list[str] = []
    guard = Guard(uncertainty=0.3, every=2, action=action)
    watch = Watch(guard=guard, record=kept.append, warn=told.append)
    dynamics = VelocityVerlet(atoms, 0.5)
    dynamics.attach(AseGuard(watch, atoms), interval=2)
    dynamics.run(60)
    assert told
    assert bool(kept) == (action != "warn")
    assert (atoms.get_distance(0, 1) < 5.5) == (action == "damp")


def test_it_stops_a_relaxation_of_ase() -> None:
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 2.9]], calculator=Unsure())
    optimizer = LBFGS(atoms, logfile=None)
    optimizer.attach(AseGuard(Watch(guard=Guard(uncertainty=0.1)), atoms))
    atoms.positions[1, 2] = 4.2
    with pytest.raises(LostGround, match="check 1: "):
        optimizer.run(fmax=1e-6, steps=100)
