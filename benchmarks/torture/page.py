"""The page of the torture, from the sessions that are kept."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.train.checkpoint import write_atomically

HEAD = """# Torture

Written by `python benchmarks/torture.py table` from the JSON files in this folder. Each session is
a small run of one verb that is killed up to four times, by SIGKILL, SIGINT or SIGTERM, after some
seconds or at the n-th touch of a file; with `--sweep` once, at each of its touches. It has to come
to what a run comes to that nobody disturbed: to the bit for trainings, dynamics, labels, figures
and campaigns, to six digits for relaxations, whose batches are put together anew. About
every third session damages a file that a killed run has left.
"""


def write(folder: Path) -> None:
    """Write `README.md` beside the sessions.

    Args:
        folder: of the sessions, one JSON file for each seed.
    """
    files = sorted(folder.glob("*.json"))
    sessions = [one for file in files for one in json.loads(file.read_text())["sessions"]]
    lines = [HEAD, *describe_blows(sessions), "", *describe_damages(sessions), ""]
    write_atomically(folder / "README.md", "\n".join(lines).encode())


def describe_blows(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each case and one for all."""
    signals = ("SIGKILL", "SIGINT", "SIGTERM")
    lines = [
        f"| case | sessions | {' | '.join(signals)} | same end | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(one["case"] for one in sessions))
    for name in sorted(names):
        own = [one for one in sessions if one["case"] == name]
        lines += [_row(name, own, signals)]
    return [*lines, _row("**all**", sessions, signals)]


def _row(name: str, sessions: Sequence[Mapping[str, Any]], signals: Iterable[str]) -> str:
    # A run that ended before the blow fell was not struck.
    struck = [blow for one in sessions for blow in one["blows"] if blow["status"] != 0]
    counts = Counter(blow["signal"] for blow in struck)
    failed = sum(one["failed"] is not None for one in sessions)
    cells = [name, len(sessions), *(counts[one] for one in signals), len(sessions) - failed, failed]
    return f"| {' | '.join(map(str, cells))} |"


def describe_damages(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    """What became of damaged files, by verb and kind; and the sentences of the refusals."""
    damages = [(one["case"].split()[0], one["damage"]) for one in sessions if one.get("damage")]
    kinds = sorted({damage["kind"] for _, damage in damages})
    lines = [
        f"## {len(damages)} damaged files",
        "",
        "Same end / refused in a sentence, and then the same end once the file was put back.",
        "",
        f"| verb | {' | '.join(kinds)} |",
        f"|---|{'---|' * len(kinds)}",
    ]
    for verb in sorted({verb for verb, _ in damages}):
        cells = []
        for kind in kinds:
            answers = [d["answer"] for v, d in damages if (v, d["kind"]) == (verb, kind)]
            same = sum(answer == "the same end" for answer in answers)
            cells.append(f"{same} / {len(answers) - same}" if answers else "")
        lines.append(f"| {verb} | {' | '.join(cells)} |")
    told = Counter(plain(d["answer"]) for _, d in damages if d["answer"] != "the same end")
    lines += ["", "| times | sentence |", "|---|---|"]
    return [*lines, *(f"| {count} | {sentence} |" for sentence, count in told.most_common())]


def plain(sentence: str) -> str:
    """A sentence without its numbers and hashes."""
    text = re.sub(r"[0-9a-f]{16,}", "…", sentence)
    return re.sub(r"\d+(\.\d+)?", "N", text).replace("|", "\\|")[:200]
