import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from surefoot.blocks.dense import Weights, cast, stack, unstack
from surefoot.blocks.reference import Baseline
from surefoot.graph import collate, collate_targets
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.train.loss import LossSettings
from surefoot.train.step import (
    clip_gradients,
    loss_gradients,
    shared_gradients,
    usual_norm,
)

LOSS = LossSettings(energy=1.0, forces=2.0, stress=0.5)


@pytest.fixture
def potential() -> Potential:
    return Potential(
        model=Schnet(name="schnet", cutoff=4.0, features=6, interactions=2, gaussians=5),
        head=Scalar(),
        baseline=Baseline(
            elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=0.7, neighbors=9.0
        ),
    )


@pytest.fixture
def batch(make_samples):
    """Molecules, a cell with stress and a slab without: masks of all kinds meet in one batch."""
    samples = make_samples()
    return collate([s.graph for s in samples]), collate_targets([s.targets for s in samples])


def importance_of(members: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return 0.2 + torch.rand((*members, 6), generator=generator, dtype=torch.float64)


def test_gradients_equal_finite_differences(potential, batch, generator) -> None:
    weights = potential.init(0, torch.float64)
    importance = importance_of((), generator)
    _, gradients = loss_gradients(potential, LOSS, weights, *batch, importance)
    step = 1e-5
    for name, value in weights.items():
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        losses = []
        for sign in (1, -1):
            moved = weights | {name: value + sign * step * direction}
            terms, _ = loss_gradients(potential, LOSS, moved, *batch, importance)
            losses.append(float(terms["total"]))
        expected = (losses[0] - losses[1]) / (2 * step)
        found = float((gradients[name] * direction).sum())
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-7), name


def test_terms_add_up_to_the_total(potential, batch, generator) -> None:
    weights = potential.init(0, torch.float64)
    terms, gradients = loss_gradients(
        potential, LOSS, weights, *batch, importance_of((), generator)
    )
    total = terms["energy"] + 2 * terms["forces"] + 0.5 * terms["stress"]
    assert float(terms["total"]) == pytest.approx(float(total), rel=1e-14)
    assert not any(value.requires_grad for value in (*terms.values(), *gradients.values()))
    assert gradients.keys() == weights.keys()


def distance(one: Weights, other: Weights) -> float:
    """Largest difference over all leaves, relative to each leaf's largest entry."""
    return max(
        float((one[name] - other[name]).abs().max() / other[name].abs().max().clamp(min=1e-30))
        for name in one
    )


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_members_shared_among_threads_give_the_same_numbers(
    workers: int, dtype: torch.dtype, potential, batch, generator
) -> None:
    members = potential.init_members(5, 4, dtype)
    importance = importance_of((4,), generator)
    terms, gradients = loss_gradients(potential, LOSS, members, *batch, importance)
    with ThreadPoolExecutor(workers) as pool:
        shared_terms, shared = shared_gradients(
            loss_gradients, pool, workers, potential, LOSS, members, *batch, importance
        )
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert terms.keys() == shared_terms.keys()
    assert distance(shared_terms, terms) < tolerance
    assert gradients.keys() == shared.keys()
    assert distance(shared, gradients) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_stacked_members_equal_a_loop(dtype, tolerance, potential, batch, generator) -> None:
    """Distinct weights, distinct importance, one member that leaves graphs out."""
    members = potential.init_members(5, 3, dtype)
    importance = importance_of((3,), generator)
    importance[1, [0, 4]] = 0.0
    terms, gradients = loss_gradients(potential, LOSS, members, *batch, importance)
    for index, (weights, own) in enumerate(zip(unstack(members), unstack(gradients), strict=True)):
        alone_terms, alone = loss_gradients(potential, LOSS, weights, *batch, importance[index])
        for name, term in alone_terms.items():
            assert float(terms[name][index]) == pytest.approx(float(term), rel=tolerance)
        assert distance(own, alone) < tolerance
    first, second = unstack(gradients)[:2]
    assert distance(first, second) > 0.1


def test_float32_is_close_to_float64(potential, batch, generator) -> None:
    weights = potential.init(1, torch.float64)
    importance = importance_of((), generator)
    _, exact = loss_gradients(potential, LOSS, weights, *batch, importance)
    single = cast(weights, torch.float32)
    _, rough = loss_gradients(potential, LOSS, single, *batch, importance)
    assert {value.dtype for value in rough.values()} == {torch.float32}
    assert distance(cast(rough, torch.float64), exact) < 1e-4


