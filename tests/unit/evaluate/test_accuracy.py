import numpy as np
import pytest

from surefoot.evaluate.accuracy import Accuracy, accuracy, accuracy_by_type


def test_known_errors() -> None:
    found = accuracy(np.array([3.0, -4.0, 0.0, 5.0]))
    assert found.count == 4
    assert found.mae == pytest.approx(3.0)
    assert found.rmse == pytest.approx(np.sqrt(12.5))


def test_perfect_forecast_has_no_error() -> None:
    assert accuracy(np.zeros(5)) == Accuracy(5, 0.0, 0.0)


def test_single_precision_is_summed_in_double() -> None:
    residuals = np.full(1_000_000, 0.1, dtype=np.float32)
    assert accuracy(residuals).rmse == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_types_are_sorted_and_add_up_to_the_total() -> None:
    residuals = np.array([1.0, -2.0, 3.0, 4.0])
    types = np.array(["water", "dimer", "water", "bulk"])
    found = accuracy_by_type(residuals, types)
    assert list(found) == ["bulk", "dimer", "water"]
    assert found["water"] == Accuracy(2, 2.0, np.sqrt(5.0))
    total = sum(part.count * part.rmse**2 for part in found.values()) / 4
    assert total == pytest.approx(accuracy(residuals).rmse ** 2)


def test_atomic_numbers_are_types_in_numeric_order() -> None:
    found = accuracy_by_type(np.ones(3), np.array([17, 6, 1]))
    assert list(found) == ["1", "6", "17"]


def test_nan_and_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"point 1 is nan \(2 such points.*Leave out"):
        accuracy(np.array([0.0, np.nan, np.inf]))
    with pytest.raises(ValueError, match="no residuals"):
        accuracy(np.zeros(0))
    with pytest.raises(ValueError, match="no residuals"):
        accuracy_by_type(np.zeros(0), np.zeros(0, dtype=str))
