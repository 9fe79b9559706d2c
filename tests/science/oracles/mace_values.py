"""Write mace.npz and two model files: values of mace-torch's MACE for the parity test.

mace-torch's pins clash with ours, so the script runs in an environment of its own:

    python -m venv ENV
    ENV/bin/pip install torch==2.13.0 mace-torch==0.3.16
    OMP_NUM_THREADS=1 ENV/bin/python tests/science/oracles/mace_values.py [FOLDER]

With a folder the values go there, and every model is saved whole beside them.

Weights are not stored; both sides rebuild them with `fill`, from the name and the shape of each
trainable entry of the model's state_dict:

1. generator `numpy.random.Generator(numpy.random.Philox(zlib.crc32(name.encode())))`;
2. `values = rng.normal(size=shape)`, times `1 / shape[1]` for the product's weights (name holds
   ".contractions."; e3nn's shape is elements × couplings × channels), times 3 for the weights of
   readouts (name begins with "readouts."), times 1 for all others.

Every model is float64. The couplings (U matrices) are no weights: those of mace-torch are made by
a rule (recursive coupling in the order of irreps). They are stored once for each that occurs, as
indices and values of their entries, so that no reader needs the rule.

Archive, in float64 where real, eV and Å:

    settings: JSON, case name → all arguments of the model by name; irreps and classes as text
    C/numbers, C/positions (Å), C/cell (Å, rows; zeros without), C/pbc, C/head
    C/energy (eV), C/stress (eV/Å³, 3×3, tensile positive; periodic only)
    C/forces (eV/Å), left out where mace-torch's are not the derivative of its energy
    C/e0: sum of the isolated atoms; C/interaction: energy without them; C/node_energy (atoms)
    C/pairs: number of directed pairs below the cutoff
    C/parameters: names, C/shapes: JSON list of shapes, C/sums: the sum of each array
    C/couplings: JSON, state_dict key → key of the stored U
    U/<sha>/shape, U/<sha>/index (flat, row-major), U/<sha>/values

C is "<model>/<structure>". Forces and stress are checked here by central differences.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import zlib
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
from ase import Atoms

FOLDER = Path(__file__).parent
STEP = 1e-4  # Å for forces, dimensionless for strain
DISPLACED = 1e-6  # allowed |analytic − central difference|, relative to the largest value
INTERACTION = "RealAgnostic{}InteractionBlock"
ORGANIC = (1, 6, 7, 8)


@dataclass(frozen=True)
class Case:
    """One model and the structures it is asked for; `arguments` override `defaults`."""

    name: str
    structures: dict[str, Atoms]
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = "ScaleShiftMACE"
    conservative: bool = True


def defaults() -> dict[str, Any]:
    """Arguments of a small model, as text and numbers."""
    return {
        "r_max": 4.5,
        "num_bessel": 8,
        "num_polynomial_cutoff": 5,
        "max_ell": 2,
        "interaction_cls": INTERACTION.format("Residual"),
        "interaction_cls_first": INTERACTION.format(""),
        "num_interactions": 2,
        "hidden_irreps": "16x0e",
        "MLP_irreps": "16x0e",
        "avg_num_neighbors": 2.5,
        "atomic_numbers": list(ORGANIC),
        "correlation": 2,
        "gate": "silu",
        "radial_MLP": [64, 64, 64],
        "radial_type": "bessel",
        "distance_transform": "None",
        "pair_repulsion": False,
        "apply_cutoff": True,
        "heads": ["Default"],
        "atomic_inter_scale": 0.8,
        "atomic_inter_shift": 0.15,
    }


def rattled(atoms: Atoms, seed: int, amplitude: float = 0.08) -> Atoms:
    """Moved off every symmetry by normal deviates in Å."""
    rng = np.random.default_rng(seed)
    atoms.positions += amplitude * rng.normal(size=atoms.positions.shape)
    return atoms


def ethanol() -> Atoms:
    """Three elements, pairs on both sides of the cutoff."""
    return rattled(ase.build.molecule("CH3CH2OH"), 1)


def amide() -> Atoms:
    """Four elements."""
    return rattled(ase.build.molecule("CH3CONH2"), 2)


def one_atom() -> Atoms:
    """No edges at all."""
    return Atoms("O", positions=[[0.3, -0.2, 0.1]])


def far_atoms() -> Atoms:
    """A dimer and two atoms that see nobody."""
    return Atoms("HCON", positions=[[0, 0, 0], [0.7, 0.9, 0.2], [40, 0, 0], [0, 50, 1]])


def silicon_carbide() -> Atoms:
    """Periodic, with atoms that see their own images."""
    return rattled(ase.build.bulk("SiC", "zincblende", a=4.36), 3)


def sheared_copper() -> Atoms:
    """An alloy in a skewed cell; one atom stands outside of it."""
    atoms = ase.build.bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.numbers[1] = 13
    strain = np.array([[1.0, 0.08, 0.0], [0.0, 1.03, -0.05], [0.02, 0.0, 0.97]])
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions[2] -= atoms.cell.array[0]
    return rattled(atoms, 4)


def ten_elements() -> Atoms:
    """A compact cluster of ten elements."""
    numbers = [1, 3, 6, 7, 8, 9, 14, 16, 17, 35]
    grid = np.array([[x, y, z] for x in range(3) for y in range(2) for z in range(2)], float)
    return rattled(Atoms(numbers, positions=1.9 * grid[:10]), 5, 0.15)


def cases() -> list[Case]:
    """All models with their structures."""
    molecules = {"ethanol": ethanol(), "atom": one_atom(), "far": far_atoms()}
    residual = INTERACTION.format("Residual")
    metal = {"atomic_numbers": [13, 29], "avg_num_neighbors": 6.5}
    return [
        Case(
            "scalar64",
            molecules,
            {"hidden_irreps": "64x0e", "max_ell": 3, "correlation": 3, "r_max": 5.0},
        ),
        Case(
            "vector64",
            {"amide": amide(), "far": far_atoms()},
            {"hidden_irreps": "64x0e + 64x1o", "max_ell": 2, "correlation": 2},
        ),
        Case(
            "tensor128",
            {"ethanol": ethanol()},
            {"hidden_irreps": "128x0e + 128x1o + 128x2e", "max_ell": 3, "correlation": 3},
        ),
        Case(
            "carbide",
            {"sic": silicon_carbide()},
            {
                "hidden_irreps": "32x0e + 32x1o",
                "max_ell": 1,
                "correlation": 1,
                "atomic_numbers": [6, 14],
                "interaction_cls_first": residual,
            },
        ),
        Case(
            "alloy",
            {"cu": sheared_copper()},
            {**metal, "hidden_irreps": "16x0e + 16x1o + 16x2e", "max_ell": 3, "correlation": 2},
            kind="MACE",
        ),
        Case(
            "elements",
            {"ten": ten_elements()},
            {
                "hidden_irreps": "16x0e + 16x1o",
                "atomic_numbers": [1, 3, 6, 7, 8, 9, 14, 16, 17, 35],
                "interaction_cls_first": residual,
                "correlation": 3,
                "num_interactions": 3,
                "num_bessel": 10,
                "num_polynomial_cutoff": 6,
            },
        ),
        Case(
            "repulsion",
            {"ethanol": squeezed(), "cell": molecular_cell()},
            {"hidden_irreps": "16x0e + 16x1o", "pair_repulsion": True},
        ),
        Case(
            "repulsion_plain",
            {"ethanol": squeezed()},
            {"hidden_irreps": "16x0e", "pair_repulsion": True, "num_polynomial_cutoff": 6},
            kind="MACE",
        ),
        Case(
            "heads",
            {"amide": amide(), "amide_second": amide(), "atom_second": one_atom()},
            {
                "hidden_irreps": "16x0e + 16x1o",
                "heads": ["first", "second"],
                "atomic_inter_scale": [0.8, 1.3],
                "atomic_inter_shift": [0.15, -0.4],
                "interaction_cls_first": residual,
            },
        ),
        Case(
            "density",
            {"ethanol": ethanol(), "far": far_atoms(), "cell": molecular_cell()},
            {
                "hidden_irreps": "16x0e + 16x1o",
                "interaction_cls": INTERACTION.format("DensityResidual"),
                "interaction_cls_first": INTERACTION.format("Density"),
                "distance_transform": "Agnesi",
                "atomic_inter_scale": 0.02,
            },
        ),
        Case(
            "density_plain",
            {"ethanol": ethanol(), "far": far_atoms(), "cell": molecular_cell()},
            {
                "hidden_irreps": "16x0e + 16x1o",
                "interaction_cls": INTERACTION.format("DensityResidual"),
                "interaction_cls_first": INTERACTION.format("Density"),
                "atomic_inter_scale": 0.02,
            },
        ),
        Case(
            "gaussian",
            {"amide": amide()},
            {
                "hidden_irreps": "16x0e + 16x1o",
                "interaction_cls": INTERACTION.format("DensityResidual"),
                "interaction_cls_first": INTERACTION.format("DensityResidual"),
                "radial_type": "gaussian",
            },
        ),
        Case(
            "density_soft",
            {"amide": amide()},
            {
                "hidden_irreps": "16x0e + 16x1o",
                "interaction_cls": INTERACTION.format("DensityResidual"),
                "interaction_cls_first": INTERACTION.format("DensityResidual"),
                "distance_transform": "Soft",
                "apply_cutoff": False,
                "radial_type": "gaussian",
                "gate": "tanh",
            },
        ),
        Case(
            "parities",
            {"amide": amide(), "cell": molecular_cell()},
            {
                "hidden_irreps": "16x0e + 16x0o + 16x1o + 16x1e",
                "interaction_cls_first": residual,
                "num_interactions": 3,
                "correlation": 2,
            },
        ),
        Case(
            "parities_cubic",
            {"ethanol": ethanol()},
            {
                "hidden_irreps": "8x0e + 8x0o + 8x1o + 8x1e",
                "max_ell": 1,
                "correlation": 3,
                "radial_MLP": [16],
            },
        ),
        Case(
            "single_layer",
            {"ethanol": ethanol()},
            {"hidden_irreps": "16x0e + 16x1o", "num_interactions": 1, "correlation": 3},
        ),
        Case(
            "quartic",
            {"ethanol": ethanol()},
            {"hidden_irreps": "8x0e + 8x1o", "max_ell": 1, "correlation": 4, "gate": "None"},
        ),
        Case(
            "quartic_silu",
            {"ethanol": ethanol()},
            {"hidden_irreps": "8x0e + 8x1o", "max_ell": 1, "correlation": 4},
        ),
        Case(
            "octupoles",
            {"ethanol": ethanol()},
            {"hidden_irreps": "8x0e + 8x1o + 8x2e + 8x3o", "max_ell": 3, "correlation": 2},
        ),
        Case(
            "high_degrees",
            {"ethanol": ethanol(), "cell": molecular_cell()},
            {"hidden_irreps": "8x0e + 8x1o", "max_ell": 5, "correlation": 2},
        ),
        Case(
            "chebyshev",
            {"ethanol": ethanol()},
            {"radial_type": "chebyshev", "distance_transform": "Agnesi", "correlation": 1},
            conservative=False,  # torch has no derivative of its Chebyshev polynomials
        ),
    ]


def squeezed() -> Atoms:
    """Ethanol with two atoms so close that the repulsion matters."""
    atoms = ethanol()
    atoms.positions[1] += 0.5 * (atoms.positions[0] - atoms.positions[1])
    return atoms


def molecular_cell() -> Atoms:
    """Formaldehyde and water in a small skewed cell."""
    atoms = ase.build.molecule("H2CO")
    water = ase.build.molecule("H2O")
    water.translate([2.4, 1.6, 1.4])
    atoms += water
    atoms.set_cell([[4.6, 0.0, 0.0], [1.1, 4.2, 0.0], [-0.7, 0.9, 4.4]])
    atoms.pbc = True
    return rattled(atoms, 6)


def small_models() -> list[Case]:
    """Models saved whole, for the test of conversion."""
    structures = {"ethanol": ethanol(), "cell": molecular_cell()}
    return [
        Case(
            "mace_small",
            structures,
            {
                "hidden_irreps": "8x0e + 8x1o",
                "max_ell": 1,
                "pair_repulsion": True,
                "radial_MLP": [16, 16],
                "num_bessel": 6,
                "atomic_numbers": [1, 6, 8],
            },
        ),
        Case(
            "mace_small_heads",
            structures,
            {
                "hidden_irreps": "8x0e",
                "max_ell": 1,
                "correlation": 3,
                "radial_MLP": [16, 16],
                "num_bessel": 6,
                "atomic_numbers": [1, 6, 8],
                "heads": ["first", "second"],
                "atomic_inter_scale": [0.8, 1.3],
                "atomic_inter_shift": [0.15, -0.4],
                "interaction_cls_first": INTERACTION.format("Residual"),
            },
        ),
    ]


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One array of weights by the rule at the top of the file; needs numpy only."""
    rng = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    values = rng.normal(size=shape)
    if ".contractions." in name:
        return values / shape[1]
    return 3.0 * values if name.startswith("readouts.") else values


