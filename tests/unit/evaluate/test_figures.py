import json
from dataclasses import replace

import numpy as np
import pytest

from surefoot.evaluate.figures import (
    describe_differences,
    describe_error_bars,
    describe_failures,
    describe_histogram,
    describe_vectors,
    show,
)
from surefoot.evaluate.quantiles import fit_conformal, fit_isotonic
from surefoot.evaluate.quantities import (
    NEGLIGIBLE,
    Binning,
    Differences,
    Quantity,
    Structures,
    Vectors,
)
from surefoot.evaluate.scoring import gaussian_crps

COUNT = 600


@pytest.fixture
def quantity() -> Quantity:
    """Errors four times as large as the error bars were before a factor of 2."""
    generator = np.random.default_rng(0)
    std = 2.0 * np.exp(0.5 * generator.normal(size=COUNT))
    residuals = 2.0 * std * generator.normal(size=COUNT)
    conformal = fit_conformal(residuals[:300], std[:300], np.arange(300))
    isotonic = fit_isotonic(residuals[:300], std[:300])
    std[5] = 0.0  # all draws agree

    def spread(bounds):
        return lambda level: tuple(np.full(COUNT, value) for value in bounds(level))

    return Quantity(
        name="forces",
        unit="meV/Å",
        residuals=residuals,
        std=std,
        factor=2.0,
        groups=np.arange(COUNT) // 6,
        types=np.array(["a", "b"])[np.arange(COUNT) % 2],
        strata={"element": np.array(["1", "6", "8"])[np.arange(COUNT) % 3]},
        bounds={"conformal": spread(conformal.bounds), "isotonic": spread(isotonic.bounds)},
    )


def test_error_bars_before_and_after(quantity) -> None:
    found = describe_error_bars(quantity, seed=1, draws=50)
    assert found is not None
    assert (found["points"], found["groups"], found["factor"]) == (COUNT - 1, 100, 2.0)
    assert found["before"]["mean_square"][0] == pytest.approx(16.0, rel=0.2)
    assert found["after"]["mean_square"][0] == pytest.approx(4.0, rel=0.2)
    assert found["before"]["spearman"] == found["after"]["spearman"]
    assert found["after"]["ence"][0] > found["after"]["ence_reference"][2]
    for name in ("conformal", "isotonic"):
        rows = found["recalibrated"][name]
        assert rows["coverage_90"][0] == pytest.approx(0.9, abs=0.05)
        assert rows["coverage_50"][0] == pytest.approx(0.5, abs=0.08)
    assert set(found["strata"]) == {"config_type", "element"}
    kinds = found["strata"]["element"].values()
    assert sum(kind["count"] for kind in kinds) == COUNT - 1
    curves = found["curves"]
    assert curves["sparsification"]["kept"][-1] == 1.0
    rmse = np.sqrt(np.mean(np.delete(quantity.residuals, 5) ** 2))
    for order in ("by_std", "oracle"):
        assert curves["sparsification"][order][-1] == pytest.approx(rmse)
    assert np.mean(curves["pit"]["density"]) == pytest.approx(1.0)
    json.dumps(found, allow_nan=False)


def test_without_error_bars_there_is_nothing_to_say(quantity) -> None:
    bare = {name: getattr(quantity, name) for name in ("name", "unit", "residuals", "groups")}
    assert describe_error_bars(
        Quantity(**bare, std=None, factor=1.0, types=quantity.types), seed=0
    ) is None  # fmt: skip


def test_a_single_group_has_null_intervals(quantity) -> None:
    alone = Quantity(
        name="energy",
        unit="meV/atom",
        residuals=quantity.residuals,
        std=np.ones(COUNT),
        factor=1.0,
        groups=np.zeros(COUNT),
        types=quantity.types,
    )
    found = describe_error_bars(alone, seed=0, draws=5)
    assert found is not None
    assert found["after"]["nll"][1:] == [None, None]
    assert found["after"]["spearman"] == [None, None, None]
    json.dumps(found, allow_nan=False)


def test_vectors_histograms_and_failures_are_json() -> None:
    generator = np.random.default_rng(2)
    groups = np.arange(300) // 5
    residuals = generator.normal(size=(300, 3))
    vectors = Vectors(
        residuals=residuals, covariance=np.broadcast_to(np.eye(3), (300, 3, 3)), groups=groups
    )
    found = describe_vectors(vectors, seed=0, draws=20)
    assert found["mean_square"][0] == pytest.approx(3.0, abs=0.5)
    assert found["coverage_95"][0] == pytest.approx(0.95, abs=0.04)
    nll = np.where(np.arange(300) == 4, np.inf, 1.0)  # a label outside all bins
    sizes = np.exp(generator.normal(size=300))
    binning = Binning(
        name="energy", unit="eV", pit=generator.random(300), crps=np.ones(300), nll=nll,
        groups=groups, errors=sizes * generator.normal(size=300), beyond=np.full(300, 0.25),
        in_last=np.arange(300) < 60,
        scores={"size": sizes, "chance": generator.random(300), "all alike": np.ones(300)},
    )  # fmt: skip
    binned = describe_histogram(binning, seed=0, draws=20)
    assert (binned["points"], binned["outside"]) == (300, 1 / 300)
    assert binned["nll"][0] == 1.0
    assert binned["open_bin"] == {"mass": 0.25, "labels": 0.2}
    size, chance, alike = binned["ranking"].values()
    assert size["spearman"][1] > 0.2
    assert size["ause"][2] < 0.8
    assert abs(chance["spearman"][0]) < 0.15
    assert chance["ause"][0] == pytest.approx(1.0, abs=0.2)
    assert alike["spearman"] == alike["ause"] == [None, None, None]
    assert size["median"] == pytest.approx(1.0, abs=0.15)
    errors = generator.lognormal(size=300)
    structures = Structures(
        errors=errors, scores={"errors": errors}, groups=groups, types=groups, counted=groups >= 0
    )
    failures = describe_failures(structures, np.arange(300) >= 150, seed=0, draws=20)
    assert failures["auroc"]["errors"]["failures"][0] == 1.0
    json.dumps([found, binned, failures], allow_nan=False)


