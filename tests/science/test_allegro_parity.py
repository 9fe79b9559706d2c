"""Allegro with nequip-allegro's weights gives nequip-allegro's numbers (0.8.3, see oracles)."""

import json
import os
import runpy
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from surefoot.blocks.dense import SILU_SCALE, Weights, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.heads.scalar import Scalar
from surefoot.models.allegro import Allegro
from surefoot.potential import Potential
from surefoot.segments import segment_sum

ORACLES = Path(__file__).parent / "oracles"
TOLERANCE = 1e-12  # relative to the largest value
CASES = (
    "scalars only",
    "one layer",
    "natural",
    "two layers",
    "sheared",
    "sheared natural",
    "degree three",
    "ten elements",
    "linear",
)
NETWORKS = {
    "radial_chemical_embed.type_embed.basis_linear": "radial",
    "scalar_embed_mlp.mlp_module": "embed",
    "tensor_embed.env_embed_linear": "tensor",
    "allegro.first_layer_env_embed_projection": "first",
}


class Case:
    """One frozen case: structure, settings, weights and values."""

    def __init__(self, name: str) -> None:
        with np.load(ORACLES / "allegro.npz") as archive:
            prefix = name + "/"
            self.values = {
                key.removeprefix(prefix): archive[key]
                for key in archive.files
                if key.startswith(prefix)
            }
        self.settings: dict[str, Any] = json.loads(str(self["settings"]))

    def __getitem__(self, key: str) -> np.ndarray:
        return self.values[key]

    @property
    def atoms(self) -> Atoms:
        return Atoms(
            self["numbers"], positions=self["positions"], cell=self["cell"], pbc=self["pbc"]
        )

    @property
    def model(self) -> Allegro:
        same = ("cutoff", "lmax", "layers", "scalars", "tensors", "embedding", "bessels", "power")
        same += ("embed_depth", "embed_width", "latent_depth", "latent_width")
        parity = "full" if self.settings["parity"] else "natural"
        return Allegro.model_validate(
            {name: self.settings[name] for name in same} | {"parity": parity}
        )

    @property
    def potential(self) -> Potential:
        elements = tuple(self["elements"].tolist())
        head = Scalar(hidden=self.settings["readout_width"], activation="silu", scaling="normal")
        baseline = Baseline(
            elements=elements,
            energies=(0.0,) * len(elements),
            scale=1.0,
            neighbors=self.settings["neighbors"],
        )
        return Potential(model=self.model, head=head, baseline=baseline)

    def their_weights(self) -> dict[str, np.ndarray]:
        """nequip-allegro's parameters, rebuilt by the oracle's own rule, checked by their sums."""
        fill = runpy.run_path(str(ORACLES / "allegro_values.py"))["fill_parameters"]
        shapes = [tuple(int(n) for n in row if n > 0) for row in self["parameter_shapes"]]
        filled = fill(self["parameter_names"].tolist(), shapes, int(self.settings["seed"]))
        sums = [values.sum() for values in filled.values()]
        np.testing.assert_allclose(sums, self["parameter_sums"], rtol=1e-12, atol=1e-12)
        return {name.split("model.func.", 1)[1]: values for name, values in filled.items()}

    def weights(self) -> Weights:
        """Ours, from theirs."""
        theirs, model = self.their_weights(), self.model
        embed = "radial_chemical_embed.type_embed.{}_embed.weight"
        tables = [theirs.pop(embed.format(atom)) for atom in ("center", "neighbor")]
        found = {"model.embedding": np.concatenate(tables, axis=1)}
        for name, values in theirs.items():
            module, _, place = name.partition(".mlp.")
            step = int(place.partition(".")[0] or 0) // 2  # theirs counts activations too
            if module.startswith("edge_readout"):
                part, scale = (("hidden", 1.0), ("out", np.sqrt(2)))[step]
                found[f"head.layer0.{part}.weight"] = values * scale
                found[f"head.layer0.{part}.bias"] = np.zeros(values.shape[1])
            elif module.startswith("allegro.tps"):
                layer = int(module.split(".")[2])
                found[f"model.layer{layer}.paths"] = our_paths(values, model, layer)
            else:
                ours = NETWORKS.get(module, f"layer{module[-1]}.latent")
                found[f"model.{ours}.layer{step}"] = our_matrix(values, model, ours, step)
        return {name: torch.tensor(values) for name, values in found.items()}


def our_matrix(values: np.ndarray, model: Allegro, network: str, step: int) -> np.ndarray:
    """A matrix of a network; theirs scales an activation by √2, ours to unit variance."""
    if step > 0:
        values = values * np.sqrt(2) / SILU_SCALE
    depth = 0 if network in ("tensor", "first") else model.latent_depth
    last_layer = network == f"layer{model.layers - 1}.latent"
    if network in ("radial", "embed") or step < depth or last_layer:
        return values
    return our_outputs(values, model, 0 if network == "tensor" else model.scalars)


