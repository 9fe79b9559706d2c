"""A file of torch is read to the last tensor, and nothing in it is executed."""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surefoot.deploy.records import (
    Global,
    Record,
    UnreadableFile,
    find,
    read_records,
    tensors,
)
from surefoot.pickles.archive import Archive, Malformed, Storage, rebuild_tensor


class Layer(torch.nn.Module):
    """A module with everything a state_dict has: buffers, a list, and something kept out."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.act = torch.nn.functional.silu
        self.scale = 1.75
        self.shape = (width, 3)
        draw = torch.randn(width, 3, generator=generator, dtype=torch.float64)
        self.weight = torch.nn.Parameter(draw)
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("steps", torch.arange(6).reshape(2, 3).T)
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.register_buffer("absent", None)


class Model(torch.nn.Module):
    """Layers inside a list, and one tensor under two names."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.layers = torch.nn.ModuleList([Layer(2, generator), Layer(4, generator)])
        shared = torch.nn.Parameter(torch.randn(2, generator=generator).half())
        self.extra = torch.nn.ParameterList([shared, shared])
        self.heads = ["Default"]
        self.neighbors = np.float64(12.5)
        self.blob = b"\x00\xff code"


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Write the file's entries again after a change of their dict, uncompressed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def packed(path: Path, program: bytes, storage: bytes = b"\0" * 32) -> Path:
    """A file of torch around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", program)
        archive.writestr("m/data/0", storage)
    return path


class Evil:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def write_proof(path: str) -> None:
    Path(path).write_text("executed", encoding="utf-8")


class Setter:
    """An object that would act when its state is set."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __setstate__(self, state: dict[str, Any]) -> None:
        write_proof(state["path"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_are_those_of_the_state_dict(tmp_path: Path, protocol: int) -> None:
    model = Model()
    record = read_records(save(tmp_path / "a.model", model, pickle_protocol=protocol))
    assert isinstance(record, Record)
    assert record.name.endswith("Model")
    ours, expected = tensors(record), model.state_dict()
    assert list(ours) == list(expected)
    for name, value in expected.items():
        assert ours[name].dtype == value.dtype
        assert torch.equal(ours[name], value), name
        assert not ours[name].requires_grad


def test_attributes_are_found(tmp_path: Path) -> None:
    record = read_records(save(tmp_path / "a.model", Model()))
    assert isinstance(record, Record)
    assert find(record, "layers.1.scale") == 1.75
    assert find(record, "layers.1.shape") == (4, 3)
    assert find(record, "heads.0") == "Default"
    assert find(record, "neighbors") == 12.5
    assert find(record, "blob") == b"\x00\xff code"
    assert find(record, "layers.0.act") == Global("torch.nn.functional.silu")
    assert find(record, "layers.1.weight").shape == (4, 3)
    assert find(record, "layers.1.scratch").tolist() == [1.0, 1.0]
    assert find(record, "layers.1").name.endswith("Layer")
    assert find(record, "layers.7.weight", default=None) is None
    with pytest.raises(UnreadableFile, match=r"Model in the file has no layers\.0\.bias"):
        find(record, "layers.0.bias")


def test_plain_dicts_are_returned(tmp_path: Path) -> None:
    state = Model().state_dict()
    content = {"model": state, "epoch": 3, "losses": [0.5, float("nan")], "seen": {1, 2}}
    result = read_records(save(tmp_path / "a.pt", content))
    assert isinstance(result, dict)
    assert result["epoch"] == 3
    assert result["seen"] == {1, 2}
    assert list(result["model"]) == list(state)
    assert type(result["model"]) is dict
    single = read_records(save(tmp_path / "b.pt", OrderedDict(a=torch.eye(2).to(torch.bfloat16))))
    assert isinstance(single, dict)
    assert torch.equal(single["a"], torch.eye(2).to(torch.bfloat16))


@pytest.mark.parametrize("kind", ["float64", "float32", "int64", "int32", "bool"])
def test_numpy_scalars_become_numbers(tmp_path: Path, kind: str) -> None:
    value = np.dtype(kind).type(1)
    result = read_records(save(tmp_path / "a.pt", {"x": value, "array": np.zeros(2)}))
    assert isinstance(result, dict)
    assert result["x"] == 1
    assert not isinstance(result["x"], np.generic)
    assert isinstance(result["array"], Record)


def test_nothing_is_executed(tmp_path: Path) -> None:
    proofs = [tmp_path / f"proof{index}" for index in range(4)]
    content = {
        "system": Evil(os.system, f"touch {proofs[0]}"),
        "eval": Evil(eval, f"open({str(proofs[1])!r}, 'w').close()"),
        "function": Evil(write_proof, str(proofs[2])),
        "state": Setter(proofs[3]),
        "nested": Evil(getattr, Evil(__import__, "os"), "system"),
    }
    result = read_records(save(tmp_path / "evil.pt", content))
    assert not any(proof.exists() for proof in proofs)
    assert isinstance(result, dict)
    assert result["eval"].name == "builtins.eval"
    assert result["function"].args == (str(proofs[2]),)
    assert result["state"].state == {"path": str(proofs[3])}
    assert result["nested"].args[0].name == "builtins.__import__"
    # The same file does run in the usual reader, so the test could fail.
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert all(proof.exists() for proof in proofs)


def test_a_record_cannot_be_called(tmp_path: Path) -> None:
    program = b"\x80\x02cos\nsystem\nU\x02ls\x85R)R."
    with pytest.raises(UnreadableFile, match=r"a\.pt: its pickle uses the opcode SHORT_BINSTRING"):
        read_records(packed(tmp_path / "a.pt", program))
    program = b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R)R."
    with pytest.raises(UnreadableFile, match="calls something that is no name"):
        read_records(packed(tmp_path / "b.pt", program))


def test_opcodes_that_look_up_objects_are_refused(tmp_path: Path) -> None:
    for program in (b"\x80\x02\x82\x01.", b"(S'ls'\nios\nsystem\n.", b"P7\n."):
        with pytest.raises(UnreadableFile, match="its pickle uses the opcode"):
            read_records(packed(tmp_path / "a.pt", program))


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.model"
    with pytest.raises(UnreadableFile, match=r"a\.model: there is no such file"):
        read_records(path)
    for content in (b"", b"hello", os.urandom(200), b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(UnreadableFile, match=r"not a file of torch\.save"):
            read_records(path)
    save(path, {"a": torch.ones(2)}, _use_new_zipfile_serialization=False)
    with pytest.raises(UnreadableFile, match=r"torch before 1\.6"):
        read_records(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")
    with pytest.raises(UnreadableFile, match=r"has no data\.pkl"):
        read_records(path)
    with pytest.raises(UnreadableFile, match="neither a model nor a dict"):
        read_records(save(path, [1, 2]))


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {"a": torch.ones(2)})
    for name in ("a/constants.pkl", "a/code/__torch__/m.py"):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"")
        with pytest.raises(UnreadableFile, match="a TorchScript archive"):
            read_records(path)
        save(path, {"a": torch.ones(2)})


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.model", Model())
    whole = path.read_bytes()
    for length in range(5, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableFile, match="truncated or damaged"):
            read_records(path)


def test_damaged_bytes_never_give_another_error(tmp_path: Path, rng: np.random.Generator) -> None:
    path = save(tmp_path / "a.model", Model())
    whole = path.read_bytes()
    refused = 0
    for _ in range(100):
        changed = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            result = read_records(path)
            if isinstance(result, Record):
                tensors(result)
        except UnreadableFile:
            refused += 1
    assert refused > 30


def test_damaged_pickles_never_give_another_error(tmp_path: Path, rng: np.random.Generator) -> None:
    with zipfile.ZipFile(save(tmp_path / "a.model", Model())) as archive:
        whole = archive.read("a/data.pkl")
    refused = 0
    for _ in range(100):
        changed = bytearray(whole)
        for place in rng.integers(len(whole), size=2):
            changed[place] = rng.integers(256)
        try:
            result = read_records(packed(tmp_path / "b.model", bytes(changed), b"\0" * 200))
            if isinstance(result, Record):
                tensors(result)
        except UnreadableFile:
            refused += 1
    assert refused > 30


def test_missing_and_short_storages_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {"a": torch.ones(4)})
    with pytest.raises(UnreadableFile, match=r"a\.pt: the numbers of storage '0' are missing"):
        read_records(rewrite(path, lambda entries: entries.pop("a/data/0") and None))
    save(path, {"a": torch.ones(4)})
    with pytest.raises(UnreadableFile, match="has 12 bytes, too few for 4 values"):
        read_records(rewrite(path, lambda entries: entries.update({"a/data/0": bytes(12)})))


