"""The gate of a Predictor: fitted on frames it has learnt from, its edge set by frames it has not.

What the distance is stands in `blocks/gate.py`. Nothing here looks at a label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.blocks.dense import Weights, branch, under
from surefoot.blocks.gate import atom_features, latent_squares
from surefoot.data.batches import EVALUATION, join, plan_batches
from surefoot.data.convert import Sample, join_graphs
from surefoot.graph import Features, Graph, edge_vectors
from surefoot.members import take_members
from surefoot.potential import Potential
from surefoot.segments import segment_sum
from surefoot.train.checkpoint import RefusedFile
from surefoot.wording import counted

EDGE = 0.95
"""The share of frames set aside that lies inside the edge."""
DIRECTIONS = 32  # of each element's features that have a variance of their own
PRIOR = 10.0  # atoms that the variance common to all elements counts for
FLOOR = 1e-6  # of the mean variance: features in float32 know no smaller ones
LOOKED_AT = 4000  # frames whose features are read; distances are read in all
WIDENING = 3.0  # standard deviations of the shortest distance that are one step of the guard
NARROWEST = 0.03  # of the shortest distance; and for pairs of elements that were never neighbours
MARGIN = 1.25  # of the edge of atoms: the farthest of few frames is not the farthest there is
FEWEST = 10
"""Frames set aside that an edge needs."""
PARTS = ("centre", "axes", "tail", "inverse", "shortest", "width", "edges")


class TooFewFrames(ValueError):
    """An edge can not be found."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The weights of a gate and where it comes from.

    Attributes:
        tree: what `blocks.gate.gate` takes.
        source: in words, for reports.
    """

    tree: Weights
    source: str


@runtime_checkable
class Gated(Protocol):
    """What a gate is fitted for: a Predictor."""

    @property
    def potential(self) -> Potential:
        """Model, head and baseline."""
        ...

    @property
    def weights(self) -> Weights:
        """The draws, stacked; the gate belongs to the first."""
        ...


def read_gate(tree: Weights, source: str | None) -> tuple[Weights, Gate | None]:
    """The tensors of a file without those of its gate, and the gate.

    Raises:
        KeyError: if the gate is not whole.
    """
    rest = {name: value for name, value in tree.items() if not name.startswith("gate.")}
    if source is None:
        return rest, None
    held = branch(tree, "gate")
    return rest, Gate(tree={name: held[name] for name in PARTS}, source=source)


def require_shapes(gate: Gate, potential: Potential, path: Path) -> None:
    """Refuse tensors that are not those of a gate of this potential.

    Args:
        gate: as it was read.
        potential: whose elements and features it should know.
        path: of the file.
    Raises:
        RefusedFile: naming the first tensor that does not fit.
    """
    species = len(potential.baseline.elements)
    width = sum(one.values for one in potential.model.widths)
    rank = gate.tree["axes"].shape[-1:].numel()
    shapes = {
        "centre": (species, width),
        "axes": (species, width, rank),
        "tail": (species,),
        "inverse": (species, rank),
        "shortest": (species, species),
        "width": (species, species),
        "edges": (2,),
    }
    for name, needed in shapes.items():
        found = gate.tree[name]
        if tuple(found.shape) != needed or not found.is_floating_point():
            raise RefusedFile(
                f"{path}: the tensor gate.{name} is {found.dtype} of shape {tuple(found.shape)}, "
                f"and the potential needs real numbers of shape {needed}; the file is of no use."
            )


@dataclass
class _Sums:
    """Counts, sums and squares of the features of each element's atoms, in float64."""

    count: Tensor
    first: Tensor
    second: Tensor

    def add(self, values: Tensor, species: Tensor) -> None:
        for kind in species.unique().tolist():
            chosen = values[species == kind]
            self.count[kind] += chosen.shape[0]
            self.first[kind] += chosen.sum(0)
            self.second[kind] += chosen.T @ chosen


def first_draw(weights: Weights) -> Weights:
    """The first draw, with its axis; what all draws share stays as it is."""
    return take_members(weights, slice(0, 1))


