"""Predictor = potential + draws + calibration, in one file: what every use of a potential holds.

Draws are taken once, when it is built, so that frames, images and steps share them and energy
differences between them have honest error bars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, SupportsInt

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import ValidationError
from torch import Tensor

from surefoot.blocks.conditioning import require_learnt
from surefoot.blocks.dense import Weights, cast, under
from surefoot.compiled import Evaluate, compile_potential
from surefoot.data.batches import EVALUATION
from surefoot.data.convert import Sample
from surefoot.distributions.binned import join_binned
from surefoot.graph import Graph
from surefoot.heads import HEADS
from surefoot.members import count_members, shares_model, take_members
from surefoot.memory import make_room
from surefoot.models import MODELS
from surefoot.posteriors.calibration import Calibration, join_bounds, read_calibration
from surefoot.posteriors.described import describe
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.gate import FEWEST, Gate, first_draw, fit_gate, read_gate, require_shapes
from surefoot.posteriors.gaussian import DiagonalLaplace, Ivon, Swag
from surefoot.posteriors.last_layer import LastLayer
from surefoot.posteriors.learnt import Learnt, read_learnt
from surefoot.posteriors.mixing import mix_outputs
from surefoot.posteriors.posterior import ClosedForm, Posterior, Single
from surefoot.posteriors.saved import (
    read_baseline,
    read_provenance,
    read_states,
    require_weights,
    say_setting,
)
from surefoot.posteriors.shallow import Shallow
from surefoot.potential import Potential, require_single, splined
from surefoot.prediction import Moments, Prediction
from surefoot.tables import html_table
from surefoot.train.checkpoint import BROKEN, SHOWN, RefusedFile, read_tree, write_tree

KIND = "predictor"


@dataclass(frozen=True, kw_only=True, repr=False)
class Predictor:
    """A potential with its draws and calibration.

    Attributes:
        potential: model, head, baseline and states.
        posterior: what is saved.
        weights: the draws, stacked.
        calibration: factors on the standard deviations.
        provenance: how it was made: config, hashes, versions.
        evaluate: a faster form of the potential, or None; see `compiled`.
        gate: distance to the training data, for these draws; or None.
        learnt: which frames they have learnt from; None where nobody knows, as in older files.
    """

    potential: Potential
    posterior: Posterior
    weights: Weights
    calibration: Calibration
    provenance: dict[str, Any]
    evaluate: Evaluate | None = None
    gate: Gate | None = None
    learnt: Learnt | None = None

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.potential.model.cutoff

    @property
    def draws(self) -> int:
        """How many sets of weights a prediction mixes."""
        return count_members(self.weights)

    @property
    def gives_stress(self) -> bool:
        """Whether forces are −dE/dr, so that the derivative by the strain belongs to them too."""
        return self.potential.head.forces == "gradient"

    def __call__(
        self, graph: Graph, *, forces: bool = True, stress: bool = False, members: bool = False
    ) -> Prediction:
        """The mixture of all draws for a batch, calibrated and detached.

        Args:
            graph: the batch.
            forces: whether forces are wanted.
            stress: whether stress is wanted; only of the energy where not `gives_stress`.
            members: whether the forces and stress of each draw are kept too.
        """
        edges = max(1, graph.edge_index.shape[1])
        make_room(edges)
        width = max(1, (EVALUATION.edges or edges * self.draws) // edges)
        evaluate = self.evaluate or self.potential
        if self.evaluate is not None and width < self.draws:
            width = 1  # the number of draws is a constant of a compiled graph
        parts = _slices(self.weights, width)
        if self.gate is not None:  # it knows the features of the first draw
            parts[0] = parts[0] | under("gate", self.gate.tree)
        outputs = [evaluate(part, graph, forces=forces, stress=stress) for part in parts]
        mixed = mix_outputs(outputs, self.calibration, members=members)
        ood, ood_atoms = outputs[0].ood or (None, None)
        return replace(mixed, ood=ood, ood_atoms=ood_atoms, bounds=self.calibration.bounds(graph))

    def __repr__(self) -> str:
        """In a line; its weights are millions of numbers."""
        return f"<Predictor {'; '.join(': '.join(one) for one in describe(self).items())}>"

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        return html_table([{"potential": name, "": told} for name, told in describe(self).items()])

    def require(
        self, numbers: Iterable[SupportsInt], charge: int | None, spin: int | None, place: str
    ) -> None:
        """Refuse what the potential can know nothing of.

        Args:
            numbers: elements of a structure.
            charge: as the structure states it, or None.
            spin: multiplicity as the structure states it, or None.
            place: of the structure, for the message.
        Raises:
            UnknownElement: if it was not trained on an element.
            UnknownState: if it tells states apart and does not know this one, or if it was trained
                on stated charges and spins, and not on this one.
        """
        self.potential.baseline.require(numbers, place)
        if self.potential.states is not None:
            self.potential.states.require(charge, spin, place)
            return
        require_learnt(self.provenance.get("states", []), charge, spin, place)

    def save(self, path: Path) -> None:
        """Write the predictor, whole or not at all."""
        potential = self.potential
        header = {
            "model": potential.model.model_dump(),
            "head": potential.head.model_dump(),
            "baseline": asdict(potential.baseline),
            "states": None if potential.states is None else potential.states.pairs,
            "posterior": self.posterior.name,
            "calibration": self.calibration.header(),
            "gate": None if self.gate is None else self.gate.source,
            "provenance": self.provenance,
        }
        gate = {} if self.gate is None else under("gate", self.gate.tree)
        learnt = {} if self.learnt is None else self.learnt.tree()
        write_tree(path, KIND, self.posterior.tree() | gate | learnt, header)


POSTERIORS = {
    "single": Single,
    "ensemble": Ensemble,
    "shallow": Shallow,
    "swag": Swag,
    "ivon": Ivon,
    "laplace": LastLayer,
    "laplace_diagonal": DiagonalLaplace,
}
"""Name in a file → posterior, which reads its tree."""


def build_predictor(
    potential: Potential,
    posterior: Posterior,
    calibration: Calibration,
    provenance: dict[str, Any],
    *,
    draws: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> Predictor:
    """Take the draws and put the parts together.

    Args:
        potential: model, head and baseline.
        posterior: where the weights come from.
        calibration: factors on the standard deviations.
        provenance: how it was made.
        draws: how many; the posterior's natural number where not set.
        seed: of the draws.
        dtype: precision to compute in; that of the posterior where not set.
    """
    weights = posterior.draws(torch.Generator().manual_seed(seed), draws)
    weights = weights if dtype is None else cast(weights, dtype)
    if isinstance(posterior, ClosedForm):
        weights |= under("spread", posterior.spread())
    return Predictor(
        potential=potential,
        posterior=posterior,
        weights=weights,
        calibration=calibration,
        provenance=provenance,
    )


def load_predictor(
    path: str | Path, *, dtype: torch.dtype | None = None, draws: int | None = None
) -> Predictor:
    """Read a saved predictor; nothing in the file is executed.

    Args:
        path: of the file.
        dtype: precision to compute in; that of the file where not set.
        draws: how many sets of weights a prediction mixes; the natural number where not set. For
            another, factors follow from it where they can; others, and levels of intervals, are
            dropped, see `Calibration.for_draws`.
    Raises:
        RefusedFile: if the file is missing, damaged, foreign or of another kind, or if its
            weights are not those of its potential.
    """
    path = Path(path)
    tree, header = read_tree(path, KIND)
    try:
        potential = Potential(
            model=MODELS[header["model"]["name"]](**header["model"]),
            head=HEADS[header["head"]["energy"]](**header["head"]),
            baseline=read_baseline(header["baseline"]),
            states=read_states(header["states"]),
        )
        posterior_type = POSTERIORS[header["posterior"]]
        calibration = read_calibration(header["calibration"])
        tree, gate = read_gate(tree, header["gate"])
        tree, learnt = read_learnt(tree)
        provenance = read_provenance(header["provenance"])
    except BROKEN as error:
        reason = say_setting(error) if isinstance(error, ValidationError) else str(error)[:SHOWN]
        raise RefusedFile(
            f"{path}: made with parts this version of surefoot does not have ({reason})."
        ) from error
    posterior = _read_posterior(posterior_type.read, tree, path)
    try:
        predictor = build_predictor(
            potential, posterior, calibration, provenance, draws=draws, dtype=dtype
        )
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise RefusedFile(_say_incomplete(path, error)) from error
    require_weights(predictor.potential, predictor.weights, path)
    if gate is not None:
        require_shapes(gate, potential, path)
    if draws is not None and draws != (calibration.draws or _natural(posterior)):
        kept = ("energy", "difference") if isinstance(posterior, ClosedForm) else ()
        calibration = calibration.for_draws(draws, kept=kept)
    return replace(predictor, gate=gate, learnt=learnt, calibration=calibration)


def _natural(posterior: Posterior) -> int:
    """Draws that are taken where nobody says: what older files are calibrated for."""
    return count_members(posterior.draws(torch.Generator(), None))


def _read_posterior(read: Callable[[Weights], Posterior], tree: Weights, path: Path) -> Posterior:
    """The posterior of a file.

    Raises:
        RefusedFile: if its tree lacks something.
    """
    try:
        return read(tree)
    except (*BROKEN, RuntimeError) as error:
        raise RefusedFile(_say_incomplete(path, error)) from error


def _say_incomplete(path: Path, error: Exception) -> str:
    reason = f"the tensors of its posterior are not complete ({error!s:.{SHOWN}})"
    return f"{path}: {reason}; the file is of no use."


def _slices(weights: Weights, width: int) -> list[Weights]:
    """The draws in portions, so that memory does not grow with their number.

    Draws that share a model are differentiated one after the other, and need no more than one.
    """
    count = count_members(weights)
    if width >= count or shares_model(weights):
        return [weights]
    return [take_members(weights, slice(at, at + width)) for at in range(0, count, width)]


def compiled(predictor: Predictor) -> Predictor:
    """The same predictor, compiled: for very many structures; see `compile_potential`."""
    return replace(predictor, evaluate=compile_potential(predictor.potential))


def with_splines(predictor: Predictor) -> Predictor:
    """The same predictor, in float32, with its radial networks as splines; see `splined`."""
    weights = require_single(predictor.weights)
    return replace(predictor, weights=splined(predictor.potential, weights))


def knows_energies(predictor: Predictor) -> bool:
    """Whether error bars of energies are in closed form, so that one draw has them too."""
    return any(name.startswith("spread.") for name in predictor.weights)


def say_no_stress(predictor: Predictor, instead: str) -> str:
    """The refusal of a stress that belongs to no force.

    Args:
        predictor: whose forces are no gradient.
        instead: what can be done.
    """
    return (
        f"the forces of this potential are {predictor.potential.head.forces} and no slope of its "
        f"energy, so there is no stress that belongs to them; {instead}."
    )


def driver(predictor: Predictor) -> Predictor:
    """The first draw alone: what moves atoms at the price of one set of weights; not to be saved.

    `ood` stays, and so do error bars of energies that need no draws; of forces it knows none but
    what the head itself says.
    """
    kept, calibration = ("energy", "difference"), predictor.calibration
    if predictor.draws > 1:
        calibration = calibration.for_draws(1, kept=kept if knows_energies(predictor) else ())
    return replace(predictor, weights=first_draw(predictor.weights), calibration=calibration)


def recalibrated(predictor: Predictor, calibration: Calibration) -> Predictor:
    """The same predictor with other factors."""
    return replace(predictor, calibration=calibration)


def with_gate(
    predictor: Predictor, samples: Sequence[Sample], aside: Bool[np.ndarray, " samples"]
) -> Predictor:
    """The same predictor with a gate; without one where too few frames are set aside, or all are.

    Args:
        predictor: whose first draw has learnt from nothing that is set aside.
        samples: training frames and frames set aside.
        aside: which are set aside.
    """
    enough = int(aside.sum()) >= FEWEST and not bool(aside.all())
    return replace(predictor, gate=fit_gate(predictor, samples, aside) if enough else None)


def _joined(parts: Sequence[Tensor | None], axis: int) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present, dim=axis) if present else None


def join_predictions(parts: Sequence[Prediction]) -> Prediction:
    """Predictions of consecutive batches as one."""
    return Prediction(
        energy=_join_moments([part.energy for part in parts]),
        forces=_join_optional([part.forces for part in parts]),
        stress=_join_optional([part.stress for part in parts]),
        ood=_joined([part.ood for part in parts], 0),
        ood_atoms=_joined([part.ood_atoms for part in parts], 0),
        energy_draws=_joined([part.energy_draws for part in parts], 1),
        forces_draws=_joined([part.forces_draws for part in parts], 1),
        stress_draws=_joined([part.stress_draws for part in parts], 1),
        energy_factor=_joined([part.energy_factor for part in parts], 0),
        energy_bins=join_binned([part.energy_bins for part in parts]),
        error_bins=join_binned([part.error_bins for part in parts]),
        force_bins=join_binned([part.force_bins for part in parts]),
        bounds=join_bounds([part.bounds for part in parts]),
    )


def _join_optional(parts: Sequence[Moments | None]) -> Moments | None:
    present = [part for part in parts if part is not None]
    return _join_moments(present) if present else None


def _join_moments(parts: Sequence[Moments]) -> Moments:
    return Moments(
        mean=torch.cat([part.mean for part in parts]),
        aleatoric=_joined([part.aleatoric for part in parts], 0),
        epistemic=_joined([part.epistemic for part in parts], 0),
        residual=_joined([part.residual for part in parts], 0),
        log_noise=_joined([part.log_noise for part in parts], 0),
    )
