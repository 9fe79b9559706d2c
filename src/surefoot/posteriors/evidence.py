"""Noise and prior precision by the marginal likelihood of a Laplace approximation.

    ln Z = −½ Σ_q [n_q ln 2π s_q² + c_q / s_q²] − ½ δ |θ|² − ½ ln det P + ½ K ln δ
    P    = Σ_q A_q / s_q² + δ I

over quantities q (energies, forces): n_q labels, c_q their squared residuals, A_q the sum of f fᵀ
over rows f of derivatives with respect to the K weights θ. Exact for a model that is linear in θ,
at the maximum of its posterior (MacKay 1992); of A_q the whole matrix or the diagonal alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

RANGE = (-40.0, 40.0)  # of the logarithms that are sought
LEVEL = 1e-3  # slope per label below which the marginal likelihood is at its top
FEWEST = 1e-24  # squared residual per label below which labels are fitted to rounding


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What the labels of one quantity say.

    Attributes:
        products: (K, K) sum of f fᵀ, or (K) its diagonal; float64.
        squares: sum of squared residuals.
        count: labels.
    """

    products: Float[Tensor, "weights *weights"]
    squares: float
    count: int

    def __add__(self, other: Rows) -> Rows:
        """The labels of both."""
        return Rows(
            products=self.products + other.products,
            squares=self.squares + other.squares,
            count=self.count + other.count,
        )


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Noise variance of each quantity, and the precision of the prior of every weight.

    Attributes:
        noise: s² in eV², (eV/Å)².
        prior: δ.
    """

    noise: Mapping[str, float]
    prior: float


def log_evidence(
    rows: Mapping[str, Rows],
    norm: float,
    noise: Mapping[str, Float[Tensor, ""]],
    prior: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Ln Z as it stands above.

    Args:
        rows: of each quantity.
        norm: |θ|².
        noise: s² of each quantity.
        prior: δ.
    """
    total = -0.5 * prior * norm
    for name, part in rows.items():
        total = total - 0.5 * part.count * torch.log(2 * math.pi * noise[name])
        total = total - 0.5 * part.squares / noise[name]
    scaled = sum_rows(rows, noise)
    weights = scaled.shape[0]
    if scaled.dim() == 1:
        determinant = torch.log(scaled + prior).sum()
    else:
        determinant = torch.linalg.eigvalsh(scaled).clamp(min=0).add(prior).log().sum()
    return total - 0.5 * determinant + 0.5 * weights * torch.log(prior)


def sum_rows(rows: Mapping[str, Rows], noise: Mapping[str, Tensor | float]) -> Tensor:
    """Σ A_q / s_q²."""
    parts = [part.products / noise[name] for name, part in rows.items()]
    return sum(parts[1:], parts[0])


def find_scales(
    rows: Mapping[str, Rows],
    norm: float,
    noise: Mapping[str, float | None],
    prior: float | None,
) -> Scales:
    """The scales of largest evidence; those that are given stay.

    Args:
        rows: of each quantity.
        norm: |θ|².
        noise: s² of each quantity, or None.
        prior: δ, or None.
    Raises:
        ValueError: if there is no label, residuals are zero, so that no noise can be found, or the
            evidence has no top.
    """
    if not rows:
        raise ValueError("there is no label to fit a Laplace approximation to.")
    for name, part in rows.items():
        if noise[name] is None and part.squares <= FEWEST * part.count:
            raise ValueError(
                f"the residuals of {name} are zero, so their noise can not be found; set "
                f"`posterior: {{{name}_noise: …}}`."
            )
    names = [name for name in rows if noise[name] is None]
    begin = [math.log(rows[name].squares / rows[name].count) for name in names]
    if prior is None:
        begin.append(math.log(rows[next(iter(rows))].products.shape[0] / max(norm, 1e-30)))

    def scales(logs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        values = logs.exp()
        found = {name: torch.tensor(v or 0.0, dtype=torch.float64) for name, v in noise.items()}
        found |= dict(zip(names, values, strict=False))
        return found, torch.tensor(prior, dtype=torch.float64) if prior else values[-1]

    def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
        inputs = torch.tensor(logs, dtype=torch.float64, requires_grad=True)
        value = -log_evidence(rows, norm, *scales(inputs))
        (slope,) = torch.autograd.grad(value, inputs)
        return float(value.detach()), slope.numpy()

    logs = np.array(begin)
    if begin:
        found = minimize(loss, logs, jac=True, method="L-BFGS-B", bounds=[RANGE] * len(begin))
        logs = found.x
        # Near its top the evidence is level to rounding, and the search may stop without a verdict.
        slope = np.abs(loss(logs)[1])
        if not found.success and slope.max() > LEVEL * sum(part.count for part in rows.values()):
            raise ValueError(
                f"the marginal likelihood has no top that can be found ({found.message}); set "
                "`posterior: {energy_noise: …, forces_noise: …, prior: …}`."
            )
    noises, precision = scales(torch.tensor(logs, dtype=torch.float64))
    return Scales(
        noise={name: float(noises[name]) for name in rows},
        prior=float(precision),
    )
