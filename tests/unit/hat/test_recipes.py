"""Recipes are tables of the form that KIMMDY reads; it is compared in plugins/kimmdy/tests."""

import ast
import csv
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from surefoot.barriers.heights import Curve
from surefoot.barriers.paths import TransferPath
from surefoot.barriers.rates import RateSettings
from surefoot.barriers.records import ReportSettings, record_scan
from surefoot.barriers.scans import judge_scan
from surefoot.hat.recipes import COLUMNS, HydrogenRecipe, Policy, format_recipes, make_recipes
from surefoot.units import KCAL_PER_MOL


def recipe(**given: object) -> HydrogenRecipe:
    known = {"hydrogen": 7, "donor": 6, "acceptor": 0, "end": (0.1, -2.5, 1e-9), "rate": 1.5e-8,
             "span": (0.0, 2.0)}  # fmt: skip
    return HydrogenRecipe(**known | given)


def scan_path(name: str) -> TransferPath:
    images = [Atoms("CHC", [[0, 0, 0], [x, 0, 0], [4, 0, 0]]) for x in (1.0, 2.0, 3.0)]
    return TransferPath(name=name, images=tuple(images), hydrogen=1, donor=0, acceptor=2,
                        reference=None, method="", place="")  # fmt: skip


def records(name: str, heights: tuple[float, ...]) -> list:
    curve = Curve(energies=np.array(heights) * KCAL_PER_MOL)
    settings = ReportSettings(rates=RateSettings(method="arrhenius", temperature=300.0))
    return record_scan(judge_scan(scan_path(name), curve), settings)


def write_table(path: Path, rows: list[tuple[str, int, object]]) -> Path:
    lines = ["frame,scan,hydrogen_index,donor_index,acceptor_index"]
    lines += [f"{frame},{scan},{hydrogen},12,0" for scan, frame, hydrogen in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_steps_are_python_that_says_what_was_meant() -> None:
    rows = list(csv.reader(format_recipes([recipe(), recipe(rate=0.0)]).splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [row[0] for row in rows[1:]] == ["0", "1"]
    _, picked, steps, spans, rates = rows[1]
    assert ast.literal_eval(picked) is False
    assert ast.literal_eval(spans) == [(0.0, 2.0)]
    assert ast.literal_eval(rates) == [1.5e-8]
    calls = [ast.parse(step, mode="eval").body for step in steps.split("<>")]
    assert [call.func.id for call in calls] == ["Break", "Place", "Bind"]
    values = [{k.arg: ast.literal_eval(k.value) for k in call.keywords} for call in calls]
    assert values == [
        {"atom_ix_1": 6, "atom_ix_2": 7},
        {"ix_to_place": 7, "new_coords": (0.1, -2.5, 1e-9)},
        {"atom_ix_1": 7, "atom_ix_2": 0},
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hydrogen": -1}, "were added have none"),
        ({"rate": float("nan")}, "a finite one"),
        ({"rate": -1.0}, "not below 0"),
        ({"span": (2.0, 1.0)}, "before it has begun"),
    ],
)
def test_what_is_no_recipe_is_refused(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe(**given)


def test_records_become_recipes(tmp_path: Path) -> None:
    table = write_table(tmp_path / "candidates.csv", [("one", 3, 0), ("two", 4, 15), ("", 4, 9)])
    found = records("one", (0.0, 10.0, 2.0)) + records("two", (0.0, 1.0, 5.0))
    paths = [scan_path("one"), scan_path("two")]
    (made,) = make_recipes(found, paths, table, {3: (6.0, 8.0)})  # two has no maximum
    assert (made.hydrogen, made.donor, made.acceptor) == (0, 12, 0)
    assert made.end == (3.0, 0.0, 0.0)
    assert made.span == (6.0, 8.0)
    assert made.rate == pytest.approx(1.5e-8, rel=0.02)  # 0.288 / ps · exp(−10 kcal/mol / RT)


def test_records_of_another_search_are_refused(tmp_path: Path) -> None:
    found = records("one", (0.0, 10.0, 2.0))
    table = write_table(tmp_path / "candidates.csv", [("one", 3, "")])
    other = write_table(tmp_path / "other_candidates.csv", [("two", 3, 7)])
    with pytest.raises(ValueError, match=r"one: not in .*candidates\.csv"):
        make_recipes(found, [scan_path("one")], other, {3: (0.0, 1.0)})
    with pytest.raises(ValueError, match="one: not in the paths"):
        make_recipes(found, [], table, {3: (0.0, 1.0)})
    with pytest.raises(ValueError, match="no span of time for frame 3"):
        make_recipes(found, [scan_path("one")], table, {})
    with pytest.raises(ValueError, match="were added have none"):
        make_recipes(found, [scan_path("one")], table, {3: (0.0, 1.0)})


def certain(**given: object) -> dict:
    known = {"path": "p", "low_kcal": 9.0, "high_kcal": 11.0, "ood": 0.5, "rate_per_ps": 1e-8,
             "log10_rate_high": -7.0}  # fmt: skip
    return known | given


@pytest.mark.parametrize(
    "doubt", [{"high_kcal": 15.0}, {"ood": 1.1}, {"low_kcal": "", "high_kcal": ""}]
)
def test_uncertain_rates_are_used_left_out_or_bounded(doubt: dict) -> None:
    for kind in ("use", "skip", "upper_bound"):
        assert Policy(uncertain=kind).rate(certain()) == 1e-8
    doubtful = certain(**doubt)
    assert Policy().rate(doubtful) == 1e-8
    assert Policy(uncertain="skip").rate(doubtful) is None
    assert Policy(uncertain="upper_bound").rate(doubtful) == pytest.approx(1e-7)
    wider = Policy(uncertain="skip", interval_limit=7.0, ood_limit=2.0)
    assert (wider.rate(doubtful) is None) == (doubtful["low_kcal"] == "")
    assert Policy().rate(certain(rate_per_ps="")) is None
    with pytest.raises(ValueError, match="no upper bound"):
        Policy(uncertain="upper_bound").rate(certain(low_kcal="", high_kcal="", log10_rate_high=""))
