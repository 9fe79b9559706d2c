"""Potential = model + head + baseline: weights and a graph in, an Output out.

Forces and stress are derivatives of the energy with respect to edge vectors v:

    F_i = Σ_{edges received by i} dE/dv − Σ_{edges sent by i} dE/dv
    σ   = 1/V Σ_edges v ⊗ dE/dv          (tensile positive)

so stacked members differentiate their own copy of the vectors, in one backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from surefoot.blocks.conditioning import States, init_conditioning
from surefoot.blocks.dense import Weights, branch, cast, stack, under, unstack
from surefoot.blocks.gate import Distances, gate
from surefoot.blocks.reference import Baseline
from surefoot.blocks.splines import tabulate
from surefoot.distributions.densities import Distribution, Point
from surefoot.graph import (
    UNSTATED,
    Features,
    Geometry,
    Graph,
    Memory,
    TypedGraph,
    edge_vectors,
    find_kinds,
)
from surefoot.heads import Head, Scalar
from surefoot.members import TABLE, count_models, precision, stacks_model
from surefoot.models import Model
from surefoot.parts import Found, Local, Part, ask_parts, energy_slope, measure, spread_members
from surefoot.prediction import Output
from surefoot.segments import segment_sum


@dataclass(frozen=True, kw_only=True)
class Potential:
    """A model, a head and the fixed part of the energy; the weights are given with each call.

    Attributes:
        model: Geometry → Features.
        head: Features → Distribution.
        baseline: reference energies, scale and the table of elements.
        states: the states of charge and spin that are told apart; None where all are one surface.
    """

    model: Model
    head: Head
    baseline: Baseline
    states: States | None = None

    def init(self, seed: int, dtype: torch.dtype) -> Weights:
        """Fresh weights of one member, made from a generator of this seed."""
        generator = torch.Generator().manual_seed(seed)
        weights = under("model", self.model.init(generator, len(self.baseline.elements)))
        weights |= under("head", self.head.init(generator, self.model.widths))
        if self.states is not None:  # last, so that conditioning leaves the other weights alone
            table = weights[TABLE].shape
            weights["model.conditioning"] = init_conditioning(
                generator, len(self.states.pairs), *table
            )
        return cast(weights, dtype)

    def init_members(self, seed: int, members: int, dtype: torch.dtype) -> Weights:
        """Fresh weights of several members, stacked; member m is `init(seed + m)`."""
        return stack([self.init(seed + m, dtype) for m in range(members)])

    def __call__(
        self,
        weights: Weights,
        graph: Graph,
        *,
        forces: bool = True,
        stress: bool = False,
        differentiable: bool = False,
        memory: Memory | None = None,
    ) -> Output:
        """What these weights say of the batch.

        Args:
            weights: one set, stacked with a leading member axis, or partial, see `shares_model`.
            graph: the batch.
            forces: whether forces are wanted.
            stress: whether stress is wanted; needs three periodic axes.
            differentiable: whether derivatives of forces with respect to weights are wanted.
            memory: what becomes of the radial weights, see `Geometry`; by the size of the batch
                where not given.
        """
        typed = self.assign(graph)
        memory = memory or self.memory_for(weights, graph)
        if self.has_parts and memory == "recompute" and not differentiable:
            ask = self.asked(forces=forces, stress=stress, rows=True)
            return self.by_parts(ask, weights, typed, forces=forces, stress=stress)
        return self.evaluate(
            weights,
            typed,
            forces=forces,
            stress=stress,
            differentiable=differentiable,
            memory=memory,
        )

    def memory_for(self, weights: Weights, graph: Graph) -> Memory:
        """How a batch of this size is evaluated: in less memory where there are many pairs.

        Args:
            weights: one set, or stacked with a leading member axis.
            graph: the batch.
        """
        members = count_models(weights)
        most = self.model.most_kept
        large = most is not None and members * graph.pair_edges.shape[1] > most
        return "recompute" if large else "keep"

    def assign(self, graph: Graph) -> TypedGraph:
        """The batch with what depends on its elements and states alone.

        Raises:
            UnknownElement: if an element is not in the table.
            UnknownState: if a state of charge and spin is not in the table.
        """
        species = self.baseline.species(graph.numbers)
        state = None if self.states is None else self.states.index(graph)
        if bool((species < 0).any()) or (state is not None and bool((state < 0).any())):
            self._refuse(graph)
        if state is not None:
            state = state[graph.graph_index]
        return TypedGraph(graph=graph, kinds=find_kinds(species), state=state)

    def _refuse(self, graph: Graph) -> None:
        for number in range(graph.charge.shape[0]):
            place = f"structure {number} of the batch"
            self.baseline.require(graph.numbers[graph.graph_index == number].tolist(), place)
            if self.states is not None:
                charge, spin = int(graph.charge[number]), int(graph.spin[number])
                self.states.require(charge, None if spin == UNSTATED else spin, place)

    def evaluate(
        self,
        weights: Weights,
        typed: TypedGraph,
        *,
        forces: bool,
        stress: bool,
        differentiable: bool,
        memory: Memory = "keep",
    ) -> Output:
        """The same for a typed graph: what a trace can follow, since no shape hangs on a value."""
        sloped = self._sloped(forces=forces, stress=stress)
        vectors = spread_members(self._vectors(weights, typed), weights).requires_grad_(sloped)
        with torch.set_grad_enabled(sloped or differentiable):
            geometry = self._measure(typed, vectors, memory)
            features = self.model(branch(weights, "model"), geometry)
            energy = self.head(branch(weights, "head"), features)
            energy = energy.affine(self.baseline.scale, self._fixed(geometry))
            slope = None
            if sloped:
                slope = energy_slope(energy.mean, vectors, differentiable=differentiable)
            return self._answer(
                weights, features, energy, slope, forces, stress, differentiable=differentiable
            )

    @property
    def has_parts(self) -> bool:
        """Whether large batches are evaluated part by part, see `parts.py`."""
        return self.model.local and isinstance(self.head, Scalar)

    def asked(self, *, forces: bool, stress: bool, rows: bool) -> Local:
        """What is asked of each part."""
        if not isinstance(self.head, Scalar):
            raise TypeError(f"energies of a {self.head.energy} head are no sums over atoms.")
        return Local(
            model=self.model,
            head=self.head,
            scale=self.baseline.scale,
            neighbors=self.baseline.neighbors,
            sloped=self._sloped(forces=forces, stress=stress),
            rows=rows,
        )

    def by_parts(
        self,
        ask: Callable[[Weights, Part], Found],
        weights: Weights,
        typed: TypedGraph,
        *,
        forces: bool,
        stress: bool,
    ) -> Output:
        """The same as `evaluate`, part by part; features have no slopes.

        Args:
            ask: what answers as `asked` does; without rows only where the head is a plain scalar
                and nothing else looks at features.
            weights: as there.
            typed: as there.
            forces: as there.
            stress: as there.
        """
        vectors = self._vectors(weights, typed)
        found = ask_parts(ask, weights, typed, vectors)
        vectors = spread_members(vectors, weights)
        with torch.no_grad():
            geometry = self._measure(typed, vectors, "keep")
            features = Features(layers=found.layers, geometry=geometry)
            head = branch(weights, "head")
            energy = self.head(head, features) if found.layers else Point(found.energy)
            energy = energy.affine(self.baseline.scale, self._fixed(geometry))
            slope = found.slope
            if slope is not None and self.baseline.repulsion is not None:
                slope = slope + self._slope_of_repulsion(typed, vectors)
            return self._answer(
                weights, features, energy, slope, forces, stress, differentiable=False
            )

    def _slope_of_repulsion(self, typed: TypedGraph, vectors: Tensor) -> Tensor:
        with torch.enable_grad():
            vectors = vectors.clone().requires_grad_()
            return energy_slope(self._fixed(self._measure(typed, vectors, "keep")), vectors)

    def _sloped(self, *, forces: bool, stress: bool) -> bool:
        # Forces of their own cost no derivative.
        return stress or (forces and self.head.forces == "gradient")

    def _vectors(self, weights: Weights, typed: TypedGraph) -> Tensor:
        return edge_vectors(typed.graph).to(precision(weights))

    def _measure(self, typed: TypedGraph, vectors: Tensor, memory: Memory) -> Geometry:
        baseline, cutoff = self.baseline, self.model.cutoff
        return measure(typed, vectors, neighbors=baseline.neighbors, cutoff=cutoff, memory=memory)

    def _fixed(self, geometry: Geometry) -> Tensor:
        """The energy (…, graphs) in eV in which there are no weights, float64."""
        fixed = self.baseline.energy(geometry.graph, geometry.species)
        if self.baseline.repulsion is None:
            return fixed
        return fixed + self.baseline.repulsion.energy(geometry)

    def _answer(
        self,
        weights: Weights,
        features: Features,
        energy: Distribution,
        slope: Tensor | None,
        forces: bool,
        stress: bool,
        *,
        differentiable: bool,
    ) -> Output:
        """All that follows from features, the energy and its slope by the edge vectors."""
        graph, vectors = features.geometry.graph, features.geometry.vectors
        of_forces = None
        if forces:
            # Forces of their own take the shape of the mean, and whether it is cut off.
            shape = (*energy.mean.shape[:-1], *graph.positions.shape)
            mean = vectors.new_zeros(shape).requires_grad_(differentiable)
            if slope is not None:
                mean = _forces(slope, graph)
            head = branch(weights, "head")
            of_forces = self.head.force_distribution(head, features, mean, self.baseline.scale)
        return Output(
            energy=energy,
            forces=of_forces,
            stress=Point(_stress(slope, vectors, graph)) if stress and slope is not None else None,
            features=features,
            ood=_distances(branch(weights, "gate"), features, differentiable),
            energy_factor=self._spread(branch(weights, "spread"), features),
        )

    def _spread(self, heads: Weights, features: Features) -> Tensor | None:
        """Energies (graphs, heads) in eV of stacked heads without the fixed part, in float64."""
        if not heads:
            return None
        if not isinstance(self.head, Scalar):
            raise TypeError(f"energies of a {self.head.energy} head are not linear in its weights.")
        with torch.no_grad():
            layers = tuple(replace(rows, values=rows.values.double()) for rows in features.layers)
            energies = self.head.sum_energy(heads, replace(features, layers=layers))
        return self.baseline.scale * energies.mT


def _distances(weights: Weights, features: Features, differentiable: bool) -> Distances | None:
    if not weights:
        return None
    with torch.set_grad_enabled(differentiable):
        return gate(weights, features)


def splined(potential: Potential, weights: Weights) -> Weights:
    """Weights whose networks of the distance are tables: for inference alone.

    Meant for float32: energies then differ by less than 1e-6 eV/atom and forces by less than
    1e-5 eV/Å; both stay continuous, and so do the slopes of forces. Splines are made from the
    weights in float64. Below 0.2 Å, where no structure is, the first polynomial goes on, and that
    is not held there.

    Args:
        potential: whose weights they are.
        weights: one set, or stacked with a leading member axis.
    Raises:
        ValueError: if a network depends on more than the distance, or bends too much.
    """
    stacked = stacks_model(weights)
    model = cast(branch(weights, "model"), torch.float64)
    curves = [potential.model.curves(m) for m in (unstack(model) if stacked else [model])]
    if not curves[0]:
        raise ValueError(
            f"the radial networks of this {potential.model.name} can not become splines: there are "
            "none, or they depend on the elements too; use the potential as it is."
        )
    dtype, cutoff = precision(weights), potential.model.cutoff
    tables = {
        f"model.{name}.table": tabulate([curve[name] for curve in curves], cutoff).to(dtype)
        for name in curves[0]
    }
    return weights | (tables if stacked else {name: table[0] for name, table in tables.items()})


def require_single(weights: Weights) -> Weights:
    """The same weights, as splines want them.

    Raises:
        ValueError: if they are in float64, of whose digits splines keep six.
    """
    if precision(weights) == torch.float64:
        raise ValueError(
            "the potential is in float64, and splines are good to 1e-6 eV per atom; use it in "
            "float32 (precision float32), or without splines."
        )
    return weights


def _forces(slope: Tensor, graph: Graph) -> Tensor:
    return segment_sum(slope, graph.receivers) - segment_sum(slope, graph.senders)


def _stress(slope: Tensor, vectors: Tensor, graph: Graph) -> Tensor:
    """Symmetric, (…, graphs, 3, 3) in eV/Å³; not a number where there is no volume."""
    virial = vectors.detach().unsqueeze(-1) * slope.unsqueeze(-2)
    by_atom = segment_sum(virial, graph.receivers, axis=-3)
    by_graph = segment_sum(by_atom, graph.atoms, axis=-3)
    # Masked after a division by one: a division by nan would spoil every gradient it meets.
    periodic = graph.pbc.all(-1)
    volume = torch.where(periodic, graph.volume, 1.0).to(slope.dtype)
    stress = 0.5 * (by_graph + by_graph.mT) / volume[:, None, None]
    return torch.where(periodic[:, None, None], stress, torch.nan)
