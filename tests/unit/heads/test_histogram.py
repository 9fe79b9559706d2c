import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from pydantic import ValidationError
from torch import Tensor

from surefoot.blocks.dense import Weights, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.distributions.histograms import Lengths, Residuals
from surefoot.graph import Features, Graph, Rows, Width, collate
from surefoot.heads.histogram import ErrorBins, ErrorHistograms, fit_power, read_invariants
from surefoot.heads.scalar import Scalar
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.schnet import Schnet
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Calibration, build_predictor, join_predictions
from surefoot.potential import Potential
from surefoot.prediction import Output
from surefoot.segments import Segments

DOUBLE = torch.float64
MODEL = Schnet(cutoff=4.0, features=8, interactions=2, gaussians=8)
MODELS = (
    MODEL,
    Mace(cutoff=4.0, irreps="4x0e + 4x1o", max_ell=1, correlation=2, interactions=2, radial=(8,)),
    Allegro(cutoff=4.0, lmax=1, layers=2, scalars=7, tensors=4, embed_width=8, latent_width=8),
)
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
ERRORS = torch.linspace(0.01, 0.4, 40, dtype=DOUBLE)
HEAD = ErrorHistograms(system_bins=16, atom_bins=12, width=8).measure(
    ERRORS * (-1) ** torch.arange(40), torch.full((40,), 9), ERRORS, BASELINE.scale
)


def potential_with(head: Scalar) -> Potential:
    return Potential(model=MODEL, head=head, baseline=BASELINE)


def random_weights(head: Scalar, seed: int = 3, size: float = 0.3) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    weights = potential_with(head).init(seed, DOUBLE)
    return {
        name: value + size * torch.randn(value.shape, generator=generator, dtype=DOUBLE)
        for name, value in weights.items()
    }


def joined(structures: dict[str, Atoms], *names: str) -> Graph:
    chosen = names or tuple(structures)
    return collate([to_graph(structures[name], 4.0) for name in chosen])


def parts(output: Output) -> tuple[Residuals, Lengths]:
    assert isinstance(output.energy, Residuals)
    assert isinstance(output.forces, Lengths)
    return output.energy, output.forces


def deviations(output: Output) -> tuple[Tensor, Tensor]:
    """Of energies and of the lengths of forces' errors."""
    energy, forces = parts(output)
    return energy.variance.detach().sqrt(), forces.shown().mean.detach()


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_energies_and_forces_are_the_scalar_heads_to_the_bit(
    model, members, small_structures
) -> None:
    graph = joined(small_structures)
    judging, scalar = (replace(potential_with(head), model=model) for head in (HEAD, Scalar()))
    trees = [judging.init(seed, torch.float32) for seed in range(members)]
    weights = trees[0] if members == 1 else stack(trees)
    judged = judging(weights, graph, stress=True)
    plain = scalar(weights, graph, stress=True)
    assert judged.energy.spread == "residual"
    for name in ("energy", "forces", "stress"):
        one, other = getattr(judged, name).mean, getattr(plain, name).mean
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_fresh_weights_are_the_scalar_heads_and_those_that_judge() -> None:
    fresh = potential_with(HEAD).init(3, DOUBLE)
    plain = potential_with(Scalar()).init(3, DOUBLE)
    assert all(torch.equal(fresh[name], plain[name]) for name in plain)
    judging = tuple(f"head.{prefix}" for prefix in HEAD.judging())
    more = fresh.keys() - plain.keys()
    assert more == {name for name in fresh if name.startswith(judging)}
    assert len(more) == 8


def test_a_fresh_head_says_what_was_measured(small_structures) -> None:
    weights = potential_with(HEAD).init(3, DOUBLE)
    energy, forces = parts(potential_with(HEAD)(weights, joined(small_structures)))
    masses = forces.shown().probabilities
    counts = torch.bincount(forces.bins.find(ERRORS / BASELINE.scale), minlength=12).double()
    torch.testing.assert_close(masses[0], (counts + 1 / 12) / 41, rtol=1e-12, atol=0)
    assert torch.equal(masses, masses[:1].expand_as(masses))
    even = ErrorHistograms(width=4).init(torch.Generator().manual_seed(1), (Width(8),))
    assert not even["system.out.weight"].any()
    assert not even["atom.out.bias"].any()
    assert energy.mean.shape == (6,)


