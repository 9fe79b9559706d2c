"""Charge and spin: are they possible, are they stated, and is there one state per composition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.read import CHARGE_KEYS, ISOLATED, SPIN_KEYS, Frame


def check_states(frames: Sequence[Frame]) -> list[Finding]:
    """Find compositions that are labelled in two states of charge and spin.

    A model without charge and spin conditioning gives both states one energy surface; with it this
    is no trouble. A charge that nobody states is 0 and a spin the lowest that is possible, so a
    composition stated otherwise here and not at all there is in two states.
    """
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.structure.formula].append(frame)
    suspects = []
    for formula, group in groups.items():
        held: dict[tuple[int, int], Frame] = {}
        for frame in group:
            held.setdefault(_state(frame), frame)
        if len(held) < 2:
            continue
        first, second = list(held.values())[:2]
        text = f"{formula} has {_name_state(second)} here but {_name_state(first)} in {first.place}"
        suspects += [Suspect(frame, text, badness=float(frame is second)) for frame in group]
    return gather(
        "two-states",
        Severity.ERROR,
        suspects,
        "a model without charge and spin conditioning cannot tell the states apart, so set "
        "`conditioning: {name: charge_spin}` in the config, or keep one state per composition",
    )


def check_charge_and_spin(frames: Sequence[Frame]) -> list[Finding]:
    """Find impossible states, states only some frames have, and open shells without a state."""
    return _check_possible(frames) + _check_stated(frames) + _check_unstated(frames)


def _state(frame: Frame) -> tuple[int, int]:
    """Charge and multiplicity, those that are not stated as the usual ones."""
    charge = frame.charge or 0
    if frame.spin is not None:
        return charge, frame.spin
    odd = int(frame.structure.numbers.sum() - charge) % 2
    return charge, 1 if frame.structure.pbc.any() else 1 + odd  # the count of a cell has no parity


def _name_state(frame: Frame) -> str:
    number, multiplicity = _state(frame)
    charge = "charge not stated (so 0)" if frame.charge is None else f"charge {number}"
    spin = f"spin {multiplicity}"
    if frame.spin is None:
        spin = f"spin not stated (so {multiplicity})"
    return f"{charge} and {spin}"


def _check_possible(frames: Sequence[Frame]) -> list[Finding]:
    suspects = []
    for frame in frames:
        reason = _find_contradiction(frame)
        if reason:
            value = frame.charge if frame.spin is None else frame.spin
            suspects.append(Suspect(frame, reason, value=None if value is None else float(value)))
    return gather(
        "impossible-spin",
        Severity.ERROR,
        suspects,
        "spin is the multiplicity 2S+1 = unpaired electrons + 1, an even electron count needs "
        f"1, 3, 5 … and an odd one 2, 4, 6 …, so correct {CHARGE_KEYS[0]} or {SPIN_KEYS[0]} in "
        "info, or set `units: {spin: unpaired}` (`--spin-unit unpaired`) where the file counts "
        "unpaired electrons",
    )


def _find_contradiction(frame: Frame) -> str | None:
    """Why the stated charge and spin can not be, or None."""
    charge = frame.charge or 0
    electrons = int(frame.structure.numbers.sum()) - charge
    counted = f"with {electrons} electrons at charge {charge}"
    if frame.charge is None:
        counted += " (charge is not stated)"
    if electrons < 0:
        return f"charge {charge} takes away more electrons than there are ({counted})"
    unpaired = 0 if frame.spin is None else frame.spin - 1
    if unpaired < 0:
        return f"spin is {frame.spin} {counted}, below the least multiplicity 1"
    if frame.spin is None or frame.structure.pbc.any():
        return None  # a cell shares its electrons with its images, so its count has no parity
    if unpaired > electrons:
        return f"spin is {frame.spin} {counted}, which needs more unpaired electrons than there are"
    if (electrons - unpaired) % 2:
        return f"spin is {frame.spin} {counted}, which does not fit in parity"
    return None


def _check_stated(frames: Sequence[Frame]) -> list[Finding]:
    molecules = [frame for frame in frames if frame.config_type != ISOLATED]
    findings = []
    for name, keys in (("charge", CHARGE_KEYS), ("spin", SPIN_KEYS)):
        missing = [frame for frame in molecules if getattr(frame, name) is None]
        if len(missing) == len(molecules):
            continue
        text = f"{name} is not stated, while {len(molecules) - len(missing)} other frames state it"
        findings += gather(
            f"{name}-partly-stated",
            Severity.WARNING,
            [Suspect(frame, text) for frame in missing],
            f"state it in info of every frame ({', '.join(keys)}) or of none",
        )
    return findings


def _check_unstated(frames: Sequence[Frame]) -> list[Finding]:
    suspects = []
    for frame in frames:
        charge = frame.charge or 0
        electrons = int(frame.structure.numbers.sum()) - charge
        molecule = len(frame.structure) > 1 and not frame.structure.pbc.any()
        if frame.spin is None and molecule and electrons % 2:
            text = (
                f"{frame.structure.formula} has {electrons} electrons at charge "
                f"{charge}, an odd number"
            )
            suspects.append(Suspect(frame, f"{text}, and no spin is stated"))
    return gather(
        "open-shell-unstated",
        Severity.WARNING,
        suspects,
        "it is a radical or an ion, so state charge and spin (2S+1) in info",
    )
