"""Who leaves out what, and which settings can be calibrated; draws are in the contracts."""

import numpy as np
import pytest
from pydantic import ValidationError

from surefoot.posteriors.ensemble import EnsembleSettings, unseen_frames

GROUPS = [f"g{number % 13}" for number in range(60)] + ["large"] * 11
SHAPES = [(8, 2), (8, 3), (8, 7), (4, 2), (3, 2), (5, 4)]


@pytest.mark.parametrize(("members", "left_out"), SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_frame_is_unseen_by_as_many_members_as_asked(members, left_out, seed) -> None:
    unseen = unseen_frames(GROUPS, EnsembleSettings(members=members, left_out=left_out), seed)
    assert unseen.shape == (members, len(GROUPS))
    assert unseen.dtype == bool
    assert set(unseen.sum(0)) == {left_out}


@pytest.mark.parametrize(("members", "left_out"), SHAPES)
def test_training_sets_differ_and_none_is_empty_or_whole(members, left_out) -> None:
    unseen = unseen_frames(GROUPS, EnsembleSettings(members=members, left_out=left_out), 0)
    assert len(np.unique(unseen, axis=0)) == members
    assert not unseen.all(1).any()
    assert unseen.any(1).all()


@pytest.mark.parametrize(("members", "left_out"), SHAPES)
def test_groups_are_seen_whole_or_not_at_all(members, left_out) -> None:
    unseen = unseen_frames(GROUPS, EnsembleSettings(members=members, left_out=left_out), 0)
    for group in set(GROUPS):
        columns = unseen[:, [name == group for name in GROUPS]]
        assert (columns == columns[:, :1]).all()


def test_members_that_leave_out_two_folds_share_one_with_each_neighbour() -> None:
    """Of one frame per fold member m leaves out two, m's and the next member's."""
    unseen = unseen_frames([f"g{number}" for number in range(6)], EnsembleSettings(members=6), 0)
    shared = unseen.astype(int) @ unseen.T.astype(int)
    for one in range(6):
        for other in range(6):
            apart = min((one - other) % 6, (other - one) % 6)
            assert shared[one, other] == max(0, 2 - apart)


def test_the_seed_deals_the_folds() -> None:
    settings = EnsembleSettings(members=4)
    first, again, other = (unseen_frames(GROUPS, settings, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    "settings", [EnsembleSettings(members=5, left_out=0), EnsembleSettings(members=1)]
)
def test_nothing_left_out(settings) -> None:
    unseen = unseen_frames(["a", "a", "b"], settings, 0)  # fewer groups than members
    assert unseen.shape == (settings.members, 3)
    assert not unseen.any()


def test_too_few_groups() -> None:
    with pytest.raises(ValueError, match="at least 8 groups"):
        unseen_frames(["a", "b", "c"] * 5, EnsembleSettings(), 0)


@pytest.mark.parametrize(("members", "left_out"), [(8, 1), (2, 1), (2, 2), (8, 8), (8, 9), (3, 3)])
def test_settings_that_can_not_be_calibrated_are_refused(members, left_out) -> None:
    with pytest.raises(ValidationError, match=rf"left_out is {left_out} with {members} members"):
        EnsembleSettings(members=members, left_out=left_out)


@pytest.mark.parametrize("values", [{"members": 0}, {"left_out": -1}, {"name": "swag"}])
def test_impossible_settings_are_refused(values) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        EnsembleSettings.model_validate(values)


@pytest.mark.parametrize(("members", "left_out"), [(1, 2), (1, 1), (2, 0), (3, 2), (8, 7)])
def test_possible_settings(members, left_out) -> None:
    settings = EnsembleSettings(members=members, left_out=left_out)
    assert (settings.members, settings.left_out) == (members, left_out)
