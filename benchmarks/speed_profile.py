"""Where surefoot's time goes, before compiling and after: shares of operations.

Usage: python benchmarks/speed_profile.py

One thread, float32. Writes results/speed_profile.json, which `benchmarks/speed.py table` puts into
docs/speed.md. Times are medians without the profiler, which slows what has many operations.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed.cases import Case, orders
from speed.machine import describe_machine
from speed.ours import prepare

RESULTS = Path(__file__).parent / "results" / "speed_profile.json"
CASES = (
    Case("mace64", "forces", 27, "float32", 1),
    Case("mace64", "forces", 192, "float32", 1),
    Case("mace64", "train", 5, "float32", 1),
    Case("allegro32", "forces", 192, "float32", 1),
    Case("schnet", "forces", 27, "float32", 1),
)
CALLS = 30
SHOWN = 6  # operations of each; the others are one share


def main() -> None:
    torch.set_num_threads(1)
    cases: dict[str, Any] = {}
    found = {"cpu": describe_machine()["cpu"], "cases": cases}
    for case in CASES:
        cases[case.key] = {form: measure(case, form) for form in ("eager", "compiled")}
        for form, one in cases[case.key].items():
            print(f"{case.key}, {form}: {one['ms']:.2f} ms, {one['operations']} operations")
            for name, share in one["shares"]:
                print(f"    {100 * share:3.0f} % {name}")
    made = RESULTS.with_suffix(".part")
    made.write_text(json.dumps(found, indent=1) + "\n")
    made.rename(RESULTS)


def measure(case: Case, form: str) -> dict[str, Any]:
    """Median time of a call, and the shares of its operations in processor time."""
    call = prepare(orders(case, case.work), form)
    for _ in range(5):
        call()
    spent = [seconds(call) for _ in range(2 * CALLS)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(CALLS):
            call()
    times: Counter[str] = Counter()
    count = 0
    for row in profile.key_averages():
        times[name_of(row.key)] += row.self_cpu_time_total
        count += row.count
    total = sum(times.values())
    shown = [(name, used / total) for name, used in times.most_common(SHOWN)]
    rest = 1.0 - sum(share for _, share in shown)
    return {
        "ms": 1e3 * float(np.median(spent)),
        "operations": round(count / CALLS),
        "shares": [*shown, ("others", rest)],
    }


def seconds(call: Callable[[], float]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def name_of(key: str) -> str:
    """Without the namespace; what the compiler made, and its calls, is one kind."""
    made = re.match(r"## Call CompiledFxGraph|(graph_\d+_)?cpp_fused|inductor::", key)
    return "loops made by the compiler" if made else re.sub(r"^(aten|surefoot)::", "", key)


if __name__ == "__main__":
    main()
