"""Write schnetpack.npz: energies, forces and stress of SchNetPack's SchNet for the parity test.

SchNetPack's pins clash with ours, so the script runs in an environment of its own:

    python -m venv ENV
    ENV/bin/pip install torch==2.13.0 numpy==2.2.6 ase==3.29.0
    ENV/bin/pip install --no-deps schnetpack==2.1.1
    ENV/bin/pip install h5py pyyaml hydra-core hydra-colorlog pytorch-lightning torchmetrics \
        rich fasteners dirsync torch-ema matscipy tensorboard tensorboardX tqdm protobuf
    OMP_NUM_THREADS=1 ENV/bin/python tests/science/oracles/schnetpack_values.py

Weights are not stored; both sides rebuild them. The rule, in `fill_parameters`:

1. names: the trainable entries of the model's state_dict in Python's `sorted` order of strings
   (buffers, i.e. the radial basis' offsets and widths and the cutoff, are left out);
2. one generator `numpy.random.default_rng(seed)` per case, used in that order:
   `values = rng.normal(size=shape) * scale`;
3. scale: 1.0 for the embedding table (name ends in "embedding.weight"), 1/sqrt(shape[1]) for
   every other two-dimensional array (torch's layout: outputs × inputs), 0.1 for biases.

For each case C the archive holds, in float64 where real, Å and the model's energy unit E:

    C/numbers, C/positions (Å), C/cell (Å, rows; zeros without), C/pbc
    C/features, C/interactions, C/gaussians, C/cutoff (Å), C/activation (of the read-out), C/seed
    C/parameter_names, C/parameter_shapes (second entry 0 for a bias), in the order of the rule
    C/parameter_sums: sum of each array, to see that a rebuilt array is the right one
    C/energy (E), C/forces (E/Å), C/stress (E/Å³, 3×3; periodic case only)
    C/representation (atoms × features, after the last interaction), C/atomic_energies (E)
    C/pairs: number of directed pairs below the cutoff, periodic images included
    C/offsets, C/widths (Å): centres and widths of the Gaussians in use

and for all of them `cases`, `schnetpack_version`, `torch_version`, `numpy_version`.

Stress is (dE/dstrain)/volume under r -> (1 + strain) r for atoms and cell, so it is positive where
the cell wants to shrink (tension). That is SchNetPack's own sign; forces and stress are both
checked below against central differences of the energy.

SchNetPack makes its Gaussians' centres and widths and its cutoff in float32. The centres and
widths are replaced by the same formula in float64 here; the cutoff 5.0 is exact in both.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ase.build
import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch.utils.data import dataloader

TARGET = Path(__file__).with_name("schnetpack.npz")
STEP = 1e-5  # Å for forces, dimensionless for strain
DISPLACED = 2e-8  # allowed |analytic − central difference|, in E/Å and in E/Å³

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


@dataclass(frozen=True)
class Case:
    """One structure and one model; lengths in Å, `activation` is the read-out's."""

    name: str
    atoms: Atoms
    features: int
    interactions: int
    gaussians: int
    seed: int
    cutoff: float = 5.0
    activation: Literal["shifted_softplus", "silu"] = "shifted_softplus"


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


def cases() -> list[Case]:
    """The four cases; the last repeats the first with SchNetPack's default read-out, silu."""
    return [
        Case("ethanol", ethanol(), features=32, interactions=3, gaussians=20, seed=1),
        Case("paper", aminobutyric_acid(), features=128, interactions=6, gaussians=50, seed=2),
        Case("sheared", sheared_cell(), features=16, interactions=2, gaussians=20, seed=3),
        Case("silu", ethanol(), 32, 3, gaussians=20, seed=1, activation="silu"),
    ]


