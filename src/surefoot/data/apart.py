"""A reader in a process of its own, for files that a library in C follows wherever they lead.

The library of HDF5 believes what stands in a file: on a damaged one it may end the interpreter, or
never come back. So another process reads, with a limit on memory and time, and hands the structures
over as lines of JSON; what becomes of it is a sentence here.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from surefoot.data.formats import say_reason
from surefoot.data.hdf5 import SWELLING, read_hdf5

SECONDS, PACE = 10, 100_000
"""Of computing: some in any case, and one for so many bytes, a tenth of what is usual."""
ROOM = 2**31  # bytes beyond what arrays of the file may fill
COPIES = 4  # of an array, while it is read
PLAIN = ("numbers", "positions")  # arrays that every structure has


def read_apart(path: Path) -> Iterator[Atoms]:
    """What `read_hdf5` reads of a file, in another process.

    Raises:
        ValueError: as it does, or if the library breaks down or does not come to an end.
    """
    # -P: nothing that lies in the working folder is imported.
    command = [sys.executable, "-P", "-m", __name__, str(path.absolute())]
    places = os.pathsep.join(place for place in sys.path if place)
    with subprocess.Popen(  # noqa: S603  no text of others is in it but the path
        command,
        env={**os.environ, "PYTHONPATH": places},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as reader:
        try:
            for line in reader.stdout or ():
                told = json.loads(line)
                if "reason" in told:
                    raise ValueError(told["reason"])
                yield _to_atoms(told)
            if reader.wait():
                raise ValueError(_say_end(-reader.returncode))
        finally:
            reader.kill()


def _say_end(number: int) -> str:
    if number == signal.SIGXCPU:
        return "the library of HDF5 does not come to an end with it; the file is damaged"
    name = signal.Signals(number).name if number > 0 else f"status {-number}"
    return f"the library of HDF5 broke down on it ({name}); the file is damaged"


def _to_lists(atoms: Atoms) -> dict[str, Any]:
    """What JSON holds of a structure, to the bit."""
    return {
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "info": {name: _to_list(value) for name, value in atoms.info.items()},
        "arrays": {name: array.tolist() for name, array in atoms.arrays.items()},
    }


def _to_list(value: Any) -> Any:
    """Arrays are told from numbers and texts by their list."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _to_atoms(told: dict[str, Any]) -> Atoms:
    arrays = {name: np.array(array) for name, array in told["arrays"].items()}
    positions = arrays["positions"].reshape(-1, 3)
    atoms = Atoms(arrays["numbers"], positions=positions, cell=told["cell"], pbc=told["pbc"])
    atoms.arrays |= {name: array for name, array in arrays.items() if name not in PLAIN}
    for name, value in told["info"].items():
        atoms.info[name] = np.array(value) if isinstance(value, list) else value
    return atoms


def main(path: Path) -> None:
    """Read a file and print what is there, or the reason why not."""
    _limit(path.stat().st_size)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # what a library prints is no structure
        try:
            for atoms in read_hdf5(path):
                out.write(json.dumps(_to_lists(atoms)) + "\n")
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, it is told
            out.write(json.dumps({"reason": say_reason(error)}) + "\n")


def _limit(size: int) -> None:
    """Time and memory for a file of this size, in bytes."""
    seconds = SECONDS + size // PACE
    for kind, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_DATA, ROOM + COPIES * SWELLING * size),
    ):
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, hard))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
