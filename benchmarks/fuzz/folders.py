"""Formats that are folders: stores of frames, and sets of DeePMD; one file of each is changed."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import ase.io
import numpy as np

from fuzz.mutate import change_bytes, change_text, change_tree
from fuzz.structures import CUTOFF, images, lie
from fuzz.targets import Make, Target

Files = dict[str, bytes]
STORE, SETS = "frames.store", "water"


def list_targets(work: Path) -> list[Target]:
    """The store, with sums that do not fit and that do; folders of DeePMD."""
    from surefoot.data.convert import to_samples
    from surefoot.data.read import read_frames
    from surefoot.data.stored import Store, StoredFrame

    kept, sets = make_store(work), make_sets()

    def read_store(path: Path) -> Any:
        store = Store(path, [f"{path}.xyz"])  # the name of its file, by which frames are called
        frames = [StoredFrame(store, row) for row in range(min(len(store), 50))]
        for frame in frames:
            for name in (*LOOKS, "info", "fixed", "constrained", "structure"):
                getattr(frame, name)
        return to_samples([frame for frame in frames if len(frame.structure) < 1000], CUTOFF)

    def target(name: str, folder: str, files: Files, make: Make, read: Any, share: float) -> Target:
        beside = tuple((f"{folder}/{one}", content) for one, content in files.items())
        return Target(name=name, file="case", make=make, share=share, beside=beside,
                      read=lambda path: read_changed(path, path.parent / folder, read))  # fmt: skip

    return [
        target("store", STORE, kept, of_one(kept), read_store, 1.5),
        target("store, signed", STORE, kept, of_signed(kept), read_store, 3.0),
        target("folder of DeePMD", SETS, sets, of_one(sets), lambda p: read_frames([p]), 2.0),
    ]


LOOKS = (
    *("energy", "forces", "stress", "charge", "spin", "group", "config_type", "file", "index"),
    *("keys", "atoms", "place"),
)
"""What a program asks a frame for."""


def make_store(work: Path) -> Files:
    """The files of a small store that has every column."""
    from surefoot.data.file_units import FileUnits
    from surefoot.data.read import Keys
    from surefoot.data.store import write_store

    folder = work / "store"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    source = work / "store.xyz"
    ase.io.write(source, images(), format="extxyz")
    write_store(folder, [source], Keys(), FileUnits())
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make_sets() -> Files:
    """The files of a folder of DeePMD with three frames of water in a cell."""
    generator = np.random.default_rng(0)
    arrays = {
        "coord": generator.uniform(1, 5, (3, 9)),
        "box": np.repeat(np.diag([6.0, 7.0, 8.0]).reshape(1, 9), 3, axis=0),
        "energy": generator.normal(size=3),
        "force": generator.normal(size=(3, 9)),
        "virial": generator.normal(size=(3, 9)),
        "real_atom_types": np.array([[0, 1, 1], [0, 1, -1], [1, 1, 0]]),
    }
    found = {"type.raw": b"0\n1\n1\n", "type_map.raw": b"O\nH\n"}
    for name, array in arrays.items():
        content = io.BytesIO()
        np.save(content, array)
        found[f"set.000/{name}.npy"] = content.getvalue()
    return found


def of_one(files: Files) -> Make:
    """Name and content of a changed file."""
    names, contents = list(files), list(files.values())

    def make(random: Random) -> bytes:
        number = random.randrange(len(names))
        content, way = contents[number], random.random()
        if names[number].endswith((".raw", ".json")):
            changed = change_text(content, random, contents)
        elif way < 0.4 and names[number].endswith(".npy"):
            changed = lie(content, random)
        elif way < 0.6:
            changed = random.choice(contents)
        else:
            changed = change_bytes(content, random, contents)
        return pack({names[number]: changed})

    return make


def of_signed(files: Files) -> Make:
    """Columns and a header that are others, with sums and sizes that fit."""
    columns = {name: content for name, content in files.items() if name != "header.json"}
    contents, header = list(columns.values()), json.loads(files["header.json"])
    del header["sha256"]

    def make(random: Random) -> bytes:
        told, changed = json.loads(json.dumps(header)), {}
        if random.random() < 0.5:
            told = change_tree(told, random)
        for _ in range(random.choice((0, 1, 1, 2))):
            name = random.choice(list(columns))
            changed[name] = swap_numbers(columns[name], random, contents)
            held = told.get("columns") if isinstance(told, dict) else None
            if isinstance(held, dict):
                total = hashlib.sha256(changed[name]).hexdigest()
                held[name] = {"bytes": len(changed[name]), "sha256": total}
        text = json.dumps(told)
        if isinstance(told, dict):
            total = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
            text = json.dumps({**told, "sha256": total})
        return pack({**changed, "header.json": text.encode()})

    return make


def swap_numbers(content: bytes, random: Random, others: list[bytes]) -> bytes:
    """Other bytes in the same number, so that a column keeps its length; seldom another number."""
    changed = random.choice(others) if random.random() < 0.2 else content
    if random.random() < 0.8:
        changed = change_bytes(changed, random, others)
    if random.random() < 0.1:
        return changed
    return (changed + content * (len(changed) < len(content)))[: len(content)]


def pack(files: Files) -> bytes:
    """Names and contents in one file, as a case is one."""
    return b"".join(b"%s\0%d\0%s" % (n.encode(), len(c), c) for n, c in files.items())


def read_changed(path: Path, folder: Path, read: Callable[[Path], Any]) -> Any:
    """Put what is packed into the folder, read it, and put the folder back."""
    rest, before = path.read_bytes(), {}
    try:
        while rest:
            name, length, rest = rest.split(b"\0", 2)
            target, size = folder / name.decode(), int(length)
            before[target] = target.read_bytes()
            target.write_bytes(rest[:size])
            rest = rest[size:]
        return read(folder)
    finally:
        for target, content in before.items():
            target.write_bytes(content)
