"""Layouts, paths of a product, and equivariant linear maps against a loop over atoms."""

import math

import pytest
import torch
from torch import Tensor

from surefoot.blocks.angular import clebsch_gordan
from surefoot.blocks.couplings import Irrep, Irreps, parse_irreps
from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.products import (
    Block,
    arrange,
    channel_product,
    init_mix,
    init_mix_species,
    mix,
    mix_species,
)
from surefoot.graph import find_kinds

SPECIES = torch.tensor([2, 0, 2, 3, 0, 0])  # 1 is absent
KINDS = 4
COPIES = (2, 1, 3)


def irreps(text: str) -> Irreps:
    return tuple(irrep for _, irrep in parse_irreps(text))


INPUTS = irreps("0e + 1o + 2e")
BLOCKS = arrange(INPUTS, COPIES)
RESULTS = irreps("0e + 1o + 3o")  # 3o has no input, 2e is dropped
WIDTHS = (5, 4)


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def loop(x: Tensor, weights: Weights) -> Tensor:
    """y[i, m, c'] = Σ_{copies k, channels c} x[i, m, k, c] W[k c, c'] / √inputs, atom by atom."""
    rows = []
    for atom in x:
        parts = []
        for irrep in RESULTS:
            part = torch.zeros(irrep.dim, WIDTHS[1], dtype=x.dtype)
            for block in BLOCKS:
                if block.irrep == irrep:
                    matrix = weights[str(irrep)].reshape(block.copies, WIDTHS[0], WIDTHS[1])
                    for m in range(irrep.dim):
                        for copy in range(block.copies):
                            row = atom[block.start + m * block.copies + copy]
                            part[m] += row @ matrix[copy]
                    part /= math.sqrt(block.copies * WIDTHS[0])
            parts.append(part)
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def test_arrange() -> None:
    first, second, third = BLOCKS
    assert first == Block(INPUTS[0], 0, 2)
    assert second == Block(INPUTS[1], 2, 1)
    assert third == Block(INPUTS[2], 5, 3)
    assert BLOCKS[-1].stop == 20
    assert [block.start for block in arrange(INPUTS)] == [0, 1, 4]
    with pytest.raises(ValueError, match="zip"):
        arrange(INPUTS, (1, 2))


def test_paths_of_a_product() -> None:
    """Those that the triangle and the parities allow, by result, then features, then harmonics."""
    product = channel_product(irreps("0e + 1o"), irreps("0e + 1o + 2e"), irreps("0e + 1o + 1e"))
    scalar, vector, second, pseudo = Irrep(0, 1), Irrep(1, -1), Irrep(2, 1), Irrep(1, 1)
    assert product.paths == (
        (scalar, scalar, scalar),
        (vector, vector, scalar),
        (scalar, vector, vector),
        (vector, scalar, vector),
        (vector, second, vector),
        (vector, vector, pseudo),
    )
    assert product.blocks == (Block(scalar, 0, 2), Block(vector, 2, 3), Block(pseudo, 11, 1))
    assert (product.components, product.results) == (4, 14)


def test_table_and_couplings_of_a_product() -> None:
    """Every result is reached once; each path's columns are its coupling."""
    product = channel_product(irreps("0e + 2e"), irreps("0e + 1o + 2e"), irreps("0e + 2e + 1e"))
    reached = [
        first + m * stride
        for _, _, first, stride, outputs, _ in product.table.tolist()
        for m in range(outputs)
    ]
    assert sorted(reached) == list(range(product.results))
    for (one, two, three), row in zip(product.paths, product.table.tolist(), strict=True):
        start, inputs, _, _, outputs, entry = row
        assert (inputs, outputs, start) == (one.dim, three.dim, 0 if one.degree == 0 else 1)
        columns = product.coupling[:, entry : entry + inputs * outputs]
        tensor = columns.reshape(-1, outputs, inputs)
        first = two.degree**2  # the harmonics are all of natural parity
        cg = clebsch_gordan(one.degree, two.degree, three.degree)
        expected = torch.zeros_like(tensor)
        expected[first : first + two.dim] = math.sqrt(three.dim) * cg.permute(1, 2, 0)
        torch.testing.assert_close(tensor, expected, rtol=1e-15, atol=1e-15)


def test_no_way_to_a_result() -> None:
    product = channel_product(irreps("0e"), irreps("0e"), irreps("1o"))
    assert product.paths == ()
    assert product.results == 0
    assert product.coupling.shape == (1, 0)


def test_degrees_that_are_not_built() -> None:
    """The kernels keep 23 components on the stack."""
    assert channel_product(irreps("11o"), irreps("0e"), irreps("11o")).results == 23
    for features, harmonics in (("12e", "0e"), ("11o", "11o"), ("0e", "12e")):
        with pytest.raises(ValueError, match=r"degree 12 of a product is not built; .* is 11"):
            channel_product(irreps(features), irreps(harmonics), irreps("12e"))


