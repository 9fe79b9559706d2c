"""MACE with mace-torch's weights gives mace-torch's numbers (0.3.16, see oracles)."""

import functools
import json
import os
import runpy
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from surefoot.blocks.couplings import Irrep, Irreps, parse_irreps
from surefoot.blocks.dense import Weights, stack, under
from surefoot.blocks.reference import Baseline
from surefoot.blocks.repulsion import Repulsion
from surefoot.data.convert import to_graph
from surefoot.deploy.mace import read_mace
from surefoot.deploy.mace_weights import Order, Source, model_weights, readouts
from surefoot.deploy.records import UnreadableFile
from surefoot.models.mace import Mace
from surefoot.potential import Potential
from surefoot.prediction import Output

ORACLES = Path(__file__).parent / "oracles"
TOLERANCE = 1e-11  # relative to the largest value; the worst measured is 1e-13
SCALES = {"silu": 1.6791767923989418, "tanh": 1.5937334472592695, "none": 1.0}
"""How e3nn normalises activations: by 10^6 samples."""

CASES = (
    "scalar64/ethanol",
    "scalar64/atom",
    "scalar64/far",
    "vector64/amide",
    "vector64/far",
    "tensor128/ethanol",
    "carbide/sic",
    "alloy/cu",
    "elements/ten",
    "repulsion/ethanol",
    "repulsion/cell",
    "repulsion_plain/ethanol",
    "heads/amide",
    "heads/amide_second",
    "heads/atom_second",
    "density/ethanol",
    "density/far",
    "density/cell",
    "density_soft/amide",
    "density_plain/ethanol",
    "density_plain/far",
    "density_plain/cell",
    "gaussian/amide",
    "parities/amide",
    "parities/cell",
    "parities_cubic/ethanol",
    "single_layer/ethanol",
    "quartic/ethanol",
    "quartic_silu/ethanol",
    "octupoles/ethanol",
    "high_degrees/ethanol",
    "high_degrees/cell",
    "mace_small/ethanol",
    "mace_small/cell",
    "mace_small_heads/ethanol",
    "mace_small_heads/cell",
)
REFUSED = {"chebyshev": "radial_type"}
"""What is not built here: a model of the oracle → the option that the refusal names."""


@functools.cache
def archive() -> dict[str, np.ndarray]:
    with np.load(ORACLES / "mace.npz") as opened:
        return {key: opened[key] for key in opened.files}


@functools.cache
def rule() -> Any:
    """The oracle's own rule for filling weights."""
    return runpy.run_path(str(ORACLES / "mace_values.py"))["fill"]


