"""SCN with fairchem-core's weights gives fairchem-core's numbers (1.10.0, see oracles)."""

import json
import math
import os
import runpy
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from scipy.spatial.transform import Rotation

from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.frames import Frames
from surefoot.data.convert import to_graph
from surefoot.deploy.scn import OPTIONS, PUBLISHED, build_scn, published_scn
from surefoot.graph import Geometry, Graph, collate
from surefoot.models.scn import Scn
from surefoot.posteriors.predictor import Predictor
from surefoot.potential import Potential

ORACLES = Path(__file__).parent / "oracles"
TOLERANCE = 1e-12  # relative to the largest value
CASES = (
    *("invariant", "one tap", "four taps", "two resolutions", "no grid"),
    *("sigmoid", "linear sigmoid", "silu", "high degree"),
)
RULES = runpy.run_path(str(ORACLES / "scn_values.py"), run_name="rules")


class Injected(Scn):
    """The model with the frames of the oracle."""

    def find_frames(self, geometry: Geometry) -> Frames:
        found = RULES["find_frames"](geometry.vectors.detach().numpy())
        return Frames(torch.from_numpy(found).to(geometry.vectors).unsqueeze(-3))


@dataclass(frozen=True)
class Case:
    """What the archive holds for one case."""

    values: dict[str, np.ndarray]

    @property
    def options(self) -> dict[str, Any]:
        return json.loads(str(self.values["options"]))

    @property
    def graph(self) -> Graph:
        v = self.values
        structures = [
            Atoms(v["numbers"][chosen], v["positions"][chosen], cell=cell, pbc=True)
            for chosen, cell in ((v["graph"] == n, cell) for n, cell in enumerate(v["cell"]))
        ]
        return collate([to_graph(atoms, self.options["cutoff"]) for atoms in structures])

    def state(self) -> dict[str, torch.Tensor]:
        """The weights, rebuilt by the oracle's rule."""
        names = self.values["parameter_names"].tolist()
        shapes = [tuple(int(n) for n in shape if n) for shape in self.values["parameter_shapes"]]
        filled = RULES["fill_parameters"](names, shapes, int(self.values["seed"]))
        sums = [filled[name].sum() for name in names]
        np.testing.assert_allclose(sums, self.values["parameter_sums"], rtol=1e-12, atol=1e-12)
        return {name: torch.from_numpy(values) for name, values in filled.items()}

    def predictor(self, **more: Any) -> Predictor:
        return build_scn(self.state(), self.options, **more)

    def injected(self, **more: Any) -> tuple[Potential, Weights]:
        """The potential with the oracle's frames, and its weights."""
        predictor = self.predictor(**more)
        settings = predictor.potential.model.model_dump()
        potential = Potential(
            model=Injected(**settings),
            head=predictor.potential.head,
            baseline=predictor.potential.baseline,
        )
        return potential, predictor.weights


@pytest.fixture(params=CASES)
def case(request) -> Case:
    with np.load(ORACLES / "scn.npz") as archive:
        start = request.param + "/"
        found = {k.removeprefix(start): archive[k] for k in archive.files if k.startswith(start)}
    return Case(found)


def error(found: Any, expected: np.ndarray) -> float:
    found = found.detach().double().numpy()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_all_cases_are_here() -> None:
    with np.load(ORACLES / "scn.npz") as archive:
        assert tuple(archive["cases"].tolist()) == CASES


def test_energy_and_forces(case) -> None:
    potential, weights = case.injected()
    output = potential(weights, case.graph)
    assert output.forces is not None
    assert error(output.energy.mean[0], case.values["energy"]) < TOLERANCE
    assert error(output.forces.mean[0], case.values["forces"]) < TOLERANCE


def test_single_precision(case) -> None:
    """As near as the reference asks for."""
    potential, weights = case.injected()
    output = potential({n: v.float() for n, v in weights.items()}, case.graph)
    assert output.forces is not None
    assert error(output.energy.mean[0], case.values["energy"]) < 1e-5
    assert error(output.forces.mean[0], case.values["forces"]) < 1e-4


def test_frames_matter_as_much_as_taps_say(case) -> None:
    """Our own frames: nothing changes for m = 0, little for four taps, much for one."""
    prediction = case.predictor()(case.graph)
    assert prediction.forces is not None
    off = error(prediction.forces.mean, case.values["forces"])
    if case.options["mmax"] == 0:
        assert off < TOLERANCE
    elif case.options["num_taps"] == 1:
        assert off > 1e-2
    else:
        assert TOLERANCE < off < 3e-3


