"""doctor-env: what is there, and a sentence for what is slow or missing."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

from surefoot.blocks import native
from surefoot.cli import doctor_env
from surefoot.cli.screen import EXTRAS


def test_it_says_what_is_there(surefoot) -> None:
    found = json.loads(surefoot("doctor-env", "--json").stdout)
    assert found["packages"]["torch"] == torch.__version__
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert 1 <= found["threads"]["cores_usable"] <= found["threads"]["cores"]
    text = surefoot("doctor-env").stdout
    assert torch.__version__ in text
    assert found["advice"] == [] or all(one["sentence"][-1] == "." for one in found["advice"])


def test_every_extra_is_told() -> None:
    held = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = set(held["project"]["optional-dependencies"]) - {"dev", "docs"}
    assert {EXTRAS[name] for name in doctor_env.PURPOSES} == extras
    assert set(doctor_env.PURPOSES) == set(EXTRAS)


@pytest.fixture
def forgotten(monkeypatch, tmp_path: Path):
    """As in a new process with an empty cache."""
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "cache"))
    for held in (native._library, native._say_plain):
        held.cache_clear()
    yield tmp_path
    for held in (native._library, native._say_plain):
        held.cache_clear()


def advice_about(about: str) -> list[str]:
    found = doctor_env.advise(doctor_env.look())
    return [one.sentence for one in found if one.about == about]


def test_a_compiler_that_is_none_is_told(forgotten, monkeypatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("CXX", "no-such-compiler")
    (sentence,) = advice_about("compiler")
    assert "variable CC" in sentence
    assert len(advice_about("compile")) == 1


def test_kernels_that_can_not_be_kept_are_told(forgotten: Path, monkeypatch) -> None:
    if native.find_compiler() is None:
        pytest.skip("there is no C compiler.")
    (forgotten / "file").write_text("")
    monkeypatch.setenv("SUREFOOT_CACHE", str(forgotten / "file"))
    (sentence,) = advice_about("kernels")
    assert "SUREFOOT_CACHE" in sentence


def test_missing_extras_and_threads_are_told() -> None:
    found = doctor_env.look()
    found["extras"]["pyscf"]["version"] = None
    found["threads"] |= {"cores_usable": 4, "torch": 8, "load_per_core": 3.0}
    found["cache"]["bytes"] = 2**32
    told = {one.about: one.sentence for one in doctor_env.advise(found)}
    assert "surefoot[dft]" in told["pyscf"]
    assert "OMP_NUM_THREADS=4" in told["threads"]
    assert "4.0 GiB" in told["cache"]
    assert "3.0" in told["load"]
