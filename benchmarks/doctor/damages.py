"""Damages: what is done to frames of a sound file, and the finding that it has to have."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.spatial.transform import Rotation

from surefoot.data.file_units import FileUnits
from surefoot.data.read import Frame, Keys, read_frames
from surefoot.units import BOHR, HARTREE, STRESS_UNITS

Set = dict[str, list[Frame]]
KCAL = 0.0433641
TURN = Rotation.from_euler("xyz", [40, 50, 60], degrees=True).as_matrix()
ONE = 7  # the frame that is damaged where it is one


@dataclass(frozen=True)
class Damage:
    """One way in which a file may be wrong.

    Attributes:
        name: what was done.
        source: name of the sound file.
        code: of the finding that it has to have.
        harm: what does it.
    """

    name: str
    source: str
    code: str
    harm: Callable[[Set], Set]


def list_sources(data: Path) -> dict[str, Set]:
    """Sound frames by a name: a molecule, a metal, water, a relaxation, many molecules."""

    def read(name: str, **keys: str) -> list[Frame]:
        return read_frames([data / name], Keys(**keys))

    ethanol = read("ethanol/train.xyz.gz")
    return {
        "ethanol": {"train": ethanol[:60], "test": ethanol[500:510]},
        "water": {"train": read("water/water192_pbe0ts_320.extxyz.gz")[:6]},
        "relaxation": {"train": read("catalysis/toy_c3h8_relax_EMT.extxyz.gz")[40:80]},
        "qm9": {
            "train": read_frames(
                [data / "small/qm9_reduced_100.xyz"], Keys(energy="U0"), FileUnits(energy="Hartree")
            )
        },
        "crystals": {"train": make_crystals()},
    }


def make_crystals() -> list[Frame]:
    """Strained cells of copper with the energies, forces and stresses of EMT."""
    random, frames = np.random.default_rng(4), []
    for index in range(24):
        atoms = bulk("Cu", a=3.6, cubic=True).repeat((2, 1, 1))
        strain = 0.02 * random.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.positions += random.normal(scale=0.03, size=(8, 3))
        atoms.calc = EMT()
        frames.append(
            Frame(
                atoms=atoms,
                energy=atoms.get_potential_energy(),
                forces=atoms.get_forces(),
                stress=atoms.get_stress(voigt=False),
                charge=None,
                spin=None,
                group="g",
                config_type="Default",
                file="made",
                index=index,
            )
        )
        atoms.calc = None
    return frames


def alter(frame: Frame, **parts: Any) -> Frame:
    """The frame with other atoms: positions, numbers, pbc, cell or info."""
    atoms = frame.atoms.copy()
    for name, value in parts.items():
        if name == "info":
            atoms.info |= value
        else:
            setattr(atoms, name, value)
    return replace(frame, atoms=atoms)


def all_of(change: Callable[[Frame], Frame]) -> Callable[[Set], Set]:
    """A change of every frame."""
    return lambda splits: {name: [change(f) for f in held] for name, held in splits.items()}


def one_of(change: Callable[[Frame], Frame], split: str = "train") -> Callable[[Set], Set]:
    """A change of one frame."""

    def harm(splits: Set) -> Set:
        held = splits[split]
        place = min(ONE, len(held) - 2)
        return splits | {split: [change(f) if i == place else f for i, f in enumerate(held)]}

    return harm


def half_of(change: Callable[[Frame], Frame]) -> Callable[[Set], Set]:
    """A change of every other frame."""

    def harm(splits: Set) -> Set:
        return {n: [change(f) if i % 2 else f for i, f in enumerate(h)] for n, h in splits.items()}

    return harm


def with_more(make: Callable[[list[Frame]], list[Frame]], split: str = "train") -> Any:
    """More frames, made of those to train on."""
    return lambda splits: splits | {split: [*splits.get(split, []), *make(splits["train"])]}


def at(array: np.ndarray, place: Any, value: Any) -> np.ndarray:
    """A copy with one other value."""
    found = np.array(array)
    found[place] = value
    return found


def scale(label: str, factor: float) -> Callable[[Frame], Frame]:
    """Labels times a factor."""
    return lambda f: replace(f, **{label: factor * getattr(f, label)})


def move(change: Callable[[Atoms], np.ndarray]) -> Callable[[Frame], Frame]:
    """Other positions."""
    return lambda f: alter(f, positions=change(f.atoms))


def turn(frame: Frame) -> Frame:
    """The same structure in another orientation."""
    return replace(
        alter(frame, positions=frame.atoms.positions @ TURN + 2.0), forces=frame.forces @ TURN
    )


def exchange(frame: Frame) -> Frame:
    """Two atoms of one element, not hydrogen, in each other's place."""
    numbers = frame.atoms.numbers
    first, second = np.flatnonzero(numbers == np.bincount(numbers[numbers > 1]).argmax())[:2]
    order = np.arange(len(numbers))
    order[[first, second]] = second, first
    return replace(alter(frame, positions=frame.atoms.positions[order]), forces=frame.forces[order])


