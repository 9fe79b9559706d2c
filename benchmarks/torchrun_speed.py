"""Seconds per epoch with one and with several processes: a small MACE on 3BPA, through torchrun.

Writes results/torchrun_speed.json: for each number of processes the lowest and the median time of
an epoch's batches (the lowest is what a busy machine disturbs least), the ratio to one process, and
how far the weights are from those of one process. Each process has one thread.

Usage: SUREFOOT_DATA=… python benchmarks/torchrun_speed.py [PROCESSES …]
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import ase.io
import numpy as np
import torch
from safetensors.torch import load_file
from speed.machine import describe_machine

FRAMES, EPOCHS, ROUNDS = 160, 4, 2
CONFIG = """
data: {{train: [{train}], valid: 0.1, split: random}}
model: {{name: mace, irreps: 32x0e + 32x1o, max_ell: 3, correlation: 2}}
train:
  epochs: {epochs}
  threads: 1
  batch: {{graphs: 16}}
posterior: {{members: 1}}
"""


def train(config: Path, output: Path, processes: int) -> list[float]:
    """Seconds of each epoch but the first, in which kernels are built and caches filled."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launch, "-m", "surefoot", "train", str(config), "-o", str(output)]
    subprocess.run(
        command,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with (output / "log.csv").open() as log:
        return [float(row["seconds"]) for row in csv.DictReader(log)][1:]


def deviation(found: Path, expected: Path) -> float:
    """Largest difference of any weight, relative to the largest of its tensor."""
    one, other = load_file(found), load_file(expected)
    names = [name for name in other if name.startswith("weights.")]
    return max(
        float((one[n] - other[n]).abs().max() / other[n].abs().max().clamp(min=1e-9)) for n in names
    )


def measure(folder: Path, counts: list[int]) -> dict[str, dict[str, float]]:
    """Rounds are interleaved, so that a busy machine slows all counts alike."""
    data = Path(os.environ["SUREFOOT_DATA"]) / "3bpa" / "train_300K.xyz.gz"
    ase.io.write(folder / "train.xyz", ase.io.read(data, f":{FRAMES}"))
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(train=folder / "train.xyz", epochs=EPOCHS))
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(ROUNDS):
        for count in counts:
            seconds[count] += train(config, folder / f"{count} {number}", count)
    last = {count: folder / f"{count} 0" / "last.safetensors" for count in counts}
    return {
        str(count): {
            "seconds_lowest": min(seconds[count]),
            "seconds_median": float(np.median(seconds[count])),
            "speed_up_lowest": min(seconds[1]) / min(seconds[count]),
            "speed_up_median": float(np.median(seconds[1]) / np.median(seconds[count])),
            "weights_deviation": deviation(last[count], last[1]),
        }
        for count in counts
    }


def main(counts: list[int]) -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        processes = measure(Path(folder), counts)
    results = {
        "frames": FRAMES,
        "precision": "float32",
        "torch": torch.__version__,
        "cpu": describe_machine()["cpu"],
        "cores": os.cpu_count(),
        "load_before": load,
        "processes": processes,
    }
    target = Path(__file__).parent / "results" / "torchrun_speed.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(sorted({1, *map(int, sys.argv[1:])} if sys.argv[1:] else {1, 2}))
