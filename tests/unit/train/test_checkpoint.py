import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from surefoot.train import checkpoint
from surefoot.train.checkpoint import (
    RefusedFile,
    digest,
    read_tree,
    refuse_difference,
    sweep,
    write_atomically,
    write_tree,
)

HEADER = {"scale": 1.25, "names": ["a", "b"], "best": None, "deep": {"seed": 3}}


@pytest.fixture
def tree(generator) -> dict[str, torch.Tensor]:
    return {
        "weight": torch.randn((2, 3), generator=generator, dtype=torch.float64),
        "single": torch.randn(4, generator=generator),
        "scalar": torch.tensor(2.5),
        "mask": torch.tensor([True, False]),
        "count": torch.tensor([3, 4]),
        "empty": torch.zeros((0, 3)),
        "strided": torch.randn((3, 4), generator=generator).T,
        "shared": torch.ones(1).expand(3),
    }


@pytest.fixture
def file(tmp_path, tree) -> Path:
    path = tmp_path / "run.ckpt"
    write_tree(path, "checkpoint", tree, HEADER)
    return path


def test_round_trip(file, tree) -> None:
    found, header = read_tree(file, "checkpoint")
    assert found.keys() == tree.keys()
    for name, value in tree.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name
    assert {name: header[name] for name in HEADER} == HEADER
    assert header["kind"] == "checkpoint"


def test_folder_is_made_and_nothing_else_is_left(tmp_path, tree) -> None:
    path = tmp_path / "new" / "folder" / "run.ckpt"
    write_tree(path, "checkpoint", tree, HEADER)
    assert list(path.parent.iterdir()) == [path]


def test_header_must_be_json(tmp_path, tree) -> None:
    path = tmp_path / "run.ckpt"
    with pytest.raises(ValueError, match="JSON"):
        write_tree(path, "checkpoint", tree, {"loss": float("nan")})
    assert not path.exists()


def test_every_truncation_is_refused(file) -> None:
    content = file.read_bytes()
    for length in {0, 1, 8, 100, len(content) // 2, len(content) - 1}:
        file.write_bytes(content[:length])
        with pytest.raises(RefusedFile, match="damaged or not a safetensors file"):
            read_tree(file, "checkpoint")


def test_every_flipped_byte_is_refused(tmp_path) -> None:
    """Anywhere in the file: sizes, names, description and numbers."""
    path = tmp_path / "run.ckpt"
    write_tree(path, "checkpoint", {"a": torch.arange(3.0)}, {"scale": 1.25})
    content = path.read_bytes()
    for position in range(len(content)):
        broken = bytearray(content)
        broken[position] ^= 1
        path.write_bytes(broken)
        with pytest.raises(RefusedFile):
            read_tree(path, "checkpoint")


def test_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(RefusedFile, match="no such file"):
        read_tree(tmp_path / "nowhere.ckpt", "checkpoint")
    with pytest.raises(RefusedFile, match="this is a folder; name a file in it"):
        read_tree(tmp_path, "checkpoint")


def test_foreign_safetensors_are_refused(tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"a": torch.ones(2)}, path, metadata=metadata)
        with pytest.raises(RefusedFile, match="not one that surefoot wrote"):
            read_tree(path, "checkpoint")


def test_wrong_kind_is_refused(file) -> None:
    with pytest.raises(RefusedFile, match="this is a checkpoint; a predictor is needed"):
        read_tree(file, "predictor")


def test_newer_format_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "run.ckpt"
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    write_tree(path, "checkpoint", {"a": torch.ones(2)}, {})
    monkeypatch.undo()
    with pytest.raises(RefusedFile, match=r"format 99.*reads up to 4; install a newer one"):
        read_tree(path, "checkpoint")


def test_older_format_is_upgraded_step_by_step(tmp_path, monkeypatch) -> None:
    path = tmp_path / "run.ckpt"
    monkeypatch.setattr(checkpoint, "FORMAT", -1)
    write_tree(path, "checkpoint", {"a": torch.ones(2)}, {"old": 5})
    monkeypatch.undo()
    steps = {
        -1: lambda header: {**header, "format": 0, "middle": header["old"] + 1},
        0: lambda header: {**header, "format": checkpoint.FORMAT, "new": header["middle"] + 1},
    }
    monkeypatch.setattr(checkpoint, "UPGRADES", steps)
    assert read_tree(path, "checkpoint")[1]["new"] == 7


