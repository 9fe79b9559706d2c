"""What a prediction costs: all kinds of error bars side by side, compiled, in one run."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase.io import read, write

from surefoot.posteriors.last_layer import LastLayer
from surefoot.posteriors.predictor import build_predictor, load_predictor

TIMED = {
    "squared": "squared_0",
    "joint_nll": "joint_nll_0",
    "laplace, 1 draw": "laplace_0",
    "laplace, 4 draws": "laplace_0",
    "squared_ensemble": "squared_ensemble_0",
    "joint_nll_ensemble": "joint_nll_ensemble_0",
    "joint_nll_three": "joint_nll_three_0",
    "shallow": "shallow_0",
    "histogram_c": "histogram_c_0",
    "judge_nll": "judge_nll_0",
    "swag": "swag_1",
    "ivon": "ivon_0",
}
"""Row of the table → run. The first one is the model that costs are given by."""


def measure_cost(work: Path) -> dict[str, Any]:
    """Milliseconds of each, and over the plain model, from one `surefoot compare --compile`."""
    folder = work / "cost"
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for title, run in TIMED.items():
        made = work / run / "calibrated.safetensors"
        if not made.exists():
            print(f"{title}: {made} is missing, and is left out")
            continue
        files[title] = folder / f"{title.replace(', ', '_').replace(' ', '_')}.safetensors"
        if ", " in title:
            take_draws(made, int(title.split()[1]), files[title])
        else:
            shutil.copy(made, files[title])
    write(folder / "few.xyz", read(work / "3bpa" / "test.xyz", ":4"))
    command = [str(Path(sys.executable).parent / "surefoot"), "compare", "--compile"]
    command += [*map(str, files.values()), str(folder / "few.xyz"), "-o", str(folder / "compare")]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    report = json.loads((folder / "compare" / "report.json").read_text())
    rows = {}
    for title, file in files.items():
        found = report["potentials"][file.stem]
        rows[title] = {**found["cost"], "draws": found["draws"]}
    return {**report["cost"], "load": os.getloadavg()[1], "rows": rows}


def take_draws(file: Path, draws: int, target: Path) -> None:
    """The same potential with another natural number of draws."""
    found = load_predictor(file)
    if not isinstance(found.posterior, LastLayer):
        raise TypeError(f"{file} holds no Laplace approximation of a last layer.")
    posterior = replace(found.posterior, natural=draws)
    calibration = found.calibration.for_draws(draws)
    made = build_predictor(found.potential, posterior, calibration, found.provenance)
    replace(made, gate=found.gate, learnt=found.learnt).save(target)
