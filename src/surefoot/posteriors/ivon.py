"""IVON: an optimiser whose second moments are the precision of a Gaussian over the weights.

Paper: Shen et al. 2024, arXiv:2402.17641 (Algorithm 1), written from its equations. With a loss ℓ
that is a mean over data, λ the number of data, δ the decay and q = N(m, 1 / (λ (h + δ))),

    θ = m + σ ε,   σ² = 1 / (λ (h + δ))            ε standard normal, new in every step
    ĝ = ∇ℓ(θ),   ĥ = ĝ (θ − m) / σ²                both means over the samples of a step
    g ← β₁ g + (1 − β₁) ĝ
    h ← β₂ h + (1 − β₂) ĥ + ½ (1 − β₂)² (h − ĥ)² / (h + δ)      stays above 0
    m ← m − α clip((g / (1 − β₁ᵗ) + δ m) / (h + δ))

with α the learning rate times h₀ + δ, so that the first steps are those of gradient descent.

The loss has to be a negative log-likelihood. One that is (rules `nll`, `cross_entropy`) is taken as
it is, and its weights say how many data its means stand for: λ w_E energies and λ w_F forces on
atoms; with w_E = 1 and w_F the mean number of atoms these are all labels. Of squared errors one
half over `noise`² is a likelihood. Means run over structures, so λ is the number of structures
learned from where it is not set; a larger λ narrows the posterior. What multiplies the likelihood
of each point by another number (`beta_nll`, `weighting: residual`) is the likelihood of nothing.

The mean is never overwritten by a sample, so an exception leaves it as it was; noise follows from
seed and step, so a restart draws the same. A weight without gradient has ĥ = 0, and falls back to
the prior N(0, 1 / (λ δ)).
Cost: training as it is for each sample of a step, one tree of memory less than AMSGrad's, a
prediction per draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.heads import Head
from surefoot.posteriors.gaussian import Ivon
from surefoot.posteriors.posterior import Fitting, OneSet, Posterior
from surefoot.train.adamw import Gradient
from surefoot.train.fit import Task, TrainSettings
from surefoot.train.loss import LossSettings
from surefoot.train.state import State

LABELS = ("energy", "forces", "stress")
LIKELIHOODS = ("nll", "cross_entropy")


class IvonSettings(OneSet):
    """What the loss means as a likelihood, how curvature is followed, how many draws are taken."""

    name: Literal["ivon"] = "ivon"
    noise: float | None = Field(
        default=None,
        gt=0,
        description="root of the loss where it is as low as it gets (eV/Å for forces of weight 1): "
        "loss / (2 noise²) is the likelihood; leave it out where the rules are likelihoods",
    )
    ess: float | None = Field(
        default=None,
        gt=0,
        description="λ, number of data that the mean of the loss stands for; the structures "
        "learned from where not set",
    )
    decay: float = Field(default=1e-4, gt=0, description="δ: the prior is N(0, 1 / (λ δ))")
    initial: float = Field(default=1.0, gt=0, description="curvature h at the beginning")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the mean gradient")
    beta2: float = Field(default=0.999, gt=0, lt=1, description="decay of the curvature")
    clip_radius: float = Field(
        default=0.1, gt=0, description="largest change of a weight, before the learning rate"
    )
    samples: int = Field(default=1, ge=1, description="gradients per step, each at other weights")
    draws: int = Field(default=16, ge=2, description="sets of weights a prediction mixes")

    def fitting(
        self,
        learnt: int,
        settings: TrainSettings,
        loss: LossSettings,
        head: Head,  # noqa: ARG002
    ) -> Fitting:
        """IVON's step in place of AdamW's.

        Raises:
            ValueError: if the loss is no likelihood and no noise says what it would be.
        """
        rules = {n: getattr(loss, f"{n}_rule") for n in LABELS if getattr(loss, n) > 0}
        self._require_likelihood(rules, loss)
        data = self.ess or float(learnt)
        if self.noise is None:
            counts = {name: data * getattr(loss, name) for name in rules}
            units = {"energy": "energies", "forces": "forces on atoms"}
            told = " and ".join(f"{count:g} {units[name]}" for name, count in counts.items())
            note = f"IVON takes the loss for the likelihood of {told}"
        else:
            widths = {name: self.noise / getattr(loss, name) ** 0.5 for name in rules}
            told = ", ".join(f"{width:.3g} of {name}" for name, width in widths.items())
            note = (
                f"IVON takes the loss for the likelihood of {data:g} structures with noise {told}"
            )
        return Fitting(
            step=self.step(learnt, settings.seed),
            needs_training="IVON is a way to train",
            note=note,
        )

    def _require_likelihood(self, rules: Mapping[str, str], loss: LossSettings) -> None:
        """Refuse a loss that is no likelihood, with and without noise."""
        likely = {name for name, rule in rules.items() if rule in LIKELIHOODS}
        other = min(rules.keys() - likely, default=None)
        if loss.weighting == "residual" or "beta_nll" in rules.values():
            raise ValueError(
                "IVON needs a loss that is a likelihood, and `beta_nll` and `weighting: residual` "
                "make one of nothing; set `energy_rule: nll` and `forces_rule: nll`."
            )
        if likely and other is not None:
            raise ValueError(
                f"IVON needs one likelihood of all labels, and loss: {{{other}_rule: "
                f"{rules[other]}}} stands beside {rules[min(likely)]} for {min(likely)}, so no "
                f"noise makes one of both; set `loss: {{{other}: 0}}` or rules of one kind."
            )
        if self.noise is None and not likely:
            raise ValueError(
                f"IVON needs a loss that is a likelihood, and loss: {{{other}_rule: "
                f"{rules[str(other)]}}} is none; set `posterior: {{noise: …}}` to about the error "
                "you expect of a force in eV/Å, or take rules that are likelihoods."
            )
        if self.noise is not None and likely:
            raise ValueError(
                f"loss: {{{min(likely)}_rule: {rules[min(likely)]}}} is a likelihood already; "
                "leave out `posterior: {noise: …}`."
            )

    def step(self, learnt: int, seed: int) -> IvonStep:
        """The step for so many structures."""
        return IvonStep(
            data=self.ess or float(learnt),
            factor=1.0 if self.noise is None else 0.5 / self.noise**2,
            decay=self.decay,
            initial=self.initial,
            betas=(self.beta1, self.beta2),
            clip_radius=self.clip_radius,
            samples=self.samples,
            seed=seed,
        )

    def posterior(self, task: Task, state: State) -> Posterior:
        """The Gaussian about the last mean."""
        step = task.step
        if not isinstance(step, IvonStep):
            raise TypeError("this run was not trained with IVON.")
        return Ivon(
            mean=state.weights,
            variance=step.variance(state.moments["curvature"]),
            natural=self.draws,
            fixed=task.fixed,
        )


@dataclass(frozen=True, kw_only=True)
class IvonStep:
    """One step of IVON on a tree.

    Attributes:
        data: λ.
        factor: what makes the loss a likelihood.
        decay: δ.
        initial: h₀.
        betas: β₁, β₂.
        clip_radius: largest change before the rate.
        samples: gradients per step.
        seed: of the noise.
    """

    data: float
    factor: float
    decay: float
    initial: float
    betas: tuple[float, float]
    clip_radius: float
    samples: int
    seed: int

    def fresh(self, weights: Weights) -> dict[str, Weights]:
        """No gradient yet, and the initial curvature."""
        return {
            "gradient": {name: torch.zeros_like(value) for name, value in weights.items()},
            "curvature": {n: torch.full_like(value, self.initial) for n, value in weights.items()},
        }

    def variance(self, curvature: Weights) -> Weights:
        """σ² = 1 / (λ (h + δ))."""
        return {name: 1.0 / (self.data * (h + self.decay)) for name, h in curvature.items()}

    def __call__(
        self,
        state: State,
        gradient: Gradient,
        rate: float,
        *,
        stacked: bool,  # noqa: ARG002 - all is elementwise
    ) -> dict[str, Tensor]:
        """One step; see `Step`."""
        curvature = state.moments["curvature"]
        variance = self.variance(curvature)
        slopes = {name: torch.zeros_like(value) for name, value in curvature.items()}
        bends = {name: torch.zeros_like(value) for name, value in curvature.items()}
        terms: dict[str, Tensor] = {}
        for sample in range(self.samples):
            noise = self._noise(variance, state.step, sample)
            found, gradients = gradient(
                {name: value.detach() + noise[name] for name, value in state.weights.items()}
            )
            share = self.factor / self.samples
            for name, slope in gradients.items():
                slopes[name] += share * slope
                bends[name] += share * slope * noise[name] / variance[name]
            for name, term in found.items():
                terms[name] = terms.get(name, torch.zeros_like(term)) + term / self.samples
        for name, weight in state.weights.items():
            self._move(state, name, weight.detach(), slopes[name], bends[name], rate)
        return terms

    def _noise(self, variance: Weights, step: int, sample: int) -> Weights:
        """σ ε, by name: a tree from a file has another order."""
        entropy = np.random.SeedSequence((self.seed, step, sample)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(entropy[0] >> np.uint64(1)))
        noise = {}
        for name in sorted(variance):
            width = variance[name].sqrt()
            drawn = torch.randn(width.shape, generator=generator, dtype=torch.float64)
            noise[name] = width * drawn.to(width)
        return noise

    def _move(
        self, state: State, name: str, weight: Tensor, slope: Tensor, bend: Tensor, rate: float
    ) -> None:
        """Gradient, curvature and mean of one leaf, in place."""
        first, second = self.betas
        gradient = state.moments["gradient"][name]
        curvature = state.moments["curvature"][name]
        gradient.mul_(first).add_(slope, alpha=1 - first)
        off = (curvature - bend).square_().div_(curvature + self.decay)
        curvature.mul_(second).add_(bend, alpha=1 - second).add_(off, alpha=0.5 * (1 - second) ** 2)
        unbiased = gradient / (1 - first ** (state.step - state.began + 1))
        change = (unbiased + self.decay * weight) / (curvature + self.decay)
        change.clamp_(-self.clip_radius, self.clip_radius)
        weight.sub_(change, alpha=rate * (self.initial + self.decay))
