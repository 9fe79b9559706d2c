import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from surefoot.distributions.bins import Bins, error_bins, even_bins, residual_bins
from surefoot.distributions.masses import entropy, expectation, relative_entropy

DOUBLE = torch.float64
OPEN = Bins(edges=(-2.0, -1.0, 0.5, 1.0, 3.0), lower=0.7, upper=1.3)
BINS = {
    "hl_gauss": even_bins(1.0, 40),
    "hl_gauss wide": even_bins(3.0, 24, ratio=2.0),
    "two_hot": even_bins(1.0, 11, encoding="two_hot"),
    "one_hot": even_bins(2.0, 8, encoding="one_hot"),
    "open": OPEN,
    "open two_hot": OPEN.model_copy(update={"encoding": "two_hot"}),
    "open hl_gauss": Bins(
        edges=OPEN.edges, lower=0.7, upper=1.3, encoding="hl_gauss", smoothing=0.4
    ),
}
every_bins = pytest.mark.parametrize("bins", BINS.values(), ids=BINS.keys())


@every_bins
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_target_rows_sum_to_one_at_any_distance(bins, dtype) -> None:
    """A Gaussian six widths outside has no mass left in single precision: no such row is zero."""
    end, width = bins.edges[-1], bins.smoothing or 1.0
    away = torch.tensor([0, 0.3, 1, 5, 6, 10, 1e3, 1e10, 1e30], dtype=dtype) * width
    labels = torch.cat([end + away, -end - away, torch.linspace(-end, end, 301, dtype=dtype)])
    rows = bins.encode(labels)
    assert rows.shape == (len(labels), bins.count)
    assert rows.dtype == dtype
    assert bool((rows >= 0).all())
    assert float((rows.sum(-1) - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75, 1.0])
def test_decoding_bias_is_its_closed_form(ratio) -> None:
    """Over all places of a label within a bin: (w/π) exp(−2π²r²) at most."""
    bins = even_bins(1.0, 64, ratio=ratio)
    labels = torch.linspace(0, bins.width, 2001, dtype=DOUBLE)
    bias = float((expectation(bins.encode(labels), bins) - labels).abs().max()) / bins.width
    assert bias == pytest.approx(math.exp(-2 * (math.pi * ratio) ** 2) / math.pi, rel=1e-2)
    limits = {0.5: 2.5e-3, 0.75: 5e-6}
    assert bias <= limits.get(ratio, 0.1)


def test_two_hot_decodes_exactly_inside_the_centres() -> None:
    for bins in (BINS["two_hot"], BINS["open two_hot"]):
        centres = bins.centres(torch.zeros(1, dtype=DOUBLE))
        labels = torch.linspace(float(centres[0]), float(centres[-1]), 777, dtype=DOUBLE)
        found = expectation(bins.encode(labels), bins)
        torch.testing.assert_close(found, labels, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("inside", "bias"), [(0, 0.92), (1, 0.33), (2, 6.3e-2), (4, 2e-4)])
def test_truncation_bias_near_a_closed_end(inside, bias) -> None:
    """A label d σ_t inside an end is decoded too far inside; with the padding hardly."""
    bins = even_bins(1.0, 400, ratio=8.0)
    label = torch.tensor([bins.edges[-1] - inside * bins.smoothing], dtype=DOUBLE)
    found = float((label - expectation(bins.encode(label), bins)) / bins.smoothing)
    assert 0.5 * bias < found < 1.15 * bias


def test_padding_leaves_four_widths_beyond_the_labels() -> None:
    bins = even_bins(1.7, 50, ratio=0.75)
    assert bins.edges[-1] - 1.7 == pytest.approx(4 * bins.smoothing, rel=1e-10)
    assert bins.smoothing == pytest.approx(0.75 * bins.width, rel=1e-12)
    assert [-edge for edge in reversed(bins.edges)] == list(bins.edges)


@pytest.mark.parametrize("ratio", [0.75, 1.0, 2.0])
def test_entropy_of_a_target_is_the_floor(ratio) -> None:
    bins = even_bins(1.0, 64, ratio=ratio)
    labels = torch.linspace(-0.5, 0.5, 501, dtype=DOUBLE)
    assert float((entropy(bins.encode(labels)) - bins.floor).abs().max()) < 1e-3
    expected = 0.5 * math.log(2 * math.pi * math.e * (ratio**2 + 1 / 12))
    assert bins.floor == pytest.approx(expected, rel=1e-12)
    assert float(relative_entropy(bins.encode(labels), bins).max()) < 1e-3
    even = torch.full((1, 64), 1 / 64, dtype=DOUBLE)
    assert float(relative_entropy(even, bins)) == pytest.approx(1.0, abs=1e-12)