def test_the_loss_of_what_judges_does_not_reach_the_model(small_structures) -> None:
    potential, graph = potential_with(HEAD), joined(small_structures, "ethanol", "water_cluster")
    leaves = {n: v.requires_grad_() for n, v in random_weights(HEAD).items()}
    output = potential(leaves, graph, differentiable=True)
    energy, forces = parts(output)
    loss = energy.score(energy.mean.detach() + 0.1, "cross_entropy").sum()
    loss = loss + forces.score(forces.mean.detach() + 0.02, "cross_entropy").sum()
    slopes = torch.autograd.grad(
        loss, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    judging = tuple(f"head.{prefix}" for prefix in HEAD.judging())
    for name, slope in zip(leaves, slopes, strict=True):
        assert bool(slope.any()) == name.startswith(judging), name


def test_what_it_says_does_not_depend_on_place_or_order(small_structures, rng) -> None:
    """T4: invariance of every reported spread, and copies of a cell."""
    potential, weights = potential_with(HEAD), random_weights(HEAD)
    for name in ("ethanol", "skewed_cell"):
        atoms = small_structures[name]
        before = deviations(potential(weights, to_graph(atoms, 4.0)))
        order = rng.permutation(len(atoms))
        moved = atoms[order]
        moved.positions += (0.3, -5.0, 2.0)
        moved.rotate(73, (1, 2, -1), rotate_cell=True)
        after = deviations(potential(weights, to_graph(moved, 4.0)))
        torch.testing.assert_close(after[0], before[0], rtol=1e-9, atol=0)
        torch.testing.assert_close(after[1], before[1][order], rtol=1e-9, atol=0)
        assert float(before[1].std()) > 1e-3


def test_exact_copies_err_alike(small_structures) -> None:
    """T5: σ of n copies is n times that of one where ln N was given no say and γ = 1."""
    assert HEAD.measured is not None
    assert HEAD.measured.power == 1.0
    weights = random_weights(HEAD)
    weights["head.system.hidden.weight"][-1] = 0.0
    atoms = small_structures["skewed_cell"]
    found = [
        deviations(potential_with(HEAD)(weights, to_graph(copies, 4.0)))[0]
        for copies in (atoms, atoms.repeat((2, 1, 3)))
    ]
    assert float(found[1] / found[0]) == pytest.approx(6.0, rel=1e-9)


def test_far_fragments_do_not_change_what_is_said_of_an_atom(small_structures) -> None:
    weights, potential = random_weights(HEAD), potential_with(HEAD)
    first, second = small_structures["ethanol"], small_structures["water_cluster"]
    second.positions += (60.0, 0.0, 0.0)
    together = deviations(potential(weights, to_graph(first + second, 4.0)))[1]
    apart = deviations(potential(weights, joined(small_structures, "ethanol", "water_cluster")))[1]
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=0)


def test_pooling_equals_a_loop(generator, small_structures) -> None:
    """Mean and maximum over each structure, and ln N about its measured mean."""
    head, graph = HEAD, joined(small_structures)
    weights, potential = random_weights(HEAD), potential_with(HEAD)
    output = potential(weights, graph)
    assert output.features is not None
    values = read_invariants(output.features).detach()
    assert head.measured is not None
    energy, _ = parts(output)
    tree = {name.removeprefix("head.system."): value for name, value in weights.items()}
    for index, rows in enumerate(values.split(graph.atom_counts.tolist())):
        size = torch.tensor([math.log(len(rows)) - head.measured.size], dtype=DOUBLE)
        pooled = torch.cat([rows.mean(0), rows.max(0).values, size])
        hidden = pooled @ tree["hidden.weight"] + tree["hidden.bias"]
        logits = (hidden * torch.sigmoid(hidden)) @ tree["out.weight"] + tree["out.bias"]
        torch.testing.assert_close(energy.logits[index].detach(), logits, rtol=1e-10, atol=1e-12)


