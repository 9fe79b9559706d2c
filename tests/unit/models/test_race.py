"""RACE against its equations written out: atoms, edges and paths in plain loops."""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from ase import Atoms
from pydantic import ValidationError
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import silu

from surefoot.blocks.angular import clebsch_gordan, harmonics, wigner
from surefoot.blocks.couplings import Irrep, parse_irreps
from surefoot.blocks.dense import Weights, branch, stack
from surefoot.blocks.native import plain_only
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, Rows, Width, collate
from surefoot.heads.scalar import Scalar
from surefoot.models.race import Race, spread
from surefoot.potential import Potential

ELEMENTS = (1, 6, 8)
NEIGHBORS = 3.7
HEAD = Scalar(hidden=3, activation="silu", scaling="normal")
MODELS = {
    "both parities": Race(
        cutoff=2.3, irreps="3x0e + 2x0o + 4x1o + 1x1e", channels=3, interactions=4, radial=(5, 6)
    ),
    "unequal": Race(
        cutoff=2.3, irreps="5x0e + 3x1o + 4x1e + 1x2e", channels=7, interactions=4, radial=(6,)
    ),
    "scalars": Race(cutoff=2.3, irreps="4x0e", channels=2, max_ell=0, cutoff_power=4, radial=()),
    "as published": Race(
        cutoff=2.3, irreps="2x0e + 2x1o", channels=2, max_ell=1, normalisation="neighbors"
    ),
    "high degrees": Race(
        cutoff=2.3, irreps="2x0e + 2x3o + 2x4o + 2x6e", channels=2, max_ell=6, interactions=2
    ),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def potential_of(model: Race) -> Potential:
    baseline = Baseline(elements=ELEMENTS, energies=(0.0, 0.0, 0.0), scale=1.0, neighbors=NEIGHBORS)
    return Potential(model=model, head=HEAD, baseline=baseline)


def random_weights(model: Race, seed: int) -> Weights:
    """Fresh weights, and biases that are not zero."""
    weights = potential_of(model).init(seed, torch.float64)
    generator = torch.Generator().manual_seed(100 + seed)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in weights.items()
    }


@pytest.fixture
def graph() -> Graph:
    """A molecule, a chain whose atoms see their own images, and a lone atom."""
    molecule = Atoms("CHO", positions=[[0, 0, 0], [1.1, 0.2, 0.1], [-0.4, 1.2, 0.3]])
    places = [[0, 0, 0], [1.0, 0.8, 0.4]]
    chain = Atoms("OC", positions=places, cell=[2.1, 0, 0], pbc=(True, False, False))
    return collate([to_graph(atoms, 2.3) for atoms in (molecule, chain, Atoms("H"))])


# ---- the equations

Path = tuple[str, Irrep, int]
"""("copy" or "product", irrep of u, degree of Y)."""


@dataclass
class PlainLayer:
    """Weights of one layer by irrep and path, for all hidden irreps that can be reached."""

    up: dict[Irrep, Tensor]
    radial: list[Tensor]
    last: dict[tuple[Irrep, Path], Tensor]
    down: dict[tuple[Irrep, Path], Tensor]
    skip: dict[Irrep, Tensor]
    one_body: Tensor
    product: dict[Irrep, Tensor]


def paths_to(wanted: Irrep, there: dict[Irrep, int], lmax: int) -> Iterator[Path]:
    """The parts of [u || u (x) Y] that turn like `wanted`."""
    if wanted in there:
        yield "copy", wanted, 0
    for first, degree in itertools.product(there, range(lmax + 1)):
        parity = first.parity * (-1) ** degree
        near = abs(first.degree - degree) <= wanted.degree <= first.degree + degree
        if near and parity == wanted.parity:
            yield "product", first, degree


