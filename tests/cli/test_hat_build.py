"""`surefoot hat build`: template, folder, tables, and sentences for what is wrong."""

import json
from pathlib import Path

import ase.io
import pytest
import yaml

from surefoot.hat.build import BuildSettings, Split

CONFIG = """
splits:
  train: {smiles: {methanol: CO}, frames: 2, paths: 1}
radicals: [methyl]
pairing: {intramolecular: 0}
scans: {points: 3}
conformers: {count: 2}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "build.yaml"
    path.write_text(CONFIG)
    return path


def test_the_template_holds_every_key_at_its_default(surefoot) -> None:
    content = yaml.safe_load(surefoot("hat", "build", "--template").stdout)
    settings = BuildSettings.model_validate(content)
    assert settings == BuildSettings.model_validate({"splits": content["splits"]})
    assert set(content) == set(BuildSettings.model_fields)
    assert all(set(split) == set(Split.model_fields) for split in content["splits"].values())


def test_a_folder_with_frames_scans_and_a_manifest(surefoot, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    done = surefoot("hat", "build", config, "-o", folder, "--workers", 1, "--set", "seed=3")
    assert {path.name for path in folder.iterdir()} == {
        "train.xyz",
        "train_paths.xyz",
        "manifest.json",
    }
    assert len(ase.io.read(folder / "train.xyz", ":")) == 2
    assert len(ase.io.read(folder / "train_paths.xyz", ":")) == 3
    assert json.loads((folder / "manifest.json").read_text())["seed"] == 3
    assert "5 frames, doublets" in done.stdout
    assert "fewer than 2 different conformers were found of: methanol 1" in done.stdout
    assert "from methanol" in done.stdout
    assert "relaxing 2/2" in done.stderr
    again = surefoot("hat", "build", config, "-o", folder, check=False)
    assert again.returncode == 1
    assert "holds a data set; remove it or choose another name" in again.stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("limit={}", "there is no key 'limit'; near it there is limits"),
        ("limits.cleerance=2", "no key 'limits.cleerance'; near it there is clearance"),
        ("splits.train.frame=2", "no key 'splits.train.frame'; near it there is frames"),
        ("splits.train.sequences=[GXA]", "'X' at place 2 is no amino acid"),
        ("splits.train.sequences=[false]", "splits.train.sequences.0: Input should be a valid str"),
        ("radicals=[oxygen]", "There is no radical 'oxygen'"),
        ("labeler.meth=GFN2-xTB", "no key 'labeler.meth'; near it there is method"),
        ("scans.points=2", "scans.points: Input should be greater than or equal to 3 (found 2)"),
    ],
)
def test_one_sentence_for_a_mistake(
    surefoot, config: Path, tmp_path: Path, override: str, said: str
) -> None:
    done = surefoot("hat", "build", config, "-o", tmp_path / "x", "--set", override, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "x").exists()


def test_what_is_missing(surefoot, config: Path, tmp_path: Path) -> None:
    done = surefoot("hat", "build", config, check=False)
    assert done.returncode == 1
    assert "Name a config and a folder" in done.stderr
    done = surefoot("hat", "build", tmp_path / "none.yaml", "-o", tmp_path / "x", check=False)
    assert "there is no such file; `surefoot hat build --template" in done.stderr
    empty = tmp_path / "empty.yaml"
    empty.write_text("seed: 1")
    done = surefoot("hat", "build", empty, "-o", tmp_path / "x", check=False)
    assert "the key 'splits' is missing" in done.stderr
    done = surefoot("hat", "build", config, "-o", config, check=False)
    assert "this is a file; name a folder" in done.stderr
