"""A stack machine for pickles that calls nothing the file names.

A pickle is a program, and the usual reader runs it. Here its opcodes, tokenised by `pickletools`,
move plain objects about: a class or function is a `Global`, an instance or a call is a `Record` of
name, arguments and state. Only what `CALLS` lists is carried out, by own code: plain containers,
bytes, NumPy scalars and tensors.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from surefoot.pickles.archive import Malformed, Source, Storage, rebuild_tensor

BROKEN = (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError)
OPCODES = 4_000_000  # a large MACE has a tenth of that
POINTER = 8  # bytes of an entry in a tuple
WHOLE, PART = 2**60, 2**31  # integers below these are keys, or parts of one: their hashes differ
ENTRY = 64  # bytes of an entry in a set or dict

STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
SCALARS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}  # NumPy's names → struct's
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


@dataclass(frozen=True)
class Global:
    """A class or function that the file names, which is never looked up."""

    name: str


@dataclass(eq=False, repr=False)
class Record:
    """What would have been an object: hashed by identity, without behaviour.

    Attributes:
        name: dotted name of its class, or of the function that would have made it.
        args: arguments of that call.
        state: its attributes; for a torch module `_parameters`, `_buffers` and `_modules` too.
        items: what was appended to it.
        entries: what was set in it by key.
        other: a state that is not a dict of attributes.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)
    other: Any = None

    def __repr__(self) -> str:  # one level only: what is inside may be a cycle
        return f"Record({self.name}, {len(self.args)} arguments, {len(self.state)} attributes)"


def decode_scalar(kind: Any, data: Any) -> Any:
    """A NumPy scalar as Python's number; None where the kind is not one of the plain ones."""
    name = kind.args[0] if isinstance(kind, Record) and kind.args else None
    order = kind.other[1] if isinstance(kind, Record) and isinstance(kind.other, tuple) else "<"
    if not isinstance(name, str) or name not in SCALARS or not isinstance(data, bytes):
        return None
    try:
        return struct.unpack((">" if order == ">" else "<") + SCALARS[name], data)[0]
    except struct.error:
        return None


def _key(value: Any) -> Any:
    """A key or set member; deep tuples are refused, since hashing them recurses.

    Numbers whose hashes are chosen make a dict of n entries cost n² steps: Python takes integers
    modulo 2⁶¹ − 1, and mixes the parts of a tuple in a way that can be turned round.
    """
    flat = value if isinstance(value, tuple) else (value,)
    if any(isinstance(part, tuple | frozenset | list | dict | set | bytearray) for part in flat):
        raise Malformed("uses a container as a key; damaged or made to harm.")
    most = WHOLE if flat is not value else PART
    if any(isinstance(part, int) and not -most < part < most for part in flat):
        raise Malformed("uses an enormous integer as a key; damaged or made to harm.")
    if flat is value and any(isinstance(part, float) for part in flat):
        raise Malformed("uses several real numbers as a key; damaged or made to harm.")
    return value


