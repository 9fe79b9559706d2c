"""Other files from sound ones: bytes, words and trees are changed, and a seed decides how."""

import json
import math
import re
import struct
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = (
    *("nan", "inf", "-inf", "-1", "0", "1e400", "-0.0", "1e-400", "99999999999", "2147483648"),
    *(
        "18446744073709551616",
        "9" * 400,
        "9" * 5000,
        "1.5",
        "0x10",
        "1_000",
        "٣",
        "１",
        "",
        "1e",
        ".",
    ),
)
WORDS = (
    *("null", "true", "~", "[]", "{}", "[[[[]]]]", "*a", "&a", "!!python/object:os.system", "\0"),
    *("é", "\ud7ff", "\u202e", "😀", "\ufeff", "%s%n", "../../etc/passwd", "\t", "\r\n", '"', "'"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1.5, -0.0, 1e300, 1e-300),
    *(
        math.nan,
        math.inf,
        -math.inf,
        "",
        "a",
        "é😀\ud800",
        "x" * 2000,
        "nan",
        "1",
        [],
        {},
        [[]],
        [{}],
    ),
    *(
        [None],
        [0, 1],
        [1e300] * 3,
        {"": None},
        {"name": "x"},
        {"a": {"b": {"c": []}}},
        list(range(50)),
    ),
)
LENGTHS = (0, 1, 7, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)


def change_bytes(content: bytes, random: Random, others: list[bytes]) -> bytes:
    """One to five changes anywhere."""
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        found = bytearray(random.choice(BYTE_CHANGES)(found, random, others))
    return bytes(found)


def _place(content: bytearray, random: Random) -> int:
    """Anywhere; beginnings and ends are more likely than the middle."""
    length = len(content)
    if random.random() < 0.3:
        return min(length, int(random.expovariate(1 / 40)))
    if random.random() < 0.2:
        return max(0, length - int(random.expovariate(1 / 60)))
    return random.randint(0, length)


def _flip(content: bytearray, random: Random, _: list[bytes]) -> bytes:
    for _ in range(random.randint(1, 8)):
        if content:
            content[_place(content, random) % len(content)] ^= 1 << random.randrange(8)
    return bytes(content)


def _set(content: bytearray, random: Random, _: list[bytes]) -> bytes:
    start = _place(content, random)
    count = random.choice((1, 2, 4, 8, 16))
    filled = random.choice((b"\0", b"\xff", b"\x7f", random.randbytes(1)))
    content[start : start + count] = filled * len(content[start : start + count])
    return bytes(content)


def _state_length(content: bytearray, random: Random, _: list[bytes]) -> bytes:
    """A number that may be taken for a length, an offset or a count."""
    start, value = _place(content, random), random.choice(LENGTHS) + random.randint(-2, 2)
    size, order = random.choice((2, 4, 8)), random.choice("<>")
    packed = struct.pack(order + "Q", value % 2**64)
    content[start : start + size] = packed[:size] if order == "<" else packed[8 - size :]
    return bytes(content)


def _cut(content: bytearray, random: Random, _: list[bytes]) -> bytes:
    return bytes(content[: _place(content, random)])


def _remove(content: bytearray, random: Random, _: list[bytes]) -> bytes:
    start = _place(content, random)
    del content[start : start + int(random.expovariate(1 / 20)) + 1]
    return bytes(content)


def _insert(content: bytearray, random: Random, _: list[bytes]) -> bytes:
    start = _place(content, random)
    content[start:start] = random.randbytes(int(random.expovariate(1 / 20)) + 1)
    return bytes(content)


def _repeat(content: bytearray, random: Random, _: list[bytes]) -> bytes:
    start = _place(content, random)
    piece = content[start : start + int(random.expovariate(1 / 30)) + 1]
    content[start:start] = bytes(piece) * random.choice((1, 2, 10, 100))
    return bytes(content)


