import math

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from pydantic import ValidationError
from scipy.spatial.transform import Rotation
from torch import Tensor

from surefoot import potential as room
from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.distributions.components import Components
from surefoot.distributions.histograms import Histogram
from surefoot.distributions.masses import entropy
from surefoot.graph import Graph, collate
from surefoot.heads.categorical import LOCAL, Categorical, Composed
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.directness import find_directness, is_direct
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.predictor import Predictor, build_predictor, join_predictions
from surefoot.potential import Potential

DOUBLE = torch.float64
MODEL = Schnet(cutoff=4.0, features=8, interactions=2, gaussians=8)
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
SIZES = torch.tensor([3, 9, 6, 12] * 10)
ENERGIES = SIZES * (2.0 + torch.linspace(-0.5, 0.5, 40, dtype=DOUBLE))
COMPONENTS = torch.linspace(-4, 4, 300, dtype=DOUBLE)
A, B, LAB, FRAME = (
    Categorical(bins=24, width=8, **settings).measure(ENERGIES, SIZES, COMPONENTS, BASELINE.scale)
    for settings in (
        {"design": "A"},
        {"design": "B"},
        {"forces": "direct_lab"},
        {"design": "B", "forces": "direct_frame"},
    )
)


def potential_with(head: Categorical) -> Potential:
    return Potential(model=MODEL, head=head, baseline=BASELINE)


def random_weights(head: Categorical, seed: int = 3) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    weights = potential_with(head).init(seed, DOUBLE)
    return {
        name: value + 0.4 * torch.randn(value.shape, generator=generator, dtype=DOUBLE)
        for name, value in weights.items()
    }


def joined(structures: dict[str, Atoms], *names: str) -> Graph:
    return collate([to_graph(structures[name], 4.0) for name in names or structures])


def energies(head: Categorical, *structures: Atoms) -> Tensor:
    graph = collate([to_graph(atoms, 4.0) for atoms in structures])
    output = potential_with(head)(random_weights(head), graph, forces=False)
    return output.energy.mean.detach()


def test_bins_cover_the_labels_and_their_padding() -> None:
    for head, more in ((A, 0.0), (B, LOCAL)):
        assert head.measured is not None
        bins, per_atom = head.measured.values, ENERGIES / SIZES / BASELINE.scale
        low, high = float(per_atom.min()), float(per_atom.max())
        assert head.measured.centre == pytest.approx((low + high) / 2)
        reach = (high - low) / 2 + more
        assert bins.edges[-1] == pytest.approx(reach + 4 * bins.smoothing)
        assert bins.count == 24
        assert head.measured.outside == (0.0, 0.0)


@pytest.mark.parametrize("head", [A, B], ids=["A", "B"])
def test_a_fresh_head_decodes_to_the_centre(head, small_structures) -> None:
    """To the bit zero beyond it, so that forces are zero, too."""
    graph = joined(small_structures)
    output = potential_with(head)(potential_with(head).init(3, DOUBLE), graph)
    fixed = BASELINE.energy(graph, BASELINE.species(graph.numbers))
    assert head.measured is not None
    counts = graph.atom_counts.double()
    expected = fixed + BASELINE.scale * counts * head.measured.centre
    torch.testing.assert_close(output.energy.mean.detach(), expected, rtol=1e-14, atol=0)
    assert output.forces is not None
    assert not output.forces.mean.any()
    about = head.model_copy(update={"measured": head.measured.model_copy(update={"centre": 0.0})})
    plain = Baseline(elements=(1, 6, 8), energies=(0.0, 0.0, 0.0), scale=1.7, neighbors=12.0)
    zero = Potential(model=MODEL, head=about, baseline=plain)
    assert zero(zero.init(3, DOUBLE), graph).energy.mean.tolist() == [0.0] * 6


@pytest.mark.parametrize("head", [A, B], ids=["A", "B"])
def test_supercells_have_multiples_of_the_energy(head, small_structures) -> None:
    """T1."""
    cell = small_structures["skewed_cell"]
    one, many = energies(head, cell, cell.repeat((2, 1, 3))).tolist()
    assert many / 6 == pytest.approx(one, rel=1e-10)