def unpack(model: Race, weights: Weights, seed: int) -> list[PlainLayer]:
    """The model's weights by irrep and path; what the model leaves out is random.

    One-body features are unit vectors of the species here: F is the number of species.
    """
    fresh = functools.partial(
        torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    layers = []
    there = {Irrep(0, 1): model.channels}
    for index, layer in enumerate(model.layers()):
        part = branch(weights, f"model.layer{index}")
        radial = list(branch(part, "radial").values())
        result = PlainLayer({}, radial[:-1], {}, {}, {}, torch.eye(3).double(), {})
        held = {irrep for _, irrep in layer.outputs}
        after, columns = {}, 0
        for count, wanted in parse_irreps(model.irreps):
            paths = list(paths_to(wanted, there, model.max_ell))
            if not paths:
                continue
            after[wanted] = count
            rows = 0
            for path in paths:
                n, key = there[path[1]], (wanted, path)
                if wanted not in held:
                    result.last[key] = fresh(radial[-1].shape[0], n)
                    result.down[key] = fresh(n, count)
                    continue
                result.last[key] = radial[-1][:, columns : columns + n]
                result.down[key] = part[f"down.{wanted}"][rows : rows + n]
                columns, rows = columns + n, rows + n
            result.product[wanted] = part.get(f"mix.{wanted}", fresh(3, count, count))
        for irrep, n in there.items():
            result.up[irrep] = part.get(f"up.{irrep}", fresh(n, n))
            if irrep in after:
                result.skip[irrep] = part.get(f"skip.{irrep}", fresh(3, n, after[irrep]))
        layers.append(result)
        there = after
    return layers


@functools.cache
def silu_scale() -> float:
    """1 / sqrt <silu(z)^2> over standard normal z, on a fine grid."""
    z = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return float(1 / torch.sqrt((silu(z) ** 2 * density).sum() * 0.001))


def radial_features(model: Race, length: Tensor, hidden: list[Tensor]) -> Tensor:
    """The network on Bessel functions times the envelope, up to its last layer."""
    x, p = length / model.cutoff, model.cutoff_power
    n = torch.arange(1, model.basis_size + 1, dtype=torch.float64)
    envelope = 1 - x**p * ((p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x**2)
    values = envelope * math.sqrt(2 / model.cutoff) * torch.sin(n * math.pi * x) / length
    for matrix in hidden:
        values = silu_scale() * silu(values @ matrix / math.sqrt(matrix.shape[0]))
    return values


def plain_layer(
    model: Race,
    layer: PlainLayer,
    atoms: list[dict[Irrep, Tensor]],
    edges: list[tuple[int, int, Tensor]],
    species: list[int],
) -> list[dict[Irrep, Tensor]]:
    """Features (2l+1, channels) of each atom and irrep after one layer."""
    there = {irrep: value.shape[-1] for irrep, value in atoms[0].items()}
    u = [{i: x @ layer.up[i] / math.sqrt(there[i]) for i, x in atom.items()} for atom in atoms]
    sums: list[dict[tuple[Irrep, Path], Tensor]] = [{} for _ in atoms]
    for receiver, sender, vector in edges:
        y = harmonics(vector[None], model.max_ell)[0]
        values = radial_features(model, vector.norm(), layer.radial)
        for key, last in layer.last.items():
            wanted, (kind, first, degree) = key
            message = u[sender][first]
            if kind == "product":
                coupling = clebsch_gordan(first.degree, degree, wanted.degree)
                part = math.sqrt(wanted.dim) * y[degree**2 : (degree + 1) ** 2]
                message = torch.einsum("ijk,ic,j->kc", coupling, message, part)
            message = message * (values @ last / math.sqrt(last.shape[0]))
            sums[receiver][key] = sums[receiver].get(key, 0.0) + message
    result = []
    size = NEIGHBORS if model.normalisation == "neighbors" else math.sqrt(NEIGHBORS)
    for i, atom in enumerate(atoms):
        z, after = species[i], {}
        for wanted, mixing in layer.product.items():
            total = torch.zeros(wanted.dim, mixing.shape[-1]).double()
            rows = sum(down.shape[0] for key, down in layer.down.items() if key[0] == wanted)
            for key, down in layer.down.items():
                if key[0] == wanted and key in sums[i]:
                    total = total + sums[i][key] @ down / math.sqrt(rows) / size
            # B = A~ (x) a, all products of channels; then a linear map of B.
            products = torch.einsum("mc,f->mfc", total, layer.one_body[z])
            total = torch.einsum("mfc,fcd->md", products, mixing) / math.sqrt(mixing.shape[1])
            if wanted in layer.skip:
                root = math.sqrt(there[wanted])
                total = total + atom[wanted] @ layer.skip[wanted][z] / root
            after[wanted] = total
        result.append(after)
    return result


def plain_energy(
    model: Race, weights: Weights, layers: list[PlainLayer], graph: Graph, positions: Tensor
) -> Tensor:
    """Energy of each graph."""
    species = [ELEMENTS.index(number) for number in graph.numbers.tolist()]
    edges = []
    for (i, j), shift in zip(graph.edge_index.T.tolist(), graph.edge_shift, strict=True):
        cell = graph.cell[graph.graph_index[i]]
        edges.append((i, j, positions[j] + shift.double() @ cell - positions[i]))
    atoms = [{Irrep(0, 1): weights["model.embedding"][z][None]} for z in species]
    energies = [torch.zeros(()).double() for _ in graph.charge]
    for index, layer in enumerate(layers):
        atoms = plain_layer(model, layer, atoms, edges, species)
        first, out = (branch(weights, f"head.layer{index}.{part}") for part in ("hidden", "out"))
        for i, atom in enumerate(atoms):
            scalars = atom[Irrep(0, 1)][0]
            width = math.sqrt(len(scalars))
            hidden = silu(scalars @ first["weight"] / width + first["bias"])
            energy = hidden @ out["weight"] / math.sqrt(len(hidden)) + out["bias"]
            g = int(graph.graph_index[i])
            energies[g] = energies[g] + energy[0]
    return torch.stack(energies)


# ---- the model against them


def assert_close(found: Tensor, expected: Tensor) -> None:
    scale = max(1.0, float(expected.abs().max()))
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 1e-10 * scale


def plain_forces(
    model: Race, weights: Weights, graph: Graph, *, differentiable: bool
) -> tuple[Tensor, Tensor]:
    """Energies and forces."""
    positions = graph.positions.clone().requires_grad_()
    layers = unpack(model, weights, seed=1)
    energy = plain_energy(model, weights, layers, graph, positions)
    (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=differentiable)
    return energy, -slope


def slopes(energy: Tensor, forces: Tensor, leaves: Weights) -> Weights:
    """Of a mixture of energies and forces with respect to all weights."""
    mixture = torch.linspace(-1, 2, forces.shape[-2] * 3).double().reshape(-1, 3)
    graphs = torch.linspace(0.5, 1.5, energy.shape[-1]).double()
    loss = (energy * graphs).sum() + (forces * mixture).sum()
    found = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@every_model
def test_energies_and_forces_are_those_of_the_equations(model, graph) -> None:
    """Two members at once, each against the loops; irreps left out are random there."""
    members = [random_weights(model, seed) for seed in range(2)]
    output = potential_of(model)(stack(members), graph)
    with plain_only():
        plain = potential_of(model)(stack(members), graph)
    assert_close(output.energy.mean.detach(), plain.energy.mean.detach())
    assert_close(output.forces.mean.detach(), plain.forces.mean.detach())
    for index, weights in enumerate(members):
        energy, forces = plain_forces(model, weights, graph, differentiable=False)
        assert forces.abs().max() > 1e-2
        assert_close(output.energy.mean[index].detach(), energy.detach())
        assert_close(output.forces.mean[index].detach(), forces)


@every_model
def test_slopes_of_weights_are_those_of_the_equations(model, graph) -> None:
    members = [random_weights(model, seed) for seed in range(2)]
    together, alone = (
        {name: value.requires_grad_() for name, value in tree.items()}
        for tree in (stack(members), members[1])
    )
    output = potential_of(model)(together, graph, differentiable=True)
    found = slopes(output.energy.mean, output.forces.mean, together)
    expected = slopes(*plain_forces(model, alone, graph, differentiable=True), alone)
    for name, value in expected.items():
        assert value.abs().max() > 0, name
        assert_close(found[name][1], value)


def test_the_one_body_product_is_a_linear_map_of_the_species(graph) -> None:
    """B = A (x) a with 11 scalars a, and a linear map of all products: one matrix per species."""
    model = MODELS["unequal"].model_copy(update={"irreps": "3x0e + 2x1o + 2x1e"})
    generator = torch.Generator().manual_seed(5)
    weights = random_weights(model, 0)
    layers = unpack(model, weights, 1)
    one_body = torch.randn((3, 11), generator=generator, dtype=torch.float64)
    for index, layer in enumerate(layers):
        layer.one_body = one_body
        for irrep, matrices in layer.product.items():
            shape = (11, *matrices.shape[1:])
            layer.product[irrep] = torch.randn(shape, generator=generator, dtype=torch.float64)
            name = f"model.layer{index}.mix.{irrep}"
            if name in weights:
                weights[name] = torch.einsum("zf,fcd->zcd", one_body, layer.product[irrep])
    expected = plain_energy(model, weights, layers, graph, graph.positions)
    found = potential_of(model)(weights, graph, forces=False).energy.mean
    assert_close(found, expected)


def features(model: Race, structures: list[Atoms], seed: int = 0) -> tuple[Rows, ...]:
    joined = collate([to_graph(atoms, model.cutoff) for atoms in structures])
    output = potential_of(model)(random_weights(model, seed), joined, forces=False)
    return output.features.layers


def test_body_order_rises_by_one_with_each_layer() -> None:
    """After the first layer an atom is a sum over its neighbours, after the second no more."""
    whole = Atoms("COH", positions=[[0, 0, 0], [1.1, 0.3, 0], [-0.5, 0.9, 0.8]])
    parts = [whole, whole[[0, 1]], whole[[0, 2]], whole[[0]]]
    rows = features(MODELS["unequal"], parts)
    for layer, additive in ((0, True), (1, False)):
        of_carbon = rows[layer].values[[0, 3, 5, 7]]
        together, first, second, alone = of_carbon
        difference = float((together - first - second + alone).abs().max())
        assert (difference < 1e-13) == additive
        assert difference < 1e-13 or difference > 1e-6


@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "with inversion"])
def test_scalars_stay_and_quadrupoles_turn(sign) -> None:
    atoms = Atoms("COH", positions=[[0, 0, 0], [1.1, 0.3, 0], [-0.5, 0.9, 0.8]])
    matrix = sign * Rotation.random(random_state=3).as_matrix()
    turned = Atoms("COH", positions=atoms.positions @ matrix.T)
    model = MODELS["unequal"]
    turn = wigner(torch.from_numpy(sign * matrix), 2)
    for before, after in zip(features(model, [atoms]), features(model, [turned]), strict=True):
        assert_close(after.values, before.values)
        assert (before.quadrupoles is None) == (after.quadrupoles is None)
        if before.quadrupoles is not None:
            expected = torch.einsum("mn,inc->imc", turn, before.quadrupoles)
            assert_close(after.quadrupoles, expected)


