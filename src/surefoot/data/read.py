"""Files to frames: which labels stand beside the structures, under which names, in eV and Å."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from pydantic import Field

from surefoot.data.adsorption import REFERENCE, mark_subtracted, subtract_reference
from surefoot.data.file_units import FileUnits
from surefoot.data.formats import say_reason
from surefoot.data.frame import Frame
from surefoot.data.hdf5 import require_sign
from surefoot.data.images import UnreadableFile, iterate_images
from surefoot.settings import Settings
from surefoot.units import ENERGY_UNITS, LENGTH_UNITS, STRESS_UNITS

ENERGY_KEYS = ("REF_energy", "dft_energy", "DFT_energy", "energy_dft", "energy_xtb", "xtb_energy")
FORCES_KEYS = (
    "REF_forces",
    "dft_forces",
    "DFT_forces",
    "forces_dft",
    "forces_xtb",
    "xtb_forces",
    "force",
)
STRESS_KEYS = ("REF_stress", "dft_stress", "DFT_stress")
VIRIAL_KEYS = ("REF_virials", "REF_virial", "dft_virial", "virial", "virials")
CHARGE_KEYS = ("charge", "total_charge")
SPIN_KEYS = ("spin", "spin_multiplicity", "total_spin", "multiplicity")
CALCULATOR = "calculator"
IGNORE = "none"
SUFFIXES = (".xyz", ".extxyz")  # of files this package writes
ISOLATED = "IsolatedAtom"  # config_type of frames that give reference energies
PREDICTED = "predicted_by"  # marks frames that `surefoot predict` wrote
MOST = 118  # atomic number
GROUP_BLOCK = 50  # consecutive frames of one composition that count as one group


class Keys(Settings):
    """Where the labels of a file stand; what is not set is looked for, `none` ignores a label."""

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    reference: str | None = Field(
        default=None,
        description="key in info of an energy to subtract from the energy of each frame: "
        f"{REFERENCE} makes adsorption energies of chunks of OC20 and the texts beside them",
    )


def read_frames(
    paths: Sequence[str | Path],
    keys: Keys = Keys(),
    units: FileUnits = FileUnits(),
) -> list[Frame]:
    """Read all frames of the files, in order, with their labels in eV and Å.

    Args:
        paths: files; a `.gz` or `.xz` suffix is unpacked first.
        keys: where labels stand; None looks in the order of the design.
        units: units of the labels in these files.
    Raises:
        UnreadableFile: with the file and the reason.
    """
    frames: list[Frame] = []
    seen: Counter[str] = Counter()
    for path in paths:
        reading = Reading(Path(path), keys, units, seen)
        held = list(reading)
        reason = reading.unpaired
        frames += held if reason is None else [as_multiplicity(f, reason) for f in held]
    require_labels(frames, paths, keys)
    return frames


def require_labels(frames: Sequence[Frame], paths: Sequence[str | Path], keys: Keys) -> None:
    """Refuse files without frames, and keys that no frame has.

    Raises:
        UnreadableFile: with the files and what is there.
    """
    if not frames:
        raise UnreadableFile(f"{', '.join(map(str, paths))}: no frames found.")
    for label in ("energy", "forces", "stress"):
        key = getattr(keys, label)
        if key not in (None, IGNORE) and all(getattr(f, label) is None for f in frames):
            first = next(iterate_images(Path(paths[0])))
            raise UnreadableFile(
                f"{', '.join(map(str, paths))}: no frame has the key '{key}' that is set for "
                f"{label}. The first frame holds: {_held(first)}."
            )


def describe_labels(frames: Sequence[Frame]) -> str:
    """One line that counts the labels found and names their keys.

    For example `energy 400/400 (REF_energy), forces 398/400 (REF_forces), stress 0/400, …`.
    """
    parts = []
    for label in ("energy", "forces", "stress", "charge", "spin"):
        count = sum(getattr(frame, label) is not None for frame in frames)
        keys = Counter(frame.keys[label] for frame in frames if label in frame.keys)
        several = ", ".join(f"{key} {n}" if len(keys) > 1 else key for key, n in keys.items())
        parts.append(f"{label} {count}/{len(frames)}" + (f" ({several})" if keys else ""))
    return ", ".join(parts)


class Reading:
    """The frames of one file, one after the other; what its spins are is known after the last."""

    def __init__(self, path: Path, keys: Keys, units: FileUnits, seen: Counter[str]) -> None:
        """Begin with nothing.

        Args:
            path: of the file.
            keys: where labels stand.
            units: of the labels.
            seen: frames of each composition in the files before; it is counted on.
        """
        self._path, self._keys, self._units, self._seen = path, keys, units, seen
        self._zeros, self._fit = False, True

    def __iter__(self) -> Iterator[Frame]:
        """The frames, with spins as the file states them."""
        for index, atoms in enumerate(iterate_images(self._path)):
            strange = atoms.numbers[(atoms.numbers < 0) | (atoms.numbers > MOST)]
            if len(strange):
                raise UnreadableFile(
                    f"{self._path}, frame {index}: there is no element {strange[0]}"
                )
            formula = atoms.get_chemical_formula()
            group = f"{formula}#{self._seen[formula] // GROUP_BLOCK}"
            self._seen[formula] += 1
            try:
                frame = _to_frame(atoms, str(self._path), index, group, self._keys, self._units)
            except (TypeError, ValueError) as error:
                raise UnreadableFile(f"{self._path}, frame {index}: {say_reason(error)}") from error
            self._zeros |= frame.spin == 0
            self._fit = self._fit and _fits_unpaired(frame)
            yield frame

    @property
    def unpaired(self) -> str | None:
        """Why the spins are numbers of unpaired electrons; None where they are multiplicities."""
        if self._units.spin == "unpaired":
            return "as set"
        guessed = self._units.spin == "auto" and self._zeros and self._fit
        return "0 occurs, which no 2S+1 is" if guessed else None


def check_output(output: Path, inputs: Sequence[str | Path]) -> None:
    """Refuse a name for frames to be written: another format, or one of the files they are from.

    Raises:
        ValueError: with the name and the reason.
    """
    if output.suffix not in SUFFIXES:
        raise ValueError(
            f"{output}: frames are written as extended XYZ; choose a name that ends in "
            f"{' or '.join(SUFFIXES)}."
        )
    refuse_overwriting(output, inputs)


def refuse_overwriting(output: Path, inputs: Sequence[str | Path]) -> None:
    """Refuse to write over a file that is read.

    Raises:
        ValueError: with the name.
    """
    if any(Path(file).resolve() == output.resolve() for file in inputs):
        raise ValueError(
            f"{output}: this is one of the files to be read, and what it holds would be lost; "
            "choose another name."
        )


def _to_frame(
    atoms: Atoms, file: str, index: int, default_group: str, keys: Keys, units: FileUnits
) -> Frame:
    # What a potential predicted is no label, though ASE stores it as one.
    predicted = PREDICTED in atoms.info
    results = {} if atoms.calc is None or predicted else dict(atoms.calc.results)
    energy_unit = ENERGY_UNITS[units.energy]
    length_unit = LENGTH_UNITS[units.length]
    info = atoms.info
    energy, energy_key = _find(info, results, keys.energy, ENERGY_KEYS, "energy")
    if energy is not None:
        reference = None if keys.reference == IGNORE else keys.reference
        energy, energy_key = subtract_reference(energy, str(energy_key), info, reference)
    require_sign(atoms, keys.forces)
    forces, forces_key = _find(atoms.arrays, results, keys.forces, FORCES_KEYS, "forces")
    stress, stress_key = _find_stress(atoms, results, keys.stress, units)
    found = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    charge, spin = read_state(info)
    plain = mark_subtracted(atoms.copy(), None if energy is None else keys.reference)
    plain.calc = None
    return Frame(
        atoms=plain,
        energy=None if energy is None else float(energy) * energy_unit,
        forces=None if forces is None else np.array(forces, float) * energy_unit / length_unit,
        stress=stress,
        charge=charge,
        spin=spin,
        group=_group(info, default_group),
        config_type=_config_type(info),
        file=file,
        index=index,
        keys={label: key for label, key in found.items() if key is not None},
    )


def _group(info: dict[str, Any], default: str) -> str:
    """As the file names it; the frames of one relaxation of OC20 belong together."""
    if "group" not in info and "sid" in info:
        return f"sid {info['sid']}"
    return str(info.get("group", default))


def _config_type(info: dict[str, Any]) -> str:
    """As the file says it; reference atoms are spelled in several ways."""
    stated = str(info.get("config_type", "Default"))
    return ISOLATED if stated.replace("_", "").lower() == ISOLATED.lower() else stated


def _find(
    held: dict[str, Any],
    results: dict[str, Any],
    key: str | None,
    known: tuple[str, ...],
    name: str,
) -> tuple[Any, str | None]:
    """A label and the key it stands under; twice None where there is none."""
    if key == IGNORE:
        return None, None
    # ASE moves plain `energy` and `forces` columns into a calculator; both places count.
    places = [(held, candidate, candidate) for candidate in (known if key is None else (key,))]
    if key in (None, CALCULATOR):
        places.append((results, name, CALCULATOR))
    if key is None:
        places.append((held, name, name))
    elif key != CALCULATOR:
        places.append((results, key, CALCULATOR))
    for place, candidate, told in places:
        if place.get(candidate) is not None:
            return place[candidate], told
    return None, None


def _find_stress(
    atoms: Atoms, results: dict[str, Any], key: str | None, units: FileUnits
) -> tuple[np.ndarray | None, str | None]:
    """Stress in eV/Å³, or −virial / volume; a virial is an energy."""
    energy_unit = ENERGY_UNITS[units.energy]
    if key not in VIRIAL_KEYS:
        stress, found = _find(atoms.info, results, key, STRESS_KEYS, "stress")
        if stress is not None:
            unit = energy_unit / LENGTH_UNITS[units.length] ** 3
            unit = STRESS_UNITS.get(units.stress, unit)
            return units.full_stress(stress) * unit, found
        if key is not None:
            return None, None
    for candidate in VIRIAL_KEYS if key is None else (key,):
        if candidate in atoms.info and abs(atoms.cell.volume) > 0:
            virial = units.full_stress(atoms.info[candidate]) * energy_unit
            return -virial / atoms.cell.volume, candidate
    return None, None


def read_state(info: dict[str, Any]) -> tuple[int | None, int | None]:
    """Total charge in e and multiplicity 2S+1 as `atoms.info` states them; None where it does not.

    Raises:
        ValueError: if one is not a whole number.
    """
    return _whole(info, CHARGE_KEYS), _whole(info, SPIN_KEYS)


def _whole(info: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        if name in info:
            try:
                value = float(info[name])
            except (TypeError, ValueError):
                value = math.nan  # refused below, like every other number that is not whole
            if not value.is_integer():
                raise ValueError(f"{name} is {info[name]}; a whole number is needed")
            return int(value)
    return None


def _fits_unpaired(frame: Frame) -> bool:
    """Whether the stated spin can be a number of unpaired electrons; cells have no parity."""
    if frame.spin is None or frame.atoms.pbc.any():
        return True
    paired = int(frame.atoms.numbers.sum()) - (frame.charge or 0) - frame.spin
    return frame.spin >= 0 and paired >= 0 and paired % 2 == 0


def as_multiplicity(frame: Frame, reason: str) -> Frame:
    """A frame that states unpaired electrons with the multiplicity 2S+1 in their place."""
    if frame.spin is None:
        return frame
    key = find_spin_key(frame.atoms.info)
    atoms = frame.atoms.copy()
    atoms.info[key] = frame.spin + 1
    return replace(
        frame, atoms=atoms, spin=frame.spin + 1, keys={**frame.keys, **tell_unpaired(key, reason)}
    )


def find_spin_key(info: Mapping[str, Any]) -> str:
    """The key under which `info` states a spin."""
    return next(name for name in SPIN_KEYS if name in info)


def tell_unpaired(key: str, reason: str) -> dict[str, str]:
    """What `Frame.keys` says of a spin that was a number of unpaired electrons."""
    return {"spin": f"{key}, read as unpaired electrons: {reason}"}


def _held(atoms: Atoms) -> str:
    names = [f"info {name}" for name in atoms.info]
    names += [f"array {name}" for name in atoms.arrays if name not in ("numbers", "positions")]
    names += [f"calculator {name}" for name in (atoms.calc.results if atoms.calc else {})]
    return ", ".join(names) or "no keys at all"
