"""The textbook hydrogen transfer on surfaces of tight binding, with what is known of it."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.vibrations import Vibrations as AseVibrations

from surefoot.barriers.judgement import SaddleSettings
from surefoot.barriers.labelled import LabelerSurface
from surefoot.barriers.paths import TransferPath, find_holder, read_paths
from surefoot.barriers.saddles import find_saddles
from surefoot.barriers.vibrations import find_vibrations
from surefoot.data.read import Frame
from surefoot.hat.sample import sample_paths
from surefoot.hat.transfer import Placement
from surefoot.label.xtb import Xtb
from surefoot.relax.run import Relaxation, relax
from surefoot.units import KCAL_PER_MOL

APART = 2.9  # Å, between the carbon atoms
BOND = 1.09


def methyl(place: float, flap: float, turn: float) -> np.ndarray:
    """A carbon atom on the axis and three hydrogens about it, Å."""
    turns = 2 * np.pi / 3 * np.arange(3) + turn
    ring = 1.05 * np.stack([np.cos(turns), np.sin(turns), np.zeros(3)], 1)
    ring[:, 2] += flap
    return np.vstack([np.zeros(3), ring]) + np.array([0, 0, place])


def exchange() -> TransferPath:
    """CH4 + CH3 to CH3 + CH4, staggered; the hydrogen that moves is the last atom."""
    ends = []
    for place, flaps in ((BOND, (-0.36, 0.05)), (APART - BOND, (-0.05, 0.36))):
        halves = methyl(0.0, flaps[0], 0.0), methyl(APART, flaps[1], np.pi / 3)
        atoms = Atoms("CH3CH3H", positions=[*halves[0], *halves[1], [0, 0, place]])
        atoms.info |= {"charge": 0, "spin": 2}
        ends.append(atoms)
    return TransferPath(name="exchange", images=tuple(ends), hydrogen=8, donor=0, acceptor=4,
                        reference=None, method="", place="here")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "complexed", "apart", "length"),
    [("GFN2-xTB", 1.4, -0.8, 1.321), ("spGFN2-xTB", 4.5, 3.5, 1.328)],
)
@pytest.mark.parametrize("start", ["scan", "band"])
def test_methyl_takes_a_hydrogen_from_methane(method, complexed, apart, length, start) -> None:
    """From a scan and from relaxed ends, above the complex and above molecules far apart."""
    surface = LabelerSurface(labeler=Xtb(method=method))
    settings = SaddleSettings(start=start, check="band" if start == "scan" else "none")
    (search,) = find_saddles([exchange()], surface, settings)
    assert search.found, search.reason
    first, top, _ = search.energies()
    assert (top - first) / KCAL_PER_MOL == pytest.approx(complexed, abs=0.15)
    assert search.band_barrier == pytest.approx(top - first, abs=0.1 * KCAL_PER_MOL)
    assert search.lengths == pytest.approx((length, length), abs=0.006)
    assert search.vibrations.share(0, 8) > 0.7
    parts = [Atoms("CH3", positions=methyl(0.0, 0.05, 0.0)),
             Atoms("CH4", positions=[*methyl(0.0, -0.36, 0.0), [0, 0, BOND]])]  # fmt: skip
    for atoms, spin in zip(parts, (2, 1), strict=True):
        atoms.info |= {"charge": 0, "spin": spin}
    free = relax(parts, surface, Relaxation(fmax=5e-3))
    energy = sum(float(one.evaluation.energy[0]) for one in free)
    assert (top - energy) / KCAL_PER_MOL == pytest.approx(apart, abs=0.2)


@pytest.mark.slow
def test_methyl_takes_a_hydrogen_from_capped_glycine() -> None:
    """23 atoms, from a scan as `hat scan` makes them to a saddle point and both complexes."""
    placement = Placement(shortest=0.8, longest=1.4)
    images = sample_paths(["GLY"], ["methyl"], 1, 3, 9, placement)
    frames = [
        Frame(atoms=atoms, energy=None, charge=0, spin=2, group="", config_type="", file="here",
              index=number) for number, atoms in enumerate(images)
    ]  # fmt: skip
    (path,) = read_paths(frames)
    surface = LabelerSurface(labeler=Xtb(method="spGFN2-xTB"))
    settings = SaddleSettings(check="band")
    (search,) = find_saddles([path], surface, settings)
    assert search.found, search.reason
    first, top, last = search.energies()
    assert last < first < top  # a radical of glycine is far below methyl
    assert search.band_barrier == pytest.approx(top - first, abs=0.3 * KCAL_PER_MOL)
    assert all(1.1 <= length <= 1.7 for length in search.lengths)
    assert find_holder(search.start.atoms, path) == path.donor
    assert find_holder(search.end.atoms, path) == path.acceptor


def test_vibrations_of_water(tmp_path) -> None:
    """Those that ASE finds with its own differences, and three of them alone."""
    labeler = Xtb(accuracy=0.01)
    water = Atoms("OHH", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    water.info |= {"charge": 0, "spin": 1}
    surface = LabelerSurface(labeler=labeler)
    (relaxed,) = relax([water], surface, Relaxation(fmax=1e-4))
    found = find_vibrations(relaxed.atoms, surface)
    assert found.frequencies.shape == (3,)

    class Labelled(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            labels = labeler.label(self.atoms, 0, 1)
            self.results = {"energy": labels.energy, "forces": labels.forces}

    peer = relaxed.atoms.copy()
    peer.calc = Labelled()
    theirs = AseVibrations(peer, delta=0.01, name=str(tmp_path / "v"))
    theirs.run()
    expected = theirs.get_frequencies()[-3:].real
    np.testing.assert_allclose(found.frequencies, expected, rtol=2e-3)
