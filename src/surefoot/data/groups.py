"""Groups that the user named: each should stand in one split only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.read import Frame


def check_groups(splits: Mapping[str, Sequence[Frame]]) -> list[Finding]:
    """Find groups named in info that two splits share.

    The default groups of two files may share a name by accident and are not looked at, nor are
    frames whose file both splits draw from: that split was asked for in the config.
    """
    suspects = []
    earlier: dict[str, tuple[str, Frame]] = {}  # first holder of each group
    files: dict[str, set[str]] = {}  # of the splits before
    for name, frames in splits.items():
        own = {frame.file for frame in frames}
        named = [frame for frame in frames if "group" in frame.info]
        for frame in named:
            other, first = earlier.get(frame.group, (name, frame))
            if other != name and frame.file not in files[other] and first.file not in own:
                text = (
                    f"group '{frame.group}' of split '{name}' is also in split '{other}' "
                    f"({first.place})"
                )
                suspects.append(Suspect(frame, text))
        files[name] = own
        for frame in named:
            earlier.setdefault(frame.group, (name, frame))
    return gather(
        "group-in-two-splits",
        Severity.WARNING,
        suspects,
        "frames of one group resemble each other, so errors on them are those of known kinds; keep "
        "each group in one split, or give the groups other names if they are not related",
    )
