"""Histograms from the command line: of the errors of a trained potential, and of energies."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch

from surefoot.cli.config import load_config
from surefoot.heads import HEADS
from surefoot.posteriors.predictor import load_predictor

PLAIN = """
data: {{train: [{train}]}}
model: {{features: 8, interactions: 2, gaussians: 10, activation: silu}}
train: {{epochs: 3, batch: {{graphs: 8}}, precision: float64, learning_rate: 0.01}}
posterior: {{members: 1, left_out: 0}}
"""
JUDGES = """
head: {{energy: histogram, system_bins: 8, atom_bins: 16, width: 8}}
loss: {{energy_rule: cross_entropy, forces_rule: cross_entropy}}
start: {{potential: {potential}, learn: judges}}
"""


@pytest.fixture(scope="module")
def plain(folder: Path, surefoot) -> Path:
    """One set of weights with a scalar head that has learned from the few frames of test.xyz."""
    (folder / "plain.yaml").write_text(PLAIN.format(train=folder / "test.xyz"))
    surefoot("train", folder / "plain.yaml", "-o", folder / "plain")
    return folder / "plain" / "potential.safetensors"


def judges(folder: Path, plain: Path, name: str) -> Path:
    """A config that judges the errors on train.xyz."""
    config = folder / f"{name}.yaml"
    text = PLAIN.format(train=folder / "train.xyz") + JUDGES.format(potential=plain)
    config.write_text(text)
    return config


def test_errors_are_judged_and_nothing_else_changes(surefoot, folder: Path, plain: Path) -> None:
    config = judges(folder, plain, "judged")
    done = surefoot("train", config, "-o", folder / "judged", "--set", "data.valid=0.25")
    assert "bins: errors of energies to" in done.stdout
    judged = folder / "judged" / "potential.safetensors"
    before, after = load_predictor(plain), load_predictor(judged)
    for name, value in before.weights.items():
        assert torch.equal(after.weights[name], value)
    assert after.potential.head.measured is not None
    for file in (plain, judged):
        surefoot("predict", file, folder / "test.xyz", "-o", folder / f"{file.parent.name}.xyz")
    one, other = (ase.io.read(folder / f"{name}.xyz", ":") for name in ("plain", "judged"))
    for frame, same in zip(one, other, strict=True):
        assert frame.get_potential_energy() == same.get_potential_energy()
        assert np.array_equal(frame.get_forces(), same.get_forces())
        assert "forces_error" not in frame.arrays
        error, beyond = same.arrays["forces_error"], same.arrays["forces_error_q95"]
        assert error.shape == (4,)
        assert (beyond > error).all()
        assert (error > 0).all()
        assert same.info["energy_uncertainty"] > 0


def test_what_can_not_be_judged_is_one_sentence(surefoot, folder: Path, plain: Path) -> None:
    config = judges(folder, plain, "wrong")
    cases = {
        "head.system_bins=64": "40 held-out residuals of energies are too few for 64 bins",
        "loss.energy_rule=squared": "set energy_rule to cross_entropy",
        "start={}": "learn: judges",
    }
    for change, sentence in cases.items():
        done = surefoot("train", config, "-o", folder / "no", "--set", change, check=False)
        assert done.returncode == 1
        assert sentence in " ".join(done.stderr.split())


@pytest.mark.parametrize("design", ["A", "B"])
def test_energies_as_histograms(surefoot, folder: Path, tmp_path: Path, design: str) -> None:
    (tmp_path / "config.yaml").write_text(PLAIN.format(train=folder / "train.xyz"))
    head = f"head={{energy: categorical, design: {design}, bins: 24, width: 8}}"
    done = surefoot(
        "train",
        tmp_path / "config.yaml",
        "-o",
        tmp_path / "run",
        *("--set", head, "--set", "loss.energy_rule=cross_entropy", "--set", "data.valid=0.25"),
    )
    assert "% of the labels outside" in " ".join(done.stdout.split())
    predictor = load_predictor(tmp_path / "run" / "potential.safetensors")
    assert predictor.potential.head.measured.values.count == 24
    narrow = surefoot(
        *("train", tmp_path / "config.yaml", "-o", tmp_path / "no"),
        *("--set", head, "--set", "loss.energy_rule=cross_entropy"),
        *("--set", "head.range=[0.0, 0.01]"),
        check=False,
    )
    assert narrow.returncode == 1
    assert "do not cover the energies per atom" in " ".join(narrow.stderr.split())


def test_forces_that_are_no_gradient_are_shown_for_what_they_are(
    surefoot, folder: Path, plain: Path, tmp_path: Path
) -> None:
    """In the laboratory's frame, in an atom's own, and beside those of a potential."""
    (tmp_path / "config.yaml").write_text(PLAIN.format(train=folder / "train.xyz"))
    files = []
    rules = ("--set", "loss.energy_rule=cross_entropy", "--set", "loss.forces_rule=cross_entropy")
    for forces in ("direct_lab", "direct_frame"):
        head = f"head={{energy: categorical, bins: 24, width: 8, forces: {forces}}}"
        run = tmp_path / forces
        surefoot("train", tmp_path / "config.yaml", "-o", run, "--set", head, *rules)
        files.append(run / "potential.safetensors")
    done = surefoot("evaluate", files[0], folder / "test.xyz", "-o", tmp_path / "e.json")
    assert "Forces that are no gradient (direct_lab)" in " ".join(done.stdout.split())
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["direct_forces"]["structures"] == 5
    assert report["direct_forces"]["jacobian_asymmetry"] > 1e-3
    assert {"relative entropy", "s_H"} < set(report["histograms"]["force component"]["ranking"])
    surefoot("compare", *files, plain, folder / "test.xyz", "-o", tmp_path / "report")
    found = json.loads((tmp_path / "report" / "report.json").read_text())["potentials"]
    lab, own, gradient = (one["direct_forces"] for one in found.values())
    assert gradient["rotation_error"] < 1e-5
    assert gradient["jacobian_asymmetry"] < 1e-3
    assert lab["rotation_error"] > 0.05
    assert own["rotation_error"] < 1e-5
    assert "rotation error" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize("head", HEADS)
def test_the_template_of_every_head_is_a_config(surefoot, tmp_path: Path, head: str) -> None:
    surefoot("template", "--head", head, "-o", tmp_path / "config.yaml")
    config = load_config(tmp_path / "config.yaml")
    assert config.head.energy == head
    for quantity, rules in config.head.rules.items():
        assert getattr(config.loss, f"{quantity}_rule") in rules
