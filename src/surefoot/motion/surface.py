"""Surfaces: any batched function from a graph to energies, forces and stress can move atoms.

`PredictorSurface` is that of a saved potential; tests and other programs bring their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, SupportsInt, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.data.batches import EVALUATION, BatchLimits
from surefoot.graph import Graph
from surefoot.motion.bias import Bias, Push, find_push, require_bias
from surefoot.motion.slices import slice_graph
from surefoot.posteriors.predictor import Predictor, driver, knows_energies, say_no_stress
from surefoot.prediction import Prediction
from surefoot.settings import Settings

Drive = Literal["mean", "first"]
"""Whose forces move the atoms: the mean of all draws, or the first draw alone, which is cheaper."""

DRIVES = get_args(Drive)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a surface says of a batch, in float64; None where it says nothing.

    Attributes:
        energy: (graphs) eV.
        forces: (atoms, 3) eV/Å.
        stress: (graphs, 3, 3) eV/Å³, tensile positive.
        energy_uncertainty: (graphs) eV, standard deviation.
        forces_uncertainty_norm: (atoms) eV/Å, root of the trace of each force's covariance.
        ood: (graphs) distance to the training data, 1 at its edge.
        ood_atoms: (atoms) the same of each atom.
        bias_energy: (graphs) eV, what moves the atoms beside the energy; None without a bias.
        bias_forces: (atoms, 3) eV/Å, its forces; `forces` are without them.
        bias_stress: (graphs, 3, 3) eV/Å³, its stress; `stress` is without it.
    """

    energy: Float[Tensor, " graphs"]
    forces: Float[Tensor, "atoms 3"]
    stress: Float[Tensor, "graphs 3 3"] | None = None
    energy_uncertainty: Float[Tensor, " graphs"] | None = None
    forces_uncertainty_norm: Float[Tensor, " atoms"] | None = None
    ood: Float[Tensor, " graphs"] | None = None
    ood_atoms: Float[Tensor, " atoms"] | None = None
    bias_energy: Float[Tensor, " graphs"] | None = None
    bias_forces: Float[Tensor, "atoms 3"] | None = None
    bias_stress: Float[Tensor, "graphs 3 3"] | None = None

    def select(self, graphs: Bool[Tensor, " graphs"], atoms: Bool[Tensor, " atoms"]) -> Evaluation:
        """The same of some graphs and their atoms."""
        return Evaluation(
            **{
                name: value[atoms if name in OF_ATOMS else graphs]
                for name, value in self.given().items()
            }
        )

    def given(self) -> dict[str, Tensor]:
        """The fields that are there."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


OF_ATOMS = ("forces", "forces_uncertainty_norm", "ood_atoms", "bias_forces")
"""Fields of an `Evaluation` with one row per atom; the others have one per graph."""


@runtime_checkable
class Surface(Protocol):
    """What atoms move on."""

    @property
    def cutoff(self) -> float:
        """Å; no edge of a graph needs to be longer."""
        ...

    @property
    def bias(self) -> Settings | None:
        """What pushes the atoms beside energy and forces, as settings; None where nothing does."""
        ...

    def require(
        self, numbers: Iterable[SupportsInt], charge: int | None, spin: int | None, place: str
    ) -> None:
        """Refuse, with ValueError, a structure of which the surface can know nothing."""
        ...

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        """Energies and forces of a batch.

        Args:
            graph: the batch.
            stress: whether stress is needed too.
            uncertainty: whether uncertainties are needed too, from surfaces that have them. Energy
                and forces must not depend on this.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PredictorSurface:
    """The surface of a saved potential.

    Attributes:
        predictor: from `load_predictor`.
        drive: `mean` moves on the mean of all draws, and uncertainties cost nothing more; `first`
            moves on the first draw, and all draws are asked only where an uncertainty is wanted.
        limits: of what is evaluated at once; larger batches are taken in parts.
        bias: what pushes atoms to where the potential is unsure; None is no bias.
    Raises:
        ValueError: if the potential has no uncertainty to be pushed by.
    """

    predictor: Predictor
    drive: Drive = "mean"
    limits: BatchLimits = EVALUATION
    bias: Bias | None = None

    def __post_init__(self) -> None:
        """See `require_bias`."""
        if self.bias is not None:
            require_bias(self.bias, self.predictor, alone=self.drive == "first")

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.predictor.cutoff

    def require(
        self, numbers: Iterable[SupportsInt], charge: int | None, spin: int | None, place: str
    ) -> None:
        """See `Predictor.require`."""
        self.predictor.require(numbers, charge, spin, place)

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        """Energies and forces of a batch; see `Surface`."""
        if self.drive == "mean" or self.predictor.draws == 1:
            return self._evaluate(self.predictor, graph, self.bias, stress=stress)
        driven = self._evaluate(driver(self.predictor), graph, self.bias, stress=stress)
        # One draw of several knows nothing of the spread of forces.
        driven = replace(driven, forces_uncertainty_norm=None)
        closed = knows_energies(self.predictor)
        if not closed:
            driven = replace(driven, energy_uncertainty=None)
        if not uncertainty:
            return driven
        whole = self._evaluate(self.predictor, graph, None, stress=False)
        return replace(
            driven,
            # The same whether or not all are asked, since a guard may decide by it.
            energy_uncertainty=(driven if closed else whole).energy_uncertainty,
            forces_uncertainty_norm=whole.forces_uncertainty_norm,
        )

    def _evaluate(
        self, predictor: Predictor, graph: Graph, bias: Bias | None, *, stress: bool
    ) -> Evaluation:
        members = bias is not None and bias.of == "energy"
        parts = []
        for part in slice_graph(graph, self.limits.shared_by(predictor.draws)):
            prediction = predictor(part, stress=stress, members=members)
            push = None if bias is None else find_push(bias, predictor, part, prediction)
            parts.append(to_evaluation(prediction, push))
        return join_evaluations(parts)