def atomic_energies(numbers: list[int], heads: int) -> np.ndarray:
    """E0 of each head and element in eV: −Z − 0.1 head."""
    rows = [[-float(z) - 0.1 * head for z in numbers] for head in range(heads)]
    return np.array(rows if heads > 1 else rows[0])


def build(case: Case) -> Any:
    """The model, filled by the rule."""
    import torch
    from e3nn import o3
    from mace import modules

    settings = {**defaults(), **case.arguments}
    elements = settings["atomic_numbers"]
    scale = {key: settings.pop(key) for key in ("atomic_inter_scale", "atomic_inter_shift")}
    made = {
        **settings,
        **(scale if case.kind == "ScaleShiftMACE" else {}),
        "num_elements": len(elements),
        "atomic_energies": atomic_energies(elements, len(settings["heads"])),
        "hidden_irreps": o3.Irreps(settings["hidden_irreps"]),
        "MLP_irreps": o3.Irreps(settings["MLP_irreps"]),
        "gate": modules.gate_dict[settings["gate"]],
    }
    for key in ("interaction_cls", "interaction_cls_first"):
        made[key] = modules.interaction_classes[settings[key]]
    model = getattr(modules, case.kind)(**made)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.from_numpy(fill(name, tuple(value.shape))))
    return model