def test_the_sum_of_far_molecules(small_structures) -> None:
    """T2 holds for B and fails for A by far more than rounding: its pooling is not linear."""
    first, second = small_structures["ethanol"], small_structures["water_cluster"]
    second.positions += (60.0, 0.0, 0.0)
    for head, holds in ((A, False), (B, True)):
        together, one, other = energies(head, first + second, first, second).tolist()
        assert (abs(together - one - other) < 1e-10 * abs(together)) == holds
        if not holds:
            assert abs(together - one - other) > 1e-3


def test_copies_that_err_alike_are_taken_to_err_independently(small_structures) -> None:
    """T5 fails for B: σ grows as √n. A's grows as n."""
    cell = small_structures["skewed_cell"]
    graph = collate([to_graph(atoms, 4.0) for atoms in (cell, cell.repeat((2, 1, 2)))])
    for head, growth in ((A, 4.0), (B, 2.0)):
        variance = potential_with(head)(random_weights(head), graph).energy.variance.detach()
        assert float((variance[1] / variance[0]).sqrt()) == pytest.approx(growth, rel=1e-9)


def test_composed_moments_are_sums_over_atoms(small_structures) -> None:
    graph = joined(small_structures, "ethanol", "water_cluster")
    weights = random_weights(B)
    output = potential_with(B)(weights, graph)
    assert isinstance(output.energy, Composed)
    one = B.model_copy(update={"design": "A"})  # of each atom alone: a structure of one atom
    assert B.measured is not None
    values = torch.cat([rows.values for rows in output.features.layers], dim=-1).detach()
    hidden = torch.nn.functional.silu(
        values @ weights["head.hidden.weight"] + weights["head.hidden.bias"]
    )
    logits = hidden @ weights["head.out.weight"] + weights["head.out.bias"]
    atoms = Histogram(bins=one.measured.values, logits=logits, scale=1.7)
    counts = graph.atom_counts.tolist()
    means, variances = (
        torch.stack([part.sum() for part in moment.split(counts)])
        for moment in (atoms.mean, atoms.variance)
    )
    fixed = BASELINE.energy(graph, BASELINE.species(graph.numbers))
    shift = 1.7 * B.measured.centre * graph.atom_counts
    torch.testing.assert_close(output.energy.mean.detach(), means + fixed + shift)
    torch.testing.assert_close(output.energy.variance.detach(), variances)


def test_cross_entropy_of_a_sum_is_a_likelihood_in_disguise(small_structures) -> None:
    found = Composed(torch.tensor([1.0, 2.0]), torch.tensor([0.3, -0.2]), smoothing=0.4)
    label, levels = torch.tensor([1.5, 1.0]), torch.linspace(0.0005, 0.9995, 1000)
    spread = label + 0.4 * torch.special.ndtri(levels).unsqueeze(-1)
    expected = found.score(spread, "nll").mean(0)
    torch.testing.assert_close(found.score(label, "cross_entropy"), expected, rtol=1e-3, atol=0)
    moved = found.affine(0.5, 3.0)
    torch.testing.assert_close(
        moved.score(0.5 * label + 3, "cross_entropy"),
        found.score(label, "cross_entropy") + math.log(0.5),
    )
    assert torch.equal(found.score(label, "squared"), (found.mean - label).square())


def test_the_expectation_is_bounded_by_the_bins(small_structures) -> None:
    """Why it is no default: whatever the weights, the energy per atom ends at the last centre."""
    weights = {n: 100 * v if ".out." in n else v for n, v in random_weights(A).items()}
    graph = joined(small_structures)
    output = potential_with(A)(weights, graph, forces=False)
    fixed = BASELINE.energy(graph, BASELINE.species(graph.numbers))
    assert A.measured is not None
    per_atom = (output.energy.mean.detach() - fixed) / graph.atom_counts / BASELINE.scale
    off = (per_atom - A.measured.centre).abs()
    assert float(off.max()) <= A.measured.values.edges[-1]
    assert float(off.max()) > 0.5 * A.measured.values.edges[-1]