def test_one_sigma_for_all_points_is_the_reference_of_crps(quantity) -> None:
    """Error bars that know where errors are do better than that, with the right factor."""
    right = replace(quantity, std=2.0 * quantity.std)
    found = describe_error_bars(right, seed=1, draws=20)
    assert found is not None
    usable = right.scorable
    rms = np.sqrt(np.mean(right.residuals[usable] ** 2))
    expected = np.mean(gaussian_crps(right.residuals[usable], np.full(usable.sum(), rms)))
    for name in ("before", "after"):
        assert found[name]["crps_reference"] == [expected, None, None]
    assert found["after"]["crps"][0] < expected


def test_differences_beside_two_assumptions() -> None:
    """Frames that share nine tenths of their variance."""
    generator = np.random.default_rng(4)
    common, own = np.sqrt(0.9), np.sqrt(0.1)
    count = 2000
    pairs = common * generator.normal(size=(count, 1)) + own * generator.normal(size=(count, 2))
    differences = Differences(
        residuals=pairs[:, 1] - pairs[:, 0],
        std=np.full(count, np.sqrt(2) * own),
        independent=np.full(count, np.sqrt(2)),
        correlated=np.zeros(count),
        groups=np.arange(count),
        factor=1.5,
    )
    found = describe_differences(differences, seed=0, draws=50)
    assert found["std"]["coverage_90"][0] == pytest.approx(0.9, abs=0.02)
    assert found["independent"]["coverage_90"][0] > 0.99
    assert found["correlated"]["coverage_90"][0] == 0.0
    assert found["std"]["sharpness"] == pytest.approx(found["rmse"], rel=0.05)
    json.dumps(found, allow_nan=False)


def test_labels_outside_of_a_histogram_are_not_covered() -> None:
    """They have no density, so no likelihood, but all other figures know of them."""
    count = 100
    outside = np.arange(count) < 50
    binning = Binning(
        name="energy",
        unit="eV",
        pit=np.where(outside, 1.0, 0.5),
        crps=np.where(outside, 3.0, 1.0),
        nll=np.where(outside, np.inf, 1.0),
        groups=np.arange(count),
        errors=np.where(outside, 3.0, 1.0),
        scores={},
    )
    found = describe_histogram(binning, seed=0, draws=20)
    assert found["outside"] == 0.5
    assert found["open_bin"] is None
    assert found["coverage_95"][0] == 0.5
    assert found["crps"][0] == 2.0
    assert found["pit_ks"][0] == pytest.approx(0.5)
    assert found["nll"] == [1.0, 1.0, 1.0]
    none = replace(binning, nll=np.full(count, np.inf), pit=np.ones(count))
    lost = describe_histogram(none, seed=0, draws=20)
    assert (lost["outside"], lost["coverage_95"][0], lost["nll"][0]) == (1.0, 0.0, None)
    json.dumps(lost, allow_nan=False)


def test_points_are_judged_down_to_the_rounding_they_are_calibrated_to() -> None:
    """A spread of rounding beside an ordinary residual would decide every figure."""
    generator = np.random.default_rng(3)
    std = np.concatenate([np.ones(99), [NEGLIGIBLE / 2]])
    quantity = Quantity(
        name="forces",
        unit="meV/Å",
        residuals=np.concatenate([generator.normal(size=99), [1.0]]),
        std=std,
        factor=1.0,
        groups=np.arange(100),
        types=np.full(100, "a"),
    )
    found = describe_error_bars(quantity, seed=0, draws=5)
    assert found is not None
    assert found["points"] == 99
    assert found["after"]["mean_square"][0] == pytest.approx(1.0, abs=0.5)


def test_estimates_are_shown_with_as_many_digits_as_matter() -> None:
    assert show([0.12345, 0.1, 0.2]) == "0.123 [0.100, 0.200]"
    assert show([2046.7, 1127.0, 12.34]) == "2047 [1127, 12.34]"
    assert show([-123.45, None, None]) == "-123.5"
    assert show([None, None, None]) == "–"
