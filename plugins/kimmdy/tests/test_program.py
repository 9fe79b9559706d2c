# SPDX-License-Identifier: GPL-3.0-or-later
"""The program itself on a trajectory that is there; only its question for GROMACS is answered."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("kimmdy", reason="kimmdy is not installed: pip install kimmdy")

from kimmdy_peptides import Peptide, write_xtc

POTENTIAL = Path(__file__).parents[3] / "benchmarks" / "demo" / "potential.safetensors"
GMX = '#!/bin/sh\necho "GROMACS version:    2024.1"\n'
MDP = "dt = 0.002\nnsteps = 11000\nnstxout-compressed = 1000\nnstxout = 1000\nnstvout = 1000\n"
YAML = f"""
name: run
gromacs_alias: ./gmx
top: topol.top
gro: npt.gro
xtc: md.xtc
sequence: [surefoot_hat]
reactions:
  surefoot_hat:
    potential: {POTENTIAL}
    polling_rate: 5
    radius: 6
    uncertain: upper_bound
    ood_limit: 0.001
"""


def test_kimmdy_asks_and_decides(hexalanine: Peptide, tmp_path: Path) -> None:
    hexalanine.top.to_path(tmp_path / "topol.top")
    write_xtc(hexalanine, tmp_path / "md.xtc", 12)
    (tmp_path / "kimmdy.yml").write_text(YAML)
    (tmp_path / "md.mdp").write_text(MDP)
    (tmp_path / "index.ndx").write_text("[ System ]\n1\n")
    (tmp_path / "gmx").write_text(GMX)
    (tmp_path / "gmx").chmod(0o755)
    command = [sys.executable, "-c", "from kimmdy.cmd import entry_point_kimmdy as run; run()"]
    done = subprocess.run(  # noqa: S603
        [*command, "--input", "kimmdy.yml"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    log = (tmp_path / "run" / "kimmdy.log").read_text()
    with (tmp_path / "run" / "1_surefoot_hat" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert f", {len(rows)} recipes rec" in log
    assert {row["decision"] for row in rows} == {"upper_bound"}
    for row in rows:
        assert float(row["low_kcal"]) <= float(row["barrier_kcal"])
