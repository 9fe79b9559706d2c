"""Trees on disk: safetensors with a JSON header, written whole or not at all, never executed.

One file holds both, so that weights and description can not part: the JSON text is the file's
safetensors metadata under the key `surefoot`. It carries a SHA-256 of itself and the tensors, so a
damaged file is refused rather than used; this checksum is the same in all formats.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from surefoot.wording import cut

Tree = dict[str, Tensor]
METADATA = "surefoot"
BROKEN = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
)
"""What is raised where a description is followed that is another one than is expected."""
SHOWN = 200  # characters of a setting in a message
FORMAT = 4


def _add_states_and_repulsion(header: dict[str, Any]) -> dict[str, Any]:
    """Format 1 knew neither conditioning on charge and spin nor nuclear repulsion."""
    upgraded = {**header, "format": 2}
    if header["kind"] == "predictor":
        upgraded["states"] = None
        upgraded["baseline"] = {**header["baseline"], "repulsion": None}
    if "identity" in header:
        upgraded["identity"] = {**header["identity"], "conditioning": {"name": "none"}}
    return upgraded


def _add_gate_and_levels(header: dict[str, Any]) -> dict[str, Any]:
    """Format 2 knew neither a gate nor intervals that are not those of a normal."""
    upgraded = {**header, "format": 3}
    if header["kind"] == "predictor":
        upgraded["gate"] = None
        upgraded["calibration"] = {**header["calibration"], "levels": {}}
    return upgraded


def _state_former_ways(header: dict[str, Any]) -> dict[str, Any]:
    """Format 3 did not name what has another default now.

    RACE divided its sums by the number of neighbours, and the anisotropy of a mean-variance head
    knew nothing of the model's features of degree 2.
    """

    def add(holder: dict[str, Any]) -> dict[str, Any]:
        model, head = holder.get("model") or {}, holder.get("head") or {}
        if model.get("name") == "race":
            holder = {**holder, "model": {"normalisation": "neighbors", **model}}
        equivariant = ("mean_variance", "equivariant")
        degree_2 = "2e" in model.get("irreps", "") or model.get("lmax", 0) >= 2
        if degree_2 and (head.get("energy"), head.get("covariance")) == equivariant:
            holder = {**holder, "head": {"anisotropy": "own", **head}}
        return holder

    upgraded = add({**header, "format": 4})
    if "identity" in header:
        upgraded["identity"] = add(header["identity"])
    return upgraded


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _add_states_and_repulsion,
    2: _add_gate_and_levels,
    3: _state_former_ways,
}
"""Header of format n → header of format n + 1, so that old files keep loading."""


class RefusedFile(ValueError):
    """A checkpoint or potential that can not be used, with the reason."""


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write to a temporary name in the same folder and move it: whole or not at all.

    The name is on the disk too when this returns, wherever a folder can be synchronised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _synchronise(path.parent)


def sweep(folder: Path, names: Collection[str]) -> None:
    """Remove what killed processes have left of files that they were writing.

    Args:
        folder: in which no other process writes them now.
        names: of the files.
    """
    for name in names:
        for path in folder.glob(f".{glob.escape(name)}.????????"):
            path.unlink(missing_ok=True)


def _synchronise(folder: Path) -> None:
    """Put the names in a folder on the disk; some systems and file systems have no way to."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)


def write_tree(path: Path, kind: str, tree: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Save tensors and their description.

    Args:
        path: where to.
        kind: what the file is, `checkpoint` or `predictor`.
        tree: name → tensor.
        header: anything JSON can hold.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tree.items()}
    whole = {"format": FORMAT, "kind": kind, **header}
    whole["digest"] = digest(tensors, json.dumps(whole, allow_nan=False))
    write_atomically(path, save(tensors, metadata={METADATA: json.dumps(whole)}))


def read_tree(path: Path, kind: str) -> tuple[Tree, dict[str, Any]]:
    """Load tensors and their description.

    Raises:
        RefusedFile: if the file is missing, foreign, damaged, of another kind or too new.
    """
    if path.is_dir():
        inside = sorted(part.name for part in path.glob("*.safetensors"))
        held = f"; in it are {', '.join(inside)}" if inside else ""
        raise RefusedFile(f"{path}: this is a folder{held}; name the file.")
    if not path.is_file():
        raise RefusedFile(f"{path}: there is no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tree = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise RefusedFile(f"{path}: {_no_tree(path, error)}") from error
    if METADATA not in metadata:
        raise RefusedFile(f"{path}: a safetensors file, but not one that surefoot wrote.")
    header = _upgrade(_read_header(metadata[METADATA], tree, path), path)
    if header["kind"] != kind:
        raise RefusedFile(f"{path}: this is a {header['kind']}; a {kind} is needed here.")
    return tree, header


def _no_tree(path: Path, error: Exception) -> str:
    """Say what a file that is not safetensors seems to be."""
    with path.open("rb") as file:
        first = file.read(9)
    if first.startswith(b"PK\x03\x04"):
        return (
            "not a safetensors file but a zip file, as torch.save writes; `surefoot convert` makes "
            "a potential of a model of mace-torch."
        )
    if len(first) == 9 and not first.endswith(b"{"):
        return (
            "not a safetensors file, as `surefoot train` writes; in a command the potential comes "
            "before the structures."
        )
    return f"damaged or not a safetensors file ({error})."


def _read_header(text: str, tree: Tree, path: Path) -> dict[str, Any]:
    """The description without its checksum, which must fit."""
    try:
        header = json.loads(text)
        stated = header.pop("digest")
        whole = stated == digest(tree, json.dumps(header))
    except BROKEN as error:
        raise RefusedFile(f"{path}: the description can not be read; damaged.") from error
    if not whole:
        raise RefusedFile(f"{path}: the content does not match its checksum; the file is damaged.")
    return header


def _upgrade(header: dict[str, Any], path: Path) -> dict[str, Any]:
    if type(header.get("format")) is not int or not isinstance(header.get("kind"), str):
        raise RefusedFile(f"{path}: it does not say what it is, and in which format.")
    try:
        while header["format"] in UPGRADES:
            header = UPGRADES[header["format"]](header)
    except BROKEN as error:
        raise RefusedFile(
            f"{path}: its description is not one of format {header['format']}; of no use."
        ) from error
    if header["format"] != FORMAT:
        raise RefusedFile(
            f"{path}: written in format {header['format']}, this version of surefoot reads up to "
            f"{FORMAT}; install a newer one."
        )
    return header


def digest(tree: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 over a text and over the names, types, shapes and bytes of tensors."""
    total = hashlib.sha256(text.encode())
    for name in sorted(tree):
        value = tree[name].detach().cpu().contiguous()
        total.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def refuse_difference(found: Any, wanted: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on from a checkpoint of another run.

    Raises:
        RefusedFile: naming the first setting that differs, and both values.
    """
    if not isinstance(found, Mapping):
        raise RefusedFile(f"{path}: it does not say of which run it is.")
    flat_found, flat_wanted = _flatten(found), _flatten(wanted)
    for name in sorted(flat_found.keys() | flat_wanted.keys()):
        before, now = flat_found.get(name, "nothing"), flat_wanted.get(name, "nothing")
        if before != now:
            raise RefusedFile(
                f"{path}: this checkpoint belongs to another run: {name:.{SHOWN}} was "
                f"{cut(str(before), SHOWN)} and is now {cut(str(now), SHOWN)}. Resume with what "
                "it was, or start anew in another folder."
            )


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
