"""How far atoms are from those of the training data: 1 is the edge, unit-free and differentiable.

An atom has two distances. In the space of the model's invariant features h, whitened per element:

    latent² = (h − m)ᵀ C⁻¹ (h − m)

C has the directions of largest variance as they are, and one mean variance in all others. Features
of message-passing networks may saturate, and no feature tells that two elements have never met, so
there is also what can not saturate, the neighbours that are closer than any seen:

    guard² = Σ_neighbours max(0, (s − r) / w)²

with the shortest distance s seen between the two elements, and its width w from frame to frame; s
is the cutoff for elements that were never neighbours. An atom is at

    a_i² = (latent_i / edge of atoms)² + guard_i²

and a structure at the larger of max_i a_i, for what is strange in one place, and of the root mean
square of latent_i over its own edge, for what is a little strange everywhere, as at a higher
temperature.

The edge of structures encloses most frames set aside; that of atoms lies a little beyond the
farthest atom in them.

Source of the distance: Lee et al. 2018 (Mahalanobis distance of features). Differs: features of
atoms by element; mean variance of the small directions (Tipping and Bishop 1999); the guard; edges
from frames set aside. The weights are made in `posteriors/gate.py`.
Cost: atoms × elements × features × directions. Measured: 4 to 11 % of an evaluation of a small MACE
    on 27 atoms, where calls cost more than sums.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.graph import Features, Geometry, pairs_to_edges
from surefoot.segments import segment_sum

Distances = tuple[Float[Tensor, " graphs"], Float[Tensor, " atoms"]]


def gate(weights: Weights, features: Features) -> Distances:
    """Distance of each structure and of each atom to the training data; 1 is the edge.

    Args:
        weights: as `posteriors.gate.fit_gate` makes them.
        features: of one set of weights; of several the first.
    """
    latent = latent_squares(weights, features)
    guard = guard_squares(weights, features.geometry)
    structure_edge, atom_edge = weights["edges"].double()
    atoms = _root(latent / atom_edge**2 + guard)
    segments = features.geometry.graph.atoms
    counts = segments.offsets.diff()
    mean = segment_sum(latent.unsqueeze(-1), segments).squeeze(-1) / counts
    worst = torch.zeros_like(mean).scatter_reduce(0, segments.index, atoms, "amax")
    return torch.maximum(_root(mean) / structure_edge, worst), atoms


def latent_squares(weights: Weights, features: Features) -> Float[Tensor, " atoms"]:
    """Squared distance of each atom's features to those of its element, in float64."""
    values, kinds = atom_features(features), features.geometry.kinds
    present, index = kinds.present, kinds.atoms.index
    centre, axes, inverse, tail = (
        weights[name].double()[present] for name in ("centre", "axes", "inverse", "tail")
    )
    # All elements at once, then each atom takes its own: no shape depends on who is who.
    flat = axes.transpose(0, 1).flatten(1)
    away = values - centre[index]
    own = (index.unsqueeze(-1) == torch.arange(present.shape[0], device=index.device)).to(away)
    shares = (away @ flat).unflatten(-1, (-1, axes.shape[-1])) * own.unsqueeze(-1)
    # What is left is formed before it is squared: a difference of squares would be rounding.
    rest = away - shares.flatten(-2) @ flat.T
    return (shares.square() * inverse).sum((-2, -1)) + rest.square().sum(-1) * tail[index]


def atom_features(features: Features) -> Float[Tensor, "atoms width"]:
    """The invariants of all read-out layers, by atom and in float64; of several draws the first."""
    parts = []
    for rows in features.layers:
        values = (rows.values[0] if rows.values.dim() == 3 else rows.values).double()
        if rows.weight is not None:
            values = values * rows.weight.unsqueeze(-1)
        parts.append(values if rows.atom is None else segment_sum(values, rows.atom))
    return torch.cat(parts, -1)


def guard_squares(weights: Weights, geometry: Geometry) -> Float[Tensor, " atoms"]:
    """Sum over neighbours of squared steps below the shortest distance seen, in float64."""
    graph, species = geometry.graph, geometry.species
    lengths = (geometry.lengths[0] if geometry.lengths.dim() == 2 else geometry.lengths).double()
    receiver, sender = graph.edge_index[:, graph.pair_edges[0]]
    kinds = species[receiver], species[sender]
    shortest, width = weights["shortest"].double()[kinds], weights["width"].double()[kinds]
    below = ((shortest - lengths) / width).clamp(min=0.0).square().unsqueeze(-1)
    return segment_sum(pairs_to_edges(below, graph), graph.receivers).squeeze(-1)


def _root(squares: Tensor) -> Tensor:
    # The slope of a root at zero is infinite: replaced before, masked after.
    safe = torch.where(squares > 0, squares, 1.0).sqrt()
    return torch.where(squares > 0, safe, 0.0)