def to_evaluation(prediction: Prediction, push: Push | None = None) -> Evaluation:
    """A prediction as standard deviations and what motion needs of it, and a bias beside it."""
    energy, forces, stress = prediction.energy, prediction.forces, prediction.stress
    if forces is None:
        raise ValueError("the prediction has no forces; ask for them.")
    norm = None
    if forces.total is not None:
        norm = forces.total.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt().double()
    return Evaluation(
        energy=energy.mean.double(),
        forces=forces.mean.double(),
        stress=None if stress is None else stress.mean.double(),
        energy_uncertainty=None if energy.total is None else energy.total.sqrt().double(),
        forces_uncertainty_norm=norm,
        ood=None if prediction.ood is None else prediction.ood.detach().double(),
        ood_atoms=None if prediction.ood_atoms is None else prediction.ood_atoms.detach().double(),
        bias_energy=None if push is None else push.energy,
        bias_forces=None if push is None else push.forces,
        bias_stress=None if push is None else push.stress,
    )


class NoStress(ValueError):
    """Cells that are to move, and a potential whose forces are no gradient."""


def require_stress(surface: Surface, instead: str) -> None:
    """Refuse a potential that gives no stress where cells are to move.

    Args:
        surface: what is to move them.
        instead: what can be done, for the message.
    Raises:
        NoStress: if its forces are no gradient.
    """
    if isinstance(surface, PredictorSurface) and not surface.predictor.gives_stress:
        raise NoStress(say_no_stress(surface.predictor, instead))


def join_evaluations(parts: list[Evaluation]) -> Evaluation:
    """Evaluations of consecutive batches as one."""
    if len(parts) == 1:
        return parts[0]
    return Evaluation(
        **{name: torch.cat([part.given()[name] for part in parts]) for name in parts[0].given()}
    )
