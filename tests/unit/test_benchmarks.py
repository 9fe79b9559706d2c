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


def test_figures_of_big_data_are_those_measured() -> None:
    results = json.loads((BENCHMARKS / "results" / "store.json").read_text())
    page = (BENCHMARKS.parent / "docs" / "big_data.md").read_text()
    make, convert, train, memory = (results[n] for n in ("make", "convert", "train", "memory"))
    phases, count = train["phases"], results["frames"]
    kept = memory["kib_per_frame"] + memory["kib_per_sample"]
    before = sum(phases[name]["cpu_seconds"] for name in ("open and split", "plan"))
    for told in (
        f"{count:,} clusters",
        f"({train['edges_per_frame']:.0f} edges",
        f"{make['mib_of_text']:.0f} MiB, {convert['mib_of_store']:.0f} MiB",
        f"{convert['bytes_per_frame']:.0f} bytes for each",
        f"{convert['frames_per_second']:.0f} frames/s",
        f"{convert['mib_peak_resident']:.0f} MiB resident, {convert['mib_after_imports']:.0f} of",
        f"{train['mib_peak_resident']:.0f} MiB resident, in the data doctor; "
        f"{max(phase['mib_RssAnon'] for phase in phases.values()):.0f} MiB",
        f"{phases['steps']['mib_VmRSS']:.0f} MiB resident, "
        f"{phases['steps']['mib_RssAnon']:.0f} MiB not",
        f"{memory['kib_per_frame']:.1f} KiB for each frame and {memory['kib_per_sample']:.1f} KiB",
        f"{kept * count / 2**20:.1f} GiB",
        f"{train['loading_frames_per_second']:.0f} frames/s on disk, "
        f"{memory['loading_frames_per_second']:.0f} frames/s in memory",
        f"{train['training_frames_per_second']:.0f} frames/s: loading is "
        f"{100 * train['loading_share_of_step']:.1f} %",
        f"data doctor {1e3 * phases['data doctor']['cpu_seconds'] / count:.2f} ms, the rest "
        f"{1e3 * before / count:.2f} ms",
        f"{1e3 * phases['calibrate and gate']['cpu_seconds'] / count:.2f} ms (the gate",
        f"{train['neighbours']['search_us_per_frame']:.0f} µs for each frame; to read them would "
        f"take {train['neighbours']['read_us_per_frame']:.0f} µs and "
        f"{train['neighbours']['bytes_per_frame_if_kept']:.0f} bytes",
    ):
        assert told in page, told
    assert train["mib_peak_resident"] < 2048
    assert train["loading_share_of_step"] < 0.1