def test_structures_without_volume_do_not_spoil_the_stress(potential, make_samples) -> None:
    """Their stress is not a number; nothing of that may reach a gradient."""
    samples = make_samples(names=("ethanol", "skewed_cell"), copies=1)
    graph = collate([s.graph for s in samples])
    targets = collate_targets([s.targets for s in samples])
    weights = potential.init(0, torch.float64)
    loss = LossSettings(energy=0.0, forces=0.0, stress=1.0)
    ones = torch.ones(2, dtype=torch.float64)
    terms, gradients = loss_gradients(potential, loss, weights, graph, targets, ones)
    periodic = samples[1]
    expected = loss_gradients(potential, loss, weights, periodic.graph, periodic.targets, ones[:1])
    assert float(terms["stress"]) == pytest.approx(float(expected[0]["stress"]), rel=1e-12)
    for name, value in gradients.items():
        torch.testing.assert_close(value, expected[1][name], rtol=1e-10, atol=1e-14)


def test_batch_without_edges_has_gradients(potential, make_samples) -> None:
    (sample,) = make_samples(names=("far_atoms",), copies=1)
    weights = potential.init(0, torch.float64)
    loss = LossSettings(forces=0.0)
    _, gradients = loss_gradients(
        potential, loss, weights, sample.graph, sample.targets, torch.ones(1, dtype=torch.float64)
    )
    assert gradients["model.embedding"].abs().max() > 0
    assert all(bool(value.isfinite().all()) for value in gradients.values())


def test_weights_are_not_changed(potential, batch, generator) -> None:
    weights = potential.init(0, torch.float64)
    before = {name: value.clone() for name, value in weights.items()}
    loss_gradients(potential, LOSS, weights, *batch, importance_of((), generator))
    for name, value in weights.items():
        assert torch.equal(value, before[name])
        assert not value.requires_grad


def norm_of(tree: Weights) -> float:
    return float(sum(value.double().square().sum() for value in tree.values())) ** 0.5


def clip(tree: Weights, usual: float, limit: float) -> Weights:
    return clip_gradients(tree, torch.tensor(usual, dtype=torch.float64), limit, stacked=False)


def test_clip_scales_only_what_is_too_long(generator) -> None:
    tree = {
        "a": torch.randn((3, 2), generator=generator, dtype=torch.float64),
        "b": torch.randn(4, generator=generator, dtype=torch.float64),
    }
    usual = 0.25 * norm_of(tree)
    clipped = clip(tree, usual, 2.0)
    assert norm_of(clipped) == pytest.approx(2 * usual, rel=1e-12)
    assert distance(clipped, {name: 0.5 * value for name, value in tree.items()}) < 1e-12
    assert distance(clip(tree, usual, 8.0), tree) == 0
    assert distance(clip(tree, math.inf, 8.0), tree) == 0


def test_what_is_usual_is_the_root_of_the_running_mean_square(generator) -> None:
    """Without the bias of the start, per member; at the start anything is usual."""
    trees = [
        {"a": torch.randn((2, 3, 2), generator=generator).double(), "b": torch.ones(2, 4)}
        for _ in range(3)
    ]
    mean = {name: torch.zeros_like(value) for name, value in trees[0].items()}
    for step in (0, 1, 5):  # as long as there was no gradient
        assert usual_norm(mean, step, 0.9, stacked=True).tolist() == [math.inf, math.inf]
    for tree in trees:
        mean = {name: 0.9 * mean[name] + 0.1 * tree[name] ** 2 for name in mean}
    weights = torch.tensor([0.81, 0.9, 1.0]).double() / (0.81 + 0.9 + 1.0)
    for member in range(2):
        norms = [norm_of({n: v[member] for n, v in tree.items()}) for tree in trees]
        expected = float((weights * torch.tensor(norms).double() ** 2).sum().sqrt())
        assert float(usual_norm(mean, 3, 0.9, stacked=True)[member]) == pytest.approx(expected)


def test_clip_does_not_depend_on_the_order_of_the_tree(generator) -> None:
    """Trees from a file come in another order, and a restart must round the same."""
    tree = {str(n): torch.randn(7, generator=generator).double() ** 5 for n in range(20)}
    turned = dict(reversed(tree.items()))
    first, second = (clip(part, 1.0, 1.0) for part in (tree, turned))
    assert all(torch.equal(first[name], second[name]) for name in tree)
    usual = [usual_norm(part, 5, 0.9, stacked=False) for part in (tree, turned)]
    assert torch.equal(*usual)


def test_clip_is_per_member(generator) -> None:
    small = {"a": torch.full((2, 2), 0.1), "b": torch.full((3,), 0.1)}
    large = {"a": torch.full((2, 2), 100.0), "b": torch.full((3,), 100.0)}
    both = stack([small, large])
    clipped = unstack(clip_gradients(both, torch.tensor([0.5, 0.25]), 2.0, stacked=True))
    assert distance(clipped[0], small) == 0
    assert norm_of(clipped[1]) == pytest.approx(0.5, rel=1e-6)