def test_fresh_weights(generator) -> None:
    weights = init_mix(generator, BLOCKS, RESULTS, WIDTHS)
    assert {name: tuple(w.shape) for name, w in weights.items()} == {"0e": (10, 4), "1o": (5, 4)}
    large = init_mix(generator, arrange(INPUTS), INPUTS, (40, 60))
    assert all(abs(float(w.std()) - 1) < 0.05 and w.dtype == torch.float64 for w in large.values())
    kinds = init_mix_species(generator, BLOCKS, RESULTS, KINDS, WIDTHS)
    assert {name: tuple(w.shape) for name, w in kinds.items()} == {
        "0e": (KINDS, 10, 4),
        "1o": (KINDS, 5, 4),
    }
    assert not torch.equal(kinds["0e"][0], kinds["0e"][1])


def test_mix_equals_a_loop(generator) -> None:
    weights = init_mix(generator, BLOCKS, RESULTS, WIDTHS)
    x = random(generator, 6, 20, 5)
    found = mix(x, weights, BLOCKS, RESULTS)
    torch.testing.assert_close(found, loop(x, weights), rtol=1e-13, atol=1e-13)
    assert not found[:, 4:].any()  # no input for 3o
    assert found[:, :4].abs().min() > 0


def test_a_matrix_that_is_missing_is_not_taken_for_zero(generator) -> None:
    weights = init_mix_species(generator, BLOCKS, RESULTS, KINDS, WIDTHS)
    x, species = random(generator, 6, 20, 5), find_kinds(SPECIES)
    del weights["1o"]
    with pytest.raises(KeyError, match="1o"):
        mix_species(x, weights, BLOCKS, RESULTS, species)
    with pytest.raises(KeyError, match="1o"):
        mix(x, {name: w[0] for name, w in weights.items()}, BLOCKS, RESULTS)


def test_results_in_another_order(generator) -> None:
    weights = init_mix(generator, BLOCKS, RESULTS, WIDTHS)
    x = random(generator, 6, 20, 5)
    found = mix(x, weights, BLOCKS, RESULTS)
    turned = mix(x, weights, BLOCKS, RESULTS[::-1])
    assert torch.equal(turned, torch.cat([found[:, 4:], found[:, 1:4], found[:, :1]], 1))
    assert torch.equal(mix(x, weights, BLOCKS, RESULTS[1:2]), found[:, 1:4])


def test_unit_variance_stays(generator) -> None:
    weights = init_mix(generator, BLOCKS, INPUTS, (30, 30))
    found = mix(random(generator, 300, 20, 30), weights, BLOCKS, INPUTS)
    assert float(found.std()) == pytest.approx(1, abs=0.05)


def test_mix_species_equals_a_loop(generator) -> None:
    weights = init_mix_species(generator, BLOCKS, RESULTS, KINDS, WIDTHS)
    x = random(generator, 6, 20, 5)
    expected = torch.cat(
        [
            loop(x[atom : atom + 1], {name: w[kind] for name, w in weights.items()})
            for atom, kind in enumerate(SPECIES.tolist())
        ]
    )
    found = mix_species(x, weights, BLOCKS, RESULTS, find_kinds(SPECIES))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_one_species(generator) -> None:
    weights = init_mix_species(generator, BLOCKS, RESULTS, 1, WIDTHS)
    x = random(generator, 6, 20, 5)
    found = mix_species(x, weights, BLOCKS, RESULTS, find_kinds(0 * SPECIES))
    assert torch.equal(found, mix(x, {n: w[0] for n, w in weights.items()}, BLOCKS, RESULTS))


def test_members_equal_a_loop(generator) -> None:
    members = [init_mix_species(generator, BLOCKS, RESULTS, KINDS, WIDTHS) for _ in range(3)]
    x = random(generator, 3, 6, 20, 5)
    species = find_kinds(SPECIES)
    together = mix_species(x, stack(members), BLOCKS, RESULTS, species)
    for index, weights in enumerate(members):
        alone = mix_species(x[index], weights, BLOCKS, RESULTS, species)
        torch.testing.assert_close(together[index], alone, rtol=1e-13, atol=1e-13)
        own = {name: w[2] for name, w in weights.items()}
        same = {name: w[:, 2] for name, w in stack(members).items()}
        torch.testing.assert_close(
            mix(x, same, BLOCKS, RESULTS)[index],
            mix(x[index], own, BLOCKS, RESULTS),
            rtol=1e-13,
            atol=1e-13,
        )


def test_gradients_to_second_order(generator) -> None:
    weights = init_mix_species(generator, BLOCKS, RESULTS, KINDS, WIDTHS)
    names = list(weights)
    leaves = [random(generator, 6, 20, 5), *weights.values()]
    segments = find_kinds(SPECIES)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return mix_species(x, dict(zip(names, values, strict=True)), BLOCKS, RESULTS, segments)

    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)
    run(*leaves).sum().backward()
    slope = leaves[1].grad
    assert slope is not None
    assert slope.abs().amax((1, 2)).gt(0).tolist() == [True, False, True, True]


def test_different_products_have_different_names() -> None:
    """Also where the irreps in which they differ couple to nothing."""
    angular, results = irreps("0e + 1o"), irreps("0e + 1o")
    some = [
        channel_product(irreps(features), angular, results)
        for features in ("0e + 1o", "0e + 1o + 2e", "0e + 1o + 2e + 3o", "0e + 1o + 3o")
    ]
    assert len({product.name for product in some}) == len(some)
    again = channel_product.__wrapped__(irreps("0e + 1o"), angular, results)
    assert again.name == some[0].name
