"""Posteriors from the command line: trained, or made afterwards of a trained potential."""

from pathlib import Path

import pytest
import torch
import yaml
from ase.io import read

from surefoot.cli.commented import write_template
from surefoot.cli.config import load_config
from surefoot.cli.screen import UserError
from surefoot.data.convert import to_graph
from surefoot.posteriors import METHODS
from surefoot.posteriors.predictor import load_predictor

HELD_OUT = ["--set", "data.valid=0.4"]


@pytest.fixture(scope="module")
def single(folder: Path, surefoot) -> Path:
    """One set of weights: a file that says nothing of its error."""
    one = ["--set", "posterior.members=1", "--set", "posterior.left_out=0"]
    surefoot("train", folder / "config.yaml", "-o", folder / "single", *HELD_OUT, *one)
    return folder / "single" / "potential.safetensors"


def begin_from(single: Path, learn: str, **sections: object) -> str:
    """A config that takes model and head from a file."""
    content = {
        "data": {"train": [str(single.parents[1] / "train.xyz")], "valid": 0.4},
        "train": {"epochs": 5, "precision": "float64", "learning_rate": 0.01},
        "posterior": {"members": 1, "left_out": 0},
        "start": {"potential": str(single), "learn": learn},
    }
    return yaml.safe_dump(content | sections)


AFTERWARDS = {
    "laplace": ("nothing", {"posterior": {"name": "laplace", "draws": 3}}),
    "shallow": ("heads", {"posterior": {"name": "shallow", "members": 3}}),
    "swag": ("everything", {"posterior": {"name": "swag", "start": 0.3, "draws": 3}}),
}


@pytest.mark.parametrize("name", AFTERWARDS)
def test_error_bars_for_a_trained_potential(name, single, surefoot, tmp_path) -> None:
    learn, sections = AFTERWARDS[name]
    (tmp_path / "c.yaml").write_text(begin_from(single, learn, **sections))
    done = surefoot("train", tmp_path / "c.yaml", "-o", tmp_path / "run")
    assert "set aside" in done.stdout
    before = load_predictor(single)
    after = load_predictor(tmp_path / "run" / "potential.safetensors")
    assert after.posterior.name == name
    assert after.draws == 3
    assert after.potential.model == before.potential.model
    graph = to_graph(read(single.parents[1] / "test.xyz", 0), after.cutoff)
    one, other = before(graph), after(graph)
    assert one.energy.total is None
    assert float(other.energy.total) > 0
    assert float(other.forces.total.diagonal(dim1=-2, dim2=-1).min()) > 0
    if learn == "nothing":
        torch.testing.assert_close(one.energy.mean, other.energy.mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(one.forces.mean, other.forces.mean, rtol=1e-9, atol=1e-12)
    assert (tmp_path / "run" / "log.csv").exists() == (learn != "nothing")


def test_sections_that_differ_from_the_file_are_refused(single, surefoot, tmp_path) -> None:
    (tmp_path / "c.yaml").write_text(begin_from(single, "nothing", model={"features": 9}))
    done = surefoot("train", tmp_path / "c.yaml", "-o", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert "leave out the section `model`" in done.stderr


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("posterior: {name: dropout}", ["'dropout' is not known", *METHODS]),
        ("posterior: {name: swag, ranks: 3}", ["posterior.ranks", "rank"]),
        ("posterior: {name: swag, start: 1.5}", ["posterior", "start", "less than 1"]),
        ("posterior: {name: shallow, members: 2, left_out: 2}", ["learn from nothing"]),
        ("start: {learn: judges}", ["start", "name the file of a trained potential"]),
        ("start: {potential: a, lear: judges}", ["start.lear", "learn"]),
    ],
)
def test_mistakes_are_named(text, parts, tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"data: {{train: [a]}}\n{text}")
    with pytest.raises(UserError) as caught:
        load_config(path)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_every_posterior_is_chosen_by_its_name(name, tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"data: {{train: [a]}}\nposterior: {{name: {name}}}")
    assert load_config(path).posterior == METHODS[name]()
    path.write_text(write_template(["a.xyz"]))
    assert load_config(path).posterior.name == "ensemble"


def test_members_trained_apart_become_one_ensemble(folder, single, surefoot, tmp_path) -> None:
    files = []
    for seed in (1, 2):
        chosen = {
            "posterior.members": 1,
            "posterior.left_out": 0,
            "data.valid": f"[{folder / 'test.xyz'}]",
            "train.seed": seed,
            "train.epochs": 1,
        }
        options = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        surefoot("train", folder / "config.yaml", "-o", tmp_path / str(seed), *options)
        files.append(tmp_path / str(seed) / "potential.safetensors")
    done = surefoot("combine", *files, "-o", tmp_path / "pool.safetensors")
    assert "surefoot calibrate" in done.stdout
    assert load_predictor(tmp_path / "pool.safetensors").draws == 2
    again = surefoot("combine", *files, "-o", tmp_path / "pool.safetensors", check=False)
    assert "is there already" in again.stderr
    other = surefoot("combine", files[0], single, "-o", tmp_path / "no", check=False)
    assert other.returncode == 1
    assert f"{single}: its baseline is not that of" in other.stderr
    assert not (tmp_path / "no").exists()
