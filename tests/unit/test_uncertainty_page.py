"""benchmarks/uncertainty.py: its runs, its configs, and what its page says of made-up figures."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from scipy.stats import beta

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("uncertainty", "uncertainty_page", "uncertainty_marks", "uncertainty_cost")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_runs_are_named_once_and_need_only_what_is_before_them(modules) -> None:
    before: set[str] = set()
    for run in modules["uncertainty"].list_runs():
        assert run.name not in before
        assert {*run.pool, *([run.base] if run.base else [])} <= before
        assert all(name.startswith(run.data) == (run.data != "3bpa") for name in run.pool)
        before.add(run.name)


def test_no_more_than_sixty_are_trained(modules) -> None:
    runs = list(modules["uncertainty"].list_runs())
    trained = [run for run in runs if run.trained]
    assert 40 < len(trained) <= 60
    assert all(run.base or run.pool for run in runs if run not in trained)
    recommended = modules["uncertainty_marks"].RECOMMENDED
    assert {run.data for run in runs if run.method == recommended} == {"3bpa", "acac", "aspirin"}


def test_configs_are_changed_whole_sections_first(modules) -> None:
    change = modules["uncertainty"].configure
    plain = yaml.safe_load(change({}, ()))
    some = yaml.safe_load(change({"head.covariance": "none", "head": {"energy": "x"}}, ()))
    assert some["head"] == {"energy": "x", "covariance": "none"}
    assert {**some, "head": plain["head"]} == plain
    started = yaml.safe_load(change({"start.learn": "nothing"}, ("model", "head")))
    assert started["start"] == {"learn": "nothing"}
    assert plain.keys() - started.keys() == {"model", "head"}


def test_what_judges_a_trained_potential_never_sees_what_calibrates(modules) -> None:
    for run in modules["uncertainty"].list_runs():
        config = modules["uncertainty"].configure({**run.changes}, ())
        assert "held.xyz" not in config


def figures(coverage: float, rmse: float, lead: float) -> dict[str, Any]:
    """What the page reads of one run."""
    bars = {
        "points": 800,
        "groups": 16,
        "after": {"coverage_95": [coverage, 0.0, 1.0]},
        "recalibrated": {"conformal": {"coverage_95": [0.96, 0.9, 1.0]}},
    }
    errors = {"all": {"mae": rmse / 2, "rmse": rmse}}
    part = {
        "accuracy": {"energy": errors, "forces": errors},
        "uncertainty": {"energy": bars, "forces": bars},
    }
    over = {
        name: [lead, lead - 0.01, lead + 0.01]
        for name in ("predicted energy per atom", "predicted rms force")
    }
    found = {"failures": [0.95, 0.9, 1.0], "strangers": [0.99, 0.9, 1.0], "over": over}
    return {
        "calibration": "50 frames set aside; not calibrated: stress",
        "test": part,
        "ood": part,
        "failures": {"auroc": {"ood": found, "force σ, rms of atoms": found}},
    }


def page(modules, folder: Path, **own: dict[str, Any]) -> str:
    """The page of these runs; those named in `own` are like that."""
    runs = {run.name: run for run in modules["uncertainty"].list_runs()}
    recommended = modules["uncertainty_marks"].RECOMMENDED
    for name in (f"{recommended}_0", "squared_0", "joint_nll_0", "histogram_c_0"):
        run, given = runs[name], {"coverage": 0.95, "rmse": 1 / 3, "lead": 0.02}
        entry = {"seed": run.seed, "figures": figures(**{**given, **own.get(run.method, {})})}
        (folder / f"{name}.json").write_text(json.dumps(entry))
    row = {"over_plain": 2.0, "over_plain_energy": 1.05, "draws": 1, "milliseconds": {"forces": 2}}
    cost = {
        "atoms": 27,
        "compiled": True,
        "plain": "x",
        "milliseconds": {"energy": 1.0, "forces": 2.0},
    }
    cost["rows"] = {"laplace, 1 draw": row, recommended: row}
    (folder / "cost.json").write_text(json.dumps(cost))
    return modules["uncertainty_page"].describe(runs, folder)


def verdicts(text: str) -> dict[str, str]:
    """The last column of the marks, by the first."""
    lines = text.split("## Pass marks")[1].split("##", maxsplit=1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return {row[0]: row[-1] for row in rows[2:]}


def test_marks_are_met_where_figures_are_good(modules, tmp_path: Path) -> None:
    found = verdicts(page(modules, tmp_path))
    absent = {asked for asked, verdict in found.items() if verdict == "not measured"}
    assert all("judge_nll" in asked or "histogram A" in asked for asked in absent)
    assert {found[asked] for asked in found.keys() - absent} == {"met"}
    assert len(found) - len(absent) == 14


@pytest.mark.parametrize(
    ("method", "given", "failed"),
    [
        ("recommended", {"coverage": 0.85}, {"93 to 97 %", "frames independent"}),
        ("recommended", {"coverage": 0.5}, {"93 to 97 %", "frames independent", "blocks"}),
        ("recommended", {"lead": 0.005}, {"gate finds failures better", "σ finds failures better"}),
        ("joint_nll", {"rmse": 0.5}, {"NLL_JEF"}),
        ("histogram_c", {"rmse": 1 / 3 + 1e-16}, {"histogram_c"}),
    ],
)
def test_marks_are_not_met_where_they_are_not(
    modules, tmp_path: Path, method: str, given: dict[str, float], failed: set[str]
) -> None:
    name = modules["uncertainty_marks"].RECOMMENDED if method == "recommended" else method
    found = verdicts(page(modules, tmp_path, **{name: given}))
    missed = {asked for asked, verdict in found.items() if verdict == "**not met**"}
    assert all(any(part in asked for part in failed) for asked in missed)
    assert all(any(part in asked for asked in missed) for part in failed)


def test_the_band_is_that_of_conformal_intervals(modules) -> None:
    """With many test points the share covered follows a beta distribution."""
    low, high = modules["uncertainty_marks"].band(50, 100_000)
    expected = beta(49, 2).ppf([0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(expected), abs=2e-3)
    wide = modules["uncertainty_marks"].band(50, 16)
    assert wide[0] < low
    assert wide[1] == 1.0
