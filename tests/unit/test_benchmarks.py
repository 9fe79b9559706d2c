"""What stands beside the published figures is what was measured."""

import hashlib
import json
import re
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_page_results_and_potentials_agree() -> None:
    """The page names every potential of the results with the hash of its file."""
    folder = BENCHMARKS / "accuracy"
    results = json.loads((BENCHMARKS / "results" / "accuracy.json").read_text())
    measured = {f"{case}.safetensors": result["sha256"] for case, result in results.items()}
    row = re.compile(r"^\| `(.+)` \| ([0-9a-f]{64}) \|$", re.MULTILINE)
    assert dict(row.findall((folder / "README.md").read_text())) == measured
    files = folder.glob("*.safetensors")
    assert {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files} == measured


def test_every_case_of_the_page_was_measured() -> None:
    """With its errors as they stand in the results."""
    page = (BENCHMARKS / "accuracy" / "README.md").read_text()
    results = json.loads((BENCHMARKS / "results" / "accuracy.json").read_text())
    for case, result in results.items():
        for test in result["tests"]:
            (line,) = re.findall(
                rf"^\| {case} \| {re.escape(test['file'])} .*$", page, re.MULTILINE
            )
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            kind = cells[2].lower()
            assert cells[4] == f"{test['errors']['forces'][kind]:.2f}"
            assert cells[6] == str(result["parameters"])
