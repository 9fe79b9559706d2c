from typing import Any

import pytest
from ase import Atoms

from surefoot.data.check import check_frames
from surefoot.data.findings import Severity
from surefoot.data.levels import check_levels
from surefoot.data.read import Frame


def frame(index: int, method: str | None, **settings: Any) -> Frame:
    atoms = Atoms("He", [[0.0, 0.0, float(index)]])
    if method is not None:
        atoms.info["label_method"] = method
    if settings:
        atoms.info["label_settings"] = settings
    return Frame(
        atoms=atoms, energy=0.1 * index, group="g", config_type="c", file="a.xyz", index=index
    )


def test_two_methods_are_one_finding_that_names_both() -> None:
    frames = [frame(0, "GFN2-xTB"), frame(1, None), frame(2, "BMK"), frame(3, "BMK")]
    (finding,) = check_levels(frames)
    assert (finding.code, finding.severity, finding.count) == ("two-levels", Severity.ERROR, 2)
    assert finding.message.startswith(
        "a.xyz, frame 2: the labels are of BMK, but those of a.xyz, frame 0 are of GFN2-xTB (and 1 "
    )


def test_settings_under_one_name_are_compared_too() -> None:
    same = [frame(0, "BMK", grid=3, code="x 1"), frame(1, "BMK", grid=3, code="x 1")]
    assert check_levels(same) == []
    (finding,) = check_levels([*same, frame(2, "BMK", grid=4, code="x 1")])
    assert "are of BMK (grid 4, not 3), but those" in finding.message


@pytest.mark.parametrize("other", [frame(1, None), frame(1, "BMK")])
def test_what_is_not_stated_is_no_difference(other: Frame) -> None:
    assert check_levels([frame(0, "BMK", grid=3), other]) == []


def test_where_a_file_keeps_no_records_the_hash_of_the_settings_is_compared() -> None:
    frames = [frame(index, "BMK") for index in range(3)]
    for one, level in zip(frames, ("sha256-a", "sha256-a", "sha256-b"), strict=True):
        one.atoms.info["label_level"] = level
    (finding,) = check_levels(frames)
    assert finding.count == 1
    assert finding.message.startswith("a.xyz, frame 2: the labels are of BMK (with other settings)")


def test_the_data_doctor_asks_over_all_splits() -> None:
    splits = {"train": [frame(0, "GFN2-xTB")], "test": [frame(1, "BMK")]}
    assert "two-levels" in {finding.code for finding in check_frames(splits)}
