"""The page of benchmarks/guard.py from figures that are made up, and what a guard costs."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ase.build import molecule

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
CONFIG: dict[str, Any] = {
    "posteriors": {"ensemble": {}, "single": {}, "laplace": {}},
    "driven": {"heated_600": {"kelvin": 600}, "pulled": {"kelvin": 300}},
    "every": 10,
    "headline": {
        "posterior": "ensemble",
        "rule": "both, with the shortcut",
        "cost": "shortcut",
    },
    "marks": {"stopped": 0.9, "false_stops": 1.0, "cost": 0.15},
}


@pytest.fixture
def guard(monkeypatch) -> ModuleType:
    """The package beside the script of the same name, which Python finds first."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in [name for name in sys.modules if name.split(".")[0] == "guard"]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("guard")


def quiet(top: float) -> dict[str, Any]:
    record = {"check": [0, 100], "score": [0.1, top], "failed": [False, False]}
    quantiles = {"ood_quantiles": [0.5] * 5, "energy_quantiles": [0.01] * 5}
    return {"norm": record, "ood_atoms": record, **quantiles}


def driven(*, stops: bool) -> dict[str, Any]:
    high = [0.1, 9.0 if stops else 0.1, 9.0 if stops else 0.1]
    near = {"ood": [0.1, 0.9, 0.9], "energy": [0.001, 0.02, 0.02]}
    return {"error": [0.1, 0.2, 5.0], "norm": high, "ood_atoms": [0.1] * 3, **near}


def write_pieces(folder: Path, *, closed: bool, cost: float) -> None:
    folder.mkdir()
    names = ["without gate", "ood at every step", "shortcut", "whole"]
    names += ["shortcut on energies"] if closed else []
    pieces: dict[str, Any] = {
        "train": {
            "draws": 4,
            "rms_force_error": 0.05,
            "worst_95": 0.3,
            "limit": 0.9,
            "closed": closed,
        },
        "quiet_0": {
            "checks": [20_000] * 8,
            "trajectories": [quiet(1.0 + 0.1 * number) for number in range(8)],
        },
        "cost": {
            "draws": 4,
            "near_ood": 0.5,
            "near_energy": 0.01 if closed else None,
            "over_base": {name: cost if name == "shortcut" else 1.5 for name in names},
            "asked": {"shortcut": 0.12, "whole": 1.0, "shortcut on energies": 0.2},
        },
    }
    for name in CONFIG["driven"]:
        rows = [driven(stops=number > 0) for number in range(10)]
        pieces[name] = {"fs": 5.0, "trajectories": rows}
    for name, piece in pieces.items():
        (folder / f"{name}.json").write_text(json.dumps(piece))


def test_the_page_says_which_marks_are_met(guard, tmp_path) -> None:
    """18 of 20 are stopped; without a false stop, at a cost that is too high."""
    (tmp_path / "data.json").write_text(json.dumps({"atoms": 15}))
    write_pieces(tmp_path / "ensemble", closed=False, cost=1.22)
    write_pieces(tmp_path / "laplace", closed=True, cost=1.1)
    importlib.import_module("guard.page").write_page(tmp_path, CONFIG)
    page = (tmp_path / "README.md").read_text()
    first, second = page.split("## laplace")
    assert "| stopped before | ≥ 90% | 90% (68%–99%) | met |" in first
    assert "| cost of the run | ≤ 15% | +22.0% | not met |" in first
    # Four odd ones of 20 000 checks of 5 fs and 15 atoms: 6 units; one or none of them stops.
    assert "| false stops per 10 ps × 100 atoms | ≤ 1 |" in first
    assert "| shortcut | +22.0% | 12% |" in first
    assert "shortcut on energies" not in first
    assert "both, with the shortcut on energies | " in second
    assert "asked from 10 meV/√atoms on" in second
    assert "named in `config.yaml` beforehand" not in second
    assert (tmp_path / "stopped_ensemble.svg").exists()


def test_the_config_names_its_headline(guard) -> None:
    """Marks and headline as the page reads them; YAML takes some words for other things."""
    config = yaml.safe_load((BENCHMARKS / "guard" / "config.yaml").read_text())
    assert config["marks"].keys() == CONFIG["marks"].keys()
    assert config["headline"].keys() == CONFIG["headline"].keys()
    assert config["headline"]["posterior"] in config["posteriors"]
    origin = importlib.import_module("guard.origin")
    assert origin.of_posterior(config, config["scales"]["full"], "laplace", "")


def test_intervals(guard) -> None:
    """No stop in one unit may be one in 3.7; all of ten may be 69 %."""
    choice = importlib.import_module("guard.choice")
    assert choice.rate_interval(0, 1.0) == pytest.approx((0.0, 3.689), abs=1e-3)
    assert choice.share_interval(10, 10) == pytest.approx((0.6915, 1.0), abs=1e-3)


def test_a_stale_piece_is_refused(guard, tmp_path) -> None:
    origin = importlib.import_module("guard.origin")
    origin.claim(tmp_path / "run", {"potential": "a"})
    origin.claim(tmp_path / "run", {"potential": "a"})
    with pytest.raises(SystemExit, match="it was made of another potential; remove the folder"):
        origin.claim(tmp_path / "run", {"potential": "b"})
    config = {"every": 10, "posteriors": {"single": {}, "laplace": {"base": "single"}}}
    before = origin.of_posterior(config, {}, "laplace", "")
    assert origin.of_posterior({**config, "every": 5}, {}, "laplace", "") != before
    config["posteriors"]["single"] = {"members": 2}
    assert origin.of_posterior(config, {}, "laplace", "") != before


def test_the_cost_counts_who_is_asked(guard, gated, tmp_path) -> None:
    """All at every check, or nobody; the first draw alone is what both are compared with."""
    cost = importlib.import_module("guard.cost")
    guards = cost.list_guards(2, near=1e9, near_energy=None)
    scale = {"rounds": 1, "steps": 4}
    found = cost.measure(gated, [molecule("H2O"), molecule("H2O")], guards, scale, 2, tmp_path)
    assert found["asked"] == {"shortcut": 0.0, "whole": 1.0}
    assert found["over_base"][cost.BASE] == 1.0
    assert set(found["over_base"]) == set(guards)
    assert found["draws"] > 1
