"""Groups that the user named and that stand in two splits."""

from ase import Atoms

from surefoot.data.check import check_frames
from surefoot.data.findings import Severity
from surefoot.data.groups import check_groups
from surefoot.data.read import Frame


def frame(index: int, group: str, file: str = "a.xyz", *, named: bool = True) -> Frame:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7 + 0.01 * index]])
    if named:
        atoms.info["group"] = group
    return Frame(
        atoms=atoms, energy=0.1 * index, group=group, config_type="x", file=file, index=index
    )


def test_a_named_group_in_two_splits_is_a_warning() -> None:
    splits = {
        "train": [frame(0, "left"), frame(1, "right")],
        "valid": [frame(2, "middle", "v.xyz")],
        "test": [
            frame(3, "other", "t.xyz"),
            frame(4, "right", "t.xyz"),
            frame(5, "right", "t.xyz"),
        ],
    }
    (finding,) = check_groups(splits)
    assert (finding.code, finding.severity) == ("group-in-two-splits", Severity.WARNING)
    assert (finding.file, finding.frame, finding.count) == ("t.xyz", 4, 2)
    assert finding.message.startswith("t.xyz, frame 4: group 'right' of split 'test' is also in")
    assert "split 'train' (a.xyz, frame 1) (and 1 more frame);" in finding.message
    assert finding in check_frames(splits)


def test_sound_splits_and_default_groups_give_nothing() -> None:
    assert check_groups({}) == []
    train = [frame(0, "left"), frame(1, "left")]
    assert check_groups({"train": train, "test": [frame(2, "right", "t.xyz")]}) == []
    default = [frame(2, "left", "t.xyz", named=False)]
    assert check_groups({"train": train, "test": default}) == []


def test_a_share_drawn_at_random_is_meant() -> None:
    """Both splits draw from both files, so a group across files is no news either."""
    train = [frame(0, "left"), frame(1, "left", "b.xyz")]
    valid = [frame(2, "left"), frame(3, "left", "b.xyz")]
    assert check_groups({"train": train, "valid": valid}) == []
    test = [frame(4, "left", "t.xyz")]
    assert len(check_groups({"train": train, "valid": valid, "test": test})) == 1
