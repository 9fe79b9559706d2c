"""ASE: Atoms → Prediction → energy, forces, stress and their uncertainties.

Result names follow DESIGN.md: `X_uncertainty` is the total standard deviation, `X_aleatoric` and
`X_epistemic` its parts where they exist, `X_ensemble` the draws with the member axis first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.stress import full_3x3_to_voigt_6_stress

from surefoot.data.batches import EVALUATION, BatchLimits, batch_graphs
from surefoot.data.convert import to_graph
from surefoot.data.read import read_state
from surefoot.evaluate.quantiles import TooFewGroups
from surefoot.graph import Graph, collate, split_atoms
from surefoot.posteriors.predictor import Predictor, say_no_stress
from surefoot.prediction import Moments, Prediction

Results = dict[str, Any]
LEVEL = 0.95
"""Of the intervals among the results."""


class SurefootCalculator(Calculator):
    """ASE calculator with error bars.

    Reads `charge` and `spin` (multiplicity) from `atoms.info` and notices when they change.

    Args:
        predictor: from `load_predictor`.
        members: whether the draws are among the results, `energy_ensemble` and `forces_ensemble`.
        stress: whether stress is among the results where all three axes are periodic and the
            potential gives one; leaving it out spares its cost where no cell moves.
    """

    implemented_properties: ClassVar[list[str]] = [  # pyright: ignore[reportIncompatibleVariableOverride]
        "energy",
        "free_energy",
        "forces",
        "stress",
    ]

    def __init__(self, predictor: Predictor, *, members: bool = False, stress: bool = True) -> None:
        super().__init__()
        self.predictor = predictor
        self.members = members
        self.stress = stress and predictor.gives_stress
        self._state: tuple[int | None, int | None] = (None, None)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """ASE's list of changes, plus changes of charge and spin."""
        changes = super().check_state(atoms, tol=tol)
        if read_state(atoms.info) != self._state and "info" not in changes:
            changes.append("info")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`; stress only where all three axes are periodic.

        Raises:
            PropertyNotImplementedError: if stress is asked for, and this calculator gives none.
            UnknownElement: if the potential was not trained on an element.
            UnknownState: if it was not trained on the stated charge and spin.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms is None:
            raise ValueError("the calculator has no structure; set `atoms.calc` or pass one.")
        if "stress" in properties and not self.stress:
            raise PropertyNotImplementedError(
                "this calculator was made with `stress=False`; leave that out."
                if self.predictor.gives_stress
                else say_no_stress(self.predictor, "keep cells as they are")
            )
        current = self.atoms
        self._state = read_state(current.info)
        self.predictor.require(current.numbers, *self._state, "the structure")
        graph = to_graph(current, self.predictor.cutoff, *self._state)
        stress = self.stress and bool(current.pbc.all())
        prediction = self.predictor(graph, stress=stress, members=self.members)
        self.results = to_results(prediction, graph, members=self.members)[0]


def predict_atoms(
    predictor: Predictor,
    structures: Sequence[Atoms],
    *,
    members: bool = False,
    limits: BatchLimits = EVALUATION,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Results]:
    """Results of many structures in batches, in the order they came.

    Args:
        predictor: from `load_predictor`.
        structures: of any size and composition; stress is given where all axes are periodic and
            the potential has one.
        members: whether the draws are among the results.
        limits: of a batch.
        progress: called with the number of structures done since the last call.
    """
    for number, atoms in enumerate(structures):
        predictor.require(atoms.numbers, *read_state(atoms.info), f"structure {number}")
    results: list[Results] = []
    graphs = (to_graph(atoms, predictor.cutoff, *read_state(atoms.info)) for atoms in structures)
    for batch in batch_graphs(graphs, limits.shared_by(predictor.draws)):
        graph = collate(batch)
        stress = predictor.gives_stress and bool(graph.pbc.all(-1).any())
        prediction = predictor(graph, stress=stress, members=members)
        results += to_results(prediction, graph, members=members)
        progress(len(batch))
    return results


def to_results(prediction: Prediction, graph: Graph, *, members: bool = False) -> list[Results]:
    """A batch of predictions as one dictionary of ASE results per structure.

    Energies in eV, forces in eV/Å, stress in eV/Å³ in ASE's Voigt order; standard deviations in
    the same units; `forces_uncertainty` (atoms, 3) is the root of the diagonal of each atom's
    covariance, `forces_uncertainty_norm` (atoms) the root of its trace; `energy_interval_95` and
    `forces_interval_95` (atoms, 3) are half the width of the conformal interval that holds 95 %,
    where the potential has one; `forces_error` and
    `forces_error_q95` (atoms) are mean and 95 % quantile of |F_ref − F|, eV/Å, where the head has
    histograms of it; `ood` and `ood_atoms` are distances to the training data, 1 at its edge, where
    the potential has a gate.
    """
    count = graph.charge.shape[0]
    results: list[Results] = [{} for _ in range(count)]
    _add(results, "energy", prediction.energy, lambda v: v.tolist(), torch.sqrt)
    for result in results:
        result["free_energy"] = result["energy"]
    if prediction.forces is not None:
        _add_forces(results, prediction, graph, members=members)
    _add_intervals(results, prediction, graph)
    if prediction.stress is not None:
        periodic = [
            result for result, pbc in zip(results, graph.pbc.all(-1).tolist(), strict=True) if pbc
        ]
        stress = prediction.stress.select(graph.pbc.all(-1))
        _add(periodic, "stress", stress, _voigt, torch.sqrt)
    if members and prediction.energy_draws is not None:
        for number, result in enumerate(results):
            result["energy_ensemble"] = prediction.energy_draws[:, number].numpy()
    if prediction.ood is not None and prediction.ood_atoms is not None:
        by_atom = split_atoms(prediction.ood_atoms, graph)
        for result, value, atoms in zip(results, prediction.ood.tolist(), by_atom, strict=True):
            result["ood"], result["ood_atoms"] = value, atoms.numpy()
    return results


def _add_intervals(results: list[Results], prediction: Prediction, graph: Graph) -> None:
    """Conformal intervals, which are not a multiple of the standard deviation."""
    quantities: tuple[Literal["energy", "forces"], ...] = ("energy", "forces")
    for name in quantities:
        if name not in prediction.bounds or getattr(prediction, name) is None:
            continue
        try:
            low, high = prediction.interval(LEVEL, of=name)
        except TooFewGroups:  # of potentials that were calibrated for lower levels
            continue
        widths = 0.5 * (high - low)
        parts = widths.tolist() if name == "energy" else split_atoms(widths, graph)
        for result, part in zip(results, parts, strict=True):
            result[f"{name}_interval_95"] = part if name == "energy" else part.numpy()


def _add_forces(
    results: list[Results], prediction: Prediction, graph: Graph, *, members: bool
) -> None:
    forces = prediction.forces
    if forces is None:
        return

    def split(values: torch.Tensor) -> list[np.ndarray]:
        return [part.numpy() for part in split_atoms(values, graph)]

    _add(
        results,
        "forces",
        forces,
        split,
        lambda covariance: covariance.diagonal(dim1=-2, dim2=-1).sqrt(),
    )
    if forces.total is not None:
        trace = forces.total.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()
        for result, norm in zip(results, split(trace), strict=True):
            result["forces_uncertainty_norm"] = norm
    errors = prediction.error_bins
    if errors is not None:
        columns = {"forces_error": errors.mean, "forces_error_q95": errors.quantile(0.95)}
        for name, values in columns.items():
            for result, part in zip(results, split(values), strict=True):
                result[name] = part
    if members and prediction.forces_draws is not None:
        counts = graph.atom_counts.tolist()
        for result, draws in zip(results, prediction.forces_draws.split(counts, 1), strict=True):
            result["forces_ensemble"] = draws.numpy()


def _add(
    results: list[Results],
    name: str,
    moments: Moments,
    split: Callable[[torch.Tensor], Sequence[Any]],
    deviation: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Mean and standard deviations of one quantity under the names of the design."""
    columns = {
        name: moments.mean,
        f"{name}_uncertainty": None if moments.total is None else deviation(moments.total),
        f"{name}_aleatoric": None if moments.aleatoric is None else deviation(moments.aleatoric),
        f"{name}_epistemic": None if moments.epistemic is None else deviation(moments.epistemic),
    }
    for column, values in columns.items():
        if values is None:
            continue
        for result, value in zip(results, split(values), strict=True):
            result[column] = value


def _voigt(values: torch.Tensor) -> list[np.ndarray]:
    return [full_3x3_to_voigt_6_stress(value) for value in values.numpy()]