def our_outputs(values: np.ndarray, model: Allegro, scalars: int) -> np.ndarray:
    """Behind the scalars come weights by channel and degree; here by degree and channel."""
    theirs = values[:, scalars:].reshape(-1, model.tensors, model.lmax + 1)
    ours = theirs.transpose(0, 2, 1).reshape(len(values), -1)
    return np.concatenate([values[:, :scalars], ours], axis=1)


def our_paths(values: np.ndarray, model: Allegro, layer: int) -> np.ndarray:
    """Theirs (channels, paths) go by degree, even parity first; ours natural parity first."""
    coupling = model.couplings[layer]

    def their_place(path: tuple[int, int, int]) -> list[tuple[int, int]]:
        a, b, c = path
        irreps = coupling.outputs[c], coupling.inputs[a], coupling.environment[b]
        return [(irrep.degree, -irrep.parity) for irrep in irreps]

    order = sorted(range(len(coupling.paths)), key=lambda n: their_place(coupling.paths[n]))
    values = values.reshape(model.tensors, -1)
    assert values.shape[1] == len(order)
    ours = np.zeros((len(order), model.tensors))
    ours[order] = values.T
    return ours


def error(found: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference relative to the largest value."""
    return float(np.abs(found.detach().numpy() - expected).max() / np.abs(expected).max())


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_every_case_is_under_test() -> None:
    with np.load(ORACLES / "allegro.npz") as archive:
        assert tuple(archive["cases"].tolist()) == CASES


def test_every_weight_has_its_place(case) -> None:
    """Their read-out has no biases; otherwise there are as many parameters here as there."""
    ours = case.potential.init(0, torch.float64)
    theirs = case.weights()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}
    extra = sum(value.numel() for name, value in ours.items() if name.endswith("bias"))
    count = sum(values.size for values in case.their_weights().values())
    assert sum(value.numel() for value in ours.values()) == count + extra


def test_energy_forces_and_stress(case) -> None:
    graph = to_graph(case.atoms, case.model.cutoff)
    assert graph.edge_index.shape[1] == int(case["edges"])
    periodic = "stress" in case.values
    potential, weights = case.potential, case.weights()
    output = potential(weights, graph, stress=periodic)
    assert output.forces is not None
    rows = output.features.layers[0]
    assert rows.weight is not None
    assert rows.atom is not None
    head = {name.removeprefix("head."): value for name, value in weights.items()}
    assert isinstance(potential.head, Scalar)
    out = head["layer0.out.weight"] / len(head["layer0.out.weight"]) ** 0.5
    energies = potential.head.basis(head, rows, 0) @ out
    atomic = segment_sum(energies * rows.weight[:, None], rows.atom)[:, 0]
    errors = {
        "energy": error(output.energy.mean, case["energy"]),
        "atomic energies": error(atomic, case["atomic_energies"]),
        "forces": error(output.forces.mean, case["forces"]),
        "scalars": error(torch.linalg.vector_norm(rows.values), case["edge_norm"]),
        "edge energies": error(torch.linalg.vector_norm(energies), case["edge_energy"]),
    }
    if output.stress is not None:
        errors["stress"] = error(output.stress.mean[0], case["stress"])
    assert max(errors.values()) < TOLERANCE, errors


def test_stacked(case) -> None:
    """Their weights as one of three members give the same."""
    potential, theirs = case.potential, case.weights()
    others = [potential.init(seed, torch.float64) for seed in (1, 2)]
    members = stack([others[0], theirs, others[1]])
    output = potential(members, to_graph(case.atoms, case.model.cutoff))
    assert output.forces is not None
    assert error(output.forces.mean[1], case["forces"]) < TOLERANCE


@pytest.mark.slow
def test_the_frozen_values_are_what_the_package_says_today(tmp_path) -> None:
    """Runs the oracle in the environment whose Python SUREFOOT_NEQUIP names."""
    python = os.environ.get("SUREFOOT_NEQUIP")
    if python is None:
        pytest.skip("SUREFOOT_NEQUIP does not name a Python with nequip-allegro 0.8.3.")
    target = tmp_path / "allegro.npz"
    script = str(ORACLES / "allegro_values.py")
    done = subprocess.run(
        [python, script, str(target)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(ORACLES / "allegro.npz") as frozen, np.load(target) as live:
        assert set(frozen.files) == set(live.files)
        for key in frozen.files:
            if frozen[key].dtype.kind == "f":
                np.testing.assert_allclose(live[key], frozen[key], rtol=1e-9, atol=1e-12)
            else:
                np.testing.assert_array_equal(live[key], frozen[key])