def test_compressed_entries_and_doubles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"a": 1}, 2))
        archive.writestr("a/data/0", bytes(10_000_000))
    with pytest.raises(UnreadableFile, match="compressed or encrypted"):
        read_records(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"a": 1}, 2))
        archive.writestr("a/othe.pkl", pickle.dumps({"a": 2}, 2))
    path.write_bytes(path.read_bytes().replace(b"a/othe.pkl", b"a/data.pkl"))
    with pytest.raises(UnreadableFile, match="two of one name"):
        read_records(path)


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"a": 1}, 2))
        archive.writestr("a/data/0", bytes(1000))
        archive.writestr("a/data/1", bytes(1000))
        # The directory says that entry 1 is where entry 0 is, and larger than the file.
        for info in archive.filelist[1:]:
            info.header_offset = archive.filelist[1].header_offset
            info.file_size = info.compress_size = 1500
        archive._didModify = True
    with pytest.raises(UnreadableFile, match="larger than the file"):
        read_records(path)


def test_other_byte_order_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {"a": torch.ones(4)})
    with pytest.raises(UnreadableFile, match="other byte order"):
        read_records(rewrite(path, lambda entries: entries.update({"a/byteorder": b"big"})))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    path = packed(tmp_path / "a.pt", pickle.dumps({}, 2), struct.pack("<6d", *range(6)))
    with zipfile.ZipFile(path) as opened:
        yield Archive(opened, path.stat().st_size)


