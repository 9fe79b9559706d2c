"""Which frames each set of weights has learnt from: kept in the file of a potential.

A frame that weights have learnt from says nothing of their error, whichever run it was. So each
potential knows its frames by a hash of their structure, those of the potential that it began from
among them, and neither calibration nor the gate takes one of them for new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from surefoot.blocks.dense import Weights, branch, under
from surefoot.data.convert import Sample

SAME = 1e-3  # Å; positions of a file that is written anew are rounded


@dataclass(frozen=True)
class Learnt:
    """Frames, and who has learnt from them.

    Attributes:
        frames: hashes, rising.
        by: (sets, frames) for each member of an ensemble, else one row for all draws.
    """

    frames: Int[np.ndarray, " frames"]
    by: Bool[np.ndarray, "sets frames"]

    def seen(self, samples: Sequence[Sample]) -> Bool[np.ndarray, "sets samples"]:
        """Which set of weights has learnt from which sample."""
        return self.find(hash_frames(samples))

    def find(self, frames: Int[np.ndarray, " wanted"]) -> Bool[np.ndarray, "sets wanted"]:
        """The same by hash."""
        if not len(self.frames):
            return np.zeros((len(self.by), len(frames)), bool)
        place = np.minimum(np.searchsorted(self.frames, frames), len(self.frames) - 1)
        return self.by[:, place] & (self.frames[place] == frames)

    def tree(self) -> Weights:
        """For the file."""
        return under("learnt", {"frames": torch.tensor(self.frames), "by": torch.tensor(self.by)})


def hash_frames(samples: Sequence[Sample]) -> Int[np.ndarray, " samples"]:
    """64 bits of elements, positions, cell, charge and spin of each structure."""

    def number(sample: Sample) -> int:
        graph = sample.bare
        cell = graph.cell[0] if bool(graph.pbc.any()) else graph.cell[0] * 0.0
        lengths = torch.cat([graph.positions, cell]).double() / SAME
        total = hashlib.blake2b(digest_size=8)
        for part in (graph.numbers, graph.pbc, lengths.round().long(), graph.charge, graph.spin):
            total.update(part.contiguous().numpy().tobytes())
        return int.from_bytes(total.digest(), "little", signed=True)

    return np.array([number(sample) for sample in samples], np.int64)


def remember(samples: Sequence[Sample], learns: Bool[np.ndarray, "sets samples"]) -> Learnt:
    """What sets of weights have learnt from.

    Args:
        samples: of a run.
        learns: which set learns from which.
    """
    used = np.asarray(learns.any(0))
    hashes = hash_frames([sample for sample, use in zip(samples, used, strict=True) if use])
    frames, place = np.unique(hashes, return_inverse=True)
    by = np.zeros((len(learns), len(frames)), bool)
    for row, learnt in zip(by, learns[:, used], strict=True):
        row[place[learnt]] = True
    return Learnt(frames, by)


def join(parts: Sequence[Learnt], sets: int) -> Learnt:
    """What each of so many sets has learnt from in one part or another.

    Args:
        parts: with as many rows as there are sets, or other numbers: then all sets come from all
            of its rows.
        sets: number of rows.
    """
    frames = np.unique(np.concatenate([part.frames for part in parts]))
    by = np.zeros((sets, len(frames)), bool)
    for part in parts:
        found = part.find(frames)
        by |= found if len(found) == sets else found.any(0)
    return Learnt(frames, by)


def side_by_side(parts: Sequence[Learnt]) -> Learnt:
    """The rows of all parts: those of members that were trained apart."""
    frames = np.unique(np.concatenate([part.frames for part in parts]))
    return Learnt(frames, np.concatenate([part.find(frames) for part in parts]))


def read_learnt(tree: Weights) -> tuple[Weights, Learnt | None]:
    """The tensors of a file without these, and what they say; None in older files.

    Raises:
        KeyError: if one of them is missing.
    """
    rest = {name: value for name, value in tree.items() if not name.startswith("learnt.")}
    held = branch(tree, "learnt")
    if not held:
        return rest, None
    return rest, Learnt(held["frames"].numpy(), held["by"].numpy())


def learnt_files(provenance: Mapping[str, Any]) -> set[str]:
    """Hashes of the files that a potential, and what it began from, has learnt from.

    A file of which a share was set aside is among them; one that only validated is not.
    """
    hashes = list(provenance.get("files", {}).values())
    data = provenance.get("config", {}).get("data")
    if data is not None and "members" not in provenance:
        hashes = hashes[: len(data["train"])]  # then come those that validate, and the beginning
    before = provenance.get("began_from")
    return set(hashes) | (learnt_files(before) if before else set())


def files_read(provenance: Mapping[str, Any]) -> list[str]:
    """Hashes of the data files of a run, in their order: first those to learn from."""
    hashes = list(provenance.get("files", {}).values())
    config = provenance.get("config", {})
    begun = (config.get("start") or {}).get("potential") is not None
    return hashes[: len(hashes) - begun]
