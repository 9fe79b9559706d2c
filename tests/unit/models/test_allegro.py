"""Allegro: strictly local, smooth with any head, linear in size; and which irreps it keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from pydantic import ValidationError

from surefoot.blocks.couplings import format_irreps
from surefoot.blocks.dense import Weights, cast, lookup, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import Geometry, Graph, Rows, collate, edge_vectors, find_kinds
from surefoot.heads.scalar import Scalar
from surefoot.models.allegro import Allegro
from surefoot.potential import Potential
from surefoot.segments import segment_sum

CUTOFF = 4.0
NEIGHBORS = 12.0
SMALL = Allegro(
    cutoff=CUTOFF, lmax=2, layers=3, scalars=6, tensors=4, embed_width=7, latent_width=8
)
BASELINE = Baseline(elements=(1, 6, 8), energies=(0.0,) * 3, scale=1.0, neighbors=NEIGHBORS)
POTENTIAL = Potential(model=SMALL, head=Scalar(), baseline=BASELINE)


def biased_weights(seed: int = 3) -> Weights:
    """Fresh weights, and a head with biases."""
    weights = POTENTIAL.init(seed, torch.float64)
    return {n: v + 0.3 if n.endswith("bias") else v for n, v in weights.items()}


def geometry_of(graph: Graph) -> Geometry:
    vectors = edge_vectors(graph)
    return Geometry(
        graph=graph,
        kinds=find_kinds(BASELINE.species(graph.numbers)),
        vectors=vectors,
        lengths=vectors[graph.pair_edges[0]].norm(dim=-1),
        neighbors=NEIGHBORS,
    )


def chain(last: float) -> Atoms:
    """Five atoms along a line with neighbours and next neighbours in sight; one more at the end."""
    positions = np.zeros((6, 3))
    positions[:, 0] = [0.0, 1.6, 3.1, 4.8, 6.3, last]
    positions[:, 1] = [0.0, 0.4, -0.3, 0.2, 0.0, 0.3]
    return Atoms("CHOCHO", positions=positions)


def atomic_energies(weights: Weights, rows: Rows, head: Scalar) -> torch.Tensor:
    """Σ over the rows of each atom."""
    assert rows.atom is not None
    assert rows.weight is not None
    part = {n.removeprefix("head."): v for n, v in weights.items() if n.startswith("head.")}
    energies = head.basis(part, rows, 0) @ part["layer0.out.weight"] + part["layer0.out.bias"]
    return segment_sum(energies * rows.weight.unsqueeze(-1), rows.atom).squeeze(-1)


def test_an_atom_does_not_feel_what_is_beyond_the_cutoff() -> None:
    """Not even through atoms in between, however many layers there are: to the bit."""
    weights, found = biased_weights(), []
    for last in (8.1, 7.4):
        graph = to_graph(chain(last), CUTOFF)
        rows = POTENTIAL(weights, graph).features.layers[0]
        found.append((graph, rows, atomic_energies(weights, rows, Scalar())))
    (graph, rows, energies), (_, moved_rows, moved) = found
    far = chain(7.4).get_distances(5, range(6)) > CUTOFF
    assert far.sum() == 3
    assert to_graph(chain(7.4), CUTOFF).edge_index.shape == graph.edge_index.shape
    far[5] = False  # it is the one that moves
    received = torch.as_tensor(far)[graph.edge_index[0]]
    edges = len(received)
    for before, after in (
        (rows.values, moved_rows.values),
        (rows.quadrupoles, moved_rows.quadrupoles),
    ):
        assert before is not None
        assert after is not None
        assert torch.equal(before[:edges][received], after[:edges][received])
    assert torch.equal(energies[far], moved[far])
    assert (energies[~far] - moved[~far]).abs().min() > 1e-6


def test_an_atoms_energy_has_slopes_along_its_own_edges_only() -> None:
    weights = biased_weights()
    graph = to_graph(chain(8.0), CUTOFF)
    geometry = geometry_of(graph)
    vectors = geometry.vectors.requires_grad_()
    geometry = replace(geometry, vectors=vectors, lengths=vectors[graph.pair_edges[0]].norm(dim=-1))
    model = {n.removeprefix("model."): v for n, v in weights.items() if n.startswith("model.")}
    rows = SMALL(model, geometry).layers[0]
    energies = atomic_energies(weights, rows, Scalar())
    reverse = graph.pair_edges.flip(0).flatten()[graph.pair_edges.flatten().argsort()]
    for atom, energy in enumerate(energies):
        (slope,) = torch.autograd.grad(energy, vectors, retain_graph=True)
        own = graph.edge_index[0] == atom
        # The length of an edge is that of its pair, so half of its slope may stand at the reverse.
        touched = own | own[reverse]
        assert slope[own].abs().amax(-1).min() > 0
        assert torch.equal(slope[~touched], torch.zeros_like(slope[~touched]))


def test_an_edge_is_counted_from_what_the_head_says_of_none(small_structures) -> None:
    """E_i = f(0) + s Σ (f(x_e) − f(0)), whatever the biases of the head."""
    weights = biased_weights()
    graph = to_graph(small_structures["water_cluster"], CUTOFF)
    output = POTENTIAL(weights, graph)
    values = output.features.layers[0].values[: graph.edge_index.shape[1]].detach()
    part = {n.removeprefix("head.layer0."): v for n, v in weights.items()}

    def head(x: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.softplus(x @ part["hidden.weight"] + part["hidden.bias"])
        return (hidden - np.log(2)) @ part["out.weight"] + part["out.bias"]

    none = head(torch.zeros_like(values[:1]))
    assert none.abs() > 0.01
    expected = none * len(graph.numbers) + (head(values) - none).sum() / (2 * NEIGHBORS) ** 0.5
    assert abs(float(output.energy.mean.detach() - expected)) < 1e-12 * float(expected.abs())


def test_features_of_an_edge_vanish_at_the_cutoff() -> None:
    graphs = [
        to_graph(Atoms("CO", positions=[[0, 0, 0], [CUTOFF - gap, 0, 0]]), CUTOFF)
        for gap in (1e-2, 2e-2)
    ]
    sizes = []
    for graph in graphs:
        rows = POTENTIAL(biased_weights(), graph).features.layers[0]
        assert rows.quadrupoles is not None
        sizes.append([rows.values.abs().max(), rows.quadrupoles.abs().max()])
    for near, far in zip(*sizes, strict=True):
        assert 0 < near < 1e-5
        assert far / near > 12  # at least the fourth power: Bessel functions times a cubic zero


def tracks(model: Allegro) -> list[str]:
    """Irreps behind each layer."""
    return [format_irreps(tuple((1, i) for i in c.outputs)) for c in model.couplings]


@pytest.mark.parametrize(
    ("lmax", "parity", "layers", "expected"),
    [
        (0, "full", 2, ["1x0e", "1x0e"]),
        (2, "full", 1, ["1x0e"]),
        (2, "full", 2, ["1x0e + 1x1o + 1x2e", "1x0e"]),
        (2, "natural", 3, ["1x0e + 1x1o + 1x2e", "1x0e + 1x1o + 1x2e", "1x0e"]),
        (1, "full", 3, ["1x0e + 1x1o + 1x1e", "1x0e + 1x1o", "1x0e"]),
        (2, "full", 3, ["1x0e + 1x1o + 1x2e + 1x1e + 1x2o", "1x0e + 1x1o + 1x2e", "1x0e"]),
    ],
)
def test_irreps_that_can_be_reached_and_lead_to_scalars(lmax, parity, layers, expected) -> None:
    assert tracks(Allegro(lmax=lmax, parity=parity, layers=layers)) == expected


def test_pseudoscalars_come_with_five_layers() -> None:
    """1o ⊗ 1o → 1e, 1e ⊗ 1o → 0o, 0o ⊗ 1o → 1e, 1e ⊗ 1o → 1o, 1o ⊗ 1o → 0e."""
    assert not any("0o" in layer for layer in tracks(Allegro(lmax=1, layers=4)))
    layers = tracks(Allegro(lmax=1, layers=5))
    assert ["0o" in layer for layer in layers] == [False, True, False, False, False]


def test_parity_makes_no_difference_before_the_third_layer() -> None:
    for layers, same in ((1, True), (2, True), (3, False)):
        full, natural = (
            Allegro(layers=layers, parity=parity).couplings for parity in ("full", "natural")
        )
        assert (full == natural) == same


def test_fresh_weights(generator) -> None:
    """Of unit variance, from the generator alone; every element has a row."""
    weights = Allegro().init(generator, 4)
    assert weights["embedding"].shape == (4, 64)
    assert all(value.dtype == torch.float64 for value in weights.values())
    everything = torch.cat([value.flatten() for value in weights.values()])
    assert abs(float(everything.std()) - 1) < 0.01
    odd = Allegro(scalars=7).init(generator, 1)
    assert odd["embedding"].shape == (1, 8)


@pytest.mark.parametrize("lmax", [0, 1, 2, 3])
def test_features_keep_their_size(generator, small_structures, lmax) -> None:
    """With fresh weights scalars are of order one in every layer."""
    model = Allegro(lmax=lmax, layers=3, cutoff=CUTOFF)
    geometry = geometry_of(to_graph(small_structures["skewed_cell"], CUTOFF))
    values = model(model.init(generator, 3), geometry).layers[0].values
    edges = geometry.vectors.shape[0]
    near = geometry.vectors.norm(dim=-1) < 2.5
    sizes = values[:edges][near].unflatten(-1, (4, 64)).square().mean((0, 2)).sqrt()
    assert sizes.min() > 0.05
    assert sizes.max() < 20


def test_members_equal_a_loop_to_the_features(small_structures) -> None:
    graph = collate([to_graph(atoms, CUTOFF) for atoms in small_structures.values()])
    members = [POTENTIAL.init(seed, torch.float64) for seed in range(3)]
    together = POTENTIAL(stack(members), graph).features.layers[0]
    assert together.quadrupoles is not None
    for index, weights in enumerate(members):
        alone = POTENTIAL(weights, graph).features.layers[0]
        assert alone.quadrupoles is not None
        for stacked, single in (
            (together.values, alone.values),
            (together.quadrupoles, alone.quadrupoles),
        ):
            torch.testing.assert_close(stacked[index], single, rtol=1e-12, atol=1e-13)


def test_who_receives_and_who_sends_are_told_apart() -> None:
    """The two edges of a pair of unlike atoms have different features."""
    graph = to_graph(Atoms("CO", positions=[[0, 0, 0], [1.2, 0, 0]]), CUTOFF)
    values = POTENTIAL(biased_weights(), graph).features.layers[0].values
    assert (values[0] - values[1]).abs().max() > 1e-2
    table = biased_weights()["model.embedding"]
    assert lookup(table, torch.tensor([0])).shape == (1, 6)


def saved_bytes(potential: Potential, weights: Weights, graph: Graph) -> int:
    """What autograd keeps for the backward pass, each storage once."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        potential(weights, graph)
    return sum(storage.nbytes() for storage in kept.values())


