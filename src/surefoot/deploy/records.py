"""Files of `torch.save` as inert records: every tensor, every setting, and nothing is executed.

`read_records` gives the saved object as a `Record` (see `unpickle`), `tensors` its weights under
the names of `state_dict`, `find` anything else by its dotted path. What a module keeps outside its
pickled parameters and buffers (such as compiled code stored as bytes) is not among the tensors.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from surefoot.pickles.archive import Archive, Malformed
from surefoot.pickles.unpickle import Global, Machine, Record
from surefoot.wording import cut

__all__ = [
    "Global",
    "Record",
    "UnreadableFile",
    "find",
    "modules",
    "read_records",
    "shorten",
    "show",
    "tensors",
]

DEPTH = 100  # of modules in modules
NAMES = 20_000  # of modules and tensors in a model
SHOWN = 60  # characters of a value in a message
SENTENCE = 600  # characters of a message
DAMAGED = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, struct.error)
_MISSING = object()


class UnreadableFile(ValueError):
    """A file that can not be read as records, or lacks what was looked for, with the reason."""


def read_records(path: Path) -> Record | dict[Any, Any]:
    """Read a file that `torch.save` wrote, without executing anything in it.

    Args:
        path: a zip file as torch ≥ 1.6 writes it.

    Returns:
        the saved object as a `Record`; a plain dict (a state_dict, a checkpoint) as a dict.

    Raises:
        UnreadableFile: if there is no such file, or it is TorchScript, of an older format, no file
            of torch, compressed, damaged, or holds tensors outside their storage.
    """
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "there is no such file"
        raise UnreadableFile(f"{path}: {what}; give a model saved by torch.save(model, path).")
    try:
        with zipfile.ZipFile(path) as archive:
            result = Machine(Archive(archive, path.stat().st_size)).run()
    except Malformed as error:
        raise UnreadableFile(f"{path}: {error}") from error
    except DAMAGED as error:
        raise UnreadableFile(f"{path}: {_no_zip(path, error)}") from error
    if not isinstance(result, Record | dict):
        raise UnreadableFile(f"{path}: holds neither a model nor a dict of tensors.")
    return result


def _no_zip(path: Path, error: Exception) -> str:
    """Say what a file that zipfile refuses seems to be."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as refused:
        return f"it cannot be read ({refused.strerror}); change its permissions, or copy it."
    if start[:2] == b"\x80\x02":
        return "a pickle in the format of torch before 1.6; save the model again with a newer one."
    if start[8:] == b"{":  # safetensors: the length of a header in JSON, and the header
        return "a safetensors file, as surefoot writes; its potentials need no conversion."
    if start[:4] == b"PK\x03\x04":
        return f"truncated or damaged ({error}); copy the file again."
    return "not a file of torch.save; give a model saved by torch.save(model, path)."


def tensors(
    record: Record, parts: Sequence[str] = ("_parameters", "_buffers")
) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a torch module, named as by its state_dict.

    Args:
        record: a module.
        parts: which of the two are wanted.

    Returns:
        dotted name → tensor on the CPU, in the order of state_dict. Tensors of one storage in the
        file share it here too.

    Raises:
        UnreadableFile: if a parameter is no tensor that could be rebuilt, or the modules are
            nested without end.
    """
    collected: dict[str, Tensor] = {}
    for path, module in modules(record).items():
        passing = module.state.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set) else set()
        for part in parts:
            for name, value in _entries(module, part):
                if value is None or (part == "_buffers" and name in passing):
                    continue
                place = f"{path}.{name}" if path else str(name)
                if not isinstance(value, Tensor):
                    text = (
                        f"{shorten(place)}: {show(value)} is not a tensor of a kind that is read."
                    )
                    raise UnreadableFile(text)
                collected[place] = value
                if len(collected) > NAMES:
                    raise UnreadableFile(f"{record.name} has more than {NAMES} tensors.")
    return collected


def modules(record: Record) -> dict[str, Record]:
    """A module and all modules in it by their dotted paths, its own empty; parents come first.

    Raises:
        UnreadableFile: if there are too many, or they are nested without end.
    """
    found: dict[str, Record] = {}
    for path, module in _descend(record, "", 0):
        found[path] = module
        if len(found) > NAMES:
            raise UnreadableFile(f"{record.name} has more than {NAMES} modules.")
    return found


def _descend(record: Record, path: str, depth: int) -> Iterator[tuple[str, Record]]:
    if depth > DEPTH:
        raise UnreadableFile(f"modules are nested deeper than {DEPTH} levels at {path[:SHOWN]}….")
    yield path, record
    for name, child in _entries(record, "_modules"):
        if isinstance(child, Record):
            yield from _descend(child, f"{path}.{name}" if path else str(name), depth + 1)


def show(value: Any) -> str:
    """A value from a file in a message: a short text, or what it is.

    What is inside a container may be itself many times over, so that its text has no end.
    """
    if isinstance(value, bool | float) or value is None:
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() < 64 else "an enormous integer"
    if isinstance(value, str):
        return repr(cut(value, SHOWN))
    if isinstance(value, Record | Global):
        return f"{type(value).__name__}({value.name[:SHOWN]})"
    return f"a {type(value).__name__}"


def shorten(text: str) -> str:
    """A message that holds text from a file, cut where it is too long to read."""
    return cut(text, SENTENCE)


def _entries(record: Record, part: str) -> list[tuple[Any, Any]]:
    """The entries of one of a module's dicts; none where there is no such dict."""
    entries = record.state.get(part)
    return list(entries.items()) if isinstance(entries, dict) else []


def find(record: Record, path: str, default: Any = _MISSING) -> Any:
    """A module, tensor or attribute by its path, such as `interactions.0.avg_num_neighbors`.

    Args:
        record: where to start.
        path: names joined by dots; numbers count in lists.
        default: returned where there is no such thing.

    Raises:
        UnreadableFile: if there is no such thing and no default.
    """
    here: Any = record
    for name in path.split("."):
        here = _child(here, name)
        if here is _MISSING:
            if default is _MISSING:
                raise UnreadableFile(f"{record.name} in the file has no {path}.")
            return default
    return here


def _child(value: Any, name: str) -> Any:
    """What a record, dict, list or tuple has under one name."""
    if isinstance(value, Record):
        places = [
            value.state,
            *(value.state.get(p) for p in ("_parameters", "_buffers", "_modules")),
        ]
        found = [place[name] for place in places if isinstance(place, dict) and name in place]
        return found[0] if found else _MISSING
    if isinstance(value, dict):
        return value.get(name, _MISSING)
    if isinstance(value, list | tuple) and name.isdecimal() and int(name) < len(value):
        return value[int(name)]
    return _MISSING
