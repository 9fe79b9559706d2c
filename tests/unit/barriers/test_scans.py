"""Summaries of rigid scans: the regression beside them, and what is said of them."""

import numpy as np
import pytest

from surefoot.barriers.heights import Curve
from surefoot.barriers.scans import Scan, describe, judge_scan, summarize
from surefoot.units import KCAL_PER_MOL

from .conftest import path_of

UPHILL = np.array([-10.0, -9.6, -9.2, -9.5, -9.9])


def scan_of(
    energies: np.ndarray,
    reference: np.ndarray | None = None,
    deviations: np.ndarray | None = None,
    translation: float = 1.0,
    method: str = "EMT",
    factor: float | None = 1.0,
) -> Scan:
    path = path_of(len(energies), reference, f"p{translation}", method, translation)
    if deviations is None:
        deviations = np.zeros((2, len(energies)))
    return judge_scan(
        path, Curve(energies=energies, deviations=deviations, freedom=1, factor=factor)
    )


def hills(translations: np.ndarray, heights: np.ndarray) -> list[Scan]:
    return [
        scan_of(
            np.array([0.0, 0.5, 0.1]), np.array([0.0, height, 0.0]), translation=float(distance)
        )
        for distance, height in zip(translations, heights, strict=True)
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
    assert baselines
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


def test_sentences_compare_with_the_references() -> None:
    """Five paths 1 kcal/mol too high, one of them with an error bar that is wide enough."""
    scans = []
    for number in range(5):
        curve = np.array([0.0, 0.5 + 0.1 * number, 0.0])
        # Wide enough only with the factor of calibration, which is 3.
        width = 0.3 if number == 0 else 1e-4
        deviations = width * KCAL_PER_MOL * np.array([[0.0, -1, 0], [0, 1, 0]])
        reference = curve - np.array([0.0, KCAL_PER_MOL, 0.0])
        translation = (0.7, 1.9, 1.1, 1.6, 0.9)[number]
        scans.append(scan_of(curve, reference, deviations, translation, factor=3.0))
    found = summarize(scans, 0.9)
    lines = describe(found)
    assert lines[0] == (
        "forward: 5 paths, barrier MAE 1.00 kcal/mol (4.18 kJ/mol), RMSE 1.00 kcal/mol; 20% of the "
        "references lie in the 90% interval (0% before calibration)"
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


def test_what_the_error_bars_lack_is_said() -> None:
    bare = scan_of(UPHILL, factor=None)
    assert "bare spread of the draws" in describe(summarize([bare], 0.9))[0]
    none = judge_scan(path_of(5, UPHILL), Curve(energies=UPHILL))
    lines = describe(summarize([none], 0.9))
    assert lines[0].endswith("RMSE 0.00 kcal/mol")  # and no coverage of intervals that are not
    assert any("There are no error bars" in line for line in lines)


def test_paths_that_are_highest_at_an_end_are_counted() -> None:
    down = np.array([1.0, 0.5, 0.0])
    scans = [scan_of(down, 2 * down), scan_of(UPHILL, UPHILL + UPHILL**2)]
    lines = describe(summarize(scans, 0.9))
    assert "50% of the references" in lines[0]
    assert lines[1] == "  without the 1 paths that go downhill for label and all draws: 0% of 1"
    assert any(line.startswith("1 of 2 paths are highest at an end") for line in lines)
    # Where all go downhill there is nothing to add.
    lines = describe(summarize(scans[:1], 0.9))
    assert lines[0].startswith("forward: 1 paths, barrier MAE 0.00")
    assert lines[1].startswith("reverse")
