"""HDF5 files in two layouts: configurations of MACE, and conformers as ANI and COMP6 have them.

MACE: `config_batch_0/config_0`, … with `atomic_numbers`, `positions`, `cell`, `pbc`, labels in
`properties` (in the group itself in older files) and their weights. A label of weight zero is
absent, since MACE fills the places of missing labels; other weights are not read.

Conformers: groups with `species` (atoms), `coordinates` (frames, atoms, 3), `energies` (frames) and
perhaps `forces`. In COMP6 that array is the gradient, as the energies along its own scans show, and
elsewhere it may be what its name says. So it is offered under two names, and the user has to say
which is right: see `AS_WRITTEN`.

A file that sends its reader to other files, by links, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

BATCH, CONFIGURATION = "config_batch_", "config_"
LABELS = {"energy": "info", "forces": "arrays", "stress": "info", "virials": "info"}
STATES = ("total_charge", "total_spin")
ABSENT = "None"  # how MACE writes what is not there

AS_WRITTEN = "forces_as_written"
"""Key of forces that are what their name says."""
NEGATED = "gradient_negated"
"""Key of forces where the file holds the gradient under that name."""
DEPTH = 8  # of groups within groups
SWELLING = 64  # bytes of an array per byte of the file; compressed numbers have below 10


def read_hdf5(path: Path) -> Iterator[Atoms]:
    """Structures of such a file, in the order of their numbers or names.

    Raises:
        ValueError: if it is in neither layout, or shapes do not fit together.
    """
    limit = SWELLING * path.stat().st_size
    with h5py.File(path, "r") as file:
        if any(name.startswith(BATCH) for name in map(str, file)):
            for batch in _numbered(file, BATCH):
                for one in _numbered(_group(file, batch), CONFIGURATION):
                    yield _read_configuration(_group(_group(file, batch), one), limit)
            return
        count = 0
        for group in _find_conformers(file, DEPTH):
            for atoms in _read_conformers(group, limit):
                count += 1
                yield atoms
        if not count:
            raise ValueError(
                "its groups are neither configurations of MACE (config_batch_0/config_0) nor "
                "conformers with species and coordinates"
            )


def require_sign(atoms: Atoms, key: str | None) -> None:
    """Refuse forces of conformers of which nobody has said whether they are gradients.

    Args:
        atoms: as read.
        key: of forces, as the user set it.
    Raises:
        ValueError: if there are two names for them and none is set.
    """
    if key is None and NEGATED in atoms.arrays:
        raise ValueError(
            "in this layout 'forces' are gradients in some files (COMP6) and forces in others; say "
            f"which with `keys: {{forces: {NEGATED}}}` or `keys: {{forces: {AS_WRITTEN}}}`, or "
            "ignore them with `keys: {forces: none}`"
        )


def _numbered(group: h5py.Group, prefix: str) -> list[str]:
    """Names with the prefix and a number, by number: 10 stands behind 2."""
    names = [name for name in map(str, group) if name.startswith(prefix)]
    wrong = [name for name in names if not name.removeprefix(prefix).isdecimal()]
    if wrong:
        raise ValueError(f"it has the group '{wrong[0][:40]}', and a number should end its name")
    return sorted(names, key=lambda name: int(name.removeprefix(prefix)))


def _read_configuration(group: h5py.Group, limit: int) -> Atoms:
    properties = _group(group, "properties") if "properties" in group else group
    weights = _group(group, "property_weights") if "property_weights" in group else None
    numbers, positions = (_value(group, name, limit) for name in ("atomic_numbers", "positions"))
    if numbers is None or positions is None:
        raise ValueError(f"{group.name} has no atomic_numbers or no positions")
    cell, pbc = (_value(group, name, limit) for name in ("cell", "pbc"))
    atoms = Atoms(
        np.asarray(numbers, int),
        positions=np.asarray(positions, float),
        cell=None if cell is None else np.asarray(cell, float).reshape(3, 3),
        pbc=None if pbc is None else np.asarray(pbc, bool).reshape(3),
    )
    for name, place in LABELS.items():
        value = _value(properties, name, limit)
        if weights is not None:
            weight = _value(weights, name, limit)
        else:
            weight = _value(group, f"{name}_weight", limit)
        if value is None or (weight is not None and not np.any(weight)):
            continue
        number = np.asarray(value, float)
        getattr(atoms, place)[f"REF_{name}"] = number.item() if number.size == 1 else number
    for name in (*STATES, "config_type", "head"):
        value = _value(properties if name in properties else group, name, limit)
        if value is not None:
            atoms.info[name] = value if isinstance(value, str) else np.asarray(value).item()
    return atoms


def _find_conformers(group: h5py.Group, depth: int) -> Iterator[h5py.Group]:
    if {"species", "coordinates"} <= set(group):
        yield group
        return
    for name in map(str, group):
        if depth and isinstance(_linked(group, name), h5py.Group):
            yield from _find_conformers(_group(group, name), depth - 1)


def _read_conformers(group: h5py.Group, limit: int) -> Iterator[Atoms]:
    species, positions = (_array(group, name, limit) for name in ("species", "coordinates"))
    numbers = [_to_number(value) for value in np.ravel(species)]
    if positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3):
        raise ValueError(f"{group.name}: {len(numbers)} species, and {positions.shape} coordinates")
    energies = _array(group, "energies", limit) if "energies" in group else None
    forces = _array(group, "forces", limit) if "forces" in group else None
    if energies is not None and energies.size != len(positions):
        raise ValueError(f"{group.name}: {energies.size} energies for {len(positions)} frames")
    if forces is not None and forces.shape != positions.shape:
        raise ValueError(f"{group.name}: forces have the shape {forces.shape}")
    for index, coordinates in enumerate(positions):
        atoms = Atoms(numbers, positions=coordinates, info={"name": str(group.name)})
        if energies is not None:
            atoms.info["REF_energy"] = float(np.ravel(energies)[index])
        if forces is not None:
            atoms.arrays[AS_WRITTEN] = np.array(forces[index], float)
            atoms.arrays[NEGATED] = -atoms.arrays[AS_WRITTEN]
        yield atoms


def _to_number(species: Any) -> int:
    """Atomic number of a symbol, or of the number itself."""
    text = species.decode("ascii", "replace") if isinstance(species, bytes) else str(species)
    if text in atomic_numbers:
        return atomic_numbers[text]
    if text.isdecimal() and 0 < int(text) < len(chemical_symbols):
        return int(text)
    raise ValueError(f"it has the species '{text[:20]}', which is no element")


def _value(group: h5py.Group, name: str, limit: int) -> Any:
    """A number, array or text; None where it is missing or said to be."""
    if name not in group:
        return None
    value = _array(group, name, limit)[()]
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return None if isinstance(value, str) and value == ABSENT else value


def _array(group: h5py.Group, name: str, limit: int) -> np.ndarray:
    """The numbers of a data set of this very file, of a size that the file can hold."""
    found = _linked(group, name)
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise ValueError(f"{group.name}/{name} is no array of this file")
    if found.dtype.kind not in "biufSO" or found.nbytes > limit:
        raise ValueError(f"{group.name}/{name} is no array of numbers or text that fits the file")
    return np.asarray(found[()])


def _group(group: h5py.Group, name: str) -> h5py.Group:
    found = _linked(group, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{group.name}/{name} is no group")
    return found


def _linked(group: h5py.Group, name: str) -> Any:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{group.name}/{name} is a link to another place, which is not followed")
    return group[name]
