"""The mean-variance head against a loop over atoms and edges, and its limits."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from ase.build import molecule
from pydantic import ValidationError
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.blocks.tensors import to_matrix
from surefoot.data.convert import to_graph
from surefoot.distributions.densities import VectorNormal
from surefoot.graph import Features, Geometry, Rows, Width, edge_vectors, find_kinds
from surefoot.heads.mean_variance import BESSELS, POWER, MeanVariance
from surefoot.segments import Segments

CUTOFF, NEIGHBORS = 2.5, 3.0
WIDTHS = (Width(5, 2), Width(4))


def make_features(generator: torch.Generator) -> Features:
    graph = to_graph(molecule("CH3OH"), CUTOFF)
    vectors = edge_vectors(graph)
    geometry = Geometry(
        graph=graph,
        kinds=find_kinds(torch.zeros_like(graph.numbers)),
        vectors=vectors,
        lengths=vectors[graph.pair_edges[0]].norm(dim=-1),
        neighbors=NEIGHBORS,
        cutoff=CUTOFF,
    )
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    layers = (
        Rows(
            values=normal((6, width.values)),
            quadrupoles=normal((6, 5, width.quadrupoles)) if width.quadrupoles else None,
        )
        for width in WIDTHS
    )
    return Features(layers=tuple(layers), geometry=geometry)


def changed(rows: Rows, change: Callable[[Tensor], Tensor]) -> Tensor | None:
    return None if rows.quadrupoles is None else change(rows.quadrupoles)


def random_weights(head: MeanVariance, generator: torch.Generator) -> Weights:
    return {
        name: value + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in head.init(generator, WIDTHS).items()
    }


def by_hand(weights: Weights, prefix: str, values: tuple[Tensor, ...]) -> Tensor:
    """Σ_layers of silu(x W / √inputs + b) W' / √width + b'."""
    total = torch.zeros(())
    for layer, invariants in enumerate(values):
        part, x = f"{prefix}layer{layer}", invariants
        if f"{part}.hidden.weight" in weights:
            x = x @ weights[f"{part}.hidden.weight"] / math.sqrt(x.shape[0])
            x = torch.nn.functional.silu(x + weights[f"{part}.hidden.bias"])
        x = x @ weights[f"{part}.out.weight"] / math.sqrt(x.shape[0])
        total = total + x + weights[f"{part}.out.bias"]
    return total


def tensor_by_hand(weights: Weights, features: Features) -> Tensor:
    """Q of each atom: Σ_j w f (v vᵀ − 1/3) times a number, the model's part, then bounded."""
    geometry, graph = features.geometry, features.geometry.graph
    pairs = [
        by_hand(weights, "covariance.pair.", tuple(rows.values[atom] for rows in features.layers))
        for atom in range(6)
    ]
    half = pairs[0].shape[0] // 2
    tensors = torch.zeros((6, 3, 3), dtype=torch.float64)
    third = torch.eye(3, dtype=torch.float64) / 3
    for edge, (receiver, sender) in enumerate(graph.edge_index.T.tolist()):
        v = geometry.vectors[edge]
        r = float(v.norm())
        orders = math.pi * torch.arange(1, BESSELS + 1) / CUTOFF
        radial = math.sqrt(2) * torch.sin(orders.double() * r) / r / math.sqrt(BESSELS)
        kinds = pairs[receiver][:half] + pairs[sender][half:]
        hidden = torch.nn.functional.silu(kinds + radial @ weights["covariance.radial.layer0"])
        x, p = r / CUTOFF, POWER
        envelope = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1)
        envelope -= p * (p + 1) / 2 * x ** (p + 2)
        weight = float(hidden @ weights["covariance.edge"][:, 0]) / math.sqrt(half) * envelope
        unit = v / r
        tensors[receiver] += weight * math.sqrt(7.5) * (torch.outer(unit, unit) - third)
    tensors /= math.sqrt(NEIGHBORS)
    first = features.layers[0]
    for atom in range(6 if "covariance.gates0.layer0.out.weight" in weights else 0):
        gates = by_hand(weights, "covariance.gates0.", (first.values[atom],))
        for channel, gate in enumerate(gates):
            tensors[atom] += gate / math.sqrt(2) * to_matrix(first.quadrupoles[atom, :, channel])
    norm = tensors.square().sum((-1, -2), keepdim=True)
    return tensors / (1 + norm / 5.0**2).sqrt()


