"""What the data doctor finds in sound files and in files that are damaged on purpose.

Usage: python benchmarks/doctor.py [--frames 200]

Every file of SUREFOOT_DATA that has labels is looked at, up to --frames frames of each. Then sound
files are damaged in one way each, written, read and looked at; what has to be found and what else
is found stands in benchmarks/doctor/README.md. The exit status is 1 where a damage is overlooked.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import ase.io
from doctor.damages import DAMAGES, Set, list_sources
from doctor.page import Told, write

from surefoot.data.check import check_frames
from surefoot.data.file_units import FileUnits
from surefoot.data.mend import to_images
from surefoot.data.read import Frame, Keys, read_frames

DATA = Path(os.environ.get("SUREFOOT_DATA", "data"))
PAGE = Path(__file__).parent / "doctor" / "README.md"
SUFFIXES = (".xyz", ".extxyz", ".npz", ".db", ".h5", ".traj", ".gz", ".xz")
SETTINGS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "rmd17/": ({}, {"energy": "kcal/mol"}),
    "comp6/": ({"forces": "gradient_negated"}, {"energy": "Hartree"}),
    "small/ethanol_reduced_100": ({}, {"energy": "kcal/mol"}),
    "small/qm9_reduced_100": ({"energy": "U0"}, {"energy": "Hartree"}),
    "mlearn/": ({"stress": "virial_stress_kbar"}, {"stress": "VASP"}),
    "charge_spin/": ({}, {"spin": "unpaired"}),
}
"""Keys and units of files that need them, as their README says."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=200, help="of each file, evenly chosen")
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    sound = [look_at(path, chosen.frames) for path in sorted(DATA.rglob("*")) if is_data(path)]
    sources = list_sources(DATA)
    usual = {name: set(diagnose(one)) for name, one in sources.items()}
    damaged = []
    for one in DAMAGES:
        began = time.monotonic()
        found = diagnose(one.harm({k: list(v) for k, v in sources[one.source].items()}))
        new = {code: count for code, count in found.items() if code not in usual[one.source]}
        told = Told(one.name, one.source, one.code, new, one.code in new)
        print(f"{told.name}: {told.found} ({time.monotonic() - began:.1f} s)", flush=True)
        damaged.append(told)
    write(chosen.page, sound, damaged, chosen.frames)
    sys.exit(0 if all(one.right for one in damaged) else 1)


def is_data(path: Path) -> bool:
    """Whether a file may hold labelled structures."""
    return (
        path.is_file()
        and path.suffix in SUFFIXES
        and not {".tar", ".gro", ".pdb", ".top", ".json"} & set(path.suffixes)
    )


def look_at(path: Path, count: int) -> tuple[str, str, dict[str, int]]:
    """Name of a file, how many frames of how many were looked at, and what was found."""
    name = str(path.relative_to(DATA))
    keys, units = next((v for k, v in SETTINGS.items() if name.startswith(k)), ({}, {}))
    try:
        frames = read_frames([path], Keys(**keys), FileUnits(**units))
    except ValueError as error:
        print(f"{name}: {error}", flush=True)
        return name, "refused", {}
    labelled = any(frame.energy is not None or frame.forces is not None for frame in frames)
    some = frames[:: max(1, -(-len(frames) // count))]
    found = {one.code: one.count for one in check_frames({"train": some})} if labelled else {}
    print(f"{name}: {found}", flush=True)
    return name, f"{len(some)} of {len(frames)}" + ("" if labelled else ", no labels"), found


def diagnose(splits: Set) -> dict[str, int]:
    """What is found in these frames once they have been written and read."""
    with tempfile.TemporaryDirectory() as folder:
        read: dict[str, list[Frame]] = {}
        for split, frames in splits.items():
            path = Path(folder) / f"{split}.xyz"
            ase.io.write(path, to_images(frames), format="extxyz")
            read[split] = read_frames([path])
        return {one.code: one.count for one in check_frames(read)}


if __name__ == "__main__":
    main()
