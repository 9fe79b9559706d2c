"""Predictor = potential + draws + calibration, in one file: what every use of a potential holds.

Draws are taken once, when it is built, so that frames, images and steps share them and energy
differences between them have honest error bars.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, SupportsInt

import torch
from pydantic import ValidationError
from torch import Tensor

from surefoot.blocks.conditioning import States, UnknownState
from surefoot.blocks.dense import Weights
from surefoot.blocks.reference import Baseline
from surefoot.blocks.repulsion import Repulsion
from surefoot.data.batches import EVALUATION
from surefoot.graph import Graph
from surefoot.heads import HEADS
from surefoot.models import MODELS
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.posterior import Posterior, Single
from surefoot.potential import Evaluate, Potential, compile_potential, splined
from surefoot.prediction import Moments, Output, Prediction, join_draws, mix
from surefoot.train.checkpoint import RefusedFile, read_tree, write_tree

KIND = "predictor"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Factors on every standard deviation, one per quantity, and where they come from.

    Attributes:
        energy, forces, stress: what the spread of the draws is multiplied by; None where nothing
            was there to calibrate on, and the spread is then left as it is.
        difference: the same for differences between energies of one composition, where errors
            that all structures of a composition share cancel: barriers, paths, relaxations.
        source: in words, for reports.
    """

    energy: float | None = None
    forces: float | None = None
    stress: float | None = None
    difference: float | None = None
    source: str = "not calibrated"

    def describe(self) -> str:
        """What is calibrated on what, in words."""
        factors = {
            name: getattr(self, name) for name in ("energy", "forces", "stress", "difference")
        }
        missing = [name for name, factor in factors.items() if factor is None]
        if not missing or len(missing) == len(factors):
            return self.source
        return f"{self.source}; not calibrated: {', '.join(missing)}"


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A potential with its draws and calibration.

    Attributes:
        potential: model, head, baseline and states.
        posterior: what is saved.
        weights: the draws, stacked.
        calibration: factors on the standard deviations.
        provenance: how it was made: config, hashes, versions.
        evaluate: a faster form of the potential, or None; see `compiled`.
    """

    potential: Potential
    posterior: Posterior
    weights: Weights
    calibration: Calibration
    provenance: dict[str, Any]
    evaluate: Evaluate | None = None

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.potential.model.cutoff

    @property
    def draws(self) -> int:
        """How many sets of weights a prediction mixes."""
        return self.weights["model.embedding"].shape[0]

    def __call__(
        self, graph: Graph, *, forces: bool = True, stress: bool = False, members: bool = False
    ) -> Prediction:
        """The mixture of all draws for a batch, calibrated and detached.

        Args:
            graph: the batch.
            forces: whether forces are wanted.
            stress: whether stress is wanted.
            members: whether the forces and stress of each draw are kept too.
        """
        edges = max(1, graph.edge_index.shape[1])
        width = max(1, (EVALUATION.edges or edges * self.draws) // edges)
        evaluate = self.evaluate or self.potential
        outputs = [
            evaluate(part, graph, forces=forces, stress=stress)
            for part in _slices(self.weights, width)
        ]
        return _mix_outputs(outputs, self.calibration, members=members)

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
        states = [tuple(state) for state in self.provenance.get("states", [])]
        if states and charge is not None and spin is not None and (charge, spin) not in states:
            known = ", ".join(f"charge {c} and spin {s}" for c, s in states)
            raise UnknownState(
                f"{place}: charge {charge} and spin {spin} are stated, but this potential has only "
                f"learned {known} and can not tell states apart; train on data of this state, with "
                "`conditioning: {name: charge_spin}` where there are several."
            )

    def save(self, path: Path) -> None:
        """Write the predictor, whole or not at all."""
        potential = self.potential
        header = {
            "model": potential.model.model_dump(),
            "head": potential.head.model_dump(),
            "baseline": asdict(potential.baseline),
            "states": None if potential.states is None else potential.states.pairs,
            "posterior": self.posterior.name,
            "calibration": asdict(self.calibration),
            "provenance": self.provenance,
        }
        write_tree(path, KIND, self.posterior.tree(), header)


POSTERIORS = {"single": Single, "ensemble": Ensemble}
"""Name in a file → posterior, made from its tree."""


def build_predictor(
    potential: Potential,
    posterior: Posterior,
    calibration: Calibration,
    provenance: dict[str, Any],
    *,
    draws: int | None = None,
    seed: int = 0,
) -> Predictor:
    """Take the draws and put the parts together.

    Args:
        potential: model, head and baseline.
        posterior: where the weights come from.
        calibration: factors on the standard deviations.
        provenance: how it was made.
        draws: how many; the posterior's natural number where not set.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    return Predictor(
        potential=potential,
        posterior=posterior,
        weights=posterior.draws(generator, draws),
        calibration=calibration,
        provenance=provenance,
    )


