"""Rates with known answers, and tunnelling against limits and a numerical wave."""

import math

import numpy as np
import pytest

from surefoot.barriers.rates import RateSettings
from surefoot.barriers.tunnelling import eckart_probability, log_eckart, log_transmission, wigner
from surefoot.units import KCAL_PER_MOL, LIGHT, PLANCK

TEN = 10.0 * KCAL_PER_MOL


@pytest.mark.parametrize(("method", "expected"), [("arrhenius", 1.5e-8), ("eyring", 3.2e-7)])
def test_known_rates(method, expected) -> None:
    """10 kcal/mol at 300 K, with the prefactor of kimmdy-hat and with k_B T / h."""
    rates = RateSettings(method=method)
    assert 10 ** rates.log_rate(TEN) == pytest.approx(expected, rel=0.03)
    twice = rates.log_rate(TEN, math.log(2.0))
    assert twice - rates.log_rate(TEN) == pytest.approx(math.log10(2.0))


def test_one_kcal_is_a_factor_of_five_at_room_temperature() -> None:
    rates = RateSettings()
    assert 10 ** rates.log_rate(0.0) == pytest.approx(6.25, rel=1e-3)  # k_B T / h, 1/ps
    slower = rates.log_rate(TEN) - rates.log_rate(TEN + KCAL_PER_MOL)
    assert 10**slower == pytest.approx(5.35, rel=1e-2)
    # Extremely slow is not zero: the logarithm has no limit.
    assert rates.log_rate(100.0) == pytest.approx(math.log10(6.25) - 1680.0, rel=1e-3)


def test_wigner() -> None:
    assert wigner(0.0, 300.0) == 1.0
    # h ν / k_B T is 7.19 for 1500 cm⁻¹ at 300 K.
    assert wigner(1500.0, 300.0) == pytest.approx(1 + 7.194**2 / 24, rel=1e-3)


@pytest.mark.parametrize("frequency", [50.0, 150.0, 300.0])
def test_eckart_is_wigner_where_motion_is_nearly_classical(frequency) -> None:
    """For high barriers and small h ν / k_B T."""
    found = math.expm1(log_eckart(frequency, 40.0, 40.0, 2000.0))
    assert found == pytest.approx(wigner(frequency, 2000.0) - 1, rel=0.03)


def test_eckart_without_a_quantum_is_classical() -> None:
    assert log_eckart(1e-4, 1.0, 0.7, 300.0) == pytest.approx(0.0, abs=1e-5)
    assert log_eckart(0.0, 1.0, 0.7, 300.0) == 0.0


@pytest.mark.parametrize("temperature", [30.0, 300.0, 900.0])
def test_eckart_of_a_barrier_and_its_reverse_agree(temperature) -> None:
    """κ is of the saddle: forward and reverse rates keep the equilibrium of the two sides."""
    ahead = log_eckart(1200.0, 0.7, 0.4, temperature)
    assert ahead == pytest.approx(log_eckart(1200.0, 0.4, 0.7, temperature), rel=1e-6)
    assert ahead > 0.1
    assert log_eckart(1200.0, 0.7, 0.0, temperature) == 0.0


def test_in_the_cold_a_rate_stays_finite() -> None:
    """It becomes that of the lowest level: κ grows as fast as the classical rate falls."""
    rates = [
        RateSettings(temperature=kelvin).log_rate(2.0, log_eckart(1500.0, 2.0, 2.5, kelvin))
        for kelvin in (10.0, 5.0)
    ]
    assert all(math.isfinite(rate) for rate in rates)
    assert abs(rates[0] - rates[1]) < 2.0  # while exp(−V / k_B T) falls by a thousand decades


def passed_by_wave(energy: float, frequency: float, first: float, second: float) -> float:
    """Probability that a plane wave passes an Eckart barrier, by integrating its equation.

    In x/L with y = −e^x: V = −A y/(1 − y) − B y/(1 − y)², A = V₁ − V₂, B = (√V₁ + √V₂)²; 2 m L²/ħ²
    follows from the curvature at the top (Eckart 1930). Runge and Kutta from the far side, where
    the wave runs outward alone.
    """
    a, b = first - second, (math.sqrt(first) + math.sqrt(second)) ** 2
    quantum = PLANCK * LIGHT * frequency
    # V'' at the top in x/L is −(B² − A²)² / (8 B³), and (ħ ω)² = −V'' ħ² / (m L²).
    unit = quantum**2 / ((b**2 - a**2) ** 2 / (8 * b**3))  # ħ² / (m L²), eV
    scale = 2.0 / unit

    def slope(x: float, state: np.ndarray) -> np.ndarray:
        y = -math.exp(x)
        height = -a * y / (1 - y) - b * y / (1 - y) ** 2
        return np.array([state[1], -scale * (energy - height) * state[0]])

    out = math.sqrt(scale * (energy - a))  # V is A where x is large
    incoming = math.sqrt(scale * energy)
    far, step = 14.0, -0.01
    state = np.array([1.0 + 0j, 1j * out])
    for number in range(round(2 * far / -step)):
        x = far + number * step
        k1 = slope(x, state)
        k2 = slope(x + step / 2, state + step / 2 * k1)
        k3 = slope(x + step / 2, state + step / 2 * k2)
        k4 = slope(x + step, state + step * k3)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    amplitude = (state[0] + state[1] / (1j * incoming)) / 2
    return out / incoming / abs(amplitude) ** 2


@pytest.mark.parametrize(
    ("energy", "frequency", "first", "second"),
    [
        (0.25, 1000.0, 0.3, 0.3),
        (0.35, 1000.0, 0.3, 0.3),
        (0.28, 1500.0, 0.35, 0.2),
        (0.05, 2500.0, 0.06, 0.06),  # the root in d is imaginary
    ],
)
def test_eckart_probability_is_that_of_a_wave(energy, frequency, first, second) -> None:
    (found,) = eckart_probability(np.array([energy]), frequency, first, second)
    assert 0.01 < found < 0.999
    assert found == pytest.approx(passed_by_wave(energy, frequency, first, second), rel=2e-3)


def test_kinds_of_tunnelling() -> None:
    saddle = (1200.0, 0.7, 0.4, 300.0)
    assert log_transmission("none", *saddle) == 0.0
    assert log_transmission("wigner", *saddle) == math.log(wigner(1200.0, 300.0))
    assert log_transmission("eckart", *saddle) == log_eckart(*saddle)
