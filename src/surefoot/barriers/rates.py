"""Rates from barriers: transition state theory, and the form that KIMMDY uses.

    eyring:     k = κ (k_B T / h) exp(−B / k_B T)
    arrhenius:  k = κ A exp(−B / k_B T),  A = 0.288 / ps

At 300 K k_B T / h is 6.25 / ps, 22 times that A, as 1.8 kcal/mol in the barrier would be. B is the
barrier that is given: of energies alone, with zero-point energies, or of free energies.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from surefoot.settings import Settings
from surefoot.units import BOLTZMANN, PLANCK

FS_PER_PS = 1000.0
KIMMDY = 0.288  # 1/ps, of kimmdy-hat


class RateSettings(Settings):
    """How a barrier becomes a rate."""

    method: Literal["eyring", "arrhenius"] = Field(
        default="eyring", description="prefactor k_B T / h, or that of kimmdy-hat, 0.288 / ps"
    )
    temperature: float = Field(default=300.0, gt=0, description="K")

    def log_rate(self, barrier: float, log_transmission: float = 0.0) -> float:
        """Decadic logarithm of the rate in 1/ps.

        Args:
            barrier: eV.
            log_transmission: ln κ, where κ is what tunnelling multiplies the rate by.
        """
        thermal = BOLTZMANN * self.temperature
        prefactor = KIMMDY if self.method == "arrhenius" else thermal / PLANCK * FS_PER_PS
        exponent = log_transmission - barrier / thermal
        return math.log10(prefactor) + exponent / math.log(10.0)

    def describe(self) -> str:
        """Form and temperature in words."""
        form = "k_B T / h" if self.method == "eyring" else f"{KIMMDY} / ps"
        return f"{form} · exp(−barrier / k_B T) at {self.temperature:g} K"
