"""Whether learned variances still mean something: training stops where they do not.

A network that can make σ tiny where it has learned its labels by heart does so, and then follows
those labels alone; one that makes σ large learns no mean any more. Both are found in validation, or
on frames that are learned from where nobody judges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.distributions.densities import Normal, VectorNormal
from surefoot.graph import Graph, Targets
from surefoot.prediction import Output
from surefoot.train.loss import LossSettings

FAR = 100.0
"""A σ is lost that is so many times above the usual size, the rms force (in eV per root of atoms
for energies), or so many times below both that and the error. Below the error alone it need not be:
fresh weights know nothing of labels far from their references."""


def count_lost(
    output: Output, graph: Graph, targets: Targets, loss: LossSettings, scale: float
) -> dict[str, Float[Tensor, "*members 3"]]:
    """For each quantity with a likelihood: labels with σ far too small, far too large, and all.

    Args:
        output: of one set of weights or of stacked members.
        graph: the batch.
        targets: its labels.
        loss: its rules.
        scale: of the potential.
    """
    found = {}
    size = 2 * math.log(scale)
    if loss.energy > 0 and loss.energy_rule == "nll" and isinstance(output.energy, Normal):
        usual = size + graph.atom_counts.double().log()
        found["energy"] = _count(output.energy, targets.energy, targets.has_energy, usual)
    if loss.forces > 0 and loss.forces_rule == "nll" and isinstance(output.forces, VectorNormal):
        counted = targets.has_forces[graph.graph_index] & ~targets.fixed
        usual = torch.full_like(counted, size, dtype=torch.float64)
        found["forces"] = _count(output.forces, targets.forces, counted, usual)
    return found


def _count(
    normal: Normal | VectorNormal,
    target: Tensor,
    counted: Bool[Tensor, " labels"],
    usual: Float[Tensor, " labels"],
) -> Float[Tensor, "*members 3"]:
    """Labels by the fate of their variance, whose logarithm is usually not far from `usual`."""
    squares = normal.mahalanobis(target.to(normal.mean.dtype)).detach() / normal.dimensions
    sizes = normal.log_determinant.detach() / normal.dimensions
    away = 2 * math.log(FAR)
    tiny = (squares > FAR**2) & (sizes < usual - away)
    huge = sizes > usual + away
    kinds = torch.stack([tiny, huge, torch.ones_like(tiny)], dim=-1)
    return (kinds & counted[:, None]).sum(-2).double()


def refuse_lost(counts: Mapping[str, Float[Tensor, "members 3"]], frames: str) -> None:
    """Stop a training in which the variances of most labels are lost for a member.

    Args:
        counts: of each quantity, as `count_lost` gives them.
        frames: which ones they were counted on, for the message.
    Raises:
        FloatingPointError: naming quantity, member and remedy.
    """
    for name, count in counts.items():
        tiny, huge, total = count.unbind(-1)
        for lost, what in (
            (tiny > 0.5 * total, "collapsed: σ is over 100 times smaller than the errors"),
            (huge > 0.5 * total, "exploded: σ is over 100 times larger than forces usually are"),
        ):
            members = lost.nonzero().flatten().tolist()
            if members:
                raise FloatingPointError(
                    f"the variance of the {name} has {what} for most {frames} frames (member "
                    f"{members[0]}); lower `train: {{learning_rate}}`, begin with "
                    "`loss: {warmup: {epochs: 10}}`, or set `loss: {energy_rule: beta_nll, "
                    "forces_rule: beta_nll}`."
                )
