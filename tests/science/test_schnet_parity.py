"""SchNet with SchNetPack's weights gives SchNetPack's numbers (2.1.1, see oracles)."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from surefoot.blocks.dense import Weights
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential

ORACLES = Path(__file__).parent / "oracles"
TOLERANCE = 1e-11  # relative to the largest value; measured up to 2e-15, for the energy 5e-14
LAYERS = {
    "filter_network.0": "filter1",
    "filter_network.1": "filter2",
    "in2f": "input",
    "f2out.0": "output1",
    "f2out.1": "output2",
}


class Case:
    """One frozen case: structure, settings, weights and values."""

    def __init__(self, name: str) -> None:
        with np.load(ORACLES / "schnetpack.npz") as archive:
            prefix = name + "/"
            self.values = {
                key.removeprefix(prefix): archive[key]
                for key in archive.files
                if key.startswith(prefix)
            }

    def __getitem__(self, key: str) -> np.ndarray:
        return self.values[key]

    @property
    def atoms(self) -> Atoms:
        return Atoms(
            self["numbers"], positions=self["positions"], cell=self["cell"], pbc=self["pbc"]
        )

    @property
    def potential(self) -> Potential:
        elements = tuple(sorted(set(self["numbers"].tolist())))
        model = Schnet(
            name="schnet",
            cutoff=float(self["cutoff"]),
            features=int(self["features"]),
            interactions=int(self["interactions"]),
            gaussians=int(self["gaussians"]),
        )
        baseline = Baseline(
            elements=elements, energies=(0.0,) * len(elements), scale=1.0, neighbors=1.0
        )
        head = Scalar.model_validate({"activation": str(self["activation"])})
        return Potential(model=model, head=head, baseline=baseline)

    def their_weights(self) -> dict[str, np.ndarray]:
        """SchNetPack's parameters, rebuilt by the oracle's own rule and checked by their sums."""
        fill = runpy.run_path(str(ORACLES / "schnetpack_values.py"))["fill_parameters"]
        shapes = [tuple(int(n) for n in row if n > 0) for row in self["parameter_shapes"]]
        filled = fill(self["parameter_names"].tolist(), shapes, int(self["seed"]))
        sums = [values.sum() for values in filled.values()]
        np.testing.assert_allclose(sums, self["parameter_sums"], rtol=1e-12, atol=1e-12)
        return filled

    def weights(self) -> Weights:
        """Ours: elements in a compact table, matrices input first."""
        theirs = self.their_weights()
        elements = list(self.potential.baseline.elements)
        found = {"model.embedding": theirs.pop("representation.embedding.weight")[elements]}
        for name, values in theirs.items():
            layer, kind = name.rsplit(".", 1)
            found[f"{our_layer(layer)}.{kind}"] = values.T
        return {name: torch.tensor(values) for name, values in found.items()}


def our_layer(theirs: str) -> str:
    """The name we have for a layer of theirs."""
    readout = {"0": "hidden", "1": "out"}
    if theirs.startswith("output_modules"):
        return f"head.layer0.{readout[theirs.rsplit('.', 1)[1]]}"
    _, _, block, layer = theirs.split(".", 3)
    return f"model.interaction{block}.{LAYERS[layer]}"


def error(found: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference relative to the largest value."""
    return float(np.abs(found.detach().numpy() - expected).max() / np.abs(expected).max())


@pytest.fixture(params=["ethanol", "paper", "sheared", "silu"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_every_weight_has_its_place(case) -> None:
    ours = case.potential.init(0, torch.float64)
    theirs = case.weights()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_energy_forces_and_stress(case) -> None:
    graph = to_graph(case.atoms, float(case["cutoff"]))
    assert graph.edge_index.shape[1] == int(case["pairs"])
    periodic = "stress" in case.values
    output = case.potential(case.weights(), graph, stress=periodic)
    assert output.forces is not None
    errors = {
        "energy": error(output.energy.mean, case["energy"]),
        "forces": error(output.forces.mean, case["forces"]),
        "representation": error(output.features.layers[0].values, case["representation"]),
    }
    if output.stress is not None:
        errors["stress"] = error(output.stress.mean[0], case["stress"])
    assert max(errors.values()) < TOLERANCE, errors


def test_float32(case) -> None:
    graph = to_graph(case.atoms, float(case["cutoff"]))
    weights = {name: value.float() for name, value in case.weights().items()}
    output = case.potential(weights, graph)
    assert output.forces is not None
    # Atomic energies of both signs cancel, so the sum is judged by their sizes.
    size = np.abs(case["atomic_energies"]).sum()
    assert abs(float(output.energy.mean.detach()) - float(case["energy"])) < 1e-6 * size
    assert error(output.forces.mean, case["forces"]) < 1e-5
