"""Bins: where a histogram begins and ends, and labels as targets over its bins.

A bin between two edges holds its mass evenly. A first or last bin may be open; its mass then falls
off exponentially from the edge, with a mean excess that was measured, so that no label is outside
and an error beyond the last edge is still an error that was said.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from surefoot.settings import Settings

Encoding = Literal["one_hot", "two_hot", "hl_gauss"]
PADDING = 4.0  # target widths between the outermost label and the end of the support
TOLERATED = 0.01  # share of labels that may lie outside bins without open ends
ROUNDING = 1e-12  # by which even bins reach farther than they were asked to


class Bins(Settings):
    """The bins of a histogram and how a label is spread over them.

    Attributes:
        edges: ascending, finite, in the unit of the histogram.
        lower: mean of (first edge − y) in an open first bin; None where there is none.
        upper: mean of (y − last edge) in an open last bin; None where there is none.
        encoding: how a label becomes a target.
        smoothing: standard deviation σ_t of a label in HL-Gauss targets, in the unit of the edges.
    """

    edges: tuple[float, ...]
    lower: float | None = Field(default=None, gt=0)
    upper: float | None = Field(default=None, gt=0)
    encoding: Encoding = "one_hot"
    smoothing: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _are_bins(self) -> Bins:
        pairs = pairwise(self.edges)
        if len(self.edges) < 2 or not all(low < high for low, high in pairs):
            raise ValueError("edges of bins are two or more ascending numbers")
        if (self.encoding == "hl_gauss") != (self.smoothing > 0):
            raise ValueError(
                "hl_gauss targets have a smoothing above 0, and the others have none; "
                f"found {self.encoding} with {self.smoothing:g}"
            )
        return self

    @property
    def count(self) -> int:
        """How many bins there are, open ones included."""
        return len(self.edges) - 1 + (self.lower is not None) + (self.upper is not None)

    @property
    def floor(self) -> float:
        """Entropy in nats of the target of one label: what a perfect prediction can not go below.

        ½ ln(2πe (r² + 1/12)) with r = σ_t / w for HL-Gauss over even bins, within 0.01 where r ≥ ½;
        0 for one-hot, where a prediction may be certain. Two-hot targets have 0 to ln 2, depending
        on where in its bin a label lies; taken is 0.
        """
        if self.encoding != "hl_gauss":
            return 0.0
        ratio = self.smoothing / self.width
        return 0.5 * math.log(2 * math.pi * math.e * (ratio**2 + 1 / 12))

    @property
    def width(self) -> float:
        """The mean width of the bins between the edges."""
        return (self.edges[-1] - self.edges[0]) / (len(self.edges) - 1)

    def boundaries(self, like: Tensor) -> Float[Tensor, " edges"]:
        """The edges as a tensor, in the precision and on the device of another."""
        return torch.tensor(self.edges, dtype=like.dtype, device=like.device)

    def centres(self, like: Tensor) -> Float[Tensor, " bins"]:
        """The mean of each bin: its middle, or the edge and the mean excess of an open one."""
        edges = self.edges
        inner = [0.5 * (low + high) for low, high in pairwise(edges)]
        if self.lower is not None:
            inner.insert(0, edges[0] - self.lower)
        if self.upper is not None:
            inner.append(edges[-1] + self.upper)
        return torch.tensor(inner, dtype=like.dtype, device=like.device)

    def variances(self, like: Tensor) -> Float[Tensor, " bins"]:
        """The variance inside each bin: w²/12, or the square of the mean excess."""
        edges = self.edges
        inner = [(high - low) ** 2 / 12 for low, high in pairwise(edges)]
        if self.lower is not None:
            inner.insert(0, self.lower**2)
        if self.upper is not None:
            inner.append(self.upper**2)
        return torch.tensor(inner, dtype=like.dtype, device=like.device)

    def find(self, values: Float[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
        """The bin of each value; outside of closed ends the nearest one."""
        edges = self.boundaries(values)
        first = 0 if self.lower is not None else 1
        last = len(self.edges) if self.upper is not None else len(self.edges) - 1
        return (values.unsqueeze(-1) >= edges[first:last]).sum(-1)

    def outside(self, values: Float[Tensor, "*rows"]) -> Bool[Tensor, "*rows"]:
        """Which values lie beyond a closed end."""
        low = values < self.edges[0] if self.lower is None else torch.zeros_like(values).bool()
        high = values > self.edges[-1] if self.upper is None else torch.zeros_like(values).bool()
        return low | high

    def require_cover(self, values: Float[Tensor, "*rows"], what: str) -> float:
        """The share of labels beyond closed ends; refuse one that is too large.

        Args:
            values: labels in the unit of the edges.
            what: they are, for the message.
        Raises:
            ValueError: if a label is not a number, or if more than 1 % of them are outside.
        """
        require_numbers(values, what)
        rate = float(self.outside(values).double().mean()) if values.numel() else 0.0
        if rate > TOLERATED:
            low, high = float(values.min()), float(values.max())
            raise ValueError(
                f"the bins from {self.edges[0]:.4g} to {self.edges[-1]:.4g} do not cover the "
                f"{what}: {100 * rate:.3g} % of {values.numel()} lie outside, and they reach from "
                f"{low:.4g} to {high:.4g}; at most {100 * TOLERATED:g} % may. Measure the bins on "
                "these labels, or give a wider range."
            )
        return rate

    def encode(self, values: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows bins"]:
        """Labels as target rows; every row sums to one, however far a label is from the support.

        one_hot:   1 in the bin of the label
        two_hot:   shared by the two nearest centres such that their mean is the label
        hl_gauss:  q_k = [Φ((e_k − y)/σ_t) − Φ((e_{k−1} − y)/σ_t)] / [Φ((e_K − y)/σ_t) − Φ((e_0 − y)/σ_t)]

        Source: Imani and White 2018 for HL-Gauss; a label beyond a closed end is first moved to that
        end, where they normalise what is left of a Gaussian: in single precision nothing is left
        six σ_t outside, and such a row would be zero and teach nothing, without a word.
        """  # noqa: E501 - the equation stays on one line
        if self.encoding == "one_hot":
            hot = torch.arange(self.count, device=values.device)
            return (self.find(values).unsqueeze(-1) == hot).to(values.dtype)
        if self.encoding == "two_hot":
            centres = self.centres(values)
            steps = (values.unsqueeze(-1) - centres[:-1]) / centres.diff()
            reached = steps.clamp(0.0, 1.0)
            one, none = torch.ones_like(reached[..., :1]), torch.zeros_like(reached[..., :1])
            return -torch.cat([one, reached, none], -1).diff(dim=-1)
        return self._gauss(values)

    def _gauss(self, values: Tensor) -> Tensor:
        low = None if self.lower is not None else self.edges[0]
        high = None if self.upper is not None else self.edges[-1]
        if low is not None or high is not None:
            values = values.clamp(low, high)
        away = (self.boundaries(values) - values.unsqueeze(-1)) / self.smoothing
        below = torch.special.ndtr(away)
        parts = [below]
        if self.lower is not None:
            parts.insert(0, torch.zeros_like(below[..., :1]))
        if self.upper is not None:
            parts.append(torch.ones_like(below[..., :1]))
        masses = torch.cat(parts, -1).diff(dim=-1)
        return masses / masses.sum(-1, keepdim=True)


def require_numbers(values: Tensor, what: str) -> None:
    """Refuse labels that are not finite.

    Raises:
        ValueError: with how many there are.
    """
    wrong = int((~values.isfinite()).sum())
    if wrong:
        raise ValueError(
            f"{wrong} of {values.numel()} {what} are not finite numbers, and bins can not be "
            "measured on them; look at the data with `surefoot check`."
        )


def even_bins(
    reach: float, count: int, *, encoding: Encoding = "hl_gauss", ratio: float = 0.75
) -> Bins:
    """Even bins, symmetric about 0, that hold labels within ± reach without truncation.

    hl_gauss: w = 2 reach / (K − 8 r), so that 4 σ_t = 4 r w are left at both ends;
    two_hot: the outermost centres are at ± reach; one_hot: the outermost edges are.

    Args:
        reach: largest distance of a label from 0.
        count: K.
        encoding: of labels.
        ratio: r = σ_t / w of HL-Gauss.
    Raises:
        ValueError: if nothing is left between the ends, or reach is not above zero.
    """
    inner = {"hl_gauss": count - 2 * PADDING * ratio, "two_hot": count - 1, "one_hot": count}
    if inner[encoding] <= 0:
        raise ValueError(
            f"{count} bins with a smoothing of {ratio:g} bins are all padding: {encoding} needs "
            f"more than {2 * PADDING * ratio:g} bins; raise `bins` or lower `ratio`."
        )
    if not (math.isfinite(reach) and reach > 0):
        raise ValueError(f"bins reach {reach} to both sides; a finite number above 0 is needed.")
    # A label that the reach was measured on is not to lie outside by a rounding.
    half = reach * (1 + ROUNDING) / inner[encoding] * count
    # (2j − K) / K is antisymmetric to the bit, so equal masses decode to 0 exactly.
    edges = tuple(half * ((2 * j - count) / count) for j in range(count + 1))
    smoothing = ratio * 2 * half / count if encoding == "hl_gauss" else 0.0
    return Bins(edges=edges, encoding=encoding, smoothing=smoothing)


def error_bins(errors: Float[Tensor, " rows"], count: int = 64) -> Bins:
    """Bins of errors that are never negative: log-spaced about their median, the last one open.

    Edges 0 and 0.02 … 50 times the median; beyond the last one the mean excess is measured, with
    one pseudo-observation of the width of the last closed bin.

    Args:
        errors: at least one above zero.
        count: K, at least 4.
    """
    require_numbers(errors, "held-out errors")
    middle = float(errors.double().median())
    if middle <= 0:
        raise ValueError(
            "half of the held-out errors are 0, so they were not made out of sample; give frames "
            "that the potential has not learned from."
        )
    steps = count - 2
    spaced = (middle * 0.02 * 2500 ** (j / steps) for j in range(steps + 1))
    edges = (0.0, *spaced)
    return Bins(edges=edges, upper=_excess(errors, edges[-1], edges[-1] - edges[-2]))


def residual_bins(
    residuals: Float[Tensor, " rows"],
    count: int = 64,
    spacing: Literal["asinh", "quantile"] = "asinh",
) -> Bins:
    """Bins of residuals of both signs, symmetric about 0, open at both ends.

    asinh: edges m sinh(t), t even, to ± 20 m, with m the mean absolute residual: fine where most
    residuals are, coarse where few are. quantile: edges at even quantiles of |residual|, mirrored.

    Args:
        residuals: held out.
        count: K, even and at least 4.
        spacing: of the edges.
    """
    require_numbers(residuals, "held-out residuals")
    lengths = residuals.double().abs()
    mean = float(lengths.mean())
    if mean <= 0:
        raise ValueError(
            "all held-out residuals are 0, so they were not made out of sample; give frames that "
            "the potential has not learned from."
        )
    half = count // 2 - 1
    if spacing == "asinh":
        end = math.asinh(20.0)
        positive = [mean * math.sinh(end * (j + 1) / half) for j in range(half)]
    else:
        levels = torch.linspace(0, 1, half + 2, dtype=torch.float64)[1:-1]
        positive = torch.quantile(lengths, levels).tolist()
        if len(set(positive)) < half or positive[0] <= 0:
            raise ValueError(
                f"{len(residuals)} held-out residuals have too few distinct values for {count} "
                "bins at their quantiles; lower the number of bins or take the spacing asinh."
            )
    edges = (*(-edge for edge in reversed(positive)), 0.0, *positive)
    beyond = _excess(lengths, edges[-1], edges[-1] - edges[-2])
    return Bins(edges=edges, lower=beyond, upper=beyond)


def _excess(values: Tensor, edge: float, prior: float) -> float:
    """Mean of what is beyond the edge, with one pseudo-observation where there is little."""
    beyond = values.double()[values.double() > edge] - edge
    return (float(beyond.sum()) + prior) / (beyond.numel() + 1)
