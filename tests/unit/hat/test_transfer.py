import numpy as np
import pytest
from ase import Atoms
from pydantic import ValidationError

from surefoot.hat.peptides import conformers
from surefoot.hat.radicals import acceptors
from surefoot.hat.sites import Donor, residue_sites
from surefoot.hat.transfer import Placement, PlacementFailed, Transfer, is_allowed, place

SIZE = 22  # atoms of capped alanine


def alanine(site: int = 1) -> Donor:
    return Donor("ALA", conformers("ALA", 1, 0)[0], residue_sites("ALA")[site])


def transfers(count: int, placement: Placement) -> list[Transfer]:
    acceptor = acceptors("methoxy", 0)[0]
    donor = alanine()
    return [place(donor, acceptor, placement, np.random.default_rng(seed)) for seed in range(count)]


def angle(one: np.ndarray, two: np.ndarray) -> float:
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def test_places_keep_what_is_promised() -> None:
    made = transfers(40, Placement())
    translations = np.array([transfer.translation for transfer in made])
    assert 0.4 <= translations.min() < 0.6
    assert 1.0 < translations.max() <= 1.2
    for transfer in made:
        atoms, hydrogen = transfer.atoms, transfer.hydrogen
        assert atoms.get_chemical_formula() == "C7H15N2O3"
        assert atoms.symbols[transfer.donor] == "C"
        assert atoms.symbols[transfer.acceptor] == "O"
        np.testing.assert_array_equal(atoms.positions[hydrogen], transfer.start)
        bond = transfer.start - atoms.positions[transfer.donor]
        way = transfer.end - transfer.start
        new_bond = atoms.positions[transfer.acceptor] - transfer.end
        assert angle(bond, way) <= 30.0
        assert angle(way, new_bond) <= 30.0
        assert 0.8 < np.linalg.norm(new_bond) < 1.15
        between = atoms.get_all_distances()[:SIZE, SIZE:]
        between[hydrogen] = between[transfer.donor, transfer.acceptor - SIZE] = 9.0
        assert between.min() >= 1.7


def test_the_moving_hydrogen_keeps_clear_and_is_the_closest() -> None:
    for transfer in transfers(20, Placement()):
        ends = {transfer.hydrogen, transfer.donor, transfer.acceptor}
        others = [index for index in range(len(transfer.atoms)) if index not in ends]
        for part in np.linspace(0, 1, 21):
            position = transfer.start + part * (transfer.end - transfer.start)
            atoms = transfer.with_hydrogen_at(position)
            assert atoms.get_distances(transfer.hydrogen, others).min() >= 0.8
        hydrogens = [i for i in others if i < SIZE and transfer.atoms.numbers[i] == 1]
        to_end = np.linalg.norm(transfer.atoms.positions[hydrogens] - transfer.end, axis=1)
        assert to_end.min() >= transfer.translation


def test_cone_and_turn_are_used_in_full() -> None:
    made = transfers(60, Placement())
    bends = [
        angle(t.start - t.atoms.positions[t.donor], t.end - t.start) for t in made
    ]  # uniform on a cap of 30°: median 21°
    assert 17 < np.median(bends) < 25
    straight = transfers(5, Placement(cone=0.0, rattle=0.0))
    for transfer in straight:
        bond = transfer.start - transfer.atoms.positions[transfer.donor]
        assert angle(bond, transfer.end - transfer.start) < 1e-4
    # Rigid and collinear, only the turn about the axis is left for the methyl carbon.
    carbons = np.array([t.atoms.positions[SIZE] - t.end for t in straight])
    np.testing.assert_allclose(np.linalg.norm(carbons, axis=1), np.linalg.norm(carbons[0]))
    assert np.linalg.norm(carbons[0] - carbons[1]) > 0.1


def test_both_molecules_are_rattled() -> None:
    donor, acceptor = alanine(), acceptors("methoxy", 0)[0]
    shifts, lengths = [], []
    for transfer in transfers(30, Placement(rattle=0.03)):
        shifts.append(transfer.atoms.positions[:SIZE] - donor.atoms.positions)
        lengths.append(np.linalg.norm(transfer.atoms.positions[transfer.acceptor] - transfer.end))
    assert np.std(shifts) == pytest.approx(0.03, rel=0.1)
    assert np.std(lengths) == pytest.approx(0.03 * np.sqrt(2), rel=0.5)
    rigid = transfers(1, Placement(rattle=0.0))[0]
    np.testing.assert_array_equal(rigid.atoms.positions[:SIZE], donor.atoms.positions)
    np.testing.assert_allclose(
        rigid.atoms[SIZE:].get_all_distances(), acceptor.atoms.get_all_distances(), atol=1e-12
    )
    chirality = [np.linalg.det(_corner(a)) for a in (rigid.atoms[SIZE:], acceptor.atoms)]
    assert chirality[0] == pytest.approx(chirality[1])  # turned, not mirrored


def _corner(atoms: Atoms) -> np.ndarray:
    return atoms.positions[1:4] - atoms.positions[0]


def test_moving_the_hydrogen_moves_nothing_else() -> None:
    transfer = transfers(1, Placement())[0]
    before = transfer.atoms.positions.copy()
    end = transfer.with_hydrogen_at(transfer.end)
    np.testing.assert_array_equal(transfer.atoms.positions, before)
    changed = np.flatnonzero((end.positions != before).any(axis=1))
    assert changed.tolist() == [transfer.hydrogen]
    np.testing.assert_allclose(
        np.sort(transfer.distances(transfer.end)),
        np.sort(
            np.delete(end.get_distances(transfer.hydrogen, range(len(end))), transfer.hydrogen)
        ),
    )


def simple(**moved: list[float]) -> Transfer:
    """Methane-like donor at the origin, acceptor C at 3 Å, one bystander on each side."""
    places = {"D": [0, 0, 0], "H": [1.1, 0, 0], "R": [-0.4, 1, 0], "A": [3, 0, 0], "X": [3.4, 1, 0]}
    places |= moved
    atoms = Atoms("CHHCH", positions=list(places.values()))
    start, end = np.array([1.1, 0.0, 0.0]), np.array([1.9, 0.0, 0.0])
    return Transfer(atoms, 1, 0, 3, start, end, ("d", "s", "r"))


def test_what_is_allowed_and_what_is_not() -> None:
    assert is_allowed(simple(), 3, Placement())
    clash = simple(R=[2.5, 1.5, 0.0], X=[3.4, 1.0, 0.0])
    assert not is_allowed(clash, 3, Placement())
    on_the_way = simple(X=[1.5, 0.7, 1.6])
    assert is_allowed(on_the_way, 3, Placement())
    assert not is_allowed(on_the_way, 3, Placement(hydrogen_clearance=1.8))
    rival = simple(R=[1.4, 0.5, 0.0])
    limits = Placement(clearance=0.5, hydrogen_clearance=0.3)
    assert not is_allowed(rival, 3, limits)
    assert is_allowed(simple(R=[1.4, 0.7, 0.0]), 3, limits)


def test_no_room_is_an_error() -> None:
    with pytest.raises(PlacementFailed, match="methoxy finds no place at CB of ALA in 7 tries"):
        place(
            alanine(),
            acceptors("methoxy", 0)[0],
            Placement(clearance=50.0, tries=7),
            np.random.default_rng(0),
        )


def test_ranges_must_be_in_order() -> None:
    with pytest.raises(ValidationError, match="is below shortest"):
        Placement(shortest=2.0, longest=1.0)