def test_rows_have_the_channels_of_their_irreps(small_structures) -> None:
    """Whatever the most channels are; the last layer has scalars only, as nothing follows."""
    model = MODELS["unequal"]
    rows = features(model, [small_structures["ethanol"]])
    assert model.widths == (Width(5, 1), Width(5, 1), Width(5, 1), Width(5))
    assert [tuple(row.values.shape) for row in rows] == [(9, 5)] * 4
    assert [row.quadrupoles is not None for row in rows] == [True, True, True, False]
    assert all(tuple(row.quadrupoles.shape) == (9, 5, 1) for row in rows[:3])


def test_only_irreps_that_play_a_part_have_weights() -> None:
    """Pseudoscalars couple to nothing that a later layer turns into scalars, up to 5 layers."""
    both_parities = "4x0e + 4x0o + 4x1o + 4x1e + 4x2e + 4x2o"
    five = Race(cutoff=6.0, irreps=both_parities, interactions=5)
    outputs = [[str(i) for _, i in layer.outputs] for layer in five.layers()]
    natural, both = ["0e", "1o", "2e"], ["0e", "1o", "2e", "1e", "2o"]
    assert outputs == [natural, both, both, natural, ["0e"]]
    six = five.model_copy(update={"interactions": 6})
    assert [str(i) for _, i in six.layers()[2].outputs] == [*natural, "0o", "1e", "2o"]