def test_memory_is_linear_in_atoms(small_structures) -> None:
    """What is kept grows by the same amount with each copy of the cell."""
    cell = small_structures["skewed_cell"]
    weights = cast(biased_weights(), torch.float32)
    one, two, four = (
        saved_bytes(POTENTIAL, weights, to_graph(cell.repeat((n, 1, 1)), CUTOFF))
        for n in (4, 8, 16)
    )
    assert one > 1e5
    assert abs((four - two) / (2 * (two - one)) - 1) < 1e-3


@pytest.mark.slow
def test_ten_thousand_atoms() -> None:
    """A crystal of as many atoms: all cells alike, so that the answer is known."""
    place = Atoms("C", positions=[[0, 0, 0]], cell=np.eye(3) * 2.3, pbc=True)
    model = Allegro(cutoff=CUTOFF, tensors=8, scalars=16)
    potential = Potential(model=model, head=Scalar(), baseline=BASELINE)
    weights = potential.init(0, torch.float32)
    graph = to_graph(place.repeat((22, 22, 21)), CUTOFF)
    assert graph.numbers.shape[0] > 10_000
    large, small = (potential(weights, g) for g in (graph, to_graph(place, CUTOFF)))
    part = to_graph(place.repeat((22, 22, 7)), CUTOFF)
    held, of_part = (saved_bytes(potential, weights, g) for g in (graph, part))
    assert held / of_part == pytest.approx(3.0, rel=0.01)
    assert large.forces is not None
    ratio = float(large.energy.mean.detach() / small.energy.mean.detach())
    assert abs(ratio / graph.numbers.shape[0] - 1) < 1e-5
    assert large.forces.mean.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("setting", "value"),
    [("lmax", 4), ("lmax", -1), ("layers", 0), ("embedding", 9), ("cutoff", 0.0), ("power", 1)],
)
def test_what_is_not_built_is_refused(setting, value) -> None:
    with pytest.raises(ValidationError, match=setting):
        Allegro.model_validate({setting: value})