def test_a_checkpoint_of_format_1_was_not_conditioned(tmp_path, monkeypatch) -> None:
    path = tmp_path / "run.ckpt"
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    write_tree(path, "checkpoint", {"a": torch.ones(2)}, {"identity": {"model": {"name": "x"}}})
    monkeypatch.undo()
    identity = read_tree(path, "checkpoint")[1]["identity"]
    assert identity == {"model": {"name": "x"}, "conditioning": {"name": "none"}}


def test_pickle_is_refused_and_not_executed(tmp_path) -> None:
    witness = tmp_path / "executed"

    class Malicious:
        def __reduce__(self):
            return Path.touch, (witness,)

    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(RefusedFile, match="not a safetensors file"):
        read_tree(path, "checkpoint")
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(RefusedFile, match="not a safetensors file"):
        read_tree(path, "checkpoint")
    assert not witness.exists()


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failure_while_writing_leaves_the_old_file(failing, file, tree, monkeypatch) -> None:
    before = file.read_bytes()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    target = checkpoint.os if failing == "fsync" else checkpoint.Path
    monkeypatch.setattr(target, failing, fail)
    with pytest.raises(KeyboardInterrupt):
        write_tree(file, "checkpoint", tree, {"scale": 9.0})
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_writing_replaces_the_old_file(file) -> None:
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"


def test_digest_sees_names_types_shapes_values_and_text(generator) -> None:
    value = torch.randn((2, 3), generator=generator)
    trees = [
        {"a": value},
        {"b": value},
        {"a": value.reshape(3, 2)},
        {"a": value.view(torch.int32)},
        {"a": value + 1e-6},
        {},
    ]
    digests = [digest(tree) for tree in trees] + [digest(trees[0], "text")]
    assert len(set(digests)) == len(digests)
    assert digest({"a": value.clone(), "b": value}) == digest({"b": value, "a": value.clone()})


def test_difference_names_setting_and_both_values(tmp_path) -> None:
    path = tmp_path / "run.ckpt"
    before = {"train": {"seed": 0, "limits": [1, 2]}, "model": {"cutoff": 5.0}}
    same = {"model": {"cutoff": 5.0}, "train": {"limits": (1, 2), "seed": 0}}
    refuse_difference(json.loads(json.dumps(before)), same, path)
    with pytest.raises(RefusedFile, match=r"train\.seed was 0 and is now 1"):
        refuse_difference(before, {**same, "train": {"seed": 1, "limits": [1, 2]}}, path)
    with pytest.raises(RefusedFile, match=r"model\.cutoff was 5\.0 and is now nothing"):
        refuse_difference(before, {"train": before["train"]}, path)


def test_what_a_killed_writer_has_left_is_swept(tmp_path, monkeypatch) -> None:
    """Its own temporary file under any name that it may have, and nothing else."""

    def die(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("os.fsync", die)
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # as after SIGKILL
    for name in ("a[1].csv", "b.csv"):
        with pytest.raises(SystemExit):
            write_atomically(tmp_path / name, b"half")
    monkeypatch.undo()
    (tmp_path / ".a[1].csv.kept").write_text("a file of somebody else")
    left = {path.name for path in tmp_path.iterdir()}
    sweep(tmp_path, ["a[1].csv", "c.csv"])
    gone = left - {path.name for path in tmp_path.iterdir()}
    assert len(gone) == 1
    assert gone.pop().startswith(".a[1].csv.")


@pytest.mark.parametrize("header", [[1], 3, None, {}, {"format": []}, {"format": 4}, {"kind": 3}])
def test_descriptions_that_are_none_are_refused(tmp_path, header) -> None:
    """With a checksum that fits, where there is a place for one."""
    tree, path = {"x": torch.ones(1)}, tmp_path / "f"
    if isinstance(header, dict):
        header = {**header, "digest": digest(tree, json.dumps(header))}
    save_file(tree, path, metadata={checkpoint.METADATA: json.dumps(header)})
    with pytest.raises(RefusedFile, match="f: "):
        read_tree(path, "checkpoint")
    header = {"format": 1, "kind": "predictor", "baseline": 3}  # which no function upgrades
    header = {**header, "digest": digest(tree, json.dumps(header))}
    save_file(tree, path, metadata={checkpoint.METADATA: json.dumps(header)})
    with pytest.raises(RefusedFile, match="not one of format 1"):
        read_tree(path, "predictor")


def test_a_run_that_is_none_is_refused(tmp_path) -> None:
    with pytest.raises(RefusedFile, match="it does not say of which run it is"):
        refuse_difference([1], {"a": 1}, tmp_path)
    with pytest.raises(RefusedFile, match="belongs to another run") as caught:
        refuse_difference({"a": "x" * 10_000}, {"a": 1}, tmp_path)
    assert len(str(caught.value)) < 1000
