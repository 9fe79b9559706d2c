"""Runs of equal time are of one kind of processor."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_runs_of_another_processor_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    machine = importlib.import_module("speed.machine")
    (tmp_path / "run.json").write_text(json.dumps({"processor": "a slow one"}))
    machine.require_same_processor("a slow one", tmp_path.glob("*.json"))
    machine.require_same_processor("a fast one", [])
    with pytest.raises(SystemExit, match="made on a slow one and this is a fast one"):
        machine.require_same_processor("a fast one", tmp_path.glob("*.json"))