# ---- weights


def test_channels_that_are_filled_up_hold_no_weights() -> None:
    weights = MODELS["unequal"].init(torch.Generator().manual_seed(0), 3)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    assert shapes["embedding"] == (3, 7)
    assert shapes["layer0.up.0e"] == (7, 7)
    assert shapes["layer0.down.0e"] == (2 * 7, 5)
    assert shapes["layer0.skip.0e"] == (3, 7, 5)
    # From 0e, 1o, 2e with 5, 3, 1 channels to 1e: 1o with Y_1 and 2e with Y_2.
    assert shapes["layer1.down.1e"] == (3 + 1, 4)
    assert shapes["layer1.mix.1e"] == (3, 4, 4)


def test_spread_puts_each_part_at_the_start_of_its_place() -> None:
    values = torch.arange(1.0, 7.0).reshape(1, 6)
    expected = torch.tensor([[1.0, 2, 0, 3, 0, 0, 4, 5, 6]])
    assert torch.equal(spread(values, (2, 1, 3), 3, -1), expected)
    assert torch.equal(spread(values.T, (2, 1, 3), 3, -2), expected.T)
    assert spread(values, (3, 3), 3, -1) is values


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"irreps": "8x1o"}, "holds no scalars"),
        ({"irreps": "8x0e + 8x7o"}, "degree 7 in '8x0e [+] 8x7o' is not built; the highest is 6"),
        ({"irreps": "8x0e + 8x1"}, "'8x1' in the irreps"),
        ({"max_ell": 7}, "less than or equal to 6"),
        ({"cutoff": 0.0}, "greater than 0"),
        ({"radial": (8, 0)}, r"radial\.1\n.*greater than 0"),
        ({"lmax": 2}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_model_are_refused(settings, sentence) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Race(**settings)
