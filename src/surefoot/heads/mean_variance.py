"""Mean-variance head: the scalar head's energy, and how far energy and forces may be off.

Paper: Willow et al., arXiv:2510.03046 (RACE and its joint likelihood NLL_JEF).
Faithful: energy and forces are normal, the mean force is −dE/dr, and each atom's force has a full
    3×3 covariance.
Differs: the variance of an energy is the sum of those of its atoms, so that σ grows as √atoms,
    where the released code takes a mean; the covariance turns with the structure, since its
    logarithm is s I + Q with an invariant s and a tensor Q of degree 2, where the paper makes six
    invariants the entries of a Cholesky factor, fixed in the laboratory (`covariance: cholesky`,
    with `epsilon: 1e-3` as released); σ may fall to 1e-5 of the rms force, where the released ε
    leaves it above 32 meV/Å; variances come
    from networks of their own, so that the energy is the scalar head's to the bit and they can be
    fitted afterwards; Q takes features of degree 2 from the model where it has them.
Cost: atoms × widths × width for the variances, edges × width × radial functions for Q, rows ×
    width × channels for what the model adds to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import silu, softplus

from surefoot.blocks.angular import harmonics
from surefoot.blocks.dense import Weights, branch, init_network, network, under
from surefoot.blocks.radial import Bessel, PolynomialCutoff, expand
from surefoot.blocks.tensors import bound_norm, exponential, to_matrix
from surefoot.distributions.densities import Distribution, Normal, Point, Rule, VectorNormal
from surefoot.graph import Features, Geometry, Rows, Width, pairs_to_edges
from surefoot.heads.scalar import Scalar, sum_rows
from surefoot.segments import gather, segment_sum

BESSELS = 8  # radial functions from which an edge's part of Q is made
POWER = 6  # of their cutoff
ANISOTROPY = 5.0  # largest norm of Q: the longest σ of an atom is at most 34 times the shortest
QUADRUPOLE = slice(4, 9)  # degree 2 among harmonics up to there

Covariance = Literal["equivariant", "isotropic", "diagonal", "cholesky", "none"]
INVARIANTS: dict[Covariance, int] = {
    "equivariant": 1,
    "isotropic": 1,
    "diagonal": 3,
    "cholesky": 6,
    "none": 0,
}
"""Numbers of each atom that the networks of its invariants give."""


class MeanVariance(Scalar):
    """Settings of the mean-variance head, and the head itself.

    E ~ N(E_scalar, Σ_atoms v_i),  F_i ~ N(−dE/dr_i, Σ_i),  Σ_i = exp(s_i I + Q_i)

    ln v_i and s_i are small networks of the atom's invariants in all read-out layers, and

        Q_i = Σ_j w(a_i, b_j, r_ij) f(r_ij) Y_2(r_ij) / √neighbors

    is a sum over neighbours, with invariants a of the receiver and b of the sender, and a smooth
    cutoff f. Where the model has features q_c of degree 2, it is joined by

        Σ_rows Σ_c g_c(x) q_c / √channels

    with gates g, small networks of the invariants x of the same row. The norm of the whole is
    bounded. So Σ(R x) = R Σ(x) Rᵀ, and ln det Σ = 3 s.
    """

    energy: Literal["mean_variance"] = "mean_variance"  # type: ignore[assignment]
    covariance: Covariance = Field(
        default="equivariant",
        description="of each force; equivariant: turns with the structure; isotropic: one variance "
        "per atom; diagonal: three along fixed axes; cholesky: the paper's six numbers; these two "
        "depend on the frame of reference; none: forces are not judged",
    )
    anisotropy: Literal["features", "own"] = Field(
        default="features",
        description="equivariant: what Q is made of; own: of neighbours alone; features: of the "
        "model's features of degree 2, too, where it has some",
    )
    features: Literal["joint", "detached"] = Field(
        default="joint",
        description="detached: variances look at the model's features and do not shape them",
    )
    width: int = Field(default=16, ge=1, description="hidden layer of the variance networks")
    floor: float = Field(
        default=1e-5,
        gt=0,
        lt=1,
        description="smallest σ of an atom, in units of the rms force, of energies in eV for eV/Å; "
        "equivariant: of the geometric mean of its three, the smallest is at least 0.13 of that; "
        "cholesky: of the diagonal of the factor",
    )
    ceiling: float = Field(default=1e3, gt=1, description="largest σ of an atom, likewise")
    epsilon: float = Field(
        default=0.0,
        ge=0,
        description="cholesky: variance of each force component beside the factor's, (eV/Å)²",
    )

    @model_validator(mode="after")
    def _belongs_to_the_covariance(self) -> MeanVariance:
        if self.epsilon and self.covariance != "cholesky":
            raise ValueError(
                f"epsilon belongs to covariance: cholesky, and this one is {self.covariance}; "
                "leave it out, or raise floor"
            )
        if self.anisotropy == "own" and self.covariance != "equivariant":
            raise ValueError(
                "anisotropy belongs to covariance: equivariant, and this one is "
                f"{self.covariance}; leave it out"
            )
        return self

    def init(self, generator: torch.Generator, widths: tuple[Width, ...]) -> Weights:
        """Fresh weights in float64: the scalar head's, then those that judge.

        A fresh head says σ = scale of every atom, since what judges ends in zeros.
        """
        weights = super().init(generator, widths)
        weights |= under("variance", self._init_judge(generator, widths, 1))
        if self.covariance == "none":
            return weights
        covariance = self._init_judge(generator, widths, INVARIANTS[self.covariance])
        if self.covariance == "equivariant":
            pair = self._pairs.init_layers(generator, widths, 2 * self.width)
            covariance |= under("pair", pair)
            covariance |= under("radial", init_network(generator, (BESSELS, self.width)))
            covariance["edge"] = torch.zeros((self.width, 1), dtype=torch.float64)
            for index, width in enumerate(widths if self.anisotropy == "features" else ()):
                if width.quadrupoles:
                    gates = self._init_judge(generator, (width,), width.quadrupoles)
                    covariance |= under(f"gates{index}", gates)
        return weights | under("covariance", covariance)

    def __call__(self, weights: Weights, features: Features) -> Distribution:
        """Energy of each graph in units of the baseline's scale, with the sum of variances."""
        judged = self._judge.read_layers(branch(weights, "variance"), self._seen(features))
        log_variances = self._clamp(sum(judged[1:], judged[0]))
        variance = segment_sum(log_variances.exp(), features.geometry.graph.atoms).squeeze(-1)
        mean = self.sum_energy(weights, features)
        return Normal(mean.expand_as(variance), variance.log())

    def force_distribution(
        self,
        weights: Weights,
        features: Features,
        mean: Float[Tensor, "*members atoms 3"],
        scale: float,
    ) -> Distribution:
        """The force on each atom about its mean, with a covariance in (eV/Å)²."""
        if self.covariance == "none":
            return Point(mean)
        part, seen = branch(weights, "covariance"), self._seen(features)
        layers = self._judge.read_layers(part, seen)
        invariants = sum(layers[1:], layers[0])
        if self.covariance == "equivariant":
            sizes, tensor = self._clamp(invariants), self._tensor(part, seen)
            whitening = (-0.5 * sizes).exp().unsqueeze(-1) * exponential(-0.5 * tensor)
            log_determinant = 3 * sizes.squeeze(-1)
        elif self.covariance == "cholesky":
            whitening, log_determinant = self._cholesky(invariants, self.epsilon / scale**2)
        else:
            sizes = self._clamp(invariants).expand(*invariants.shape[:-1], 3)
            whitening, log_determinant = torch.diag_embed((-0.5 * sizes).exp()), sizes.sum(-1)
        whitening = whitening / scale
        log_determinant = log_determinant + 6 * math.log(scale)
        mean = mean.expand(*log_determinant.shape, 3)  # many judges of one model
        return VectorNormal(mean, whitening.to(mean.dtype), log_determinant.to(mean.dtype))

    @property
    def rules(self) -> Mapping[str, tuple[Rule, ...]]:
        """Likelihoods, for what is judged."""
        density: tuple[Rule, ...] = ("nll",)
        forces = super().rules["forces"] if self.covariance == "none" else density
        return {"energy": density, "forces": forces}

    def judging(self) -> tuple[str, ...]:
        """The variances of energies and forces."""
        return ("variance",) if self.covariance == "none" else ("variance", "covariance")

    @property
    def _judge(self) -> Scalar:
        """The networks from an atom's invariants to what judges it."""
        return Scalar(hidden=self.width, activation=self.activation, scaling=self.scaling)

    @property
    def _pairs(self) -> Scalar:
        """The map from an atom's invariants to what it is as a receiver and as a sender."""
        return Scalar(layers="none", scaling=self.scaling)

    def _init_judge(
        self, generator: torch.Generator, widths: tuple[Width, ...], outputs: int
    ) -> Weights:
        weights = self._judge.init_layers(generator, widths, outputs)
        return {
            name: torch.zeros_like(value) if ".out." in name else value
            for name, value in weights.items()
        }

    def _seen(self, features: Features) -> Features:
        if self.features == "joint":
            return features
        layers = []
        for rows in features.layers:
            turning = None if rows.quadrupoles is None else rows.quadrupoles.detach()
            layers.append(replace(rows, values=rows.values.detach(), quadrupoles=turning))
        return replace(features, layers=tuple(layers))

    def _clamp(self, x: Tensor) -> Tensor:
        """Logarithms of variances between those of floor and ceiling; far from both y = x.

        y = low + softplus(x − low) − softplus(x − high)
        """
        low, high = 2 * math.log(self.floor), 2 * math.log(self.ceiling)
        return low + softplus(x - low) - softplus(x - high)

    def _tensor(self, weights: Weights, features: Features) -> Float[Tensor, "*members atoms 3 3"]:
        """Q of each atom, in float64."""
        geometry, graph = features.geometry, features.geometry.graph
        layers = self._pairs.read_layers(branch(weights, "pair"), features)
        receiver, sender = sum(layers[1:], layers[0]).to(geometry.lengths.dtype).chunk(2, dim=-1)
        basis, envelope = _radial(geometry)
        radial = pairs_to_edges(network(basis, branch(weights, "radial")), graph)
        kinds = gather(receiver, graph.receivers) + gather(sender, graph.senders)
        by_edge = silu(kinds + radial) @ (weights["edge"] / math.sqrt(self.width))
        angular = harmonics(geometry.vectors, 2)[..., QUADRUPOLE]
        by_edge = by_edge * pairs_to_edges(envelope, graph) * angular
        components = segment_sum(by_edge.double(), graph.receivers) / math.sqrt(geometry.neighbors)
        for index, rows in enumerate(features.layers):
            gates = branch(weights, f"gates{index}")
            if gates and rows.quadrupoles is not None:
                components = components + self._gated(gates, rows, rows.quadrupoles)
        return to_matrix(bound_norm(components, ANISOTROPY))

    def _gated(
        self, weights: Weights, rows: Rows, quadrupoles: Float[Tensor, "*features rows 5 width"]
    ) -> Float[Tensor, "*members atoms 5"]:
        """What a layer of the model adds to Q of each atom, in float64."""
        gates = self._judge.read_rows(weights, rows, 0) / math.sqrt(quadrupoles.shape[-1])
        return sum_rows((quadrupoles @ gates.unsqueeze(-1)).squeeze(-1).double(), rows)

    def _cholesky(
        self, entries: Float[Tensor, "*members atoms 6"], epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """L⁻¹ and ln det Σ of Σ = L Lᵀ + ε I with a lower triangle L: the paper's form.

        Entries are the logarithms of the squared diagonal, then L_yx, L_zx and L_zy.
        """
        x, y, z = (0.5 * self._clamp(entries[..., :3])).exp().unbind(-1)
        yx, zx, zy = entries[..., 3:].unbind(-1)
        zero, unit = torch.zeros_like(x), torch.eye(3, dtype=x.dtype, device=x.device)
        factor = torch.stack((x, zero, zero, yx, y, zero, zx, zy, z), -1).unflatten(-1, (3, 3))
        if epsilon:
            factor = torch.linalg.cholesky(factor @ factor.mT + epsilon * unit)
        inverse = torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False)
        return inverse, 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _radial(geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Radial functions of order one for each pair, and the smooth cutoff."""
    basis = expand(geometry.lengths, Bessel(geometry.cutoff, BESSELS))
    envelope = expand(geometry.lengths, PolynomialCutoff(geometry.cutoff, POWER))
    return basis * math.sqrt(geometry.cutoff), envelope
