"""A small data set from end to end: rules of the frames, splits, seeds, manifest, bad input."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from pydantic import ValidationError
from scipy.spatial.distance import pdist

from surefoot.data.check import check_frames
from surefoot.data.read import read_frames
from surefoot.hat.build import BuildSettings, Built, build
from surefoot.hat.draws import BuildFailed
from surefoot.hat.manifest import conformers_missing, count_frames, write_manifest
from surefoot.label.run import label_frames
from surefoot.label.xtb import Xtb

CONTENT: dict[str, Any] = {
    "splits": {
        "train": {"smiles": {"methanol": "CO", "thiol": "CS"}, "frames": 14, "paths": 2},
        "test": {"smiles": {"ammonium": "C[NH3+]"}, "frames": 5, "paths": 1},
    },
    "radicals": ["methyl", "methoxy"],
    "configurations": {"per_transfer": 2, "relaxed": 0.5, "steps": 2},
    "scans": {"points": 5},
    "conformers": {"count": 1},
    "dynamics": {"snapshots": 1, "settling": 3, "interval": 3},
}


def settings_of(**changed: Any) -> BuildSettings:
    return BuildSettings.model_validate(CONTENT | changed)


@pytest.fixture(scope="module")
def built() -> Built:
    return build(settings_of())


@pytest.fixture(scope="module")
def everything(built: Built) -> list[Atoms]:
    return [atoms for frames in built.frames.values() for atoms in frames]


def test_each_split_has_its_files(built: Built) -> None:
    assert {name: len(frames) for name, frames in built.frames.items()} == {
        "train": 14,
        "train_paths": 10,
        "test": 5,
        "test_paths": 5,
    }


def test_every_frame_says_what_it_is(built: Built, everything: list[Atoms]) -> None:
    for atoms in everything:
        info = atoms.info
        assert info["spin"] == 2
        assert (int(atoms.numbers.sum()) - info["charge"]) % 2 == 1
        moving, donor, acceptor = (
            info[key] for key in ("moving_h", "donor_index", "acceptor_index")
        )
        assert atoms.numbers[moving] == 1
        assert min(atoms.numbers[donor], atoms.numbers[acceptor]) > 1
        assert info["group"] == info["donor"]
        assert 0 < info["translation"] <= 3.0
        assert atoms.get_distance(donor, acceptor) == pytest.approx(info["distance"], abs=0.2)
        if info["config_type"] == "start":
            assert atoms.get_distance(moving, donor) < 1.6
            assert atoms.get_angle(donor, moving, acceptor) == pytest.approx(info["angle"], abs=0.1)
        if info["config_type"] == "end":
            assert atoms.get_distance(moving, acceptor) < 1.6
    charges = {name: {a.info["charge"] for a in frames} for name, frames in built.frames.items()}
    assert charges["train"] == {0}
    assert charges["test"] >= {1}  # with a small radical, or within the ion
    assert {a.info["transfer"] for a in built.frames["train"]} == {
        "intermolecular",
        "intramolecular",
    }
    assert {"start", "between", "end", "relaxed"} == {
        a.info["config_type"] for a in built.frames["train"]
    }


def test_two_ions_have_the_charge_of_both(built: Built) -> None:
    for atoms in built.frames["test"]:
        ions = {"ammonium": 1}
        expected = ions[atoms.info["donor"]]
        if atoms.info["transfer"] == "intermolecular":
            expected += ions.get(atoms.info["acceptor"], 0)
        assert atoms.info["charge"] == expected


def test_all_frames_keep_the_limits(everything: list[Atoms]) -> None:
    for atoms in everything:
        assert pdist(atoms.positions).min() > 0.5
        moving = atoms.info["moving_h"]
        partners = [atoms.info["donor_index"], atoms.info["acceptor_index"], moving]
        others = np.delete(np.arange(len(atoms)), partners)
        if len(others):
            assert atoms.get_distances(moving, others).min() >= 0.8 - 1e-5
        np.testing.assert_array_equal(atoms.positions, np.round(atoms.positions, 6))


def test_scans_are_straight_equidistant_and_rigid(built: Built) -> None:
    path = built.frames["train_paths"][:5]
    assert [atoms.info["path_point"] for atoms in path] == [0, 1, 2, 3, 4]
    moving = path[0].info["moving_h"]
    steps = np.diff([atoms.positions[moving] for atoms in path], axis=0)
    np.testing.assert_allclose(steps, steps[[0]].repeat(4, axis=0), atol=3e-6)
    assert 4 * np.linalg.norm(steps[0]) == pytest.approx(path[0].info["translation"], abs=1e-5)
    for atoms in path[1:]:
        moved = (atoms.positions != path[0].positions).any(axis=1)
        assert np.flatnonzero(moved).tolist() == [moving]


def test_labelled_frames_pass_the_doctor(built: Built, tmp_path: Path) -> None:
    """And a file keeps all that the frames say."""
    splits = {}
    for name, frames in built.frames.items():
        ase.io.write(tmp_path / f"{name}.xyz", frames, format="extxyz")
        output = tmp_path / f"{name}_labelled.xyz"
        label_frames(read_frames([tmp_path / f"{name}.xyz"]), Xtb(), output)
        splits[name] = read_frames([output])
        for made, read in zip(frames, splits[name], strict=True):
            for key, value in made.info.items():
                same = pytest.approx(value) if isinstance(value, float) else value
                assert read.atoms.info[key] == same, key
    # A set of so few molecules may test elements and distances that it does not teach.
    for part in ("test", "test_paths"):
        findings = check_frames({"train": splits["train"], "test": splits[part]})
        assert {one.code for one in findings} <= {"unknown-element", "extrapolation"}


def test_splits_share_no_molecule(built: Built) -> None:
    donors = {
        name: {atoms.info["donor"] for atoms in frames} for name, frames in built.frames.items()
    }
    assert donors["train"] | donors["train_paths"] == {"methanol", "thiol"}
    assert donors["test"] | donors["test_paths"] == {"ammonium"}


def test_one_seed_one_manifest_and_more_frames_begin_alike(built: Built) -> None:
    """To the byte; another seed is another set."""
    train = {**CONTENT["splits"]["train"], "frames": 3, "paths": 0}
    fewer = build(settings_of(splits={"train": train}))
    for one, two in zip(built.frames["train"], fewer.frames["train"], strict=False):
        np.testing.assert_array_equal(one.positions, two.positions)
        assert one.info == two.info
    small = {"train": {"smiles": {"water": "O"}, "frames": 2}}
    made = {"splits": small, "radicals": ["methyl"], "pairing": {"intramolecular": 0}}
    manifests = []
    with ThreadPoolExecutor(2) as pool:
        for seed, executor in ((0, None), (0, pool), (1, None)):
            settings = settings_of(**made, seed=seed)
            manifests.append(write_manifest(build(settings, executor), settings))
    assert manifests[0] == manifests[1]
    assert json.loads(manifests[0])["files"] != json.loads(manifests[2])["files"]


def test_the_manifest_says_what_is_in_the_set(built: Built) -> None:
    settings = settings_of()
    found = json.loads(write_manifest(built, settings))
    assert found["seed"] == 0
    assert found["settings"]["scans"]["points"] == 5
    assert found["splits"] == {"train": ["methanol", "thiol"], "test": ["ammonium"]}
    assert {molecule["name"]: molecule["charge"] for molecule in found["molecules"]} == {
        "methanol": 0,
        "thiol": 0,
        "ammonium": 1,
        "parent:C": 0,
        "parent:CO": 0,
    }
    records = found["files"]["train.xyz"]
    assert [record["frame"] for record in records] == list(range(14))
    assert len({record["hash"] for record in records}) == 14
    assert set(found["rejected"]) == {"conformers", *built.frames}
    assert found["counts"]["test_paths"]["transfers"] == 1
    more = settings_of(conformers={"count": 4})
    assert conformers_missing(built, more) == dict.fromkeys(built.ensembles, 1)
    assert conformers_missing(built, settings) == {}


def test_counts_are_of_transfers(built: Built) -> None:
    counts = count_frames(built.frames["train"])
    assert counts["frames"] == 14
    assert counts["transfers"] == 7
    for name in ("transfer", "elements", "donor_residue", "translation", "distance", "angle"):
        assert sum(counts[name].values()) == 7, name
    assert sum(counts["config_type"].values()) == 14


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"sequences": ["GXA"]}, "'X' at place 2 is no amino acid"),
        ({"residues": ["PYL"]}, "Residue 'PYL' is no amino acid"),
        ({"smiles": {"bad": "C("}}, "bad .* no SMILES"),
        ({"smiles": {"pair": "CO.C"}}, "pair .* several molecules"),
        ({"smiles": {"a": "CO", "b": "OC"}}, "Split 'train': a is named twice"),
        ({"smiles": {"a b": "CO"}}, "called 'a b', which is taken, empty or has spaces"),
        ({"smiles": {"tetrachloride": "ClC(Cl)(Cl)Cl"}}, "tetrachloride has no abstractable"),
        ({"smiles": {"ALA": "CO"}, "residues": ["ALA"]}, "called 'ALA', which is taken"),
    ],
)
def test_molecules_that_can_not_be_used(split: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(settings_of(splits={"train": split | {"frames": 1}}))


def test_a_molecule_in_two_splits() -> None:
    splits = {
        "train": {"residues": ["ALA"], "frames": 1},
        "test": {"smiles": {"x": "CNC(=O)[C@H](C)NC(C)=O"}, "frames": 1},
    }
    with pytest.raises(ValueError, match="x is in the splits 'train' and 'test'; splits share no"):
        build(settings_of(splits=splits))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"splits": {}}, "name at least one data set"),
        ({"splits": {"a/b": CONTENT["splits"]["test"]}}, "'a/b' is to be the name of a file"),
        ({"splits": {"a_paths": CONTENT["splits"]["test"]}}, "kept for scans"),
        ({"splits": {"train": {"frames": 3}}}, "name a molecule among residues, sequences or"),
        ({"splits": {"train": {"residues": ["ALA"]}}}, "ask for frames or paths"),
        ({"radicals": ["oxygen"]}, "no radical 'oxygen'"),
        ({"radicals": []}, "none is named"),
        ({"labeler": {"name": "abacus"}}, "'abacus' is not known; there is xtb"),
        ({"labeler": {"method": "PM7"}}, "GFN2-xTB"),
        ({"scans": {"translations": [3.5, 4.0]}}, "begin at 3.5 Å, beyond the longest"),
        ({"scans": {"translations": [2.0, 1.0]}}, "the smaller one first"),
        ({"scans": {"points": 2}}, "greater than or equal to 3"),
        ({"configurations": {"per_transfer": 9}}, "per_transfer is 9 and there are 4 positions"),
        ({"configurations": {"positions": ["end", "end"]}}, "stand once at most"),
        ({"limits": {"stretch": 0.9}}, "greater than 1"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_can_not_be(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings_of(**changed)


def test_no_acceptor_in_range_names_the_reasons() -> None:
    with pytest.raises(
        BuildFailed,
        match=r"methanol.*no acceptor is in range.*molecules clash \(\d+\).*wider `cone`",
    ):
        build(
            settings_of(
                splits={"train": {"smiles": {"methanol": "CO"}, "frames": 1}},
                limits={"clearance": 30.0, "tries": 2},
                pairing={"intramolecular": 0},
            )
        )


def test_no_two_hydrogens_in_reach() -> None:
    with pytest.raises(
        BuildFailed, match=r"methanol: no acceptor .*in reach \(\d+\).*longer `reach`"
    ):
        build(
            settings_of(
                splits={"train": {"smiles": {"methanol": "CO"}, "frames": 1}},
                limits={"tries": 3},
                pairing={"radical": 0, "molecule": 0, "reach": 0.5},
            )
        )