def predict(model: Any, atoms: Atoms, head: int) -> dict[str, np.ndarray]:
    """All outputs for one structure, with mace-torch's own neighbour list."""
    import torch
    from mace.data.neighborhood import get_neighborhood

    edges, shifts, unit_shifts, cell = get_neighborhood(
        atoms.positions, float(model.r_max), tuple(atoms.pbc), atoms.cell.array
    )
    if not atoms.pbc.any():  # without a cell nothing is shifted
        cell = np.zeros((3, 3))
    elements = model.atomic_numbers.tolist()
    species = [elements.index(z) for z in atoms.numbers]
    data = {
        "positions": torch.tensor(atoms.positions),
        "node_attrs": torch.eye(len(elements))[species],
        "edge_index": torch.tensor(np.asarray(edges), dtype=torch.int64).reshape(2, -1),
        "shifts": torch.tensor(np.asarray(shifts, dtype=float)).reshape(-1, 3),
        "unit_shifts": torch.tensor(np.asarray(unit_shifts, dtype=float)).reshape(-1, 3),
        "cell": torch.tensor(np.asarray(cell)),
        "batch": torch.zeros(len(atoms), dtype=torch.int64),
        "ptr": torch.tensor([0, len(atoms)]),
        "head": torch.tensor([head]),
    }
    outputs = model(data, compute_stress=bool(atoms.pbc.all()))
    isolated = np.atleast_2d(atomic_energies(elements, len(model.heads)))[head]
    result = {
        "e0": np.array(isolated[species].sum()),
        "energy": outputs["energy"].detach().numpy()[0],
        "forces": outputs["forces"].detach().numpy(),
        "node_energy": outputs["node_energy"].detach().numpy(),
        "pairs": np.array(len(data["shifts"])),
    }
    if "interaction_energy" in outputs:
        result["interaction"] = outputs["interaction_energy"].detach().numpy()[0]
    if atoms.pbc.all():
        result["stress"] = outputs["stress"].detach().numpy()[0]
    return result