@dataclass(frozen=True)
class Case:
    """One model of the oracle; everything is found in the archive."""

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        return json.loads(str(archive()["settings"]))[self.name]

    def their_weights(self) -> dict[str, torch.Tensor]:
        """mace-torch's parameters, filled by the rule and checked by their sums."""
        shapes = json.loads(str(archive()[f"{self.name}/shapes"]))
        names = archive()[f"{self.name}/parameters"].tolist()
        filled = {
            name: rule()(name, tuple(shape)) for name, shape in zip(names, shapes, strict=True)
        }
        sums = [values.sum() for values in filled.values()]
        np.testing.assert_allclose(sums, archive()[f"{self.name}/sums"], rtol=1e-12, atol=1e-11)
        for name, sha in json.loads(str(archive()[f"{self.name}/couplings"])).items():
            dense = np.zeros(archive()[f"U/{sha}/shape"])
            dense.flat[archive()[f"U/{sha}/index"]] = archive()[f"U/{sha}/values"]
            filled[name] = dense
        return {name: torch.tensor(values) for name, values in filled.items()}

    @property
    def model(self) -> Mace:
        theirs = self.settings
        return Mace(
            cutoff=theirs["r_max"],
            irreps=theirs["hidden_irreps"],
            max_ell=theirs["max_ell"],
            correlation=theirs["correlation"],
            interactions=theirs["num_interactions"],
            first="residual" if "Residual" in theirs["interaction_cls_first"] else "plain",
            normalisation="density" if "Density" in theirs["interaction_cls"] else "neighbors",
            transform=theirs["distance_transform"].lower(),
            envelope="basis" if theirs["apply_cutoff"] else "weights",
            basis=theirs["radial_type"],
            basis_size=theirs["num_bessel"],
            cutoff_power=theirs["num_polynomial_cutoff"],
            radial=tuple(theirs["radial_MLP"]),
        )

    def source(self, head: int) -> Source:
        theirs = self.settings
        # As written, which is not the order of ours.
        hidden = tuple(parse_irreps(part)[0][1] for part in theirs["hidden_irreps"].split("+"))
        scalars, last = (Irrep(0, 1),), theirs["num_interactions"] - 1
        return Source(
            tensors=self.their_weights(),
            orders=tuple(
                Order(
                    inputs=hidden if layer else scalars,
                    messages=their_messages(
                        theirs["max_ell"], layer > 0 and Irrep(0, -1) in hidden
                    ),
                    outputs=hidden if layer < last else scalars,
                )
                for layer in range(last + 1)
            ),
            species=torch.arange(len(theirs["atomic_numbers"])),
            head=head,
            heads=len(theirs["heads"]),
            silu=SCALES["silu"],
            gate=theirs["gate"].lower(),
            gate_scale=SCALES[theirs["gate"].lower()],
            rounding=1e-12,
        )

    def baseline(self, head: int) -> Baseline:
        theirs = self.settings
        shifted = theirs["kind"] == "ScaleShiftMACE"
        scale = of_head(theirs["atomic_inter_scale"], head) if shifted else 1.0
        shift = of_head(theirs["atomic_inter_shift"], head) if shifted else 0.0
        elements = theirs["atomic_numbers"]
        energies = [-float(z) - 0.1 * head + shift for z in elements]
        repulsion = None
        if theirs["pair_repulsion"]:
            power = theirs["num_polynomial_cutoff"]
            radii = tuple(RADII[z] for z in elements)
            repulsion = Repulsion(radii=radii, power=power, strength=scale)
        return Baseline(
            elements=tuple(elements),
            energies=tuple(energies),
            scale=scale,
            neighbors=theirs["avg_num_neighbors"],
            repulsion=repulsion,
        )

    def potential(self, head: int) -> tuple[Potential, Weights]:
        """Ours, with their weights."""
        source, model = self.source(head), self.model
        weights = under("model", model_weights(source, model))
        scalar, read = readouts(source, model)
        assert source.unread() == []
        return (
            Potential(model=model, head=scalar, baseline=self.baseline(head)),
            weights | under("head", read),
        )


RADII = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66}
"""Covalent radii in Å (Cordero et al. 2008)."""


def of_head(value: Any, head: int) -> float:
    return value[head] if isinstance(value, list) else value


def their_messages(max_ell: int, both: bool) -> Irreps:
    """By degree, odd parity before even."""
    return tuple(
        Irrep(degree, parity)
        for degree in range(max_ell + 1)
        for parity in (-1, 1)
        if both or parity == (-1) ** degree
    )


@dataclass(frozen=True)
class Values:
    """One structure of a case, with what mace-torch says of it."""

    place: str

    def __getitem__(self, key: str) -> np.ndarray:
        return archive()[f"{self.place}/{key}"]

    def __contains__(self, key: str) -> bool:
        return f"{self.place}/{key}" in archive()

    @property
    def case(self) -> Case:
        return Case(self.place.split("/")[0])

    @property
    def head(self) -> int:
        return int(self["head"])

    @property
    def atoms(self) -> Atoms:
        return Atoms(
            self["numbers"], positions=self["positions"], cell=self["cell"], pbc=self["pbc"]
        )


def error(found: Any, expected: np.ndarray) -> float:
    """Largest difference relative to the largest value; absolute where all are zero."""
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    size = np.abs(expected).max()
    return float(np.abs(found - expected).max() / (size if size > 0 else 1.0))


def errors(values: Values, output: Output) -> dict[str, float]:
    """Of energy, forces and stress, and of what is left of the energy without isolated atoms."""
    assert output.forces is not None
    found = {
        "energy": error(output.energy.mean[0], values["energy"]),
        "interaction": error(
            output.energy.mean.detach().numpy()[0] - values["e0"], values["energy"] - values["e0"]
        ),
        "forces": error(output.forces.mean, values["forces"]),
    }
    if output.stress is not None:
        found["stress"] = error(output.stress.mean[0], values["stress"])
    return found


