"""The tables of the data doctor: file × finding, damage × finding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.train.checkpoint import write_atomically


@dataclass(frozen=True)
class Told:
    """What became of one damage.

    Attributes:
        name: of the damage.
        source: the sound file.
        code: of the finding that it has to have.
        found: what the sound file did not have, with the number of frames.
        right: whether the damage was found.
    """

    name: str
    source: str
    code: str
    found: Mapping[str, int]
    right: bool


def write(
    page: Path,
    sound: Sequence[tuple[str, str, Mapping[str, int]]],
    damaged: Sequence[Told],
    count: int,
) -> None:
    """Write the page.

    Args:
        page: its file.
        sound: files as they are: name, frames, findings.
        damaged: files with a damage.
        count: frames of each sound file, at most.
    """
    clean = sum(not found and frames != "refused" for _, frames, found in sound)
    right = sum(one.right for one in damaged)
    beside = [one for one in damaged if set(one.found) - {one.code}]
    lines = [
        "# What the data doctor finds",
        "",
        "Written by `python benchmarks/doctor.py`. Findings are explained in "
        "[findings](../../docs/findings.md); numbers are frames.",
        "",
        f"## {len(damaged)} damaged files",
        "",
        f"{right} of {len(damaged)} damages were found. For {len(beside)} of them something else "
        "was said, too, that is not said of the sound file.",
        "",
        "| damage | file | has to be found | found | else |",
        "|---|---|---|---|---|",
    ]
    for one in damaged:
        other = {code: number for code, number in one.found.items() if code != one.code}
        count_found = one.found.get(one.code, "**no**")
        lines.append(
            f"| {one.name} | {one.source} | `{one.code}` | {count_found} | {_tell(other)} |"
        )
    lines += [
        "",
        f"## {len(sound)} files as they are",
        "",
        f"Up to {count} frames of each, evenly chosen, with the keys and units that their "
        f"description names; {clean} without a finding.",
        "",
        "| file | frames | found |",
        "|---|---|---|",
        *(f"| {name} | {frames} | {_tell(found)} |" for name, frames, found in sound),
        "",
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, "\n".join(lines).encode())


def _tell(found: Mapping[str, int]) -> str:
    return ", ".join(f"`{code}` {count}" for code, count in found.items())