def check(model: Any, atoms: Atoms, head: int, values: dict[str, np.ndarray]) -> float:
    """Largest deviation from central differences: three components of force, and one strain."""
    largest = max(np.abs(values["forces"]).max(), 1e-3)
    worst = 0.0
    for index in ((0, 0), (len(atoms) // 2, 1), (len(atoms) - 1, 2)):
        energies = []
        for step in (STEP, -STEP):
            moved = atoms.copy()
            moved.positions[index] += step
            energies.append(predict(model, moved, head)["energy"])
        force = -(energies[0] - energies[1]) / (2.0 * STEP)
        worst = max(worst, abs(force - values["forces"][index]) / largest)
    if "stress" in values:
        energies = []
        for step in (STEP, -STEP):
            moved = atoms.copy()
            strain = np.eye(3)
            strain[0, 1] += step
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=False)
            moved.positions = atoms.positions @ strain
            energies.append(predict(model, moved, head)["energy"])
        stress = (energies[0] - energies[1]) / (2.0 * STEP) / atoms.get_volume()
        worst = max(worst, abs(stress - values["stress"][0, 1]) / np.abs(values["stress"]).max())
    return worst


def couplings(model: Any, archive: dict[str, np.ndarray]) -> dict[str, str]:
    """Store each U matrix once; the keys under which they stand."""
    keys = {}
    for name, value in model.state_dict().items():
        if "U_matrix" not in name:
            continue
        array = value.numpy()
        content = repr(array.shape).encode() + np.round(array, 12).tobytes()
        sha = hashlib.sha256(content).hexdigest()[:12]
        keys[name] = sha
        flat = array.reshape(-1)
        index = np.flatnonzero(np.abs(flat) > 1e-14)
        archive[f"U/{sha}/shape"] = np.array(array.shape)
        archive[f"U/{sha}/index"] = index.astype(np.int32)
        archive[f"U/{sha}/values"] = flat[index]
    return keys


def add_case(case: Case, archive: dict[str, np.ndarray]) -> Any:
    """Compute, check and store one case; the model it was computed with."""
    model = build(case)
    parameters = {name: value.detach().numpy() for name, value in model.named_parameters()}
    named = json.dumps(couplings(model, archive))
    for place, (name, atoms) in enumerate(case.structures.items()):
        head = int(name.endswith("second"))
        values = predict(model, atoms, head)
        deviation = check(model, atoms, head, values)
        largest = np.abs(values["forces"]).max()
        sys.stdout.write(
            f"{case.name}/{name}: E {values['energy']:.6f}, of E0 {values['e0']:.1f}, "
            f"max |F| {largest:.4f}, pairs {values['pairs']}, differences {deviation:.1e}\n"
        )
        if case.conservative:
            assert deviation < DISPLACED, (case.name, name, deviation)
        else:
            assert deviation > DISPLACED, "mended upstream: store the forces again"
            values.pop("forces")
        stored = {
            "numbers": atoms.numbers,
            "positions": atoms.positions,
            "cell": atoms.cell.array,
            "pbc": atoms.pbc,
            "head": np.array(head),
            **values,
        }
        for key, array in stored.items():
            archive[f"{case.name}/{name}/{key}"] = np.asarray(array)
        if place == 0:
            archive[f"{case.name}/parameters"] = np.array(list(parameters))
            shapes = [value.shape for value in parameters.values()]
            archive[f"{case.name}/shapes"] = np.array(json.dumps(shapes))
            archive[f"{case.name}/sums"] = np.array([v.sum() for v in parameters.values()])
            archive[f"{case.name}/couplings"] = np.array(named)
    return model


def save(model: Any, path: Path) -> None:
    """torch.save, but the compiled code inside (it names folders of this machine) left out."""
    from unittest.mock import patch

    import torch

    with patch("torch.jit.save", lambda _, buffer: buffer.write(b"\xff code left out")):
        torch.save(model, path)


def main() -> None:
    """Check and write everything."""
    importlib.import_module("mace")  # before e3nn: it lets torch load e3nn's own constants
    import torch

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    archive: dict[str, np.ndarray] = {}
    settings = {}
    for case in [*cases(), *small_models()]:
        model = add_case(case, archive)
        settings[case.name] = {**defaults(), **case.arguments, "kind": case.kind}
        if case.name.startswith("mace_small") or folder != FOLDER:
            save(model, folder / f"{case.name}.model")
    archive["settings"] = np.array(json.dumps(settings))
    archive["versions"] = np.array(
        json.dumps({name: version(name) for name in ("mace-torch", "e3nn", "torch", "numpy")})
    )
    np.savez_compressed(folder / "mace.npz", **archive)
    assert (folder / "mace.npz").stat().st_size < 1_500_000


if __name__ == "__main__":
    main()
