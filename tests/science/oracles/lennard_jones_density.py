"""Write lennard_jones_density.json: the density of a Lennard-Jones liquid by ASE's own dynamics.

ASE's IsotropicMTKNPT (Martyna, Tobias, Klein, J. Chem. Phys. 101 (1994) 4177) on ASE's
LennardJones with smooth=True: another integrator, another thermostat, another barostat and other
code for energy, forces and stress than those of the test.

    python tests/science/oracles/lennard_jones_density.py

Its chain counts 3N degrees of freedom and keeps the momentum of the whole, which grows where it is
not zero (11 K less were left for the atoms). So that is taken away, and the chain is told a
temperature that gives the 3N − 3 others the one that is wanted.

The standard error is that of means of blocks of 10 ps, since a density forgets within some ps.
"""

import json
from pathlib import Path

import ase
import numpy as np
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.velocitydistribution import thermalize_momenta
from ase.units import fs

SETTINGS = {
    "repeats": 3,  # of the cubic cell of four atoms
    "lattice": 5.8,  # Å
    "epsilon": 0.0104,  # eV
    "sigma": 3.40,  # Å
    "cutoff": 7.0,
    "onset": 6.0,
    "kelvin": 145.0,
    "pressure": 8e-4,  # eV/Å³, some 3 ε/σ³
}
TIMESTEP, WARM, BLOCK, BLOCKS = 5.0, 4000, 2000, 16  # fs; steps


def main() -> None:
    s = SETTINGS
    atoms = bulk("Ar", "fcc", s["lattice"], cubic=True).repeat(s["repeats"])
    atoms.calc = LennardJones(
        epsilon=s["epsilon"], sigma=s["sigma"], rc=s["cutoff"], ro=s["onset"], smooth=True
    )
    thermalize_momenta(atoms, 2 * s["kelvin"], rng=np.random.default_rng(1))
    atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(0))
    dynamics = IsotropicMTKNPT(
        atoms,
        timestep=TIMESTEP * fs,
        temperature_K=s["kelvin"] * (len(atoms) - 1) / len(atoms),
        pressure_au=s["pressure"],
        tdamp=200 * fs,
        pdamp=1000 * fs,
    )
    dynamics.run(WARM)
    means, kelvins = [], []
    for _ in range(BLOCKS):
        densities = []
        for _ in range(BLOCK // 10):
            dynamics.run(10)
            densities.append(len(atoms) / atoms.get_volume())
            kelvins.append(atoms.get_temperature() * len(atoms) / (len(atoms) - 1))
        means.append(float(np.mean(densities)))
    found = {
        **SETTINGS,
        "ase": ase.__version__,
        "atoms": len(atoms),
        "seen_kelvin": float(np.mean(kelvins)),  # of 3N − 3 degrees of freedom
        "density": float(np.mean(means)),  # 1/Å³
        "standard_error": float(np.std(means, ddof=1) / np.sqrt(BLOCKS)),
    }
    target = Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
