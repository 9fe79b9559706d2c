"""Runs that are killed at random moments, and whose files are damaged: is anything lost?

Usage: python benchmarks/torture.py [--minutes 20] [--only train learn …] [--seed 0] [--work FOLDER]
       python benchmarks/torture.py list | table

Each session kills a small run of `train`, `label`, `evaluate`, `learn`, `md` or `relax` up to four
times (SIGKILL, SIGINT, SIGTERM; after some seconds or at the n-th touch of a file), and lets it
come to its end, which has to equal that of a run that nobody disturbed, to the bit. About every
third session damages a file that a killed run has left (flipped, cut, blanked, swapped with that of
another run, taken from an earlier hour, …): the next command has to come to the same end, or to
refuse in one sentence, and once the file is put back the run has to come to its end. With --sweep
each case is killed at each of its touches, once.

Counts are kept in benchmarks/torture/seed_N.json after each session, and the same seed goes on with
those that are there; `table` writes benchmarks/torture/README.md from all of them. What fails stays
in the folder of work, and the exit status is 1; with --again what failed is tried once more, in its
place.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; a fork keeps no threads

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from torture import page
from torture.cases import list_cases
from torture.session import Bench, hold_session, warm_up

from surefoot.train.checkpoint import write_atomically

HERE = Path(__file__).parent / "torture"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["run", "list", "table"], default="run")
    parser.add_argument("--minutes", type=float, default=20.0, help="after which no session begins")
    parser.add_argument("--sessions", type=int, help="at most so many in this call")
    parser.add_argument("--only", nargs="+", default=[], help="cases or verbs; all if none")
    parser.add_argument("--sweep", action="store_true", help="kill at every touch, once each")
    parser.add_argument("--again", action="store_true", help="sessions that failed, in their place")
    parser.add_argument("--seed", type=int, default=0, help="of moments and damages")
    parser.add_argument("--work", type=Path, default=Path("runs/torture"))
    parser.add_argument("--kept", type=Path, default=HERE, help="folder of counts and page")
    chosen = parser.parse_args()
    if chosen.what == "table":
        page.write(chosen.kept)
        return
    bench = Bench(chosen.work.resolve(), list_cases(chosen.work.resolve() / "inputs"))
    names = [
        name
        for name in bench.cases
        if not chosen.only or {name, name.split()[0]} & set(chosen.only)
    ]
    if chosen.what == "list" or not names:
        print("\n".join(bench.cases))
        return
    file = chosen.kept / ("sweep.json" if chosen.sweep else f"seed_{chosen.seed}.json")
    found = json.loads(file.read_text()) if file.exists() else {"sessions": []}
    warm_up()
    bench.prepare(names)
    end, sessions = time.monotonic() + 60 * chosen.minutes, found["sessions"]
    numbers = iter(range(len(sessions), sys.maxsize))
    if chosen.again:
        numbers = iter([n for n, one in enumerate(sessions) if one["failed"] is not None])
    for number in itertools.islice(numbers, chosen.sessions):
        due = choose(sessions[:number], names, bench, sweep=chosen.sweep)
        if due is None or time.monotonic() > end:
            break
        session = hold_session(bench, bench.cases[due[0]], chosen.seed, number, due[1])
        sessions[number : number + 1] = [session]
        write_atomically(file, (json.dumps(found, indent=1) + "\n").encode())
        print(f"{number} {tell(session)}", flush=True)
    failed = sum(one["failed"] is not None for one in found["sessions"])
    print(f"{len(found['sessions'])} sessions with seed {chosen.seed}, {failed} failures")
    sys.exit(1 if failed else 0)


def choose(
    before: list[dict[str, Any]], names: list[str], bench: Bench, *, sweep: bool
) -> tuple[str, int | None] | None:
    """The case that has had the fewest sessions, and its touch in a sweep; None at its end.

    Args:
        before: sessions that come before it.
        names: of the cases.
        bench: with their whole runs.
        sweep: whether each case is struck at each touch, one case after the other.
    """
    counts = Counter(one["case"] for one in before)
    if not sweep:
        return min(names, key=lambda one: (counts[one], names.index(one))), None
    left = [one for one in names if counts[one] < bench.length(bench.cases[one])[1]]
    return (left[0], counts[left[0]] + 1) if left else None


def tell(session: dict[str, Any]) -> str:
    """A session in a line."""
    blows = ", ".join(f"{one['signal']} {one['when']}" for one in session["blows"])
    damage = session.get("damage")
    told = f"{session['case']}: {blows}"
    if damage is not None:
        told += f"; {damage['file']} {damage['kind']}: {damage['answer']}"
    return told if session["failed"] is None else f"{told} FAILED: {session['failed']}"


if __name__ == "__main__":
    main()
