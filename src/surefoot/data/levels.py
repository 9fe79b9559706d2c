"""Levels of theory: labels of two methods do not belong on one energy surface."""

from __future__ import annotations

from collections.abc import Sequence

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.read import Frame

METHOD_KEY = "label_method"
SETTINGS_KEY = "label_settings"
LEVEL_KEY = "label_level"  # hash of the settings: text, which also formats without records keep
DIFFERENCES = 3  # settings named where two levels have one name


def check_levels(frames: Sequence[Frame]) -> list[Finding]:
    """Find frames whose labels come from another method than those of the first frame.

    Only what `surefoot label` wrote into info is compared; frames that do not say where their
    labels come from are taken as they are.
    """
    stated = [frame for frame in frames if METHOD_KEY in frame.info]
    suspects = []
    for frame in stated[1:]:
        first, method = stated[0], frame.info[METHOD_KEY]
        differences = _differences(frame, first)
        if method == first.info[METHOD_KEY] and not differences:
            continue
        text = (
            f"the labels are of {method}{differences}, but those of {first.place} are of "
            f"{first.info[METHOD_KEY]}"
        )
        suspects.append(Suspect(frame, text))
    return gather(
        "two-levels",
        Severity.ERROR,
        suspects,
        "energies of two methods differ by more than a constant, so label all frames alike, train "
        "on one level and then on the other (`start`), or accept `two-levels` if you know better",
    )


def _differences(frame: Frame, other: Frame) -> str:
    """Settings that differ where both frames state them and name the same method."""
    if frame.info[METHOD_KEY] != other.info[METHOD_KEY]:
        return ""
    ours, theirs = (f.info.get(SETTINGS_KEY) for f in (frame, other))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        told = [f"{key} {ours.get(key)}, not {theirs.get(key)}" for key in keys[:DIFFERENCES]]
        return f" ({'; '.join(told)})" if told else ""
    levels = {f.info.get(LEVEL_KEY) for f in (frame, other)} - {None}
    return " (with other settings)" if len(levels) > 1 else ""