def test_open_bins_take_what_is_beyond_the_edges() -> None:
    labels = torch.tensor([-100.0, -2.5, -2.0, 0.4, 0.5, 2.9, 3.0, 1e9])
    assert OPEN.find(labels).tolist() == [0, 0, 1, 2, 3, 4, 5, 5]
    assert not OPEN.outside(labels).any()
    closed = Bins(edges=OPEN.edges)
    assert closed.find(labels).tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert closed.outside(labels).tolist() == [True, True] + [False] * 5 + [True]


def test_labels_outside_are_counted_and_too_many_refused() -> None:
    bins = even_bins(1.0, 16, encoding="one_hot")
    labels = torch.linspace(-1, 1, 1000, dtype=DOUBLE)
    assert bins.require_cover(labels, "labels") == 0.0
    labels[:7] = 5.0
    assert bins.require_cover(labels, "labels") == pytest.approx(0.007)
    labels[:130] = 5.0
    with pytest.raises(ValueError, match=r"do not cover the energies: 13 % of 1000 .* 5;"):
        bins.require_cover(labels, "energies")
    labels[3] = torch.nan
    with pytest.raises(ValueError, match="1 of 1000 energies are not finite"):
        bins.require_cover(labels, "energies")


def test_error_bins_follow_the_median(generator) -> None:
    errors = torch.randn((5000, 3), generator=generator, dtype=DOUBLE).norm(dim=-1)
    bins, scaled = error_bins(errors, 64), error_bins(1e-3 * errors, 64)
    assert bins.count == 64
    assert bins.lower is None
    middle = float(errors.median())
    assert bins.edges[0] == 0.0
    assert bins.edges[1] == pytest.approx(0.02 * middle)
    assert bins.edges[-1] == pytest.approx(50 * middle)
    steps = np.diff(np.log(bins.edges[1:]))
    assert np.allclose(steps, steps[0])
    assert np.allclose(np.array(scaled.edges), 1e-3 * np.array(bins.edges))


def test_the_tail_has_the_measured_excess(generator) -> None:
    errors = torch.rand(2000, generator=generator, dtype=DOUBLE)
    errors[:200] = 200 + 10 * torch.rand(200, generator=generator, dtype=DOUBLE)
    bins = error_bins(errors, 16)
    beyond = errors[errors > bins.edges[-1]] - bins.edges[-1]
    assert len(beyond) == 200
    assert bins.upper == pytest.approx(float(beyond.mean()), rel=0.02)


@pytest.mark.parametrize("spacing", ["asinh", "quantile"])
def test_residual_bins_are_symmetric_and_open(spacing, generator) -> None:
    residuals = 0.3 * torch.randn(4000, generator=generator, dtype=DOUBLE)
    bins = residual_bins(residuals, 32, spacing)
    assert bins.count == 32
    assert bins.lower == bins.upper
    assert [-edge for edge in reversed(bins.edges)] == list(bins.edges)
    counts = torch.bincount(bins.find(residuals), minlength=32)
    if spacing == "quantile":
        assert int(counts.max()) < 1.3 * 4000 / 32
        assert int(counts.min()) > 0.7 * 4000 / 32
    else:
        assert bins.edges[-1] == pytest.approx(20 * float(residuals.abs().mean()))


def test_what_can_not_be_measured_is_one_sentence() -> None:
    good = torch.rand(100, dtype=DOUBLE)
    with pytest.raises(ValueError, match="2 of 100 held-out errors are not finite"):
        error_bins(torch.where(torch.arange(100) < 2, torch.nan, good))
    with pytest.raises(ValueError, match="half of the held-out errors are 0"):
        error_bins(torch.zeros(100, dtype=DOUBLE))
    with pytest.raises(ValueError, match="all held-out residuals are 0"):
        residual_bins(torch.zeros(100, dtype=DOUBLE))
    with pytest.raises(ValueError, match="too few distinct values for 64 bins"):
        residual_bins(good[:20].round(decimals=1), 64, "quantile")
    with pytest.raises(ValueError, match="all padding"):
        even_bins(1.0, 6, ratio=0.75)
    with pytest.raises(ValueError, match="above 0 is needed"):
        even_bins(0.0, 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"edges": (0.0,)},
        {"edges": (0.0, 1.0, 1.0)},
        {"edges": (0.0, 1.0), "upper": 0.0},
        {"edges": (0.0, 1.0), "encoding": "hl_gauss"},
        {"edges": (0.0, 1.0), "smoothing": 0.1},
        {"edges": (0.0, float("inf"))},
    ],
)
def test_bins_that_do_not_exist(wrong) -> None:
    with pytest.raises(ValidationError):
        Bins(**wrong)