def load_predictor(path: str | Path, *, dtype: torch.dtype | None = None) -> Predictor:
    """Read a saved predictor; nothing in the file is executed.

    Args:
        path: of the file.
        dtype: precision to compute in; that of the file where not set.
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
            baseline=_read_baseline(header["baseline"]),
            states=_read_states(header["states"]),
        )
        posterior_type = POSTERIORS[header["posterior"]]
        calibration = Calibration(**header["calibration"])
        provenance = header["provenance"]
    except (KeyError, TypeError, ValueError) as error:
        reason = _say_setting(error) if isinstance(error, ValidationError) else error
        raise RefusedFile(
            f"{path}: made with parts this version of surefoot does not have ({reason})."
        ) from error
    if dtype is not None:
        tree = {name: value.to(dtype) for name, value in tree.items()}
    predictor = build_predictor(potential, posterior_type(tree), calibration, provenance)
    _require_weights(predictor, path)
    return predictor


def _say_setting(error: ValidationError) -> str:
    """The first setting that is not as this version has it, on one line."""
    problem = error.errors()[0]
    name = ".".join([error.title, *map(str, problem["loc"])])
    return f"{name}: {problem['msg']}, found {problem['input']!r}"


def _require_weights(predictor: Predictor, path: Path) -> None:
    """Refuse draws that are not weights of the potential: read as they are, some would not matter.

    Raises:
        RefusedFile: naming the first weight that is missing, left over or of another shape.
    """
    found = predictor.weights
    fresh = predictor.potential.init(0, torch.float64)
    for name in sorted(fresh.keys() - found.keys()):
        raise RefusedFile(
            f"{path}: the weight {name} of shape {tuple(fresh[name].shape)} is missing; the file "
            "is of no use."
        )
    for name in sorted(found.keys() - fresh.keys()):
        raise RefusedFile(
            f"{path}: the weight {name} of shape {tuple(found[name].shape[1:])} is not one of the "
            "potential; the file is of no use."
        )
    sets = tuple(found["model.embedding"].shape[:1])
    for name in sorted(fresh):
        shape, needed = tuple(found[name].shape), (*sets, *fresh[name].shape)
        if shape != needed:
            raise RefusedFile(
                f"{path}: the weight {name} has the shape {shape}, and the potential needs "
                f"{needed}, sets of weights first; the file is of no use."
            )


def _read_baseline(header: dict[str, Any]) -> Baseline:
    return Baseline(
        elements=tuple(header["elements"]),
        energies=tuple(header["energies"]),
        scale=header["scale"],
        neighbors=header["neighbors"],
        repulsion=_read_repulsion(header["repulsion"]),
    )


def _read_repulsion(header: dict[str, Any] | None) -> Repulsion | None:
    return None if header is None else Repulsion(**{**header, "radii": tuple(header["radii"])})


def _read_states(pairs: list[list[int]] | None) -> States | None:
    if pairs is None:
        return None
    return States(tuple((int(charge), int(spin)) for charge, spin in pairs))


def _slices(weights: Weights, width: int) -> list[Weights]:
    """The draws in portions, so that memory does not grow with their number."""
    count = next(iter(weights.values())).shape[0]
    if width >= count:
        return [weights]
    starts = range(0, count, width)
    return [{name: value[at : at + width] for name, value in weights.items()} for at in starts]


def _mix_outputs(
    outputs: Sequence[Output], calibration: Calibration, *, members: bool
) -> Prediction:
    energies = join_draws([output.energy for output in outputs])
    energy = mix(energies)
    draws = energies.mean
    all_forces = [output.forces for output in outputs if output.forces is not None]
    all_stress = [output.stress for output in outputs if output.stress is not None]
    forces = stress = forces_draws = stress_draws = None
    if all_forces:
        joined = join_draws(all_forces)
        forces = mix(joined, vector=True).scaled(calibration.forces or 1.0)
        forces_draws = joined.mean if members else None
    if all_stress:
        joined = join_draws(all_stress)
        stress = mix(joined).scaled(calibration.stress or 1.0)
        stress_draws = joined.mean if members else None
    return Prediction(
        energy=energy.scaled(calibration.energy or 1.0),
        forces=forces,
        stress=stress,
        energy_draws=draws,
        forces_draws=forces_draws,
        stress_draws=stress_draws,
        energy_factor=_factor(draws, energy.mean, calibration.difference or 1.0),
    )


def _factor(draws: Tensor, mean: Tensor, factor: float) -> Tensor | None:
    """The z (graphs, draws) with z_a · z_b = factor² Σ_d (E_da − E_a)(E_db − E_b) / (draws − 1)."""
    count = draws.shape[0]
    if count < 2:
        return None
    return factor * ((draws - mean) / (count - 1) ** 0.5).T


def compiled(predictor: Predictor) -> Predictor:
    """The same predictor, compiled: several times faster for small structures, after a minute.

    Worth it where one potential sees very many structures, as in molecular dynamics; see
    `compile_potential`.
    """
    return replace(predictor, evaluate=compile_potential(predictor.potential))


def with_splines(predictor: Predictor) -> Predictor:
    """The same predictor with its radial networks as splines; see `splined`."""
    return replace(predictor, weights=splined(predictor.potential, predictor.weights))


def recalibrated(predictor: Predictor, calibration: Calibration) -> Predictor:
    """The same predictor with other factors."""
    return replace(predictor, calibration=calibration)


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
        energy_draws=_joined([part.energy_draws for part in parts], 1),
        forces_draws=_joined([part.forces_draws for part in parts], 1),
        stress_draws=_joined([part.stress_draws for part in parts], 1),
        energy_factor=_joined([part.energy_factor for part in parts], 0),
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
    )
