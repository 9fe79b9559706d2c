"""Splits and folds: whole groups, fair sizes, the seed decides."""

from collections import Counter

import numpy as np
import pytest
from ase import Atoms

from surefoot.data.read import Frame
from surefoot.data.splits import assign_folds, split_groups, split_random

SIZES = (1, 7, 3, 12, 5, 5, 2, 9, 4, 6, 8, 3)


def frames_of(sizes: tuple[int, ...]) -> list[Frame]:
    """Frames of groups of these sizes, mixed."""
    names = [f"group{number}" for number, size in enumerate(sizes) for _ in range(size)]
    order = np.random.default_rng(5).permutation(len(names))
    return [
        Frame(atoms=Atoms("H"), group=names[place], config_type="", file="f", index=index)
        for index, place in enumerate(order)
    ]


def indices(frames: list[Frame]) -> list[int]:
    return [frame.index for frame in frames]


@pytest.mark.parametrize("split", [split_random, split_groups])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_every_frame_is_on_one_side_in_its_order(split, share, seed) -> None:
    frames = frames_of(SIZES)
    kept, aside = split(frames, share, seed)
    assert kept
    assert aside
    assert sorted(indices(kept) + indices(aside)) == indices(frames)
    assert indices(kept) == sorted(indices(kept))
    assert indices(aside) == sorted(indices(aside))


@pytest.mark.parametrize("split", [split_random, split_groups])
def test_the_seed_decides(split) -> None:
    frames = frames_of(SIZES)
    first, again, other = (indices(split(frames, 0.3, seed)[1]) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("count", "share", "aside"), [(10, 0.3, 3), (10, 0.01, 1), (10, 0.99, 9), (2, 0.5, 1)]
)
def test_share_of_a_random_split(count, share, aside) -> None:
    assert len(split_random(frames_of((count,)), share, 0)[1]) == aside


def test_every_frame_may_be_drawn() -> None:
    drawn = Counter(
        i for seed in range(300) for i in indices(split_random(frames_of((5,)), 0.4, seed)[1])
    )
    # 120 expected of each, standard deviation √(300 · 0.4 · 0.6) = 8.5
    assert set(drawn) == set(range(5))
    assert all(abs(count - 120) < 35 for count in drawn.values())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_groups_are_never_divided_and_the_share_is_near(seed, share) -> None:
    frames = frames_of(SIZES)
    kept, aside = split_groups(frames, share, seed)
    assert not {frame.group for frame in kept} & {frame.group for frame in aside}
    assert abs(len(aside) - share * len(frames)) <= max(SIZES)


def test_equal_groups_give_the_share_exactly() -> None:
    for seed in range(10):
        assert len(split_groups(frames_of((4,) * 10), 0.3, seed)[1]) == 12


def test_what_can_not_be_split_says_so() -> None:
    with pytest.raises(ValueError, match="at least two"):
        split_random(frames_of((1,)), 0.5, 0)
    with pytest.raises(ValueError, match=r"one group \('group0'\).*split: random"):
        split_groups(frames_of((6,)), 0.5, 0)
    with pytest.raises(ValueError, match="no frames"):
        split_groups([], 0.5, 0)


# --- folds ----------------------------------------------------------------------------------


def groups_of(sizes: tuple[int, ...]) -> list[str]:
    return [frame.group for frame in frames_of(sizes)]


@pytest.mark.parametrize("folds", [2, 3, 5, 12])
@pytest.mark.parametrize("seed", range(5))
def test_folds_hold_whole_groups_and_are_about_equal(folds, seed) -> None:
    groups = groups_of(SIZES)
    fold = assign_folds(groups, folds, seed)
    assert len(fold) == len(groups)
    assert set(fold) == set(range(folds))
    assert len(set(zip(groups, fold, strict=True))) == len(set(groups))
    sizes = np.bincount(fold)
    # The largest fold was the smallest when its last group came.
    assert sizes.max() - sizes.min() <= max(SIZES)


def test_equal_groups_make_equal_folds_and_the_seed_settles_ties() -> None:
    groups = groups_of((3,) * 12)
    assert list(np.bincount(assign_folds(groups, 4, 0))) == [9, 9, 9, 9]
    first, again, other = (assign_folds(groups, 4, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_as_many_groups_as_folds_are_one_each() -> None:
    groups = ["b", "a", "c", "a"]
    fold = assign_folds(groups, 3, 0)
    assert fold[1] == fold[3]
    assert sorted({fold[0], fold[1], fold[2]}) == [0, 1, 2]


def test_too_few_groups_for_the_folds() -> None:
    with pytest.raises(ValueError, match=r"4 members.*at least 4 groups.*have 2.*left_out: 0"):
        assign_folds(["a", "a", "b", "b", "b"], 4, 0)
