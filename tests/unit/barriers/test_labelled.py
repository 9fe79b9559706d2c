"""A labeler as a surface."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from surefoot.barriers.labelled import LabelerSurface
from surefoot.data.convert import to_graph
from surefoot.graph import collate
from surefoot.label.labeler import LabelingFailed, Labels
from surefoot.motion.surface import Surface

from .conftest import transfer


class Counting:
    """Energies that tell the structure, its charge and its spin apart."""

    name = "counting"

    def settings(self) -> dict:
        return {}

    def describe(self) -> str:
        return "counting"

    def label(self, atoms, charge, spin) -> Labels:
        if atoms.positions[1, 0] > 1.7:
            raise LabelingFailed("it does not converge")
        return Labels(float(atoms.positions.sum() + 100 * charge + 10 * spin), 2 * atoms.positions)


def test_energies_and_forces_in_order() -> None:
    images = transfer(3, 0.4)
    graph = collate([to_graph(atoms, 1.0, 0, 2) for atoms in images])
    with ThreadPoolExecutor(2) as pool:
        surfaces = [LabelerSurface(labeler=Counting(), executor=e) for e in (None, pool)]
        for surface in surfaces:
            assert isinstance(surface, Surface)
            found = surface(graph, stress=False, uncertainty=True)
            expected = [atoms.positions.sum() + 20 for atoms in images]
            np.testing.assert_allclose(found.energy, expected)
            np.testing.assert_allclose(found.forces, 2 * graph.positions)


def test_a_failure_is_no_number_of_its_structure_alone() -> None:
    graph = collate([to_graph(atoms, 1.0, 0, 2) for atoms in transfer(3, 0.8)])
    found = LabelerSurface(labeler=Counting())(graph, stress=False, uncertainty=False)
    assert found.energy.isfinite().tolist() == [True, True, False]
    assert torch.isnan(found.forces[6:]).all()
    assert found.forces[:6].isfinite().all()


def test_what_a_labeler_can_not_do_is_refused() -> None:
    surface = LabelerSurface(labeler=Counting())
    with pytest.raises(ValueError, match="here: info has no 'spin'; the counting labeler"):
        surface.require([6, 1], 0, None, "here")
    with pytest.raises(ValueError, match=r"here: spin 1 .* odd number of electrons"):
        surface.require([6, 1], 0, 1, "here")
    (atoms,) = transfer(1)
    with pytest.raises(ValueError, match="a structure states no spin"):
        surface(to_graph(atoms, 1.0), stress=False, uncertainty=False)
    with pytest.raises(ValueError, match="give no stress"):
        surface(to_graph(atoms, 1.0, 0, 2), stress=True, uncertainty=False)
