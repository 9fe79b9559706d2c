"""Forces that are no gradient: histograms of components, along fixed axes or an atom's own.

A head sees invariants, which know no direction, so directions are made here: sums over neighbours

    v_ic = Σ_j a_jc R_c(r_ij) f(r_ij) r̂_ij / √neighbors.

Their components are inputs of a network beside the invariants. In the laboratory's frame nothing
makes the answer turn with the structure. In a frame of two such vectors and their cross product it
does; the mirror image is evaluated too, so that it does so under reflection. Such a frame jumps
where the two vectors are parallel, and neither answer is the slope of an energy. Along axes that
the surroundings do not give (all of them for the middle of a line, two for its end) the force is
zero, and what is said of its error is the same for both signs and all such axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.blocks.dense import Weights, branch, init_linear, init_network, linear, network, under
from surefoot.blocks.radial import Bessel, PolynomialCutoff, expand
from surefoot.graph import Geometry, pairs_to_edges
from surefoot.segments import gather, segment_sum

CHANNELS = 8  # vectors of each atom
BESSELS = 8  # radial functions of which R is made
POWER = 6  # of the cutoff f


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Axes of each atom.

    Attributes:
        axes: (…, 3, 3) orthonormal rows.
        free: (…, 3) axes that the surroundings of the atom do not give: any would do.
    """

    axes: Float[Tensor, "*members atoms 3 3"]
    free: Bool[Tensor, "*members atoms 3"]


def init_direct(generator: torch.Generator, inputs: int, width: int, bins: int) -> Weights:
    """Fresh weights in float64; the last map is zero, so that fresh forces are."""
    out = init_linear(generator, width, 3 * bins)
    out["weight"].zero_()
    return {
        "sender": init_linear(generator, inputs, CHANNELS, bias=False)["weight"],
        **under("radial", init_network(generator, (BESSELS, CHANNELS))),
        **under("hidden", init_linear(generator, inputs + 3 * CHANNELS, width)),
        **under("out", out),
    }


def read_direct(
    weights: Weights,
    values: Float[Tensor, "*features atoms width"],
    geometry: Geometry,
    frames: Frames | None,
) -> Float[Tensor, "*members atoms 3 bins"]:
    """Logits of the three components of each force.

    Args:
        weights: of `init_direct`.
        values: (…, atoms, width) invariants; without members where their heads share a model.
        geometry: for the directions.
        frames: of each atom; the laboratory's where not given.
    """
    vectors = _vectors(weights, values, geometry)
    if frames is None:
        return _read(weights, values, vectors)
    own = vectors @ frames.axes.mT
    here, there = (_read(weights, values, seen) for seen in (own, own * own.new_tensor([1, 1, -1])))
    # The third axis is a cross product: in the mirror its component has the other sign.
    there = torch.cat([there[..., :2, :], there[..., 2:, :].flip(-1)], dim=-2)
    logits = 0.5 * (here + there)
    free = frames.free.unsqueeze(-1)
    even = (0.5 * (logits + logits.flip(-1))).masked_fill(~free, 0.0).sum(-2, keepdim=True)
    return torch.where(free, even / free.sum(-2, keepdim=True).clamp(min=1), logits)


def find_frames(
    weights: Weights, values: Float[Tensor, "*features atoms width"], geometry: Geometry
) -> Frames:
    """The axes of each atom from two of its vectors, completed by any where these are too few."""
    first, second = _vectors(weights, values, geometry)[..., :2, :].unbind(-2)
    one, none = _direction(first, torch.eye(3).to(first)[0])
    # Of the coordinate axes the one that is farthest from the first.
    other = torch.eye(3).to(first)[one.detach().abs().argmin(-1)]
    second = second.masked_fill(none, 0.0)
    two, few = _direction(_across(second, one), _across(other, one))
    axes = torch.stack([one, two, torch.linalg.cross(one, two)], dim=-2)
    return Frames(axes=axes, free=torch.cat([none, few, few], dim=-1))


def _vectors(
    weights: Weights, values: Tensor, geometry: Geometry
) -> Float[Tensor, "*members atoms channels 3"]:
    graph, lengths = geometry.graph, geometry.lengths
    basis = expand(lengths, Bessel(geometry.cutoff, BESSELS)) * math.sqrt(geometry.cutoff)
    envelope = expand(lengths, PolynomialCutoff(geometry.cutoff, POWER))
    radial = network(basis, branch(weights, "radial")) * (envelope / lengths.unsqueeze(-1))
    by_edge = pairs_to_edges(radial, graph) * gather(values @ weights["sender"], graph.senders)
    spread = by_edge.unsqueeze(-1) * geometry.vectors.unsqueeze(-2)
    summed = segment_sum(spread.flatten(-2), graph.receivers) / math.sqrt(geometry.neighbors)
    return summed.unflatten(-1, (CHANNELS, 3))


def _read(weights: Weights, values: Tensor, vectors: Tensor) -> Tensor:
    values = values.expand(*vectors.shape[:-2], values.shape[-1])  # heads may share a model
    inputs = torch.cat([values, vectors.flatten(-2)], dim=-1)
    hidden = torch.nn.functional.silu(linear(inputs, branch(weights, "hidden")))
    return linear(hidden, branch(weights, "out")).unflatten(-1, (3, -1))


def _across(vectors: Tensor, axes: Float[Tensor, "*rows 3"]) -> Float[Tensor, "*rows 3"]:
    """Vectors without their part along unit vectors."""
    return vectors - (vectors * axes).sum(-1, keepdim=True) * axes


def _direction(
    vectors: Float[Tensor, "*rows 3"], other: Tensor
) -> tuple[Float[Tensor, "*rows 3"], Bool[Tensor, "*rows 1"]]:
    """Unit vectors, of others where there is no direction beyond rounding, and where that is."""
    none = vectors.square().sum(-1, keepdim=True) < torch.finfo(vectors.dtype).eps ** 1.5
    vectors = torch.where(none, other, vectors)
    return vectors * vectors.square().sum(-1, keepdim=True).rsqrt(), none