class Machine:
    """The stack machine of pickle, for the opcodes that torch's files use.

    Args:
        archive: the pickle and its storages.
        calls: what is carried out besides `CALLS`; None as a result leaves the call as a record.
        allowed: names that the pickle may mention; any where not given, since none is looked up.
    """

    def __init__(
        self,
        archive: Source,
        calls: Mapping[str, Callable[..., Any]] | None = None,
        allowed: frozenset[str] | None = None,
    ) -> None:
        self.archive = archive
        self.calls = CALLS | dict(calls or {})
        self.allowed = allowed
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.bytes = 0

    def run(self) -> Any:
        """Read the pickle to its end.

        Raises:
            Malformed: if it is no pickle, too long, or uses an opcode that is not supported.
        """
        name = ""
        try:
            steps = pickletools.genops(self.archive.program())
            for count, (opcode, argument, _) in enumerate(steps):
                name = opcode.name
                if count > OPCODES:
                    raise Malformed(f"its pickle has more than {OPCODES} steps.")
                if name == "STOP":
                    return self.stack.pop()
                self.step(name, argument)
        except BROKEN as error:
            raise Malformed(f"its pickle is damaged near {name or 'its start'}.") from error
        raise Malformed("its pickle has no end; damaged.")

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in PUSHED:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name in ACTIONS:
            ACTIONS[name](self, argument)
        else:
            raise Malformed(f"its pickle uses the opcode {name}, which no file of torch needs.")

    def pop_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        since = self.stack
        self.stack = self.marks.pop()
        return since

    def mark(self, _: Any) -> None:
        """Start a new run of objects."""
        self.marks.append(self.stack)
        self.stack = []

    def remember(self, index: Any) -> None:
        """Keep the top of the stack; without a number under the next one."""
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def recall(self, index: Any) -> None:
        """Push what was kept."""
        self.stack.append(self.memo[index])

    def append(self, values: list[Any]) -> None:
        """Append to the list, set or record on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(_key(value) for value in values)
        elif isinstance(target, list | Record):
            (target if isinstance(target, list) else target.items).extend(values)
        else:
            raise Malformed("appends to something that is no list.")

    def set_items(self, values: list[Any]) -> None:
        """Set keys of the dict or record on top of the stack."""
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Record) else target
        if not isinstance(entries, dict):
            raise Malformed("sets keys of something that is no dict.")
        entries.update(_pairs(values))

    def build(self, _: Any) -> None:
        """Give a record its attributes; those of tensors and plain containers are dropped."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Record):
            return
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        if all(part is None or isinstance(part, dict) for part in parts):
            for part in parts:
                if isinstance(part, dict) and target.state:
                    self.charge(ENTRY * len(part))
                    target.state.update(part)
                elif isinstance(part, dict):
                    target.state = part
        else:
            target.other = state

    def global_name(self, module: str, name: str) -> None:
        """Push a class or function as a bare name."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("names a class by something that is no text.")
        full = f"{PYTHON_2.get(module, module)}.{name}"
        if self.allowed is not None and full not in self.allowed:
            raise Malformed(f"names {full[:80]}, which is not among what is read here; refused.")
        self.stack.append(Global(full))

    def stack_global(self, _: Any) -> None:
        """The same with both names from the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.charge(len(name) + len(module))
        self.global_name(module, name)

    def call(self, _: Any) -> None:
        """Note a call or an instance; only what `CALLS` lists is carried out, by own code."""
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise Malformed("calls something that is no name.")
        known = self.calls.get(function.name)
        if known is not None:
            self.charge(POINTER * len(args))  # which are copied for the call
        result = known(self, *args) if known is not None else None
        self.stack.append(Record(function.name, args) if result is None else result)

    def call_with_names(self, _: Any) -> None:
        """Note an instance made with keyword arguments."""
        names, args = self.stack.pop(), self.stack.pop()
        self.charge(POINTER * len(args))
        self.stack.append((*args, names))
        self.call(None)

    def storage(self, _: Any) -> None:
        """Push a storage that the pickle refers to."""
        reference = self.stack.pop()
        match reference:
            # The sixth, a view of another storage, is of torch before 1.6 and no longer written.
            case ("storage", Global(name=kind), str(key), _, int(count), *rest) if (
                kind in STORAGES and rest in ([], [None])
            ):
                self.stack.append(Storage(key, STORAGES[kind], count))
            case ("storage", Global(name=kind), *_):
                raise Malformed(f"a tensor is stored as {kind}; save it as floats or integers.")
            case _:
                raise Malformed("refers to something outside that is no storage.")

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        """A tensor; views of one storage are bounded in sum too."""
        tensor = rebuild_tensor(self.archive, storage, offset, size, stride)
        self.charge(tensor.numel() * tensor.element_size())
        return tensor

    def charge(self, size: int) -> None:
        """Note bytes that an opcode copies: a few of them could copy one large object for ever."""
        self.bytes += size
        if self.bytes > 4 * self.archive.size:
            raise Malformed("its tensors and copies are together larger than the file; refused.")

    def collect(self, make: Callable[[list[Any]], Any]) -> None:
        """Replace everything since the mark by one container."""
        made = make(self.pop_mark())  # first: it brings back the stack below the mark
        self.stack.append(made)

    def collect_nothing(self) -> None:
        """Drop everything since the mark."""
        self.pop_mark()

    def pack(self, count: int) -> None:
        """Replace the last objects by a tuple."""
        parts = tuple(self.stack[-count:])
        if len(parts) < count:
            raise Malformed("its pickle is damaged: a tuple lacks members.")
        self.stack[-count:] = [parts]

    def pop(self, _: Any) -> None:
        """Drop the top of the stack, or the mark."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()


def _pairs(values: list[Any]) -> dict[Any, Any]:
    """Keys and values that follow each other."""
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def _listed(values: Any) -> list[Any] | tuple[Any, ...]:
    """What is copied into a container: of anything else nobody knows how much comes out of it."""
    if not isinstance(values, list | tuple):
        raise Malformed("makes a container of something that is no list; damaged.")
    return values


def _size(machine: Machine, sizes: Any) -> tuple[Any, ...]:
    machine.charge(POINTER * len(_listed(sizes)))
    return tuple(sizes)


def _set(machine: Machine, values: Any = ()) -> set[Any]:
    machine.charge(ENTRY * len(_listed(values)))
    return {_key(value) for value in values}


def _ordered(machine: Machine, pairs: Any = ()) -> dict[Any, Any]:
    """An OrderedDict, as a dict."""
    machine.charge(ENTRY * len(_listed(pairs)))
    return {_key(key): value for key, value in pairs}


def _bytes(machine: Machine, text: Any, encoding: Any) -> bytes | None:
    """Bytes, which protocol 2 writes as text to be encoded."""
    if not isinstance(text, str) or encoding != "latin1":
        return None
    machine.charge(len(text))
    return text.encode("latin1")


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": Machine.tensor,
    "torch._utils._rebuild_parameter": lambda _, data, *__: data,
    "torch._utils._rebuild_parameter_with_state": lambda _, data, *__: data,
    "torch.Size": _size,
    "collections.OrderedDict": _ordered,
    "builtins.set": _set,
    "builtins.frozenset": lambda machine, values=(): frozenset(_set(machine, values)),
    "_codecs.encode": _bytes,
    "copyreg._reconstructor": lambda _, kind, *__: Record(kind.name),
    "numpy.core.multiarray.scalar": lambda _, *args: decode_scalar(*args),
    "numpy._core.multiarray.scalar": lambda _, *args: decode_scalar(*args),
}
"""What is carried out; None as a result leaves the call as a record."""

CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}

PUSHED = frozenset((
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip

ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda _, __: None,
    "FRAME": lambda _, __: None,
    "MARK": Machine.mark,
    "POP": Machine.pop,
    "POP_MARK": lambda machine, _: machine.collect_nothing(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": Machine.remember,
    "BINPUT": Machine.remember,
    "LONG_BINPUT": Machine.remember,
    "MEMOIZE": Machine.remember,
    "GET": Machine.recall,
    "BINGET": Machine.recall,
    "LONG_BINGET": Machine.recall,
    "TUPLE": lambda machine, _: machine.collect(tuple),
    "LIST": lambda machine, _: machine.collect(list),
    "DICT": lambda machine, _: machine.collect(_pairs),
    "FROZENSET": lambda machine, _: machine.collect(lambda v: frozenset(map(_key, v))),
    "TUPLE1": lambda machine, _: machine.pack(1),
    "TUPLE2": lambda machine, _: machine.pack(2),
    "TUPLE3": lambda machine, _: machine.pack(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "GLOBAL": lambda machine, names: machine.global_name(*names.split(" ", 1)),
    "STACK_GLOBAL": Machine.stack_global,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.call,
    "NEWOBJ_EX": Machine.call_with_names,
    "BUILD": Machine.build,
    "BINPERSID": Machine.storage,
}
