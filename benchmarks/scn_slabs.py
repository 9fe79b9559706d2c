"""Slabs with adsorbates in the layout of OC20, labelled by GFN1-xTB: the set of `scn.py`.

Usage: python benchmarks/scn_slabs.py [--work runs/slabs] [--target benchmarks/scn/slabs]

Each system is an adsorbate on a 2×2 fcc(111) slab of three layers, the lower two of which are held.
It is put down at random, relaxed for a few steps of LBFGS, and rattled a few times: every structure
that was calculated is a frame. As in OC20, a part is an extended XYZ file with total energies
and a text file with `random<sid>,frame<fid>,<reference energy>` for each frame; tags are 0 below,
1 at the surface and 2 for the adsorbate. References are the relaxed clean slab and the gases
H2, H2O and CO.

Labels: tblite, periodic, Γ point alone, no spin. That makes metals too wide, by 6 to 7 % (`METALS`
holds the widths of least energy), and says nothing of real catalysts; it is a smooth surface
with long-ranged parts that no potential here is built from. A system that was labelled is not
labelled again: the same command goes on.
"""

import argparse
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.optimize import LBFGS
from scipy.spatial.transform import Rotation
from tblite.ase import TBLite

METALS = {"Cu": 3.87, "Pd": 4.15, "Pt": 4.16}  # Å, of least energy for slabs of this size
ADSORBATES = ("H", "O", "OH", "CO", "CH3", "H2O")
UNSEEN = ("HCO",)  # on every metal, in a part of its own
SITES = ("fcc", "hcp", "bridge", "ontop")
PARTS = {"train": (0, 1, 2), "valid": (3,), "test": (4,)}  # starts of each pair
STEPS, RATTLED, NOISE = 8, 4, 0.08  # of LBFGS; structures beside the last, by so many Å
LARGEST = 15.0  # eV/Å on free atoms; structures above are left out
LEVEL = "GFN1-xTB"


@dataclass(frozen=True)
class System:
    """An adsorbate put down on a metal."""

    metal: str
    adsorbate: str
    start: int

    @property
    def part(self) -> str:
        """The file it belongs to."""
        if self.adsorbate in UNSEEN:
            return "ood_ads"
        return next(part for part, starts in PARTS.items() if self.start in starts)

    @property
    def sid(self) -> int:
        """Its number."""
        kinds = (*ADSORBATES, *UNSEEN)
        return 100 * list(METALS).index(self.metal) + 10 * kinds.index(self.adsorbate) + self.start


def list_systems() -> Iterator[System]:
    starts = sum(map(len, PARTS.values()))
    for start in range(starts):
        for metal in METALS:
            for adsorbate in (*ADSORBATES, *UNSEEN):
                yield System(metal, adsorbate, start)


def clean_slab(metal: str) -> Atoms:
    atoms = fcc111(metal, (2, 2, 3), a=METALS[metal], vacuum=6.0, periodic=True)
    atoms.set_tags([1 if tag == 1 else 0 for tag in atoms.get_tags()])
    atoms.set_constraint(FixAtoms(np.flatnonzero(atoms.get_tags() == 0)))
    return atoms


def put_down(system: System) -> Atoms:
    """The slab with its adsorbate, turned and shifted at random."""
    rng = np.random.default_rng(system.sid)
    atoms, added = clean_slab(system.metal), molecule(system.adsorbate)
    added.positions -= added.positions.mean(0)
    added.positions = Rotation.random(random_state=rng).apply(added.positions)
    lowest = int(added.positions[:, 2].argmin())
    site = SITES[rng.integers(len(SITES))]
    add_adsorbate(atoms, added, rng.uniform(1.3, 2.1), site, mol_index=lowest)
    atoms.set_tags([*atoms.get_tags()[: -len(added)], *[2] * len(added)])
    free = np.flatnonzero(atoms.get_tags() != 0)
    atoms.positions[free] += rng.normal(scale=0.05, size=(len(free), 3))
    return atoms


def calculator() -> TBLite:
    return TBLite(method=LEVEL, verbosity=0)


