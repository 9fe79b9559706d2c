"""Bands: tangents, climbing, and known saddle points of a plane."""

import numpy as np
import pytest
import torch
from ase import Atoms

from surefoot.barriers.bands import BandSettings, find_band_forces, find_tangents, relax_bands
from surefoot.barriers.interpolation import interpolate, lay_on
from surefoot.motion.surface import Evaluation

from .conftest import MINIMA, SADDLES, SCALE, Formula, at, muller_brown

DOUBLE = torch.float64


def line(*places: tuple[float, float]) -> torch.Tensor:
    """A band of one atom in the plane."""
    return torch.tensor([[[x, y, 0.0]] for x, y in places], dtype=DOUBLE)


@pytest.mark.parametrize(
    ("energies", "expected"),
    [
        ([0.0, 1.0, 3.0], (0.0, 1.0)),  # uphill: towards the next
        ([3.0, 1.0, 0.0], (1.0, 0.0)),  # downhill: from the last
        ([0.0, 2.0, 1.0], (1.0, 2.0)),  # a maximum, the next being the higher one of both
        ([1.0, 2.0, 0.0], (2.0, 1.0)),
        ([2.0, 0.0, 1.0], (2.0, 1.0)),  # a minimum, the last being the higher one
        ([1.0, 1.0, 1.0], (1.0, 1.0)),
    ],
)
def test_improved_tangents(energies, expected) -> None:
    """The last step of the band goes along x and the next one along y."""
    weights = torch.tensor(expected, dtype=DOUBLE)
    band = line((0, 0), (1, 0), (1, 1))
    (found,) = find_tangents(band, torch.tensor(energies, dtype=DOUBLE))
    np.testing.assert_allclose(found[0, :2], weights / weights.norm(), atol=1e-12)


def test_forces_of_a_band() -> None:
    """True forces act across the band and springs along it; the climbing image is turned round."""
    band = line((0, 0), (1, 0), (3, 0))
    energies = torch.tensor([0.0, 1.0, 2.0], dtype=DOUBLE)
    true = torch.tensor([[[-5.0, 2.0, 0.3]]], dtype=DOUBLE)
    found = find_band_forces(band, energies, true, 0.7)
    np.testing.assert_allclose(found[0, 0], [0.7 * (2 - 1), 2.0, 0.3], atol=1e-12)
    climbing = find_band_forces(band, energies, true, 0.7, climbing=1)
    np.testing.assert_allclose(climbing[0, 0], [5.0, 2.0, 0.3], atol=1e-12)


def energy_at(x: float, y: float) -> float:
    return float(muller_brown(torch.tensor([[[x, y, 0.0]]], dtype=DOUBLE))[0])


def start_band(first: tuple[float, float], last: tuple[float, float], images: int):
    settings = BandSettings(images=images, interpolation="linear")
    return interpolate(at(*first), at(*last), settings), (energy_at(*first), energy_at(*last))


def test_climbing_images_find_both_saddle_points(plane) -> None:
    """Two bands of different lengths together; each as if it were alone."""
    settings = BandSettings(fmax=5e-3, spring=2.0, climb_below=2.0, steps=600)
    pairs = [(MINIMA[0], MINIMA[1], 9), (MINIMA[1], MINIMA[2], 6)]
    starts, ends = zip(*(start_band(*pair) for pair in pairs), strict=True)
    templates = [at(*first) for first, _, _ in pairs]
    bands = relax_bands(templates, starts, ends, plane, settings)
    for band, (place, height) in zip(bands, SADDLES, strict=True):
        assert band.status == "converged"
        np.testing.assert_allclose(band.positions[band.top, -1, :2], place, atol=5e-3)
        assert float(band.energies[band.top]) == pytest.approx(SCALE * height, abs=1e-4)
        # Fixed atoms have stayed.
        assert (band.positions[:, 0] == 9.0).all()
        assert abs(float(band.direction.norm()) - 1) < 1e-12
    alone = relax_bands(templates[1:], starts[1:], ends[1:], plane, settings)[0]
    assert alone.steps == bands[1].steps < bands[0].steps
    np.testing.assert_allclose(alone.positions, bands[1].positions, atol=1e-10)


