"""Write scn.npz: energies and forces of the original SCN class for the parity test.

The class left fairchem-core with its version 2, so the script runs in an environment of its own:

    python -m venv ENV
    ENV/bin/pip install torch==2.13.0 e3nn==0.6.0 torch-geometric==2.8.1 numpy==2.4.6 ase==3.29.0 \
        lmdb numba pyyaml orjson requests tqdm submitit tensorboard "huggingface_hub<1" pydantic \
        hydra-core torchtnt matplotlib
    ENV/bin/pip install --no-deps fairchem-core==1.10.0
    OMP_NUM_THREADS=1 ENV/bin/python tests/science/oracles/scn_values.py [another target]

Its `torch_scatter`, which it imports and this class does not need, is replaced by an empty module.
With float64 as torch's default precision the class runs in it; only who is whose neighbour is
found in float32, by `find_neighbors`, and so are sums of cell vectors, which is why cells are
multiples of 1/256 Å here.

Weights are not stored; both sides rebuild them. The rule, in `fill_parameters`: each array is
`numpy.random.default_rng([seed, crc32(name)]).normal(size=shape)` divided by the root of its second
axis (biases by 3; tables of edges as they are, times 0.5).

Frames of edges are random in the class. Here they are those of `find_frames`, the same rule on both
sides, so that models of one tap, which depend on them, can be compared too.

For each case C the archive holds, in float64 where real:

    C/numbers, C/positions (Å), C/cell (Å, rows), C/graph: structures one after the other
    C/options: arguments of the class as JSON; C/seed
    C/parameter_names, C/parameter_shapes (0 where there is no second axis), C/parameter_sums
    C/energy (graphs), C/forces (atoms, 3)

and for all of them `cases`, `counts` (parameters of the published configurations) and versions.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import sys
import types
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
import torch
from ase import Atoms

TARGET = Path(__file__).with_name("scn.npz")
REFERENCE = (0.31, -0.52, 0.79)  # the second axis of a frame leans to it

OPTIONS: dict[str, Any] = {
    "max_num_neighbors": 200,
    "cutoff": 6.0,
    "num_interactions": 2,
    "lmax": 4,
    "mmax": 1,
    "num_resolutions": 1,
    "sphere_channels": 8,
    "sphere_channels_reduce": 8,
    "hidden_channels": 16,
    "num_taps": 4,
    "num_bands": 1,
    "num_sphere_samples": 64,
    "num_basis_functions": 12,
    "basis_width_scalar": 1.5,
    "distance_resolution": 0.05,
}
SHORT = {"num_interactions": 1, "lmax": 2, "mmax": 0, "use_grid": False, "cutoff": 4.0}


@dataclass(frozen=True)
class Case:
    """Structures in one batch, and what their model has instead of `OPTIONS`."""

    name: str
    structures: list[Atoms]
    changes: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """All arguments of the class."""
        return {**OPTIONS, **self.changes}


def exact(cell: np.ndarray) -> np.ndarray:
    """The next cell whose sums of vectors are not rounded in float32."""
    return np.round(cell * 256) / 256


def slab(metal: str, adsorbate: str, seed: int) -> Atoms:
    """A slab with an adsorbate, rattled so that no two distances are equal but those of images."""
    atoms = ase.build.fcc111(metal, (3, 2, 3), vacuum=7.0)
    ase.build.add_adsorbate(atoms, ase.build.molecule(adsorbate), 1.9, "fcc")
    atoms.pbc = True
    atoms.set_cell(exact(atoms.cell.array))
    atoms.rattle(stdev=0.08, seed=seed)
    return atoms


def solution() -> Atoms:
    """Molecules in a box so wide that nobody has an image of itself in sight."""
    atoms = ase.build.molecule("CH3CH2OH")
    other = ase.build.molecule("NH3")
    other.translate((2.4, 2.5, 0.6))
    atoms += other
    atoms.set_cell([19.0, 20.0, 21.0])
    atoms.center()
    atoms.pbc = True
    atoms.rattle(stdev=0.06, seed=7)
    return atoms


def sheared_cell() -> Atoms:
    """Five atoms in a cell as narrow as the cutoff: each has many images in sight."""
    cell = exact(np.array([[5.9, 0.0, 0.0], [1.3, 6.1, 0.0], [-1.6, 0.8, 6.4]]))
    places = np.random.default_rng(3).uniform(size=(5, 3))
    return Atoms("PtAlOPtS", scaled_positions=places, cell=cell, pbc=True)


def cases() -> list[Case]:
    """Orders, taps, bands, resolutions, limits, reduced channels, radial bases; grids and none."""
    return [
        Case("invariant", [sheared_cell()], {"mmax": 0, "use_grid": False}, 1),
        Case("one tap", [slab("Cu", "CO", 2)], {"num_taps": 1, "lmax": 3, "num_bands": 2}, 2),
        Case("four taps", [solution(), sheared_cell()], {"num_taps": -1}, 3),
        Case(
            "two resolutions",
            [solution()],
            {
                "num_resolutions": 2,
                "max_num_neighbors": 15,
                "lmax": 6,
                "sphere_channels": 10,
                "sphere_channels_reduce": 6,
                "num_bands": 2,
            },
            4,
        ),
        Case(
            "no grid",
            [solution()],
            {"use_grid": False, "num_taps": 1, "num_resolutions": 2, "lmax": 5, "cutoff": 4.3},
            5,
        ),
        Case("sigmoid", [solution()], {**SHORT, "distance_function": "sigmoid"}, 7),
        Case("linear sigmoid", [solution()], {**SHORT, "distance_function": "linearsigmoid"}, 8),
        Case("silu", [solution()], {**SHORT, "distance_function": "silu"}, 9),
        Case("high degree", [solution()], {"lmax": 9, "num_interactions": 3, "mmax": 0}, 6),
    ]


def fill_parameters(
    names: list[str], shapes: list[tuple[int, ...]], seed: int
) -> dict[str, np.ndarray]:
    """Weights by the rule at the top of the file; needs numpy only."""
    filled = {}
    for name, shape in zip(names, shapes, strict=True):
        values = np.random.default_rng([seed, zlib.crc32(name.encode())]).normal(size=shape)
        scale = 1 / 3 if len(shape) == 1 else 0.5 if "embedding" in name else shape[1] ** -0.5
        filled[name] = scale * values
    return filled


def find_frames(vectors: np.ndarray) -> np.ndarray:
    """Rotations (…, 3, 3) that take each vector to y, with z as near to `REFERENCE` as it gets."""
    y = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    reference = np.array(REFERENCE)
    z = reference - (y @ reference)[..., None] * y
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    return np.stack([np.cross(y, z), y, z], axis=-2)


def build_model(options: dict[str, Any]) -> Any:
    """The class with these options, with frames by the rule."""
    sys.modules.setdefault("torch_scatter", types.SimpleNamespace(scatter=None))  # type: ignore
    scn = importlib.import_module("fairchem.core.models.scn.scn")
    base = importlib.import_module("fairchem.core.models.base")
    search = importlib.import_module("fairchem.core.common.utils").radius_graph_pbc
    base.radius_graph_pbc = functools.partial(find_neighbors, search)
    kept = {"otf_graph": True, "use_pbc_single": False}
    model = scn.SphericalChannelNetwork(**kept, **options).eval()
    model._init_edge_rot_mat = lambda _data, _index, vectors: torch.from_numpy(
        find_frames(vectors.numpy())
    ).to(vectors)
    return model


def find_neighbors(search: Callable[..., Any], data: Any, *settings: Any) -> Any:
    """What the package's search finds in float32, with whole cells in float64."""
    rounded = data.clone()
    rounded.pos, rounded.cell = data.pos.float(), data.cell.float()
    torch.set_default_dtype(torch.float32)
    edges, shifts, counts = search(rounded, *settings)
    torch.set_default_dtype(torch.float64)
    return edges, shifts.double(), counts