def fill_parameters(
    names: list[str], shapes: list[tuple[int, ...]], seed: int
) -> dict[str, np.ndarray]:
    """Weights by the rule at the top of the file; needs numpy only."""
    assert names == sorted(names)
    rng = np.random.default_rng(seed)
    filled = {}
    for name, shape in zip(names, shapes, strict=True):
        if len(shape) == 1:
            scale = 0.1
        elif name.endswith("embedding.weight"):
            scale = 1.0
        else:
            scale = 1.0 / np.sqrt(shape[1])
        filled[name] = rng.normal(size=shape) * scale
    return filled


def import_schnetpack() -> Any:
    """Import SchNetPack 2.1.1 under a torch that renamed one type variable it asks for.

    The import stands in here so that `fill_parameters` can be had without SchNetPack.
    """
    if not hasattr(dataloader, "T_co"):
        dataloader.T_co = dataloader._T_co  # an annotation in its data loader, nothing else
    return importlib.import_module("schnetpack")


def build_model(case: Case) -> Any:
    """SchNetPack's SchNet with an Atomwise read-out, in float64 and filled by the rule."""
    spk = import_schnetpack()
    radial = spk.nn.GaussianRBF(n_rbf=case.gaussians, cutoff=case.cutoff)
    representation = spk.representation.SchNet(
        n_atom_basis=case.features,
        n_interactions=case.interactions,
        radial_basis=radial,
        cutoff_fn=spk.nn.CosineCutoff(case.cutoff),
    )
    activations = {
        "shifted_softplus": spk.nn.activations.shifted_softplus,
        "silu": torch.nn.functional.silu,
    }
    readout = spk.atomistic.Atomwise(
        n_in=case.features,
        n_layers=2,
        activation=activations[case.activation],
        output_key="energy",
        per_atom_output_key="atomic_energies",
    )
    periodic = bool(case.atoms.pbc.any())
    strain = [spk.atomistic.Strain()] if periodic else []
    model = spk.model.NeuralNetworkPotential(
        representation=representation,
        input_modules=[*strain, spk.atomistic.PairwiseDistances()],
        output_modules=[readout, spk.atomistic.Forces(calc_stress=periodic)],
        input_dtype_str="float64",
    )
    model.model_outputs.append("scalar_representation")
    model = model.double().eval()
    # The same formulas as in GaussianRBF, but without float32 in between.
    radial.offsets = torch.linspace(0.0, case.cutoff, case.gaussians, dtype=torch.float64)
    radial.widths = torch.full_like(radial.offsets, case.cutoff / (case.gaussians - 1))
    trainable = dict(model.named_parameters())
    names = sorted(trainable)
    filled = fill_parameters(names, [tuple(trainable[name].shape) for name in names], case.seed)
    missing = model.load_state_dict(
        {name: torch.from_numpy(values) for name, values in filled.items()}, strict=False
    )
    assert not missing.unexpected_keys
    assert all("radial_basis" in key or "cutoff" in key for key in missing.missing_keys)
    return model


def predict(model: Any, atoms: Atoms, cutoff: float) -> dict[str, np.ndarray]:
    """All outputs of the model for one structure, with a fresh full neighbour list."""
    centres, neighbours, images = neighbor_list("ijS", atoms, cutoff)
    inputs = {
        "_atomic_numbers": torch.as_tensor(atoms.numbers, dtype=torch.long),
        "_positions": torch.tensor(atoms.positions),
        "_cell": torch.tensor(atoms.cell.array)[None],
        "_pbc": torch.tensor(atoms.pbc)[None],
        "_n_atoms": torch.tensor([len(atoms)]),
        "_idx_m": torch.zeros(len(atoms), dtype=torch.long),
        "_idx_i": torch.as_tensor(centres, dtype=torch.long),
        "_idx_j": torch.as_tensor(neighbours, dtype=torch.long),
        "_offsets": torch.tensor(images @ atoms.cell.array),
    }
    outputs = {key: value.detach().numpy() for key, value in model(inputs).items()}
    return {**outputs, "pairs": np.array(len(centres))}


def energy_of(model: Any, atoms: Atoms, cutoff: float) -> float:
    """The energy of one structure."""
    return float(predict(model, atoms, cutoff)["energy"][0])


