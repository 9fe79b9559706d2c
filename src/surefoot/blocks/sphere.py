"""Points on the sphere with weights: integrals, and functions between coefficients and grids.

A function on the sphere is s(n) = Σ_lm x_lm Y_lm(n). A rule of points n_p and weights w_p, Σ w = 1,
is exact to degree d where Σ_p w_p Y_lm(n_p) = δ_l0 for 1 ≤ l ≤ d; a function of degree L comes back
from its values at the points where d ≥ 2 L. The polar axis is y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.angular import harmonics

DENSITY = 0.15  # squared range over which `fibonacci` counts points


@dataclass(frozen=True, eq=False)
class Points:
    """A rule on the sphere.

    Attributes:
        vectors: (points, 3), float64; of unit length but for `fibonacci`.
        weights: (points), float64, one in all.
    """

    vectors: Float[Tensor, "points 3"]
    weights: Float[Tensor, " points"]

    def harmonics(self, lmax: int) -> Float[Tensor, "points components"]:
        """|n|^l Y_lm(n / |n|) with the component normalisation, float64."""
        lengths = torch.linalg.vector_norm(self.vectors, dim=-1, keepdim=True)
        degrees = torch.tensor([d for d in range(lmax + 1) for _ in range(2 * d + 1)])
        return harmonics(self.vectors, lmax) * lengths**degrees

    def synthesis(self, lmax: int) -> Float[Tensor, "points components"]:
        """From coefficients to values."""
        return self.harmonics(lmax)

    def analysis(self, lmax: int) -> Float[Tensor, "components points"]:
        """From values to coefficients: x_lm = Σ_p w_p Y_lm(n_p) s(n_p)."""
        return self.harmonics(lmax).mT * self.weights


@cache
def gauss(rings: int, around: int) -> Points:
    """Points at the nodes of Gauss and Legendre along the axis, evenly spaced around it.

    Exact to degree 2 · rings − 1 along the axis, and to order around − 1 about it.
    """
    nodes, weights = np.polynomial.legendre.leggauss(rings)
    return _product(np.arccos(nodes), weights / 2, around)


@cache
def gauss_of(count: int) -> Points:
    """The smallest rule `gauss(n, 2n)` of at least this many points; exact to degree 2n − 1."""
    rings = math.ceil(math.sqrt(count / 2))
    return gauss(rings, 2 * rings)


@cache
def equiangular(rings: int, around: int) -> Points:
    """Rings at the polar angles (i + ½) π / rings: the grid of e3nn, of which SCN makes use.

    w_i = (1 − 2 Σ_{k=1}^{⌊n/2⌋} cos(2 k θ_i) / (4 k² − 1)) / n      (Fejér's first rule)

    Exact to degree rings − 1 along the axis, and to order around − 1 about it.
    """
    polar = (np.arange(rings) + 0.5) * math.pi / rings
    k = np.arange(1, rings // 2 + 1)
    waves = np.cos(2 * k * polar[:, None]) / (4 * k**2 - 1)
    return _product(polar, (1 - 2 * waves.sum(-1)) / rings, around)


def _product(polar: np.ndarray, weights: np.ndarray, around: int) -> Points:
    angle = np.arange(around) * (2 * math.pi / around)
    height, radius = np.cos(polar)[:, None], np.sin(polar)[:, None]
    points = np.stack([radius * np.sin(angle), height + 0 * angle, radius * np.cos(angle)], axis=-1)
    return _points(points.reshape(-1, 3), np.repeat(weights / around, around))


@cache
def fibonacci(count: int) -> Points:
    """Points on a spiral, each as long as there is room about it: those of SCN's code.

    Their lengths scatter about 1 (by 2 % for 128 points) and stay in what is made of the vectors.

    r_p ∝ 1 / Σ_q exp(−|n_p − n_q|² / `DENSITY`), one on average; equal weights
    """
    turn = np.arange(count)
    angle = 2 * math.pi * turn / ((1 + math.sqrt(5)) / 2)
    height = 1 - 2 * (turn + 0.5) / count
    radius = np.sqrt(1 - height**2)
    unit = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)
    squares = np.square(unit[:, None] - unit).sum(-1)
    room = 1 / np.exp(-squares / DENSITY).sum(-1)
    return _points(unit * (room / room.mean())[:, None], np.full(count, 1 / count))


def _points(vectors: np.ndarray, weights: np.ndarray) -> Points:
    # A tensor born in inference mode could never again take part in a derivative.
    with torch.inference_mode(mode=False):
        return Points(torch.tensor(vectors), torch.tensor(weights))