def predictor_of(head: Categorical, members: int = 1) -> Predictor:
    draws = stack([random_weights(head, 5 + member) for member in range(members)])
    return build_predictor(potential_with(head), Ensemble(draws), Calibration(), {})


def test_forces_are_covariances_of_centres_and_slopes_of_logits(small_structures) -> None:
    """F = −N Cov_p(c, dl/dr) of design A, with logits l that a model made of positions."""
    graph = to_graph(small_structures["ethanol"], 4.0)
    potential, weights = potential_with(A), random_weights(A)
    output = potential(weights, graph, differentiable=True)
    assert isinstance(output.energy, Histogram)
    assert output.features is not None
    vectors, logits = output.features.geometry.vectors, output.energy.logits[0]
    slopes = torch.stack(
        [torch.autograd.grad(one, vectors, retain_graph=True)[0] for one in logits]
    )
    masses, centres = logits.softmax(-1).detach(), A.measured.values.centres(logits)
    about = masses * (centres - (masses * centres).sum())
    slope = 9 * BASELINE.scale * torch.einsum("k,kei->ei", about, slopes)
    expected = torch.zeros((9, 3), dtype=DOUBLE)
    expected.index_add_(0, graph.edge_index[0], slope)
    expected.index_add_(0, graph.edge_index[1], -slope)
    assert output.forces is not None
    torch.testing.assert_close(output.forces.mean.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("head", [A, B], ids=["A", "B"])
def test_what_it_says_does_not_depend_on_place_or_order(head, small_structures, rng) -> None:
    """T4: invariance of the variance, and of the entropy where there is a histogram."""
    potential, weights = potential_with(head), random_weights(head)
    said = []
    for name in ("ethanol", "skewed_cell"):
        atoms = small_structures[name]
        moved = atoms[rng.permutation(len(atoms))]
        moved.positions += (0.3, -5.0, 2.0)
        moved.rotate(73, (1, 2, -1), rotate_cell=True)
        for image in (atoms, moved):
            energy = potential(weights, to_graph(image, 4.0), forces=False).energy
            said.append(energy.variance.detach())
            if isinstance(energy, Histogram):
                said[-1] = torch.cat([said[-1], entropy(energy.probabilities.detach())])
    for before, after in (said[:2], said[2:]):
        torch.testing.assert_close(after, before, rtol=1e-9, atol=0)
    assert float((said[0] / said[2] - 1).abs().min()) > 1e-3


def test_direct_forces_miss_rotations_in_the_laboratory_and_a_potential_everywhere(
    make_samples, rng
) -> None:
    samples = make_samples(("ethanol", "atom"))
    found = {
        head.forces: find_directness(predictor_of(head), samples, rng) for head in (A, LAB, FRAME)
    }
    assert {one.structures for one in found.values()} == {2}  # an atom has no force to turn
    assert found["gradient"].rotation_error < 1e-11
    assert found["gradient"].jacobian_asymmetry < 1e-4
    assert found["direct_lab"].rotation_error > 0.1
    assert found["direct_frame"].rotation_error < 1e-9
    assert min(found[one].jacobian_asymmetry for one in ("direct_lab", "direct_frame")) > 0.05
    crystal = find_directness(predictor_of(FRAME), make_samples(("skewed_cell",)), rng)
    assert crystal.rotation_error < 1e-9
    assert [is_direct(predictor_of(head)) for head in (A, LAB, FRAME)] == [False, True, True]


@pytest.mark.parametrize("head", [LAB, FRAME], ids=["lab", "frame"])
def test_a_prediction_carries_histograms_of_components(head, small_structures, rng) -> None:
    """Along the axes, whose mean turned back to space is the mean force."""
    graph = joined(small_structures, "ethanol", "water_cluster")
    predictor = predictor_of(head)
    one = predictor(graph)
    bins = one.force_bins
    assert one.error_bins is None
    assert bins is not None
    assert bins.probabilities.shape == (21, 3, 24)
    assert (bins.axes is None) == (head is LAB)
    back = bins.mean if bins.axes is None else (bins.axes.mT @ bins.mean.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(back, one.forces.mean)
    torch.testing.assert_close(bins.along(one.forces.mean), bins.mean)
    trace = one.forces.total.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(bins.deviation.square().sum(-1), trace)
    label = torch.tensor(rng.normal(size=(21, 3)))
    alone = potential_with(head)({n: v[0] for n, v in predictor.weights.items()}, graph).forces
    density = bins.log_prob(bins.along(label)).sum(-1)
    torch.testing.assert_close(density, alone.log_prob(label).detach())
    assert 0 < float(bins.relative_entropy.mean()) < 1
    parts = [predictor(joined(small_structures, name)) for name in ("ethanol", "water_cluster")]
    together = join_predictions(parts).force_bins
    torch.testing.assert_close(together.probabilities, bins.probabilities)
    assert (together.axes is None) == (bins.axes is None)


def test_draws_with_axes_of_their_own_have_no_common_histogram(small_structures) -> None:
    graph = joined(small_structures, "ethanol")
    lab, frame = (predictor_of(head, members=3)(graph).force_bins for head in (LAB, FRAME))
    assert frame is None
    assert lab is not None
    assert lab.information is not None
    assert float(lab.information.min()) > 0
    assert predictor_of(A)(graph).force_bins is None


def test_distributions_in_a_frame_turn_with_the_structure(small_structures, rng) -> None:
    atoms, weights = small_structures["water_cluster"], random_weights(FRAME)
    turn = -Rotation.random(random_state=rng).as_matrix()
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.T
    before, after = (
        potential_with(FRAME)(weights, to_graph(one, 4.0)).forces for one in (atoms, turned)
    )
    assert isinstance(before, Components)
    assert isinstance(after, Components)
    matrix = torch.tensor(turn)
    expected = matrix @ before.variance.detach() @ matrix.mT
    torch.testing.assert_close(after.variance.detach(), expected, rtol=1e-9, atol=1e-12)
    label = torch.tensor(rng.normal(size=(12, 3)))
    torch.testing.assert_close(
        after.score(label @ matrix.mT, "nll").detach(), before.score(label, "nll").detach()
    )
    one, other = (
        found.score(target, "cross_entropy").sum(-1).detach()
        for found, target in ((before, label), (after, label @ matrix.mT))
    )
    torch.testing.assert_close(other, one, rtol=1e-9, atol=0)


def test_atoms_without_surroundings_have_no_direction(small_structures) -> None:
    graph = joined(small_structures, "atom", "far_atoms")
    output = potential_with(FRAME)(random_weights(FRAME), graph)
    assert output.forces is not None
    assert torch.equal(output.forces.mean.detach(), torch.zeros(4, 3, dtype=DOUBLE))
    line = Atoms("CO", positions=[[0, 0, 0], [0.3, 0.9, 0.6]])
    forces = potential_with(FRAME)(random_weights(FRAME), to_graph(line, 4.0)).forces
    assert forces is not None
    across = torch.linalg.cross(forces.mean.detach(), torch.tensor(line.positions[1]).expand(2, 3))
    assert float(across.abs().max()) < 1e-10
    assert float(forces.mean.detach().abs().max()) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_axes_that_an_atom_lacks_have_an_error_too(dtype, rng) -> None:
    """The middle of CO2 has none, its ends one, water's oxygen one: alike along all others."""
    weights = {name: value.to(dtype) for name, value in random_weights(FRAME).items()}
    turn = Rotation.random(random_state=rng).as_matrix()
    for name, missing in (("CO2", (3, 2, 2)), ("H2O", (2, 0, 0))):
        atoms = molecule(name)
        atoms.positions = atoms.positions @ turn.T
        forces = potential_with(FRAME)(weights, to_graph(atoms, 4.0)).forces
        assert isinstance(forces, Components)
        sizes, axes = torch.linalg.eigh(forces.variance.detach().double())
        assert float(sizes.min()) > 1e-2
        mean = forces.mean.detach().double()
        for atom, count in enumerate(missing):
            alike = (sizes[atom].diff() / sizes[atom, 1:]).abs() < 1e-4
            assert int(alike.sum()) == max(count - 1, 0)
            along = (axes[atom].mT @ mean[atom]).abs() > 1e-4
            assert int(along.sum()) <= 3 - count
        generator = torch.Generator().manual_seed(1)
        draws = torch.stack([forces.sample(generator) for _ in range(4000)]).double()
        found = torch.einsum("nai,naj->aij", draws - mean, draws - mean) / len(draws)
        torch.testing.assert_close(
            found, forces.variance.detach().double(), rtol=0.1, atol=0.05 * float(sizes.max())
        )
        aside = mean.clone()
        aside[0] += 0.5 * axes[0, :, 0]
        assert bool((forces.log_prob(aside.to(dtype)) != forces.log_prob(mean.to(dtype))).any())


@pytest.mark.parametrize("name", ["lab", "frame", "gradient"])
def test_direct_forces_cost_no_slope_of_the_energy(name, small_structures, monkeypatch) -> None:
    """Unless stress is asked for, which is one; what they are does not change with that."""
    asked, slope = [], room.energy_slope

    def counted(*given, **named):
        asked.append(given)
        return slope(*given, **named)

    monkeypatch.setattr(room, "energy_slope", counted)
    head = {"lab": LAB, "frame": FRAME, "gradient": A}[name]
    graph, weights = to_graph(small_structures["skewed_cell"], 4.0), random_weights(head)
    plain = potential_with(head)(weights, graph)
    assert len(asked) == (name == "gradient")
    more = potential_with(head)(weights, graph, stress=True)
    assert len(asked) == 1 + (name == "gradient")
    assert torch.equal(plain.forces.mean, more.forces.mean)
    leaves = {n: v.requires_grad_() for n, v in weights.items()}
    forces = potential_with(head)(leaves, graph, differentiable=True).forces
    name = "head.out.weight" if head is A else "head.direct.out.weight"
    (found,) = torch.autograd.grad(forces.mean.square().sum(), leaves[name])
    assert float(found.abs().max()) > 1e-6


def test_few_labels_are_inside_the_bins_that_were_measured_on_them(generator) -> None:
    """To the extremes, whatever they become as targets: one in a hundred may be outside."""
    for encoding in ("one_hot", "two_hot", "hl_gauss"):
        for count in (20, 150, 199):
            energies = 1.7 * torch.randn(count, generator=generator, dtype=DOUBLE) - 3
            sizes, forces = (
                torch.full((count,), 3),
                torch.randn(count, generator=generator).double(),
            )
            head = Categorical(bins=24, encoding=encoding, forces="direct_lab")
            measured = head.measure(energies, sizes, forces, 0.31).measured
            assert measured is not None
            assert measured.outside == (0.0, 0.0)


def test_direct_forces_of_a_batch_are_those_of_its_structures(small_structures) -> None:
    for head in (LAB, FRAME):
        potential, weights = potential_with(head), random_weights(head)
        graph = joined(small_structures)
        together = potential(weights, graph).forces
        assert together is not None
        apart = [potential(weights, to_graph(a, 4.0)).forces for a in small_structures.values()]
        expected = torch.cat([one.mean.detach() for one in apart if one is not None])
        torch.testing.assert_close(together.mean.detach(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("head", [A, B, LAB, FRAME], ids=["A", "B", "lab", "frame"])
@pytest.mark.parametrize("shared", [False, True], ids=["stacked", "on one model"])
def test_members_equal_a_loop(head, shared, small_structures) -> None:
    graph, potential = joined(small_structures), potential_with(head)
    trees = [random_weights(head, seed) for seed in range(3)]
    if shared:
        model = {n: v for n, v in trees[0].items() if n.startswith("model.")}
        trees = [tree | model for tree in trees]
        heads = stack([{n: v for n, v in t.items() if n.startswith("head.")} for t in trees])
        weights = model | heads
    else:
        weights = stack(trees)
    together = potential(weights, graph)
    for index, tree in enumerate(trees):
        alone = potential(tree, graph)
        for name in ("energy", "forces"):
            stacked, single = getattr(together, name), getattr(alone, name)
            torch.testing.assert_close(stacked.mean[index], single.mean, rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(
                stacked.variance[index], single.variance, rtol=1e-9, atol=1e-11
            )


def test_scores_of_members_take_one_label_for_all(small_structures) -> None:
    graph = joined(small_structures, "ethanol")
    weights = stack([random_weights(LAB, seed) for seed in range(3)])
    output = potential_with(LAB)(weights, graph)
    energy = output.energy.score(torch.tensor([-20.0], dtype=DOUBLE), "cross_entropy")
    assert output.forces is not None
    forces = output.forces.score(torch.zeros((9, 3), dtype=DOUBLE), "cross_entropy")
    assert energy.shape == (3, 1)
    assert forces.shape == (3, 9, 3)


def test_components_have_a_density(generator) -> None:
    """Along one axis at a time: the others stay where they are."""
    bins = LAB.measured.forces
    logits = torch.randn((3, bins.count), generator=generator, dtype=DOUBLE)
    frame = torch.linalg.qr(torch.randn((3, 3), generator=generator, dtype=DOUBLE))[0]
    found = Components(bins=bins, logits=logits, frames=frame, scale=1.3, shift=0.1)
    place = found.mean
    for axis in range(3):
        steps = torch.linspace(-12, 12, 40_001, dtype=DOUBLE)
        line = place + steps[:, None] * frame[axis]
        many = Components(
            bins=bins,
            logits=logits.expand(len(line), -1, -1),
            frames=frame.expand(len(line), -1, -1),
            scale=1.3,
            shift=0.1,
        )
        total = float(many.log_prob(line).exp().sum() * (steps[1] - steps[0]))
        others = [k for k in range(3) if k != axis]
        apart = Components(bins=bins, logits=logits, scale=1.3)
        local = frame @ (place - 0.1)
        scores = apart.score(local, "nll")
        own = Histogram(bins=bins, logits=logits, scale=1.3).log_prob(local)
        assert float(own.sum()) == pytest.approx(-float(scores))
        assert total == pytest.approx(float(own[others].sum().exp()), rel=2e-3)


def test_bad_input_is_one_sentence(small_structures) -> None:
    none, plain = torch.zeros(0, dtype=DOUBLE), Categorical(bins=24)
    with pytest.raises(ValueError, match="learns from energies, and no training frame has one"):
        plain.measure(none, none, COMPONENTS, 1.0)
    with pytest.raises(ValueError, match=r"no training frame has any; choose .*gradient"):
        Categorical(bins=24, forces="direct_lab").measure(ENERGIES, SIZES, none, 1.0)
    with pytest.raises(ValueError, match="all the same"):
        plain.measure(2.0 * SIZES, SIZES, COMPONENTS, 1.0)
    narrow = Categorical(bins=24, range=(1.9, 2.1))
    with pytest.raises(ValueError, match=r"do not cover the energies per atom.* % of 40 lie"):
        narrow.measure(ENERGIES, SIZES, COMPONENTS, 1.0)
    wrong = torch.where(torch.arange(40) < 2, torch.inf, ENERGIES)
    with pytest.raises(ValueError, match="2 of 40 training energies are not finite"):
        plain.measure(wrong, SIZES, COMPONENTS, 1.0)
    with pytest.raises(ValueError, match="all padding"):
        Categorical(bins=6).measure(ENERGIES, SIZES, COMPONENTS, 1.0)
    with pytest.raises(ValueError, match="measured on training labels"):
        potential_with(plain)(random_weights(plain), joined(small_structures, "ethanol"))
    zeros = torch.zeros(9, 3, dtype=DOUBLE)
    output = potential_with(LAB)(random_weights(LAB), joined(small_structures, "ethanol"))
    with pytest.raises(ValueError, match="log_determinant scores a normal"):
        output.forces.score(zeros, "log_determinant")


@pytest.mark.parametrize(
    "wrong", [{"design": "D"}, {"forces": "direct"}, {"ratio": 0.4}, {"bins": 1}]
)
def test_settings_that_do_not_exist(wrong) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Categorical(**wrong)


def test_saved_bins_are_read_back() -> None:
    for head in (A, B, LAB, FRAME):
        assert Categorical(**head.model_dump(mode="json")) == head
