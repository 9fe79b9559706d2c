"""Frames to graphs and targets: absent labels are masked, states that nobody stated are marked."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian

from surefoot.data.convert import number_groups, to_graph, to_samples, to_targets
from surefoot.data.read import Frame
from surefoot.graph import UNSTATED, edge_vectors


def frame(atoms: Atoms, index: int = 0, **labels: object) -> Frame:
    named = {"group": "g", "config_type": "c", "file": "data.xyz", **labels}
    return Frame(atoms=atoms, index=index, **named)


def water() -> Atoms:
    return Atoms("OHH", positions=[[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])


def test_graph_of_a_structure(small_structures) -> None:
    atoms = small_structures["skewed_cell"]
    graph = to_graph(atoms, 4.0, charge=-2, spin=3)
    np.testing.assert_array_equal(graph.positions, atoms.positions)
    assert graph.positions.dtype == graph.cell.dtype == torch.float64
    assert graph.numbers.tolist() == atoms.numbers.tolist()
    np.testing.assert_array_equal(graph.cell[0], atoms.cell.array)
    assert graph.pbc.tolist() == [[True, True, True]]
    assert graph.charge.tolist() == [-2]
    assert graph.spin.tolist() == [3]
    lengths = edge_vectors(graph).norm(dim=1)
    assert lengths.min() > 0
    assert lengths.max() < 4.0


@pytest.mark.parametrize(
    ("charge", "spin", "stored"),
    [(None, None, (0, UNSTATED)), (0, 1, (0, 1)), (None, 2, (0, 2)), (1, None, (1, UNSTATED))],
)
def test_a_state_that_nobody_stated(charge, spin, stored) -> None:
    graph = to_graph(water(), 3.0, charge, spin)
    assert (int(graph.charge), int(graph.spin)) == stored
    (sample,) = to_samples([frame(water(), charge=charge, spin=spin)], 3.0)
    assert (int(sample.graph.charge), int(sample.graph.spin)) == stored
    assert UNSTATED < 1  # never the multiplicity of anything


def test_graph_does_not_share_memory_with_the_structure() -> None:
    atoms = water()
    graph = to_graph(atoms, 3.0)
    before = graph.positions.clone()
    atoms.positions += 1.0
    assert torch.equal(graph.positions, before)


LABELS = {
    "energy": -3.5,
    "forces": np.arange(9.0).reshape(3, 3),
    "stress": np.arange(9.0).reshape(3, 3) / 7,
}


@pytest.mark.parametrize("held", [(), ("energy",), ("forces",), ("stress",), tuple(LABELS)])
def test_absent_labels_are_masked(held) -> None:
    atoms = water()
    atoms.set_cell(9 * np.eye(3))
    atoms.pbc = True  # a stress needs a volume
    targets = to_targets(frame(atoms, **{name: LABELS[name] for name in held}), 5)
    for name, value in LABELS.items():
        mask = getattr(targets, f"has_{name}")
        assert mask.tolist() == [name in held]
        found = getattr(targets, name)
        assert found.dtype == torch.float64
        assert torch.isfinite(found).all()
        if name in held:
            np.testing.assert_array_equal(found.reshape(-1), np.ravel(value))
    assert targets.forces.shape == (3, 3)
    assert targets.stress.shape == (1, 3, 3)
    assert targets.group.tolist() == [5]
    assert targets.weight.tolist() == [1.0]


def test_a_label_of_zero_is_a_label() -> None:
    zeros = {"energy": 0.0, "forces": np.zeros((3, 3)), "stress": np.zeros((3, 3))}
    atoms = water()
    atoms.set_cell(9 * np.eye(3))
    atoms.pbc = True
    targets = to_targets(frame(atoms, **zeros), 0)
    assert targets.has_energy.all()
    assert targets.has_forces.all()
    assert targets.has_stress.all()


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_a_stress_without_a_volume_is_no_label(pbc) -> None:
    atoms = water()
    atoms.set_cell(9 * np.eye(3))
    atoms.pbc = pbc
    assert not to_targets(frame(atoms, stress=np.eye(3)), 0).has_stress.any()


@pytest.mark.parametrize(
    ("constraints", "fixed"),
    [
        ([], [False, False, False]),
        ([FixAtoms([0, 2])], [True, False, True]),
        ([FixAtoms([-1])], [False, False, True]),
        ([FixAtoms(mask=[False, True, False])], [False, True, False]),
        ([FixAtoms([0]), FixAtoms([1])], [True, True, False]),
        ([FixCartesian([0], mask=(True, False, False))], [False, False, False]),
    ],
)
def test_fixed_atoms(constraints, fixed) -> None:
    atoms = water()
    atoms.set_constraint(constraints)
    assert to_targets(frame(atoms), 0).fixed.tolist() == fixed


def test_samples_name_their_frames_and_number_their_groups() -> None:
    groups = ["b", "a", "b", "c"]
    frames = [
        frame(water(), index, group=group, config_type=f"type {group}", energy=float(index))
        for index, group in enumerate(groups)
    ]
    assert number_groups(frames) == {"b": 0, "a": 1, "c": 2}
    samples = to_samples(frames, 3.0)
    assert [int(sample.targets.group) for sample in samples] == [0, 1, 0, 2]
    assert [sample.group for sample in samples] == groups
    assert [sample.config_type for sample in samples] == [f"type {group}" for group in groups]
    assert [sample.place for sample in samples] == [f"data.xyz, frame {i}" for i in range(4)]
    assert [float(sample.targets.energy) for sample in samples] == [0.0, 1.0, 2.0, 3.0]
    numbered = to_samples(frames[1:2], 3.0, {"b": 4, "a": 9, "c": 2})
    assert numbered[0].targets.group.tolist() == [9]
    assert number_groups([]) == {}


def test_cutoff_decides_who_is_a_neighbour() -> None:
    # O–H are 1.0 Å apart, H–H 1.6 Å.
    counts = [
        to_samples([frame(water())], cut)[0].graph.edge_index.shape[1] for cut in (0.9, 1.2, 2.0)
    ]
    assert counts == [0, 4, 6]


def test_atoms_at_one_place_are_refused_with_the_frame() -> None:
    atoms = water()
    atoms.positions[2] = atoms.positions[0]
    with pytest.raises(ValueError, match=r"^data\.xyz, frame 3: atoms 0 and 2 are 0\.000 Å apart"):
        to_samples([frame(water()), frame(atoms, index=3)], 3.0)
