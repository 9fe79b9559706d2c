"""Surefoot, as its user calls it: a Potential for energy and forces, the pure training step."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.blocks.reference import Baseline
from surefoot.compiled import compile_potential
from surefoot.graph import Graph, Targets, build_graph, collate
from surefoot.heads import Scalar
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.schnet import Schnet
from surefoot.neighbors import find_neighbors
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.predictor import build_predictor
from surefoot.potential import Potential
from surefoot.prediction import Output, Prediction
from surefoot.train.loss import LossSettings
from surefoot.train.step import compile_gradients, loss_gradients

Step = Callable[[Weights, Graph, Targets, Tensor], tuple[dict[str, Tensor], Weights]]


@dataclass(frozen=True)
class Form:
    """How surefoot is called: eager, or in a compiled form. Everything timed goes through here.

    Attributes:
        evaluate: potential → (weights, graph → energy and forces).
        train: potential, loss → the training step.
    """

    evaluate: Callable[[Potential], Callable[[Weights, Graph], Output]]
    train: Callable[[Potential, LossSettings], Step]


def eager_step(potential: Potential, loss: LossSettings) -> Step:
    def step(
        weights: Weights, graph: Graph, targets: Targets, importance: Tensor
    ) -> tuple[dict[str, Tensor], Weights]:
        return loss_gradients(potential, loss, weights, graph, targets, importance)

    return step


def compiled_step(potential: Potential, loss: LossSettings) -> Step:
    gradients = compile_gradients(potential)

    def step(
        weights: Weights, graph: Graph, targets: Targets, importance: Tensor
    ) -> tuple[dict[str, Tensor], Weights]:
        return gradients(potential, loss, weights, graph, targets, importance)

    return step


FORMS = {
    "eager": Form(evaluate=lambda potential: potential, train=eager_step),
    "compiled": Form(evaluate=compile_potential, train=compiled_step),
}


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("surefoot", "torch")}


def prepare(case: dict[str, Any], form: str) -> Callable[[], float]:
    """The work of this case, as a function without arguments."""
    if form not in FORMS:
        raise ValueError(f"there is no form '{form}' of surefoot; there are {', '.join(FORMS)}.")
    if case["work"] == "neighbors":
        return neighbor_list(case)
    chosen, dtype = FORMS[form], getattr(torch, case["dtype"])
    potential = build_potential(case)
    graph = collate([build(one, case["cutoff"]) for one in case["structures"]])
    if case["work"] == "train":
        return training(chosen, potential, potential.init(0, dtype), graph, case)
    evaluate, members = chosen.evaluate(potential), case.get("members")
    if members:
        weights = Ensemble(potential.init_members(0, members, dtype))
        made = build_predictor(potential, weights, Calibration(), {})
        return asked(replace(made, evaluate=evaluate), graph)
    return asked(partial(evaluate, potential.init(0, dtype)), graph)


def asked(evaluate: Callable[[Graph], Output | Prediction], graph: Graph) -> Callable[[], float]:
    """Energy and forces of the batch, with their error bars if a predictor is asked."""

    def call() -> float:
        output = evaluate(graph)
        if output.forces is None:
            raise RuntimeError("there are no forces.")
        return float(output.energy.mean.sum()) + float(output.forces.mean[..., 0, 0].sum())

    return call


def training(
    form: Form, potential: Potential, weights: Weights, graph: Graph, case: dict[str, Any]
) -> Callable[[], float]:
    """Loss of energy and forces, and its gradient; no optimiser."""
    targets, importance = labels(case), torch.ones(len(case["structures"]), dtype=torch.float64)
    step = form.train(potential, LossSettings())

    def call() -> float:
        terms, gradients = step(weights, graph, targets, importance)
        first = next(iter(gradients.values()))
        return float(terms["total"]) + float(first.flatten()[0])

    return call


def neighbor_list(case: dict[str, Any]) -> Callable[[], float]:
    (one,) = case["structures"]
    positions, cell, pbc = np.array(one["positions"]), np.array(one["cell"]), np.array(one["pbc"])
    return lambda: float(find_neighbors(positions, cell, pbc, case["cutoff"])[0].shape[1])


def build_potential(case: dict[str, Any]) -> Potential:
    settings, cutoff = case["settings"], case["cutoff"]
    if case["family"] == "mace":
        channels = settings["channels"]
        model = Mace(
            cutoff=cutoff,
            irreps=f"{channels}x0e + {channels}x1o",
            max_ell=settings["max_ell"],
            correlation=settings["correlation"],
            interactions=settings["layers"],
        )
        head = Scalar(hidden=16, activation="silu", layers="last", scaling="normal")
    elif case["family"] == "allegro":
        model = Allegro(
            cutoff=cutoff,
            lmax=settings["lmax"],
            layers=settings["layers"],
            tensors=settings["tensors"],
            scalars=settings["scalars"],
        )
        head = Scalar(hidden=settings["readout"], activation="silu", scaling="normal")
    else:
        model = Schnet(
            cutoff=cutoff,
            features=settings["features"],
            interactions=settings["layers"],
            gaussians=settings["gaussians"],
        )
        head = Scalar(activation="silu")
    elements = tuple(case["elements"])
    baseline = Baseline(
        elements=elements,
        energies=(0.0,) * len(elements),
        scale=1.0,
        neighbors=case["neighbors"],
    )
    return Potential(model=model, head=head, baseline=baseline)


def build(one: dict[str, Any], cutoff: float) -> Graph:
    positions, cell = np.array(one["positions"]), np.array(one["cell"])
    edge_index, edge_shift = find_neighbors(positions, cell, np.array(one["pbc"]), cutoff)
    return build_graph(
        positions=torch.tensor(positions),
        numbers=torch.tensor(one["numbers"]),
        cell=torch.tensor(cell),
        pbc=torch.tensor(one["pbc"]),
        edge_index=torch.tensor(edge_index),
        edge_shift=torch.tensor(edge_shift),
    )


def labels(case: dict[str, Any]) -> Targets:
    count, forces = len(case["energies"]), torch.tensor(case["forces"], dtype=torch.float64)
    return Targets(
        energy=torch.tensor(case["energies"], dtype=torch.float64),
        forces=forces,
        stress=torch.zeros(count, 3, 3, dtype=torch.float64),
        has_energy=torch.ones(count, dtype=torch.bool),
        has_forces=torch.ones(count, dtype=torch.bool),
        has_stress=torch.zeros(count, dtype=torch.bool),
        weight=torch.ones(count, dtype=torch.float64),
        fixed=torch.zeros(len(forces), dtype=torch.bool),
        group=torch.arange(count),
    )
