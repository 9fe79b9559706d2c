"""What notebooks show: frames that load nothing, and short tables of what was asked."""

import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from surefoot.data.read import PREDICTED
from surefoot.prediction import SHOWN, Moments, Prediction
from surefoot.report.notebook import MOST, show_structures
from surefoot.report.structures import MOST_ATOMS
from surefoot.tables import html_table


class Reader(HTMLParser):
    """Elements, and what they would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.loaded = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href")]


def structures_of(page: str) -> list[dict]:
    """What the frame of a view holds."""
    (held,) = re.findall('srcdoc="(.*?)"', page, re.DOTALL)
    inner = html.unescape(held)
    (data,) = re.findall('id="structures">(.*?)</script>', inner, re.DOTALL)
    assert Reader(inner).loaded == []
    return json.loads(data)["structures"]


def labelled() -> Atoms:
    atoms = molecule("CH3OH")
    atoms.calc = EMT()
    forces, energy = atoms.get_forces(), atoms.get_potential_energy()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def test_labels_that_a_structure_carries_are_labels() -> None:
    atoms = labelled()
    page = show_structures(atoms)._repr_html_()
    assert Reader(page).tags == ["iframe"]
    (shown,) = structures_of(page)
    assert shown["vectors"].keys() == {"label"}
    np.testing.assert_allclose(shown["vectors"]["label"], atoms.get_forces(), atol=1e-4)
    assert shown["values"] == {}
    assert shown["note"].startswith("CH4O; energy ")


def test_predictions_stand_beside_labels() -> None:
    atoms = labelled()
    std, far = np.linspace(0.1, 0.6, 6), np.linspace(0.0, 2.0, 6)
    results = {
        "energy": 1.5,
        "energy_uncertainty": 0.25,
        "ood": 1.25,
        "forces": atoms.get_forces() + 0.1,
        "forces_uncertainty_norm": std,
        "ood_atoms": far,
    }
    (shown,) = structures_of(show_structures([atoms], [results])._repr_html_())
    assert shown["note"] == "CH4O; energy 1.5 ± 0.25 eV; ood 1.25."
    np.testing.assert_allclose(shown["values"]["std"], 1000 * std, rtol=1e-3)
    np.testing.assert_allclose(shown["values"]["error"], 100 * np.sqrt(3), rtol=1e-3)
    np.testing.assert_allclose(shown["values"]["ood"], far, rtol=1e-3)
    np.testing.assert_allclose(shown["vectors"]["residual"], -0.1, atol=1e-4)


def test_a_file_of_predict_is_shown_as_what_it_is() -> None:
    atoms = labelled()
    atoms.arrays["REF_forces"] = atoms.get_forces() - 0.2
    atoms.info[PREDICTED] = "surefoot"
    (shown,) = structures_of(show_structures(atoms)._repr_html_())
    assert shown["vectors"].keys() == {"residual", "label", "predicted"}
    np.testing.assert_allclose(shown["vectors"]["predicted"], atoms.get_forces(), atol=1e-4)
    np.testing.assert_allclose(shown["vectors"]["residual"], -0.2, atol=1e-4)


def test_what_can_not_be_shown_is_said() -> None:
    large, small = Atoms(f"H{MOST_ATOMS + 1}"), molecule("H2O")
    view = show_structures([large, small])
    assert len(view.structures) == 1
    assert "1 more structures are not shown" in view._repr_html_()
    assert len(show_structures([small] * (MOST + 1)).structures) == MOST
    with pytest.raises(ValueError, match="no structure of at most"):
        show_structures(large)
    with pytest.raises(ValueError, match="1 results for 2 structures"):
        show_structures([small, small], [{}])


def prediction(count: int, **parts: Moments | torch.Tensor) -> Prediction:
    energy = Moments(mean=torch.arange(count).double(), epistemic=torch.full((count,), 0.04))
    return Prediction(**{"energy": energy, **parts})


def test_a_prediction_is_a_table_of_energies() -> None:
    forces = Moments(mean=torch.zeros(6, 3), epistemic=0.12 * torch.eye(3).expand(6, 3, 3))
    page = prediction(2, forces=forces, ood=torch.tensor([0.5, 1.5]))._repr_html_()
    assert "2 structures; forces of 6 atoms, σ 0.6 eV/Å (rms)" in page
    assert "<tr><td>1</td><td>1.0000</td><td>0.2</td><td>1.5</td></tr>" in page
    long = prediction(SHOWN + 1)._repr_html_()
    assert f"{SHOWN + 1} structures, the first {SHOWN} shown" in long
    assert long.count("<tr>") == SHOWN + 1


def test_parts_of_a_variance_are_told_apart() -> None:
    parts = {"aleatoric": torch.tensor([0.09]), "epistemic": torch.tensor([0.16])}
    page = prediction(1, energy=Moments(mean=torch.zeros(1), **parts))._repr_html_()
    assert "<td>0.5</td><td>0.3</td><td>0.4</td>" in page
    bare = prediction(1, energy=Moments(mean=torch.zeros(1)))._repr_html_()
    assert "<td>–</td>" in bare


def test_tables_hold_text() -> None:
    assert html_table([]) == ""
    page = html_table([{"<b>": "&"}], "<i>", "text")
    assert '<table class="text"><caption>&lt;i&gt;</caption>' in page
    assert '<th scope="col">&lt;b&gt;</th>' in page
    assert "<td>&amp;</td>" in page
