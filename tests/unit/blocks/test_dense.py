import math

import pytest
import torch

from surefoot.blocks.dense import (
    ACTIVATIONS,
    SILU_SCALE,
    branch,
    cast,
    init_linear,
    init_network,
    init_table,
    linear,
    lookup,
    network,
    shifted_softplus,
    stack,
    under,
    unstack,
)


def test_linear_is_a_product_and_a_bias() -> None:
    weights = {
        "weight": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        "bias": torch.tensor([0.5, -0.5]),
    }
    x = torch.tensor([[1.0, 0.0, -1.0]])
    assert linear(x, weights).tolist() == [[-3.5, -4.5]]
    assert linear(x, {"weight": weights["weight"]}).tolist() == [[-4.0, -4.0]]


@pytest.mark.parametrize("shared_input", [False, True])
def test_stacked_members_equal_a_loop(shared_input, generator) -> None:
    members = [init_linear(generator, 3, 4) for _ in range(5)]
    for member in members:
        member["bias"] = torch.randn(4, generator=generator, dtype=torch.float64)
    shape = (7, 3) if shared_input else (5, 7, 3)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    together = linear(x, stack(members))
    for index, member in enumerate(members):
        alone = linear(x if shared_input else x[index], member)
        torch.testing.assert_close(together[index], alone, rtol=1e-14, atol=1e-14)


def test_lookup_with_and_without_members(generator) -> None:
    tables = torch.stack([init_table(generator, 4, 2) for _ in range(3)])
    species = torch.tensor([3, 0, 3])
    assert torch.equal(lookup(tables[0], species), tables[0][species])
    assert torch.equal(lookup(tables, species), tables[:, species])


def test_glorot_bounds_and_zero_biases(generator) -> None:
    weights = init_linear(generator, 30, 50)
    bound = math.sqrt(6 / 80)
    assert weights["weight"].abs().max() <= bound
    assert float(weights["weight"].std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert float(weights["weight"].mean()) == pytest.approx(0, abs=0.02)
    assert not weights["bias"].any()
    assert "bias" not in init_linear(generator, 3, 5, bias=False)


def test_only_the_generator_decides() -> None:
    before = torch.get_rng_state()
    first, second = (init_linear(torch.Generator().manual_seed(3), 4, 4) for _ in range(2))
    assert torch.equal(first["weight"], second["weight"])
    other = init_linear(torch.Generator().manual_seed(4), 4, 4)
    assert not torch.equal(first["weight"], other["weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_shifted_softplus() -> None:
    x = torch.tensor([0.0, 1.0, -60.0, 60.0], dtype=torch.float64)
    expected = [0.0, math.log(1 + math.e) - math.log(2), -math.log(2), 60 - math.log(2)]
    assert shifted_softplus(x).tolist() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_smooth_to_second_order(name, generator) -> None:
    x = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ACTIVATIONS[name], x)
    assert torch.autograd.gradgradcheck(ACTIVATIONS[name], x)
    assert ACTIVATIONS[name](torch.zeros(1)).tolist() == [0.0]


def test_branch_undoes_under_and_minds_the_dot() -> None:
    one, other = torch.ones(1), torch.zeros(1)
    tree = under("layer1", {"weight": one}) | under("layer10", {"weight": other})
    assert branch(tree, "layer1") == {"weight": one}
    assert branch(tree, "layer10") == {"weight": other}
    assert branch(tree, "layer") == {}


def test_unstack_undoes_stack(generator) -> None:
    members = [init_linear(generator, 2, 3) for _ in range(3)]
    for before, after in zip(members, unstack(stack(members)), strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_cast_changes_every_leaf(generator) -> None:
    single = cast(init_linear(generator, 2, 3), torch.float32)
    assert {value.dtype for value in single.values()} == {torch.float32}


def test_scale_of_silu_makes_its_mean_square_one() -> None:
    """c² ∫ silu(z)² φ(z) dz = 1, by the trapezoidal rule."""
    z = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    moment = ((SILU_SCALE * z * torch.sigmoid(z)).square() * density).sum() * (z[1] - z[0])
    assert float(moment) == pytest.approx(1, abs=1e-10)


WIDTHS = (3, 8, 5, 2)


def test_fresh_networks(generator) -> None:
    weights = init_network(generator, WIDTHS)
    assert {name: tuple(w.shape) for name, w in weights.items()} == {
        "layer0": (3, 8),
        "layer1": (8, 5),
        "layer2": (5, 2),
    }
    assert all(w.dtype == torch.float64 for w in weights.values())
    assert float(init_network(generator, (100, 100))["layer0"].std()) == pytest.approx(1, abs=0.05)


def test_network_equals_a_loop(generator) -> None:
    weights = init_network(generator, WIDTHS)
    x = torch.randn((7, 3), generator=generator, dtype=torch.float64)
    expected = []
    for row in x:
        value = row
        for index, inputs in enumerate(WIDTHS[:-1]):
            value = value @ weights[f"layer{index}"] / math.sqrt(inputs)
            if index < 2:  # the last layer is linear
                value = 1.6765324703310907 * value * torch.sigmoid(value)
        expected.append(value)
    torch.testing.assert_close(network(x, weights), torch.stack(expected), rtol=1e-13, atol=1e-13)


def test_more_than_ten_layers_keep_their_order(generator) -> None:
    weights = init_network(generator, (4,) * 13)
    x = torch.randn((5, 4), generator=generator, dtype=torch.float64)
    shuffled = {name: weights[name] for name in sorted(weights)}
    assert list(shuffled) != list(weights)
    assert torch.equal(network(x, shuffled), network(x, weights))


def test_network_without_a_hidden_layer_is_linear(generator) -> None:
    weights = init_network(generator, (4, 3))
    x = torch.randn((5, 4), generator=generator, dtype=torch.float64)
    torch.testing.assert_close(network(x, weights), x @ weights["layer0"] / 2)


def test_variance_of_a_network_stays(generator) -> None:
    x = torch.randn((400, 64), generator=generator, dtype=torch.float64)
    value = network(x, init_network(generator, (64, 256, 256, 64)))
    assert float(value.square().mean()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("shared_input", [False, True])
def test_stacked_networks_equal_a_loop(shared_input, generator) -> None:
    members = [init_network(generator, WIDTHS) for _ in range(4)]
    shape = (7, 3) if shared_input else (4, 7, 3)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    together = network(x, stack(members))
    for index, member in enumerate(members):
        alone = network(x if shared_input else x[index], member)
        torch.testing.assert_close(together[index], alone, rtol=1e-13, atol=1e-13)
