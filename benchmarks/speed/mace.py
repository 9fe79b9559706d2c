"""mace-torch, eager or as its own calculator and its own tests compile it.

Its environment: torch==2.13.0, then mace-torch==0.3.16. Named by --mace or SUREFOOT_MACE_PYTHON.
"""

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

modules = importlib.import_module("mace.modules")
compiling = importlib.import_module("mace.tools.compile")
neighborhood = importlib.import_module("mace.data.neighborhood")
o3 = importlib.import_module("e3nn.o3")


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("mace-torch", "e3nn", "torch")}


def prepare(case: dict[str, Any], form: str) -> Callable[[], float]:
    """The work of this case, as a function without arguments."""
    torch.set_default_dtype(getattr(torch, case["dtype"]))
    torch.manual_seed(0)
    training = case["work"] == "train"
    model = compiling.prepare(build_model)(case) if form == "compile" else build_model(case)
    run = torch.compile(model) if form == "compile" else model
    data = batch(case)
    # Its calculator, too, keeps the graph of the forces when it is compiled.
    keep = training or form == "compile"
    if not training:
        for weight in model.parameters():
            weight.requires_grad_(False)

    def evaluate() -> dict[str, Any]:
        given = dict(data)
        leaves = ("positions", "node_attrs") if form == "compile" else ("positions",)
        for name in leaves:
            given[name] = data[name].clone().requires_grad_()
        return run(given, training=keep)

    if not training:

        def call() -> float:
            output = evaluate()
            return float(output["energy"].detach().sum()) + float(output["forces"][0, 0].detach())

        return call
    loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=1.0)
    reference = Labels(case, data)

    def step() -> float:
        model.zero_grad(set_to_none=True)
        total = loss(pred=evaluate(), ref=reference)
        total.backward()
        return float(total.detach())

    return step


def build_model(case: dict[str, Any]) -> Any:
    settings, elements = case["settings"], case["elements"]
    channels = settings["channels"]
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=case["cutoff"],
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=settings["max_ell"],
        interaction_cls=interaction,
        interaction_cls_first=interaction,
        num_interactions=settings["layers"],
        num_elements=len(elements),
        hidden_irreps=o3.Irreps(f"{channels}x0e + {channels}x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=case["neighbors"],
        atomic_numbers=elements,
        correlation=settings["correlation"],
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        radial_type="bessel",
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )


def batch(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """All structures in one, with mace-torch's own neighbour list, in its own order."""
    parts: dict[str, list[np.ndarray]] = {}
    start = 0
    for number, one in enumerate(case["structures"]):
        positions = np.array(one["positions"])
        edges, shifts, units, cell = neighborhood.get_neighborhood(
            positions, case["cutoff"], tuple(one["pbc"]), np.array(one["cell"])
        )
        species = [case["elements"].index(z) for z in one["numbers"]]
        entries = {
            "positions": positions,
            "node_attrs": np.eye(len(case["elements"]))[species],
            "edge_index": np.asarray(edges).reshape(2, -1).T + start,
            "shifts": np.asarray(shifts, float).reshape(-1, 3),
            "unit_shifts": np.asarray(units, float).reshape(-1, 3),
            "cell": np.asarray(cell, float).reshape(3, 3),
            "batch": np.full(len(positions), number),
        }
        for name, value in entries.items():
            parts.setdefault(name, []).append(value)
        start += len(positions)
    kind = torch.get_default_dtype()
    data = {name: torch.tensor(np.concatenate(values)) for name, values in parts.items()}
    data = {name: v.to(kind) if v.is_floating_point() else v for name, v in data.items()}
    data["edge_index"] = data["edge_index"].T.to(torch.int64).contiguous()
    sizes = [len(one["numbers"]) for one in case["structures"]]
    data["ptr"] = torch.tensor([0, *np.cumsum(sizes).tolist()])
    data["head"] = torch.zeros(len(sizes), dtype=torch.int64)
    return data


class Labels:
    """What mace-torch's loss asks of a batch."""

    def __init__(self, case: dict[str, Any], data: dict[str, torch.Tensor]) -> None:
        kind, count = torch.get_default_dtype(), len(case["energies"])
        self.values = {
            "energy": torch.tensor(case["energies"], dtype=kind),
            "forces": torch.tensor(case["forces"], dtype=kind),
            "ptr": data["ptr"],
            "batch": data["batch"],
        }
        for name in ("weight", "energy_weight", "forces_weight"):
            self.values[name] = torch.ones(count, dtype=kind)
        self.num_graphs = count

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[name]

    def __getattr__(self, name: str) -> torch.Tensor:
        return self.values[name]