def test_strides_and_offsets_are_followed(archive: Archive) -> None:
    storage = Storage("0", torch.float64, 6)
    assert rebuild_tensor(archive, storage, 1, (2, 2), (1, 3)).tolist() == [[1, 4], [2, 5]]
    assert rebuild_tensor(archive, storage, 5, (), ()).item() == 5
    assert rebuild_tensor(archive, storage, 0, (0, 7), (7, 1)).shape == (0, 7)
    assert rebuild_tensor(archive, Storage("0", torch.bool, 48), 7, (1,), (1,)).tolist() == [False]


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2, 3), (4, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (10**15,), (0,)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (2,), (1, 1)),
        (0, (1,) * 40, (1,) * 40),
        (0, ("2",), (1,)),
        (0, (True,), (1,)),
        (0, 3, 1),
        (6, (1,), (1,)),
        (0, (0, 2**61, 2**61), (1, 1, 1)),
        (0, (0, 2**40), (1, 1)),
    ],
)
def test_tensors_outside_their_storage_are_refused(
    archive: Archive, offset: int, size: Any, stride: Any
) -> None:
    with pytest.raises(Malformed, match="tensor"):
        rebuild_tensor(archive, Storage("0", torch.float64, 6), offset, size, stride)


def test_many_views_of_one_storage_are_bounded(tmp_path: Path) -> None:
    whole = torch.ones(1000)
    path = save(tmp_path / "a.pt", [whole[:999] for _ in range(20)])
    with pytest.raises(UnreadableFile, match="together larger than the file"):
        read_records(path)


def test_other_kinds_of_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"stored as torch\.ComplexFloatStorage"):
        read_records(save(tmp_path / "a.pt", {"a": torch.ones(2, dtype=torch.complex64)}))
    model = Model()
    model.layers[0].weight = torch.nn.Parameter(torch.ones(2).to_sparse())
    record = read_records(save(tmp_path / "b.pt", model))
    assert isinstance(record, Record)
    with pytest.raises(UnreadableFile, match=r"layers\.0\.weight: .* is not a tensor"):
        tensors(record)


def test_modules_without_end_are_refused(tmp_path: Path) -> None:
    loop = Record("Loop")
    loop.state["_modules"] = {"again": loop}
    with pytest.raises(UnreadableFile, match="deeper than 100 levels"):
        tensors(loop)
    # Each level holds the next one twice: 2^60 names of a single small file.
    level = Record("Leaf")
    for _ in range(60):
        level = Record("Node", state={"_modules": {"a": level, "b": level}})
    with pytest.raises(UnreadableFile, match="more than 20000 modules"):
        tensors(level)


def test_deep_nesting_does_no_harm(tmp_path: Path) -> None:
    depth = 20_000
    # Nested lists are refused at the end since they are no model; nested keys would recurse.
    with pytest.raises(UnreadableFile, match="neither a model nor a dict"):
        read_records(packed(tmp_path / "a.pt", b"\x80\x02)" + b"\x85" * depth + b"."))
    with pytest.raises(UnreadableFile, match="neither a model nor a dict"):
        read_records(packed(tmp_path / "b.pt", b"\x80\x02" + b"(" * depth + b"l" * depth + b"."))
    with pytest.raises(UnreadableFile, match="a container as a key"):
        read_records(packed(tmp_path / "c.pt", b"\x80\x02})" + b"\x85" * depth + b"K\x01s."))


def test_absurd_numbers_cost_nothing(tmp_path: Path) -> None:
    # A memo index of 2^32 - 1, a text of 2^40 bytes, a pickle without an end.
    result = read_records(packed(tmp_path / "a.pt", b"\x80\x02}r\xff\xff\xff\xff."))
    assert result == {}
    long = b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc."
    for program in (long, b"\x80\x02}", b"", b"\x80\x02.", b"}0000.", b"\x80\x02}u."):
        with pytest.raises(UnreadableFile, match="its pickle"):
            read_records(packed(tmp_path / "a.pt", program))


