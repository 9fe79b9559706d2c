"""Labels from the program `xtb` of the Grimme group, which has methods that tblite has not.

GFN-FF, for example. Where both have a method, `xtb` through tblite is faster, since no program has
to be started for each structure.
"""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal

import ase.io
import numpy as np
from ase import Atoms
from pydantic import Field

from surefoot.label.labeler import (
    LabelingFailed,
    Labels,
    NotSettled,
    check_labels,
    check_molecule,
    check_state,
)
from surefoot.label.processes import run_program
from surefoot.settings import Settings
from surefoot.units import BOHR, HARTREE

FLAGS = {
    "GFN2-xTB": ("--gfn", "2"),
    "GFN1-xTB": ("--gfn", "1"),
    "GFN0-xTB": ("--gfn", "0"),
    "GFN-FF": ("--gfnff",),
}
STRUCTURE, GRADIENT = "structure.xyz", "gradient"
VERSION = re.compile(r"xtb version (\S+)")


class XtbProgram(Settings):
    """The program `xtb`, one process for each structure.

    Attributes:
        method: what it calculates. GFN-FF is a force field, one surface for all spins.
        program: its name on the search path, or its file.
        solvent: name of the implicit solvent of ALPB; vacuum where not set.
        accuracy: factor on all numerical thresholds; smaller is tighter.
    """

    name: Literal["xtb_program"] = "xtb_program"
    method: Literal["GFN2-xTB", "GFN1-xTB", "GFN0-xTB", "GFN-FF"] = "GFN2-xTB"
    program: str = Field(default="xtb", min_length=1)
    solvent: str | None = Field(default=None, min_length=1)
    accuracy: float = Field(default=1.0, gt=0)

    def settings(self) -> dict[str, Any]:
        """All settings but where the program lies, and its version.

        Raises:
            LabelingFailed: if the program does not start, or does not tell its version.
        """
        return {**self.model_dump(exclude={"program"}), "code": f"xtb {_version(self.program)}"}

    def describe(self) -> str:
        """Method and code, for example `GFN-FF (program xtb 6.7.1)`."""
        solvent = "" if self.solvent is None else f", ALPB {self.solvent}"
        return f"{self.method}{solvent} (program xtb {_version(self.program)})"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        """Energy and forces of one molecule.

        Args:
            atoms: a molecule without periodic directions.
            charge: total charge in e.
            spin: multiplicity 2S+1.

        Raises:
            LabelingFailed: if the program fails or the frame is periodic.
            ValueError: if charge and spin do not fit the electrons.
        """
        check_state(atoms.numbers, charge, spin)
        check_molecule(atoms, self.name)
        command = [self.program, STRUCTURE, "--grad", *FLAGS[self.method]]
        command += ["--chrg", str(charge), "--uhf", str(spin - 1), "--acc", f"{self.accuracy:g}"]
        if self.solvent is not None:
            command += ["--alpb", self.solvent]
        with tempfile.TemporaryDirectory() as folder:
            plain = Atoms(atoms.numbers, atoms.positions)
            ase.io.write(Path(folder) / STRUCTURE, plain, format="xyz", fmt="%.12f")
            run_program(command, Path(folder))
            try:
                text = (Path(folder) / GRADIENT).read_text()
            except FileNotFoundError as error:
                raise LabelingFailed(f"{self.describe()}: there is no gradient") from error
        return check_labels(read_gradient(text, len(atoms)), self.describe())


def read_gradient(text: str, count: int) -> Labels:
    """Labels from a file in Turbomole's form: after the energy one row per atom, then one more.

    Args:
        text: what the file holds, in Hartree and Hartree/Bohr.
        count: number of atoms.

    Raises:
        LabelingFailed: if it is not such a file.
    """
    try:
        heading, *rows = text.partition("$grad")[2].partition("$end")[0].strip().splitlines()
        energy = float(heading.partition("SCF energy =")[2].split()[0])
        numbers = [row.upper().replace("D", "E").split()[:3] for row in rows[count : 2 * count]]
        gradient = np.array(numbers, float).reshape(count, 3)
    except (IndexError, ValueError) as error:
        raise LabelingFailed("the gradient that xtb wrote can not be read") from error
    return Labels(energy * HARTREE, -gradient * (HARTREE / BOHR))


@cache
def _version(program: str) -> str:
    printed = run_program([program, "--version"], Path.cwd())
    found = VERSION.search(printed)
    if found is None:
        raise NotSettled(
            f"{program} does not say `xtb version` when asked with --version; labels of a program "
            "of unknown version can not be told from others. Set `program` to the program xtb"
        )
    return found[1]
