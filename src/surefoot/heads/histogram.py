"""Histograms of errors: the scalar head's energy and forces, and how far each may be off.

Design C of the project's reading of Ali 2025 (arXiv:2512.01160), which puts the histogram on the
energy itself: there its bins, 20 meV/atom wide for 128 of them over a large data set, are an order
of magnitude wider than the errors of which it is to speak. Here
    the energy is a sum over atoms and forces are −dE/dr, untouched to the bit;
    (E_ref − E) / N^γ of each structure and u = |F_ref − F| of each atom have a histogram, over bins
    measured on residuals of frames from which the weights did not learn;
    networks read the invariants of the model and do not shape them;
    targets are one-hot: errors are spread, so cross-entropy is a proper score of their density, and
    smoothing would only widen it;
    the last bin of u is open and stays in the loss, so that a failure is something the head has
    seen (Orb's confidence head masks such atoms).
What it says is the whole error of structures like those held out: `spread` is residual. It knows no
correlation between structures, and nothing of places unlike the data.
Cost: atoms × features × width, and no derivative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from pydantic import Field, field_validator
from torch import Tensor

from surefoot.blocks.dense import Weights, branch, init_silent, linear, under
from surefoot.distributions.bins import Bins, error_bins, require_numbers, residual_bins
from surefoot.distributions.densities import Distribution, Point, Rule
from surefoot.distributions.histograms import Lengths, Residuals
from surefoot.graph import Features, Width
from surefoot.heads.scalar import Scalar, sum_rows
from surefoot.segments import Segments, segment_sum
from surefoot.settings import Settings


class ErrorBins(Settings):
    """What is measured on held-out residuals, in units of the baseline's scale.

    Attributes:
        power: γ; the errors of energies grow as N^γ.
        size: mean of ln N over the held-out structures.
        system: bins of (E_ref − E) / N^γ; None where no energy was held out.
        atom: bins of |F_ref − F|; None where no forces were held out.
        system_shares: of the residuals in each bin.
        atom_shares: of the errors in each bin.
    """

    power: float = Field(ge=0.5, le=1)
    size: float
    system: Bins | None = None
    atom: Bins | None = None
    system_shares: tuple[float, ...] = ()
    atom_shares: tuple[float, ...] = ()

    def describe(self, scale: float) -> str:
        """Where the bins are, in words; `scale` is that of the baseline, eV."""
        parts = []
        if self.system is not None:
            end = scale * self.system.edges[-1]
            parts.append(f"errors of energies to ± {end:.3g} eV × atoms^{self.power:.2f}")
        if self.atom is not None:
            low, high = scale * self.atom.edges[1], scale * self.atom.edges[-1]
            parts.append(f"errors of forces from {low:.2g} to {high:.3g} eV/Å")
        return f"bins: {' and '.join(parts)}, open beyond"


class ErrorHistograms(Scalar):
    """Settings of the head, and the head itself.

    ln p(E_ref − E) = network(⟨x⟩, max x, ln N),  ln p(|F_ref − F|) = network(x)

    with x the invariants of an atom from all read-out layers, mean and maximum over the structure.
    """

    energy: Literal["histogram"] = "histogram"  # type: ignore[assignment]
    system_bins: int = Field(default=64, ge=4, description="bins of the error of an energy; even")
    atom_bins: int = Field(default=64, ge=4, description="bins of the error of a force")
    spacing: Literal["asinh", "quantile"] = Field(
        default="asinh",
        description="edges for energies: sinh-spaced to 20 mean absolute errors, or at quantiles",
    )
    width: int = Field(default=64, ge=1, description="hidden layer of the networks that judge")
    measured: ErrorBins | None = Field(
        default=None, description="filled in from held-out residuals; left empty in a config"
    )

    @field_validator("system_bins")
    @classmethod
    def _even(cls, count: int) -> int:
        if count % 2:
            raise ValueError("the bins of an energy's error are symmetric about 0: an even number")
        return count

    def init(self, generator: torch.Generator, widths: tuple[Width, ...]) -> Weights:
        """Fresh weights in float64: the scalar head's, then those that judge.

        A fresh head gives every structure the shares that were measured, or all bins the same, and
        ln N no say: where all held-out structures are of one size it never gets one.
        """
        weights = super().init(generator, widths)
        inputs = sum(width.values for width in widths)
        measured = self.measured or ErrorBins(power=1.0, size=0.0)
        system = init_silent(generator, 2 * inputs + 1, self.width, self.system_bins)
        system["hidden.weight"][-1] = 0.0
        atom = init_silent(generator, inputs, self.width, self.atom_bins)
        for judge, shares in ((system, measured.system_shares), (atom, measured.atom_shares)):
            if shares:
                judge["out.bias"] = torch.tensor(shares, dtype=torch.float64).log()
        return weights | under("system", system) | under("atom", atom)

    def measure(
        self,
        energies: Float[Tensor, " graphs"],
        sizes: Shaped[Tensor, " graphs"],
        errors: Float[Tensor, " atoms"],
        scale: float,
    ) -> ErrorHistograms:
        """The head with bins for errors like these.

        Args:
            energies: (graphs) E_ref − E of structures held out, eV; none where none is labelled.
            sizes: (graphs) their numbers of atoms.
            errors: (atoms) |F_ref − F| of atoms held out, eV/Å; none where none is labelled.
            scale: of the baseline, eV.
        Raises:
            ValueError: if there are fewer residuals than bins, or some are not numbers.
        """
        require_numbers(energies, "held-out residuals of energies")
        require_numbers(errors, "held-out errors of forces")
        given = {"system": energies.numel(), "atom": errors.numel()}
        if not any(given.values()):
            raise ValueError(
                "there is no held-out residual to measure the bins of errors on; give frames with "
                "energies or forces from which the potential has not learned."
            )
        for name, found in given.items():
            wanted = {"system": self.system_bins, "atom": self.atom_bins}[name]
            if 0 < found < wanted:
                kind = {"system": "energies", "atom": "forces"}[name]
                raise ValueError(
                    f"{found} held-out residuals of {kind} are too few for {wanted} bins; hold out "
                    f"at least {wanted}, or lower `head: {{{name}_bins: {wanted}}}`."
                )
        power = fit_power(energies, sizes)
        system = atom = None
        if given["system"]:
            energies = energies / (scale * sizes.double() ** power)
            system = residual_bins(energies, self.system_bins, self.spacing)
        if given["atom"]:
            errors = errors / scale
            atom = error_bins(errors, self.atom_bins)
        measured = ErrorBins(
            power=power,
            size=float(sizes.double().log().mean()) if len(sizes) else 0.0,
            system=system,
            atom=atom,
            system_shares=_shares(system, energies),
            atom_shares=_shares(atom, errors),
        )
        return self.model_copy(update={"measured": measured})

    def __call__(self, weights: Weights, features: Features) -> Distribution:
        """Energy of each graph in units of the baseline's scale, with the histogram of its error.

        Raises:
            ValueError: if no bins were measured.
        """
        energy, measured = self.sum_energy(weights, features), self._require_bins()
        if measured.system is None:
            return Point(energy)
        atoms = features.geometry.graph.atoms
        values = read_invariants(features).detach()
        counts = features.geometry.graph.atom_counts
        size = counts.to(values.dtype).log() - measured.size
        means = segment_sum(values, atoms) / counts.to(values.dtype).unsqueeze(-1)
        shape = (*values.shape[:-2], counts.shape[0], 1)
        pooled = torch.cat(
            [means, _largest(values, atoms), size.unsqueeze(-1).expand(shape)], dim=-1
        )
        return Residuals(
            mean=energy,
            bins=measured.system,
            logits=_judge(pooled, branch(weights, "system")),
            scale=counts.double() ** measured.power,
        )

    def force_distribution(
        self,
        weights: Weights,
        features: Features,
        mean: Float[Tensor, "*members atoms 3"],
        scale: float,
    ) -> Distribution:
        """The force on each atom with the histogram of the length of its error, in eV/Å."""
        measured = self._require_bins()
        if measured.atom is None:
            return Point(mean)
        logits = _judge(read_invariants(features).detach(), branch(weights, "atom"))
        return Lengths(mean=mean, bins=measured.atom, logits=logits, scale=scale)

    @property
    def rules(self) -> Mapping[str, tuple[Rule, ...]]:
        """Cross-entropy of the histograms; where one was not measured, scores of the mean.

        A density in space would draw forces to where it has no bound, at no error at all.
        """
        of_bins: tuple[Rule, ...] = ("cross_entropy",)
        measured = self.measured or ErrorBins(power=1.0, size=0.0)
        found = {"energy": measured.system, "forces": measured.atom}
        plain = super().rules
        judged = self.measured is None
        return {
            name: of_bins if judged or bins is not None else plain[name]
            for name, bins in found.items()
        }

    def judging(self) -> tuple[str, ...]:
        """The networks of both histograms."""
        return ("system.", "atom.")

    def _require_bins(self) -> ErrorBins:
        if self.measured is None:
            raise ValueError(
                "this histogram head has no bins: they are measured on residuals of a trained "
                "potential, on frames it has not learned from; fit the head on one, with "
                "`start: {potential: FILE, learn: judges}`."
            )
        return self.measured


def _shares(bins: Bins | None, values: Tensor) -> tuple[float, ...]:
    """Share of the values in each bin, with one pseudo-observation over all of them."""
    if bins is None:
        return ()
    counts = torch.bincount(bins.find(values), minlength=bins.count).double()
    return tuple(((counts + 1 / bins.count) / (len(values) + 1)).tolist())


def fit_power(residuals: Float[Tensor, " graphs"], sizes: Shaped[Tensor, " graphs"]) -> float:
    """The γ from ½ to 1 with which |residual| / N^γ depends least on N; 1 where N does not vary.

    Maximum likelihood of a double exponential of width s N^γ: γ ⟨ln N⟩ + ln ⟨|r| N^−γ⟩ is least,
    which is convex. Copies of one cell err alike, so 1 is what is known without data.

    Args:
        residuals: E_ref − E, eV.
        sizes: N.
    """
    if not len(sizes) or float(sizes.max()) < 1.5 * float(sizes.min()):
        return 1.0
    powers = torch.linspace(0.5, 1.0, 501, dtype=torch.float64)
    logs = sizes.double().log()
    lengths = residuals.double().abs() * (-powers.unsqueeze(-1) * logs).exp()
    return float(powers[(powers * logs.mean() + lengths.mean(-1).log()).argmin()])


def read_invariants(features: Features) -> Float[Tensor, "*members atoms width"]:
    """The invariants of each atom from all layers, side by side.

    Rows of edges or sphere samples are summed with their weights.
    """
    return torch.cat([sum_rows(rows.values, rows) for rows in features.layers], dim=-1)


def _judge(inputs: Tensor, weights: Weights) -> Tensor:
    hidden = torch.nn.functional.silu(linear(inputs, branch(weights, "hidden")))
    return linear(hidden, branch(weights, "out"))


def _largest(rows: Tensor, segments: Segments) -> Tensor:
    """The largest value of each channel over the rows of an item; every item has a row."""
    shape = (*rows.shape[:-2], segments.count, rows.shape[-1])
    index = segments.index.unsqueeze(-1).expand(rows.shape)
    lowest = rows.new_full(shape, -math.inf)
    return lowest.scatter_reduce(-2, index, rows, "amax")
