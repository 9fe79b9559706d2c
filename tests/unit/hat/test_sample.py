from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest

from surefoot.hat.sample import sample_configurations, sample_paths
from surefoot.hat.transfer import Placement, PlacementFailed
from surefoot.label.labeler import check_state

DONORS = ["ALA", "GLY", "SER"]
RADICALS = ["methyl", "methoxy"]
FAST = Placement(conformers=2)


def test_one_seed_one_set_of_frames_and_a_shorter_one_is_its_beginning() -> None:
    first = sample_configurations(DONORS, RADICALS, 24, 5, FAST)
    again = sample_configurations(DONORS, RADICALS, 10, 5, FAST)
    other = sample_configurations(DONORS, RADICALS, 10, 6, FAST)
    assert len(first) == 24
    assert len(again) == 10
    for one, two in zip(first, again, strict=False):
        np.testing.assert_array_equal(one.positions, two.positions)
        assert one.info == two.info
    assert not np.allclose(first[0].positions, other[0].positions)
    paths = sample_paths(DONORS, RADICALS, 1, 5, placement=FAST)
    assert not np.allclose(first[0].positions, paths[0].positions)


def test_configurations_are_transfers_of_their_own() -> None:
    frames = sample_configurations(DONORS, RADICALS, 120, 0, FAST)
    kinds = Counter(frame.info["config_type"] for frame in frames)
    assert len({frame.info["system"] for frame in frames}) == 120
    assert 40 <= kinds["between"] <= 80  # 60 expected, σ = 5.5
    assert min(kinds["start"], kinds["end"]) >= 15  # 30 expected, σ = 4.7
    for frame in frames:
        info, moving = frame.info, frame.info["moving_h"]
        others = np.delete(np.arange(len(frame)), moving)
        to_donor = frame.get_distance(moving, info["donor_index"])
        to_acceptor = frame.get_distance(moving, info["acceptor_index"])
        if info["config_type"] == "start":
            assert to_donor < 1.3
        elif info["config_type"] == "end":
            assert to_acceptor < 1.3
        else:
            assert frame.get_distances(moving, others).min() >= 0.8


def test_paths_are_straight_equidistant_and_rigid() -> None:
    frames = sample_paths(DONORS, RADICALS, 2, 0, points=5, placement=FAST)
    assert len(frames) == 10
    assert [frame.info["path_point"] for frame in frames] == [0, 1, 2, 3, 4] * 2
    path = frames[:5]
    moving = path[0].info["moving_h"]
    steps = np.diff([frame.positions[moving] for frame in path], axis=0)
    np.testing.assert_allclose(steps, steps[[0]].repeat(4, axis=0), atol=1e-12)
    assert 4 * np.linalg.norm(steps[0]) == pytest.approx(path[0].info["translation"])
    for frame in path[1:]:
        assert np.flatnonzero((frame.positions != path[0].positions).any(axis=1)).tolist() == [
            moving
        ]


def test_systems_are_spread_over_donors_sites_and_radicals() -> None:
    infos = [frame.info for frame in sample_configurations(DONORS, RADICALS, 3 * 8, 0, FAST)]
    assert Counter(info["donor"] for info in infos) == dict.fromkeys(DONORS, 8)
    alanine = Counter((i["site"], i["radical"]) for i in infos if i["donor"] == "ALA")
    assert alanine == {(site, name): 2 for site in ("CA", "CB") for name in RADICALS}
    assert len({info["system"] for info in infos}) == 24


def test_every_frame_says_what_it_is() -> None:
    frames = sample_paths(["ASN"], ["hydroxymethyl"], 1, 2, points=3, placement=FAST)
    for point, frame in enumerate(frames):
        info = frame.info
        assert (info["charge"], info["spin"]) == (0, 2)
        check_state(frame.numbers, info["charge"], info["spin"])
        assert (info["donor"], info["group"], info["site"]) == ("ASN", "ASN", "CA")
        assert info["radical"] == "hydroxymethyl"
        assert (info["config_type"], info["path_point"], info["path_length"]) == ("path", point, 3)
        assert frame.numbers[info["moving_h"]] == 1
        assert frame.symbols[info["donor_index"]] == "C"
        assert frame.symbols[info["acceptor_index"]] == "C"
        assert info["donor_index"] < 26 <= info["acceptor_index"]


def test_info_survives_a_file(tmp_path: Path) -> None:
    frames = sample_configurations(DONORS, RADICALS, 12, 0, FAST)
    frames += sample_paths(DONORS, RADICALS, 1, 0, placement=FAST)
    ase.io.write(tmp_path / "a.xyz", frames)
    for made, read in zip(frames, ase.io.read(tmp_path / "a.xyz", ":"), strict=True):
        assert set(read.info) == set(made.info)
        for key, value in made.info.items():
            assert isinstance(read.info[key], (str, int, float, np.integer)), key
            if isinstance(value, float):
                assert read.info[key] == pytest.approx(value, abs=1e-7)
            else:
                assert read.info[key] == value, key


@pytest.mark.parametrize(
    ("donors", "radicals", "count", "points", "said"),
    [
        (["XXX"], RADICALS, 1, 11, "no residue 'XXX'. Allowed are GLY"),
        (DONORS, ["oxygen"], 1, 11, "no radical 'oxygen'. Allowed are methyl"),
        ([], RADICALS, 1, 11, "at least one donor and one radical"),
        (DONORS, RADICALS, 0, 11, "count is 0"),
        (DONORS, RADICALS, 1, 2, "path of 2 points"),
    ],
)
def test_requests_that_can_not_be_met(
    donors: list[str], radicals: list[str], count: int, points: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        sample_paths(donors, radicals, count, 0, points)


def test_no_room_names_the_transfer_and_the_remedy() -> None:
    narrow = Placement(conformers=2, tries=3, clearance=30.0)
    with pytest.raises(PlacementFailed, match=r"methyl finds no place at CA of GLY .* 2 conform"):
        sample_configurations(["GLY"], ["methyl"], 1, 0, narrow)
