"""Output, Prediction: what one set of weights says, and what the world sees.

An `Output` is differentiable and belongs to one set of weights (or a stack of them, member axis
first). `mix` turns the outputs of many draws into a detached `Prediction` by the law of total
variance:

    mean      = ⟨μ_d⟩
    epistemic = Σ_d (μ_d − mean)² / (draws − 1)
    aleatoric = ⟨σ_d²⟩

Variances stay inside; standard deviations are what every surface shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.distributions.binned import Binned
from surefoot.distributions.densities import Distribution, Spread
from surefoot.graph import Features
from surefoot.tables import html_table

SHOWN = 10  # structures of a prediction in a notebook
VARIANCES = ("aleatoric", "epistemic", "residual")
Bounds = Callable[[float], tuple[Tensor, Tensor]]
"""Level of an interval → its lower and upper bounds in standard deviations, one of each per row."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What one set of weights says of a batch; with a leading member axis for stacked weights.

    Attributes:
        energy: over (…, graphs), eV.
        forces: over (…, atoms, 3), eV/Å; None where not asked for.
        stress: over (…, graphs, 3, 3), eV/Å³; None where not asked for.
        features: what the head was given; None from a compiled potential, which keeps none.
        ood: distance of the structures (graphs) and of the atoms (atoms) to the training data;
            None without the weights of a gate.
        energy_factor: (graphs, r) eV, z with Cov(E_a, E_b) = z_a · z_b in closed form; None where
            the weights do not hold it.
    """

    energy: Distribution
    forces: Distribution | None
    stress: Distribution | None
    features: Features | None
    ood: tuple[Tensor, Tensor] | None = None
    energy_factor: Float[Tensor, "graphs rank"] | None = None


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean of a quantity and the parts of its variance; None where a part does not exist.

    For energies and stress the variances have the shape of the mean; for forces they are one
    covariance per atom, (atoms, 3, 3). `log_noise` is ⟨log σ_d²⟩ over draws, for forces
    ⟨log det Σ_d⟩ (atoms): less than that of `aleatoric` by what draws disagree on the noise.
    """

    mean: Tensor
    aleatoric: Tensor | None = None
    epistemic: Tensor | None = None
    residual: Tensor | None = None
    log_noise: Tensor | None = None

    @property
    def total(self) -> Tensor | None:
        """The whole variance: a residual as it is, else the sum of the parts that exist."""
        if self.residual is not None:
            return self.residual
        parts = [part for part in (self.aleatoric, self.epistemic) if part is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def select(self, rows: Tensor) -> Moments:
        """Some of the rows."""
        parts = {
            name: None if (part := getattr(self, name)) is None else part[rows]
            for name in (*VARIANCES, "log_noise")
        }
        return Moments(mean=self.mean[rows], **parts)

    def scaled(self, factor: float) -> Moments:
        """The same mean with every standard deviation multiplied by `factor`."""
        scaled = {
            name: None if (part := getattr(self, name)) is None else part * factor**2
            for name in VARIANCES
        }
        if self.log_noise is not None and self.aleatoric is not None:
            components = 3 if self.aleatoric.dim() > self.mean.dim() else 1
            scaled["log_noise"] = self.log_noise + 2 * components * math.log(factor)
        return replace(self, **scaled)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the world sees of a batch: detached, calibrated, with every variance named.

    Attributes:
        energy: over (graphs), eV.
        forces: over (atoms, 3), eV/Å, variances (atoms, 3, 3); None where not asked for.
        stress: over (graphs, 3, 3), eV/Å³; None where not asked for.
        ood: (graphs) distance to the training data, 1 at its edge; None without a gate.
        ood_atoms: (atoms) the same of each atom.
        energy_draws: (draws, graphs) mean of each draw.
        forces_draws: (draws, atoms, 3) or None.
        stress_draws: (draws, graphs, 3, 3) or None.
        energy_factor: (graphs, r) z with Var(E_a − E_b) = |z_a − z_b|² for structures a and b of
            one composition, across all batches of one Predictor; None where it has no spread.
        energy_bins: histograms of the energies (graphs), eV, where the head gives them, as they
            were fitted: factors of calibration act on variances alone.
        error_bins: likewise of |F_ref − F| (atoms), eV/Å: expected force errors, their quantiles.
        force_bins: likewise of the components of forces (atoms, 3), eV/Å, along the axes of space
            or of each atom; None where several draws have axes of their own.
        bounds: by quantity, what takes a level to lower and upper bounds of its interval in
            standard deviations, (graphs) of `energy` and (atoms) of `forces`.
    """

    energy: Moments
    forces: Moments | None = None
    stress: Moments | None = None
    ood: Float[Tensor, " graphs"] | None = None
    ood_atoms: Float[Tensor, " atoms"] | None = None
    energy_draws: Float[Tensor, "draws graphs"] | None = None
    forces_draws: Float[Tensor, "draws atoms 3"] | None = None
    stress_draws: Float[Tensor, "draws graphs 3 3"] | None = None
    energy_factor: Float[Tensor, "graphs rank"] | None = None
    energy_bins: Binned | None = None
    error_bins: Binned | None = None
    force_bins: Binned | None = None
    bounds: Mapping[str, Bounds] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """The energies as a table, for notebooks; of forces what they are of all atoms."""
        count = len(self.energy.mean)
        rows = [self._describe(number) for number in range(min(count, SHOWN))]
        parts = [f"{count} structures" + (f", the first {SHOWN} shown" if count > SHOWN else "")]
        if self.forces is not None:
            told = f"forces of {len(self.forces.mean)} atoms"
            if self.forces.total is not None:
                trace = self.forces.total.diagonal(dim1=-2, dim2=-1).sum(-1)
                told += f", σ {_show(trace.mean().sqrt())} eV/Å (rms)"
            parts.append(told)
        return html_table(rows, "; ".join(parts))

    def _describe(self, number: int) -> dict[str, str]:
        """One structure as a line of that table."""
        row = {"structure": str(number), "energy (eV)": f"{float(self.energy.mean[number]):.4f}"}
        variances = {"± (eV)": self.energy.total}
        if self.energy.aleatoric is not None and self.energy.epistemic is not None:
            variances |= {"aleatoric": self.energy.aleatoric, "epistemic": self.energy.epistemic}
        for title, variance in variances.items():
            row[title] = "–" if variance is None else _show(variance[number].sqrt())
        if self.ood is not None:
            row["ood"] = _show(self.ood[number])
        return row

    def interval(
        self, level: float = 0.9, of: Literal["energy", "forces"] = "energy"
    ) -> tuple[Tensor, Tensor]:
        """Central interval of the energies in eV, or of the force components in eV/Å.

        mean + b(level) · standard deviation, with the bounds b that calibration found; those of a
        normal where it found none.

        Args:
            level: probability of the interval.
            of: energies (graphs) or force components (atoms, 3).
        Raises:
            ValueError: if the level is not between 0 and 1, or needs more calibration points than
                there were, or if there is no error bar.
        """
        if not 0 < level < 1:
            raise ValueError(f"the level of an interval is {level}; it lies between 0 and 1.")
        moments = self.energy if of == "energy" else self.forces
        variance = None if moments is None else moments.total
        if moments is None or variance is None:
            raise ValueError(
                "this prediction has no error bar: one set of weights with a scalar head makes "
                "none. Train an ensemble (`posterior: {members: 8}`), or with a head that judges "
                "(`head: {energy: mean_variance}`)."
            )
        if of == "forces":
            variance = variance.diagonal(dim1=-2, dim2=-1)
        if of in self.bounds:
            low, high = self.bounds[of](level)
            if of == "forces":
                low, high = low.unsqueeze(-1), high.unsqueeze(-1)
        else:
            high = normal_quantile(0.5 + level / 2)
            low = -high
        std = variance.sqrt()
        return moments.mean + low * std, moments.mean + high * std


def _show(value: Tensor) -> str:
    return f"{float(value):.2g}"


def normal_quantile(probability: float) -> float:
    """The value below which a standard normal falls with this probability."""
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Means and variances of many draws, detached, first axis the draw."""

    mean: Tensor
    variance: Tensor | None
    spread: Spread


def join_draws(parts: Sequence[Distribution]) -> Draws:
    """Distributions over portions of the draws as one."""
    spread = parts[0].spread
    variance = None
    if spread != "none":
        variance = torch.cat([part.variance.detach() for part in parts])
    return Draws(
        mean=torch.cat([part.mean.detach() for part in parts]), variance=variance, spread=spread
    )


def mix(distribution: Distribution | Draws, *, vector: bool = False) -> Moments:
    """Moments over a leading axis of draws, by the law of total variance.

    Args:
        distribution: over (draws, …).
        vector: whether the last axis is a vector whose covariance is wanted; variances are then
            (…, 3, 3).
    Returns:
        Epistemic variance with draws − 1 in the denominator; None for a single draw.
    """
    mean = distribution.mean.detach().double()
    draws = mean.shape[0]
    centre = mean.mean(0)
    epistemic = None
    if draws > 1:
        deviation = mean - centre
        epistemic = (_outer(deviation) if vector else deviation.square()).sum(0) / (draws - 1)
    if distribution.spread == "none" or distribution.variance is None:
        return Moments(mean=centre, epistemic=epistemic)
    variance = distribution.variance.detach().double()
    spread = variance.mean(0)
    if distribution.spread == "residual":
        return Moments(mean=centre, residual=spread)
    logs = (_determinant(variance) if vector else variance).log()
    return Moments(mean=centre, aleatoric=spread, epistemic=epistemic, log_noise=logs.mean(0))


def _determinant(matrices: Float[Tensor, "*rows 3 3"]) -> Float[Tensor, "*rows"]:
    """By the product of its rows: a factorisation of each small matrix would take far longer."""
    first, second, third = matrices.unbind(-2)
    return (first * torch.linalg.cross(second, third)).sum(-1)


def _outer(vectors: Tensor) -> Tensor:
    return vectors.unsqueeze(-1) * vectors.unsqueeze(-2)
