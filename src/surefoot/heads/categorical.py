"""Histograms of the energy itself: what the paper proposes, to be compared with.

Paper: Ali, arXiv:2512.01160. Of its text only the abstract and the introduction could be read:
    labels become histograms by HL-Gauss, cross-entropy is the loss, 128 bins do as well as a
    scalar, and the entropy is called epistemic. Where the histogram sits, its bins and its forces
    are inferred.
Design A: one histogram of the energy per atom, from the mean of the invariants of all atoms.
Design B: one histogram per atom; means and variances add up.
Forces: of the expectation by autograd, or (`forces: direct_lab | direct_frame`) histograms of
    their components, see `direct`.
Differs: labels are centred and bins reach as far as the labels, or to their 0.1 and 99.9 % where
    there are over a thousand, padded by 4 σ_t; a label beyond them is moved to the nearest edge and
    counted; the entropy is called total.
What is wrong with it, and why it is no default: A is not size-consistent: two molecules far apart
    do not have the sum of their energies. The energy is bounded by the bins, so that forces die at
    a wall. B's atoms have energies that no label fixes, and are taken to err independently. The
    width of a bin is far above the errors, so that error bars are too wide by construction.
Cost: that of a scalar head with `bins` outputs, for A per structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from surefoot.blocks.dense import (
    ACTIVATIONS,
    Activation,
    Weights,
    branch,
    init_silent,
    linear,
    under,
)
from surefoot.distributions.bins import Bins, Encoding, even_bins, require_numbers
from surefoot.distributions.components import Components
from surefoot.distributions.densities import SCORES, Distribution, Normal, Point, Rule
from surefoot.distributions.histograms import Histogram
from surefoot.distributions.masses import expectation, second_moment
from surefoot.graph import Features, Width
from surefoot.heads.direct import find_frames, init_direct, read_direct
from surefoot.heads.histogram import read_invariants
from surefoot.segments import segment_sum
from surefoot.settings import Settings

LEVELS = (0.001, 0.999)
"""Quantiles of the labels between which bins are laid, before padding: of up to a thousand labels
the smallest and the largest."""
LOCAL = 5.0  # Å: an atom's energy may differ from the mean by so much times the rms force


class LabelBins(Settings):
    """What is measured on training labels, in units of the baseline's scale.

    Attributes:
        centre: middle of the energies per atom beyond the references.
        values: bins of the energy per atom, or of an atom, about the centre.
        forces: bins of the components of forces; None where forces are a gradient.
        outside: share of the training labels beyond the bins of energies, and of forces.
    """

    centre: float
    values: Bins
    forces: Bins | None = None
    outside: tuple[float, float] = (0.0, 0.0)

    def describe(self, scale: float) -> str:
        """Where bins are and what is outside, in words; `scale` is that of the baseline, eV."""
        low, high = (scale * (self.centre + self.values.edges[end]) for end in (0, -1))
        text = f"bins: energies of atoms from {low:.4g} to {high:.4g} eV"
        text += f", {100 * self.outside[0]:.2g} % of the labels outside"
        if self.forces is None:
            return text
        end = scale * self.forces.edges[-1]
        return (
            f"{text}; force components to ± {end:.3g} eV/Å, {100 * self.outside[1]:.2g} % outside"
        )


class Categorical(Settings):
    """Settings of the head, and the head itself.

    A: E = N Σ_k p_k c_k, p = softmax(network(⟨x⟩));  B: E = Σ_i Σ_k p_ik c_k, p_i = softmax(network(x_i))
    """  # noqa: E501 - the equations stay on one line

    energy: Literal["categorical"] = "categorical"
    design: Literal["A", "B"] = Field(
        default="A", description="A: one histogram per structure, as in the paper; B: one per atom"
    )
    forces: Literal["gradient", "direct_lab", "direct_frame"] = Field(
        default="gradient",
        description="−dE/dr of the expectation; or histograms of components, not conservative: "
        "along the axes of the laboratory, which breaks rotation, or of a frame of each atom",
    )
    bins: int = Field(default=128, ge=2, description="of the energy, and of each force component")
    encoding: Encoding = Field(default="hl_gauss", description="how a label becomes a target")
    ratio: float = Field(
        default=0.75, ge=0.5, le=4, description="σ_t of HL-Gauss targets in units of a bin's width"
    )
    range: tuple[float, float] | None = Field(
        default=None,
        description="lowest and highest energy of an atom beyond the references, eV; from the "
        "training labels where not set",
    )
    width: int = Field(default=64, ge=1, description="hidden layer")
    activation: Activation = Field(default="silu", description="of the hidden layer")
    measured: LabelBins | None = Field(
        default=None, description="filled in from training labels; left empty in a config"
    )

    def init(self, generator: torch.Generator, widths: tuple[Width, ...]) -> Weights:
        """Fresh weights in float64; the last map is zero, so a fresh head gives the centre."""
        inputs = sum(width.values for width in widths)
        weights = init_silent(generator, inputs, self.width, self.bins)
        if self.forces != "gradient":
            direct = init_direct(generator, inputs, self.width, self.bins)
            weights |= under("direct", direct)
        return weights

    def measure(
        self,
        energies: Float[Tensor, " graphs"],
        sizes: Shaped[Tensor, " graphs"],
        components: Float[Tensor, " components"],
        scale: float,
    ) -> Categorical:
        """The head with bins for labels like these.

        Args:
            energies: (graphs) labels beyond the references, eV.
            sizes: (graphs) numbers of atoms.
            components: of labelled forces, eV/Å.
            scale: of the baseline, eV.
        Raises:
            ValueError: if there are no labels, if some are not numbers, or if `range` does not
                cover them.
        """
        require_numbers(energies, "training energies")
        require_numbers(components, "training force components")
        if not len(energies):
            raise ValueError(
                "a histogram of the energy learns from energies, and no training frame has one; "
                "choose `head: {energy: scalar}` for forces alone."
            )
        per_atom = energies.double() / sizes.double()
        low, high = self.range or (
            float(np.quantile(per_atom.numpy(), level, method=side))
            for level, side in zip(LEVELS, ("lower", "higher"), strict=True)
        )
        if not high > low:
            raise ValueError(
                f"bins from {low:g} to {high:g} eV per atom hold nothing: the training energies "
                "are all the same, or `head: {range: [low, high]}` is not ascending."
            )
        centre = 0.5 * (low + high)
        reach = max(high - centre, centre - low) / scale
        if self.design == "B" and self.range is None:
            reach += LOCAL
        values = even_bins(reach, self.bins, encoding=self.encoding, ratio=self.ratio)
        missed = values.require_cover((per_atom - centre) / scale, "energies per atom, centred")
        forces, lost = None, 0.0
        if self.forces != "gradient":
            if not len(components):
                raise ValueError(
                    "histograms of force components learn from forces, and no training frame has "
                    "any; choose `head: {forces: gradient}`."
                )
            scaled = components.double() / scale
            end = float(np.quantile(scaled.abs().numpy(), LEVELS[1], method="higher"))
            forces = even_bins(end, self.bins, encoding=self.encoding, ratio=self.ratio)
            lost = forces.require_cover(scaled, "force components")
        measured = LabelBins(
            centre=centre / scale, values=values, forces=forces, outside=(missed, lost)
        )
        return self.model_copy(update={"measured": measured})

    def __call__(self, weights: Weights, features: Features) -> Distribution:
        """Energy of each graph in units of the baseline's scale, from logits in float64.

        Raises:
            ValueError: if no bins were measured.
        """
        measured, graph = self._require_bins(), features.geometry.graph
        values = read_invariants(features)
        counts = graph.atom_counts.double()
        if self.design == "A":
            values = segment_sum(values, graph.atoms) / counts.to(values.dtype).unsqueeze(-1)
        hidden = ACTIVATIONS[self.activation](linear(values, branch(weights, "hidden")))
        logits = linear(hidden, branch(weights, "out")).double()
        if self.design == "A":
            shift = counts * measured.centre
            return Histogram(bins=measured.values, logits=logits, scale=counts, shift=shift)
        masses = logits.softmax(-1)
        local = expectation(masses, measured.values)
        variance = second_moment(masses, measured.values) - local.square()
        sums = segment_sum(torch.stack([local, variance], dim=-1), graph.atoms)
        return Composed(
            sums[..., 0] + counts * measured.centre,
            sums[..., 1].log(),
            smoothing=measured.values.smoothing,
        )

    def force_distribution(
        self,
        weights: Weights,
        features: Features,
        mean: Float[Tensor, "*members atoms 3"],
        scale: float,
    ) -> Distribution:
        """The gradient itself, or histograms of the components of each force, in eV/Å."""
        measured = self._require_bins()
        if self.forces == "gradient" or measured.forces is None:
            return Point(mean)
        part, values = branch(weights, "direct"), read_invariants(features)
        frames = None
        if self.forces == "direct_frame":
            frames = find_frames(part, values, features.geometry)
        return Components(
            bins=measured.forces,
            logits=read_direct(part, values, features.geometry, frames),
            frames=None if frames is None else frames.axes,
            scale=scale,
        )

    @property
    def rules(self) -> Mapping[str, tuple[Rule, ...]]:
        """Cross-entropy of what is a histogram, and the rules of the mean."""
        energy: tuple[Rule, ...] = ("cross_entropy", "squared", "absolute", "huber")
        forces: tuple[Rule, ...] = tuple(SCORES)
        if self.design == "B":
            energy = (*energy, "nll")
        if self.forces != "gradient":
            forces = ("cross_entropy", *forces)
        return {"energy": energy, "forces": forces}

    def judging(self) -> tuple[str, ...]:
        """None: all weights make the energy or the forces."""
        return ()

    def _require_bins(self) -> LabelBins:
        if self.measured is None:
            raise ValueError(
                "this histogram head has no bins: they are measured on training labels, which "
                "`surefoot train` does; in Python call `measure` of the head."
            )
        return self.measured


@dataclass(frozen=True)
class Composed(Normal):
    """The sum of independent histograms, by its moments: from some 20 atoms on it is a normal.

    Attributes:
        smoothing: σ_t of a label, in the unit of the mean.
    """

    smoothing: Tensor | float = 0.0

    def score(self, target: Tensor, rule: Rule) -> Tensor:
        """As a normal; cross_entropy is −ln p over a label of width σ_t: nll + σ_t² / 2V."""
        if rule == "cross_entropy":
            return super().score(target, "nll") + 0.5 * self.smoothing**2 / self.variance
        return super().score(target, rule)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Composed:
        """The distribution of scale · y + shift, scale above 0."""
        moved = super().affine(scale, shift)
        return replace(
            self,
            mean=moved.mean,
            log_variance=moved.log_variance,
            smoothing=self.smoothing * scale,
        )
