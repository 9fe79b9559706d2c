"""`surefoot learn`: a campaign in one command, from nothing to its end, however often killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from surefoot.data.read import read_frames
from surefoot.label.run import label_frames
from surefoot.label.xtb import Xtb
from surefoot.posteriors.predictor import load_predictor

CONFIG = """
data: {{train: [{first}], test: [{test}], valid: 0.2, split: random}}
model: {{name: schnet, features: 4, interactions: 1, gaussians: 8, cutoff: 3.0}}
train: {{epochs: 3, batch: {{graphs: 4}}, threads: 1, compile: "off"}}
posterior: {{name: ensemble, members: 2, left_out: 0}}
labeler: {{name: xtb}}
explore: [{{name: rattle, count: 12, width: 0.2}}]
acquire: {{by: [bald_forces, random], count: 5}}
again: {{epochs: 2, valid: 0.2}}
rules: {{rounds: 1}}
engine: {{name: processes, workers: 1}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learn")
    rng = np.random.default_rng(0)
    for name, count, width in (("first", 12, 0.05), ("test", 6, 0.15)):
        images = []
        for _ in range(count):
            atoms = molecule("H2O")
            atoms.positions += rng.normal(0.0, width, (3, 3))
            atoms.info |= {"charge": 0, "spin": 1}
            images.append(atoms)
        bare = folder / f"{name}_bare.xyz"
        ase.io.write(bare, images, format="extxyz")
        label_frames(read_frames([bare]), Xtb(), folder / f"{name}.xyz")
    path = folder / "learn.yaml"
    path.write_text(CONFIG.format(first=folder / "first.xyz", test=folder / "test.xyz"))
    return path


def outcome(folder: Path) -> list[object]:
    """What was decided in each round, and the weights."""
    found: list[object] = []
    for place in sorted((folder / "rounds").iterdir()):
        for name in ("figures.json", "choice.json", "labels.xyz"):
            file = place / name
            found.append(file.read_text() if file.exists() else None)
        weights = load_predictor(place / "train" / "potential.safetensors").weights
        found += [value.tolist() for value in weights.values()]
    return found


@pytest.mark.slow
def test_a_campaign_from_nothing_to_its_end(surefoot, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "campaign"
    first = surefoot("learn", config, "-o", folder, "--dry-run")
    assert "a training comes first" in first.stdout
    assert not folder.exists()
    done = surefoot("learn", config, "-o", folder)
    assert "ended: 1 rounds are done" in done.stdout
    assert "Rounds: errors on the test frames" in done.stdout
    summary = json.loads((folder / "rounds" / "000" / "round.json").read_text())
    assert summary["labelled"] == 5
    assert load_predictor(folder / "potential.safetensors").gate is None  # too few frames aside
    before = outcome(folder)
    again = surefoot("learn", config, "-o", folder)
    assert "ended: 1 rounds are done" in again.stdout
    assert outcome(folder) == before
    refused = surefoot("learn", config, "-o", folder, "--set", "again.valid=0.5", check=False)
    assert refused.returncode == 1
    assert "`again` differs from what this campaign was begun with" in refused.stderr


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost(surefoot, config: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begin = time.monotonic()
    surefoot("learn", config, "-o", whole)
    length = time.monotonic() - begin
    rng = np.random.default_rng(1)
    command = [sys.executable, "-m", "surefoot", "learn", str(config), "-o", str(killed)]
    for share in rng.uniform(0.3, 1.0, 3):
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(share * length)
            process.send_signal(signal.SIGKILL)
    surefoot("learn", config, "-o", killed)
    assert outcome(killed) == outcome(whole)
    journal = (killed / "rounds" / "000" / "labels.xyz.journal.jsonl").read_text().splitlines()
    assert len(journal) == 5  # nothing was calculated twice


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("explore=[{name: rattle, wide: 1}]", "explore"),
        (
            "explore=[{name: tea_leaves}]",
            "'tea_leaves' is not known; there is pool, rattle, dynamics, modes, bands, transfers",
        ),
        ("acquire.by=bold", "there is no way 'bold' to choose"),
        ("acquire.cont=3", "near it there is count"),
        ("posterior={members: 4, left_out: 2}", "warm weights have learnt from"),
        ("data.store=stores", "keeps them in memory; leave it out"),
        ("data.test=[]", "a campaign needs frames that judge it"),
        ("engine.name=abacus", "'abacus' is not known; there is processes, dask, slurm"),
    ],
)
def test_mistakes_are_one_sentence(
    surefoot, config: Path, tmp_path: Path, override: str, sentence: str
) -> None:
    folder = tmp_path / "campaign"
    done = surefoot("learn", config, "-o", folder, "--set", override, check=False)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert not folder.exists()


def test_the_template_is_a_config(surefoot, config: Path, tmp_path: Path) -> None:
    from surefoot.cli.learn_config import load_learn_config

    path = tmp_path / "template.yaml"
    path.write_text(surefoot("learn", "--template").stdout)
    found = load_learn_config(path)
    assert (found.data.valid, found.data.test) == (0.1, ["test.xyz"])
    assert (found.posterior.left_out, found.again.valid) == (0, 0.1)
    assert [one.name for one in found.explore] == ["dynamics", "rattle"]
