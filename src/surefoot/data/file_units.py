"""In which units, and in which order of components, a file states its labels."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Float
from pydantic import field_validator

from surefoot.settings import Settings

SpinUnit = Literal["auto", "multiplicity", "unpaired"]
SPIN_UNITS: tuple[SpinUnit, ...] = get_args(SpinUnit)
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")  # ASE's order
VASP_ORDER = "xx yy zz xy yz zx"


class FileUnits(Settings):
    """Units of the labels in a file, `length` that of forces and stress; positions are in Å.

    `spin` is the multiplicity 2S+1 or the number of unpaired electrons 2S. Where it is `auto`, a
    file counts unpaired electrons if 0 occurs, which no multiplicity is, and every molecule's
    number of electrons agrees.

    `stress` is a unit of its own where the file does not use energy / length³: GPa or kbar, tensile
    positive; VASP stands for its output, kbar of pressure in the order xx yy zz xy yz zx.
    `stress_order` names the six components of files that order them otherwise; `auto` is ASE's
    xx yy zz yz xz xy, or VASP's.
    """

    energy: Literal["eV", "meV", "Hartree", "Rydberg", "kcal/mol", "kJ/mol"] = "eV"
    length: Literal["Å", "Angstrom", "Bohr", "nm"] = "Å"
    stress: Literal["auto", "GPa", "kbar", "VASP"] = "auto"
    stress_order: str = "auto"
    spin: SpinUnit = "auto"

    @field_validator("stress_order")
    @classmethod
    def _six_components(cls, text: str) -> str:
        if text != "auto" and sorted(map(_component, text.split())) != sorted(VOIGT):
            raise ValueError(
                f"'{text}' does not name the six components of a stress; write auto, or for "
                "example xx yy zz xy xz yz"
            )
        return text

    @property
    def components(self) -> list[int]:
        """Where each of ASE's six components of a stress stands in the file."""
        text = VASP_ORDER if self.stress == "VASP" else " ".join(VOIGT)
        if self.stress_order != "auto":
            text = self.stress_order
        found = [_component(part) for part in text.split()]
        return [found.index(component) for component in VOIGT]

    def full_stress(self, value: Any) -> Float[np.ndarray, "3 3"]:
        """A stress or virial of a file as a matrix.

        Raises:
            ValueError: if it has neither 6 nor 9 numbers.
        """
        array = np.array(value, float)
        if array.shape == (6,):
            return voigt_6_to_full_3x3_stress(array[self.components])
        if array.size == 9:
            return array.reshape(3, 3)
        raise ValueError(
            f"stress has shape {array.shape}; 6 (ASE's Voigt order) or 9 values are allowed"
        )


def _component(text: str) -> str:
    """The component as VOIGT spells it, xz for zx: a stress is symmetric."""
    return "".join(sorted(text.lower()))