def test_rows_of_edges_are_summed_with_their_weights(small_structures) -> None:
    graph = joined(small_structures, "ethanol")
    features = potential_with(HEAD)(random_weights(HEAD), graph).features
    assert features is not None
    count = graph.numbers.shape[0]
    twice = Segments(
        index=torch.arange(count).repeat_interleave(2), offsets=2 * torch.arange(count + 1)
    )
    doubled = tuple(
        replace(
            rows,
            values=rows.values.repeat_interleave(2, 0),
            atom=twice,
            weight=torch.tensor([0.5, 1.5] * count, dtype=DOUBLE),
        )
        for rows in features.layers
    )
    found = read_invariants(replace(features, layers=doubled))
    torch.testing.assert_close(found, 2 * read_invariants(features))


@pytest.mark.parametrize("power", [0.5, 0.75, 1.0])
def test_the_power_of_the_size_is_found(power, generator) -> None:
    sizes = torch.randint(5, 100, (20_000,), generator=generator)
    errors = torch.randn(20_000, generator=generator, dtype=DOUBLE) * sizes**power
    assert fit_power(errors, sizes) == pytest.approx(power, abs=0.015)


def test_without_other_sizes_errors_grow_as_the_size() -> None:
    assert fit_power(torch.ones(30, dtype=DOUBLE), torch.full((30,), 9)) == 1.0
    assert fit_power(torch.zeros(0, dtype=DOUBLE), torch.zeros(0)) == 1.0