@pytest.mark.parametrize("made", ["torch\nSize", "builtins\nset", "collections\nOrderedDict"])
@pytest.mark.parametrize("of", [b"X\x02\0\0\0ab", b"}", b"\x8f"], ids=["text", "dict", "set"])
def test_containers_are_made_of_lists(tmp_path: Path, made: str, of: bytes) -> None:
    program = b"\x80\x04}X\x01\0\0\0ac" + made.encode() + b"\n" + of + b"\x85Rs."
    with pytest.raises(UnreadableFile, match="something that is no list"):
        read_records(packed(tmp_path / "a.pt", program))


def integer(value: int) -> bytes:
    content = pickle.encode_long(value)
    return b"\x8a" + bytes([len(content)]) + content


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (integer(2**61 - 1), "enormous integer"),
        (integer(-(2**60)), "enormous integer"),
        (integer(2**31) + b"K\x01\x86", "enormous integer"),
        (b"G" + struct.pack(">d", 0.5) + b"K\x01\x86", "several real numbers"),
    ],
)
def test_keys_whose_hashes_are_chosen_are_refused(tmp_path: Path, key: bytes, words: str) -> None:
    """Python's dicts take n² steps where n keys have one hash, and those of numbers are known."""
    with pytest.raises(UnreadableFile, match=words):
        read_records(packed(tmp_path / "a.pt", b"\x80\x02}" + key + b"Ns."))
    with pytest.raises(UnreadableFile, match=words):
        read_records(packed(tmp_path / "b.pt", b"\x80\x04}K\x01\x8f(" + key + b"\x90s."))


def test_usual_keys_are_read(tmp_path: Path) -> None:
    keys = {2**60 - 1: 1, -7: 2, "a": 3, 0.5: 4, ("a", 2**31 - 1): 5, None: 6, True: 7}
    assert read_records(packed(tmp_path / "a.pt", pickle.dumps(keys, 4))) == keys


TIMES = 60
COPIES: dict[str, bytes] = {
    "size": b"ctorch\nSize\nq\x01" + b"h\x01h\x00\x85R" * TIMES,
    "set": b"cbuiltins\nset\nq\x01" + b"h\x01h\x02\x85R" * TIMES,
    "frozenset": b"cbuiltins\nfrozenset\nq\x01" + b"h\x01h\x02\x85R" * TIMES,
    "ordered": b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x03\x85R" * TIMES,
    "arguments": b"cany\nthing\nq\x01" + b"h\x01h\x04}\x92" * TIMES,
    "attributes": b"cany\nthing\nq\x01" + b"h\x01)\x81}X\x01\0\0\0aNsbh\x05b" * TIMES,
    "bytes": b"c_codecs\nencode\nq\x01" + b"h\x01h\x06X\x06\0\0\0latin1\x86R" * TIMES,
    "names": b"h\x06h\x06\x93" * TIMES,
    "passed": b"ctorch._utils\n_rebuild_parameter\nq\x01" + b"h\x01h\x04R" * TIMES,
}
"""Programs that copy one large object many times."""


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_one_container_are_bounded(tmp_path: Path, kind: str) -> None:
    """A few bytes in a file copy a container of the whole file's size."""
    count = 100_000
    numbers = [b"J" + struct.pack("<i", n) for n in range(count)]
    large = {
        "size": b"]q\x00(" + b"N" * count + b"e",
        "set": b"]q\x02(" + b"".join(numbers) + b"e",
        "frozenset": b"]q\x02(" + b"".join(numbers) + b"e",
        "ordered": b"]q\x03(" + b"".join(n + b"N\x86" for n in numbers) + b"e",
        "arguments": b"(" + b"N" * count + b"tq\x04",
        "passed": b"(" + b"N" * count + b"tq\x04",
        "attributes": b"}q\x05(" + b"".join(n + b"N" for n in numbers) + b"u",
        "bytes": b"X" + struct.pack("<I", count) + b"a" * count + b"q\x06",
        "names": b"X" + struct.pack("<I", count) + b"a" * count + b"q\x06",
    }[kind]
    path = packed(tmp_path / "m", b"\x80\x04" + large + COPIES[kind] + b".")
    with pytest.raises(UnreadableFile, match="together larger than the file"):
        read_records(path)


def test_a_value_that_is_no_tensor_is_named_in_few_words(tmp_path: Path) -> None:
    """A tuple of twice the same tuple, forty times: its text would never end."""
    parameters = b"}X\x06\0\0\0weightN" + b"2\x86" * 40 + b"s"
    state = b"}X\x0b\0\0\0_parameters" + parameters + b"s"
    record = read_records(packed(tmp_path / "m", b"\x80\x02cany\nthing\n)\x81" + state + b"b."))
    assert isinstance(record, Record)
    with pytest.raises(UnreadableFile, match=r"^weight: a tuple is not a tensor"):
        tensors(record)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "m", {"a": torch.ones(2)})

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr(zipfile.io, "open", refuse)
    with pytest.raises(UnreadableFile, match=r"m: it cannot be read \(Permission denied\)"):
        read_records(path)