def _move(content: bytearray, random: Random, _: list[bytes]) -> bytes:
    start, length = _place(content, random), int(random.expovariate(1 / 100)) + 1
    piece = bytes(content[start : start + length])
    target = _place(content, random)
    content[target : target + length] = piece
    return bytes(content)


def _splice(content: bytearray, random: Random, others: list[bytes]) -> bytes:
    other = bytearray(random.choice(others))
    return bytes(content[: _place(content, random)] + other[_place(other, random) :])


def _nest(content: bytearray, random: Random, _: list[bytes]) -> bytes:
    start, what = _place(content, random), random.choice((b"[", b"{", b"(", b'{"a":', b"- ", b"\t"))
    content[start:start] = what * random.choice((10, 1000, 100_000))
    return bytes(content)


BYTE_CHANGES: tuple[Callable[[bytearray, Random, list[bytes]], bytes], ...] = (
    *(_flip, _flip, _set, _state_length, _state_length, _cut, _remove, _insert, _repeat, _move),
    *(_splice, _nest),
)


def change_text(content: bytes, random: Random, others: list[bytes]) -> bytes:
    """Words, numbers and lines; now and then bytes."""
    text = content.decode("utf-8", "replace")
    for _ in range(random.choice((1, 1, 2, 3))):
        text = random.choice((_change_number, _change_number, _change_word, _change_line))(
            text, random
        )
    found = text.encode("utf-8", "replace")
    return change_bytes(found, random, others) if random.random() < 0.15 else found


def _change_number(text: str, random: Random) -> str:
    found = list(re.finditer(r"-?\d+(\.\d*)?([eE][-+]?\d+)?", text))
    if not found:
        return text
    one = random.choice(found)
    return text[: one.start()] + random.choice(NUMBERS) + text[one.end() :]


def _change_word(text: str, random: Random) -> str:
    found = list(re.finditer(r"\w+|[^\w\s]", text))
    if not found:
        return random.choice(WORDS)
    one, way = random.choice(found), random.random()
    if way < 0.4:
        return text[: one.start()] + random.choice(WORDS) + text[one.end() :]
    if way < 0.7:
        return text[: one.start()] + random.choice(found).group() + text[one.end() :]
    if way < 0.85:
        return text[: one.start()] + text[one.end() :]
    return text[: one.end()] + one.group() * random.choice((1, 3, 1000)) + text[one.end() :]


def _change_line(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    place = random.randrange(len(lines))
    way = random.random()
    if way < 0.3:
        del lines[place]
    elif way < 0.6:
        lines.insert(random.randrange(len(lines) + 1), lines[place])
    elif way < 0.8:
        other = random.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    else:
        lines[place] = lines[place].rstrip("\n")
    return "".join(lines)


def change_tree(tree: Any, random: Random, values: tuple[Any, ...] = VALUES) -> Any:
    """One to three changes of a tree of dicts and lists, which is copied before."""
    found = json.loads(json.dumps(tree))
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(found))
        if not places:
            return deepcopy(random.choice(values))
        holder, key = random.choice(places)
        way = random.random()
        if way < 0.55:
            holder[key] = deepcopy(random.choice(values))
        elif way < 0.7:
            del holder[key]
        elif way < 0.8:
            other, other_key = random.choice(places)
            holder[key] = json.loads(json.dumps(_get(other, other_key)))
        elif way < 0.9 and isinstance(holder[key], int | float):
            holder[key] = _near(holder[key], random)
        elif isinstance(holder, dict):
            holder[random.choice(("name", "x", "", "é", str(key) + "s"))] = deepcopy(
                random.choice(values)
            )
        else:
            holder.insert(key, deepcopy(random.choice(values)))
    return found


def _get(holder: Any, key: Any) -> Any:
    try:
        return holder[key]
    except (KeyError, IndexError):
        return None


def _near(value: float, random: Random) -> float:
    return random.choice((-value, value + 1, value - 1, value * 1000, value / 3, round(value, 1)))


def _places(tree: Any) -> Any:
    """Every holder and key or index in it."""
    keys = (
        list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    )
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
