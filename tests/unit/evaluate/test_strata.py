import numpy as np
import pytest

from surefoot.evaluate.strata import name_ranges, stratify


def test_each_kind_by_hand() -> None:
    generator = np.random.default_rng(0)
    kinds = np.repeat(["C", "H"], [400, 600])
    std = np.where(kinds == "C", 2.0, 1.0)
    residuals = 1.5 * generator.normal(size=1000)  # C too wide, H too narrow, right on average
    groups = np.arange(1000) // 5
    found = stratify(residuals, std, kinds, groups, generator)
    assert list(found) == ["C", "H"]
    for name, width in (("C", 2.0), ("H", 1.0)):
        own = residuals[kinds == name]
        stratum = found[name]
        assert stratum.count == len(own)
        assert stratum.rmse == pytest.approx(np.sqrt(np.mean(own**2)))
        assert stratum.sharpness == width
        assert stratum.mean_square == pytest.approx(np.mean((own / width) ** 2))
        assert stratum.coverage == np.mean(np.abs(own) <= 1.959963984540054 * width)
    assert found["H"].interval.high < 0.95 < found["C"].interval.low


def test_ranges_are_named_in_order() -> None:
    found = name_ranges(np.array([0.2, 0.5, 3.0, 0.0]), (0.5, 2.0), "eV/Å")
    assert found.tolist() == [
        "0 – 0.5 eV/Å",
        "0.5 – 2 eV/Å",
        "2 eV/Å and more",
        "0 – 0.5 eV/Å",
    ]
