"""SchNetPack, eager or with its whole potential, forces included, given to torch.compile.

Its environment: torch==2.13.0, then schnetpack==2.1.1 (without its pins where they clash: see
tests/science/oracles/schnetpack_values.py). Named by --schnetpack or SUREFOOT_SCHNETPACK.
"""

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import ase.neighborlist
import numpy as np
import torch
from ase import Atoms
from torch.utils.data import dataloader

if not hasattr(dataloader, "T_co"):  # an annotation of its data loader, renamed since
    dataloader.T_co = dataloader._T_co  # type: ignore[attr-defined]  # noqa: SLF001
spk = importlib.import_module("schnetpack")


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("schnetpack", "torch")}


def prepare(case: dict[str, Any], form: str) -> Callable[[], float]:
    """The work of this case, as a function without arguments."""
    torch.manual_seed(0)
    training, kind = case["work"] == "train", getattr(torch, case["dtype"])
    model = build_model(case).to(kind).train(training)
    for weight in model.parameters():
        weight.requires_grad_(training)
    data = batch(case, kind)
    run = model
    if form == "compile":
        torch._dynamo.config.trace_autograd_ops = True  # noqa: SLF001  # forces inside the graph
        torch._dynamo.config.capture_scalar_outputs = True  # noqa: SLF001  # its count of graphs
        # Asking an input for its gradient would split the graph; `evaluate` does it before.
        model.initialize_derivatives = lambda inputs: inputs
        run = torch.compile(model)

    def evaluate() -> dict[str, torch.Tensor]:
        given = dict(data)
        given["_positions"] = data["_positions"].clone().requires_grad_()
        return run(given)

    if not training:

        def call() -> float:
            output = evaluate()
            return float(output["energy"].detach().sum()) + float(output["forces"][0, 0].detach())

        return call
    energies = torch.tensor(case["energies"], dtype=kind)
    forces = torch.tensor(case["forces"], dtype=kind)
    sizes = data["_n_atoms"].to(kind)

    def step() -> float:
        model.zero_grad(set_to_none=True)
        output = evaluate()
        total = ((output["energy"] - energies) / sizes).square().mean()
        total = total + (output["forces"] - forces).square().mean()
        total.backward()
        return float(total.detach())

    return step


def build_model(case: dict[str, Any]) -> Any:
    settings = case["settings"]
    representation = spk.representation.SchNet(
        n_atom_basis=settings["features"],
        n_interactions=settings["layers"],
        radial_basis=spk.nn.GaussianRBF(n_rbf=settings["gaussians"], cutoff=case["cutoff"]),
        cutoff_fn=spk.nn.CosineCutoff(case["cutoff"]),
    )
    readout = spk.atomistic.Atomwise(n_in=settings["features"], n_layers=2, output_key="energy")
    return spk.model.NeuralNetworkPotential(
        representation=representation,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[readout, spk.atomistic.Forces()],
        input_dtype_str=case["dtype"],
    )


def batch(case: dict[str, Any], kind: torch.dtype) -> dict[str, torch.Tensor]:
    """All structures in one, edges by receiver as its own neighbour lists give them."""
    parts: dict[str, list[np.ndarray]] = {}
    start = 0
    for number, one in enumerate(case["structures"]):
        atoms = Atoms(one["numbers"], one["positions"], cell=one["cell"], pbc=one["pbc"])
        receivers, senders, images = ase.neighborlist.neighbor_list("ijS", atoms, case["cutoff"])
        entries = {
            "_atomic_numbers": atoms.numbers.astype(np.int64),
            "_positions": atoms.positions,
            "_cell": np.array(atoms.cell)[None],
            "_pbc": atoms.pbc[None],
            "_n_atoms": np.array([len(atoms)]),
            "_idx_m": np.full(len(atoms), number),
            "_idx_i": receivers.astype(np.int64) + start,
            "_idx_j": senders.astype(np.int64) + start,
            "_offsets": images @ np.array(atoms.cell),
        }
        for name, value in entries.items():
            parts.setdefault(name, []).append(value)
        start += len(atoms)
    data = {name: torch.tensor(np.concatenate(values)) for name, values in parts.items()}
    return {name: v.to(kind) if v.is_floating_point() else v for name, v in data.items()}
