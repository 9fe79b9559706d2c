"""One weight for each pair of atoms, path and channel: the radial part of a convolution.

    w(r) = e(r) N(b(r)),    b the radial functions, N the radial network, e an envelope or 1

A table of splines takes the place of the network where the weights hold one.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.dense import Weights, network
from surefoot.blocks.factors import Factors, factorise
from surefoot.blocks.splines import interpolate
from surefoot.graph import Geometry


def path_weights(
    weights: Weights,
    lengths: Float[Tensor, "*members pairs"],
    basis: Float[Tensor, "*members pairs functions"],
    cutoff: float,
    envelope: Float[Tensor, "*members pairs 1"] | None = None,
) -> Float[Tensor, "... pairs outputs"]:
    """w(r) of each pair.

    Args:
        weights: of the network, or a `table` of splines.
        lengths: r in Å.
        basis: b(r).
        cutoff: in Å, where the table ends.
        envelope: e(r) where the basis does not hold it.
    """
    if "table" in weights:
        return interpolate(lengths, weights["table"], cutoff)
    return times(network(basis, weights), envelope)


def path_factors(
    weights: Weights,
    geometry: Geometry,
    basis: Float[Tensor, "*members pairs functions"],
    cutoff: float,
    envelope: Float[Tensor, "*members pairs 1"] | None = None,
) -> Tensor | Factors:
    """w(r) of each pair, or what it is the product of where the geometry says to save memory.

    Args:
        weights: as above.
        geometry: of the pairs.
        basis: as above.
        cutoff: as above.
        envelope: as above.
    """
    if geometry.memory == "keep" or "table" in weights:
        return path_weights(weights, geometry.lengths, basis, cutoff, envelope)
    factors = factorise(basis, weights)
    return Factors(times(factors.hidden, envelope), factors.matrix)


def times(values: Tensor, envelope: Tensor | None) -> Tensor:
    """The values below an envelope, if there is one."""
    return values if envelope is None else values * envelope
