"""A pickle with tensors in it is read to the last number, and nothing in it is executed."""

import io
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surefoot.pickles.archive import Malformed
from surefoot.pickles.record import MAGIC, VERSION, read_record
from surefoot.pickles.unpickle import Record

NONE: frozenset[str] = frozenset()
HELD = {
    "floats": torch.arange(6.0).reshape(2, 3).T,
    "doubles": torch.linspace(0, 1, 4, dtype=torch.float64),
    "integers": torch.tensor([[1, -2], [3, 4]]),
    "truths": torch.tensor([True, False, True]),
    "small": torch.tensor([1, 2], dtype=torch.uint8),
    "scalar": torch.tensor(2.5),
    "none": torch.zeros(0, 3),
    "plain": [1, "two", 3.5, None, (True, {"a": 1})],
    "number": np.float64(7.25),
}


class Acts:
    """An object whose pickle calls something."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def nested(*parts: object, values: bytes = b"") -> bytes:
    """A storage in the old format of torch, from pickles of these parts and its values."""
    return b"".join(pickle.dumps(part, protocol=2) for part in parts) + values


def call(function: str, *arguments: bytes) -> bytes:
    """A pickle that calls a function by its name with arguments that are pickled already."""
    module, name = function.rsplit(".", 1)
    inner = b"".join(argument[2:-1] for argument in arguments)
    return b"\x80\x03c" + f"{module}\n{name}\n".encode() + b"(" + inner + b"tR."


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numbers_are_those_that_were_pickled(protocol: int) -> None:
    found = read_record(pickle.dumps(HELD, protocol), NONE)
    assert found.keys() == HELD.keys()
    for name, value in HELD.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value


def test_a_view_of_a_larger_storage() -> None:
    whole = torch.arange(20.0)
    found = read_record(pickle.dumps({"a": whole[4:12:2], "b": whole}), NONE)
    assert found["a"].tolist() == [4.0, 6.0, 8.0, 10.0]
    assert found["b"].tolist() == whole.tolist()


@pytest.mark.parametrize(
    "function", [os.system, eval, exec, print, open, io.open, getattr, torch.load, pickle.loads]
)
def test_calls_are_refused_by_name(function: Callable[..., Any], tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    hidden = {"pos": torch.zeros(1, 3), "sid": Acts(function, f"touch {proof}")}
    with pytest.raises(Malformed, match="is not among what is read here"):
        read_record(pickle.dumps(hidden), NONE)
    assert not proof.exists()


def test_calls_inside_of_a_tensor_are_refused(tmp_path: Path) -> None:
    """The bytes of a storage are pickles again: what torch's own loader would run."""
    proof = tmp_path / "proof"
    bad = pickle.dumps(nested(MAGIC, VERSION, Acts(os.system, f"touch {proof}")), protocol=3)
    with pytest.raises(Malformed, match=r"posix\.system, which is not among"):
        read_record(call("torch.storage._load_from_bytes", bad), NONE)
    assert not proof.exists()


def test_a_function_that_only_looks_like_a_storage_is_refused() -> None:
    text = pickle.dumps("a" * 100)
    for name in ("torch.storage._load_from_bytes.x", "torch.load", "builtins.getattr"):
        with pytest.raises(Malformed, match="not among what is read"):
            read_record(call(name, text), NONE)


def storage(count: int, size: int, stated: int | None = None) -> bytes:
    """A storage of floats that says one thing of its length, and has another."""
    whole = pickle.dumps(torch.zeros(count))
    content = read_bytes(whole)
    head, tail = content[: -8 - 4 * count], content[-4 * count :]
    length = struct.pack("=q", count if stated is None else stated)
    return head + length + tail[:size]


def read_bytes(whole: bytes) -> bytes:
    """The bytes that a pickled tensor hands to torch's loader."""
    import pickletools

    found = [argument for _, argument, _ in pickletools.genops(whole) if type(argument) is bytes]
    return max(found, key=len)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"nonsense", "damaged"),
        (nested(1, VERSION, {}), "does not write"),
        (nested(MAGIC, 1002, {}), "does not write"),
        (nested(MAGIC, VERSION, {"little_endian": None}), "byte order"),
        (nested(MAGIC, VERSION, {"little_endian": True}, "text", []), "no single storage"),
        (storage(5, 20, stated=2**40), "20 bytes for 5 values"),
        (storage(5, 12), "12 bytes for 5 values"),
        (storage(5, 20)[:40], "damaged"),
    ],
)
def test_storages_that_lie_are_refused(content: bytes, words: str) -> None:
    bad = call("torch.storage._load_from_bytes", pickle.dumps(content, protocol=3))
    with pytest.raises(Malformed, match=words):
        read_record(bad, NONE)


def test_a_tensor_that_is_larger_than_its_storage_is_refused() -> None:
    """Four values seen as many millions by strides of zero would fill the memory."""
    whole = pickle.dumps(torch.zeros(4).expand(2, 4), protocol=2)
    assert read_record(pickle.dumps({"a": torch.zeros(4)}), NONE)["a"].shape == (4,)
    with pytest.raises(Malformed, match="does not fit"):
        read_record(whole, NONE)


def test_classes_that_are_allowed_become_records() -> None:
    record = read_record(
        pickle.dumps(Path("a")), frozenset((f"{type(Path()).__module__}.PosixPath",))
    )
    assert isinstance(record, Record)
    assert record.name.endswith("PosixPath")


def test_a_record_cut_off_or_scratched_anywhere_is_read_or_refused() -> None:
    whole = pickle.dumps(HELD)
    for stop in range(0, len(whole) - 1, 7):
        with pytest.raises(Malformed):
            read_record(whole[:stop], NONE)
    dice = random.Random(0)  # noqa: S311
    for _ in range(300):
        broken = bytearray(whole)
        broken[dice.randrange(len(whole))] = dice.randrange(256)
        try:
            read_record(bytes(broken), NONE)
        except Malformed:
            continue
