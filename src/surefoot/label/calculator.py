"""Labels from any calculator of ASE, such as ORCA, Psi4 or DFTB+, by its name and its keywords.

Each structure is calculated by a process of its own in an empty folder, which is removed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.names import names
from pydantic import Field, JsonValue, field_validator, model_validator

from surefoot.label.child import ANSWER, Question
from surefoot.label.labeler import LabelingFailed, Labels, check_labels, check_state
from surefoot.label.processes import run_program
from surefoot.settings import Settings

STATE_KEYWORDS = {
    "gaussian": ("charge", "mult"),
    "orca": ("charge", "mult"),
    "psi4": ("charge", "multiplicity"),
    "qchem": ("charge", "multiplicity"),
}
"""Keywords for charge and multiplicity 2S+1, by calculator."""

STATELESS = ("eam", "emt", "ff", "lj", "morse", "tersoff", "tip3p", "tip4p")
"""Force fields, whose surface belongs to no charge and no spin."""

CHILD = "surefoot.label.child"


class AseCalculator(Settings):
    """A calculator of ASE, one process for each structure.

    Attributes:
        calculator: its name in `ase.calculators`, such as orca or psi4. Where its program lies is
            said in ASE's own configuration file.
        parameters: keywords it is made with, as in ASE's documentation.
        charge_keyword: the keyword that takes the total charge in e; known for ORCA, Psi4, Q-Chem
            and Gaussian. Without it only neutral singlets are calculated.
        spin_keyword: likewise for the multiplicity 2S+1.
        method: method and basis in words, written beside the labels.
        program: program and version in words, which ASE does not tell, such as ORCA 6.0; written
            beside the labels. This and `method` may be left out only for ASE's own force fields.
    """

    name: Literal["ase"] = "ase"
    calculator: str
    parameters: dict[str, JsonValue] = Field(default={})
    charge_keyword: str | None = Field(default=None, min_length=1)
    spin_keyword: str | None = Field(default=None, min_length=1)
    method: str | None = Field(default=None, min_length=1)
    program: str | None = Field(default=None, min_length=1)

    @field_validator("calculator")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in names:
            raise ValueError(f"ASE has no calculator of this name; it has {', '.join(names)}")
        return name

    @model_validator(mode="after")
    def _said(self) -> AseCalculator:
        if self.calculator not in STATELESS and (self.program is None or self.method is None):
            raise ValueError(
                f"ASE does not tell which {self.calculator} calculates, and labels of two versions "
                "may differ; write `program` (name and version, such as ORCA 6.0) and `method` "
                "(method and basis, in words)"
            )
        return self

    def settings(self) -> dict[str, Any]:
        """All settings, the version of ASE, and which energy it is: that of the forces."""
        code = {"code": f"ase {version('ase')}", "energy": "of the forces"}
        return {**self.model_dump(), **code}

    def describe(self) -> str:
        """Method and code, for example `B3LYP/def2-SVP (ORCA 6.0 through ase 3.29.0)`."""
        program = self.program or self.calculator
        return f"{self.method or self.calculator} ({program} through ase {version('ase')})"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        """Energy and forces of one structure.

        Args:
            atoms: the structure.
            charge: total charge in e.
            spin: multiplicity 2S+1.

        Raises:
            LabelingFailed: if the calculator fails, or can not be told this charge and spin.
            ValueError: if charge and spin do not fit the electrons.
        """
        check_state(atoms.numbers, charge, spin)
        question = Question(
            calculator=self.calculator,
            parameters={**self.parameters, **self._state(charge, spin)},
            numbers=atoms.numbers.tolist(),
            positions=atoms.positions.tolist(),
            cell=np.array(atoms.cell).tolist(),
            pbc=atoms.pbc.tolist(),
        )
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-P", "-m", CHILD]
            run_program(command, Path(folder), question.model_dump_json())
            answer = json.loads((Path(folder) / ANSWER).read_text())
        if "failed" in answer:
            raise LabelingFailed(f"{self.describe()}: {answer['failed']}")
        forces = np.array(answer["forces"], float).reshape(-1, 3)
        return check_labels(Labels(float(answer["energy"]), forces), self.describe())

    def _state(self, charge: int, spin: int) -> dict[str, JsonValue]:
        """The keywords that tell the calculator charge and multiplicity."""
        known = STATE_KEYWORDS.get(self.calculator, (None, None))
        given = (
            ("charge", self.charge_keyword or known[0], charge, 0),
            ("spin", self.spin_keyword or known[1], spin, 1),
        )
        said: dict[str, JsonValue] = {}
        for name, keyword, value, usual in given:
            if keyword is not None:
                said[keyword] = value
            elif value != usual and self.calculator not in STATELESS:
                raise LabelingFailed(
                    f"the calculator {self.calculator} can not be told the {name} {value}; name "
                    f"its keyword, `{name}_keyword`"
                )
        return said
