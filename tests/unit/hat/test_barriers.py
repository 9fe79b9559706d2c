"""Barriers of scans: heights, error bars, the regression beside them, and the table."""

import csv
import io
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from surefoot.evaluate.calibration import central_bound
from surefoot.hat.barriers import (
    COLUMNS,
    Barrier,
    Scan,
    Summary,
    barrier,
    describe,
    format_csv,
    read_scans,
    summarize,
    to_records,
)
from surefoot.units import KCAL_PER_MOL

FACTOR = 1.8
UPHILL = np.array([-10.0, -9.6, -9.2, -9.5, -9.9])


def scan_of(
    energies: np.ndarray,
    members: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    name: str = "path0",
    translation: float = 1.0,
    method: str = "EMT",
) -> Scan:
    return Scan(
        calibrated=True,
        name=name,
        donor="GLY",
        translation=translation,
        reference=reference,
        energies=energies,
        members=np.stack([energies, energies]) if members is None else members,
        method=method,
    )


def images_of(
    members: np.ndarray,
    reference: np.ndarray | None = None,
    name: str = "path0",
    translation: float = 1.25,
    factor: float = FACTOR,
) -> list[Atoms]:
    """A scan as `surefoot predict --members` writes it; members are raw, (members, points)."""
    images = []
    for point, draws in enumerate(members.T):
        atoms = Atoms("CH", positions=[[0, 0, 0], [0, 0, 1.1 + 0.1 * point]])
        atoms.info |= {
            "system": name,
            "path_point": point,
            "translation": translation,
            "donor": "ALA",
            "energy_ensemble": draws,
            "energy_difference_factor": factor,
            "energy_uncertainty": 3.0 * np.ptp(draws),
        }
        if reference is not None:
            atoms.info |= {"REF_energy": reference[point], "label_method": "GFN2-xTB"}
        atoms.calc = SinglePointCalculator(atoms, energy=draws.mean())
        images.append(atoms)
    return images


def write(folder: Path, images: list[Atoms]) -> Path:
    ase.io.write(folder / "scans.xyz", images, format="extxyz")
    return folder / "scans.xyz"


@pytest.fixture
def members(rng) -> np.ndarray:
    return UPHILL + 0.05 * rng.normal(size=(6, len(UPHILL)))


# --- heights --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "forward", "reverse"),
    [
        ([0.0, 1.0, 3.0, 1.0, 0.5], 3.0, 2.5),
        ([0.0, 1.0, 2.0], 2.0, 0.0),  # ends at its maximum
        ([2.0, 1.0, 0.0], 0.0, 2.0),  # starts at it
        ([-5.0, -5.0, -5.0], 0.0, 0.0),
        ([1.0, -2.0, 1.0], 0.0, 0.0),  # a valley
    ],
)
def test_height_from_either_end(curve, forward, reverse) -> None:
    scan = scan_of(np.array(curve), reference=2 * np.array(curve))
    ahead, back = barrier(scan), barrier(scan, reverse=True)
    assert (ahead.value, back.value) == (forward, reverse)
    assert (ahead.reference, back.reference) == (2 * forward, 2 * reverse)
    assert ahead.std == back.std == 0.0


def test_no_reference() -> None:
    found = barrier(scan_of(UPHILL))
    assert found.reference is None
    assert not found.holds(0.9)


def test_spread_of_members_about_the_mean_curve() -> None:
    """Each member has a maximum of its own, and none need be that of the mean."""
    curves = np.array([[0.0, 1.0, 5.0, 0.0], [0.0, 6.0, 3.0, 3.0], [0.0, 2.0, 1.0, 0.0]])
    found = barrier(scan_of(curves.mean(0), curves))
    assert found.value == pytest.approx(3.0)
    # Heights 5, 6 and 2 about 3, not about their own mean 4.33.
    assert found.std == pytest.approx(np.sqrt((4 + 9 + 1) / 2))
    back = barrier(scan_of(curves.mean(0), curves), reverse=True)
    assert back.value == pytest.approx(2.0)
    assert back.std == pytest.approx(np.sqrt((9 + 1 + 0) / 2))  # heights 5, 3 and 2


