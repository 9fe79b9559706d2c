"""The symmetric contraction against dense coupling tensors: values and derivatives."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from surefoot.blocks import contraction as module
from surefoot.blocks.contraction import Contraction, contract, contraction
from surefoot.blocks.couplings import Irreps, SymmetricCouplings, parse_irreps, symmetric_couplings
from surefoot.blocks.native import kernels, plain_only
from surefoot.blocks.native.contraction import LEAST_CHANNELS
from surefoot.graph import find_kinds

PLANS = {
    "linear": ("0e + 1o", "0e + 1o", 1),
    "pairs": ("0e + 1o + 2e", "0e + 1o", 2),
    "triples": ("0e + 1o + 2e", "0e + 1o", 3),
    "both parities": ("0e + 1o + 0o + 1e", "0e + 1o + 0o + 1e", 2),
    "four factors": ("0e + 1o", "0e + 2e", 4),
    "without a way": ("0e", "0e + 1o", 2),
}
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
SPECIES = (2, 0, 0, 3, 2)  # 1 is absent
KINDS = 4


def irreps(text: str) -> Irreps:
    return tuple(irrep for _, irrep in parse_irreps(text))


def plan_of(name: str) -> Contraction:
    inputs, outputs, correlation = PLANS[name]
    return contraction(irreps(inputs), irreps(outputs), correlation)


def dense(couplings: SymmetricCouplings) -> Tensor:
    """Symmetric tensors U (paths, dim, …, dim, 2L+1): coefficients shared among all orders."""
    order, dim = couplings.order, couplings.dim
    tensor = np.zeros((len(couplings.values),) + (dim,) * order + (couplings.output.dim,))
    for term, monomial in enumerate(couplings.monomials.tolist()):
        places = set(itertools.permutations(monomial))
        for place in places:
            tensor[(slice(None), *place)] = couplings.values[:, term] / len(places)
    return torch.from_numpy(tensor)


def formula(name: str, features: Tensor, weights: Tensor, species: Tensor) -> Tensor:
    """B[i, M, c] = Σ_orders Σ_k W[z_i, k, c] U[k, m1 … mn, M] A[i, m1, c] … A[i, mn, c] / √paths"""
    inputs, outputs, correlation = PLANS[name]
    own = weights[..., species, :, :]
    blocks, first = [], 0
    for irrep in irreps(outputs):
        block = features.new_zeros((*features.shape[:-2], irrep.dim, features.shape[-1]))
        for order in range(1, correlation + 1):
            tensor = dense(symmetric_couplings(irreps(inputs), irrep, order)).to(features)
            paths = tensor.shape[0]
            if not paths:
                continue
            value = (
                torch.einsum("km...,nimc->nick...", tensor, features.flatten(0, -4))
                if (features.dim() == 4)
                else torch.einsum("km...,imc->ick...", tensor, features)
            )
            for _ in range(order - 1):
                value = (
                    torch.einsum("nickm...,nimc->nick...", value, features)
                    if features.dim() == 4
                    else torch.einsum("ickm...,imc->ick...", value, features)
                )
            part = own[..., first : first + paths, :] / math.sqrt(paths)
            block = block + torch.einsum("...ickM,...ikc->...iMc", value, part)
            first += paths
        blocks.append(block)
    assert first == weights.shape[-2]
    return torch.cat(blocks, -2)


@dataclass(frozen=True)
class Inputs:
    """Rows of some species, and random values of features and weights."""

    name: str
    species: Tensor
    tensors: tuple[Tensor, Tensor]

    def contract(self, *tensors: Tensor) -> Tensor:
        return contract(*tensors, find_kinds(self.species), plan_of(self.name))

    def formula(self, *tensors: Tensor) -> Tensor:
        return formula(self.name, *tensors, self.species)


def make_inputs(
    name: str,
    channels: int,
    members: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
    species: tuple[int, ...] = SPECIES,
) -> Inputs:
    plan = plan_of(name)
    generator = torch.Generator().manual_seed(21)
    shapes = (len(species), plan.inputs, channels), (KINDS, plan.path_count, channels)
    tensors = (
        torch.randn((*members, *shape), generator=generator, dtype=torch.float64).to(dtype)
        for shape in shapes
    )
    return Inputs(name, torch.tensor(species, dtype=torch.int64), tuple(tensors))


def derivatives(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], orders: int
) -> list[Tensor]:
    """The value, then along random directions the slopes of each order by all inputs."""
    generator = torch.Generator().manual_seed(22)
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
        total = torch.stack([(a * part).sum() for a, part in zip(along, last, strict=True)]).sum()
        last = list(torch.autograd.grad(total, leaves, create_graph=True, materialize_grads=True))
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
def test_kernels_are_there() -> None:
    """Or all tests below would be of the plain form."""
    assert kernels(torch.zeros(1)) is not None


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("channels", [1, 7, 16, 21])
def test_formula_to_second_order(name, channels) -> None:
    inputs = make_inputs(name, channels)
    found, expected = (
        derivatives(function, inputs.tensors, 2) for function in (inputs.contract, inputs.formula)
    )
    assert_same(found, expected, TOLERANCES[torch.float64])
    assert expected[0].abs().max() > 1e-2


@pytest.mark.parametrize("name", PLANS)
def test_single_precision(name) -> None:
    inputs = make_inputs(name, 21, dtype=torch.float32)
    exact = tuple(tensor.double() for tensor in inputs.tensors)
    found = derivatives(inputs.contract, inputs.tensors, 2)
    expected = derivatives(inputs.formula, exact, 2)
    assert_same(found, [part.float() for part in expected], TOLERANCES[torch.float32])


@pytest.mark.parametrize("members", [(), (2,)])
@pytest.mark.parametrize("name", ["pairs", "triples", "both parities"])
def test_third_order(name, members) -> None:
    inputs = make_inputs(name, 9, members)
    found, expected = (
        derivatives(function, inputs.tensors, 3) for function in (inputs.contract, inputs.formula)
    )
    assert_same(found, expected, TOLERANCES[torch.float64])


def test_fourth_order() -> None:
    """Never silently zero."""
    inputs = make_inputs("triples", 1, species=(2,))
    found, expected = (
        derivatives(function, inputs.tensors, 4) for function in (inputs.contract, inputs.formula)
    )
    assert_same(found, expected, 1e-11)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_members_equal_a_loop(dtype) -> None:
    inputs = make_inputs("both parities", 7, members=(3,), dtype=dtype)
    together = derivatives(inputs.contract, inputs.tensors, 2)
    by_formula = derivatives(inputs.formula, inputs.tensors, 2)
    assert_same(together, by_formula, TOLERANCES[dtype])
    for member in range(3):
        alone = inputs.contract(*(tensor[member] for tensor in inputs.tensors))
        torch.testing.assert_close(
            together[0][member], alone, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype]
        )


@pytest.mark.parametrize("members", [(), (2,)])
@pytest.mark.parametrize("name", PLANS)
def test_plain_form_equals_the_kernels(name, members) -> None:
    inputs = make_inputs(name, 5, members)
    found = derivatives(inputs.contract, inputs.tensors, 3)
    with plain_only():
        plain = derivatives(inputs.contract, inputs.tensors, 3)
    assert_same(found, plain, TOLERANCES[torch.float64])


@pytest.mark.parametrize("members", [(), (2,)])
def test_no_rows(members) -> None:
    inputs = make_inputs("pairs", 7, members, species=())
    parts = derivatives(inputs.contract, inputs.tensors, 2)
    assert parts[0].shape == (*members, 0, 4, 7)
    assert all(not part.any() for part in parts)


def test_absent_species_get_no_slope() -> None:
    inputs = make_inputs("triples", 7)
    slope = derivatives(inputs.contract, inputs.tensors, 1)[2]
    assert slope.abs().amax((1, 2)).gt(0).tolist() == [True, False, True, True]


def test_gradcheck() -> None:
    inputs = make_inputs("pairs", 2, species=(1, 3))
    leaves = tuple(tensor.requires_grad_() for tensor in inputs.tensors)
    assert torch.autograd.gradcheck(inputs.contract, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(inputs.contract, leaves, fast_mode=True)


def counted(monkeypatch: pytest.MonkeyPatch, function: type) -> list[int]:
    """Grows by one with every backward pass of an autograd function."""
    calls: list[int] = []
    original = function.backward

    def counting(ctx: object, *grads: object) -> object:
        calls.append(1)
        return original(ctx, *grads)

    monkeypatch.setattr(function, "backward", staticmethod(counting))
    return calls


@pytest.mark.usefixtures("compiled")
def test_forces_do_not_ask_for_the_slope_of_the_table(monkeypatch) -> None:
    calls = counted(monkeypatch, module._TableBranch)
    inputs = make_inputs("triples", 7)
    features, weights = (tensor.requires_grad_() for tensor in inputs.tensors)
    energy = inputs.contract(features, weights).square().sum()
    (slope,) = torch.autograd.grad(energy, features, create_graph=True)
    assert not calls
    reference = inputs.formula(features, weights).square().sum()
    (expected,) = torch.autograd.grad(reference, features, create_graph=True)
    assert_same([slope.detach()], [expected.detach()], 1e-12)
    totals = energy + slope.square().sum(), reference + expected.square().sum()
    found, wanted = (list(torch.autograd.grad(t, (features, weights))) for t in totals)
    assert len(calls) > 0
    assert_same(found, wanted, 1e-12)


def test_features_that_depend_on_the_weights() -> None:
    """Two contractions in a row with the same weights, and the slope of forces by them."""
    inputs = make_inputs("pairs", 5)
    steps, weights = inputs.tensors
    mixing = torch.randn((4, 9), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    answers = []
    for layer in (inputs.contract, inputs.formula):
        place, table = steps.clone().requires_grad_(), weights.clone().requires_grad_()
        first = layer(torch.tanh(place) * table.mean(), table)
        second = layer(torch.tanh(mixing.T @ first) * table[0, 0], table)
        (slope,) = torch.autograd.grad(second.square().sum(), place, create_graph=True)
        total = second.sum() + slope.square().sum()
        slopes = torch.autograd.grad(total, (place, table), create_graph=True)
        last = torch.autograd.grad(sum(s.square().sum() for s in slopes), (place, table))
        answers.append([part.detach() for part in (second, slope, *slopes, *last)])
    assert_same(answers[0], answers[1], 1e-10)


def test_only_what_is_asked_for_gets_a_slope() -> None:
    """One input at a time has a gradient; the other is a constant."""
    inputs = make_inputs("triples", 7)
    expected = derivatives(inputs.formula, inputs.tensors, 1)[1:]
    along = torch.randn(
        inputs.contract(*inputs.tensors).shape,
        generator=torch.Generator().manual_seed(22),
        dtype=torch.float64,
    )
    for place in range(2):
        tensors = list(inputs.tensors)
        tensors[place] = tensors[place].clone().requires_grad_()
        (slope,) = torch.autograd.grad((along * inputs.contract(*tensors)).sum(), tensors[place])
        assert_same([slope], [expected[place]], 1e-12)
    assert not inputs.contract(*inputs.tensors).requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_a_graph_of_derivatives(mode) -> None:
    inputs = make_inputs("triples", 7)
    expected = inputs.contract(*inputs.tensors)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs.tensors]
    with mode():
        found = inputs.contract(*leaves)
    assert not found.requires_grad
    assert torch.equal(found, expected)


def test_first_use_in_inference_mode_does_not_spoil_training() -> None:
    """Couplings are cached: tensors of that mode could never be differentiated with again."""
    contraction.cache_clear()
    with torch.inference_mode():
        plan_of("pairs")
    inputs = make_inputs("pairs", 3)
    assert len(derivatives(inputs.contract, inputs.tensors, 2)) == 6


def test_views_and_strides() -> None:
    inputs = make_inputs("triples", 7)
    expected = derivatives(inputs.contract, inputs.tensors, 2)
    strided = tuple(tensor.mT.contiguous().mT for tensor in inputs.tensors)
    assert not any(tensor.is_contiguous() for tensor in strided)

    def on_views(*leaves: Tensor) -> Tensor:
        return inputs.contract(*(leaf.mT.contiguous().mT for leaf in leaves))

    assert torch.equal(inputs.contract(*strided), expected[0])
    assert_same(derivatives(on_views, strided, 2), expected, 1e-13)


def test_shapes_that_do_not_fit_are_refused() -> None:
    """Never read past the end of anything."""
    inputs = make_inputs("pairs", 7)
    features, weights = inputs.tensors
    with pytest.raises(ValueError, match=r"\(5, 8, 7\) .* have to be \(5, 9, 7\)"):
        inputs.contract(features[:, :-1], weights)
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        contract(features, weights, find_kinds(torch.full((5,), KINDS)), plan_of("pairs"))


@pytest.mark.parametrize("channels", [32, 42])
def test_threads_give_the_same_numbers(channels) -> None:
    """Threads share the channels: to the bit where no vector of channels is cut."""
    assert channels >= 2 * LEAST_CHANNELS
    inputs = make_inputs("triples", channels)
    answers = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            with torch.no_grad():
                answers.append(inputs.contract(*inputs.tensors))
            answers += derivatives(inputs.contract, inputs.tensors, 2)
        finally:
            torch.set_num_threads(1)
    half = len(answers) // 2
    assert_same(answers[:half], answers[half:], 1e-14)
    if channels == 32:
        assert torch.equal(answers[0], answers[half])


def test_every_weight_counts_as_much_as_its_neighbours() -> None:
    """Paths to one result at one order share unit variance for unit inputs and weights."""
    plan = plan_of("triples")
    columns = plan.couplings.square().sum(0)
    start = 0
    for result, order, count in plan.paths:
        inputs, outputs, _ = PLANS["triples"]
        basis = symmetric_couplings(irreps(inputs), irreps(outputs)[result], order)
        assert basis.values.shape[0] == count
        expected = torch.from_numpy(np.square(basis.values).sum((1, 2)) / count)
        torch.testing.assert_close(columns[start : start + count], expected)
        start += count
    assert start == plan.path_count
