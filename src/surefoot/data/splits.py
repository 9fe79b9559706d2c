"""Who trains and who judges: random, by group, and folds for the members of an ensemble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from surefoot.data.read import Frame


def split_random(
    frames: Sequence[Frame], share: float, seed: int
) -> tuple[list[Frame], list[Frame]]:
    """Put a share of the frames aside at random; at least one on each side.

    Raises:
        ValueError: if there are fewer than two frames.
    """
    if len(frames) < 2:
        raise ValueError(f"{len(frames)} frame can not be split; give at least two.")
    order = np.random.default_rng(seed).permutation(len(frames))
    count = min(max(1, round(share * len(frames))), len(frames) - 1)
    aside = set(order[:count].tolist())
    return _divide(frames, aside)


def split_groups(
    frames: Sequence[Frame], share: float, seed: int
) -> tuple[list[Frame], list[Frame]]:
    """Put whole groups aside, drawn at random, until they hold about a share of the frames.

    Raises:
        ValueError: if there are fewer than two groups.
    """
    names = list(dict.fromkeys(frame.group for frame in frames))
    if not names:
        raise ValueError("there are no frames to split besides isolated atoms.")
    if len(names) < 2:
        raise ValueError(
            f"all {len(frames)} frames are of one group ('{names[0]}'), so none can be put aside "
            "by group; set `split: random`, or state `group` in the info of the frames."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    wanted = share * len(frames)
    sizes = Counter(frame.group for frame in frames)
    chosen: set[str] = set()
    held = 0
    for position in order[:-1]:
        name = names[position]
        size = sizes[name]
        if chosen and abs(held + size - wanted) > abs(held - wanted):
            continue
        chosen.add(name)
        held += size
        if held >= wanted:
            break
    return _divide(frames, {i for i, frame in enumerate(frames) if frame.group in chosen})


def _divide(frames: Sequence[Frame], aside: set[int]) -> tuple[list[Frame], list[Frame]]:
    kept = [frame for index, frame in enumerate(frames) if index not in aside]
    return kept, [frame for index, frame in enumerate(frames) if index in aside]


def assign_folds(groups: Sequence[str], folds: int, seed: int) -> Int[np.ndarray, " frames"]:
    """Deal whole groups to folds of about equal size; the fold of each frame.

    Groups are dealt largest first to the smallest fold; the seed settles ties.

    Raises:
        ValueError: if there are fewer groups than folds.
    """
    names, counts = np.unique(np.asarray(groups, dtype=object).astype(str), return_counts=True)
    if len(names) < folds:
        raise ValueError(
            f"{folds} members that leave out folds need at least {folds} groups, the training data "
            f"have {len(names)}; state `group` in the info of the frames, lower "
            "`posterior: {members}`, or set `posterior: {left_out: 0}` and calibrate on "
            "`data: {valid}`."
        )
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled], kind="stable")]
    sizes = np.zeros(folds, np.int64)
    fold_of: dict[str, int] = {}
    for position in order:
        fold = int(np.argmin(sizes))
        fold_of[str(names[position])] = fold
        sizes[fold] += counts[position]
    return np.array([fold_of[str(group)] for group in groups])
