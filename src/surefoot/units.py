"""The only conversion factors of the package. Inside, everything is eV, Å, eV/Å, eV/Å³, fs and K.

Values follow CODATA 2018 through the exact SI constants: a joule in eV is 1 / 1.602176634e-19 and
Avogadro's number is 6.02214076e23.
"""

HARTREE = 27.211386245988  # eV
BOHR = 0.529177210903  # Å
KCAL_PER_MOL = 4184.0 / 6.02214076e23 / 1.602176634e-19  # eV
KJ_PER_MOL = 1000.0 / 6.02214076e23 / 1.602176634e-19  # eV
GPA = 1e-21 / 1.602176634e-19  # eV/Å³
BOLTZMANN = 8.617333262145179e-05  # eV/K
DALTON = 103.64269652680505  # eV·fs²/Å², from 1.66053906660e-27 kg
PLANCK = 4.135667696923859  # eV·fs
LIGHT = 2.99792458e-5  # cm/fs

ENERGY_UNITS: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": HARTREE,
    "Rydberg": 0.5 * HARTREE,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
}
"""Energy units a file may be in, each in eV."""

LENGTH_UNITS: dict[str, float] = {"Å": 1.0, "Angstrom": 1.0, "Bohr": BOHR, "nm": 10.0}
"""Length units of positions and of the denominator of forces, each in Å."""

STRESS_UNITS: dict[str, float] = {"GPa": GPA, "kbar": 0.1 * GPA, "VASP": -0.1 * GPA}
"""Stress units a file may be in, each in eV/Å³; VASP's is a pressure in kbar."""
