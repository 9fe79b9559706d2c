"""What every source of labels has in common: a structure, a charge and a spin in, labels out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from jaxtyping import Float, Integer


@dataclass(frozen=True)
class Labels:
    """What a calculation says about one structure.

    Attributes:
        energy: total energy in eV.
        forces: minus the gradient of the energy in eV/Å.
        spin_squared: ⟨S²⟩ of the wave function, S(S+1) for a pure state; None where the method has
            no such number.
    """

    energy: float
    forces: Float[np.ndarray, "atoms 3"]
    spin_squared: float | None = None


class LabelingFailed(RuntimeError):
    """A calculation that gave no usable labels; the message is the reason."""


class NotSettled(LabelingFailed):
    """A failure that says nothing about the structure: no program, no time, an error of the code.

    The next run tries again.
    """


@runtime_checkable
class Labeler(Protocol):
    """A source of labels: its settings, and one function from structures to labels.

    A labeler travels to worker processes, so it must be picklable and must hold no open handles.
    """

    @property
    def name(self) -> str:
        """Its key in `LABELERS`."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that decides the labels: method, versions of code, all settings.

        Two labelers with equal settings give equal labels. Values are what JSON can hold.
        """
        ...

    def describe(self) -> str:
        """Method and code in a few words, for example `GFN2-xTB (tblite 0.8.0)`."""
        ...

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        """Calculate the labels of one structure.

        Args:
            atoms: the structure, positions in Å.
            charge: total charge in e.
            spin: multiplicity 2S+1.

        Raises:
            LabelingFailed: if the calculation gives no usable labels.
            ValueError: if charge and spin do not fit the electrons.
        """
        ...


@runtime_checkable
class LeavesOutCores(Protocol):
    """A labeler that calculates some elements without their inner electrons.

    The effective core potential comes with the method, so that frames of one labeler are of one
    level; but what it replaces decides the labels, hence it belongs to the hash of a structure.
    """

    def cores(self, numbers: Integer[np.ndarray, " atoms"]) -> dict[str, int]:
        """Electrons that a potential stands for, by element; none for elements that keep theirs.

        Args:
            numbers: atomic numbers.
        """
        ...


def check_molecule(atoms: Atoms, labeler: str) -> None:
    """Refuse what no code for molecules can calculate.

    Args:
        atoms: the structure.
        labeler: its name, for the message.

    Raises:
        LabelingFailed: if the structure is periodic or a position is no number.
    """
    if atoms.pbc.any():
        raise LabelingFailed(
            f"the frame is periodic and the {labeler} labeler takes molecules only; "
            "set pbc to false if the cell is only a box around a molecule"
        )
    if not np.isfinite(atoms.positions).all():
        raise LabelingFailed("some positions are not finite")


def check_labels(labels: Labels, method: str) -> Labels:
    """The labels, if all their numbers are finite.

    Raises:
        LabelingFailed: if they are not, with the method.
    """
    if not (np.isfinite(labels.energy) and np.isfinite(labels.forces).all()):
        raise LabelingFailed(f"{method}: energy or forces are not finite")
    return labels


def check_state(numbers: Integer[np.ndarray, " atoms"], charge: int, spin: int) -> None:
    """Check that a charge and a multiplicity are possible for these atoms.

    electrons = Σ Z − charge,  unpaired = spin − 1;  electrons − unpaired is even and not negative.
    Codes such as tblite accept a wrong parity in silence and answer for another state.

    Args:
        numbers: atomic numbers.
        charge: total charge in e.
        spin: multiplicity 2S+1.

    Raises:
        ValueError: if the multiplicity is impossible.
    """
    electrons = int(numbers.sum()) - charge
    if electrons < 0:
        raise ValueError(
            f"charge {charge} leaves {electrons} electrons; for these atoms it is at most "
            f"{int(numbers.sum())}"
        )
    if spin < 1:
        raise ValueError(f"spin {spin} is no multiplicity; 2S+1 is 1 or more")
    if spin - 1 > electrons:
        raise ValueError(
            f"spin {spin} needs {spin - 1} unpaired electrons but charge {charge} leaves only "
            f"{electrons}; at most spin {electrons + 1} is allowed"
        )
    if (electrons - spin + 1) % 2:
        parity, allowed = ("an odd", "2, 4, …") if electrons % 2 else ("an even", "1, 3, …")
        raise ValueError(
            f"spin {spin} (multiplicity 2S+1) does not fit {parity} number of electrons "
            f"({electrons} at charge {charge}); state one of {allowed} or correct the charge"
        )