def test_errors_common_to_all_points_cancel(members, rng) -> None:
    plain = barrier(scan_of(UPHILL, members))
    shifted = barrier(scan_of(UPHILL, members + 100.0 * rng.normal(size=(6, 1))))
    assert plain.std > 0
    assert shifted.std == pytest.approx(plain.std, rel=1e-9)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_interval(level) -> None:
    found = Barrier(value=2.0, std=0.3, reference=None)
    width = central_bound(level) * 0.3
    assert found.interval(level) == pytest.approx((2.0 - width, 2.0 + width))
    assert Barrier(value=0.1, std=0.3, reference=None).interval(level)[0] >= 0.0
    low, high = Barrier(value=0.1, std=5.0, reference=None).interval(level)
    assert low == 0.0
    assert high == pytest.approx(0.1 + central_bound(level) * 5.0)


def test_ninety_percent_are_1_645_standard_deviations() -> None:
    low, high = Barrier(value=5.0, std=1.0, reference=None).interval(0.9)
    assert high - low == pytest.approx(2 * 1.644854, rel=1e-6)


@pytest.mark.parametrize(
    ("reference", "held"), [(1.0, True), (1.5, True), (1.7, False), (0.3, False), (None, False)]
)
def test_reference_in_the_interval(reference, held) -> None:
    assert Barrier(value=1.0, std=0.4, reference=reference).holds(0.9) is held  # 0.34 … 1.66


def test_two_barriers_of_zero_agree() -> None:
    assert Barrier(value=0.0, std=0.0, reference=0.0).holds(0.9)
    assert Barrier(value=0.0, std=0.0, reference=1e-9).holds(0.9)
    assert not Barrier(value=0.0, std=0.0, reference=1e-3).holds(0.9)


# --- files ----------------------------------------------------------------------------------


def test_scans_of_a_file(tmp_path, members) -> None:
    """Two paths, their frames mixed and out of order."""
    reference = UPHILL + 0.1
    images = images_of(members, reference, "a") + images_of(members[:, ::-1], None, "b", 0.8)
    order = np.random.default_rng(1).permutation(len(images))
    scans = {scan.name: scan for scan in read_scans(write(tmp_path, [images[i] for i in order]))}
    assert set(scans) == {"a", "b"}
    first, second = scans["a"], scans["b"]
    np.testing.assert_allclose(first.energies, members.mean(0), atol=1e-7)
    np.testing.assert_allclose(second.energies, members.mean(0)[::-1], atol=1e-7)
    np.testing.assert_allclose(first.reference, reference, atol=1e-7)
    assert second.reference is None
    assert (first.donor, first.translation, first.method) == ("ALA", 1.25, "GFN2-xTB")
    assert (second.translation, second.method) == (0.8, "the label in the file")


def test_members_are_widened_to_the_calibrated_spread(tmp_path, members) -> None:
    """By the factor of energy differences, about the mean; that of energies is another."""
    (scan,) = read_scans(write(tmp_path, images_of(members)))
    assert scan.members.shape == members.shape
    np.testing.assert_allclose(scan.members.mean(0), scan.energies, atol=1e-7)
    expected = members.mean(0) + FACTOR * (members - members.mean(0))
    np.testing.assert_allclose(scan.members, expected, atol=1e-6)


def test_error_bars_grow_with_the_factor(tmp_path) -> None:
    """All members have their maximum at the same point, so that heights are linear in them."""
    members = UPHILL * (1 + 0.02 * np.arange(-2, 3))[:, None]
    found = []
    for factor in (1.0, 2.5):
        (scan,) = read_scans(write(tmp_path, images_of(members, factor=factor)))
        found.append(barrier(scan))
    assert found[0].value == found[1].value == pytest.approx(0.8)
    assert found[0].std == pytest.approx(0.8 * 0.02 * np.sqrt(2.5), rel=1e-5)
    assert found[1].std == pytest.approx(2.5 * found[0].std, rel=1e-5)


def test_labels_on_some_points_only_are_no_reference(tmp_path, members) -> None:
    images = images_of(members, UPHILL)
    del images[2].info["REF_energy"]
    (scan,) = read_scans(write(tmp_path, images))
    assert scan.reference is None


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_packed_scans(tmp_path, members, suffix) -> None:
    path = tmp_path / f"scans.xyz{suffix}"
    ase.io.write(path, images_of(members), format="extxyz")
    assert len(read_scans(str(path))) == 1