@pytest.fixture
def head() -> MeanVariance:
    return MeanVariance(activation="silu", scaling="normal", width=3)


def test_energy_variance_is_the_sum_over_atoms(head, generator) -> None:
    features, weights = make_features(generator), random_weights(head, generator)
    by_atom = [
        by_hand(weights, "variance.", tuple(rows.values[atom] for rows in features.layers)).exp()
        for atom in range(6)
    ]
    found = head(weights, features).variance
    torch.testing.assert_close(found, torch.stack(by_atom).sum(0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("anisotropy", ["features", "own"])
def test_covariance_equals_a_loop_over_edges(anisotropy, generator) -> None:
    head = MeanVariance(activation="silu", scaling="normal", width=3, anisotropy=anisotropy)
    features, weights = make_features(generator), random_weights(head, generator)
    assert any("gates" in name for name in weights) == (anisotropy == "features")
    scale = 1.7
    mean = torch.randn((6, 3), generator=generator, dtype=torch.float64)
    forces = head.force_distribution(weights, features, mean, scale)
    tensor = tensor_by_hand(weights, features)
    assert float(tensor.abs().max()) > 0.05
    for atom in range(6):
        values = tuple(rows.values[atom] for rows in features.layers)
        size = by_hand(weights, "covariance.", values)
        logarithm = size * torch.eye(3, dtype=torch.float64) + tensor[atom]
        expected = scale**2 * torch.matrix_exp(logarithm)
        torch.testing.assert_close(forces.variance[atom], expected, rtol=1e-4, atol=1e-9)
    assert torch.equal(forces.mean, mean)


def test_fresh_gates_are_shut_and_leave_the_other_weights_alone(generator) -> None:
    """Features of degree 2 change nothing before they have been learned from."""
    features, mean = make_features(generator), torch.zeros((6, 3), dtype=torch.float64)
    fresh, plain = (
        MeanVariance(anisotropy=kind).init(torch.Generator().manual_seed(4), WIDTHS)
        for kind in ("features", "own")
    )
    assert all(torch.equal(fresh[name], value) for name, value in plain.items())
    both = [
        MeanVariance(anisotropy=kind).force_distribution(weights, features, mean, 1.0).variance
        for kind, weights in (("features", fresh), ("own", plain))
    ]
    assert torch.equal(*both)


def test_cholesky_has_the_entries_of_a_lower_triangle(generator) -> None:
    head = MeanVariance(covariance="cholesky", activation="silu", scaling="normal", width=3)
    features, weights = make_features(generator), random_weights(head, generator)
    mean = torch.zeros((6, 3), dtype=torch.float64)
    forces = head.force_distribution(weights, features, mean, 2.0)
    for atom in range(6):
        values = tuple(rows.values[atom] for rows in features.layers)
        entries = by_hand(weights, "covariance.", values)
        lower = torch.diag((0.5 * entries[:3]).exp())
        lower[1, 0], lower[2, 0], lower[2, 1] = entries[3:]
        expected = 4 * lower @ lower.T
        torch.testing.assert_close(forces.variance[atom], expected, rtol=1e-4, atol=1e-9)


def test_rows_of_an_atom_add_up(head, generator) -> None:
    """Rows in pairs with weights of one half say what one row says."""
    features, weights = make_features(generator), random_weights(head, generator)
    index = torch.arange(6).repeat_interleave(2)
    twice = Segments(index=index, offsets=2 * torch.arange(7))
    halves = torch.full((12,), 0.5, dtype=torch.float64)
    doubled = tuple(
        replace(
            rows,
            values=rows.values.repeat_interleave(2, 0),
            quadrupoles=changed(rows, lambda q: q.repeat_interleave(2, 0)),
            atom=twice,
            weight=halves,
        )
        for rows in features.layers
    )
    other = replace(features, layers=doubled)
    torch.testing.assert_close(head(weights, other).variance, head(weights, features).variance)
    mean = torch.zeros((6, 3), dtype=torch.float64)
    before, after = (head.force_distribution(weights, it, mean, 1.0) for it in (features, other))
    torch.testing.assert_close(after.variance, before.variance)


@pytest.mark.parametrize("bias", [-1e3, 1e3])
def test_variances_stay_between_floor_and_ceiling(bias, generator) -> None:
    """However far the networks go; in single precision too, with finite slopes."""
    head = MeanVariance(floor=1e-3, ceiling=50.0)
    features, weights = make_features(generator), random_weights(head, generator)
    for name in weights:
        if name.startswith(("variance.", "covariance.layer")) and name.endswith("out.bias"):
            weights[name] = torch.full_like(weights[name], bias)
    limit = 1e-3 if bias < 0 else 50.0
    energy = head(weights, features)
    assert float(energy.variance) == pytest.approx(6 * limit**2, rel=1e-6)
    leaves = {name: value.float().requires_grad_() for name, value in weights.items()}
    single = replace(
        features,
        layers=tuple(
            replace(rows, values=rows.values.float(), quadrupoles=changed(rows, Tensor.float))
            for rows in features.layers
        ),
        geometry=replace(
            features.geometry,
            vectors=features.geometry.vectors.float(),
            lengths=features.geometry.lengths.float(),
        ),
    )
    forces = head.force_distribution(leaves, single, torch.zeros((6, 3)), 2.0)
    assert isinstance(forces, VectorNormal)
    sizes = (forces.log_determinant / 3).exp().sqrt() / 2.0
    assert sizes.tolist() == pytest.approx([limit] * 6, rel=1e-5)
    score = forces.score(torch.full((6, 3), 0.01), "nll").sum()
    slopes = torch.autograd.grad(score, list(leaves.values()), allow_unused=True)
    assert all(bool(slope.isfinite().all()) for slope in slopes if slope is not None)


def test_the_clamp_leaves_what_is_far_from_it_alone() -> None:
    head, values = MeanVariance(), torch.linspace(-15, 6, 50, dtype=torch.float64)
    moved = head._clamp(values)
    assert float((moved - values).abs().max()) < 5e-4
    assert bool((moved.diff() > 0).all())
    assert np.sqrt(math.exp(float(head._clamp(torch.tensor(-50.0))))) == pytest.approx(1e-5)


def test_what_can_be_fitted_afterwards(generator) -> None:
    for covariance, prefixes in (
        ("equivariant", ("variance", "covariance")),
        ("none", ("variance",)),
    ):
        head = MeanVariance(covariance=covariance)
        assert head.judging() == prefixes
        names = {name.split(".")[0] for name in head.init(generator, WIDTHS)}
        assert names == {"layer0", "layer1", *prefixes}


@pytest.mark.parametrize(
    "wrong",
    [
        {"anisotropy": "full"},
        {"covariance": "full"},
        {"features": "frozen"},
        {"width": 0},
        {"floor": 0},
        {"ceiling": 0.5},
    ],
)
def test_settings_that_do_not_exist(wrong) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MeanVariance(**wrong)


def test_anisotropy_belongs_to_what_turns() -> None:
    with pytest.raises(ValidationError, match="anisotropy belongs to covariance: equivariant"):
        MeanVariance(covariance="isotropic", anisotropy="own")
