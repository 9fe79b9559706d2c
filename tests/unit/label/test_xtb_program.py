from pathlib import Path
from shutil import which

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from surefoot.label.labeler import LabelingFailed
from surefoot.label.xtb import Xtb
from surefoot.label.xtb_program import XtbProgram, read_gradient
from surefoot.units import BOHR, HARTREE

GRADIENT = """$grad
  cycle =      1    SCF energy =    -3.56254465510   |dE/dxyz| =  0.016733
    0.00000000000000      0.00000000000000      0.00000000000000      O
    2.04090421459008      0.00000000000000      0.00000000000000      H
   1.2008279160092E-03   2.3969464177060E-03  -8.8403092360014D-06
   8.6161627509286E-03  -6.1031586831057E-05  -7.0691563239576E-04
$end
"""
STAND_IN = """#!/bin/sh
if [ "$1" = --version ]; then echo "   * xtb version 9.8.7 (abc) compiled"; exit 0; fi
echo "$@" > {record}
cat structure.xyz >> {record}
{answer}
"""


def stand_in(folder: Path, answer: str) -> XtbProgram:
    program = folder / "xtb"
    program.write_text(STAND_IN.format(record=folder / "record", answer=answer))
    program.chmod(0o755)
    return XtbProgram(program=str(program), solvent="water")


def test_it_is_asked_and_read_as_it_should(tmp_path: Path) -> None:
    (tmp_path / "recorded").write_text(GRADIENT)
    labeler = stand_in(tmp_path, f"cp {tmp_path / 'recorded'} gradient")
    labels = labeler.label(Atoms("OH", [[0, 0, 0], [1.08, 0, 0]]), -1, 3)
    assert labels.energy == pytest.approx(-3.5625446551 * HARTREE)
    assert labels.forces[0, 2] == pytest.approx(8.8403092360014e-6 * HARTREE / BOHR)
    assert labels.forces[1, 0] == pytest.approx(-8.6161627509286e-3 * HARTREE / BOHR)
    asked = (tmp_path / "record").read_text()
    assert asked.startswith(
        "structure.xyz --grad --gfn 2 --chrg -1 --uhf 2 --acc 1 --alpb water\n2\n"
    )
    assert "1.080000000000" in asked
    assert labeler.describe() == "GFN2-xTB, ALPB water (program xtb 9.8.7)"
    settings = labeler.settings()
    assert settings["code"] == "xtb 9.8.7"
    assert "program" not in settings


def test_what_goes_wrong_is_a_reason(tmp_path: Path) -> None:
    hydroxyl = Atoms("OH", [[0, 0, 0], [1.0, 0, 0]])
    with pytest.raises(LabelingFailed, match="status 128: SCF did not converge"):
        stand_in(tmp_path, "echo SCF did not converge; exit 128").label(hydroxyl, 0, 2)
    with pytest.raises(LabelingFailed, match="there is no gradient"):
        stand_in(tmp_path, "true").label(hydroxyl, 0, 2)
    with pytest.raises(LabelingFailed, match="no-such-xtb can not be started"):
        XtbProgram(program="no-such-xtb").settings()
    with pytest.raises(ValueError, match="odd number of electrons"):
        XtbProgram().label(hydroxyl, 0, 1)


def test_a_program_of_unknown_version_is_refused() -> None:
    with pytest.raises(LabelingFailed, match="does not say `xtb version`"):
        XtbProgram(program="true").settings()


@pytest.mark.parametrize("text", ["", "$grad\n$end", GRADIENT.replace("8.6", "x"), "nonsense"])
def test_a_torn_gradient_is_refused(text: str) -> None:
    with pytest.raises(LabelingFailed, match="can not be read"):
        read_gradient(text, 2)


@pytest.mark.skipif(which("xtb") is None, reason="the program xtb is not there")
def test_program_and_library_agree() -> None:
    atoms = molecule("CH3")
    atoms.rattle(0.05, seed=0)
    ours, theirs = XtbProgram(accuracy=0.1).label(atoms, 0, 2), Xtb().label(atoms, 0, 2)
    assert ours.energy == pytest.approx(theirs.energy, abs=1e-4)
    np.testing.assert_allclose(ours.forces, theirs.forces, atol=1e-3)