@pytest.mark.parametrize("name", ["system", "path_point", "translation", "energy_ensemble"])
def test_frames_that_belong_to_no_scan(tmp_path, members, name) -> None:
    images = images_of(members)
    del images[1].info[name]
    with pytest.raises(ValueError, match=rf"scans\.xyz, frame 1: info has no '{name}'.*--members"):
        read_scans(write(tmp_path, images))


def test_one_member_has_no_error_bar(tmp_path, members) -> None:
    with pytest.raises(ValueError, match=r"frame 0: predicted by one member.*members: 8"):
        read_scans(write(tmp_path, images_of(members[:1])))


@pytest.mark.parametrize("kept", [[0, 1, 3, 4], [1, 2, 3], [0, 1], [0, 1, 1, 2]])
def test_missing_or_double_points(tmp_path, members, kept) -> None:
    images = images_of(members, name="good") + [images_of(members, name="bad")[i] for i in kept]
    with pytest.raises(ValueError, match=r"scans\.xyz, path bad: points are missing"):
        read_scans(write(tmp_path, images))


def test_missing_file(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"absent\.xyz: there is no such file"):
        read_scans(tmp_path / "absent.xyz")


# --- the regression on the distance ---------------------------------------------------------


def hills(translations: np.ndarray, heights: np.ndarray) -> list[Scan]:
    return [
        scan_of(
            np.array([0.0, 0.5, 0.1]),
            reference=np.array([0.0, height, 0.0]),
            name=f"path{number}",
            translation=float(x),
        )
        for number, (x, height) in enumerate(zip(translations, heights, strict=True))
    ]


@pytest.mark.parametrize(("kind", "degree"), [("linear", 1), ("quadratic", 2)])
def test_leave_one_out_equals_as_many_fits(kind, degree) -> None:
    x = np.array([0.5, 0.62, 0.8, 0.97, 1.1, 1.31, 1.48, 1.7, 2.0])
    heights = np.array([0.0, 0.3, 0.0, 0.0, 0.9, 1.1, 0.7, 2.2, 1.9])
    found = summarize(hills(x, heights), 0.9).baselines[kind]
    clamped = 0
    for left_out in range(9):
        rest = np.arange(9) != left_out
        fit = np.polyfit(x[rest], heights[rest], degree)
        predicted = np.polyval(fit, x[left_out])
        clamped += predicted < 0
        assert found[left_out] == pytest.approx(
            abs(heights[left_out] - max(predicted, 0.0)), rel=1e-8, abs=1e-10
        )
    assert clamped  # otherwise the clamp at zero was not tested


def test_regression_needs_enough_labelled_paths(rng) -> None:
    x, heights = rng.uniform(0.5, 2.0, size=5), rng.uniform(1.0, 2.0, size=5)
    scans = [*hills(x, heights), scan_of(UPHILL, translation=50.0)]  # the last has no label
    assert set(summarize(scans, 0.9).baselines) == {"linear", "quadratic"}
    assert [len(errors) for errors in summarize(scans, 0.9).baselines.values()] == [5, 5]
    assert set(summarize(scans[:4], 0.9).baselines) == {"linear"}
    assert summarize(scans[:3], 0.9).baselines == {}
    assert summarize(scans[-1:], 0.9).baselines == {}


def test_exact_line_has_no_error() -> None:
    x = np.linspace(0.5, 2.0, 6)
    baselines = summarize(hills(x, 3.0 * x), 0.9).baselines
    for errors in baselines.values():
        np.testing.assert_allclose(errors, 0.0, atol=1e-10)


@pytest.mark.parametrize(
    ("translations", "kinds"),
    [
        ([1.0] * 6, set()),  # one distance: no slope
        ([1.0] * 5 + [2.0], set()),  # without the last path there is no slope
        ([1.0] * 3 + [2.0] * 3, {"linear"}),  # two distances: no curvature
        ([1.0, 1.0, 2.0, 2.0, 1.5, 1.0], {"linear"}),  # curvature rests on one path
        ([1.0, 1.0, 2.0, 2.0, 1.5, 1.5], {"linear", "quadratic"}),
    ],
)
def test_regression_needs_different_distances(
    rng, translations: list[float], kinds: set[str]
) -> None:
    scans = hills(np.array(translations), rng.uniform(1.0, 2.0, size=6))
    baselines = summarize(scans, 0.9).baselines
    assert set(baselines) == kinds
    assert all(errors.max() < 10 for errors in baselines.values())


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 90.0])
def test_impossible_levels(level) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        summarize([scan_of(UPHILL)], level)


