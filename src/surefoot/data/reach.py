"""Test frames beyond what the training frames show: elements, distances, forces, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import vesin
from ase.data import chemical_symbols

from surefoot.data.findings import Finding, Severity, Suspect, gather
from surefoot.data.read import Frame

CUTOFF = 3.0  # Å, of pairs that are compared
CLOSER = 0.9  # times the shortest distance in the training frames
STRONGER = 1.5  # times the largest force component in the training frames
LEAST_PAIRS = 20  # training frames in which two elements are neighbours

Pair = tuple[int, int]


def check_reach(splits: Mapping[str, Sequence[Frame]]) -> list[Finding]:
    """Compare every other split with `train`: unknown elements, and structures far beyond it."""
    train = splits.get("train", ())
    others = [f for name, frames in splits.items() if name != "train" for f in frames]
    if not train or not others:
        return []
    known = {int(z) for frame in train for z in np.unique(frame.structure.numbers)}
    unknown, inside = [], []
    for frame in others:
        missing = sorted(set(frame.structure.numbers.tolist()) - known)
        if missing:
            names = ", ".join(chemical_symbols[z] for z in missing)
            unknown.append(
                Suspect(frame, f"no training frame holds {names}", value=float(missing[0]))
            )
        else:
            inside.append(frame)
    return gather(
        "unknown-element",
        Severity.WARNING,
        unknown,
        "a potential refuses elements that it has not learnt, so add training frames with it or "
        "take these out",
    ) + _check_extent(train, inside)


def _check_extent(train: Sequence[Frame], others: Sequence[Frame]) -> list[Finding]:
    search = vesin.NeighborList(cutoff=CUTOFF, full_list=False)
    shortest: dict[Pair, float] = {}
    seen: dict[Pair, int] = {}
    for frame in train:
        for pair, (length, _) in _closest(frame, search).items():
            shortest[pair] = min(shortest.get(pair, CUTOFF), length)
            seen[pair] = seen.get(pair, 0) + 1
    forces = [float(np.abs(f.forces).max()) for f in train if f.forces is not None]
    strongest = max(forces, default=np.inf) or np.inf
    suspects = []
    for frame in others:
        found = _closest(frame, search)
        reasons = [
            (
                *_tell_pair(pair, length, shortest.get(pair)),
                atom,
                shortest.get(pair, CUTOFF) / length,
            )
            for pair, (length, atom) in found.items()
            if length < CLOSER * shortest.get(pair, CUTOFF)
            and (pair not in seen or seen[pair] >= min(LEAST_PAIRS, len(train)))
        ]
        if reasons:
            text, value, atom, badness = max(reasons, key=lambda reason: reason[-1])
            suspects.append(Suspect(frame, text, atom, value, badness))
            continue
        largest = 0.0 if frame.forces is None else float(np.abs(frame.forces).max())
        if largest > STRONGER * strongest:
            text = (
                f"a force component is {largest:.4g} eV/Å, and the largest of the training frames "
                f"{strongest:.4g}"
            )
            suspects.append(Suspect(frame, text, None, largest, largest / strongest))
    return gather(
        "extrapolation",
        Severity.WARNING,
        suspects,
        "errors there are those of extrapolation, so judge them apart, or train on such frames",
    )


def _tell_pair(pair: Pair, length: float, known: float | None) -> tuple[str, float]:
    names = "–".join(chemical_symbols[z] for z in pair)
    if known is None:
        told = f"no training frame has this pair within {CUTOFF:g} Å"
    else:
        told = f"the training frames have none below {known:.3f} Å"
    return f"{names} are {length:.3f} Å apart, and {told}", length


def _closest(frame: Frame, search: vesin.NeighborList) -> dict[Pair, tuple[float, int]]:
    """Shortest distance of each pair of elements within the cutoff, and one of its atoms."""
    atoms = frame.structure
    if len(atoms) < 2 and not atoms.pbc.any():
        return {}
    i, j, lengths = search.compute(
        np.ascontiguousarray(atoms.positions, float), atoms.cell, atoms.pbc, "ijd"
    )
    i, j = i.astype(int), j.astype(int)
    kinds = np.sort(np.stack([atoms.numbers[i], atoms.numbers[j]], 1), axis=1) @ [1000, 1]
    found = {}
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        best = rows[np.argmin(lengths[rows])]
        found[int(kind) // 1000, int(kind) % 1000] = (float(lengths[best]), int(i[best]))
    return found
