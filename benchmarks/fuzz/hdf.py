"""HDF5 of other programs: configurations of MACE and conformers of ANI, damaged or made to harm."""

import io
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

from fuzz.mutate import LENGTHS
from fuzz.targets import Target, of_bytes

Tree = dict[str, Any]
WATER = np.array([[0.0, 0.0, 0.1], [0.0, 0.8, -0.5], [0.0, -0.8, -0.5]])
MACE: Tree = {
    "config_batch_0": {
        f"config_{number}": {
            "atomic_numbers": np.array([8, 1, 1]),
            "positions": WATER + number,
            "cell": np.eye(3) * 9.0,
            "pbc": np.array([True, True, False]),
            "config_type": "wire",
            "properties": {"energy": -1.5, "forces": WATER, "stress": "None", "total_charge": 1.0},
            "property_weights": {"energy": 1.0, "forces": 1.0, "stress": 0.0},
        }
        for number in range(3)
    }
}
ANI: Tree = {
    "gdb": {
        "s01": {
            "species": np.array([b"O", b"H", b"H"]),
            "coordinates": np.stack([WATER, WATER + 1]).astype(np.float32),
            "energies": np.array([-75.0, -75.1]),
            "forces": np.stack([WATER, WATER]),
        },
        "s02": {"species": np.array([8, 1, 1]), "coordinates": np.stack([WATER] * 3)},
    }
}


def list_targets(_: Path) -> list[Target]:
    """Changed bytes, and sound files whose groups and arrays are others."""
    from surefoot.data.hdf5 import read_hdf5
    from surefoot.data.read import Keys, read_frames

    def read_here(path: Path) -> Any:
        """Without the process of its own, whose last resort is not to be what holds."""
        try:
            return list(read_hdf5(path))
        except Exception as error:
            raise ValueError(f"{path}: {error}") from error

    seeds = [write(MACE), write(ANI), write(MACE, libver="latest"), write(ANI, packed=True)]
    return [
        Target(name="HDF5, bytes", file="a.h5", make=of_bytes(seeds), share=0.15,
               read=lambda path: read_frames([path], Keys(forces="none")), apart=True),
        Target(name="HDF5, layout", file="a.h5", make=change_layout, read=read_here,
               strict=False),
    ]  # fmt: skip


def write(tree: Tree, *, libver: str = "earliest", packed: bool = False) -> bytes:
    """A file with groups and arrays; a function of a group and a name makes what it likes."""
    found = io.BytesIO()
    with h5py.File(found, "w", libver=libver) as file:
        _fill(file, tree, packed=packed)
    return found.getvalue()


def _fill(group: h5py.Group, tree: Tree, *, packed: bool) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            _fill(group.create_group(name), value, packed=packed)
        elif callable(value):
            value(group, name)
        elif packed and np.ndim(value):
            group.create_dataset(name, data=value, chunks=True, compression="gzip", shuffle=True)
        else:
            group[name] = value


def change_layout(random: Random) -> bytes:
    """One to three groups or arrays that are something else, or gone."""
    tree = _copy(random.choice((MACE, ANI)))
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        holder, name = random.choice(places)
        way = random.random()
        if way < 0.15:
            del holder[name]
        elif way < 0.3:
            holder[random.choice(("x", "config_x", "config_batch_", "properties", "species"))] = (
                holder.pop(name)
            )
        else:
            holder[name] = random.choice(OTHERS)(random, holder[name])
    try:
        return write(tree, packed=random.random() < 0.3)
    except (OSError, TypeError, ValueError, RuntimeError):
        return write({"x": 1.0})  # the library does not write it


def _copy(tree: Tree) -> Tree:
    return {n: _copy(one) if isinstance(one, dict) else one for n, one in tree.items()}


def _places(tree: Tree) -> Any:
    for name in tree:
        yield tree, name
        if isinstance(tree[name], dict):
            yield from _places(tree[name])


def _other_array(random: Random, _: Any) -> Any:
    shape = tuple(random.choice((0, 1, 2, 3, 9)) for _ in range(random.randint(0, 4)))
    kind = random.choice(("f2", "f8", "i1", "u8", "?", "S3", "c16", "i8"))
    value = random.choice((0, 1, -1, 119, 250, 2**40))
    return np.full(shape, value).astype(kind)


def _claim(random: Random, _: Any) -> Any:
    """An array of a shape that nobody has filled."""
    shape = tuple(random.choice((1, 3, 10**6, *LENGTHS[:9])) for _ in range(random.randint(1, 3)))

    def make(group: h5py.Group, name: str) -> None:
        group.create_dataset(name, shape=shape, dtype="f8", chunks=(1,) * len(shape))

    return make


def _link(random: Random, _: Any) -> Any:
    """A way to another place, another file, or around in a circle."""
    ways = (
        h5py.SoftLink("/"),
        h5py.SoftLink("/nowhere"),
        h5py.ExternalLink("/etc/passwd", "/"),
        h5py.ExternalLink("a.h5", "/"),
        lambda group, name: group.__setitem__(name, group.file["/"]),
        lambda group, name: group.create_dataset(
            name, (3, 3), "f8", external=[("/etc/passwd", 0, 72)]
        ),
    )
    return random.choice(ways)


def _vary(random: Random, value: Any) -> Any:
    """Numbers that are none, or far off."""
    array = np.array(value, dtype=object if isinstance(value, str | dict) else None)
    if array.dtype.kind not in "iufb":
        return random.choice(("", "None", "é" * 2000, b"\xff\xfe", 1e300))
    array = array.astype(float)
    array.reshape(-1)[random.randrange(array.size)] = random.choice(
        (np.nan, np.inf, 1e300, -1.0, 0.5, 2.0**63)
    )
    return array


def _odd_kind(random: Random, _: Any) -> Any:
    """Kinds of numbers of HDF5 that numpy has not, or objects."""
    kinds: tuple[Callable[[h5py.Group, str], Any], ...] = (
        lambda g, n: g.create_dataset(n, (2,), h5py.vlen_dtype(np.float64)),
        lambda g, n: g.create_dataset(n, (2,), h5py.string_dtype()),
        lambda g, n: g.create_dataset(n, (2,), h5py.ref_dtype),
        lambda g, n: g.create_dataset(n, (2,), h5py.enum_dtype({"a": 1, "b": 2})),
        lambda g, n: g.create_dataset(n, (2,), np.dtype([("a", "f8"), ("b", "i4")])),
        lambda g, n: g.create_dataset(n, data=h5py.Empty("f8")),
        lambda g, n: g.create_dataset(n, (2,), np.dtype("V8")),
    )
    return random.choice(kinds)


OTHERS = (_other_array, _claim, _link, _vary, _vary, _odd_kind)