# --- table and sentences --------------------------------------------------------------------


@pytest.fixture
def summary(members) -> Summary:
    labelled = scan_of(
        UPHILL, members, UPHILL * 0.9, name="a", method="GFN2-xTB", translation=1.23456
    )
    return summarize([labelled, scan_of(UPHILL[::-1].copy(), members, name="b")], 0.9)


def test_records_are_in_kcal_per_mol(summary) -> None:
    records = to_records(summary)
    assert [(r["path"], r["direction"]) for r in records] == [
        ("a", "forward"),
        ("a", "reverse"),
        ("b", "forward"),
        ("b", "reverse"),
    ]
    first = records[0]
    assert set(first) == set(COLUMNS)
    assert first["translation_A"] == 1.2346
    assert first["predicted_kcal"] == pytest.approx(0.8 / 0.0433641, abs=1e-3)
    assert first["reference_kcal"] == pytest.approx(0.72 / 0.0433641, abs=1e-3)
    assert first["uncertainty_kcal"] == pytest.approx(
        summary.forward[0].std / KCAL_PER_MOL, abs=1e-4
    )
    low, high = summary.forward[0].interval(0.9)
    assert first["low_kcal"] == pytest.approx(low / KCAL_PER_MOL, abs=1e-4)
    assert first["high_kcal"] == pytest.approx(high / KCAL_PER_MOL, abs=1e-4)
    assert records[1]["predicted_kcal"] == pytest.approx(0.7 / 0.0433641, abs=1e-3)
    assert records[2]["reference_kcal"] == ""


def test_csv_says_first_what_the_numbers_are_not(summary) -> None:
    text = format_csv(summary)
    first, rest = text.split("\n", 1)
    assert first == "# rigid scans on the GFN2-xTB surface, not true barriers"
    rows = list(csv.DictReader(io.StringIO(rest)))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 4
    assert float(rows[0]["predicted_kcal"]) == to_records(summary)[0]["predicted_kcal"]
    assert rows[3]["reference_kcal"] == ""


def test_sentences_compare_with_the_references(rng) -> None:
    """Five paths 1 kcal/mol too high, one of them with an error bar that is wide enough."""
    scans = []
    for number in range(5):
        curve = np.array([0.0, 0.5 + 0.1 * number, 0.0])
        width = 1.0 if number == 0 else 1e-4
        curves = curve + width * KCAL_PER_MOL * np.array([[0, -1, 0], [0, 1, 0]])
        reference = curve - np.array([0.0, KCAL_PER_MOL, 0.0])
        translation = (0.7, 1.9, 1.1, 1.6, 0.9)[number]
        scans.append(scan_of(curve, curves, reference, f"p{number}", translation))
    found = summarize(scans, 0.9)
    lines = describe(found)
    assert lines[0] == (
        "forward: 5 paths, barrier MAE 1.00 kcal/mol (4.18 kJ/mol), RMSE 1.00 kcal/mol; 20% of the "
        "references lie in the 90% interval"
    )
    mae = found.baselines["linear"].mean() / KCAL_PER_MOL
    assert (
        f"MAE {mae:.2f} kcal/mol ({4.184 * mae:.2f} kJ/mol); ours is {1 / mae:.2f} of it"
        in lines[1]
    )
    assert "quadratic" in lines[2]
    assert lines[3].startswith("reverse: 5 paths, barrier MAE 1.00")
    assert lines[4] == "These are barriers of rigid scans on the surface of EMT."


def test_sentences_without_references() -> None:
    lines = describe(summarize([scan_of(UPHILL, method="GFN2-xTB (doublet)")], 0.9))
    assert len(lines) == 1
    assert "some 18 kcal/mol too low" in lines[0]


def test_downhill_paths_are_counted_apart() -> None:
    down = np.array([1.0, 0.5, 0.0])
    scans = [scan_of(down, reference=2 * down), scan_of(UPHILL, reference=UPHILL + UPHILL**2)]
    lines = describe(summarize(scans, 0.9))
    assert "50% of the references" in lines[0]
    assert lines[1] == ("  without the 1 paths that go downhill for label and all members: 0% of 1")
    # Where all go downhill there is nothing to add.
    lines = describe(summarize(scans[:1], 0.9))
    assert lines[0].startswith("forward: 1 paths, barrier MAE 0.00")
    assert lines[1].startswith("reverse")
