"""The figures of benchmarks/guard.py: who has passed, who was stopped, and who in vain."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "guard" / "choice.py"


@pytest.fixture(scope="module")
def choice() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guard_choice", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def driven(error: list[float | None], norm: list[float], ood: list[float]) -> dict[str, Any]:
    return {"error": error, "norm": norm, "ood_atoms": ood, "ood": ood}


def quiet(scores: list[float], failed: list[bool] | None = None) -> dict[str, Any]:
    """Records at checks 0, 10, 20 …, and an ood that never says anything."""
    failed = failed or [False] * len(scores)
    checks = [10 * number for number in range(len(scores))]
    norm = {"check": checks, "score": scores, "failed": failed}
    nothing = {"check": [0], "score": [0.1], "failed": [False]}
    return {"norm": norm, "ood_atoms": nothing, "ood_quantiles": [0.1] * 5}


def test_before_with_after_and_never(choice) -> None:
    """Errors pass 1.0 at the third check; no answer of the labeler is a pass too."""
    limits = choice.Limits(norm=2.0)
    errors: list[float | None] = [0.1, 0.5, 1.5, 0.2]
    cases = [
        driven(errors, [0, 3, 0, 0], [0] * 4),  # before
        driven([0.1, 0.5, None, 0.2], [0, 0, 3, 3], [0] * 4),  # with it
        driven(errors, [0, 0, 0, 3], [0] * 4),  # after
        driven(errors, [0, 0, 0, 0], [0] * 4),  # never
        driven([0.1] * 4, [0, 0, 3, 0], [0] * 4),  # stopped, though nothing passed
        driven([0.1] * 4, [0] * 4, [0] * 4),
    ]
    found = choice.outcome(cases, limits, 1.0, 5.0)
    assert (found.passed, found.before, found.by, found.missed) == (4, 1, 2, 1)
    assert (found.early, found.total) == (1, 6)
    assert found.delays == [-5.0, 0.0, 5.0]


def test_the_shortcut_looks_at_the_uncertainty_only_near(choice) -> None:
    one = driven([2.0] * 4, [3, 3, 3, 3], [0.1, 0.5, 0.9, 1.0])
    assert choice.driven_stop(one, choice.Limits(norm=2.0)) == 0
    assert choice.driven_stop(one, choice.Limits(norm=2.0, near=0.8)) == 2
    assert choice.driven_stop(one, choice.Limits(norm=2.0, near=0.8, ood_atoms=0.5)) == 1
    energies = {**one, "energy": [0.01, 0.01, 0.01, 0.03]}
    assert choice.driven_stop(energies, choice.Limits(norm=2.0, near_energy=0.02)) == 3
    assert choice.driven_stop(energies, choice.Limits(norm=2.0, near_energy=0.02, near=0.8)) == 2
    broken = driven([2.0] * 2, [0.0, np.nan], [0.0, 0.0])
    assert choice.driven_stop(broken, choice.Limits(norm=2.0)) == 1


def test_false_stops_count_time_until_the_stop(choice) -> None:
    """Two of three stop; one of them rightly. 5 fs a check, 20 atoms."""
    cases = [quiet([1, 2, 5]), quiet([1, 2, 5], [False, False, True]), quiet([1, 2, 3])]
    found = choice.false_stops(cases, [100, 100, 100], choice.Limits(norm=4.0), 5.0, 20)
    assert found[:2] == (2, 1)
    assert found[2] == pytest.approx((20 + 20 + 100) * 0.005 * 20 / 1000)


def test_limits_are_the_lowest_that_are_quiet_enough(choice) -> None:
    """10 000 checks of 5 fs and 20 atoms are one unit each: four units allow two false stops."""
    cases = [quiet([1, 2, top]) for top in (3.0, 4.0, 5.0, 6.0)]
    rules = choice.choose(cases, [10_000] * 4, 5.0, 20, near=0.7)
    limit = rules["σ of forces"].norm
    assert choice.false_stops(cases, [10_000] * 4, choice.Limits(norm=limit), 5.0, 20)[1] <= 2
    lower = max(top for top in (2.0, 3.0, 4.0, 5.0) if top < limit)
    _, false, exposed = choice.false_stops(cases, [10_000] * 4, choice.Limits(norm=lower), 5.0, 20)
    assert false > 0.5 * exposed
    assert rules["both"].norm >= limit
    assert rules["both, with the shortcut"].near == 0.7
