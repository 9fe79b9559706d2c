"""The scalar head: a sum over layers, rows and graphs, and the options of its layers."""

import math
from dataclasses import replace

import pytest
import torch
from ase import Atoms
from pydantic import ValidationError
from torch import Tensor

from surefoot.blocks.dense import Weights, stack
from surefoot.data.convert import to_graph
from surefoot.graph import Features, Geometry, Rows, Width, collate, find_kinds
from surefoot.heads.scalar import Scalar
from surefoot.segments import Segments

SIZES = (6, 5, 4)
WIDTHS = tuple(map(Width, SIZES))
ATOMS = (3, 1, 2)
HIDDEN = {"every": (True, True, True), "last": (False, False, True), "none": (False,) * 3}


def make_features(generator: torch.Generator, *members: int) -> Features:
    places = [[3.0 * atom, 0, 0] for atom in range(max(ATOMS))]
    graph = collate(
        [to_graph(Atoms(f"H{count}", positions=places[:count]), 1.0) for count in ATOMS]
    )
    geometry = Geometry(
        graph=graph,
        kinds=find_kinds(torch.zeros(sum(ATOMS), dtype=torch.int64)),
        vectors=torch.zeros((*members, 0, 3), dtype=torch.float64),
        lengths=torch.zeros((*members, 0), dtype=torch.float64),
    )
    layers = (
        Rows(values=torch.randn((*members, 6, width), generator=generator).double())
        for width in SIZES
    )
    return Features(layers=tuple(layers), geometry=geometry)


def random_weights(head: Scalar, generator: torch.Generator) -> Weights:
    """Fresh weights, with biases that are not zero."""
    return {
        name: value + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in head.init(generator, WIDTHS).items()
    }


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def loop(head: Scalar, weights: Weights, features: Features) -> list[float]:
    """Atom by atom, layer by layer."""
    energies, start = [], 0
    for count in ATOMS:
        total = 0.0
        for atom in range(start, start + count):
            for layer, width in enumerate(SIZES):
                x, inputs = features.layers[layer].values[atom], width
                if HIDDEN[head.layers][layer]:
                    matrix = weights[f"layer{layer}.hidden.weight"]
                    divisor = math.sqrt(inputs) if head.scaling == "normal" else 1.0
                    x = silu(x @ matrix / divisor + weights[f"layer{layer}.hidden.bias"])
                    inputs = matrix.shape[1]
                divisor = math.sqrt(inputs) if head.scaling == "normal" else 1.0
                out = x @ weights[f"layer{layer}.out.weight"] / divisor
                total += float(out + weights[f"layer{layer}.out.bias"])
        energies.append(total)
        start += count
    return energies


every_kind = pytest.mark.parametrize(
    "head",
    [
        Scalar(layers=layers, scaling=scaling, activation="silu")
        for layers in ("every", "last", "none")
        for scaling in ("glorot", "normal")
    ],
    ids=lambda head: f"{head.layers} {head.scaling}",
)


@every_kind
def test_equals_a_loop(head, generator) -> None:
    features = make_features(generator)
    weights = random_weights(head, generator)
    found = head(weights, features).mean
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(loop(head, weights, features), rel=1e-12)


@every_kind
def test_members_equal_a_loop(head, generator) -> None:
    features = make_features(generator, 3)
    members = [random_weights(head, generator) for _ in range(3)]
    together = head(stack(members), features).mean
    assert together.shape == (3, len(ATOMS))
    for index, weights in enumerate(members):
        alone = replace(
            features, layers=tuple(replace(r, values=r.values[index]) for r in features.layers)
        )
        torch.testing.assert_close(together[index], head(weights, alone).mean, rtol=1e-13, atol=0)


@pytest.mark.parametrize("layers", HIDDEN)
@pytest.mark.parametrize(("hidden", "widths"), [(None, (3, 2, 2)), (7, (7, 7, 7))])
def test_which_layers_have_a_hidden_layer(layers, hidden, widths, generator) -> None:
    weights = Scalar(layers=layers, hidden=hidden).init(generator, WIDTHS)
    for layer, (there, width) in enumerate(zip(HIDDEN[layers], widths, strict=True)):
        inputs = width if there else SIZES[layer]
        assert (f"layer{layer}.hidden.weight" in weights) == there
        assert weights[f"layer{layer}.out.weight"].shape == (inputs, 1)
        if there:
            assert weights[f"layer{layer}.hidden.weight"].shape == (SIZES[layer], width)


def test_fresh_weights_of_each_scaling(generator) -> None:
    """normal: of order one, whatever the width; glorot: within its bounds."""
    widths = (Width(400),)
    normal = Scalar(scaling="normal").init(generator, widths)
    glorot = Scalar(scaling="glorot").init(generator, widths)
    assert float(normal["layer0.hidden.weight"].std()) == pytest.approx(1, abs=0.02)
    assert glorot["layer0.hidden.weight"].abs().max() <= math.sqrt(6 / 600)
    for weights in (normal, glorot):
        assert not weights["layer0.hidden.bias"].any()
        assert all(value.dtype == torch.float64 for value in weights.values())


def test_energy_is_the_linear_map_of_the_basis(generator) -> None:
    """What a last-layer posterior counts on."""
    for head in (Scalar(scaling="normal"), Scalar(layers="none")):
        features = make_features(generator)
        weights = random_weights(head, generator)
        weights |= {n: torch.zeros_like(v) for n, v in weights.items() if n.endswith("out.bias")}
        total = torch.zeros(len(ATOMS), dtype=torch.float64)
        for layer, rows in enumerate(features.layers):
            basis = head.basis(weights, rows, layer)
            divisor = math.sqrt(basis.shape[1]) if head.scaling == "normal" else 1.0
            by_row = basis @ weights[f"layer{layer}.out.weight"][:, 0] / divisor
            total += torch.stack([part.sum() for part in by_row.split(ATOMS)])
        torch.testing.assert_close(head(weights, features).mean, total, rtol=1e-12, atol=1e-12)


def test_rows_with_weights_and_atoms_of_their_own(generator) -> None:
    """Row weights of 2 double the energies; rows in pairs of an atom are summed."""
    head = Scalar()
    features = make_features(generator)
    weights = random_weights(head, generator)
    before = head(weights, features).mean
    count = sum(ATOMS)
    twice = Segments(
        index=torch.arange(count).repeat_interleave(2), offsets=2 * torch.arange(count + 1)
    )
    doubled = tuple(
        replace(
            rows,
            values=rows.values.repeat_interleave(2, 0),
            atom=twice,
            weight=torch.tensor([0.5, 1.5] * count, dtype=torch.float64),
        )
        for rows in features.layers
    )
    after = head(weights, replace(features, layers=doubled)).mean
    torch.testing.assert_close(after, 2 * before, rtol=1e-13, atol=1e-13)


def test_no_layer_is_one_sentence(generator) -> None:
    features = replace(make_features(generator), layers=())
    with pytest.raises(ValueError, match="no read-out layer"):
        Scalar()({}, features)


@pytest.mark.parametrize(
    "wrong", [{"layers": "first"}, {"scaling": "unit"}, {"hidden": 0}, {"activation": "relu"}]
)
def test_settings_that_do_not_exist(wrong) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Scalar(**wrong)
