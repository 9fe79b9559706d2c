"""Write allegro.npz: energies, forces and stress of nequip-allegro's models for the parity test.

Its pins clash with ours, so the script runs in an environment of its own:

    python -m venv ENV
    ENV/bin/pip install torch==2.13.0 nequip==0.19.1 nequip-allegro==0.8.3 ase==3.29.0
    OMP_NUM_THREADS=1 ENV/bin/python tests/science/oracles/allegro_values.py [another target]

Weights are not stored; both sides rebuild them. The rule, in `fill_parameters`: each trainable
array is `numpy.random.default_rng([seed, crc32(name)]).normal(size=shape)`, which is how
nequip-allegro scales its weights too (variance one, the fan-in is divided out at run time).

For each case C the archive holds, in float64 where real, Å and the model's energy unit E:

    C/numbers, C/positions (Å), C/cell (Å, rows; zeros without), C/pbc
    C/elements: atomic numbers in the order of the model's types, ascending
    C/settings: the case's settings as JSON
    C/parameter_names, C/parameter_shapes (entries 0 where there is no second or third axis)
    C/parameter_sums: sum of each array, to see that a rebuilt array is the right one
    C/energy (E), C/forces (E/Å), C/stress (E/Å³, 3×3; periodic cases only)
    C/atomic_energies (E), C/edges: number of directed edges
    C/edge_norm: root of the sum of squared scalar features of all edges, C/edge_energy: likewise

and for all of them `cases` and the versions. Stress is (dE/dstrain)/volume, positive where the cell
wants to shrink. Forces are checked below against central differences of the energy.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

TARGET = Path(__file__).with_name("allegro.npz")
STEP = 1e-4  # Å
DISPLACED = 1e-6  # allowed |analytic − central difference| relative to the largest force

AMINOBUTYRIC_ACID = (
    ("N", -2.60, -0.57, -0.32),
    ("C", -1.56, 0.37, 0.11),
    ("C", -0.18, -0.26, -0.07),
    ("C", 0.91, 0.71, 0.36),
    ("C", 2.27, 0.10, 0.15),
    ("O", 3.07, 0.41, -0.71),
    ("O", 2.56, -0.85, 1.06),
    ("H", -2.56, -1.41, 0.26),
    ("H", -3.52, -0.16, -0.16),
    ("H", -1.64, 1.28, -0.49),
    ("H", -1.73, 0.64, 1.16),
    ("H", -0.03, -0.55, -1.12),
    ("H", -0.11, -1.18, 0.52),
    ("H", 0.86, 1.63, -0.23),
    ("H", 0.81, 1.00, 1.41),
    ("H", 3.45, -1.16, 0.80),
)

SETTINGS: dict[str, Any] = {
    "cutoff": 5.0,
    "lmax": 2,
    "parity": True,
    "layers": 2,
    "scalars": 16,
    "tensors": 8,
    "embedding": None,
    "bessels": 8,
    "power": 6,
    "embed_depth": 1,
    "embed_width": 24,
    "latent_depth": 1,
    "latent_width": 20,
    "readout_width": 12,
    "neighbors": 14.5,
    "seed": 1,
}


@dataclass(frozen=True)
class Case:
    """One structure, and what its model has instead of `SETTINGS`."""

    name: str
    atoms: Atoms
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the model."""
        assert set(self.changes) <= set(SETTINGS)
        return {**SETTINGS, **self.changes}

    @property
    def elements(self) -> list[int]:
        """Atomic numbers in the order of the model's types."""
        return sorted(set(self.atoms.numbers.tolist()))


def ethanol() -> Atoms:
    """Ethanol, pushed off its minimum."""
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.rattle(stdev=0.05, seed=11)
    return atoms


def aminobutyric_acid() -> Atoms:
    """A chain of C, H, N and O with pairs beyond the cutoff."""
    symbols = [row[0] for row in AMINOBUTYRIC_ACID]
    atoms = Atoms(symbols, positions=[row[1:] for row in AMINOBUTYRIC_ACID])
    atoms.rattle(stdev=0.05, seed=12)
    return atoms


