"""A mean-variance potential from template to prediction: its parts of the variance everywhere."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml

from surefoot.calculator import SurefootCalculator
from surefoot.cli.config import Config, load_config
from surefoot.cli.recipes import recipe
from surefoot.models import MODELS
from surefoot.posteriors.predictor import load_predictor

SHORT = (
    *("--set", "train.epochs=3", "--set", "train.precision=float64"),
    *("--set", "model.features=8", "--set", "model.interactions=1"),
)


@pytest.fixture(scope="module")
def config(folder: Path, surefoot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as it is written."""
    config = tmp_path_factory.mktemp("variances") / "c.yaml"
    surefoot("template", folder / "train.xyz", "--head", "mean_variance", "-o", config)
    return config


@pytest.fixture(scope="module")
def judged(config: Path, surefoot) -> Path:
    """Two members of that config."""
    run = config.parent / "two"
    members = ("--set", "posterior.members=2", "--set", "posterior.left_out=0")
    frames = ("--set", "data.valid=0.2")
    surefoot("train", config, "-o", run, *SHORT, *members, *frames)
    return run / "potential.safetensors"


@pytest.mark.parametrize("model", sorted(MODELS))
def test_template_of_the_head_is_its_recipe(surefoot, tmp_path: Path, model: str) -> None:
    path = tmp_path / "c.yaml"
    surefoot("template", "--model", model, "-o", path)  # the head it begins with
    expected = recipe(model, "mean_variance")
    expected["model"] = {"name": model, **expected.get("model", {})}
    expected["head"] = {"energy": "mean_variance", **expected.get("head", {})}
    expected["data"] = {"train": ["train.xyz"], **expected.get("data", {})}
    assert load_config(path) == Config.model_validate(expected)
    assert yaml.safe_load(path.read_text())["loss"]["forces_rule"] == "nll"


def test_template_of_an_unknown_head(surefoot) -> None:
    done = surefoot("template", "--head", "meanvariance", check=False)
    assert done.returncode == 1
    assert "--head meanvariance: not known; there is" in done.stderr


def test_a_loss_that_does_not_go_with_the_head_is_one_sentence(
    surefoot, folder: Path, tmp_path: Path
) -> None:
    done = surefoot(
        *("train", folder / "config.yaml", "-o", tmp_path / "refused"),
        *("--set", "head.energy=mean_variance"),
        check=False,
    )
    assert done.returncode == 1
    assert "would leave its error bars at their first guess" in done.stderr
    assert "set energy_rule to nll, beta_nll" in done.stderr


def test_predict_writes_both_parts(surefoot, judged: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "judged.xyz"
    surefoot("predict", judged, folder / "test.xyz", "-o", output)
    for atoms in ase.io.read(output, ":"):
        noise, spread = atoms.info["energy_aleatoric"], atoms.info["energy_epistemic"]
        assert noise > 0
        assert atoms.info["energy_uncertainty"] == pytest.approx(np.hypot(noise, spread), rel=1e-6)
        noise, spread = atoms.arrays["forces_aleatoric"], atoms.arrays["forces_epistemic"]
        assert noise.shape == (4, 3)
        total = atoms.arrays["forces_uncertainty"]
        assert np.allclose(total, np.hypot(noise, spread), rtol=1e-5)
        norm = atoms.arrays["forces_uncertainty_norm"]
        assert np.allclose(norm, np.linalg.norm(total, axis=1), rtol=1e-5)


def test_evaluate_scores_it(surefoot, judged: Path, folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "judged.json"
    surefoot("evaluate", judged, folder / "test.xyz", "-o", report)
    scores = json.loads(report.read_text())["uncertainty"]
    assert {"energy", "forces"} <= scores.keys()


def test_calculator_tells_both_parts(judged: Path, folder: Path) -> None:
    atoms = ase.io.read(folder / "test.xyz", 0)
    atoms.calc = SurefootCalculator(load_predictor(judged))
    atoms.get_forces()
    assert atoms.calc.results["forces_aleatoric"].shape == (4, 3)
    assert atoms.calc.results["energy_aleatoric"] > 0


def test_one_set_of_weights_has_error_bars(
    surefoot, config: Path, folder: Path, tmp_path: Path
) -> None:
    single = ("--set", "posterior.members=1", "--set", "posterior.left_out=0")
    frames = ("--set", "data.valid=0.3")
    surefoot("train", config, "-o", tmp_path / "one", *SHORT, *single, *frames)
    output = tmp_path / "one.xyz"
    surefoot(
        "predict", tmp_path / "one" / "potential.safetensors", folder / "test.xyz", "-o", output
    )
    atoms = ase.io.read(output, 0)
    assert "energy_epistemic" not in atoms.info
    assert atoms.info["energy_uncertainty"] == atoms.info["energy_aleatoric"] > 0
