"""What tunnelling multiplies a rate by, from the imaginary frequency of a saddle point.

Wigner, Z. Phys. Chem. B 19 (1932) 203, is the first term in h ν / k_B T, for barriers that are high
and motion that is nearly classical. Eckart, Phys. Rev. 35 (1930) 1303, knows the transmission of a
barrier of given heights on both sides and curvature at its top in closed form; it is averaged over
energies here (Johnston and Heicklen, J. Phys. Chem. 66 (1962) 532). Both are one-dimensional: paths
that cut the corner tunnel more.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float

from surefoot.units import BOLTZMANN, LIGHT, PLANCK

Tunnelling = Literal["none", "wigner", "eckart"]

BEYOND = 40.0  # k_B T above the barrier, where the Boltzmann factor ends the integral
NODES = 8  # of the Gauss–Legendre rule on each piece of it


def log_transmission(
    kind: Tunnelling, frequency: float, forward: float, reverse: float, temperature: float
) -> float:
    """The ln κ, where κ is what tunnelling multiplies the rate over a barrier by.

    Args:
        kind: `none` is 0.
        frequency: magnitude of the imaginary one, cm⁻¹.
        forward: height above the side that it starts from, eV.
        reverse: height above the other side, eV.
        temperature: K.
    """
    if kind == "wigner":
        return math.log(wigner(frequency, temperature))
    if kind == "eckart":
        return log_eckart(frequency, forward, reverse, temperature)
    return 0.0


def wigner(frequency: float, temperature: float) -> float:
    """1 + (h ν / k_B T)² / 24.

    Args:
        frequency: magnitude of the imaginary one, cm⁻¹.
        temperature: K.
    """
    return 1.0 + (PLANCK * LIGHT * frequency / (BOLTZMANN * temperature)) ** 2 / 24.0


def log_eckart(frequency: float, forward: float, reverse: float, temperature: float) -> float:
    """The ln of ∫ P(E) exp(−E / k_B T) dE over its classical value, k_B T exp(−V / k_B T).

    A logarithm, since in the cold the ratio itself is beyond all numbers.

    Args:
        frequency: magnitude of the imaginary one, cm⁻¹.
        forward: height V of the barrier above the side that it starts from, eV.
        reverse: height above the other side, eV.
        temperature: K.
    Returns:
        0 where a height is not positive: there is nothing to tunnel through.
    """
    if forward <= 0 or reverse <= 0 or frequency <= 0:
        return 0.0
    thermal = BOLTZMANN * temperature
    lowest = max(0.0, forward - reverse)  # below it there is no place to arrive at
    edges = _pieces(lowest, forward, thermal, PLANCK * LIGHT * frequency)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    widths = np.diff(edges)[:, None] / 2
    energies = (edges[:-1, None] + widths * (nodes + 1)).ravel()
    passed = _log_probability(energies, frequency, forward, reverse)
    exponents = passed + (forward - energies) / thermal + np.log((widths * weights).ravel())
    return float(np.logaddexp(np.logaddexp.reduce(exponents) - math.log(thermal), -BEYOND))


def _pieces(lowest: float, top: float, thermal: float, quantum: float) -> np.ndarray:
    """Edges between which the integrand is smooth: k_B T apart, and closer about the top."""
    highest = top + BEYOND * thermal
    even = np.arange(lowest, highest, thermal / 2)
    doublings = math.ceil(math.log2(max(2.0, 16 * (highest - lowest) / quantum)))
    near = quantum / 16 * 2.0 ** np.arange(doublings)
    edges = np.concatenate([even, top - near, [top], top + near, [lowest, highest]])
    return np.unique(edges[(edges >= lowest) & (edges <= highest)])


def eckart_probability(
    energies: Float[np.ndarray, " energies"], frequency: float, forward: float, reverse: float
) -> Float[np.ndarray, " energies"]:
    """Probability that a particle passes an Eckart barrier.

        P = (cosh(a + b) − cosh(a − b)) / (cosh(a + b) + cosh d)

    with u = h ν, α = 2π V / u on each side, c = 1 / (α₁^−½ + α₂^−½), a = 2 c √(2π E / u),
    b = 2 c √(2π (E − V₁ + V₂) / u), d = 2 √(α₁ α₂ − π² / 4); cosh d is cos |d| where the root is
    imaginary.

    Args:
        energies: above the side that the particle comes from, eV.
        frequency: magnitude of the imaginary one, cm⁻¹.
        forward: V₁, eV, positive.
        reverse: V₂, eV, positive.
    """
    return np.exp(_log_probability(energies, frequency, forward, reverse))


def _log_probability(
    energies: Float[np.ndarray, " energies"], frequency: float, forward: float, reverse: float
) -> Float[np.ndarray, " energies"]:
    quantum = PLANCK * LIGHT * frequency
    first, second = 2 * np.pi * forward / quantum, 2 * np.pi * reverse / quantum
    scale = 2.0 / (first**-0.5 + second**-0.5)
    start = scale * np.sqrt(2 * np.pi * np.maximum(energies, 0.0) / quantum)
    end = scale * np.sqrt(2 * np.pi * np.maximum(energies - forward + reverse, 0.0) / quantum)
    depth = 4 * (first * second - np.pi**2 / 4)
    both = start + end
    above = np.log(2.0) + _log_sinh(start) + _log_sinh(end)
    if depth >= 0:
        below = np.logaddexp(_log_cosh(both), _log_cosh(np.full_like(both, np.sqrt(depth))))
    else:
        cosine = np.cos(np.sqrt(-depth))
        below = both + np.log((1 + np.exp(-2 * both)) / 2 + cosine * np.exp(-both))
    return above - below


def _log_cosh(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return x + np.log1p(np.exp(-2 * x)) - np.log(2.0)


def _log_sinh(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    x = np.maximum(x, 1e-300)
    return x + np.log(-np.expm1(-2 * x)) - np.log(2.0)