def sheared_cell() -> Atoms:
    """Al2Cu2 whose edges are below the cutoff: atoms are neighbours of their own images."""
    cell = [[3.6, 0.0, 0.0], [0.9, 3.7, 0.0], [-0.6, 0.8, 3.9]]
    places = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
    atoms = Atoms(["Al", "Cu", "Al", "Cu"], scaled_positions=places, cell=cell, pbc=True)
    atoms.rattle(stdev=0.1, seed=13)
    # One atom stands outside the cell: nothing may depend on wrapped positions.
    atoms.positions[3] -= atoms.cell.array[0]
    return atoms


def ten_elements() -> Atoms:
    """A crowd of ten elements, one of them out of everybody's sight."""
    rng = np.random.default_rng(14)
    grid = 2.2 * np.array(list(np.ndindex(3, 3, 2)), dtype=float)
    positions = np.concatenate([grid + 0.25 * rng.normal(size=grid.shape), [[30.0, 0.0, 0.0]]])
    numbers = np.array([1, 6, 7, 8, 9, 14, 15, 16, 17, 35])
    return Atoms(numbers[np.arange(len(positions)) % 10], positions=positions)


def cases() -> list[Case]:
    """Degrees 0 to 3, one to three layers, both parities, molecules and a crystal."""
    return [
        Case("scalars only", ethanol(), {"lmax": 0, "layers": 1, "seed": 2}),
        Case("one layer", aminobutyric_acid(), {"lmax": 1, "layers": 1, "seed": 3}),
        Case("natural", aminobutyric_acid(), {"lmax": 1, "parity": False, "layers": 3, "seed": 4}),
        Case("two layers", aminobutyric_acid(), {"seed": 5}),
        Case("sheared", sheared_cell(), {"cutoff": 4.0, "layers": 3, "neighbors": 42.0, "seed": 6}),
        Case(
            "sheared natural",
            sheared_cell(),
            {"cutoff": 4.0, "parity": False, "layers": 3, "neighbors": 42.0, "seed": 7},
        ),
        Case("degree three", ethanol(), {"lmax": 3, "layers": 3, "tensors": 5, "seed": 8}),
        Case(
            "ten elements",
            ten_elements(),
            {
                "cutoff": 4.5,
                "lmax": 3,
                "embedding": 10,
                "bessels": 5,
                "power": 5,
                "embed_depth": 2,
                "latent_depth": 2,
                "seed": 9,
            },
        ),
        Case("linear", ethanol(), {"embed_depth": 0, "latent_depth": 0, "power": 8, "seed": 10}),
    ]


def fill_parameters(
    names: list[str], shapes: list[tuple[int, ...]], seed: int
) -> dict[str, np.ndarray]:
    """Weights by the rule at the top of the file; needs numpy only."""
    return {
        name: np.random.default_rng([seed, zlib.crc32(name.encode())]).normal(size=shape)
        for name, shape in zip(names, shapes, strict=True)
    }


def build_model(case: Case) -> Any:
    """nequip-allegro's model in float64, filled by the rule.

    The imports stand in here so that `fill_parameters` can be had without nequip.
    """
    importlib.import_module("nequip.utils.global_state").set_global_state()
    build = importlib.import_module("allegro.model").AllegroModel
    s = case.settings
    depth = {"scalar_embed_mlp": s["embed_depth"], "allegro_mlp": s["latent_depth"]}
    model = build(
        seed=1,
        model_dtype="float64",
        type_names=[chemical_symbols[number] for number in case.elements],
        r_max=s["cutoff"],
        l_max=s["lmax"],
        parity=s["parity"],
        radial_chemical_embed={
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            "num_bessels": s["bessels"],
            "polynomial_cutoff_p": s["power"],
        },
        radial_chemical_embed_dim=s["embedding"],
        num_layers=s["layers"],
        num_scalar_features=s["scalars"],
        num_tensor_features=s["tensors"],
        scalar_embed_mlp_hidden_layers_width=s["embed_width"],
        allegro_mlp_hidden_layers_width=s["latent_width"],
        readout_mlp_hidden_layers_width=s["readout_width"],
        readout_mlp_hidden_layers_depth=1,
        avg_num_neighbors=s["neighbors"],
        **{f"{name}_hidden_layers_depth": value for name, value in depth.items()},
    ).eval()
    trainable = dict(model.named_parameters())
    names = sorted(trainable)
    filled = fill_parameters(names, [tuple(trainable[name].shape) for name in names], s["seed"])
    with torch.no_grad():
        for name, values in filled.items():
            trainable[name].copy_(torch.from_numpy(values))
    return model