@pytest.fixture(params=CASES)
def values(request: pytest.FixtureRequest) -> Values:
    return Values(request.param)


def test_every_model_is_under_test_or_refused() -> None:
    names = {case.split("/")[0] for case in CASES}
    assert names.isdisjoint(REFUSED)
    assert names | set(REFUSED) == set(json.loads(str(archive()["settings"])))


def test_energy_forces_and_stress(values) -> None:
    potential, weights = values.case.potential(values.head)
    graph = to_graph(values.atoms, potential.model.cutoff)
    assert graph.edge_index.shape[1] == int(values["pairs"])
    output = potential(weights, graph, stress="stress" in values)
    found = errors(values, output)
    assert max(found.values()) < TOLERANCE, found


def test_float32(values) -> None:
    """Nothing in our way of summing loses more digits than the numbers have."""
    potential, weights = values.case.potential(values.head)
    weights = {name: value.float() for name, value in weights.items()}
    output = potential(weights, to_graph(values.atoms, potential.model.cutoff))
    assert output.forces is not None
    size = max(float(np.abs(values["node_energy"]).sum()), 1.0)
    assert abs(float(output.energy.mean.detach()) - float(values["energy"])) < 1e-5 * size
    assert float(np.abs(output.forces.mean.detach().numpy() - values["forces"]).max()) < 1e-4 * size


def test_stacked(values) -> None:
    """Their weights as one of three members give the same."""
    potential, theirs = values.case.potential(values.head)
    others = [potential.init(seed, torch.float64) for seed in (1, 2)]
    members = stack([others[0], theirs, others[1]])
    output = potential(members, to_graph(values.atoms, potential.model.cutoff))
    assert output.forces is not None
    assert error(output.energy.mean[1], values["energy"]) < TOLERANCE
    assert error(output.forces.mean[1], values["forces"]) < TOLERANCE


@pytest.mark.parametrize("name", ["mace_small", "mace_small_heads"])
def test_a_file_gives_the_same_weights(name: str) -> None:
    """The file of a whole model, settings and all, is what the settings above are."""
    head = "first" if "heads" in name else None
    predictor = read_mace(ORACLES / f"{name}.model", head)
    potential, weights = Case(name).potential(0)
    assert predictor.potential.model == potential.model
    assert predictor.potential.head == potential.head
    assert predictor.potential.baseline == potential.baseline
    assert {n: w.shape for n, w in potential.init(0, torch.float64).items()} == {
        n: w.shape for n, w in weights.items()
    }
    for n, value in predictor.weights.items():
        torch.testing.assert_close(value[0], weights[n], rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with fresh values and whole models of mace-torch."""
    python = os.environ.get("SUREFOOT_MACE_PYTHON")
    if python is None:
        pytest.skip("SUREFOOT_MACE_PYTHON does not name a Python with mace-torch 0.3.16.")
    folder = tmp_path_factory.mktemp("mace")
    script = str(ORACLES / "mace_values.py")
    # mace-torch's e3nn loads its own constants with pickle, which torch allows only if told so.
    told = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "OMP_NUM_THREADS": "1"}
    command = [python, script, str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, env=told, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.slow
def test_the_frozen_values_are_what_mace_torch_says_today(live: Path) -> None:
    with np.load(live / "mace.npz") as fresh:
        assert set(fresh.files) == set(archive())
        for key, frozen in archive().items():
            if frozen.dtype.kind == "f":
                np.testing.assert_allclose(fresh[key], frozen, rtol=1e-9, atol=1e-11, err_msg=key)
            elif key != "versions":
                assert np.array_equal(fresh[key], frozen), key


@pytest.mark.slow
def test_whole_models_give_their_values(live: Path, values) -> None:
    """From torch.save(model) to energies, for every model."""
    head = values.case.settings["heads"][values.head]
    predictor = read_mace(live / f"{values.case.name}.model", head)
    weights = {name: value[0] for name, value in predictor.weights.items()}
    graph = to_graph(values.atoms, predictor.cutoff)
    found = errors(values, predictor.potential(weights, graph, stress="stress" in values))
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_built_is_refused(live: Path, name: str) -> None:
    with pytest.raises(UnreadableFile, match=rf"{name}\.model: .*{REFUSED[name]}"):
        read_mace(live / f"{name}.model")
