"""Damaged files, and files made to harm, for every reader: an answer or a sentence, nothing else.

Usage: python benchmarks/fuzz.py [--cases 100000] [--seed 0] [--only TARGET …] [--work FOLDER]
       python benchmarks/fuzz.py list | table
       python benchmarks/fuzz.py show --only TARGET --case N

A case is a sound file that is changed at random: bytes, words, trees of JSON and YAML, opcodes of
pickles, lengths that are claimed, depths, texts that swell. The package reads it in a process with
a limit on time and memory, and with ears for what no reader does (calls of the system, other
programs, pickles that import, files written elsewhere). It has to come back with an answer or with
an error of which the program makes one sentence that names the file. Counts go to
benchmarks/results/fuzz.json; `show` writes the file of one case and says what became of it.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; a fork keeps no threads

import argparse
import json
import sys
import time
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from fuzz.targets import Target, lay, list_targets, read_case
from fuzz.watch import PATIENCE, SECONDS, judge, watch

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
SHOWN = 20  # failures of a target that are kept


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["run", "list", "table", "show"], default="run")
    parser.add_argument("--cases", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--case", type=int, default=0, help="to be shown")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], help="beginnings of names of targets")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm/surefoot-fuzz"))  # noqa: S108
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    targets = {
        name: target
        for name, target in list_targets(work).items()
        if not chosen.only or name.startswith(tuple(chosen.only))
    }
    if chosen.what == "list":
        print("\n".join(targets))
        return
    if chosen.what == "show":
        show(next(iter(targets.values())), chosen.seed, chosen.case, work)
        return
    failed = sum(run(targets, chosen.cases, chosen.seed, work, chosen.results).values())
    sys.exit(1 if failed else 0)


def run(
    targets: dict[str, Target], cases: int, seed: int, work: Path, results: Path | None
) -> dict[str, int]:
    """Cases of all targets, and how many of each failed.

    Args:
        targets: by name.
        cases: of all together; each gets its share.
        seed: of all of them.
        work: folder of the files.
        results: where counts are kept, beside those that are there; nowhere if None.
    """
    shares = sum(target.share for target in targets.values())
    failed = {}
    for target in targets.values():
        count = max(1, round(cases * target.share / shares))
        began = time.monotonic()
        case = partial(read_case, target, seed, work=work)
        folder = str(lay(target, work))
        found = watch(case, range(count), work, folder, strict=target.strict, apart=target.apart)
        failed[target.name] = len(found.failures)
        told = {
            "cases": count,
            "answered": found.answered,
            "refused": found.refused,
            "failed": len(found.failures),
            "failures": [f"case {n}: {what}" for n, what in found.failures[:SHOWN]],
            "seconds": round(time.monotonic() - began, 1),
        }
        print(target.name, json.dumps(told, ensure_ascii=False, indent=1), flush=True)
        if results is not None:
            keep(results, target.name, seed, told)
    return failed


def keep(results: Path, name: str, seed: int, told: dict[str, Any]) -> None:
    """Put counts beside those that are there."""
    from surefoot.train.checkpoint import write_atomically

    found = json.loads(results.read_text()) if results.exists() else {}
    found.setdefault(f"seed {seed}", {})[name] = told
    write_atomically(results, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())


def show(target: Target, seed: int, number: int, work: Path) -> None:
    """What becomes of one case, with its traceback."""
    folder = lay(target, work)
    seconds = PATIENCE if target.apart else SECONDS
    what = judge(partial(read_case, target, seed, work=work), number, str(folder), seconds)
    print(what)
    if not what.startswith("took"):
        try:
            read_case(target, seed, number, work)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
    print(folder / target.file)


if __name__ == "__main__":
    main()
