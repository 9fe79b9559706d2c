"""nequip-allegro: its AOTInductor export for energy and forces, its compiled model for training.

Its environment: torch==2.13.0, then nequip-allegro==0.8.3. Named by --nequip or SUREFOOT_NEQUIP.
The export is that of `nequip-compile --target ase`, with random weights and energy and forces as
its only outputs, so that nothing else is computed; positions are float64, as it wants them.
"""

import importlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols

data_of = importlib.import_module("nequip.data")
keys = data_of.AtomicDataDict
state = importlib.import_module("nequip.utils.global_state")
allegro = importlib.import_module("allegro.model")
aot = importlib.import_module("nequip.utils.aot")
targets = importlib.import_module("nequip.scripts._compile_utils")
compiled = importlib.import_module("nequip.nn.compile")

ROOMY = 50.0  # Å; the cell of a molecule, which the export wants to have


def versions() -> dict[str, str]:
    names = ("nequip-allegro", "nequip", "torch")
    return {name: importlib.metadata.version(name) for name in names}


def prepare(case: dict[str, Any], form: str) -> Callable[[], float]:
    """The work of this case, as a function without arguments."""
    if not state.global_state_initialized():
        state.set_global_state()
    model = build_model(case, form)
    frames = [frame(case, one) for one in case["structures"]]
    if case["work"] == "train":
        return training(model.train(), frames, case)
    (data,) = frames
    model.eval()
    run = exported(model, case) if form == "aotinductor" else model

    def call() -> float:
        output = run(dict(data))
        return float(output["total_energy"].detach().sum()) + float(output["forces"][0, 0].detach())

    return call


def training(
    model: Any, frames: list[dict[str, torch.Tensor]], case: dict[str, Any]
) -> Callable[[], float]:
    """Loss of energy and forces, and its gradient; no optimiser."""
    data = keys.batched_from_list(frames)
    kind = data["pos"].dtype
    energies = torch.tensor(case["energies"], dtype=kind)
    forces = torch.tensor(case["forces"], dtype=kind)
    sizes = data[keys.NUM_NODES_KEY].to(kind)

    def step() -> float:
        model.zero_grad(set_to_none=True)
        output = model(dict(data))
        total = ((output["total_energy"][:, 0] - energies) / sizes).square().mean()
        total = total + (output["forces"] - forces).square().mean()
        total.backward()
        return float(total.detach())

    return step


def build_model(case: dict[str, Any], form: str) -> Any:
    settings = case["settings"]
    return allegro.AllegroModel(
        seed=1,
        model_dtype=case["dtype"],
        compile_mode="compile" if form == "compile" else "eager",
        type_names=[chemical_symbols[number] for number in case["elements"]],
        r_max=case["cutoff"],
        l_max=settings["lmax"],
        parity=True,
        radial_chemical_embed={
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            "num_bessels": 8,
            "polynomial_cutoff_p": 6,
        },
        num_layers=settings["layers"],
        num_scalar_features=settings["scalars"],
        num_tensor_features=settings["tensors"],
        readout_mlp_hidden_layers_width=settings["readout"],
        avg_num_neighbors=case["neighbors"],
    )


def frame(case: dict[str, Any], one: dict[str, Any]) -> dict[str, torch.Tensor]:
    """One structure with nequip's own neighbour list."""
    periodic = any(one["pbc"])
    data = data_of.from_dict(
        {
            "pos": torch.tensor(one["positions"], dtype=torch.float64),
            "atom_types": torch.tensor([case["elements"].index(n) for n in one["numbers"]]),
            "pbc": torch.tensor(one["pbc"]),
            "cell": torch.tensor(one["cell"] if periodic else np.eye(3) * ROOMY),
        }
    )
    data_of.compute_neighborlist_(data, case["cutoff"])
    return data


def exported(model: Any, case: dict[str, Any]) -> Callable[..., Any]:
    """The model through AOTInductor, from the cache where this one was exported before."""
    data = frame(case, case["example"])
    target = targets.COMPILE_TARGET_DICT["ase"]
    outputs = [keys.TOTAL_ENERGY_KEY, keys.FORCE_KEY]
    size = len(data["pos"])
    name = f"{case['name']}-{case['dtype']}-{case['threads']}-{size}.nequip.pt2"
    path = Path(os.environ["SPEED_CACHE"]) / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        dims = {
            "graph": torch.export.Dim.STATIC,
            "node": torch.export.Dim("num_nodes", min=2),
            "edge": torch.export.Dim("num_edges", min=2),
        }
        part = path.with_name(f"part-{os.getpid()}-{name}")
        aot.aot_export_model(
            model=model,
            device="cpu",
            input_fields=target["input"],
            output_fields=outputs,
            data=target["data_settings"](dict(data)),
            batch_map=target["batch_map_settings"](dims),
            output_path=str(part),
        )
        part.replace(path)
    loaded = torch._inductor.aoti_load_package(str(path))  # noqa: SLF001
    return compiled.DictInputOutputWrapper(loaded, target["input"], outputs)
