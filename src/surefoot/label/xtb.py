"""Labels from the extended tight-binding methods GFN1-xTB and GFN2-xTB through tblite.

Fast (0.02 s for 30 atoms) and good for geometries and for trying things out. Not a source of truth
for reaction barriers: those of hydrogen transfers are some 18 kcal/mol too low with GFN2-xTB and
some 16 with spGFN2-xTB, which adds the interaction of the spins.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from ase import Atoms
from pydantic import Field

from surefoot.label.labeler import (
    LabelingFailed,
    Labels,
    check_labels,
    check_molecule,
    check_state,
)
from surefoot.settings import Settings
from surefoot.units import BOHR, BOLTZMANN, HARTREE

SPIN_POLARIZED = "sp"  # before the name of a method, as its authors write it


class Xtb(Settings):
    """Extended tight binding for molecules.

    Attributes:
        method: Bannwarth et al. 2019 (GFN2), Grimme et al. 2017 (GFN1), and either with the
            spin-polarisation of Neugebauer et al. 2023 (sp); energies with and without it differ
            by an amount that depends on where the spin is, so that they are two levels.
        solvent: name of the implicit solvent of ALPB (Ehlert et al. 2021), such as water; the
            molecule is in vacuum where not set.
        accuracy: factor on all numerical thresholds; smaller is tighter.
        max_iterations: self-consistency cycles before a frame counts as failed.
        electronic_temperature: of the Fermi filling, in K.
    """

    name: Literal["xtb"] = "xtb"
    method: Literal["GFN2-xTB", "GFN1-xTB", "spGFN2-xTB", "spGFN1-xTB"] = "GFN2-xTB"
    solvent: str | None = Field(default=None, min_length=1)
    accuracy: float = Field(default=1.0, gt=0)
    max_iterations: int = Field(default=250, gt=0)
    electronic_temperature: float = Field(default=300.0, ge=0)

    def settings(self) -> dict[str, Any]:
        """All settings and the version of tblite."""
        return {**self.model_dump(), "code": f"tblite {version('tblite')}"}

    def describe(self) -> str:
        """Method and code, for example `GFN2-xTB, ALPB water (tblite 0.8.0)`."""
        solvent = "" if self.solvent is None else f", ALPB {self.solvent}"
        return f"{self.method}{solvent} (tblite {version('tblite')})"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        """Energy and forces of one molecule.

        Args:
            atoms: a molecule without periodic directions.
            charge: total charge in e.
            spin: multiplicity 2S+1.

        Raises:
            LabelingFailed: if the self-consistency cycles do not converge or the frame is
                periodic.
            ValueError: if charge and spin do not fit the electrons.
        """
        check_state(atoms.numbers, charge, spin)
        check_molecule(atoms, self.name)
        return self._singlepoint(atoms, charge, spin)

    def _singlepoint(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        from tblite.exceptions import TBLiteRuntimeError, TBLiteValueError
        from tblite.interface import Calculator

        try:
            calculator = Calculator(
                self.method.removeprefix(SPIN_POLARIZED),
                atoms.numbers,
                atoms.positions / BOHR,
                charge=charge,
                uhf=spin - 1,
            )
            calculator.set("verbosity", 0)
            if self.method.startswith(SPIN_POLARIZED):
                calculator.add("spin-polarization", 1.0)
            if self.solvent is not None:
                calculator.add("alpb-solvation", self.solvent)
            calculator.set("accuracy", self.accuracy)
            calculator.set("max-iter", self.max_iterations)
            calculator.set("temperature", self.electronic_temperature * BOLTZMANN / HARTREE)
            result = calculator.singlepoint()
        except (TBLiteRuntimeError, TBLiteValueError) as error:
            raise LabelingFailed(f"{self.describe()}: {error}") from error
        energy = float(result.get("energy")) * HARTREE
        forces = -np.array(result.get("gradient"), float) * (HARTREE / BOHR)
        return check_labels(Labels(energy, forces), self.describe())