def batch(structures: list[Atoms]) -> Any:
    """The structures as the class wants them."""
    data = importlib.import_module("torch_geometric.data")
    single = [
        data.Data(
            pos=torch.tensor(atoms.positions),
            cell=torch.tensor(atoms.cell.array)[None],
            atomic_numbers=torch.tensor(atoms.numbers),
            natoms=len(atoms),
            pbc=torch.tensor(atoms.pbc)[None],
        )
        for atoms in structures
    ]
    return data.Batch.from_data_list(single)


def case_arrays(case: Case) -> dict[str, np.ndarray]:
    """Everything the archive holds for one case."""
    model = build_model(case.options)
    trainable = dict(model.named_parameters())
    names = sorted(trainable)
    shapes = [tuple(trainable[name].shape) for name in names]
    filled = fill_parameters(names, shapes, case.seed)
    with torch.no_grad():
        for name, values in filled.items():
            trainable[name].copy_(torch.from_numpy(values))
        outputs = model(batch(case.structures))
    energy, forces = (outputs[key].detach().numpy() for key in ("energy", "forces"))
    sys.stdout.write(
        f"{case.name}: E {energy}, max |F| {np.abs(forces).max():.4f}, "
        f"{sum(values.size for values in filled.values())} parameters\n"
    )
    return {
        "numbers": np.concatenate([atoms.numbers for atoms in case.structures]),
        "positions": np.concatenate([atoms.positions for atoms in case.structures]),
        "cell": np.stack([atoms.cell.array for atoms in case.structures]),
        "graph": np.repeat(np.arange(len(case.structures)), [len(a) for a in case.structures]),
        "options": np.array(json.dumps(case.options)),
        "seed": np.array(case.seed),
        "parameter_names": np.array(names),
        "parameter_shapes": np.array([(*shape, 0)[:2] for shape in shapes]),
        "parameter_sums": np.array([filled[name].sum() for name in names]),
        "energy": energy,
        "forces": forces,
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "2M t1-b1": {"num_interactions": 12, "num_taps": 1, "num_bands": 1},
    "2M t4-b2": {"num_interactions": 12, "num_taps": 4, "num_bands": 2},
    "All+MD": {"num_interactions": 16, "num_bands": 2},
}
"""The three configurations, of which the parameters are counted."""


def count_parameters(options: dict[str, Any]) -> int:
    """Parameters of a model of published width; they take up to 0.7 GB."""
    wide = {"hidden_channels": 1024, "max_num_neighbors": 40, "basis_width_scalar": 2.0}
    return build_model({**wide, **options}).num_params


def main(target: Path) -> None:
    """Write all cases."""
    torch.set_num_threads(1)
    archive = {
        "cases": np.array([case.name for case in cases()]),
        "configurations": np.array(list(PUBLISHED)),
        "counts": np.array([count_parameters(options) for options in PUBLISHED.values()]),
    }
    torch.set_default_dtype(torch.float64)
    for package in ("fairchem-core", "e3nn", "torch-geometric", "torch", "numpy"):
        archive[f"{package}_version"] = np.array(importlib.metadata.version(package))
    for case in cases():
        for key, array in case_arrays(case).items():
            archive[f"{case.name}/{key}"] = array
    np.savez_compressed(target, **archive)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
