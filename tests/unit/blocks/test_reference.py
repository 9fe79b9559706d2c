import pytest
import torch

from surefoot.blocks.reference import Baseline, UnknownElement
from surefoot.data.convert import to_graph
from surefoot.graph import collate

BASELINE = Baseline(
    elements=(1, 6, 8), energies=(-13.6, -1030.123456789, -2040.5), scale=1.5, neighbors=10.0
)


def test_species_are_positions_in_the_table() -> None:
    numbers = torch.tensor([8, 1, 6, 1, 79])
    assert BASELINE.species(numbers).tolist() == [2, 0, 1, 0, -1]


def test_energy_is_the_sum_of_references_of_each_graph(small_structures) -> None:
    structures = [small_structures[name] for name in ("ethanol", "atom", "far_atoms")]
    graph = collate([to_graph(atoms, 3.0) for atoms in structures])
    energy = BASELINE.energy(graph, BASELINE.species(graph.numbers))
    assert energy.dtype == torch.float64
    table = dict(zip(BASELINE.elements, BASELINE.energies, strict=True))
    expected = [sum(table[number] for number in atoms.numbers) for atoms in structures]
    assert energy.tolist() == pytest.approx(expected, rel=1e-15)


def test_unknown_element_is_named_with_its_place() -> None:
    BASELINE.require([1, 6, 6], "train.xyz, frame 3")
    with pytest.raises(UnknownElement, match=r"train\.xyz, frame 3: element N .*\(H, C, O\)"):
        BASELINE.require([1, 7, 79], "train.xyz, frame 3")
