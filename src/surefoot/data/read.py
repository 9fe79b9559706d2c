"""Files to frames: any file ASE reads, plus the few formats listed in READERS.

A `Frame` is one structure with the labels found beside it, already in eV and Å, and the place it
came from, so that every later complaint can name file and frame.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from pydantic import Field

from surefoot.data.adsorption import (
    REFERENCE,
    add_references,
    mark_subtracted,
    subtract_reference,
    unpack,
)
from surefoot.data.aselmdb import read_aselmdb
from surefoot.data.file_units import FileUnits, SpinUnit
from surefoot.data.formats import read_ase, read_database, read_npz, read_xyz, say_reason
from surefoot.data.geometric import read_geometric
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


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One structure, its labels in eV and Å (None where absent), and where it came from.

    Attributes:
        atoms: the structure, without calculator; its tags and `FixAtoms` are kept.
        energy: in eV: of the whole structure, or beyond a reference that was subtracted.
        forces: (atoms, 3) in eV/Å.
        stress: (3, 3) in eV/Å³, tensile positive.
        charge: total charge in e as stated by the file.
        spin: multiplicity 2S+1 as stated by the file, in `atoms.info` too.
        group: the unit of splits, folds, bootstraps and block intervals.
        config_type: the unit of error tables; `IsolatedAtom` marks reference atoms.
        file: path of the file as the user gave it.
        index: number of the frame in its file, from 0.
        keys: the key under which each label was found; `calculator` for ASE's own results; for a
            spin that is not a multiplicity in the file, what it is there and how that is known.
    """

    atoms: Atoms
    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    charge: int | None = None
    spin: int | None = None
    group: str
    config_type: str
    file: str
    index: int
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def sid(self) -> str | None:
        """The system of OC20 that it belongs to, if the file names one."""
        return str(self.atoms.info["sid"]) if "sid" in self.atoms.info else None

    @property
    def fid(self) -> str | None:
        """Its number in the trajectory of that system, if the file names one."""
        return str(self.atoms.info["fid"]) if "fid" in self.atoms.info else None

    @property
    def place(self) -> str:
        """The frame as messages name it."""
        return f"{self.file}, frame {self.index}"


class UnreadableFile(ValueError):
    """A file that can not be read, or a label that is asked for and is not there."""


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
    seen: Counter[str] = Counter()  # frames of each composition, over all files
    for path in paths:
        frames += _read_file(Path(path), keys, units, seen)
    if not frames:
        raise UnreadableFile(f"{', '.join(map(str, paths))}: no frames found.")
    for label in ("energy", "forces", "stress"):
        key = getattr(keys, label)
        if key not in (None, IGNORE) and all(getattr(f, label) is None for f in frames):
            raise UnreadableFile(
                f"{', '.join(map(str, paths))}: no frame has the key '{key}' that is set for "
                f"{label}. The first frame holds: {_held(read_images(Path(paths[0]))[0])}."
            )
    return frames


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


def _read_file(path: Path, keys: Keys, units: FileUnits, seen: Counter[str]) -> list[Frame]:
    images = read_images(path)
    frames = []
    for index, atoms in enumerate(images):
        strange = atoms.numbers[(atoms.numbers < 0) | (atoms.numbers > MOST)]
        if len(strange):
            raise UnreadableFile(f"{path}, frame {index}: there is no element {strange[0]}")
        formula = atoms.get_chemical_formula()
        default_group = f"{formula}#{seen[formula] // GROUP_BLOCK}"
        seen[formula] += 1
        try:
            frames.append(_to_frame(atoms, str(path), index, default_group, keys, units))
        except (TypeError, ValueError) as error:
            raise UnreadableFile(f"{path}, frame {index}: {say_reason(error)}") from error
    return _with_multiplicities(frames, units.spin)


def read_images(path: Path) -> list[Atoms]:
    """All structures of a file as they stand there; a `.gz` or `.xz` suffix is unpacked first.

    Where a text of OC20 stands beside it, its numbers are put into `info`, see `add_references`.

    Raises:
        UnreadableFile: with the file and the reason.
    """
    if not path.is_file():
        raise UnreadableFile(f"{path}: there is no such file.")
    with tempfile.TemporaryDirectory() as folder:
        try:
            plain = unpack(path, Path(folder))
            return add_references(READERS.get(plain.suffix, read_ase)(plain), path)
        except Exception as error:  # ASE's readers raise whatever their parsers meet
            raise UnreadableFile(
                f"{path}: can not be read ({say_reason(error)}). Any file that ASE reads is "
                f"allowed, and {', '.join(READERS)}."
            ) from error


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


READERS: dict[str, Callable[[Path], list[Atoms]]] = {
    ".xyz": read_xyz,
    ".extxyz": read_xyz,
    ".npz": read_npz,
    ".db": read_database,
    ".lmdb": read_geometric,
    ".aselmdb": read_aselmdb,
}
"""Formats that ASE does not read, or only in part, by suffix; everything else goes to ASE."""


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
            return _full_stress(stress, units.components) * unit, found
        if key is not None:
            return None, None
    for candidate in VIRIAL_KEYS if key is None else (key,):
        if candidate in atoms.info and abs(atoms.cell.volume) > 0:
            virial = _full_stress(atoms.info[candidate], units.components) * energy_unit
            return -virial / atoms.cell.volume, candidate
    return None, None


def _full_stress(value: Any, components: list[int]) -> np.ndarray:
    array = np.array(value, float)
    if array.shape == (6,):
        return voigt_6_to_full_3x3_stress(array[components])
    if array.size == 9:
        return array.reshape(3, 3)
    raise ValueError(
        f"stress has shape {array.shape}; 6 (ASE's Voigt order) or 9 values are allowed"
    )


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


def _with_multiplicities(frames: list[Frame], meaning: SpinUnit) -> list[Frame]:
    """The frames of one file with spins as 2S+1, whatever they are in the file."""
    if meaning == "unpaired":
        return [_with_multiplicity(frame, "as set") for frame in frames]
    zeros = any(frame.spin == 0 for frame in frames)
    if meaning == "auto" and zeros and all(_fits_unpaired(frame) for frame in frames):
        return [_with_multiplicity(frame, "0 occurs, which no 2S+1 is") for frame in frames]
    return frames


def _fits_unpaired(frame: Frame) -> bool:
    """Whether the stated spin can be a number of unpaired electrons; cells have no parity."""
    if frame.spin is None or frame.atoms.pbc.any():
        return True
    paired = int(frame.atoms.numbers.sum()) - (frame.charge or 0) - frame.spin
    return frame.spin >= 0 and paired >= 0 and paired % 2 == 0


def _with_multiplicity(frame: Frame, reason: str) -> Frame:
    if frame.spin is None:
        return frame
    key = next(name for name in SPIN_KEYS if name in frame.atoms.info)
    atoms = frame.atoms.copy()
    atoms.info[key] = frame.spin + 1
    told = f"{key}, read as unpaired electrons: {reason}"
    return replace(frame, atoms=atoms, spin=frame.spin + 1, keys={**frame.keys, "spin": told})


def _held(atoms: Atoms) -> str:
    names = [f"info {name}" for name in atoms.info]
    names += [f"array {name}" for name in atoms.arrays if name not in ("numbers", "positions")]
    names += [f"calculator {name}" for name in (atoms.calc.results if atoms.calc else {})]
    return ", ".join(names) or "no keys at all"
