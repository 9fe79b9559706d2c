"""What pages are made of: points that are drawn, maps, bonds, data inside of HTML."""

import json
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from surefoot.evaluate.figures import describe_error_bars
from surefoot.evaluate.quantities import Quantity
from surefoot.report.graphs import LARGEST, MOST_POINTS, choose, project
from surefoot.report.meanings import SCORES
from surefoot.report.page import link_csv, table
from surefoot.report.structures import MOST_ATOMS, Shown, find_bonds, fits, viewer
from surefoot.report.svg import Axis, Line, plot


def test_the_largest_errors_are_always_drawn() -> None:
    errors = np.random.default_rng(0).normal(size=50_000)
    shown = choose(errors)
    assert len(shown) <= MOST_POINTS
    assert set(np.argsort(np.abs(errors))[-LARGEST:]) <= set(shown)
    assert choose(errors[:7]).tolist() == list(range(7))


def test_map_keeps_the_two_widest_directions() -> None:
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    rows = (rng.normal(size=(200, 5)) * [0.1, 5.0, 0.1, 2.0, 0.1]) @ turn
    places = project(rows)
    np.testing.assert_allclose(places.std(0), [5.0, 2.0], rtol=0.15)
    # Rows in another order are at the same places, signs included.
    np.testing.assert_allclose(project(rows[::-1])[::-1], places, atol=1e-9)
    assert project(rows[:, :1]).shape == (200, 2)


def test_bonds_are_those_of_the_molecule() -> None:
    ethanol = molecule("CH3CH2OH")
    assert len(find_bonds(ethanol)) == 8
    assert find_bonds(Atoms("He")) == []
    assert find_bonds(Atoms("H2", [(0, 0, 0), (0, 0, 3.0)])) == []


def test_names_can_not_leave_the_data_of_the_view() -> None:
    name = '</script><b>&"'
    water = molecule("H2O")
    shown = Shown(name=name, note=name, atoms=water, values={"std": np.array([1.0, np.nan, 2.0])})
    page = viewer([shown])
    (held,) = re.findall('id="structures">(.*?)</script>', page, re.DOTALL)
    (one,) = json.loads(held)["structures"]
    assert one["name"] == name
    assert one["values"]["std"] == [1.0, None, 2.0]
    assert "<b>" not in page
    assert viewer([]) == ""
    assert not fits(Atoms(f"H{MOST_ATOMS + 1}"))


def test_tables_and_files_hold_text_as_it_is() -> None:
    assert "&lt;b&gt;" in table([{"a": "<b>"}], "<b>")
    assert "<b>" not in table([{"<b>": "<b>"}], "<b>")
    assert 'download="&lt;b&gt;.csv"' in link_csv("<b>.csv", {"x": [1, 2], "y": [3]})


@pytest.mark.parametrize(
    ("x", "y", "corner"),
    [
        ((0.4, 0.6), (0.4, 0.6), (58.0, 28.0)),
        ((0.0, 0.0), (0.0, 1.0), (314.6, 28.0)),
        ((0.0, 1.0), (1.0, 1.0), (58.0, 237.0)),
    ],
)
def test_a_legend_stands_where_least_is_drawn(x, y, corner) -> None:
    """In the first corner that is free: of a line in the middle, at the left, and at the top."""
    axis = Axis(label="", limits=(0.0, 1.0))
    text = plot("", axis, axis, [Line(name="loss", x=x, y=y, colour="red")])
    found = re.search(r'<text x="([\d.]+)" y="([\d.]+)" class="tick">loss', text)
    assert found is not None
    assert (float(found[1]) - 31, float(found[2]) - 12) == pytest.approx(corner, abs=0.1)


def test_every_score_has_a_meaning() -> None:
    std = np.full(30, 0.1)
    errors = np.random.default_rng(0).normal(0.0, 0.1, 30)
    groups = np.arange(30) // 3
    quantity = Quantity(
        name="energy",
        unit="meV",
        residuals=errors,
        std=std,
        groups=groups,
        types=groups,
        factor=1.0,
    )
    found = describe_error_bars(quantity, seed=0, draws=20)
    assert found is not None
    assert set(found["before"]) == set(SCORES)
