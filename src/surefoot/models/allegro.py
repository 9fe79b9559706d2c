"""Allegro: strictly local equivariant features on directed edges.

Paper: Musaelian, Batzner, Johansson, Sun, Owen, Kornbluth, Kozinsky, Nat. Commun. 14, 579 (2023).
Faithful: the architecture as nequip-allegro 0.8.3 builds it, with Bessel functions; with the same
    weights energies, forces and stress are those of that package to rounding. The package differs
    from the paper: no envelope after each layer (nothing has a bias, so all vanishes with the
    radial functions), the read-out sees the scalars of all layers, and tensors are not mixed
    between channels, each path has a weight per channel instead.
Differs: the read-out network is the head's, with biases, and counts an edge from what it says of
    one at the cutoff; SiLU is scaled by 1.68 to unit variance, there by √2. What depends on the
    distance alone is computed once for an edge and its reverse, and the environment is coupled
    before it meets an edge (`blocks/environment.py`). Left out, none a default there: splines as
    radial functions, trainable Bessel roots, one weight for all channels of a path, cutoffs by
    pair of elements, other activations.
Preset: Neubert et al. 2025 trained the older package's 3 layers, full O(3), 64 tensor channels at
    5 Å, with a two-body network of 128-256-512-1024 and latent networks of three times 1024. The
    nearest here is Allegro(layers=3, tensors=64, scalars=1024, embed_depth=3, embed_width=512,
    latent_depth=3, latent_width=1024, embedding=128) with Scalar(hidden=128).
Cost: layers × (edges × tensors × (components in × out) + edges × widths²), no factor of paths.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from surefoot.blocks.angular import harmonics
from surefoot.blocks.conditioning import embed
from surefoot.blocks.couplings import Irrep, Irreps, couple_irreps
from surefoot.blocks.dense import Weights, branch, init_network, init_table, network, under
from surefoot.blocks.environment import (
    EnvironmentCouplings,
    couple_environment,
    environment_couplings,
)
from surefoot.blocks.radial import Bessel, PolynomialCutoff, expand
from surefoot.blocks.splines import Curves
from surefoot.graph import Features, Geometry, Rows, Width, pairs_to_edges
from surefoot.segments import Segments, gather, segment_sum
from surefoot.settings import Settings

SCALAR = Irrep(0, 1)
QUADRUPOLE = slice(4, 9)  # components of degree 2 and natural parity, behind degrees 0 and 1


class Allegro(Settings):
    """Settings of Allegro, and the model itself: a pure function of weights and geometry."""

    native: ClassVar[bool] = True  # kernels in C
    recomputes: ClassVar[bool] = False  # weights by blocks of pairs
    local: ClassVar[bool] = True  # an atom's energy hangs on its own edges alone
    most_kept: ClassVar[int | None] = 10_000  # pairs, times members
    name: Literal["allegro"] = "allegro"
    cutoff: float = Field(
        default=5.0, gt=0, description="Å; an atom's energy depends on nothing farther away"
    )
    lmax: int = Field(default=2, ge=0, le=3, description="highest degree of the tensors")
    parity: Literal["full", "natural"] = Field(
        default="full",
        description="tensors of both parities, or only of parity (-1)^l; the same with less than 3 "
        "layers",
    )
    layers: int = Field(
        default=2, ge=1, le=100, description="tensor products, each with its own weights"
    )
    scalars: int = Field(default=64, ge=1, description="scalar channels of each edge and layer")
    tensors: int = Field(default=32, ge=1, description="tensor channels of each edge")
    bessels: int = Field(default=8, ge=1, description="radial basis functions")
    power: int = Field(
        default=6,
        ge=2,
        le=100,
        description="of the polynomial cutoff; a smaller one decays earlier",
    )
    embedding: int | None = Field(
        default=None,
        ge=2,
        multiple_of=2,
        description="channels of the two-body embedding, even; as the scalars where not set",
    )
    embed_depth: int = Field(default=1, ge=0, description="hidden layers of the two-body network")
    embed_width: int = Field(default=64, ge=1, description="their width")
    latent_depth: int = Field(default=1, ge=0, description="hidden layers of the latent networks")
    latent_width: int = Field(default=64, ge=1, description="their width")

    @property
    def widths(self) -> tuple[Width, ...]:
        """Channels of each read-out layer."""
        quadrupoles = self.tensors if self.lmax >= 2 else 0
        return (Width(self.scalars * (self.layers + 1), quadrupoles),)

    @property
    def couplings(self) -> tuple[EnvironmentCouplings, ...]:
        """The tensor product of each layer."""
        return _couplings(self.lmax, self.parity == "full", self.layers)

    def init(self, generator: torch.Generator, species: int) -> Weights:
        """Fresh weights in float64, of unit variance; maps divide by the root of their inputs.

        Args:
            generator: the only source of randomness.
            species: number of elements.
        """
        embedding = self.embedding or self.scalars + self.scalars % 2
        environment = (self.lmax + 1) * self.tensors
        hidden = [self.embed_width] * self.embed_depth
        networks = {
            "radial": [self.bessels, embedding],
            "embed": [embedding, *hidden, self.scalars],
            "tensor": [self.scalars, environment],
            "first": [self.scalars, self.scalars + environment],
        }
        weights: Weights = {"embedding": init_table(generator, species, embedding)}
        for name, sizes in networks.items():
            weights |= under(name, init_network(generator, sizes))
        hidden = [self.latent_width] * self.latent_depth
        for layer, coupling in enumerate(self.couplings):
            last = layer == self.layers - 1
            inputs = self.scalars * (layer + 1) + self.tensors
            sizes = [inputs, *hidden, self.scalars + (0 if last else environment)]
            paths = init_table(generator, len(coupling.paths), self.tensors)
            weights[f"layer{layer}.paths"] = paths
            weights |= under(f"layer{layer}.latent", init_network(generator, sizes))
        return weights

    def __call__(self, weights: Weights, geometry: Geometry) -> Features:
        """Scalar features of all layers: one read-out layer, one row per edge.

        A_i = Σ_j w(x_ij) Y(r_ij) / √neighbors;  V_ij ← V_ij ⊗ A_i;  x_ij ← MLP(x_ij, V_ij^(l=0))
        """
        graph = geometry.graph
        angular = harmonics(geometry.vectors, self.lmax)
        embedded = network(self._two_body(weights, geometry), branch(weights, "embed"))
        tensors = self._weighted(angular, network(embedded, branch(weights, "tensor")))
        latent = network(embedded, branch(weights, "first"))
        scalars = latent[..., : self.scalars]
        quadrupoles = None
        for index, coupling in enumerate(self.couplings):
            layer = branch(weights, f"layer{index}")
            if index == self.layers - 1 and self.lmax >= 2:
                quadrupoles = tensors[..., QUADRUPOLE, :]
            harmonic = self._weighted(angular, latent[..., self.scalars :])
            summed = segment_sum(harmonic, graph.receivers, axis=-3)
            summed = summed / math.sqrt(geometry.neighbors)
            tensors = couple_environment(tensors, summed, layer["paths"], coupling, graph.receivers)
            inputs = torch.cat([scalars, tensors[..., 0, :]], dim=-1)
            latent = network(inputs, branch(layer, "latent"))
            scalars = torch.cat([scalars, latent[..., : self.scalars]], dim=-1)
        return Features(layers=(_edge_rows(scalars, quadrupoles, geometry),), geometry=geometry)

    def curves(self, weights: Weights) -> dict[str, Curves]:  # noqa: ARG002
        """None: what depends on the distance alone is one matrix, faster than a table."""
        return {}

    def _two_body(
        self, weights: Weights, geometry: Geometry
    ) -> Float[Tensor, "*members edges channels"]:
        """Radial functions times what the receiver is and what the sender is.

        Half of an atom's embedding is what it is as a receiver, the other half as a sender.
        """
        graph = geometry.graph
        basis = expand(geometry.lengths, Bessel(self.cutoff, self.bessels))
        # The other package's functions are sin(n π r / c) / (π r / c).
        scale = math.sqrt(self.cutoff / 2) * self.cutoff / math.pi
        envelope = scale * expand(geometry.lengths, PolynomialCutoff(self.cutoff, self.power))
        radial = network(basis * envelope, branch(weights, "radial"))
        receiver, sender = embed(weights, geometry).chunk(2, dim=-1)
        kinds = torch.cat([gather(receiver, graph.receivers), gather(sender, graph.senders)], -1)
        return kinds * pairs_to_edges(radial, graph)

    def _weighted(
        self,
        angular: Float[Tensor, "*members edges components"],
        weights: Float[Tensor, "*members edges weights"],
    ) -> Float[Tensor, "*members edges components channels"]:
        """Harmonics times one weight per degree and channel."""
        by_degree = weights.unflatten(-1, (self.lmax + 1, self.tensors))
        return torch.cat(
            [
                angular[..., degree**2 : (degree + 1) ** 2, None]
                * by_degree[..., degree : degree + 1, :]
                for degree in range(self.lmax + 1)
            ],
            dim=-2,
        )


@functools.cache
def _couplings(lmax: int, unnatural: bool, layers: int) -> tuple[EnvironmentCouplings, ...]:
    """The tensor product of each layer.

    Its results are the irreps up to lmax that can be reached, and from which a scalar can still
    be reached; those of the last layer are scalars.
    """
    natural = tuple(Irrep(degree, (-1) ** degree) for degree in range(lmax + 1))
    others = tuple(Irrep(irrep.degree, -irrep.parity) for irrep in natural if unnatural)
    tracks: list[Irreps] = [natural]
    for layer in range(layers):
        wanted = (SCALAR,) if layer == layers - 1 else natural + others
        found = {out for a in tracks[-1] for b in natural for out in couple_irreps(a, b)}
        tracks.append(tuple(irrep for irrep in wanted if irrep in found))
    for layer in reversed(range(layers)):
        needed = set(tracks[layer + 1])
        tracks[layer] = tuple(
            a for a in tracks[layer] if any(needed & set(couple_irreps(a, b)) for b in natural)
        )
    return tuple(environment_couplings(a, natural, b) for a, b in pairwise(tracks))


def _edge_rows(
    values: Float[Tensor, "*members edges channels"],
    quadrupoles: Float[Tensor, "*members edges 5 width"] | None,
    geometry: Geometry,
) -> Rows:
    """One row per edge, then one of zeros per atom: an edge that is not there.

    A head f has biases, f(0) ≠ 0, but an edge that reaches the cutoff has x = 0 and must go
    without a jump. So what an edge adds is counted from there, and f(0) once per atom:

        E_i = Σ_edges s f(x_e) + (1 − s n_i) f(0) = f(0) + s Σ_edges (f(x_e) − f(0))

    with n_i the number of edges, and s = 1 / √(2 neighbors) as in nequip-allegro: an atom is
    pulled at by its own edges and by those that reach it.
    """
    receivers = geometry.graph.receivers
    atoms = torch.arange(receivers.count + 1, device=values.device)
    index = torch.cat([receivers.index, atoms[:-1]])
    scale = 1 / math.sqrt(2 * geometry.neighbors)
    edges = torch.full((values.shape[-2],), scale, dtype=torch.float64, device=values.device)
    if quadrupoles is not None:
        quadrupoles = pad(quadrupoles, (0, 0, 0, 0, 0, receivers.count))
    return Rows(
        values=pad(values, (0, 0, 0, receivers.count)),
        atom=Segments(
            index=index, offsets=atoms + receivers.offsets, order=index.argsort(stable=True)
        ),
        weight=torch.cat([edges, 1 - scale * receivers.offsets.diff().double()]),
        quadrupoles=quadrupoles,
    )
