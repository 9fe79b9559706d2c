"""Files of `torch.save` as inert records: every tensor, every setting, and nothing is executed.

`read_records` gives the saved object as a `Record` (see `unpickle`), `tensors` its weights under
the names of `state_dict`, `find` anything else by its dotted path. What a module keeps outside its
pickled parameters and buffers (such as compiled code stored as bytes) is not among the tensors.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from surefoot.deploy.archive import Archive, Malformed
from surefoot.deploy.unpickle import Global, Machine, Record

__all__ = ["Global", "Record", "UnreadableFile", "find", "read_records", "tensors"]

DEPTH = 100  # of modules in modules
NAMES = 20_000  # of modules and tensors in a model
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
    with path.open("rb") as file:
        start = file.read(9)
    if start[:2] == b"\x80\x02":
        return "a pickle in the format of torch before 1.6; save the model again with a newer one."
    if start[8:] == b"{":  # safetensors: the length of a header in JSON, and the header
        return "a safetensors file, as surefoot writes; its potentials need no conversion."
    if start[:4] == b"PK\x03\x04":
        return f"truncated or damaged ({error}); copy the file again."
    return "not a file of torch.save; give a model saved by torch.save(model, path)."


def tensors(record: Record) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a torch module, named as by its state_dict.

    Args:
        record: a module.

    Returns:
        dotted name → tensor on the CPU, in the order of state_dict. Tensors of one storage in the
        file share it here too.

    Raises:
        UnreadableFile: if a parameter is no tensor that could be rebuilt, or the modules are
            nested without end.
    """
    collected: dict[str, Tensor] = {}
    for count, (name, value) in enumerate(_named(record, "", 0)):
        if count > NAMES:
            raise UnreadableFile(f"{record.name} has more than {NAMES} modules and tensors.")
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise UnreadableFile(f"{name}: {value!r} is not a tensor of a kind that is read.")
        collected[name] = value
    return collected


def _named(record: Record, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Own parameters and buffers, then those of each child; a module itself counts as None."""
    if depth > DEPTH:
        raise UnreadableFile(f"modules are nested deeper than {DEPTH} levels at {prefix[:60]}….")
    yield prefix, None
    passing = record.state.get("_non_persistent_buffers_set")
    passing = passing if isinstance(passing, set) else set()
    for part in ("_parameters", "_buffers"):
        for name, value in _entries(record, part):
            if value is not None and not (part == "_buffers" and name in passing):
                yield f"{prefix}{name}", value
    for name, child in _entries(record, "_modules"):
        if isinstance(child, Record):
            yield from _named(child, f"{prefix}{name}.", depth + 1)


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