def learned(
    errors: Tensor, share: Tensor, features: Features, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Masses of the open bin after a fit: for atoms with large errors, and for the others.

    A judge over one invariant, which says which of two kinds an atom is.
    """
    head = ErrorHistograms(atom_bins=16, width=8)
    head = head.measure(errors[:0], errors[:0], errors, 1.0)
    assert head.measured is not None
    assert head.measured.atom is not None
    weights = {
        name: value.float().requires_grad_()
        for name, value in head.init(generator, (Width(1),)).items()
    }
    optimiser = torch.optim.Adam(list(weights.values()), lr=0.03)
    features = replace(features, layers=(Rows(values=share.float().unsqueeze(-1)),))
    label = torch.nn.functional.pad(errors.float().unsqueeze(-1), (0, 2))
    for _ in range(150):
        optimiser.zero_grad()
        found = head.force_distribution(weights, features, torch.zeros_like(label), 1.0)
        assert isinstance(found, Lengths)
        found.score(label, "cross_entropy").mean().backward()
        optimiser.step()
    last = found.shown().probabilities[:, -1].detach()
    return last[share > 0.5], last[share < 0.5]


def test_failures_are_put_into_the_open_bin(generator, small_structures) -> None:
    """Errors above the last edge: more than half of the mass for at least half of such atoms."""
    share = (torch.rand(1000, generator=generator) < 0.1).double()
    errors = 0.02 * torch.randn(1000, generator=generator, dtype=DOUBLE).abs()
    errors = torch.where(share > 0.5, 5.0 + errors, errors)
    features = potential_with(HEAD)(
        random_weights(HEAD), joined(small_structures, "ethanol"), forces=False
    ).features
    assert features is not None
    bad, good = learned(errors, share, features, generator)
    assert float((bad > 0.5).double().mean()) >= 0.5
    assert float(good.max()) < 0.1


def test_what_is_not_labelled_is_not_judged(small_structures) -> None:
    none = torch.zeros(0, dtype=DOUBLE)
    plain = ErrorHistograms(system_bins=16, atom_bins=12)
    no_energy = plain.measure(none, none, ERRORS, 1.0)
    no_forces = plain.measure(ERRORS, torch.full((40,), 9), none, 1.0)
    assert no_energy.rules["energy"] == Scalar().rules["energy"]
    assert no_energy.rules["forces"] == HEAD.rules["forces"] == ("cross_entropy",)
    graph = joined(small_structures, "ethanol")
    for head, judged in ((no_energy, "forces"), (no_forces, "energy")):
        output = potential_with(head)(random_weights(head), graph)
        spreads = {name: getattr(output, name).spread for name in ("energy", "forces")}
        assert spreads == {"energy": "none", "forces": "none"} | {judged: "residual"}


def test_bad_input_is_one_sentence(small_structures) -> None:
    head, none = ErrorHistograms(system_bins=16, atom_bins=12), torch.zeros(0, dtype=DOUBLE)
    sizes = torch.full((40,), 9)
    with pytest.raises(ValueError, match="no held-out residual"):
        head.measure(none, none, none, 1.0)
    with pytest.raises(ValueError, match="15 held-out residuals of energies are too few for 16"):
        head.measure(ERRORS[:15], sizes[:15], ERRORS, 1.0)
    with pytest.raises(ValueError, match="11 held-out residuals of forces are too few for 12"):
        head.measure(none, none, ERRORS[:11], 1.0)
    wrong = torch.where(torch.arange(40) == 3, torch.nan, ERRORS)
    with pytest.raises(ValueError, match="1 of 40 held-out residuals of energies are not finite"):
        head.measure(wrong, sizes, ERRORS, 1.0)
    with pytest.raises(ValueError, match="1 of 40 held-out errors of forces are not finite"):
        head.measure(ERRORS, sizes, wrong, 1.0)
    with pytest.raises(ValueError, match=r"no bins.*learn: judges"):
        potential_with(head)(random_weights(head), joined(small_structures, "ethanol"))
    with pytest.raises(ValidationError, match="even number"):
        ErrorHistograms(system_bins=15)
    with pytest.raises(ValidationError, match="power"):
        ErrorBins(power=0.3, size=0.0)


def test_a_prediction_carries_histograms(small_structures) -> None:
    """Averaged over members, in eV and eV/Å, joined over batches; calibration acts on σ alone."""
    trees = stack([random_weights(HEAD, seed) for seed in range(3)])
    calibration = Calibration(energy=1.3, forces=0.6, source="a test")
    graphs = [to_graph(atoms, 4.0) for atoms in small_structures.values()]
    predictor = build_predictor(potential_with(HEAD), Ensemble(trees), calibration, {})
    whole = predictor(collate(graphs))
    batches = join_predictions([predictor(graph) for graph in graphs])
    for found in (whole, batches):
        energies, errors, forces = found.energy_bins, found.error_bins, found.forces
        assert energies is not None
        assert errors is not None
        assert forces is not None
        assert forces.residual is not None
        assert forces.epistemic is None
        square = errors.deviation.square() + errors.mean.square()
        trace = forces.residual.diagonal(dim1=1, dim2=2).sum(-1) / 0.6**2
        torch.testing.assert_close(square, trace, rtol=1e-9, atol=0)
        spread = energies.deviation.square() + (energies.mean - found.energy.mean).square()
        torch.testing.assert_close(1.3**2 * spread, found.energy.total, rtol=1e-9, atol=0)
        assert errors.information is not None
        assert energies.information is None
    assert whole.error_bins is not None
    assert batches.error_bins is not None
    one, other = (bins.quantile(0.95) for bins in (whole.error_bins, batches.error_bins))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=0)
    posterior = Single(random_weights(Scalar()))
    plain = build_predictor(potential_with(Scalar()), posterior, calibration, {})
    assert plain(collate(graphs)).error_bins is None


def test_heads_that_share_a_model_equal_a_loop(small_structures) -> None:
    """Partial draws: leaves of the head have a member axis, the others none."""
    graph, potential = joined(small_structures), potential_with(HEAD)
    trees = [random_weights(HEAD, seed) for seed in range(3)]
    shared = {n: v for n, v in trees[0].items() if not n.startswith("head.")}
    heads = stack([{n: v for n, v in t.items() if n.startswith("head.")} for t in trees])
    together = potential(shared | heads, graph)
    for index, tree in enumerate(trees):
        alone = potential({**tree, **shared}, graph)
        for one, other in zip(parts(together), parts(alone), strict=True):
            torch.testing.assert_close(one.variance[index], other.variance)
            torch.testing.assert_close(one.mean[index], other.mean)


def test_saved_bins_are_read_back(small_structures, tmp_path) -> None:
    copy = ErrorHistograms(**HEAD.model_dump(mode="json"))
    assert copy == HEAD
    assert np.allclose(copy.measured.atom.edges, HEAD.measured.atom.edges, rtol=0, atol=0)
