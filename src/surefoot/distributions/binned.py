"""Histograms as a Prediction carries them: of many rows, averaged over draws and detached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.distributions.bins import Bins
from surefoot.distributions.densities import Distribution
from surefoot.distributions.histograms import Shown, turn
from surefoot.distributions.masses import (
    crps,
    distribution_function,
    entropic_deviation,
    expectation,
    log_density,
    mutual_information,
    quantiles,
    relative_entropy,
    second_moment,
)


@dataclass(frozen=True, kw_only=True)
class Binned:
    """Histograms of many rows as a Prediction carries them: averaged over draws and detached.

    y = shift + scale · x with x over bins.

    Attributes:
        bins: of x.
        probabilities: (…, bins); rows of numbers, or rows of 3 components of vectors.
        shift: (…) unit of y.
        scale: (…) unit of y per unit of the bins.
        information: (…) mutual information of draw and bin in nats, where there are several
            draws over one support; else None.
        axes: (rows, 3, 3) along which components are taken; None for those of space.
    """

    bins: Bins
    probabilities: Float[Tensor, "*rows bins"]
    shift: Float[Tensor, "*rows"]
    scale: Float[Tensor, "*rows"]
    information: Float[Tensor, "*rows"] | None = None
    axes: Float[Tensor, "vectors 3 3"] | None = None

    @property
    def mean(self) -> Float[Tensor, "*rows"]:
        """The expectation."""
        return self.shift + self.scale * expectation(self.probabilities, self.bins)

    @property
    def deviation(self) -> Float[Tensor, "*rows"]:
        """Standard deviation about the expectation."""
        centre = expectation(self.probabilities, self.bins)
        square = second_moment(self.probabilities, self.bins) - centre.square()
        return self.scale * square.clamp(min=0.0).sqrt()

    @property
    def relative_entropy(self) -> Float[Tensor, "*rows"]:
        """0 for a perfect prediction to 1 for an even one; total, never epistemic."""
        return relative_entropy(self.probabilities, self.bins)

    @property
    def entropic_deviation(self) -> Float[Tensor, "*rows"]:
        """s_H, in the unit of y."""
        return self.scale * entropic_deviation(self.probabilities, self.bins)

    @property
    def beyond(self) -> Float[Tensor, "*rows"] | None:
        """P(last bin) where that is open: beyond the last edge; None where it is closed."""
        return None if self.bins.upper is None else self.probabilities[..., -1]

    def is_beyond(self, values: Float[Tensor, "*rows"]) -> Bool[Tensor, "*rows"]:
        """Which values lie beyond the last edge, in the bin whose mass is `beyond`."""
        return (values - self.shift) / self.scale > self.bins.edges[-1]

    def along(self, vectors: Float[Tensor, "rows 3"]) -> Float[Tensor, "rows 3"]:
        """The components of vectors that the histograms are of."""
        return turn(vectors, self.axes)

    def cdf(self, values: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """P(Y ≤ y); at the labels it is the PIT."""
        return distribution_function(
            self.probabilities, self.bins, (values - self.shift) / self.scale
        )

    def quantile(self, level: float) -> Float[Tensor, "*rows"]:
        """The value below which a share `level` of the mass lies."""
        return self.shift + self.scale * quantiles(self.probabilities, self.bins, level)

    def crps(self, values: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Continuous ranked probability score of labels, in the unit of y."""
        places = (values - self.shift) / self.scale
        return self.scale * crps(self.probabilities, self.bins, places)

    def log_prob(self, values: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Log density at labels, in the inverse unit of y."""
        places = (values - self.shift) / self.scale
        return log_density(self.probabilities.log(), self.bins, places) - self.scale.log()


def mix_histograms(parts: Sequence[Distribution]) -> Binned | None:
    """The histograms of portions of the draws, averaged; None where there are none to be shown.

    Nor are there any of components along axes that each of several draws has made for itself.

    Args:
        parts: over (draws, rows).
    """
    found = [part.shown() for part in parts if isinstance(part, Shown)]
    if not found:
        return None
    masses = torch.cat([one.probabilities.detach() for one in found]).double()
    axes = found[0].axes
    if axes is not None and len(masses) > 1:
        return None
    rows = masses.shape[:-1]
    shift, scale = (
        torch.cat(
            [
                torch.as_tensor(getattr(one, name), dtype=masses.dtype)
                .detach()
                .expand(one.logits.shape[:-1])
                for one in found
            ]
        ).reshape(rows)
        for name in ("shift", "scale")
    )
    # Over different supports an average of entropies means nothing.
    shared = bool((shift == shift[0]).all() and (scale == scale[0]).all())
    return Binned(
        bins=found[0].bins,
        probabilities=masses.mean(0),
        shift=shift.mean(0),
        scale=scale.mean(0),
        information=mutual_information(masses) if shared else None,
        axes=None if axes is None else axes[0].detach().double(),
    )


def join_binned(parts: Sequence[Binned | None]) -> Binned | None:
    """Histograms of consecutive batches as one."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    joined = {}
    for name in (one.name for one in fields(Binned) if one.name != "bins"):
        values = [value for part in present if (value := getattr(part, name)) is not None]
        joined[name] = torch.cat(values) if values else None
    return Binned(bins=present[0].bins, **joined)
