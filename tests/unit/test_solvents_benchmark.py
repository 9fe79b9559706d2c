"""The slope that benchmarks/solvents.py reports is that of ln(RMSE / σ) against ln N."""

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(("errors", "widths", "slope"), [(1, 1, 0), (1, 0.5, 0.5), (0.5, 1, -0.5)])
def test_slope_of_powers_of_the_size(errors, widths, slope, rng, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    solvents = importlib.import_module("solvents")
    # One size per class: within a class of many sizes the mean of ln N is not that of N.
    sizes = np.repeat(2 ** np.arange(solvents.CLASSES), 50)
    residuals = rng.choice([-1, 1], len(sizes)) * 0.1 * sizes**errors
    found = solvents.slope_by_counts(residuals, 0.3 * sizes**widths, sizes)
    assert found(np.ones(len(sizes))) == pytest.approx(slope, abs=1e-12)
    # A class that no draw of the bootstrap holds is left out.
    assert found(np.where(sizes == sizes[0], 0, 1)) == pytest.approx(slope, abs=1e-12)


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        ([0.1, 0.0, 0.14], "within ± 0.15"),
        ([0.1, -0.2, 0.4], "within ± 0.15, which the interval leaves open"),
        ([0.5, 0.0, 0.9], "beyond ± 0.15, which the interval leaves open"),
        ([0.5, 0.2, 0.9], "beyond ± 0.15"),
    ],
)
def test_a_mark_is_not_claimed_beyond_its_interval(interval, told, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    solvents = importlib.import_module("solvents")
    (line,) = solvents.say_slopes({"total": interval})
    assert line.endswith(f"], {told}")


def test_a_trial_is_kept_elsewhere(tmp_path, monkeypatch, capsys) -> None:
    """Also in a folder that is not there yet."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    solvents = importlib.import_module("solvents")
    trial = ["solvents.py", "--table", "--every", "10"]
    monkeypatch.setattr("sys.argv", [*trial, "--kept", str(tmp_path / "new")])
    solvents.main()
    assert capsys.readouterr().out.count("not yet run") == len(solvents.CONFIGS)
    monkeypatch.setattr("sys.argv", trial)
    with pytest.raises(SystemExit):
        solvents.main()
    assert "a trial is no result" in capsys.readouterr().err
