# SPDX-License-Identifier: GPL-3.0-or-later
"""Peptides, and the reaction as KIMMDY asks it."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kimmdy_peptides import Peptide, load

ROOT = Path(__file__).parents[3]
POTENTIAL = ROOT / "benchmarks" / "demo" / "potential.safetensors"


@pytest.fixture(scope="session")
def peptides() -> Path:
    folder = Path(os.environ.get("SUREFOOT_DATA", "")) / "peptides"
    if "SUREFOOT_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("SUREFOOT_DATA does not name the folder of data sets.")
    return folder


@pytest.fixture
def hexalanine(peptides: Path, tmp_path: Path) -> Peptide:
    """With a radical at CA of the first alanine."""
    return load(peptides, "kimmdy_hexalanine", tmp_path, removed="10")


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Any]:
    """A function that asks the reaction for recipes: topology, trajectory, options → both."""
    from kimmdy.config import Config
    from kimmdy.plugins import discover_plugins, reaction_plugins
    from kimmdy.schema import get_combined_scheme
    from kimmdy.tasks import TaskFiles

    discover_plugins()

    def run(top: Any, trajectory: Path, **options: Any) -> tuple[Any, Path]:
        section = get_combined_scheme()["reactions"]["surefoot_hat"]
        given = {"potential": str(POTENTIAL), "trajectory_format": trajectory.suffix[1:]} | options
        config = Config(opts=given, scheme=section, section="config.reactions.surefoot_hat")
        config._set_defaults("config.reactions.surefoot_hat", section)
        manager = SimpleNamespace(
            config=SimpleNamespace(reactions=SimpleNamespace(surefoot_hat=config)), top=top
        )
        reaction = reaction_plugins["surefoot_hat"]("surefoot_hat", manager)
        files = TaskFiles(lambda kind: trajectory if kind == trajectory.suffix[1:] else None)
        files.outputdir = tmp_path / "task"
        files.outputdir.mkdir()
        return reaction.get_recipe_collection(files), files.outputdir

    return run
