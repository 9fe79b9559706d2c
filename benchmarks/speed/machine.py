"""What the machine can do: the rate of a matrix product and of memory, measured; its name."""

import json
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

MATRIX, VECTOR = 2048, 1 << 26  # rows and columns; numbers, 256 MB in float32
REPEATS = 7


def describe_machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "libc": " ".join(platform.libc_ver()),
        "torch": torch.__version__,
    }


def require_same_processor(processor: str, results: Iterable[Path]) -> None:
    """No figures of equal time beside those of another processor."""
    for file in results:
        other = json.loads(file.read_text())["processor"]
        if other != processor:
            raise SystemExit(
                f"{file} was made on {other} and this is {processor}: equal time would not be "
                "equal. Go on there, or remove all such files and begin anew."
            )


def measure_peaks() -> dict[str, float]:
    """GFLOP/s of sgemm and dgemm, GB/s of a triad; the best of some, by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {
        "gemm_float32_gflops": gemm(torch.float32),
        "gemm_float64_gflops": gemm(torch.float64),
        "triad_gb_per_s": triad(),
    }
    torch.set_num_threads(before)
    return found


def gemm(dtype: torch.dtype) -> float:
    left, right = torch.rand(2, MATRIX, MATRIX, dtype=dtype)
    return 2 * MATRIX**3 / best(lambda: torch.mm(left, right)) / 1e9


def triad() -> float:
    """a ← b + s c over arrays far larger than any cache; three passes, fills of a not counted."""
    a, b, c = torch.ones(3, VECTOR)
    return 3 * a.nbytes / best(lambda: torch.add(b, c, alpha=0.5, out=a)) / 1e9


def best(work: Any) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
