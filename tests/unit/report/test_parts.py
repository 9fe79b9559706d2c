"""What pages are made of: points that are drawn, maps, bonds, data inside of HTML."""

import json
import re

import numpy as np
from ase import Atoms
from ase.build import molecule

from surefoot.report.graphs import LARGEST, MOST_POINTS, choose, project
from surefoot.report.page import link_csv, table
from surefoot.report.structures import MOST_ATOMS, Shown, find_bonds, fits, viewer


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
