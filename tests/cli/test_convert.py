"""convert: files of mace-torch become potentials; anything else is refused in a sentence."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

ORACLES = Path(__file__).parents[1] / "science" / "oracles"
SMALL, HEADS = ORACLES / "mace_small.model", ORACLES / "mace_small_heads.model"


def stored(place: str) -> tuple[Atoms, dict[str, np.ndarray]]:
    """A structure of the oracle with mace-torch's values, and all of these.

    To be written as .traj: extended XYZ keeps eight digits of the positions, too few here.
    """
    with np.load(ORACLES / "mace.npz") as archive:
        values = {
            key.removeprefix(f"{place}/"): archive[key]
            for key in archive.files
            if key.startswith(f"{place}/")
        }
    atoms = Atoms(
        values["numbers"], positions=values["positions"], cell=values["cell"], pbc=values["pbc"]
    )
    atoms.calc = SinglePointCalculator(
        atoms, energy=float(values["energy"]), forces=values["forces"]
    )
    atoms.info |= {"charge": 0, "spin": 1}
    return atoms, values


def rewrite(source: Path, target: Path, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a file of torch.save with another pickle."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, change(content) if name.endswith("/data.pkl") else content)
    return target


class Evil:
    """An object whose pickle runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("structure", ["ethanol", "cell"])
@pytest.mark.parametrize(
    ("file", "options"), [(SMALL, ()), (HEADS, ("--head", "first"))], ids=["one", "heads"]
)
def test_converted_potentials_give_the_values_of_mace_torch(
    surefoot, tmp_path: Path, file: Path, options: tuple[str, ...], structure: str
) -> None:
    atoms, values = stored(f"{file.stem}/{structure}")
    potential, report = tmp_path / "new" / "p.safetensors", tmp_path / "r.json"
    done = surefoot("convert", file, "-o", potential, *options)
    for part in ("cutoff 4.5 Å", "elements H C O", "parameters; one set of weights"):
        assert part in done.stdout
    ase.io.write(tmp_path / "in.traj", atoms)
    surefoot("predict", potential, tmp_path / "in.traj", "-o", tmp_path / "out.xyz")
    result = ase.io.read(tmp_path / "out.xyz")
    assert result.get_potential_energy() == pytest.approx(float(values["energy"]), rel=1e-12)
    assert np.allclose(result.get_forces(), values["forces"], atol=1e-7)
    if "stress" in values:
        stress = result.get_stress(voigt=False)
        assert np.allclose(stress, values["stress"], rtol=1e-7, atol=1e-9)
    surefoot("evaluate", potential, tmp_path / "in.traj", "-o", report)
    accuracy = json.loads(report.read_text())["accuracy"]
    assert accuracy["energy"]["all"]["mae"] < 1e-6
    assert accuracy["forces"]["all"]["mae"] < 1e-6


def test_heads_are_told_apart(surefoot, tmp_path: Path) -> None:
    atoms, _ = stored("mace_small_heads/ethanol")
    ase.io.write(tmp_path / "in.traj", atoms)
    energies = []
    for head in ("first", "second"):
        potential = tmp_path / f"{head}.safetensors"
        surefoot("convert", HEADS, "-o", potential, "--head", head)
        surefoot("predict", potential, tmp_path / "in.traj", "-o", tmp_path / "out.xyz")
        energies.append(ase.io.read(tmp_path / "out.xyz").get_potential_energy())
    assert abs(energies[0] - energies[1]) > 0.1


def garbage(path: Path) -> None:
    path.write_bytes(b"hello, I am no model\n" * 10)


