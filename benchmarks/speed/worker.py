"""One program in one form in a process of its own: takes orders as lines of JSON, answers alike.

Usage: python -m speed.worker PROGRAM FORM, in the folder benchmarks, by the program's own Python.

    {"do": "prepare", "case": {…}}  →  seconds to build, of the first call and of a later one
    {"do": "time", "count": n}      →  n wall times and n CPU times in seconds
    {"do": "peak"}                  →  MB above what the imports took, at the highest of one call

A program is a module here with `prepare(case, form)`, which gives a function without arguments;
this function does the work once and gives a number that has to be finite. Between orders the
process sleeps. What a program prints goes to stderr.
"""

import gc
import importlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEGABYTE = 1024.0  # kB, as the kernel counts


def main(program: str, form: str) -> None:
    answers = take_stdout()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    module = importlib.import_module(f"speed.{program}")
    imported = resident("VmRSS")
    call: Callable[[], float] | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "prepare":
                call, answer = prepare(module.prepare, order["case"], form)
                answer["versions"] = module.versions()
            elif call is None:
                raise RuntimeError("nothing was prepared.")
            elif order["do"] == "time":
                answer = time_calls(call, order["count"])
            else:
                answer = {"megabytes": peak(call, imported)}
        except Exception as trouble:  # noqa: BLE001  # told to the master, who leaves this one out
            answer = {"error": f"{type(trouble).__name__}: {trouble}"[:600]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def take_stdout() -> TextIO:
    """The real stdout for answers alone; everybody else's goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def prepare(
    make: Callable[[dict[str, Any], str], Callable[[], float]], case: dict[str, Any], form: str
) -> tuple[Callable[[], float], dict[str, Any]]:
    started = time.perf_counter()
    call = make(case, form)
    built = time.perf_counter()
    value = call()
    first = time.perf_counter()
    call()
    last = time.perf_counter()
    if not math.isfinite(value):
        raise ValueError(f"the result is {value}.")
    seconds = {"build": built - started, "first": first - built, "call": last - first}
    return call, {**seconds, "value": value}


def time_calls(call: Callable[[], float], count: int) -> dict[str, list[float]]:
    wall, processor = [], []
    gc.collect()
    for _ in range(count):
        started, used = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    return {"wall": wall, "cpu": processor}


def peak(call: Callable[[], float], imported: float | None) -> float | None:
    """Highest resident memory of one call above the imports; None where /proc does not tell."""
    if imported is None:
        return None
    gc.collect()
    CLEAR.write_text("5")  # the highest value so far is forgotten: a compiler may have set it
    call()
    highest = resident("VmHWM")
    return None if highest is None else highest - imported


def resident(field: str) -> float | None:
    if not CLEAR.exists():
        return None
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / MEGABYTE


if __name__ == "__main__":
    main(*sys.argv[1:3])
