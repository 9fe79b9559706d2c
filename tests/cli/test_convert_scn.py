"""convert: checkpoints of fairchem-core's SCN become potentials; others are refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

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