def label(system: System) -> list[Atoms]:
    """All structures that were calculated, with total energies and forces."""
    atoms, rng = put_down(system), np.random.default_rng(1000 + system.sid)
    atoms.calc = calculator()
    relaxation = LBFGS(atoms, logfile=None, maxstep=0.15).irun(fmax=0.02, steps=STEPS - 1)
    frames = [keep(atoms) for _ in relaxation]
    free = np.flatnonzero(atoms.get_tags() != 0)
    relaxed = atoms.positions.copy()
    for _ in range(RATTLED):
        atoms.positions = relaxed
        atoms.positions[free] += rng.normal(scale=NOISE, size=(len(free), 3))
        frames.append(keep(atoms))
    found = []
    for fid, frame in enumerate(frames):
        frame.info = {"sid": system.sid, "fid": fid}
        if np.linalg.norm(frame.get_forces(apply_constraint=False)[free], axis=1).max() < LARGEST:
            found.append(frame)
    return found


def keep(atoms: Atoms) -> Atoms:
    """A copy with its labels; forces on held atoms are not set to zero."""
    copy = atoms.copy()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
    return copy


def relaxed_energy(atoms: Atoms) -> float:
    atoms.calc = calculator()
    LBFGS(atoms, logfile=None).run(fmax=0.02, steps=100)
    return float(atoms.get_potential_energy())


def references() -> dict[str, float]:
    """eV; of the clean slabs, and of H, O and C from H2, H2O and CO."""
    hydrogen, water, monoxide = (relaxed_energy(molecule(name)) for name in ("H2", "H2O", "CO"))
    gases = {"H": hydrogen / 2, "O": water - hydrogen, "C": monoxide - water + hydrogen}
    return {**gases, **{metal: relaxed_energy(clean_slab(metal)) for metal in METALS}}


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/slabs"))
    parser.add_argument("--target", type=Path, default=here / "scn" / "slabs")
    parser.add_argument("--systems", type=int, help="so many systems only, for a trial")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    systems = list(list_systems())[: chosen.systems]
    for number, system in enumerate(systems, 1):
        file = chosen.work / f"{system.sid}.xyz"
        if not file.exists():
            part = file.with_suffix(".part")
            write(part, label(system), format="extxyz", columns=COLUMNS)
            part.rename(file)
            print(f"{number}/{len(systems)} {system}", flush=True)
    stored = chosen.work / "references.json"
    if not stored.exists():
        stored.write_text(json.dumps(references()))
    pack(systems, chosen.work, json.loads(stored.read_text()), chosen.target)


COLUMNS = ["symbols", "positions", "move_mask", "tags", "forces"]


def pack(systems: list[System], work: Path, energies: dict[str, float], target: Path) -> None:
    """The parts, and a manifest of how they were made."""
    target.mkdir(parents=True, exist_ok=True)
    manifest = {"command": "python benchmarks/scn_slabs.py", "level": LEVEL, "energies": energies}
    manifest["versions"] = {name: version(name) for name in ("tblite", "ase", "numpy")}
    manifest["files"] = {}
    for part in ("train", "valid", "test", "ood_ads"):
        frames, lines = [], []
        for system in (s for s in systems if s.part == part):
            for atoms in read(work / f"{system.sid}.xyz", ":"):
                added = [
                    s for s, tag in zip(atoms.symbols, atoms.get_tags(), strict=True) if tag == 2
                ]
                reference = energies[system.metal] + sum(energies[symbol] for symbol in added)
                lines.append(f"random{system.sid},frame{atoms.info['fid']},{reference:.8f}\n")
                frames.append(atoms)
        text = io.StringIO()
        write(text, frames, format="extxyz", columns=COLUMNS)
        # Without a time in it, so that the same frames are the same file.
        packed = gzip.compress(text.getvalue().encode(), mtime=0)
        for name, content in (
            (f"{part}.extxyz.gz", packed),
            (f"{part}.txt", "".join(lines).encode()),
        ):
            (target / name).write_bytes(content)
            manifest["files"][name] = {
                "frames": len(frames),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
