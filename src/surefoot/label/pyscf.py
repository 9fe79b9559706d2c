"""Labels from unrestricted Kohn–Sham theory with Gaussian functions through PySCF.

The label that a hydrogen-transfer barrier needs: BMK/def2-TZVP is quoted as 1.2 kcal/mol off the 26
transfers of BH76, and GFN2-xTB as 21. One energy with forces of ten atoms costs some 20 s at
BMK/def2-SVP on one core.

A radical has several self-consistent solutions. Which one is found must not depend on the frames
that were calculated before, so nothing is carried from frame to frame: each frame begins from its
own atoms on a coarse grid, the solution found there is followed downhill until it is a minimum
among all orbital rotations, and only then the fine grid is used. That saves more than the density
of a neighbouring frame would (most cycles run on a grid of a fifth of the points).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Integer
from pydantic import Field

from surefoot.label.labeler import (
    LabelingFailed,
    Labels,
    check_labels,
    check_molecule,
    check_state,
)
from surefoot.settings import Settings
from surefoot.units import BOHR, HARTREE

FUNCTIONALS = {"BMK": "HYB_MGGA_X_BMK,GGA_C_BMK"}
"""Functionals that PySCF has no short name for; Boese and Martin 2004."""

COARSE_GRIDS = (0, 1)  # levels on which the cycles begin
COARSE_CONVERGENCE = 1e-6  # Hartree
LOOSE_ROOT = 1e-3  # of the lowest eigenvalue of the orbital Hessian: its sign is what counts
DOWNHILL = 3  # unstable solutions left behind before a frame counts as failed
CORELESS = ("bfd", "ccecp", "gth")
"""Families of basis sets for atoms without a core, whose potentials PySCF has by other names."""

DISPERSIONS = {"none": "", "d3bj": "-D3(BJ)", "d3zero": "-D3(0)", "d4": "-D4"}


class Pyscf(Settings):
    """Unrestricted Kohn–Sham theory for molecules.

    Attributes:
        method: a functional by PySCF's or libxc's name: BMK, B3LYP, r2SCAN, `PBE0`, or a pair such
            as `HYB_MGGA_X_M06_2X,MGGA_C_M06_2X`.
        basis: a basis set of PySCF by name. Where one of its name belongs to an element, an
            effective core potential takes the place of the inner electrons: def2 beyond krypton.
        dispersion: a correction by Grimme and others, for functionals it has parameters for; needs
            `pyscf-dispersion`. No correction is implied by the name of a functional.
        integrals: fitted (Coulomb and exchange by density fitting, with PySCF's auxiliary
            functions for the basis) or exact.
        grid: level of PySCF's integration grid, 0 to 9.
        convergence: of the energy in Hartree.
        max_cycles: self-consistency cycles before Newton's method takes over, and of that method
            before a frame counts as failed.
    """

    name: Literal["pyscf"] = "pyscf"
    method: str = Field(default="BMK", min_length=1)
    basis: str = Field(default="def2-SVP", min_length=1)
    dispersion: Literal["none", "d3bj", "d3zero", "d4"] = "none"
    integrals: Literal["fitted", "exact"] = "fitted"
    grid: int = Field(default=3, ge=0, le=9)
    convergence: float = Field(default=1e-8, gt=0)
    max_cycles: int = Field(default=100, gt=0)

    def settings(self) -> dict[str, Any]:
        """All settings and the versions of PySCF and of the dispersion correction.

        Raises:
            ValueError: if PySCF does not know the functional, or the correction is not there.
        """
        self._check_functional()
        code = f"pyscf {version('pyscf')}"
        if self.dispersion != "none":
            code += f", pyscf-dispersion {self._dispersion_version()}"
        return {**self.model_dump(), "code": code}

    def describe(self) -> str:
        """Method and code, for example `BMK/def2-SVP (pyscf 2.14.0)`."""
        method = f"{self.method}{DISPERSIONS[self.dispersion]}/{self.basis}"
        return f"{method} (pyscf {version('pyscf')})"

    def cores(self, numbers: Integer[np.ndarray, " atoms"]) -> dict[str, int]:
        """Electrons that effective core potentials of the basis stand for, by element.

        Args:
            numbers: atomic numbers.
        """
        return {
            element: int(potential[0])
            for element, potential in _core_potentials(self.basis, numbers).items()
        }

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        """Energy, forces and ⟨S²⟩ of one molecule; forces hold the motion of the grid.

        Args:
            atoms: a molecule without periodic directions.
            charge: total charge in e.
            spin: multiplicity 2S+1.

        Raises:
            LabelingFailed: if no stable solution is found, the basis lacks an element or its
                core potential, or the frame is periodic.
            ValueError: if charge and spin do not fit the electrons.
        """
        check_state(atoms.numbers, charge, spin)
        check_molecule(atoms, self.name)
        with _one_quiet_thread():
            try:
                solution = self._solve(self._molecule(atoms, charge, spin))
                gradient = solution.Gradients()
                # Without it forces are off by 5 meV/Å on grid 3, and atoms pull on nothing.
                gradient.grid_response = self._needs_grid()
                forces = -gradient.kernel() * (HARTREE / BOHR)
                spin_squared = float(solution.spin_square()[0])
            except LabelingFailed:
                raise
            # What PySCF raises on a hopeless structure; a NotImplementedError is a RuntimeError.
            except (RuntimeError, np.linalg.LinAlgError) as error:
                raise LabelingFailed(f"{self.describe()}: {error}") from error
        labels = Labels(float(solution.e_tot) * HARTREE, np.array(forces, float), spin_squared)
        return check_labels(labels, self.describe())

    def _molecule(self, atoms: Atoms, charge: int, spin: int) -> Any:
        from pyscf import gto

        places = atoms.positions / BOHR
        molecule = gto.M(
            atom=[(int(z), place) for z, place in zip(atoms.numbers, places, strict=True)],
            unit="Bohr",
            basis=self.basis,
            ecp=_core_potentials(self.basis, atoms.numbers),
            charge=charge,
            spin=spin - 1,
            verbose=0,
        )
        _check_room(molecule, self.basis)
        return molecule

    def _solve(self, molecule: Any) -> Any:
        """A stable self-consistent solution, from coarse grids to the one that is asked for."""
        levels = (*(coarse for coarse in COARSE_GRIDS if coarse < self.grid), self.grid)
        solver = self._solver(molecule, levels[0])
        _converge(solver, None, self.describe())
        _follow_downhill(solver, self.describe())
        for level in levels[1:]:
            density = solver.make_rdm1()
            solver = self._solver(molecule, level)
            _converge(solver, density, self.describe())
        return solver

    def _solver(self, molecule: Any, level: int) -> Any:
        from pyscf import dft

        solver: Any = dft.UKS(molecule)
        if self.integrals == "fitted":
            solver = solver.density_fit()
        solver.xc = self._functional
        if self.dispersion != "none":
            known_as = f":{self.method.lower()}" if self.method.upper() in FUNCTIONALS else ""
            solver.disp = f"{self.dispersion}{known_as}"
        solver.grids.level = level
        solver.nlcgrids.level = min(level, solver.nlcgrids.level)
        solver.conv_tol = self.convergence
        if level < self.grid:
            solver.conv_tol = max(COARSE_CONVERGENCE, self.convergence)
        solver.max_cycle = self.max_cycles
        solver.chkfile = None
        return solver

    @property
    def _functional(self) -> str:
        """The name that PySCF and libxc understand."""
        return FUNCTIONALS.get(self.method.upper(), self.method)

    def _check_functional(self) -> None:
        from pyscf.dft import libxc

        if any(ending in self.method.lower() for ending in ("-d3", "-d4", "-3c")):
            raise ValueError(
                f"The functional '{self.method}' has a dispersion correction in its name; write it "
                f"apart, `dispersion: {', '.join(DISPERSIONS)}`."
            )
        try:
            libxc.parse_xc(self._functional)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"PySCF does not know the functional '{self.method}'. Use a name such as BMK, "
                "B3LYP or r2SCAN, or exchange and correlation by the names of libxc, such as "
                "HYB_MGGA_X_M06_2X,MGGA_C_M06_2X."
            ) from error

    def _needs_grid(self) -> bool:
        from pyscf.dft import libxc

        return libxc.xc_type(self._functional) != "HF"

    def _dispersion_version(self) -> str:
        from importlib.metadata import PackageNotFoundError

        try:
            return version("pyscf-dispersion")
        except PackageNotFoundError as error:
            raise ValueError(
                f"The dispersion correction {self.dispersion} is not installed; install it with "
                "`pip install pyscf-dispersion`, or set `dispersion: none`."
            ) from error


def _core_potentials(basis: str, numbers: Integer[np.ndarray, " atoms"]) -> dict[str, Any]:
    """Effective core potentials of a basis in PySCF's form, by element, for those that have one."""
    elements = [chemical_symbols[number] for number in np.unique(numbers)]
    found = {element: _core_potential(basis, element) for element in elements}
    return {element: potential for element, potential in found.items() if potential}