def script(path: Path) -> None:
    """What makes a file of torch.jit.save one: code beside the data."""
    torch.save({"a": torch.ones(2)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{path.stem}/code/__torch__/m.py", "class M: pass")


def potential_of_surefoot(path: Path) -> None:
    from surefoot.train.checkpoint import write_tree

    write_tree(path, "predictor", {"a": torch.ones(2)}, {})


def without_weights(path: Path) -> None:
    rewrite(SMALL, path, lambda program: program.replace(b"linear_up", b"linear_uq"))


def foreign_class(path: Path) -> None:
    name = b"RealAgnosticInteractionBlock"
    rewrite(SMALL, path, lambda program: program.replace(name, name[:-5] + b"Blokk"))


def truncated(path: Path) -> None:
    path.write_bytes(SMALL.read_bytes()[:50_000])


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "there is no such file"),
    "folder": (lambda path: path.mkdir(), "this is a folder"),
    "empty": (lambda path: path.touch(), "not a file of torch.save"),
    "text": (garbage, "not a file of torch.save"),
    "torchscript": (script, "a TorchScript archive"),
    "truncated": (truncated, "truncated or damaged"),
    "state dict": (
        lambda path: torch.save({"r_max": torch.ones(1)}, path),
        "holds a dict ('r_max'), such as weights without their model",
    ),
    "checkpoint of another program": (
        lambda path: torch.save({"state_dict": {}, "hyper_parameters": {}, "epoch": 3}, path),
        "holds a dict ('state_dict', 'hyper_parameters', 'epoch')",
    ),
    "another model": (
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        "holds torch.nn.modules.linear.Linear, not a model of mace-torch",
    ),
    "ours": (potential_of_surefoot, "potentials need no conversion"),
    "missing weights": (
        without_weights,
        "the weights interactions.0.linear_up.weight are missing; it is not a complete model",
    ),
    "another block": (foreign_class, "the block RealAgnosticInteractionBlokk (interactions.0)"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_refused(surefoot, tmp_path: Path, kind: str) -> None:
    make, expected = FOREIGN[kind]
    file, target = tmp_path / "f.model", tmp_path / "p.safetensors"
    make(file)
    done = surefoot("convert", file, "-o", target, check=False)
    assert done.returncode == 1
    assert expected in done.stderr
    assert done.stderr.startswith(f"surefoot: {file}: ")
    assert done.stderr.count("\n") == 1
    assert not target.exists()


def test_a_head_has_to_be_named_and_known(surefoot, tmp_path: Path) -> None:
    command = ("convert", HEADS, "-o", tmp_path / "p.safetensors")
    done = surefoot(*command, check=False)
    assert done.returncode == 1
    assert "the model has the heads first, second; name one (--head)" in done.stderr
    done = surefoot(*command, "--head", "third", check=False)
    assert done.returncode == 1
    assert "there is no head 'third'; the model has first, second" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_not_overwritten(surefoot, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    done = surefoot("convert", SMALL, "-o", tmp_path / "there", check=False)
    assert (done.returncode, (tmp_path / "there").read_text()) == (1, "mine")
    assert "is there already" in done.stderr
    done = surefoot("convert", SMALL, "-o", tmp_path / "there" / "p.safetensors", check=False)
    assert done.returncode == 1
    assert "is a file, not a folder" in done.stderr
    done = surefoot("convert", SMALL, "-o", tmp_path, check=False)
    assert done.returncode == 1
    assert "this is a folder; name a file" in done.stderr


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_unconverted_files_get_a_hint(surefoot, tmp_path: Path, verb: str) -> None:
    ase.io.write(tmp_path / "in.traj", stored("mace_small/ethanol")[0])
    done = surefoot(verb, SMALL, tmp_path / "in.traj", "-o", tmp_path / "o.xyz", check=False)
    assert done.returncode == 1
    assert "mace_small.model" in done.stderr
    assert "`surefoot convert` makes a potential of a model of mace-torch" in done.stderr


def test_nothing_in_a_file_is_executed(surefoot, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    command = f"touch {proof}"
    torch.save({"a": Evil(command)}, tmp_path / "evil.model")
    done = surefoot("convert", tmp_path / "evil.model", "-o", tmp_path / "p", check=False)
    assert (done.returncode, proof.exists()) == (1, False)
    torch.save(Evil(command), tmp_path / "evil.model")
    done = surefoot("convert", tmp_path / "evil.model", "-o", tmp_path / "p", check=False)
    assert (done.returncode, proof.exists()) == (1, False)
    assert "holds posix.system, not a model of mace-torch" in done.stderr
    # A good model whose pickle runs the command first: it is converted, and nothing has run.
    text = command.encode()
    call = b"cos\nsystem\nX" + len(text).to_bytes(4, "little") + text + b"\x85R0"
    evil = rewrite(SMALL, tmp_path / "model.model", lambda p: p[:2] + call + p[2:])
    surefoot("convert", evil, "-o", tmp_path / "p.safetensors")
    assert not proof.exists()
    # The usual reader does run it, so the test could fail.
    with pytest.raises(ModuleNotFoundError, match="mace"):
        torch.load(evil, weights_only=False)
    assert proof.exists()
