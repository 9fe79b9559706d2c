"""One calculation with one calculator of ASE: question on the standard input, answer in a file.

Runs as a program in an empty folder. What a calculator prints goes where it likes; the answer does
not pass through it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import get_calculator_class
from pydantic import JsonValue

from surefoot.settings import Settings

ANSWER = "labels.json"


class Question(Settings):
    """A structure and who is to calculate it; lengths in Å."""

    calculator: str
    parameters: dict[str, JsonValue]
    numbers: list[int]
    positions: list[list[float]]
    cell: list[list[float]]
    pbc: list[bool]


def answer(question: Question) -> dict[str, JsonValue]:
    """Energy in eV and forces in eV/Å, or why there are none.

    With smeared occupations many codes give the energy extrapolated to no smearing, whose slope the
    forces are not; the free energy is what they belong to, and is taken where there is one.
    """
    atoms = Atoms(question.numbers, question.positions, cell=question.cell, pbc=question.pbc)
    try:
        make: Any = get_calculator_class(question.calculator)
        atoms.calc = make(**question.parameters)
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        energy = getattr(atoms.calc, "results", {}).get("free_energy", energy)
    except Exception as error:  # noqa: BLE001  calculators raise what they like
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"energy": float(energy), "forces": forces.tolist()}


if __name__ == "__main__":
    found = answer(Question.model_validate_json(sys.stdin.read()))
    Path(ANSWER).write_text(json.dumps(found))