def displaced_forces(model: Any, case: Case) -> np.ndarray:
    """Forces by central differences of the energy over positions, E/Å."""
    forces = np.zeros((len(case.atoms), 3))
    for index in np.ndindex(*forces.shape):
        energies = []
        for step in (STEP, -STEP):
            moved = case.atoms.copy()
            moved.positions[index] += step
            energies.append(energy_of(model, moved, case.cutoff))
        forces[index] = -(energies[0] - energies[1]) / (2.0 * STEP)
    return forces


def strained_stress(model: Any, case: Case) -> np.ndarray:
    """Stress by central differences of the energy over r -> (1 + strain) r, E/Å³."""
    stress = np.zeros((3, 3))
    for index in np.ndindex(3, 3):
        energies = []
        for step in (STEP, -STEP):
            strain = np.eye(3)
            strain[index] += step
            moved = case.atoms.copy()
            # Rows are vectors, so (1 + strain) r is a product with the transpose.
            moved.set_cell(case.atoms.cell.array @ strain.T, scale_atoms=False)
            moved.positions = case.atoms.positions @ strain.T
            energies.append(energy_of(model, moved, case.cutoff))
        stress[index] = (energies[0] - energies[1]) / (2.0 * STEP) / case.atoms.get_volume()
    return stress


def case_arrays(case: Case) -> dict[str, np.ndarray]:
    """Everything the archive holds for one case, after the checks by central differences."""
    model = build_model(case)
    outputs = predict(model, case.atoms, case.cutoff)
    deviation = np.abs(outputs["forces"] - displaced_forces(model, case)).max()
    assert deviation < DISPLACED, (case.name, deviation)
    report = [f"{case.name}: E {outputs['energy'][0]:.10f}, pairs {outputs['pairs']}"]
    report.append(f"max |F| {np.abs(outputs['forces']).max():.4f}, deviation {deviation:.1e}")
    parameters = dict(model.named_parameters())
    names = sorted(parameters)
    values = [parameters[name].detach().numpy() for name in names]
    radial = model.representation.radial_basis
    arrays = {
        "numbers": case.atoms.numbers,
        "positions": case.atoms.positions,
        "cell": case.atoms.cell.array,
        "pbc": case.atoms.pbc,
        "features": np.array(case.features),
        "interactions": np.array(case.interactions),
        "gaussians": np.array(case.gaussians),
        "cutoff": np.array(case.cutoff),
        "activation": np.array(case.activation),
        "seed": np.array(case.seed),
        "parameter_names": np.array(names),
        "parameter_shapes": np.array([(*value.shape, 0)[:2] for value in values]),
        "parameter_sums": np.array([value.sum() for value in values]),
        "energy": outputs["energy"][0],
        "forces": outputs["forces"],
        "representation": outputs["scalar_representation"],
        "atomic_energies": outputs["atomic_energies"][:, 0],
        "pairs": outputs["pairs"],
        "offsets": radial.offsets.numpy(),
        "widths": radial.widths.numpy(),
    }
    if "stress" in outputs:
        arrays["stress"] = outputs["stress"][0]
        deviation = np.abs(arrays["stress"] - strained_stress(model, case)).max()
        assert deviation < DISPLACED, (case.name, deviation)
        assert np.allclose(arrays["stress"], arrays["stress"].T, rtol=0.0, atol=1e-12)
        report.append(f"max |stress| {np.abs(arrays['stress']).max():.4f}, {deviation:.1e}")
    sys.stdout.write(", ".join(report) + "\n")
    return arrays


def main() -> None:
    """Check and write all cases."""
    torch.set_num_threads(1)
    archive = {
        "cases": np.array([case.name for case in cases()]),
        "schnetpack_version": np.array(import_schnetpack().__version__),
        "torch_version": np.array(torch.__version__),
        "numpy_version": np.array(np.__version__),
    }
    for case in cases():
        for key, array in case_arrays(case).items():
            archive[f"{case.name}/{key}"] = array
    np.savez_compressed(TARGET, **archive)


if __name__ == "__main__":
    main()
