"""The convolution against its formula: values and derivatives to third order."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor

from surefoot.blocks import convolution
from surefoot.blocks.angular import clebsch_gordan, harmonics
from surefoot.blocks.convolution import convolve
from surefoot.blocks.couplings import Irreps, parse_irreps
from surefoot.blocks.factors import Factors
from surefoot.blocks.native import kernels, plain_only
from surefoot.blocks.products import ChannelProduct, channel_product
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, collate

CUTOFF = 1.7
PRODUCTS = {
    "scalars": ("0e", "0e + 1o + 2e + 3o", "0e + 1o + 2e + 3o"),
    "natural": ("0e + 1o + 2e", "0e + 1o + 2e", "0e + 1o + 2e + 3o"),
    "both parities": ("0e + 1o + 0o + 1e", "0e + 1o + 2e", "0e + 1o + 0o + 1e + 2o"),
    "tiny": ("0e + 1o", "0e + 1o", "1o"),
    "above degree 3": ("0e + 1o + 4e", "0e + 1o + 5o", "0e + 1o + 4e + 5o"),
}
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


def irreps(text: str) -> Irreps:
    return tuple(irrep for _, irrep in parse_irreps(text))


def product_of(name: str) -> ChannelProduct:
    return channel_product(*(irreps(text) for text in PRODUCTS[name]))


@dataclass(frozen=True)
class Inputs:
    """A graph, and random values for all that is convolved on it."""

    name: str
    graph: Graph
    product: ChannelProduct
    tensors: tuple[Tensor, Tensor, Tensor]

    def convolve(self, *tensors: Tensor) -> Tensor:
        return convolve(*tensors, self.graph, self.product)

    def formula(self, *tensors: Tensor) -> Tensor:
        return formula(*tensors, self.graph, self.name)


def formula(sent: Tensor, angles: Tensor, radial: Tensor, graph: Graph, name: str) -> Tensor:
    """out[i, m3, c] = Σ_e √(2 l3 + 1) Σ_{m1 m2} C[m1, m2, m3] Y[e, m2] w[pair, c] x[j, m1, c]"""
    receiver, sender = graph.edge_index
    product = product_of(name)
    components: dict[object, slice] = {}
    for factor in (0, 1):
        start = 0
        for irrep in irreps(PRODUCTS[name][factor]):
            components[factor, irrep] = slice(start, start + irrep.dim)
            start += irrep.dim
    weights = radial.unflatten(-1, (len(product.paths), -1))[..., graph.pair_index, :, :]
    copies: dict[object, list[Tensor]] = {block.irrep: [] for block in product.blocks}
    for index, (first, second, third) in enumerate(product.paths):
        coupling = clebsch_gordan(first.degree, second.degree, third.degree).to(sent)
        per_edge = math.sqrt(third.dim) * torch.einsum(
            "abk, ...eb, ...ec, ...eac -> ...ekc",
            coupling,
            angles[..., components[1, second]],
            weights[..., index, :],
            sent[..., sender, components[0, first], :],
        )
        out = per_edge.new_zeros((*sent.shape[:-2], third.dim, sent.shape[-1]))
        copies[third].append(out.index_add(-3, receiver, per_edge))
    return torch.cat([torch.stack(parts, -2).flatten(-3, -2) for parts in copies.values()], -2)


def small_graph() -> Graph:
    """Three structures; one atom is alone, one structure sees its own images."""
    structures = [
        Atoms("OHH", positions=[[0, 0, 0], [0.96, 0.1, 0], [-0.24, 0.93, 0.2]]),
        Atoms("C", positions=[[0.3, 0.1, 0]]),
        Atoms("HH", positions=[[0, 0, 0], [0.8, 0.7, 0.4]], cell=[1.5, 2.9, 3.1], pbc=True),
    ]
    return collate([to_graph(atoms, CUTOFF) for atoms in structures])


def make_inputs(
    name: str,
    channels: int,
    members: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
    graph: Graph | None = None,
) -> Inputs:
    graph = small_graph() if graph is None else graph
    product = product_of(name)
    generator = torch.Generator().manual_seed(11)
    atoms, pairs = graph.numbers.shape[0], graph.pair_edges.shape[1]
    shapes = (
        (atoms, product.components, channels),
        (graph.edge_index.shape[1], product.coupling.shape[0]),
        (pairs, len(product.paths) * channels),
    )
    tensors = (
        torch.randn((*members, *shape), generator=generator, dtype=torch.float64).to(dtype)
        for shape in shapes
    )
    return Inputs(name, graph, product, tuple(tensors))


def derivatives(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], orders: int
) -> list[Tensor]:
    """The value, then along random directions the slopes of each order by all inputs.

    The directions are inputs too, so that the slopes by a cotangent are among them.
    """
    generator = torch.Generator().manual_seed(12)
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = function(*leaves)
    found, last = [value], [value]
    for _ in range(orders):
        along = [
            torch.randn(part.shape, generator=generator, dtype=torch.float64)
            .to(part.dtype)
            .requires_grad_()
            for part in last
        ]
        total = sum((a * part).sum() for a, part in zip(along, last, strict=True))
        last = list(torch.autograd.grad(total, leaves, create_graph=True))
        leaves += along
        found += last
    return [part.detach() for part in found]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        torch.testing.assert_close(
            one, other, rtol=0, atol=tolerance * max(1.0, float(other.abs().max()))
        )


@pytest.mark.usefixtures("compiled")
def test_the_graph_is_worth_asking() -> None:
    """Atoms without neighbours, several edges between the same atoms, edges to oneself."""
    graph = small_graph()
    assert (graph.receiver_offsets.diff() == 0).sum() == 1
    receiver, sender = graph.edge_index
    assert (receiver == sender).any()
    assert torch.unique(graph.edge_index, dim=1).shape[1] < graph.edge_index.shape[1]
    assert kernels(torch.zeros(1)) is not None  # or all tests below would be of the plain form


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("channels", [1, 7, 16, 21])
def test_formula_to_second_order(name, channels) -> None:
    inputs = make_inputs(name, channels)
    found, expected = (
        derivatives(function, inputs.tensors, 2) for function in (inputs.convolve, inputs.formula)
    )
    assert_same(found, expected, TOLERANCES[torch.float64])
    assert all(part.abs().max() > 1e-3 for part in expected)


@pytest.mark.parametrize("name", PRODUCTS)
def test_single_precision(name) -> None:
    inputs = make_inputs(name, 21, dtype=torch.float32)
    exact = tuple(tensor.double() for tensor in inputs.tensors)
    found = derivatives(inputs.convolve, inputs.tensors, 2)
    expected = derivatives(inputs.formula, exact, 2)
    assert_same(found, [part.float() for part in expected], TOLERANCES[torch.float32])


@pytest.mark.parametrize("name", ["natural", "above degree 3"])
def test_third_order(name) -> None:
    inputs = make_inputs(name, 9)
    found, expected = (
        derivatives(function, inputs.tensors, 3) for function in (inputs.convolve, inputs.formula)
    )
    assert_same(found, expected, TOLERANCES[torch.float64])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_members_equal_a_loop(dtype) -> None:
    inputs = make_inputs("both parities", 7, members=(3,), dtype=dtype)
    together = derivatives(inputs.convolve, inputs.tensors, 2)
    by_formula = derivatives(inputs.formula, inputs.tensors, 2)
    assert_same(together, by_formula, TOLERANCES[dtype])
    for member in range(3):
        alone = inputs.convolve(*(tensor[member] for tensor in inputs.tensors))
        # Not to the bit: a library may multiply three matrices in another order than one.
        assert_same([together[0][member]], [alone], 0.1 * TOLERANCES[dtype])


@pytest.mark.parametrize("members", [(), (2,)])
@pytest.mark.parametrize("name", PRODUCTS)
def test_plain_form_equals_the_kernels(name, members) -> None:
    inputs = make_inputs(name, 5, members)
    found = derivatives(inputs.convolve, inputs.tensors, 2)
    with plain_only():
        plain = derivatives(inputs.convolve, inputs.tensors, 2)
    assert_same(found, plain, TOLERANCES[torch.float64])


@pytest.mark.parametrize("plain", [False, True], ids=["kernels", "plain"])
@pytest.mark.parametrize("members", [(), (2,)])
@pytest.mark.parametrize("atoms", [Atoms("O"), Atoms("OH", positions=[[0, 0, 0], [9, 0, 0]])])
def test_without_edges_all_is_zero(atoms, members, plain) -> None:
    inputs = make_inputs("natural", 7, members, graph=to_graph(atoms, CUTOFF))
    assert inputs.graph.edge_index.shape[1] == 0

    def found() -> list[Tensor]:
        return derivatives(inputs.convolve, inputs.tensors, 2)

    if plain:
        with plain_only():
            parts = found()
    else:
        parts = found()
    assert parts[0].shape == (*members, len(atoms), inputs.product.results, 7)
    assert all(not part.any() for part in parts)


def test_gradcheck() -> None:
    graph = to_graph(Atoms("OH", positions=[[0, 0, 0], [0.9, 0.3, -0.2]]), CUTOFF)
    inputs = make_inputs("tiny", 2, graph=graph)
    leaves = tuple(tensor.requires_grad_() for tensor in inputs.tensors)
    assert torch.autograd.gradcheck(inputs.convolve, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(inputs.convolve, leaves, fast_mode=True)


def counted(monkeypatch: pytest.MonkeyPatch, function: type) -> list[int]:
    """Grows by one with every backward pass of an autograd function."""
    calls: list[int] = []
    original = function.backward

    def counting(ctx: object, *grads: object) -> object:
        calls.append(1)
        return original(ctx, *grads)

    monkeypatch.setattr(function, "backward", staticmethod(counting))
    return calls


def chain(
    graph: Graph, product: ChannelProduct, layer: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> tuple[Callable[..., tuple[Tensor, Tensor]], tuple[Tensor, ...]]:
    """Two layers whose weights make features and radial weights: energy and its slope by v."""
    generator = torch.Generator().manual_seed(5)
    channels = 3

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    vectors = normal(graph.edge_index.shape[1], 3)
    table, matrix = normal(product.components, channels), normal(1, len(product.paths) * channels)
    atoms = graph.numbers.shape[0]

    def run(table: Tensor, matrix: Tensor, *, first_only: bool = False) -> tuple[Tensor, Tensor]:
        leaf = vectors.clone().requires_grad_()
        angles = harmonics(leaf, 2)
        radial = torch.tanh(leaf[graph.pair_edges[0]].square().sum(-1, keepdim=True)) @ matrix
        sent = table.expand(atoms, -1, -1)
        summed = layer(sent, angles, radial)
        if not first_only:
            narrow = torch.tanh(summed[..., : product.components, :]) * table
            summed = layer(narrow, angles, radial)
        energy = summed.square().sum()
        (slope,) = torch.autograd.grad(energy, leaf, create_graph=True)
        return energy, slope

    return run, (table.requires_grad_(), matrix.requires_grad_())


@pytest.mark.usefixtures("compiled")
def test_forces_of_one_layer_do_not_ask_for_the_slope_of_the_features(monkeypatch) -> None:
    calls = counted(monkeypatch, convolution._Branch)
    inputs = make_inputs("natural", 3)
    run, leaves = chain(inputs.graph, inputs.product, inputs.convolve)
    energy, _ = run(*leaves, first_only=True)
    assert not calls
    torch.autograd.grad(energy, leaves)
    assert len(calls) == 1


def test_features_that_depend_on_the_weights_and_on_the_vectors() -> None:
    """The slopes of energy and of forces by all weights, through two layers."""
    answers = []
    inputs = make_inputs("natural", 3)
    for layer in (inputs.convolve, inputs.formula):
        run, leaves = chain(inputs.graph, inputs.product, layer)
        energy, slope = run(*leaves)
        total = energy + slope.square().sum()
        answers.append([energy, slope, *torch.autograd.grad(total, leaves)])
    found, expected = ([part.detach() for part in parts] for parts in answers)
    assert_same(found, expected, 1e-11)


def test_only_what_is_asked_for_gets_a_slope() -> None:
    """One input at a time has a gradient; the others are constants."""
    inputs = make_inputs("natural", 7)
    expected = derivatives(inputs.formula, inputs.tensors, 1)[1:]
    along = torch.randn(
        inputs.convolve(*inputs.tensors).shape,
        generator=torch.Generator().manual_seed(12),
        dtype=torch.float64,
    )
    for place in range(3):
        tensors = list(inputs.tensors)
        tensors[place] = tensors[place].clone().requires_grad_()
        value = inputs.convolve(*tensors)
        (slope,) = torch.autograd.grad((along * value).sum(), tensors[place])
        assert_same([slope], [expected[place]], 1e-12)
    assert not inputs.convolve(*inputs.tensors).requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_a_graph_of_derivatives(mode) -> None:
    inputs = make_inputs("natural", 7)
    expected = inputs.convolve(*inputs.tensors)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs.tensors]
    with mode():
        found = inputs.convolve(*leaves)
    assert not found.requires_grad
    assert torch.equal(found, expected)


def test_first_use_in_inference_mode_does_not_spoil_training() -> None:
    """Couplings are cached: tensors of that mode could never be differentiated with again."""
    channel_product.cache_clear()
    with torch.inference_mode():
        make_inputs("natural", 3)
    inputs = make_inputs("natural", 3)
    assert len(derivatives(inputs.convolve, inputs.tensors, 2)) == 8


def test_views_and_strides() -> None:
    inputs = make_inputs("natural", 7)
    expected = derivatives(inputs.convolve, inputs.tensors, 2)
    strided = [tensor.mT.contiguous().mT for tensor in inputs.tensors]
    wide = torch.zeros((*inputs.tensors[0].shape[:-1], 20), dtype=torch.float64)
    wide[..., 4:11] = inputs.tensors[0]
    strided[0] = wide[..., 4:11]
    assert not any(tensor.is_contiguous() for tensor in strided)

    def on_views(*leaves: Tensor) -> Tensor:
        views = [leaf.mT.contiguous().mT for leaf in leaves]
        return inputs.convolve(*views)

    assert torch.equal(inputs.convolve(*strided), expected[0])
    assert_same(derivatives(on_views, tuple(strided), 2), expected, 1e-13)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.usefixtures("compiled")
def test_shapes_that_do_not_fit_are_refused(place) -> None:
    """Never read past the end of anything."""
    inputs = make_inputs("natural", 7)
    tensors = list(inputs.tensors)
    tensors[place] = tensors[place][:-1]
    with pytest.raises(ValueError, match="has to be"):
        inputs.convolve(*tensors)
    with pytest.raises(ValueError, match="has to be"):
        inputs.convolve(inputs.tensors[0][:, :-1], *inputs.tensors[1:])


@pytest.mark.usefixtures("compiled")
def test_indices_of_another_kind_are_refused() -> None:
    inputs = make_inputs("natural", 7)
    graph = replace(inputs.graph, pair_index=inputs.graph.pair_index.int())
    with pytest.raises(ValueError, match=r"int32.*indices int64"):
        convolve(*inputs.tensors, graph, inputs.product)


def test_mixed_precision_takes_the_plain_form() -> None:
    inputs = make_inputs("natural", 7)
    sent, angles, radial = inputs.tensors
    found = inputs.convolve(sent.float(), angles, radial)
    assert_same([found], [inputs.convolve(*inputs.tensors)], 1e-6)


@pytest.mark.usefixtures("compiled")
def test_threads_give_the_same_bits() -> None:
    """Each sum belongs to one thread."""
    rng = np.random.default_rng(3)
    cloud = Atoms("H200", positions=rng.uniform(0, 7, (200, 3)))
    inputs = make_inputs("natural", 5, graph=to_graph(cloud, CUTOFF))
    assert inputs.graph.pair_edges.shape[1] > 2 * convolution.LEAST_ROWS
    factors = [
        torch.randn(200, inputs.product.results, 5).double(),
        inputs.tensors[1] @ inputs.product.coupling,
        inputs.tensors[2].unflatten(-1, (len(inputs.product.paths), 5)),
        inputs.tensors[0],
    ]
    answers = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            answers.append(
                [
                    convolution._differentiate(
                        inputs.product,
                        inputs.graph,
                        slot,
                        *factors[:slot],
                        *factors[slot + 1 :],
                    )
                    for slot in range(4)
                ]
            )
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*answers, strict=True))


@pytest.mark.usefixtures("compiled")
def test_kernels_are_not_left_in_the_middle() -> None:
    """What began with kernels cannot go on without them; silence would be worse."""
    inputs = make_inputs("natural", 2)
    leaves = [tensor.requires_grad_() for tensor in inputs.tensors]
    value = inputs.convolve(*leaves).sum()
    with plain_only(), pytest.raises(RuntimeError, match="kernels are not to be used"):
        torch.autograd.grad(value, leaves)


def in_factors(inputs: Inputs, width: int = 3) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
    """Random values for all that is convolved, the radial weights in two factors; and how."""
    sent, angles, radial = inputs.tensors
    generator = torch.Generator().manual_seed(13)
    hidden, matrix = (
        torch.randn((*radial.shape[:-2], *shape), generator=generator, dtype=torch.float64)
        for shape in ((radial.shape[-2], width), (width, radial.shape[-1]))
    )

    def streamed(x: Tensor, y: Tensor, h: Tensor, w: Tensor) -> Tensor:
        return convolve(x, y, Factors(h, w), inputs.graph, inputs.product)

    return (sent, angles, hidden.to(sent), matrix.to(sent)), streamed


def multiplied(inputs: Inputs) -> Callable[..., Tensor]:
    """The formula with the product of both factors."""
    return lambda x, y, h, w: inputs.formula(x, y, h @ w)


@pytest.fixture(params=[1, 3, 7, 1000], ids=lambda size: f"{size} pairs")
def block(request, monkeypatch) -> None:
    """Blocks of one pair, of some with a rest, and one that holds all."""
    monkeypatch.setattr(convolution, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("name", ["natural", "above degree 3"])
def test_factors_to_third_order(name) -> None:
    inputs = make_inputs(name, 9)
    assert inputs.graph.pair_edges.shape[1] == 7
    tensors, streamed = in_factors(inputs)
    found = derivatives(streamed, tensors, 3)
    assert_same(found, derivatives(multiplied(inputs), tensors, 3), TOLERANCES[torch.float64])
    assert all(part.abs().max() > 1e-3 for part in found)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("channels", [1, 16, 21])
def test_factors_in_single_precision(name, channels, monkeypatch) -> None:
    monkeypatch.setattr(convolution, "BLOCK", 4)
    tensors, streamed = in_factors(make_inputs(name, channels, dtype=torch.float32))
    exact = tuple(tensor.double() for tensor in tensors)
    expected = derivatives(multiplied(make_inputs(name, channels)), exact, 2)
    found = derivatives(streamed, tensors, 2)
    assert_same(found, [part.float() for part in expected], TOLERANCES[torch.float32])


def test_members_in_factors_equal_a_loop(monkeypatch) -> None:
    monkeypatch.setattr(convolution, "BLOCK", 4)
    inputs = make_inputs("both parities", 7, members=(3,))
    tensors, streamed = in_factors(inputs)
    together = derivatives(streamed, tensors, 2)
    assert_same(together, derivatives(multiplied(inputs), tensors, 2), 1e-12)
    for member in range(3):
        alone = streamed(*(tensor[member] for tensor in tensors))
        assert_same([together[0][member]], [alone], 1e-13)


def test_gradcheck_of_factors() -> None:
    graph = to_graph(Atoms("OH", positions=[[0, 0, 0], [0.9, 0.3, -0.2]]), CUTOFF)
    tensors, streamed = in_factors(make_inputs("tiny", 2, graph=graph), width=2)
    leaves = tuple(tensor.requires_grad_() for tensor in tensors)
    assert torch.autograd.gradcheck(streamed, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(streamed, leaves, fast_mode=True)


@pytest.mark.parametrize("members", [(), (2,)])
@pytest.mark.parametrize("atoms", [Atoms("O"), Atoms("OH", positions=[[0, 0, 0], [9, 0, 0]])])
def test_factors_without_edges_are_zero(atoms, members) -> None:
    inputs = make_inputs("natural", 7, members, graph=to_graph(atoms, CUTOFF))
    tensors, streamed = in_factors(inputs)
    parts = derivatives(streamed, tensors, 2)
    assert parts[0].shape == (*members, len(atoms), inputs.product.results, 7)
    assert all(not part.any() for part in parts)


def test_factors_without_kernels_are_multiplied() -> None:
    inputs = make_inputs("natural", 5)
    tensors, streamed = in_factors(inputs)
    found = derivatives(streamed, tensors, 2)
    with plain_only():
        assert_same(found, derivatives(streamed, tensors, 2), 1e-12)


@pytest.mark.usefixtures("compiled")
def test_forces_do_not_ask_for_the_slope_of_the_matrix(monkeypatch) -> None:
    calls = counted(monkeypatch, convolution._Branch)
    tensors, streamed = in_factors(make_inputs("natural", 5))
    sent, angles, hidden, matrix = (tensor.requires_grad_() for tensor in tensors)
    energy = streamed(sent, angles, hidden, matrix).square().sum()
    torch.autograd.grad(energy, (angles, hidden), create_graph=True)
    assert not calls
    torch.autograd.grad(energy, (sent, matrix))
    assert len(calls) == 2


@pytest.mark.usefixtures("compiled")
def test_factors_that_do_not_fit_are_refused() -> None:
    tensors, streamed = in_factors(make_inputs("natural", 7))
    for place in (0, 1, 2):
        short = (*tensors[:place], tensors[place][:-1], *tensors[place + 1 :])
        with pytest.raises(ValueError, match="has to be"):
            streamed(*short)


@pytest.mark.usefixtures("compiled")
def test_two_threads_give_the_same_bits_in_every_call(monkeypatch) -> None:
    """Each sum belongs to one thread; with one thread all is the same to rounding."""
    monkeypatch.setattr(convolution, "BLOCK", 200)
    rng = np.random.default_rng(3)
    cloud = Atoms("H200", positions=rng.uniform(0, 7, (200, 3)))
    inputs = make_inputs("natural", 21, graph=to_graph(cloud, CUTOFF))
    assert inputs.graph.pair_edges.shape[1] > 400
    (sent, angles, hidden, matrix), _ = in_factors(inputs)
    cotangent = torch.randn(200, inputs.product.results, 21).double()
    matrix = matrix.unflatten(-1, (len(inputs.product.paths), 21))
    factors = [cotangent, angles, hidden, matrix, sent]
    answers = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        try:
            answers.append(
                [
                    convolution._differentiate(
                        inputs.product, inputs.graph, slot, *factors[:slot], *factors[slot + 1 :]
                    )
                    for slot in range(5)
                ]
            )
        finally:
            torch.set_num_threads(1)
    assert_same(answers[1], answers[0], 1e-12)
    assert all(torch.equal(one, two) for one, two in zip(*answers[1:], strict=True))