def fit_gate(
    predictor: Gated,
    samples: Sequence[Sample],
    aside: Bool[np.ndarray, " samples"],
    progress: Callable[[int], None] = lambda _: None,
) -> Gate:
    """The gate of the first draw.

    Args:
        predictor: what predicts; its first draw must have learnt from nothing that is set aside.
        samples: training frames and frames set aside.
        aside: which are set aside: the edge encloses `EDGE` of them.
        progress: called with the number of samples looked at since the last call.
    Raises:
        TooFewFrames: if fewer than `FEWEST` are set aside, or none is left to learn from.
    """
    learnt, judges = np.flatnonzero(~aside), np.flatnonzero(aside)
    if len(judges) < FEWEST or not len(learnt):
        raise TooFewFrames(
            f"the edge of the training data needs at least {FEWEST} frames set aside and 1 that "
            f"was learnt from; there are {len(judges)} and {len(learnt)}. Set `data: {{valid: "
            "0.1}` or give more frames with `surefoot calibrate --held-out`."
        )
    potential, weights = predictor.potential, first_draw(predictor.weights)
    learnt = learnt[:: max(1, len(learnt) // LOOKED_AT)]
    judges = judges[:: max(1, len(judges) // LOOKED_AT)]
    tree = _whiten(potential, weights, samples, learnt, progress)
    tree |= _shortest(potential, samples)
    tree = {name: value.float().contiguous() for name, value in tree.items()}
    tree["edges"] = torch.ones(2)
    latent = _look(potential, weights, samples, judges, lambda f: latent_squares(tree, f), progress)
    structures, atoms = _edges(tree, samples, judges, torch.cat(latent), potential)
    tree["edges"] = torch.tensor([structures, atoms], dtype=torch.float32)
    source = (
        f"{counted(len(learnt), 'frame')}; the edge encloses {EDGE:.0%} of {len(judges)} set aside"
    )
    return Gate(tree=tree, source=source)


def _look(
    potential: Potential,
    weights: Weights,
    samples: Sequence[Sample],
    chosen: np.ndarray,
    read: Callable[[Features], Tensor],
    progress: Callable[[int], None],
) -> list[Tensor]:
    """What `read` says of the features of each batch."""
    found = []
    for indices in plan_batches(samples, chosen, EVALUATION):
        graph = join(samples, indices).graph
        with torch.no_grad():
            output = potential(weights, graph, forces=False)
            if output.features is None:
                raise ValueError("the potential keeps no features; fit the gate uncompiled.")
            found.append(read(output.features))
        progress(len(indices))
    return found


def _whiten(
    potential: Potential,
    weights: Weights,
    samples: Sequence[Sample],
    learnt: np.ndarray,
    progress: Callable[[int], None],
) -> Weights:
    """Mean and inverse covariance of each element's features, in a few directions and the rest."""
    elements, sums = len(potential.baseline.elements), None

    def add(features: Features) -> Tensor:
        nonlocal sums
        values = atom_features(features)
        if sums is None:
            width = values.shape[1]
            sums = _Sums(
                count=values.new_zeros(elements),
                first=values.new_zeros(elements, width),
                second=values.new_zeros(elements, width, width),
            )
        sums.add(values, features.geometry.species)
        return values[:0]

    _look(potential, weights, samples, learnt, add, progress)
    if sums is None:
        raise TooFewFrames("there are no frames to fit a gate on.")
    count = sums.count.clamp(min=1.0)
    centre = sums.first / count[:, None]
    scatter = sums.second - count[:, None, None] * centre[:, :, None] * centre[:, None, :]
    common = scatter.sum(0) / sums.count.sum()
    covariance = (scatter + PRIOR * common) / (sums.count + PRIOR)[:, None, None]
    # An element that no frame has shown is as far from the mean of all as from anything.
    centre[sums.count == 0] = sums.first.sum(0) / sums.count.sum()
    return {"centre": centre, **_invert(covariance)}


def _invert(covariance: Float[Tensor, "elements width width"]) -> Weights:
    """C⁻¹ ≈ Σ_d inverse_d · axis_d axis_dᵀ + tail · (all other directions), over the width."""
    width = covariance.shape[-1]
    directions = min(DIRECTIONS, width - 1)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(-1), vectors.flip(-1)[..., :directions]
    floor = FLOOR * values.mean(-1).clamp(min=1e-30)
    tail = torch.maximum(values[:, directions:].mean(-1), floor)
    large = torch.maximum(values[:, :directions], floor[:, None])
    return {
        "axes": vectors,
        "tail": 1.0 / tail / width,
        "inverse": 1.0 / large / width,
    }


def _shortest(potential: Potential, samples: Sequence[Sample]) -> Weights:
    """Shortest distance between each two elements over all frames, and the step of the guard.

    Means and squares of the batches are added up as in Chan, Golub and LeVeque (1983).
    """
    cutoff, elements = potential.model.cutoff, len(potential.baseline.elements)
    shortest = torch.full((elements * elements,), cutoff, dtype=torch.float64)
    frames, mean, squares = (torch.zeros_like(shortest) for _ in range(3))
    for indices in plan_batches(samples, np.arange(len(samples)), EVALUATION):
        rows = _closest(potential, join_graphs([samples[index] for index in indices]))
        shortest = torch.minimum(shortest, rows.min(0).values)
        # Frames in which the two elements do not meet say nothing of how it varies.
        met = rows < cutoff
        count = met.sum(0).double()
        own = torch.where(met, rows, 0.0).sum(0) / count.clamp(min=1)
        gap, total = own - mean, (frames + count).clamp(min=1)
        squares += torch.where(met, rows - own, 0.0).square().sum(0)
        squares += gap.square() * frames * count / total
        mean += gap * count / total
        frames += count
    spread = (squares / frames.clamp(min=1)).sqrt()
    width = torch.maximum(WIDENING * spread, NARROWEST * shortest)
    return {
        "shortest": shortest.reshape(elements, elements),
        "width": width.reshape(elements, elements),
    }


def _closest(potential: Potential, graph: Graph) -> Float[Tensor, "graphs pairs"]:
    """Shortest distance between each two elements in each structure; the cutoff where none is."""
    elements = len(potential.baseline.elements)
    species = potential.baseline.species(graph.numbers)
    receiver, sender = graph.edge_index
    lengths = torch.linalg.vector_norm(edge_vectors(graph), dim=-1)
    rows = torch.full(
        (len(graph.charge) * elements * elements,), potential.model.cutoff, dtype=torch.float64
    )
    place = (graph.graph_index[receiver] * elements + species[receiver]) * elements
    rows.scatter_reduce_(0, place + species[sender], lengths, "amin")
    return rows.reshape(len(graph.charge), elements * elements)


def _edges(
    tree: Weights,
    samples: Sequence[Sample],
    judges: np.ndarray,
    latent: Float[Tensor, " atoms"],
    potential: Potential,
) -> tuple[float, float]:
    """Edge of structures and of atoms; elements are put on one scale in the tree.

    The features of some elements vary more from frame to frame than those it was fitted on tell;
    afterwards the root mean square over the frames set aside is 1 for each element.
    """
    graphs = [samples[index].bare for index in judges]
    species = potential.baseline.species(torch.cat([graph.numbers for graph in graphs]))
    scales = torch.ones(len(potential.baseline.elements), dtype=torch.float64)
    present = species.unique()
    for kind in present.tolist():
        scales[kind] = latent[species == kind].mean().clamp(min=1e-30)
    absent = torch.ones_like(scales, dtype=torch.bool)
    absent[present] = False
    scales[absent] = scales[present].median()
    for name in ("tail", "inverse"):
        inverse = (1.0 / scales).reshape(-1, *[1] * (tree[name].dim() - 1))
        tree[name] = (tree[name].double() * inverse).float()
    latent = latent / scales[species]
    owner = torch.repeat_interleave(
        torch.arange(len(graphs)), torch.tensor([len(graph.numbers) for graph in graphs])
    )
    sizes = torch.bincount(owner, minlength=len(graphs))
    mean = torch.zeros(len(graphs), dtype=torch.float64).index_add_(0, owner, latent) / sizes
    # The frame itself and no mean of two: then the share inside is what `EDGE` says, or more.
    structures = np.quantile(mean.sqrt().numpy(), EDGE, method="higher")
    return max(float(structures), 1e-30), max(MARGIN * float(latent.max().sqrt()), 1e-30)


def gate_slope(predictor: Gated, fitted: Gate, graph: Graph) -> Float[Tensor, "atoms 3"]:
    """Gradient of the summed distances of the structures with respect to positions, in 1/Å.

    The direction in which structures leave the training data: to bias sampling, or to hold it back.
    """
    weights = first_draw(predictor.weights) | under("gate", fitted.tree)
    # Derivatives of forces keep what the backward pass of forces would free.
    output = predictor.potential(weights, graph, differentiable=True)
    if output.features is None or output.ood is None:
        raise ValueError("the potential keeps no features.")
    if graph.edge_index.shape[1] == 0:
        return torch.zeros_like(graph.positions)
    vectors = output.features.geometry.vectors
    (slope,) = torch.autograd.grad(output.ood[0].sum(), vectors)
    slope = (slope.sum(0) if slope.dim() == 3 else slope).double()
    return segment_sum(slope, graph.senders) - segment_sum(slope, graph.receivers)