def predict(model: Any, case: Case, atoms: Atoms) -> dict[str, np.ndarray]:
    """All outputs of the model for one structure, with a fresh neighbour list."""
    data = importlib.import_module("nequip.data")
    inputs = {
        "pos": torch.tensor(atoms.positions),
        "atom_types": torch.tensor([case.elements.index(n) for n in atoms.numbers.tolist()]),
        "pbc": torch.tensor(atoms.pbc),
    }
    if atoms.pbc.any():
        inputs["cell"] = torch.tensor(atoms.cell.array)
    inputs = data.from_dict(inputs)
    data.compute_neighborlist_(inputs, case.settings["cutoff"])
    return {key: value.detach().numpy() for key, value in model(inputs).items()}


def displaced_force(model: Any, case: Case, direction: np.ndarray) -> float:
    """Force along a direction of all atoms by the central difference of the energy, E/Å."""
    energies = []
    for step in (STEP, -STEP):
        moved = case.atoms.copy()
        moved.positions += step * direction
        energies.append(float(predict(model, case, moved)["total_energy"][0, 0]))
    return -(energies[0] - energies[1]) / (2.0 * STEP)


def case_arrays(case: Case) -> dict[str, np.ndarray]:
    """Everything the archive holds for one case, after the check by central differences."""
    model = build_model(case)
    outputs = predict(model, case, case.atoms)
    direction = np.random.default_rng(0).normal(size=(len(case.atoms), 3))
    deviation = abs((outputs["forces"] * direction).sum() - displaced_force(model, case, direction))
    deviation /= np.abs(outputs["forces"]).max()
    assert deviation < DISPLACED, (case.name, deviation)
    parameters = {name: value.detach().numpy() for name, value in model.named_parameters()}
    names = sorted(parameters)
    shapes = [(*parameters[name].shape, 0)[:2] for name in names]
    arrays = {
        "numbers": case.atoms.numbers,
        "positions": case.atoms.positions,
        "cell": case.atoms.cell.array,
        "pbc": case.atoms.pbc,
        "elements": np.array(case.elements),
        "settings": np.array(json.dumps(case.settings)),
        "parameter_names": np.array(names),
        "parameter_shapes": np.array(shapes),
        "parameter_sums": np.array([parameters[name].sum() for name in names]),
        "energy": outputs["total_energy"][0, 0],
        "forces": outputs["forces"],
        "atomic_energies": outputs["atomic_energy"][:, 0],
        "edges": np.array(outputs["edge_index"].shape[1]),
        "edge_norm": np.linalg.norm(outputs["edge_features"]),
        "edge_energy": np.linalg.norm(outputs["edge_energy"]),
    }
    if case.atoms.pbc.all():
        arrays["stress"] = outputs["stress"][0]
    sys.stdout.write(
        f"{case.name}: E {arrays['energy']:.8f}, edges {arrays['edges']}, max |F| "
        f"{np.abs(arrays['forces']).max():.4f}, deviation {deviation:.1e}, "
        f"{sum(value.size for value in parameters.values())} parameters\n"
    )
    return arrays


def main(target: Path) -> None:
    """Check and write all cases."""
    torch.set_num_threads(1)
    archive = {"cases": np.array([case.name for case in cases()])}
    for package in ("nequip", "nequip-allegro", "e3nn", "torch", "numpy"):
        archive[f"{package}_version"] = np.array(importlib.metadata.version(package))
    for case in cases():
        for key, array in case_arrays(case).items():
            archive[f"{case.name}/{key}"] = array
    np.savez_compressed(target, **archive)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