def test_some_elements(case) -> None:
    """Rows that do not occur are not needed."""
    present = sorted(set(case.values["numbers"].tolist()))
    every, some = case.injected(), case.injected(elements=present)
    outputs = [potential(weights, case.graph) for potential, weights in (every, some)]
    assert torch.equal(outputs[0].energy.mean, outputs[1].energy.mean)
    assert some[1]["model.embedding"].shape[-2] == len(present)


def test_stacked(case) -> None:
    """Their weights as one of three members give the same."""
    potential, weights = case.injected()
    others = [potential.init(seed, torch.float64) for seed in (1, 2)]
    members = stack([others[0], {n: v[0] for n, v in weights.items()}, others[1]])
    output = potential(members, case.graph)
    assert output.forces is not None
    assert error(output.forces.mean[1], case.values["forces"]) < TOLERANCE


def test_scale_and_shift(case) -> None:
    """What energies were shifted and divided by before training comes back."""
    plain, scaled = case.predictor()(case.graph), case.predictor(scale=2.9, shift=-0.75)(case.graph)
    torch.testing.assert_close(scaled.energy.mean, 2.9 * plain.energy.mean - 0.75)
    assert scaled.forces is not None
    assert plain.forces is not None
    torch.testing.assert_close(scaled.forces.mean, 2.9 * plain.forces.mean)


SLAB_OPTIONS: dict[str, Any] = {
    "num_interactions": 2,
    "hidden_channels": 16,
    "sphere_channels": 8,
    "sphere_channels_reduce": 8,
    "num_basis_functions": 8,
    "lmax": 4,
    "cutoff": 6.0,
    "max_num_neighbors": 200,
    "num_resolutions": 1,
}
GOLDEN = {
    "invariant": (
        {"mmax": 0, "num_bands": 1},
        -0.445945,
        [[8.3e-5, -4e-6, -3.595e-3], [4.4e-5, 8.0e-5, -4.161e-3]],
        1.775e-3,
    ),
    "four taps": (
        {"mmax": 1, "num_taps": 4, "num_bands": 2},
        0.371820,
        [[-1.11e-4, -8.7e-5, 6.22e-4], [2.2e-5, 1.7e-5, 1.46e-4]],
        2.99e-4,
    ),
}
"""Options, E in eV, forces on O and H and their root mean square over the slab in eV/Å: measured
with the original class on weights that are sines, before this was written."""


def copper_slab() -> Atoms:
    atoms = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    add_adsorbate(atoms, "H", 2.2, "fcc")
    atoms.pbc = True
    noise = np.random.RandomState(0).normal(size=atoms.positions.shape)
    atoms.positions += 0.05 * noise
    return atoms


def sine_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Entry j of tensor i, by name, is sin(0.7 j + 1.3 (i + 1)) / √f."""
    state = {}
    for place, (name, shape) in enumerate(sorted(shapes.items()), start=1):
        phase = 0.7 * torch.arange(math.prod(shape), dtype=torch.float64) + 1.3 * place
        scale = 4 if "embedding" in name else shape[1] if len(shape) == 2 else 10
        state[name] = torch.sin(phase).reshape(shape) / math.sqrt(scale)
    return state


def their_shapes(options: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Parameters of the class by name, for one layer as in the archive and any width."""
    rows = OPTIONS["max_num_elements"]
    width, edge, hidden = (
        options[key] for key in ("sphere_channels", "num_basis_functions", "hidden_channels")
    )
    lmax, mmax, bands = options["lmax"], options["mmax"], options["num_bands"]
    kept = sum(2 * min(degree, mmax) + 1 for degree in range(lmax + 1))
    shapes: dict[str, tuple[int, ...]] = {"sphere_embedding.weight": (rows, width)}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    for kind in ("energy", "force"):
        for number, outputs in ((1, width), (2, width), (3, 1)):
            linear(f"{kind}_fc{number}", width, outputs)
    for layer in range(options["num_interactions"]):
        start = f"edge_blocks.{layer}"
        for table in ("source", "target"):
            shapes[f"{start}.dist_block.{table}_embedding.weight"] = rows, edge
        linear(f"{start}.dist_block.fc1_dist", int(options["cutoff"] / 0.02), edge)
        linear(f"{start}.dist_block.fc1_edge_attr", edge, edge)
        block = f"{start}.message_blocks.0"
        linear(f"{block}.fc1_dist", edge, hidden)
        linear(f"{block}.fc1_edge_proj", 2 * kept * width, hidden)
        linear(f"{block}.fc1_edge", hidden, hidden)
        linear(f"{block}.fc2_edge", hidden, kept * width)
        linear(f"{start}.fc1_sphere", 2 * bands * width, 2 * bands * width)
        linear(f"{start}.fc2_sphere", 2 * bands * width, 2 * width)
        linear(f"{start}.fc3_sphere", 2 * width, width)
    return shapes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name, dtype) -> None:
    """Within 1e-5, and nearly to the last digit that was written down."""
    changes, energy, forces, size = GOLDEN[name]
    options = SLAB_OPTIONS | changes
    state = {n: v.to(dtype) for n, v in sine_weights(their_shapes(options)).items()}
    graph = to_graph(copper_slab(), 6.0)
    assert graph.edge_index.shape[1] == 764
    prediction = build_scn(state, options)(graph)
    assert prediction.forces is not None
    found = prediction.forces.mean.double().numpy()
    assert abs(float(prediction.energy.mean) - energy) < (2e-6 if dtype == torch.float64 else 1e-5)
    assert np.abs(found[-2:] - forces).max() < 1.1e-6
    assert abs(np.sqrt(np.square(found).sum(-1).mean() / 3) - size) < 1e-6