@cache  # each call reads PySCF's file, and there may be a million frames
def _core_potential(basis: str, element: str) -> Any:
    from pyscf import gto

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on what to install
        try:
            return gto.basis.load_ecp(basis, element)
        except (RuntimeError, KeyError):  # none of this name
            return None


def _check_room(molecule: Any, basis: str) -> None:
    """Refuse a basis that was made for a core potential which is not there.

    Each atom needs as many radial functions of s, p, d, f as it has occupied shells of them.
    """
    from pyscf.data.elements import CONFIGURATION
    from pyscf.gto.ecp import core_configuration

    letters = "spdf"
    for atom in range(molecule.natm):
        element, core = molecule.atom_pure_symbol(atom), molecule.atom_nelec_core(atom)
        if not core and atomic_numbers[element] > 2 and _family(basis).startswith(CORELESS):
            raise LabelingFailed(_needs_core(basis, element))
        replaced = core_configuration(core) if core else (0, 0, 0, 0)
        room = [0] * len(letters)
        for shell in molecule.atom_shell_ids(atom):
            if molecule.bas_angular(shell) < len(letters):
                room[molecule.bas_angular(shell)] += int(molecule.bas_nctr(shell))
        for turn, electrons in enumerate(CONFIGURATION[atomic_numbers[element]]):
            shells = -(-electrons // (4 * turn + 2)) - replaced[turn]
            if room[turn] < shells:
                raise LabelingFailed(
                    f"{_needs_core(basis, element)} (it has {room[turn]} {letters[turn]} functions "
                    f"for {shells} occupied shells)"
                )


def _needs_core(basis: str, element: str) -> str:
    return (
        f"the basis {basis} is not for {element} with all its electrons and PySCF has no core "
        "potential of its name; choose a basis that holds the whole atom, or one such as def2-SVP"
    )


def _family(basis: str) -> str:
    return basis.lower().replace("-", "").replace("_", "").replace(" ", "")


def _converge(solver: Any, density: Any, method: str) -> None:
    """Direct inversion in the iterative subspace, and Newton's method where that does not end."""
    solver.kernel(dm0=density)
    if not solver.converged:
        _take_newton_steps(solver, solver.mo_coeff)
    if not solver.converged:
        raise LabelingFailed(
            f"{method}: SCF not converged in {solver.max_cycle} cycles, nor by as many of Newton's "
            "method"
        )


def _follow_downhill(solver: Any, method: str) -> None:
    """Leave solutions that a rotation of orbitals lowers.

    The lowest eigenvalue of the orbital Hessian is found from a start that has no symmetry between
    the spins: from a symmetric one a closed shell would never be seen to break.
    """
    from pyscf.scf.stability import uhf_internal

    for _ in range(DOWNHILL):
        occupied = solver.mo_occ > 0
        if not any(spin.any() and not spin.all() for spin in occupied):
            return  # no orbital to rotate into
        orbitals, stable = uhf_internal(
            solver, with_symmetry=False, return_status=True, nroots=1, tol=LOOSE_ROOT
        )
        before = solver.e_tot
        if not stable:
            _take_newton_steps(solver, orbitals)
        if before - solver.e_tot < COARSE_CONVERGENCE:  # atoms far apart have flat directions
            return
    raise LabelingFailed(f"{method}: after {DOWNHILL} steps downhill the SCF is still unstable")


def _take_newton_steps(solver: Any, orbitals: Any) -> None:
    newton = solver.newton()
    newton.max_cycle = solver.max_cycle
    newton.kernel(orbitals, solver.mo_occ)
    for part in ("mo_coeff", "mo_occ", "mo_energy", "e_tot", "converged"):
        setattr(solver, part, getattr(newton, part))


@contextmanager
def _one_quiet_thread() -> Iterator[None]:
    from pyscf import lib

    with lib.with_omp_threads(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on what to install; errors say what is wrong
        yield
