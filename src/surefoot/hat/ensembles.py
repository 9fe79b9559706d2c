"""Conformers of a molecule on a labeler's surface, and how heat displaces them."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float, Integer
from pydantic import Field

from surefoot.hat.acceptance import UNLABELLED, Limits, fault_of_displaced, fault_of_relaxed
from surefoot.hat.compounds import BadMolecule, Compound, bond_distances, bonds
from surefoot.hat.dynamics import Dynamics, run_dynamics
from surefoot.hat.modes import NoMinimum, Thermal, relax, thermal
from surefoot.hat.peptides import embed, hydrogenated
from surefoot.hat.tasks import Given, Made, run_all
from surefoot.label.labeler import Labeler, LabelingFailed
from surefoot.settings import Settings

UNRELAXED = "no minimum was found"
SYMMETRIES = 2000  # permutations of equal atoms that a comparison looks at


class Conformers(Settings):
    """How many shapes a molecule is given, and when two of them count as one."""

    count: int = Field(default=10, gt=0, description="asked for; small molecules have fewer")
    distance: float = Field(
        default=0.3,
        gt=0,
        description="Å; smallest root mean square deviation of two, of the heavy atoms and the "
        "hydrogens of N, O and S",
    )
    pool: int = Field(default=3, gt=0, description="times as many are embedded to choose from")


@dataclass(frozen=True)
class Shape:
    """One conformer.

    Attributes:
        thermal: the minimum and its modes.
        energy: of the minimum in eV.
        snapshots: of dynamics from there.
    """

    thermal: Thermal
    energy: float
    snapshots: tuple[Atoms, ...]


@dataclass(frozen=True)
class Ensemble:
    """A molecule in all its shapes.

    Attributes:
        compound: the molecule.
        shapes: its conformers, the lowest first.
        bonds: pairs of bonded atoms.
        apart: bonds between two atoms.
    """

    compound: Compound
    shapes: tuple[Shape, ...]
    bonds: Integer[np.ndarray, "bonds 2"]
    apart: Float[np.ndarray, "atoms atoms"]

    def draw(
        self,
        temperatures: tuple[float, float],
        limits: Limits,
        generator: np.random.Generator,
        rejected: Counter[str],
    ) -> Atoms | None:
        """A displaced molecule: a conformer, then one of its snapshots or a draw from its modes.

        Where there are snapshots, they are every other structure on average.

        Args:
            temperatures: K; that of the modes is uniform between them.
            limits: geometry that is kept; the energy is not looked at.
            generator: source of all random numbers.
            rejected: counts what is not taken, by its reason.

        Returns:
            None where the draw does not keep the limits.
        """
        shape = self.shapes[generator.integers(len(self.shapes))]
        if shape.snapshots and generator.uniform() < 0.5:
            atoms = shape.snapshots[generator.integers(len(shape.snapshots))].copy()
        else:
            atoms = shape.thermal.displaced(generator.uniform(*temperatures), generator)
        fault = fault_of_displaced(atoms, shape.thermal.atoms, self.bonds, limits)
        if fault is not None:
            rejected[fault] += 1
        return atoms if fault is None else None


Progress = Callable[[str, int, int], None]
"""Is told what is done, how much of it, and how much there is."""


@dataclass(frozen=True)
class Workshop:
    """What makes ensembles.

    Attributes:
        labeler: the surface.
        conformers: how many and how different.
        dynamics: snapshots.
        limits: how far a bond may stretch before it counts as broken.
        seed: the same seed gives the same ensembles.
        executor: runs the calculations; None runs them here.
        progress: is told how far they are.
    """

    labeler: Labeler
    conformers: Conformers
    dynamics: Dynamics
    limits: Limits
    seed: int
    executor: Executor | None = None
    progress: Progress | None = None

    def run(
        self, what: str, function: Callable[[Given], Made], given: Sequence[Given]
    ) -> list[Made]:
        """Results in the order of what is given, whichever process is done first."""
        results: list[Made] = []

        def note(result: Made) -> None:
            results.append(result)
            if self.progress is not None:
                self.progress(what, len(results), len(given))

        run_all(function, given, self.executor, note)
        return results


@dataclass(frozen=True)
class _Relaxed:
    atoms: Atoms
    energy: float


@dataclass(frozen=True)
class _Dropped:
    reason: str
    story: str


def build_ensembles(
    compounds: Sequence[Compound], workshop: Workshop
) -> tuple[dict[str, Ensemble], Counter[str]]:
    """Conformers, modes and snapshots of molecules.

    Conformers are embedded (ETKDG 3 and MMFF94), told apart, and relaxed on the labeler: of those
    asked for one half the lowest of the force field, the other half drawn from the rest. What
    falls together there, or loses a bond, is replaced as long as there are others.

    Args:
        compounds: the molecules, each of its own name.
        workshop: surface and settings.

    Returns:
        Ensembles by name, and how many candidates were dropped for which reason.

    Raises:
        BadMolecule: if a molecule has no conformer that keeps its bonds and is a minimum.
    """
    relaxed, dropped = _relax_all(compounds, workshop)
    jobs = [
        (compound, number, found)
        for compound, held in zip(compounds, relaxed, strict=True)
        for number, found in enumerate(held)
    ]
    warm = partial(_warm, workshop.labeler, workshop.dynamics, workshop.seed)
    shapes: dict[str, list[Shape]] = {compound.name: [] for compound in compounds}
    for (compound, *_), made in zip(jobs, workshop.run("modes", warm, jobs), strict=True):
        if isinstance(made, Shape):
            shapes[compound.name].append(made)
        else:
            dropped[compound.name].append(made)
    for compound in compounds:
        if not shapes[compound.name]:
            story = next((d.story for d in dropped[compound.name]), "none could be embedded")
            raise BadMolecule(
                f"{compound.name} ({compound.smiles}): no conformer is left; the first one: "
                f"{story}. Zwitterions need a solvent (`labeler: {{solvent: water}}`)."
            )
    ensembles = {
        compound.name: Ensemble(
            compound,
            tuple(sorted(shapes[compound.name], key=lambda shape: shape.energy)),
            bonds(compound),
            bond_distances(compound),
        )
        for compound in compounds
    }
    return ensembles, Counter(d.reason for each in dropped.values() for d in each)


def _relax_all(
    compounds: Sequence[Compound], workshop: Workshop
) -> tuple[list[list[_Relaxed]], dict[str, list[_Dropped]]]:
    """Relaxed conformers of each molecule, as many as are asked for or can be found."""
    embed_one = partial(_candidates, workshop.conformers, workshop.seed)
    candidates = workshop.run("conformers", embed_one, compounds)
    kept: list[list[_Relaxed]] = [[] for _ in compounds]
    dropped: dict[str, list[_Dropped]] = {compound.name: [] for compound in compounds}
    settle = partial(_settle, workshop.labeler, workshop.limits)
    while True:
        jobs: list[tuple[int, Compound, Atoms]] = []
        for number, compound in enumerate(compounds):
            missing = workshop.conformers.count - len(kept[number])
            jobs += [(number, compound, atoms) for atoms in candidates[number][:missing]]
            candidates[number] = candidates[number][missing:]
        if not jobs:
            return kept, dropped
        outcomes = workshop.run("relaxing", settle, [job[1:] for job in jobs])
        for (number, compound, _), outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, _Relaxed):
                kept[number].append(outcome)
            else:
                dropped[compound.name].append(outcome)
        for number, compound in enumerate(compounds):
            kept[number].sort(key=lambda found: found.energy)
            images = [found.atoms for found in kept[number]]
            chosen = distinct(compound, images, workshop.conformers.distance)
            kept[number] = [kept[number][index] for index in chosen]


def _candidates(settings: Conformers, seed: int, compound: Compound) -> list[Atoms]:
    """Different conformers of the force field, in the order in which they are to be tried."""
    try:
        images = embed(compound.smiles, settings.count * settings.pool, seed)
    except ValueError as error:
        raise BadMolecule(f"{compound.name}: {error}") from error
    order = np.argsort(_force_field_energies(compound, images), kind="stable")
    images = [images[index] for index in order]
    images = [images[index] for index in distinct(compound, images, settings.distance)]
    lowest = (settings.count + 1) // 2
    generator = np.random.default_rng([seed, zlib.crc32(compound.name.encode())])
    rest = generator.permutation(np.arange(lowest, len(images)))
    return images[:lowest] + [images[index] for index in rest]


def _force_field_energies(
    compound: Compound, images: Sequence[Atoms]
) -> Float[np.ndarray, " images"]:
    """MMFF94 energies; all alike where it has no parameters."""
    from rdkit.Chem import rdForceFieldHelpers

    molecule = _with_conformers(compound, images)
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
    if properties is None:
        return np.zeros(len(images))
    return np.array(
        [
            rdForceFieldHelpers.MMFFGetMoleculeForceField(
                molecule, properties, confId=index
            ).CalcEnergy()
            for index in range(len(images))
        ]
    )


def distinct(compound: Compound, images: Sequence[Atoms], distance: float) -> list[int]:
    """Indices of the structures that differ from all before them.

    Two are the same if the root mean square deviation of heavy atoms and of hydrogens on N, O and
    S, at best overlap and over permutations of equal atoms, is smaller than a distance.

    Args:
        compound: the molecule.
        images: structures of it.
        distance: in Å.
    """
    from rdkit import Chem
    from rdkit.Chem import rdMolAlign

    if not images:
        return []
    molecule = Chem.RWMol(_with_conformers(compound, images))
    for atom in reversed(list(molecule.GetAtoms())):
        if atom.GetAtomicNum() == 1 and atom.GetNeighbors()[0].GetAtomicNum() == 6:
            molecule.RemoveAtom(atom.GetIdx())
    found = molecule.GetSubstructMatches(molecule, uniquify=False, maxMatches=SYMMETRIES)
    same = [list(enumerate(match)) for match in found]
    kept: list[int] = []
    for index in range(len(images)):
        if all(
            rdMolAlign.GetBestRMS(molecule, molecule, index, other, map=same) >= distance
            for other in kept
        ):
            kept.append(index)
    return kept


def _with_conformers(compound: Compound, images: Sequence[Atoms]) -> Any:
    from rdkit import Chem

    molecule = hydrogenated(compound.smiles)
    for atoms in images:
        conformer = Chem.Conformer(len(atoms))
        conformer.SetPositions(np.ascontiguousarray(atoms.positions))
        molecule.AddConformer(conformer, assignId=True)
    return molecule


def _settle(labeler: Labeler, limits: Limits, job: tuple[Compound, Atoms]) -> _Relaxed | _Dropped:
    """A conformer in its minimum on the labeler's surface."""
    compound, atoms = job
    try:
        relaxed = relax(atoms, labeler, compound.charge)
        energy = labeler.label(relaxed, compound.charge, 1).energy
    except LabelingFailed as error:
        return _Dropped(UNLABELLED, str(error))
    except NoMinimum as error:
        return _Dropped(UNRELAXED, str(error))
    fault = fault_of_relaxed(relaxed, atoms, bonds(compound), limits.stretch)
    return _Relaxed(relaxed, energy) if fault is None else _Dropped(fault, fault)


def _warm(
    labeler: Labeler, dynamics: Dynamics, seed: int, job: tuple[Compound, int, _Relaxed]
) -> Shape | _Dropped:
    """Modes and snapshots of a minimum."""
    compound, number, found = job
    generator = np.random.default_rng([seed, zlib.crc32(compound.name.encode()), number])
    try:
        warm = thermal(found.atoms, labeler, compound.charge)
        snapshots = []
        if dynamics.snapshots:
            state = compound.charge, 1
            snapshots = run_dynamics(found.atoms, labeler, state, dynamics, generator)
    except LabelingFailed as error:
        return _Dropped(UNLABELLED, str(error))
    except NoMinimum as error:
        return _Dropped(UNRELAXED, str(error))
    return Shape(warm, found.energy, tuple(snapshots))
