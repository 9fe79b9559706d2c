"""Radial bases and smooth cutoffs, with analytic derivatives of every order.

A radial function is called with an order n and gives its n-th derivative. `expand` evaluates it
once for all members of an ensemble: values and slopes know no weights, so members share them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.compilation import operator

NEGLIGIBLE = -50.0  # exponent below which a Gaussian counts as zero: e^-50 = 2e-22


@runtime_checkable
class RadialFunction(Protocol):
    """Functions of a length: (edges) → (edges, count)."""

    def derivative(self, lengths: Float[Tensor, " edges"], order: int) -> Tensor:
        """The derivative of this order; order 0 is the value."""
        ...


@dataclass(frozen=True)
class Gaussians:
    """Equally spaced Gaussians from 0 to the cutoff, w times as wide as their spacing.

    g_k(r) = exp(−(r − μ_k)² / (2 (w Δ)²)),  μ_k = k Δ,  Δ = cutoff / (count − 1)

    Source: Schütt et al. 2018, eq. 7, with the width SchNetPack uses, w = 1; SCN chooses another.
    """

    cutoff: float
    count: int
    width: float = 1.0

    def derivative(
        self, lengths: Float[Tensor, " edges"], order: int
    ) -> Float[Tensor, "edges count"]:
        """g^(n+1) = −2γ ((r − μ) g^(n) + n g^(n−1)),  γ = 1 / (2 (w Δ)²)."""
        spacing = self.cutoff / (self.count - 1)
        centres = spacing * torch.arange(self.count, dtype=lengths.dtype, device=lengths.device)
        gamma = 0.5 / (self.width * spacing) ** 2
        x = lengths.unsqueeze(-1) - centres
        exponent = -gamma * x.square()
        # Far from its centre a Gaussian is a denormal number, and those are a hundred times slower.
        now = torch.where(exponent > NEGLIGIBLE, torch.exp(exponent), 0.0)
        before = torch.zeros_like(x)
        for n in range(order):
            before, now = now, -2 * gamma * (x * now + n * before)
        return now


@dataclass(frozen=True)
class Bessel:
    """Spherical Bessel functions of degree 0 with nodes at the cutoff c.

    b_n(r) = √(2 / c) sin(n π r / c) / r,  n = 1 … count

    Source: Gasteiger et al. 2020, eq. 7.
    """

    cutoff: float
    count: int

    def derivative(
        self, lengths: Float[Tensor, " edges"], order: int
    ) -> Float[Tensor, "edges count"]:
        """From r b = s: r b^(n) + n b^(n−1) = s^(n), where s is the sine."""
        rates = torch.arange(1, self.count + 1, dtype=lengths.dtype, device=lengths.device)
        rates = rates * (math.pi / self.cutoff)
        r = lengths.unsqueeze(-1)
        value = torch.zeros_like(r * rates)
        for n in range(order + 1):
            wave = rates**n * torch.sin(rates * r + 0.5 * math.pi * n)
            value = (wave - n * value) / r
        return math.sqrt(2.0 / self.cutoff) * value


@dataclass(frozen=True)
class CosineCutoff:
    """f(r) = (1 + cos(π r / c)) / 2 inside the cutoff c, zero outside; once differentiable at c."""

    cutoff: float

    def derivative(self, lengths: Float[Tensor, " edges"], order: int) -> Float[Tensor, "edges 1"]:
        """f^(n) = (π/c)^n cos(π r / c + n π / 2) / 2."""
        rate = math.pi / self.cutoff
        wave = 0.5 * rate**order * torch.cos(rate * lengths + 0.5 * math.pi * order)
        value = wave + 0.5 if order == 0 else wave
        return torch.where(lengths < self.cutoff, value, 0.0).unsqueeze(-1)


@dataclass(frozen=True)
class PolynomialCutoff:
    """f(x) = 1 − (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) − p(p+1)/2 x^(p+2) with x = r / c.

    Zero beyond the cutoff c, where it is twice differentiable. The terms cancel there, so other
    forms are calculated, in which the gap y = 1 − x is a factor:

    f = y³ Σ_{k<p} (k+1)(k+2)/2 x^k,    f' = −p(p+1)(p+2)/2 x^(p−1) y² / c

    Source: Gasteiger et al. 2020, eq. 8.
    """

    cutoff: float
    power: int = 6

    def derivative(self, lengths: Float[Tensor, " edges"], order: int) -> Float[Tensor, "edges 1"]:
        """The product of f', differentiated by the rule of Leibniz."""
        p = self.power
        # The difference of lengths is exact near the cutoff, that of their ratio and 1 is not.
        x, gap = lengths / self.cutoff, (self.cutoff - lengths) / self.cutoff
        value = torch.zeros_like(x)
        if order == 0:
            for k in reversed(range(p)):
                value = value * x + 0.5 * (k + 1) * (k + 2)
            value = value * gap**3
        else:
            squares = (gap.square(), -2.0 * gap, 2.0)  # y² and its derivatives
            for j, square in enumerate(squares[:order]):
                falling = math.comb(order - 1, j) * math.perm(p - 1, order - 1 - j)
                if falling:
                    value = value + falling * x ** (p - order + j) * square
            value = value * (-0.5 * p * (p + 1) * (p + 2) / self.cutoff**order)
        return torch.where(lengths < self.cutoff, value, 0.0).unsqueeze(-1)


CUTOFFS = {"cosine": CosineCutoff, "polynomial": PolynomialCutoff}


# One number per pair that scales many channels, for each of which compilers would compute it anew.
_hold = operator(
    "held(Tensor values) -> Tensor",
    torch.clone,
    torch.empty_like,
    device="CompositeExplicitAutograd",  # any
)


class _Expand(torch.autograd.Function):
    """Derivative n of a radial function; its backward pass calls itself for derivative n + 1."""

    @staticmethod
    def forward(ctx: Any, lengths: Tensor, function: RadialFunction, order: int) -> Tensor:
        ctx.save_for_backward(lengths)
        ctx.function, ctx.order = function, order
        values = function.derivative(lengths if lengths.dim() == 1 else lengths[0], order)
        values = _hold(values) if values.shape[-1] == 1 else values
        if lengths.dim() == 1:
            return values
        # A view with stride 0 would do, but batched matrix products crawl on it (50 × slower).
        return values.expand(lengths.shape[0], -1, -1).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (lengths,) = ctx.saved_tensors
        slope = _Expand.apply(lengths, ctx.function, ctx.order + 1)
        return (grads[0] * slope).sum(-1), None, None


def expand(
    lengths: Float[Tensor, "*members edges"], function: RadialFunction
) -> Float[Tensor, "*members edges count"]:
    """A radial function of the lengths, evaluated once for all members.

    Args:
        lengths: (…, edges) Å. With a member axis all members hold the same values; each has its
            own gradient.
        function: what to evaluate.
    Returns:
        (…, edges, count); with a member axis copies of the one evaluation.
    """
    return _Expand.apply(lengths, function, 0)  # type: ignore[no-any-return]
