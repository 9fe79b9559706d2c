"""Functions of the masses of a histogram: decoding, densities, scores, entropies, sums.

Masses p are (…, bins); a closed bin holds its mass evenly, an open one exponentially. The entropy
of one histogram is that of a whole prediction: it is `total`, and no part of it is epistemic, for
which there have to be several histograms (`mutual_information`).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.distributions.bins import Bins

GAUSS = math.sqrt(2 * math.pi * math.e)  # exp(h) of a normal density with σ = 1


def expectation(probabilities: Float[Tensor, "*rows bins"], bins: Bins) -> Float[Tensor, "*rows"]:
    """Σ p_k c_k, summed in symmetric pairs: even masses over symmetric bins give 0 to the bit."""
    terms = probabilities * bins.centres(probabilities)
    return 0.5 * (terms + terms.flip(-1)).sum(-1)


def second_moment(probabilities: Float[Tensor, "*rows bins"], bins: Bins) -> Float[Tensor, "*rows"]:
    """Σ p_k (c_k² + variance inside bin k): about 0, in the unit of the bins squared."""
    squares = bins.centres(probabilities).square() + bins.variances(probabilities)
    return (probabilities * squares).sum(-1)


def log_density(
    log_probabilities: Float[Tensor, "*rows bins"], bins: Bins, values: Tensor
) -> Tensor:
    """Log density at values, in the inverse unit of the bins; −∞ beyond closed ends.

    Rows of histograms and values are broadcast against each other, as a label is to the members.
    """
    log_probabilities, values = _broadcast(log_probabilities, values)
    edges = bins.boundaries(values)
    inner = -edges.diff().log()
    slopes, starts = torch.zeros_like(inner), edges[:-1]
    if bins.lower is not None:
        inner = torch.cat([inner.new_tensor([-math.log(bins.lower)]), inner])
        slopes = torch.cat([slopes.new_tensor([1 / bins.lower]), slopes])
        starts = torch.cat([edges[:1], starts])
    if bins.upper is not None:
        inner = torch.cat([inner, inner.new_tensor([-math.log(bins.upper)])])
        slopes = torch.cat([slopes, slopes.new_tensor([-1 / bins.upper])])
        starts = torch.cat([starts, edges[-1:]])
    place = bins.find(values)
    own = log_probabilities.gather(-1, place.unsqueeze(-1)).squeeze(-1).to(values)
    inside = own + inner[place] + slopes[place] * (values - starts[place])
    return torch.where(bins.outside(values), -torch.inf, inside)


def distribution_function(
    probabilities: Float[Tensor, "*rows bins"], bins: Bins, values: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """F(y) = P(Y ≤ y), linear within bins; at a label it is its PIT, even if all is right."""
    edges = bins.boundaries(values)
    masses = probabilities.to(values)
    away = values.unsqueeze(-1)
    shares = [((away - edges[:-1]) / edges.diff()).clamp(0.0, 1.0)]
    if bins.lower is not None:
        shares.insert(0, ((away - edges[0]) / bins.lower).clamp(max=0.0).exp())
    if bins.upper is not None:
        shares.append(-torch.expm1(-((away - edges[-1]) / bins.upper).clamp(min=0.0)))
    return (masses * torch.cat(shares, -1)).sum(-1)


def quantiles(
    probabilities: Float[Tensor, "*rows bins"], bins: Bins, level: float
) -> Float[Tensor, "*rows"]:
    """The value below which a share `level` of the mass lies; of the histogram, not of a normal.

    Raises:
        ValueError: if the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of a quantile is {level}; it lies between 0 and 1.")
    reached = probabilities.cumsum(-1)
    # Rounding may leave the last sum below the level.
    place = (reached < level * reached[..., -1:]).sum(-1, keepdim=True)
    place = place.clamp(max=bins.count - 1)
    mass = probabilities.gather(-1, place)
    share = (level * reached[..., -1:] - reached.gather(-1, place) + mass) / mass
    share = share.clamp(0.0, 1.0).squeeze(-1)
    edges = bins.boundaries(probabilities)
    closed = place.squeeze(-1) - int(bins.lower is not None)
    low = edges[closed.clamp(0, len(edges) - 2)]
    high = edges[closed.clamp(0, len(edges) - 2) + 1]
    values = low + share * (high - low)
    if bins.lower is not None:
        values = torch.where(closed < 0, edges[0] + bins.lower * share.log(), values)
    if bins.upper is not None:
        tail = edges[-1] - bins.upper * torch.log1p(
            -share.clamp(max=1 - torch.finfo(share.dtype).eps)
        )
        values = torch.where(closed > len(edges) - 2, tail, values)
    return values