def isolated(energy: Callable[[int], float]) -> Callable[[list[Frame]], list[Frame]]:
    """Isolated atoms."""

    def make(frames: list[Frame]) -> list[Frame]:
        found = []
        for number in np.unique(np.concatenate([f.atoms.numbers for f in frames])).tolist():
            atoms = Atoms([number], info={"config_type": "IsolatedAtom"})
            found.append(replace(frames[0], atoms=atoms, energy=energy(number), forces=None))
        return found

    return make


def label_info(change: Callable[[int], dict[str, Any]]) -> Callable[[Set], Set]:
    """What info says of each frame, by its number."""
    return lambda splits: {
        name: [alter(f, info=change(i)) for i, f in enumerate(held)]
        for name, held in splits.items()
    }


E, W, R, Q, C = "ethanol", "water", "relaxation", "qm9", "crystals"
FLY = np.array([0.0, 0.0, 40.0])
DAMAGES = (
    Damage("NaN in a position", E, "not-finite",
           one_of(move(lambda a: at(a.positions, (2, 1), np.nan)))),
    Damage("infinite energy", E, "not-finite", one_of(lambda f: replace(f, energy=np.inf))),
    Damage("NaN in a force", E, "not-finite",
           one_of(lambda f: replace(f, forces=at(f.forces, (0, 0), np.nan)))),
    Damage("cell without a vector", C, "broken-cell",
           one_of(lambda f: alter(f, cell=at(f.atoms.cell.array, 2, 0.0)))),
    Damage("energies in kcal/mol", E, "energy-unit", all_of(scale("energy", 1 / KCAL))),
    Damage("energies in Hartree", E, "unit-mismatch", all_of(scale("energy", 1 / HARTREE))),
    Damage("energies in Hartree, no forces", Q, "energy-hartree",
           all_of(lambda f: replace(f, energy=f.energy / HARTREE, forces=None))),
    Damage("energies of the wrong sign", E, "energy-unit", all_of(scale("energy", -1.0))),
    Damage("gradients for forces", E, "forces-sign", all_of(scale("forces", -1.0))),
    Damage("gradients for forces, relaxation", R, "forces-sign", all_of(scale("forces", -1.0))),
    Damage("forces in Hartree/Å", E, "unit-mismatch", all_of(scale("forces", 1 / HARTREE))),
    Damage("forces in kcal/mol/Å", E, "unit-mismatch", all_of(scale("forces", 1 / KCAL))),
    Damage("forces in meV/Å, relaxation", R, "unit-mismatch", all_of(scale("forces", 1e3))),
    Damage("gradients in one config_type", E, "forces-sign",
           with_more(lambda h: [
               alter(replace(f, forces=-f.forces), info={"config_type": "x"},
                     positions=f.atoms.positions + 1e-3) for f in h])),
    Damage("energies all 0", E, "energy-placeholder", all_of(scale("energy", 0.0))),
    Damage("forces all 0", E, "forces-placeholder", all_of(scale("forces", 0.0))),
    Damage("forces of one frame 0", E, "zeroed-forces", one_of(scale("forces", 0.0))),
    Damage("forces of two atoms 0", E, "zeroed-forces",
           one_of(lambda f: replace(f, forces=at(f.forces, [1, 4], 0.0)))),
    Damage("one force lost its sign", E, "net-force",
           one_of(lambda f: replace(f, forces=at(f.forces, 0, -3 * f.forces[0] + 1.0)))),
    Damage("frame turned, forces not", E, "net-torque",
           one_of(lambda f: replace(f, forces=f.forces @ TURN))),
    Damage("rows of forces in another order", E, "net-torque",
           all_of(lambda f: replace(f, forces=f.forces[::-1].copy()))),
    Damage("two atoms at one place", E, "close-atoms",
           one_of(move(lambda a: at(a.positions, 1, a.positions[0] + 1e-3)))),
    Damage("positions in nm", E, "close-atoms", all_of(move(lambda a: 0.1 * a.positions))),
    Damage("positions in Bohr", E, "length-unit",
           all_of(move(lambda a: a.positions / BOHR))),
    Damage("positions and cells in Bohr", C, "length-unit",
           all_of(lambda f: alter(f, positions=f.atoms.positions / BOHR,
                                  cell=f.atoms.cell.array / BOHR))),
    Damage("an atom flown off", E, "lone-atom",
           one_of(move(lambda a: at(a.positions, -1, a.positions[-1] + FLY)))),
    Damage("an energy 30 eV off", E, "energy-outlier",
           one_of(lambda f: replace(f, energy=f.energy + 30.0))),
    Damage("a force of 300 eV/Å", E, "force-outlier",
           one_of(lambda f: replace(f, forces=at(f.forces, (0, 0), 300.0)))),
    Damage("pbc lost", W, "box-without-pbc", all_of(lambda f: alter(f, pbc=False))),
    Damage("pbc lost in one frame", W, "pbc-differs", one_of(lambda f: alter(f, pbc=False))),
    Damage("a frame twice", E, "duplicate", with_more(lambda h: [h[3]])),
    Damage("a frame twice, two energies", E, "duplicate-conflict",
           with_more(lambda h: [replace(h[3], energy=h[3].energy + 0.5)])),
    Damage("a training frame in the test", E, "leakage", with_more(lambda h: [h[3]], "test")),
    Damage("a turned one in the test", E, "near-leakage",
           with_more(lambda h: [turn(h[3])], "test")),
    Damage("a turned one with another energy", E, "near-conflict",
           with_more(lambda h: [replace(turn(h[3]), energy=h[3].energy + 2.0)])),
    Damage("atoms exchanged in one frame", R, "shuffled-atoms", one_of(exchange)),
    Damage("an element in the test only", E, "unknown-element",
           one_of(lambda f: alter(f, numbers=at(f.atoms.numbers, 0, 7)), "test")),
    Damage("a squeezed test frame", E, "extrapolation",
           one_of(move(lambda a: 0.85 * a.positions), "test")),
    Damage("one group in two splits", E, "group-in-two-splits",
           label_info(lambda n: {"group": f"trajectory {n % 3}"})),
    Damage("labels of two methods", E, "two-levels",
           label_info(lambda n: {"label_method": ("GFN2-xTB", "GFN1-xTB")[n % 2]})),
    Damage("two levels by config_type", E, "two-references",
           half_of(lambda f: alter(replace(f, energy=f.energy - 150.0),
                                   info={"config_type": "x"}))),
    Damage("a calculation not converged", E, "unconverged",
           one_of(lambda f: alter(f, info={"scf_converged": False}))),
    Damage("isolated atoms in Hartree", E, "references-unfit",
           with_more(isolated(lambda z: {1: -0.5, 6: -37.8, 8: -75.0}[z]))),
    Damage("no energies", E, "missing-energy", all_of(lambda f: replace(f, energy=None))),
    Damage("no forces in one frame", E, "missing-forces",
           one_of(lambda f: replace(f, forces=None))),
    Damage("no labels", E, "no-labels", all_of(lambda f: replace(f, energy=None, forces=None))),
    Damage("spin as number of electrons", E, "impossible-spin",
           label_info(lambda _: {"charge": 0, "spin": 2})),
    Damage("charge in some frames", E, "charge-partly-stated",
           label_info(lambda n: {"charge": 0, "spin": 1} if n % 2 else {"spin": 1})),
    Damage("two charges of one molecule", E, "two-states",
           label_info(lambda n: {"charge": n % 2, "spin": 1 + n % 2})),
    Damage("pressure for stress", C, "stress-sign", all_of(scale("stress", -1.0))),
    Damage("stress in GPa", C, "stress-unit", all_of(scale("stress", 1 / STRESS_UNITS["GPa"]))),
    Damage("stress as VASP writes it", C, "stress-sign",
           all_of(scale("stress", 1 / STRESS_UNITS["VASP"]))),
    Damage("stress all 0", C, "stress-placeholder", all_of(scale("stress", 0.0))),
)  # fmt: skip
"""At least one for each finding that files can have."""
