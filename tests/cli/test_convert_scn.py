"""convert: checkpoints of fairchem-core's SCN become potentials; others are refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase.build import add_adsorbate, fcc111

from surefoot.data.convert import to_graph
from surefoot.deploy.scn import build_scn, their_shapes
from surefoot.posteriors.predictor import load_predictor

OPTIONS: dict[str, Any] = {
    "num_interactions": 1,
    "lmax": 2,
    "num_taps": 4,
    "sphere_channels": 3,
    "sphere_channels_reduce": 3,
    "hidden_channels": 8,
    "num_basis_functions": 5,
    "distance_resolution": 0.5,
    "cutoff": 4.0,
    "max_num_elements": 10,
    "num_sphere_samples": 16,
    "max_num_neighbors": 20,
}


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = their_shapes(OPTIONS)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(path: Path, **changes: Any) -> None:
    config = {"model": {"name": "scn", **OPTIONS}}
    torch.save({"state_dict": weights(), "config": config} | changes, path)


def test_a_checkpoint_becomes_a_potential(surefoot, tmp_path: Path, small_structures) -> None:
    file, potential = tmp_path / "best_checkpoint.pt", tmp_path / "p.safetensors"
    write(file)
    done = surefoot("convert", file, "-o", potential)
    assert "SCN layers 1, lmax 2, mmax 1, channels 3, taps 4, bands 1, cutoff 4 Å" in done.stdout
    assert "elements H He Li Be B C N O F;" in done.stdout
    graph = to_graph(small_structures["slab"], 4.0)
    found, expected = load_predictor(potential)(graph), build_scn(weights(), OPTIONS)(graph)
    assert torch.equal(found.energy.mean, expected.energy.mean)
    assert found.forces is not None
    assert expected.forces is not None
    assert torch.equal(found.forces.mean, expected.forces.mean)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, surefoot) -> Path:
    """A small potential in the published form."""
    folder = tmp_path_factory.mktemp("published")
    write(folder / "c.pt")
    surefoot("convert", folder / "c.pt", "-o", folder / "p.safetensors")
    return folder / "p.safetensors"


def slabs(path: Path) -> Path:
    """Two periodic slabs of elements that the potential knows."""
    images = []
    for number in range(2):
        atoms = fcc111("C", (1, 1, 3), a=3.6, vacuum=5.0, periodic=True)
        add_adsorbate(atoms, "O", 1.4, "fcc")
        atoms.rattle(0.05, seed=number)
        atoms.info = {"sid": number, "fid": 7}
        images.append(atoms)
    ase.io.write(path, images)
    return path


def test_periodic_slabs_from_prediction_to_submission(published, surefoot, tmp_path) -> None:
    """Without a stress, which direct forces do not have."""
    predicted, submission = tmp_path / "p.extxyz", tmp_path / "s2ef.npz"
    surefoot("predict", published, slabs(tmp_path / "slabs.extxyz"), "-o", predicted)
    images = ase.io.read(predicted, ":")
    assert isinstance(images, list)
    assert [set(atoms.calc.results) for atoms in images] == [{"energy", "forces"}] * 2
    surefoot("oc20", "submit", "--task", "s2ef", "--id", predicted, "-o", submission)
    with np.load(submission) as arrays:
        assert arrays["id_ids"].tolist() == ["0_7", "1_7"]
        assert arrays["id_forces"].shape == (8, 3)
        expected = [float(load_predictor(published)(to_graph(a, 4.0)).energy.mean) for a in images]
        assert arrays["id_energy"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "options", [("relax", "--cell", "free"), ("md", "--ensemble", "npt", "-T", 300)], ids=str
)
def test_what_needs_a_stress_is_refused(options, published, surefoot, tmp_path) -> None:
    verb, *rest = options
    output = tmp_path / ("relaxed.xyz" if verb == "relax" else "run")
    start = slabs(tmp_path / "slabs.extxyz")
    done = surefoot(verb, published, start, "-o", output, *rest, check=False)
    assert done.returncode == 1
    assert "are direct and no slope of its energy, so there is no stress" in done.stderr
    assert not output.exists()


class Evil:
    """An object whose pickle runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (self.command,)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"config": {"model": {"name": "gemnet_oc"}}}, (), "of the model 'gemnet_oc'; scn is read"),
        ({"state_dict": {}}, (), "are missing; the options ask for them"),
        ({}, ("--head", "first"), "an SCN has no heads to choose from"),
    ],
    ids=["another model", "no weights", "a head"],
)
def test_others_are_refused(surefoot, tmp_path: Path, changes, options, message) -> None:
    file, target = tmp_path / "c.pt", tmp_path / "p.safetensors"
    write(file, **changes)
    done = surefoot("convert", file, "-o", target, *options, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith(f"surefoot: {file}: ")
    assert done.stderr.count("\n") == 1
    assert not target.exists()


def test_nothing_in_a_checkpoint_is_executed(surefoot, tmp_path: Path) -> None:
    """What a checkpoint carries beside its weights is not looked at."""
    file, proof = tmp_path / "c.pt", tmp_path / "proof"
    write(file, optimizer=Evil(f"touch {proof}"))
    surefoot("convert", file, "-o", tmp_path / "p.safetensors", check=False)
    assert not proof.exists()
    torch.load(file, weights_only=False)
    assert proof.exists()
