"""Conformers that differ, relaxed and warmed on a labeler."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from surefoot.hat.acceptance import UNLABELLED, Limits
from surefoot.hat.compounds import BadMolecule, from_smiles
from surefoot.hat.dynamics import Dynamics, run_dynamics
from surefoot.hat.ensembles import Conformers, Ensemble, Workshop, build_ensembles, distinct
from surefoot.hat.peptides import embed
from surefoot.hat.sequences import parse_sequence
from surefoot.hat.surroundings import relax_around
from surefoot.label.labeler import LabelingFailed, Labels
from surefoot.label.xtb import Xtb
from surefoot.units import BOLTZMANN

METHANOL = from_smiles("methanol", "CO")
ETHANOL = from_smiles("ethanol", "CCO")


@dataclass
class Broken:
    """A source of labels that has none."""

    name: str = "broken"

    def settings(self) -> dict[str, Any]:
        return {}

    def describe(self) -> str:
        return "a broken labeler"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        raise LabelingFailed(f"no label today for {len(atoms)} atoms of charge {charge}, {spin}")


@dataclass
class Trap:
    """Each atom on a spring to where it was."""

    places: np.ndarray
    stiffness: float = 5.0
    name: str = "trap"

    def settings(self) -> dict[str, Any]:
        return {}

    def describe(self) -> str:
        return "a trap"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
        assert (charge, spin) == (0, 1)
        away = atoms.positions - self.places
        return Labels(0.5 * self.stiffness * float((away**2).sum()), -self.stiffness * away)


def workshop(labeler, **changed) -> Workshop:
    settings = {
        "conformers": Conformers(count=2),
        "dynamics": Dynamics(snapshots=2, settling=2, interval=2),
        "limits": Limits(),
        "seed": 0,
    } | changed
    return Workshop(labeler, **settings)


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return build_ensembles([METHANOL], workshop(Xtb()))[0]["methanol"]


def test_one_shape_is_found_once(ensemble: Ensemble) -> None:
    """Methanol has one conformer, whatever is asked for."""
    assert len(ensemble.shapes) == 1
    (shape,) = ensemble.shapes
    assert shape.energy == pytest.approx(Xtb().label(shape.thermal.atoms, 0, 1).energy)
    assert len(shape.snapshots) == 2


def test_conformers_differ_up_to_permutation_and_rotation() -> None:
    images = embed(ETHANOL.smiles, 12, 0)
    kept = distinct(ETHANOL, images, 0.1)
    assert 2 <= len(kept) <= 3  # anti and two gauche
    turned = images[0].copy()
    turned.rotate(70, (1, 2, 3))
    turned.positions[[3, 4, 5]] = turned.positions[[4, 5, 3]]  # hydrogens of the methyl group
    assert distinct(ETHANOL, [images[0], turned], 0.1) == [0]
    assert distinct(ETHANOL, [], 0.1) == []
    assert distinct(ETHANOL, images, 10.0) == [0]


def test_draws_keep_the_limits_and_count_what_does_not(ensemble: Ensemble) -> None:
    generator = np.random.default_rng(0)
    rejected: Counter[str] = Counter()
    drawn = [ensemble.draw((300.0, 300.0), Limits(), generator, rejected) for _ in range(30)]
    assert sum(atoms is not None for atoms in drawn) + rejected.total() == 30
    narrow = Limits(stretch=1.0001)
    before = rejected.total()
    assert ensemble.draw((300.0, 300.0), narrow, generator, rejected) is None
    assert rejected.total() == before + 1


def test_what_can_not_be_labelled_is_told_with_the_reason() -> None:
    with pytest.raises(BadMolecule, match=r"methanol \(CO\): no conformer is left.*no label today"):
        build_ensembles([METHANOL], workshop(Broken()))


def test_a_labeler_without_the_element_says_so() -> None:
    francium = from_smiles("francium", "[FrH]")
    with pytest.raises(BadMolecule, match=r"francium \(\[FrH\]\): .*Z >86"):
        build_ensembles([francium], workshop(Xtb(), conformers=Conformers(count=1)))


def test_a_molecule_that_can_not_be_embedded_is_named() -> None:
    cage = from_smiles("cage", "C1C[C@@H]2C[C@@H]1C2")
    with pytest.raises(BadMolecule, match=r"cage: .*only 0 of 3 structures"):
        build_ensembles([cage], workshop(Broken(), conformers=Conformers(count=1)))


def test_a_zwitterion_in_vacuum_moves_its_proton_and_is_refused() -> None:
    glycine = parse_sequence("G", "zwitterion")
    with pytest.raises(
        BadMolecule, match=r"GLY-O.*bonds changed in the relaxation.*solvent: water"
    ):
        build_ensembles([glycine], workshop(Xtb(), conformers=Conformers(count=1)))


def test_dropped_conformers_are_counted() -> None:
    @dataclass
    class Late(Trap):
        """Gives no first label."""

        calls: int = 0

        def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:
            self.calls += 1
            if self.calls == 1:
                raise LabelingFailed("not yet")
            return super().label(atoms, charge, spin)

    conformers = Conformers(count=2, distance=0.1)
    late = Late(embed(ETHANOL.smiles, 1, 0)[0].positions)
    found, dropped = build_ensembles(
        [ETHANOL], workshop(late, conformers=conformers, dynamics=Dynamics())
    )
    assert len(found["ethanol"].shapes) == 1  # all fall into the same trap
    assert dropped == {UNLABELLED: 1}


def test_dynamics_have_their_temperature() -> None:
    (atoms,) = embed("CO", 1, 0)
    trap = Trap(atoms.positions)
    settings = Dynamics(snapshots=80, settling=50, interval=8, temperature=400.0, friction=0.1)
    found = run_dynamics(atoms, trap, (0, 1), settings, np.random.default_rng(0))
    energy = np.mean([trap.label(image, 0, 1).energy for image in found])
    assert energy == pytest.approx(18 * BOLTZMANN * 400.0 / 2, rel=0.15)  # σ is about 5 %


def test_one_seed_one_run() -> None:
    (atoms,) = embed("CO", 1, 0)
    settings = Dynamics(snapshots=2, settling=1, interval=2)
    runs = [
        run_dynamics(atoms, Trap(atoms.positions), (0, 1), settings, np.random.default_rng(seed))
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0][1].positions, runs[1][1].positions)
    assert not np.allclose(runs[0][1].positions, runs[2][1].positions)
    assert not np.allclose(runs[0][0].positions, runs[0][1].positions)


def test_surroundings_move_and_the_held_do_not() -> None:
    (atoms,) = embed("CO", 1, 0)
    trap = Trap(atoms.positions + 0.1)
    held = 0, 2
    relaxed = relax_around(atoms, held, trap, (0, 1), 20)
    np.testing.assert_array_equal(relaxed.positions[list(held)], atoms.positions[list(held)])
    free = [1, 3, 4, 5]
    np.testing.assert_allclose(relaxed.positions[free], trap.places[free], atol=1e-3)
    one = relax_around(atoms, held, Trap(atoms.positions + 1.0, 0.1), (0, 1), 1)
    assert 0 < np.abs(one.positions - atoms.positions).max() < 1.0