def test_a_band_without_a_maximum_is_downhill(plane) -> None:
    first, last = (0.3, 0.25), MINIMA[2]
    start, ends = start_band(first, last, 5)
    (band,) = relax_bands([at(*first)], [start], [ends], plane, BandSettings())
    assert band.status == "downhill"


def test_steps_run_out(plane) -> None:
    start, ends = start_band(MINIMA[0], MINIMA[1], 7)
    (band,) = relax_bands([at(*MINIMA[0])], [start], [ends], plane, BandSettings(steps=3))
    assert (band.status, band.steps) == ("exhausted", 3)
    assert band.fmax > 0.05


def test_one_broken_band_does_not_end_the_others() -> None:
    """Beyond x = 5 the surface has no numbers."""

    def holed(positions: torch.Tensor) -> torch.Tensor:
        energy = muller_brown(positions)
        return torch.where(positions[:, -1, 0] > 5.0, torch.nan, energy)

    starts, ends = zip(
        *(start_band(MINIMA[1], last, 5) for last in (MINIMA[2], (9.0, 0))), strict=True
    )
    templates = [at(*MINIMA[1])] * 2
    bands = relax_bands(templates, starts, ends, Formula(holed), BandSettings(steps=9))
    assert [band.status for band in bands] == ["exhausted", "broken"]
    assert bands[1].steps == 0


def test_atoms_at_one_place_break_their_band_alone(plane) -> None:
    good, ends = start_band(MINIMA[1], MINIMA[2], 5)
    bad = good.clone()
    bad[2, -1] = bad[2, 0]
    templates = [at(*MINIMA[1])] * 2
    bands = relax_bands(templates, [bad, good], [ends, ends], plane, BandSettings(steps=9))
    assert [band.status for band in bands] == ["broken", "exhausted"]


def test_all_images_are_one_evaluation(plane) -> None:
    seen = []

    class Watched(Formula):
        def __call__(self, graph, *, stress, uncertainty) -> Evaluation:
            seen.append(graph.charge.shape[0])
            return super().__call__(graph, stress=stress, uncertainty=uncertainty)

    pairs = [(MINIMA[0], MINIMA[1], 9), (MINIMA[1], MINIMA[2], 6)]
    starts, ends = zip(*(start_band(*pair) for pair in pairs), strict=True)
    templates = [at(*MINIMA[0]), at(*MINIMA[1])]
    relax_bands(templates, starts, ends, Watched(muller_brown), BandSettings(steps=2))
    assert seen == [11, 11, 11]


def test_molecules_are_laid_on_each_other(rng) -> None:
    places = rng.normal(size=(6, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    np.testing.assert_allclose(lay_on(places @ turn + [3, 4, 5], places), places, atol=1e-12)
    mirrored = lay_on(places * [1, 1, -1], places)  # no rotation makes a mirror image
    assert np.abs(mirrored - places).max() > 0.1


def test_first_images_keep_atoms_apart() -> None:
    """A straight line would lead the hydrogen through the atom in its way."""
    first = Atoms("OHe", positions=[[0, 0, 0], [-1.2, 0.05, 0]])
    last = Atoms("OHe", positions=[[0, 0, 0], [1.2, 0.05, 0]])
    first = first + Atoms("Ar3", positions=[[0, 0, 4], [0, 4, 0], [3, -3, -3]])
    last = last + Atoms("Ar3", positions=[[0, 0, 4], [0, 4, 0], [3, -3, -3]])

    def closest(interpolation: str) -> float:
        path = interpolate(first, last, BandSettings(images=7, interpolation=interpolation))
        assert path.shape == (7, 5, 3)
        return float((path[:, 1] - path[:, 0]).norm(dim=-1).min())

    assert closest("linear") < 0.2
    assert closest("idpp") > 0.9
    first.pbc = True
    first.set_cell([20, 20, 20])
    with pytest.raises(ValueError, match="takes molecules; set `interpolation: linear`"):
        interpolate(first, last, BandSettings())