def crps(
    probabilities: Float[Tensor, "*rows bins"], bins: Bins, values: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """Continuous ranked probability score ∫ (F(z) − 1[z ≥ y])² dz, in closed form.

    With F from a to b over a stretch of width w, it adds w (a² + ab + b²) / 3 below the label and
    the same of 1 − F above it; the bin that holds the label is two stretches. An open end of mass
    q and mean excess m adds q² m / 2, and if the label is t beyond it, t − 2 q m (1 − e^(−t/m))
    more. A label beyond a closed end adds its distance.

    Source: Gneiting and Raftery 2007 for the score; the integrals are elementary.
    """
    edges = bins.boundaries(values)
    masses = probabilities.to(values)
    first, last = int(bins.lower is not None), bins.count - int(bins.upper is not None)
    reached = masses.cumsum(-1)
    after = reached[..., first:last]
    before = after - masses[..., first:last]
    widths = edges.diff()
    share = ((values.unsqueeze(-1) - edges[:-1]) / widths).clamp(0.0, 1.0)
    middle = before + share * (after - before)
    below = share * (before**2 + before * middle + middle**2)
    p, q = 1 - middle, 1 - after
    above = (1 - share) * (p**2 + p * q + q**2)
    score = (widths * (below + above)).sum(-1) / 3
    ends = (
        (bins.lower, masses[..., 0], edges[0] - values),
        (bins.upper, masses[..., -1], values - edges[-1]),
    )
    for excess, mass, signed in ends:
        away = signed.clamp(min=0.0)
        score = score + away
        if excess is not None:
            score = score + mass**2 * excess / 2
            score = score + 2 * mass * excess * torch.expm1(-away / excess)
    return score


def entropy(probabilities: Float[Tensor, "*rows bins"]) -> Float[Tensor, "*rows"]:
    """H = −Σ p ln p in nats: of the total prediction. Not to be compared between supports or N."""
    return torch.special.entr(probabilities).sum(-1)


def relative_entropy(
    probabilities: Float[Tensor, "*rows bins"], bins: Bins
) -> Float[Tensor, "*rows"]:
    """(H − floor) / (ln K − floor), clipped to 0 … 1: from a perfect prediction to an even one."""
    floor = bins.floor
    return ((entropy(probabilities) - floor) / (math.log(bins.count) - floor)).clamp(0.0, 1.0)


def entropic_deviation(
    probabilities: Float[Tensor, "*rows bins"], bins: Bins
) -> Float[Tensor, "*rows"]:
    """s_H in the unit of the bins: σ of the normal density with the same differential entropy.

    s_H = exp(h) / √(2πe), h = −Σ p ln(p / w); for even bins that is w exp(H) / √(2πe). Where
    targets are smoothed, what the smoothing adds is taken off: s_H² − σ_t² − w²/12, not below 0.
    """
    widths = bins.boundaries(probabilities).diff().log()
    if bins.lower is not None:
        widths = torch.cat([widths.new_tensor([1 + math.log(bins.lower)]), widths])
    if bins.upper is not None:
        widths = torch.cat([widths, widths.new_tensor([1 + math.log(bins.upper)])])
    density = entropy(probabilities) + (probabilities * widths).sum(-1)
    square = (density.exp() / GAUSS).square()
    if bins.encoding == "hl_gauss":
        square = (square - bins.smoothing**2 - bins.width**2 / 12).clamp(min=0.0)
    return square.sqrt()


def mutual_information(
    probabilities: Float[Tensor, "draws *rows bins"],
) -> Float[Tensor, "*rows"] | None:
    """H(⟨p⟩) − ⟨H(p)⟩ over draws in nats, not below 0; None for one draw, which has none.

    Two members whose centres differ by δ give about δ² / (8 σ²): the spread of the means sees small
    differences better.

    Source: Houlsby et al. 2011.
    """
    if probabilities.shape[0] < 2:
        return None
    return (entropy(probabilities.mean(0)) - entropy(probabilities).mean(0)).clamp(min=0.0)


def cross_entropy(logits: Float[Tensor, "*rows bins"], bins: Bins, values: Tensor) -> Tensor:
    """−Σ_k q_k ln p_k in nats, q the target of each value; its slope by the logits is p − q.

    Rows of histograms and values are broadcast against each other.
    """
    found, values = _broadcast(logits.log_softmax(-1), values)
    if bins.encoding == "one_hot":
        return -found.gather(-1, bins.find(values).unsqueeze(-1)).squeeze(-1)
    return -(bins.encode(values).to(found) * found).sum(-1)


def _broadcast(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(rows.shape[:-1], values.shape)
    return rows.expand(*shape, rows.shape[-1]), values.expand(shape)


def draw(
    probabilities: Float[Tensor, "*rows bins"], bins: Bins, generator: torch.Generator
) -> Float[Tensor, "*rows"]:
    """One value per row, in the unit of the bins."""
    masses = probabilities.detach()
    chosen = torch.multinomial(masses.reshape(-1, bins.count), 1, generator=generator)
    place = chosen.reshape(masses.shape[:-1])
    even = torch.rand(place.shape, generator=generator, dtype=masses.dtype, device=masses.device)
    edges = bins.boundaries(masses)
    closed = place - int(bins.lower is not None)
    start = closed.clamp(0, len(edges) - 2)
    values = edges[start] + even * edges.diff()[start]
    # 1 − u lies above 0, its logarithm is finite.
    if bins.lower is not None:
        values = torch.where(closed < 0, edges[0] + bins.lower * torch.log1p(-even), values)
    if bins.upper is not None:
        tail = edges[-1] - bins.upper * torch.log1p(-even)
        values = torch.where(closed > len(edges) - 2, tail, values)
    return values
