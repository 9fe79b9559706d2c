"""The whole search on a surface with a known saddle point, and what fails with which reason."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms

from surefoot.barriers.bands import BandSettings
from surefoot.barriers.downhill import push_off
from surefoot.barriers.heights import Curve
from surefoot.barriers.judgement import SaddleSettings, Search, has_soft_mode, judge_saddle
from surefoot.barriers.rates import RateSettings
from surefoot.barriers.records import Judged, ReportSettings, record_scan, record_search
from surefoot.barriers.saddles import find_saddles
from surefoot.barriers.scans import judge_scan
from surefoot.barriers.tunnelling import log_eckart
from surefoot.barriers.vibrations import Vibrations
from surefoot.units import KCAL_PER_MOL

from .conftest import Formula, leps, path_of

SETTINGS = SaddleSettings(start="band", band=BandSettings(images=7))
SCAN = SaddleSettings(check="band", band=BandSettings(images=7))


@pytest.fixture(scope="module")
def found() -> Search:
    """A hydrogen between two carbon atoms."""
    return find_saddles([path_of(2, way=0.75)], Formula(leps, cutoff=3.0), SETTINGS)[0]


def test_saddle_point_of_a_transfer(found) -> None:
    assert found.found, found.reason
    first, top, last = found.energies()
    assert first == pytest.approx(last, abs=2e-3)
    assert found.lengths[0] == pytest.approx(found.lengths[1], abs=5e-3)
    assert found.vibrations.frequencies[0] < -300 < 0 < found.vibrations.frequencies[1]
    assert found.vibrations.share(0, 1) > 0.9
    # Band and refinement agree, and both are the maximum between two minima.
    assert found.band_barrier == pytest.approx(top - first, abs=0.1 * KCAL_PER_MOL)
    assert top > max(first, last) + 0.05
    # Independent of all this: the best of all symmetric structures in a line.
    lengths = torch.linspace(1.1, 1.6, 2001, dtype=torch.float64)
    line = torch.zeros(2001, 3, 3, dtype=torch.float64)
    line[:, 1, 0], line[:, 2, 0] = lengths, 2 * lengths
    assert top == pytest.approx(float(leps(line).min()), abs=1e-4)


def test_both_ends_lie_downhill(found) -> None:
    assert found.lowest is not None
    first, _, last = found.energies()
    assert found.lowest == pytest.approx((first, last), abs=0.03)  # relaxed less far
    one, other = push_off(found, 0.1)
    moved = np.linalg.norm(one.positions - other.positions, axis=1)
    assert moved.max() == pytest.approx(0.2)
    assert moved.argmax() == 1
    assert found.notes(SETTINGS) == []


def test_many_paths_at_once_give_each_its_own(found) -> None:
    bad = path_of(2, way=0.75, name="flat")
    flat = replace(bad, images=(bad.images[0], bad.images[0]))  # both ends are the start
    one, other = find_saddles([path_of(2, way=0.75), flat], Formula(leps), SETTINGS)
    assert one.found
    assert one.refined.energy == pytest.approx(found.refined.energy, abs=1e-6)
    assert not other.found
    assert "the end relaxes into the other side, C0–H: there is no barrier left" in other.reason
    assert other.images() == ()


@pytest.fixture(scope="module")
def scanned() -> Search:
    """The same from a rigid scan, whose carbon atoms are too far apart."""
    return find_saddles([path_of(7, way=0.9)], Formula(leps, cutoff=3.0), SCAN)[0]


def test_scan_and_band_lead_to_the_same_saddle_point(found, scanned) -> None:
    assert scanned.found, scanned.reason
    assert scanned.refined.energy == pytest.approx(found.refined.energy, abs=1e-4)
    assert scanned.lengths == pytest.approx(found.lengths, abs=5e-3)
    assert scanned.energies() == pytest.approx(found.energies(), abs=0.02)
    first, top, _ = scanned.energies()
    # The band knows nothing of the saddle point but what lies beside it.
    assert scanned.band_barrier == pytest.approx(top - first, abs=0.1 * KCAL_PER_MOL)
    assert scanned.start.atoms.get_distance(0, 1) < 1.2 < scanned.end.atoms.get_distance(0, 1)
    assert scanned.notes(SCAN) == []


def test_images_of_a_search_from_a_scan(scanned) -> None:
    """Start, band between the asides, end, saddle point; without a check, three."""
    images = scanned.images()
    assert len(images) == 7 + 3
    for place, atoms in ((0, scanned.start), (1, scanned.aside[0]), (-2, scanned.end)):
        np.testing.assert_array_equal(images[place].positions, atoms.atoms.positions)
    alone = replace(scanned, band=None)
    assert [len(one) for one in alone.images()] == [3, 3, 3]
    assert alone.band_barrier is None
    high = replace(scanned.band, energies=scanned.band.energies + 2 * KCAL_PER_MOL)
    (note,) = replace(scanned, band=high).notes(SCAN)
    assert "the band is +2.0 kcal/mol off the saddle point" in note


def test_only_ends_are_filled_up(found) -> None:
    (search,) = find_saddles([path_of(2, way=0.9)], Formula(leps), replace_check(SCAN))
    assert search.found, search.reason
    assert search.band is None
    assert search.refined.energy == pytest.approx(found.refined.energy, abs=1e-4)


def replace_check(settings: SaddleSettings) -> SaddleSettings:
    return settings.model_copy(update={"check": "none"})


@pytest.mark.parametrize("settings", [SETTINGS, replace_check(SCAN)])
def test_searches_are_told_as_soon_as_they_are_over(settings) -> None:
    """What is over before an interrupt is known; here the second of two last stages breaks off."""
    paths = [path_of(5, way=0.8, name=name) for name in ("one", "two")]
    over: list[Search] = []

    def tell(note: str) -> None:
        if "vibrations of the ends of two" in note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_saddles(paths, Formula(leps), settings, tell, finished=over.append)
    assert [(search.path.name, search.found) for search in over] == [("one", True)]


def test_steps_that_run_out_downhill_are_a_note() -> None:
    short = SCAN.downhill.model_copy(update={"steps": 25, "fmax": 1e-6})
    settings = replace_check(SCAN).model_copy(update={"downhill": short})
    (search,) = find_saddles([path_of(7, way=0.9)], Formula(leps), settings)
    assert search.found, search.reason
    notes = search.notes(settings)
    assert any(note.startswith("start not relaxed") for note in notes)


def downhill(positions: torch.Tensor) -> torch.Tensor:
    """The hydrogen goes to the acceptor, wherever it begins."""
    donor, hydrogen, acceptor = positions.unbind(1)
    reach = (hydrogen - acceptor).norm(dim=-1)
    apart = (donor - acceptor).norm(dim=-1)
    return 5 * (reach - 1.1) ** 2 + 5 * (apart - 2.9) ** 2


def test_no_barrier_left() -> None:
    (search,) = find_saddles([path_of(3)], Formula(downhill), SETTINGS)
    assert not search.found
    assert search.reason == (
        "the start relaxes into the other side, C2–H: there is no barrier left on this surface."
    )


def test_a_surface_without_numbers_is_a_reason() -> None:
    def lost(positions: torch.Tensor) -> torch.Tensor:
        return leps(positions) * torch.nan

    (search,) = find_saddles([path_of(3)], Formula(lost), SETTINGS)
    assert "the start can not be relaxed" in search.reason
    (search,) = find_saddles([path_of(3)], Formula(lost), SCAN)
    assert search.reason == "no image of the path has a finite energy."


def test_a_long_scan_is_drawn_together(scanned) -> None:
    """Its middle is where a search would end at once, more than 2.2 Å from both."""
    (search,) = find_saddles([path_of(9, way=2.6)], Formula(leps), replace_check(SCAN))
    assert search.found, search.reason
    np.testing.assert_allclose(search.lengths, scanned.lengths, atol=1e-3)


def test_a_scan_without_a_barrier_finds_none() -> None:
    (search,) = find_saddles([path_of(5)], Formula(downhill), SCAN)
    assert not search.found
    assert search.reason
    assert search.band is None


@pytest.mark.parametrize(
    ("frequencies", "share", "reason"),
    [
        ([-1200.0, 300.0, 900.0], 0.9, ""),
        ([-1200.0, -20.0, 900.0], 0.9, ""),  # noise
        ([20.0, 300.0, 900.0], 0.9, "one imaginary frequency is needed, and there is none"),
        ([-1200.0, -90.0, 900.0], 0.9, r"there are 2 \(1200i, 90i cm⁻¹\)"),
        ([-33.0, 300.0, 900.0], 0.9, "33i cm⁻¹, below 300; it is a soft saddle"),
        ([-900.0, 300.0, 900.0], 0.2, "the moving hydrogen has 20% of the imaginary vibration"),
    ],
)
def test_what_is_no_saddle_point_of_the_transfer(found, frequencies, share, reason) -> None:
    modes = np.zeros((3, 3, 3))
    modes[0, 1, 0], modes[0, 0, 0] = np.sqrt(share), np.sqrt(1 - share)
    search = replace(found, vibrations=Vibrations(frequencies=np.array(frequencies), modes=modes))
    told = judge_saddle(search, SETTINGS)
    if reason == "":
        assert told == ""
    else:
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(told)


@pytest.mark.parametrize(
    ("frequencies", "soft"),
    [
        ([-1200.0, -90.0, 900.0], True),
        ([-1200.0, -20.0, 900.0], False),
        ([-1200.0, -500.0, 900.0], False),
        ([-90.0, -60.0, 900.0], False),
    ],
)
def test_soft_second_modes(found, frequencies, soft) -> None:
    vibrations = Vibrations(frequencies=np.array(frequencies), modes=np.zeros((3, 3, 3)))
    assert has_soft_mode(replace(found, vibrations=vibrations), SETTINGS) is soft


@pytest.mark.parametrize("soft", [0.02, 0.003])  # eV; the slope beside the second is below fmax
def test_a_search_that_ends_on_two_maxima_goes_off_the_softer_one(soft: float) -> None:
    """Two ways round, of the same height, with a soft maximum between them."""

    def two_ways(positions: torch.Tensor) -> torch.Tensor:
        beside = positions[:, 3, 2] - positions[:, 0, 2] - 5.0
        return leps(positions[:, :3]) + soft * (8 * beside**2 - 1) ** 2 + _tether(positions)

    path = path_of(5, way=0.8)
    images = tuple(image + Atoms("Ne", positions=[[0, 0, 5.0]]) for image in path.images)
    for image, own in zip(images, path.images, strict=True):
        image.info = dict(own.info)
        image.set_constraint(FixAtoms([0]))
    surface = Formula(two_ways, cutoff=9.0)
    (search,) = find_saddles([replace(path, images=images)], surface, replace_check(SCAN))
    assert search.found, search.reason
    away = search.refined.atoms.positions[3, 2] - 5.0
    assert abs(away) == pytest.approx(8**-0.5, abs=0.02)


def _tether(positions: torch.Tensor) -> torch.Tensor:
    """What keeps everything but the hydrogen's way and the spectator's height where it is."""
    return 2 * (positions[:, 3, :2] ** 2).sum(-1) + 2 * (positions[:, 2, 1:] ** 2).sum(-1)


def test_lengths_at_the_saddle_point(found) -> None:
    far = found.refined.atoms.copy()
    far.positions[2, 0] += 2.0
    search = replace(found, refined=replace(found.refined, atoms=far))
    assert "C2–H is 3.3" in judge_saddle(search, SETTINGS)


def test_records_of_a_saddle_point(found) -> None:
    """Rates, tunnelling, zero-point energies, and intervals with covariance."""
    images = found.images()
    count = len(images)
    first, top, last = found.energies()
    energies = np.array([*found.band.energies.tolist(), top])
    # Ten curves of which saddle and start go up and down together, the end on its own.
    deviations = np.zeros((10, count))
    shared = np.linspace(-0.3, 0.3, 10)
    deviations[:, 0], deviations[:, -1], deviations[:, -2] = shared, 1.1 * shared, -shared
    curve = Curve(energies=energies, deviations=deviations, freedom=9, factor=2.0,
                  ood=np.linspace(0.2, 1.4, count))  # fmt: skip
    settings = ReportSettings(tunnelling="eckart", energy="zero-point")
    ahead, back = record_search(Judged(search=found, settings=SETTINGS, curve=curve), settings)
    kcal = (top - first) / KCAL_PER_MOL
    assert ahead["status"] == "saddle"
    assert ahead["predicted_kcal"] == pytest.approx(kcal, abs=1e-3)
    assert ahead["predicted_eV"] == pytest.approx(top - first, abs=1e-5)
    raw = 0.1 * np.sqrt((shared**2).sum() / 9) / KCAL_PER_MOL
    assert ahead["uncalibrated_kcal"] == pytest.approx(raw, rel=1e-3)
    assert ahead["uncertainty_kcal"] == pytest.approx(2 * raw, rel=1e-3)
    assert back["uncalibrated_kcal"] == pytest.approx(21 * raw, rel=1e-3)
    assert ahead["flags"] == "ood 1.4"
    assert ahead["ood"] == 1.4
    frequency = -found.vibrations.frequencies[0]
    passed = log_eckart(frequency, top - first, top - last, 300.0)
    assert ahead["log10_transmission"] == pytest.approx(passed / np.log(10), abs=1e-2)
    zero = found.vibrations.zero_point(1) - found.end_vibrations[0].zero_point()
    assert ahead["zero_point_kcal"] == pytest.approx(zero / KCAL_PER_MOL, abs=1e-3)
    expected = RateSettings().log_rate(top - first + zero, passed)
    assert ahead["log10_rate"] == pytest.approx(expected, abs=1e-3)
    assert ahead["log10_rate_low"] < ahead["log10_rate"] < ahead["log10_rate_high"]


def test_records_of_a_failure_keep_the_reason() -> None:
    (search,) = find_saddles([path_of(3)], Formula(downhill), SETTINGS)
    records = record_search(Judged(search=search, settings=SETTINGS), ReportSettings())
    assert [record["direction"] for record in records] == ["forward", "reverse"]
    for record in records:
        assert record["status"] == "no saddle"
        assert "no barrier left" in str(record["reason"])
        assert record["predicted_kcal"] == record["rate_per_ps"] == ""


def test_records_of_a_scan() -> None:
    energies = np.array([0.0, 0.2, 0.5, 0.3, 0.1])
    curve = Curve(energies=energies, deviations=np.array([0.1, -0.1])[:, None] * energies)
    scan = judge_scan(path_of(5, 0.9 * energies), curve)
    ahead, back = record_scan(scan, ReportSettings(rates=RateSettings(method="arrhenius")))
    assert ahead["predicted_kcal"] == pytest.approx(0.5 / KCAL_PER_MOL, abs=1e-3)
    assert back["predicted_kcal"] == pytest.approx(0.4 / KCAL_PER_MOL, abs=1e-3)
    assert ahead["reference_kcal"] == pytest.approx(0.45 / KCAL_PER_MOL, abs=1e-3)
    rates = RateSettings(method="arrhenius")
    low, high = scan.forward.interval(0.9)
    assert ahead["log10_rate"] == pytest.approx(rates.log_rate(0.5), abs=1e-3)
    assert ahead["log10_rate_low"] == pytest.approx(rates.log_rate(high), abs=1e-3)
    assert ahead["log10_rate_high"] == pytest.approx(rates.log_rate(low), abs=1e-3)
    assert ahead["flags"] == ""


def test_a_scan_that_is_highest_at_an_end_has_a_flag_and_no_rate() -> None:
    energies = np.array([0.5, 0.3, 0.1])
    scan = judge_scan(path_of(3, energies[::-1].copy()), Curve(energies=energies))
    ahead, back = record_scan(scan, ReportSettings())
    assert ahead["predicted_kcal"] == 0.0
    assert ahead["flags"] == "highest at its start; reference: highest at its end"
    assert back["flags"] == "highest at its end; reference: highest at its start"
    assert ahead["rate_per_ps"] == back["rate_per_ps"] == ""


def test_nothing_to_be_searched() -> None:
    assert find_saddles([], Formula(leps), SETTINGS) == []
