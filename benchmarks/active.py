"""Does choosing what is labelled save labels? Retrospective on 3BPA, live on hydrogen transfers.

Usage: SUREFOOT_DATA=… python benchmarks/active.py [PIECE …] [--minutes 100] [--work FOLDER]
       python benchmarks/active.py list | table
       python benchmarks/active.py kill --times 20

Pieces: `first_POSTERIOR_N`, the potential that all runs of a repetition begin from, and
`POSTERIOR_STRATEGY_N`, a campaign of rounds of 20 labels from the pool (pool.yaml);
`live_data`, then `live_STRATEGY_N`, a campaign whose labels are calculated as it goes on
(live.yaml); `live` is all of the latter. Each leaves one JSON file in benchmarks/active/. What is
there is not run again, an interrupted piece goes on, and after --minutes none begins; all pieces
of pool.yaml if none is named. `table` writes benchmarks/active/README.md.

`kill` ends a small campaign with SIGKILL at random moments, lets it go on, and compares what it
comes to with a campaign that nobody interrupted (kill.yaml, kill.json).
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from active.campaigns import Setting, keep
from active.live import list_live
from active.pool import list_pool

HERE = Path(__file__).parent / "active"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", nargs="*", help="names, `live`, `list`, `table` or `kill`")
    parser.add_argument("--minutes", type=float, default=100.0, help="after which none begins")
    parser.add_argument("--scale", default="full", choices=("full", "tiny"))
    parser.add_argument("--work", type=Path, default=Path("runs/active"))
    parser.add_argument("--kept", type=Path, default=HERE, help="folder of the JSON files")
    parser.add_argument("--times", type=int, default=20, help="that `kill` kills")
    chosen = parser.parse_args()
    setting = Setting(
        scale=chosen.scale,
        work=chosen.work.resolve() / chosen.scale,
        kept=chosen.kept.resolve(),
        end=time.monotonic() + 60 * chosen.minutes,
    )
    pool, live = dict(list_pool(setting)), dict(list_live(setting))
    every = pool | live
    if chosen.pieces == ["table"]:
        from active.page import write_page

        write_page(setting)
    elif chosen.pieces == ["kill"]:
        from active.kill import kill

        kill(setting, chosen.times)
    elif chosen.pieces == ["list"]:
        for name in every:
            print(name, "done" if setting.file(name).exists() else "")
    else:
        names = list(live) if chosen.pieces == ["live"] else chosen.pieces or list(pool)
        work(names, every, setting)


def work(names: list[str], every: dict[str, Callable[[], dict]], setting: Setting) -> None:
    """The pieces that are not there yet, one after the other."""
    for name in names:
        if setting.file(name).exists():
            continue
        if time.monotonic() > setting.end:
            print(f"the minutes are over; the same command goes on with {name}")
            return
        keep(name, every[name], setting)


if __name__ == "__main__":
    main()
