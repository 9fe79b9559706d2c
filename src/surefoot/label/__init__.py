"""Labels for structures: energies and forces from a quantum-chemical code, never computed twice.

Comes in: `Frame`s with charge and spin. Goes out: an extended XYZ file with `REF_energy` and
`REF_forces`, and a journal beside it from which a killed run goes on. May import data, units and
settings; knows no model and no potential.
"""

from surefoot.label.calculator import AseCalculator
from surefoot.label.known import Known
from surefoot.label.pyscf import Pyscf
from surefoot.label.xtb import Xtb
from surefoot.label.xtb_program import XtbProgram
from surefoot.settings import Settings

LABELERS: dict[str, type[Settings]] = {
    "xtb": Xtb,
    "pyscf": Pyscf,
    "ase": AseCalculator,
    "xtb_program": XtbProgram,
    "known": Known,
}
"""Sources of labels by name; each is a `Labeler` whose fields are its settings."""