def test_rotation_of_the_invariant_slab() -> None:
    """With m = 0 rotations are missed by the points of the read-out alone, and by little.

    The original class was measured on such a slab with other weights: 7e-5 eV and 1e-3 of the
    forces with 128 points, and 1e-4 with 1024 and no grid.
    """
    found = {}
    for points in (128, 1024):
        options = SLAB_OPTIONS | GOLDEN["invariant"][0] | {"num_sphere_samples": points}
        found[points] = turn_errors(build_scn(sine_weights(their_shapes(options)), options))
    assert 1e-6 < found[128][0] < 5e-5
    assert 1e-4 < found[128][1] < 5e-3
    assert found[1024][1] < found[128][1] / 3


def turn_errors(predictor: Predictor) -> tuple[float, float]:
    """Largest |ΔE| in eV and root mean square of ΔF relative to F, over three rotations."""
    atoms = copper_slab()
    before = predictor(to_graph(atoms, 6.0))
    energies, off = [], []
    assert before.forces is not None
    for seed in range(3):
        matrix = Rotation.random(random_state=seed).as_matrix()
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ matrix.T)
        turned.positions = atoms.positions @ matrix.T
        after = predictor(to_graph(turned, 6.0))
        assert after.forces is not None
        energies.append(abs(float(after.energy.mean - before.energy.mean)))
        off.append(after.forces.mean.numpy() - before.forces.mean.numpy() @ matrix.T)
    size = np.linalg.norm(before.forces.mean.numpy()) * len(off) ** 0.5
    return max(energies), float(np.linalg.norm(off) / size)


def count_parameters(model: Scn, head: Any, rows: int) -> int:
    """Of the model and the head; only one layer of the model is made."""
    generator = torch.Generator()
    one = model.model_copy(update={"layers": 1}).init(generator, rows)
    shared = one.pop("embedding").numel()
    layer, read = (
        sum(value.numel() for value in part.values())
        for part in (one, head.init(generator, model.widths))
    )
    return shared + model.layers * layer + read


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_the_published_configurations(name) -> None:
    with np.load(ORACLES / "scn.npz") as archive:
        counts = dict(zip(archive["configurations"].tolist(), archive["counts"], strict=True))
    written = {"2M t1-b1": 123_561_474, "2M t4-b2": 126_710_274, "All+MD": 168_921_090}
    found = count_parameters(*published_scn(PUBLISHED[name]), rows=90)
    assert found == counts[name] == written[name]


@pytest.mark.slow
def test_the_frozen_values_are_what_the_package_says_today(tmp_path) -> None:
    """Runs the oracle in the environment whose Python SUREFOOT_FAIRCHEM names."""
    python = os.environ.get("SUREFOOT_FAIRCHEM")
    if python is None:
        pytest.skip("SUREFOOT_FAIRCHEM does not name a Python with fairchem-core 1.10.0.")
    target = tmp_path / "scn.npz"
    script = str(ORACLES / "scn_values.py")
    subprocess.run([python, script, str(target)], check=True, capture_output=True)
    with np.load(ORACLES / "scn.npz") as frozen, np.load(target) as live:
        assert set(frozen.files) == set(live.files)
        for key in frozen.files:
            if frozen[key].dtype.kind == "f":
                np.testing.assert_allclose(live[key], frozen[key], rtol=1e-9, atol=1e-12)
            elif key == "fairchem-core_version" or not key.endswith("_version"):
                # Names, shapes, options, elements; other packages may be newer.
                np.testing.assert_array_equal(live[key], frozen[key], err_msg=key)
