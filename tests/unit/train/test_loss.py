from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import multivariate_normal, norm
from torch import Tensor

from surefoot.data.convert import Sample
from surefoot.distributions.densities import HUBER_WIDTH, Normal, Point, VectorNormal
from surefoot.graph import (
    Features,
    Geometry,
    Graph,
    Targets,
    Width,
    collate,
    collate_targets,
    find_kinds,
)
from surefoot.heads import Head
from surefoot.heads.categorical import Categorical
from surefoot.heads.histogram import ErrorHistograms
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.heads.sphere import Sphere
from surefoot.prediction import Output
from surefoot.train.loss import LossSettings, Warmup, loss_terms, require_rules, total_loss

SETTINGS = LossSettings(energy=2.0, forces=3.0, stress=5.0)


def batch_of(samples: list[Sample]) -> tuple[Graph, Targets]:
    return collate([s.graph for s in samples]), collate_targets([s.targets for s in samples])


def output_of(graph: Graph, generator: torch.Generator, members: tuple[int, ...] = ()) -> Output:
    """Random energies, forces and stress; no features are needed for a loss."""
    atoms, graphs = graph.numbers.shape[0], graph.charge.shape[0]
    edges = graph.edge_index.shape[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn((*members, *shape), generator=generator, dtype=torch.float64)

    geometry = Geometry(
        graph=graph,
        kinds=find_kinds(graph.numbers),
        vectors=torch.zeros(edges, 3),
        lengths=torch.ones(edges),
    )
    return Output(
        energy=Point(normal(graphs)),
        forces=Point(normal(atoms, 3)),
        stress=Point(normal(graphs, 3, 3)),
        features=Features(layers=(), geometry=geometry),
    )


@pytest.fixture
def batch(make_samples) -> tuple[Graph, Targets]:
    graph, targets = batch_of(make_samples(names=("ethanol", "skewed_cell", "water_cluster")))
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.5], dtype=torch.float64)
    fixed = torch.zeros_like(targets.fixed)
    fixed[[0, 5, 20]] = True
    return graph, replace(
        targets,
        weight=weight,
        fixed=fixed,
        has_energy=torch.tensor([True, True, False, True, True, True]),
        has_forces=torch.tensor([True, False, True, True, True, True]),
        has_stress=torch.tensor([False, True, False, False, True, False]),
    )


RULES = {
    "squared": lambda d: d**2,
    "absolute": abs,
    "huber": lambda d: (
        min(d**2 / (2 * HUBER_WIDTH), abs(d) - HUBER_WIDTH / 2)
        if abs(d) > HUBER_WIDTH
        else d**2 / (2 * HUBER_WIDTH)
    ),
}


def energy_by_hand(output, graph, targets, importance, rule, power) -> float:
    total = count = 0.0
    for g, size in enumerate(graph.atom_counts.tolist()):
        if targets.has_energy[g]:
            share = float(importance[g] * targets.weight[g])
            difference = float(output.energy.mean[g] - targets.energy[g]) / size**power
            total += share * RULES[rule](difference)
            count += share
    return total / count


def forces_by_hand(output, graph, targets, importance, rule) -> float:
    total = count = 0.0
    for atom, g in enumerate(graph.graph_index.tolist()):
        if targets.has_forces[g] and not targets.fixed[atom]:
            share = float(importance[g] * targets.weight[g])
            difference = (output.forces.mean[atom] - targets.forces[atom]).tolist()
            if rule == "norm":
                total += share * sum(d**2 for d in difference) ** 0.5
                count += share
            else:
                total += share * sum(RULES[rule](d) for d in difference)
                count += 3 * share
    return total / count


def stress_by_hand(output, targets, importance) -> float:
    total = count = 0.0
    for g in torch.nonzero(targets.has_stress).flatten().tolist():
        share = float(importance[g] * targets.weight[g])
        difference = output.stress.mean[g] - targets.stress[g]
        total += share * float(difference.square().sum())
        count += 9 * share
    return total / count


IMPORTANCE = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0, 0.7], dtype=torch.float64)


@pytest.mark.parametrize("rule", ["squared", "absolute", "huber"])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_energy_term_by_hand(rule, power, batch, generator) -> None:
    graph, targets = batch
    settings = LossSettings(energy_rule=rule, energy_power=power)
    output = output_of(graph, generator)
    found = loss_terms(output, graph, targets, settings, IMPORTANCE)["energy"]
    expected = energy_by_hand(output, graph, targets, IMPORTANCE, rule, power)
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rule", ["squared", "absolute", "huber", "norm"])
def test_forces_term_by_hand(rule, batch, generator) -> None:
    graph, targets = batch
    output = output_of(graph, generator)
    settings = LossSettings(forces_rule=rule)
    found = loss_terms(output, graph, targets, settings, IMPORTANCE)["forces"]
    expected = forces_by_hand(output, graph, targets, IMPORTANCE, rule)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_stress_term_and_total_by_hand(batch, generator) -> None:
    graph, targets = batch
    output = output_of(graph, generator)
    terms = loss_terms(output, graph, targets, SETTINGS, IMPORTANCE)
    expected = stress_by_hand(output, targets, IMPORTANCE)
    assert float(terms["stress"]) == pytest.approx(expected, rel=1e-12)
    total = 2 * terms["energy"] + 3 * terms["forces"] + 5 * terms["stress"]
    assert float(total_loss(terms, SETTINGS)) == pytest.approx(float(total), rel=1e-14)


def test_members_have_their_own_importance(batch, generator) -> None:
    graph, targets = batch
    output = output_of(graph, generator, members=(2,))
    importance = torch.stack([IMPORTANCE, IMPORTANCE.flip(0)])
    together = loss_terms(output, graph, targets, SETTINGS, importance)
    assert output.forces is not None
    assert output.stress is not None
    for member in range(2):
        alone = replace(
            output,
            energy=Point(output.energy.mean[member]),
            forces=Point(output.forces.mean[member]),
            stress=Point(output.stress.mean[member]),
        )
        terms = loss_terms(alone, graph, targets, SETTINGS, importance[member])
        for name, term in terms.items():
            assert float(together[name][member]) == pytest.approx(float(term), rel=1e-14)


def test_what_is_not_labelled_does_not_count(batch, generator) -> None:
    graph, targets = batch
    output = output_of(graph, generator)
    before = loss_terms(output, graph, targets, SETTINGS, IMPORTANCE)
    atom_labelled = targets.has_forces[graph.graph_index] & ~targets.fixed
    changed = replace(
        targets,
        energy=torch.where(targets.has_energy, targets.energy, 1e6),
        forces=torch.where(atom_labelled[:, None], targets.forces, 1e6),
        stress=torch.where(targets.has_stress[:, None, None], targets.stress, 1e6),
    )
    after = loss_terms(output, graph, changed, SETTINGS, IMPORTANCE)
    for name, term in before.items():
        assert float(after[name]) == pytest.approx(float(term), rel=1e-14)


def test_no_label_at_all_gives_zero(batch, generator) -> None:
    graph, targets = batch
    nothing = torch.zeros(6, dtype=torch.bool)
    bare = replace(targets, has_energy=nothing, has_forces=nothing, has_stress=nothing)
    terms = loss_terms(output_of(graph, generator), graph, bare, SETTINGS, IMPORTANCE)
    assert [float(term) for term in terms.values()] == [0.0, 0.0, 0.0]


def test_weight_zero_leaves_a_term_out(batch, generator) -> None:
    graph, targets = batch
    settings = LossSettings(energy=0.0)
    terms = loss_terms(output_of(graph, generator), graph, targets, settings, IMPORTANCE)
    assert set(terms) == {"forces"}


def test_some_weight_must_be_positive() -> None:
    with pytest.raises(ValidationError, match="nothing would be learned"):
        LossSettings(energy=0.0, forces=0.0, stress=0.0)


def with_variances(output: Output, generator: torch.Generator) -> Output:
    """The same means, with variances and covariances."""
    assert output.forces is not None
    mean = output.forces.mean
    roots = torch.randn((*mean.shape, 3), generator=generator, dtype=torch.float64)
    covariance = roots @ roots.mT + 0.1 * torch.eye(3)
    sizes = torch.randn(output.energy.mean.shape, generator=generator, dtype=torch.float64)
    return replace(
        output,
        energy=Normal(output.energy.mean, sizes),
        forces=VectorNormal(
            mean,
            torch.linalg.inv(torch.linalg.cholesky(covariance)),
            torch.logdet(covariance),
        ),
    )


LIKELIHOOD = LossSettings(energy=2.0, forces=50.0, energy_rule="nll", forces_rule="nll")


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_likelihoods_by_hand(power, batch, generator) -> None:
    """Against scipy, one energy and one atom at a time; energies in eV per atom^p."""
    graph, targets = batch
    output = with_variances(output_of(graph, generator), generator)
    settings = LIKELIHOOD.model_copy(update={"energy_power": power})
    found = loss_terms(output, graph, targets, settings, IMPORTANCE)
    total = {"energy": 0.0, "forces": 0.0}
    count = dict(total)
    share = (IMPORTANCE * targets.weight).tolist()
    for g, size in enumerate((graph.atom_counts**power).tolist()):
        if targets.has_energy[g]:
            spread = norm(output.energy.mean[g] / size, output.energy.variance[g].sqrt() / size)
            total["energy"] -= share[g] * spread.logpdf(targets.energy[g] / size)
            count["energy"] += share[g]
    for atom, g in enumerate(graph.graph_index.tolist()):
        if targets.has_forces[g] and not targets.fixed[atom]:
            spread = multivariate_normal(output.forces.mean[atom], output.forces.variance[atom])
            total["forces"] -= share[g] * spread.logpdf(targets.forces[atom])
            count["forces"] += share[g]
    for name, term in found.items():
        assert float(term) == pytest.approx(total[name] / count[name], rel=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_weighs_the_slopes_of_the_likelihood(beta, batch, generator) -> None:
    """Of each label by (det Σ)^(β/k), which has no slope of its own; 0 is the likelihood."""
    graph, targets = batch
    output = with_variances(output_of(graph, generator), generator)
    rules = {"energy_rule": "beta_nll", "forces_rule": "beta_nll", "beta": beta}
    settings = LIKELIHOOD.model_copy(update=rules)
    size = graph.atom_counts.double()
    means = (output.energy.mean.requires_grad_(), output.forces.mean.requires_grad_())
    slopes = []
    for one in (LIKELIHOOD, settings):
        loss = total_loss(loss_terms(output, graph, targets, one, IMPORTANCE), one)
        slopes.append(torch.autograd.grad(loss, means))
    (energy, forces), (weighed_energy, weighed_forces) = slopes
    expected = (output.energy.variance / size**2) ** beta
    torch.testing.assert_close(weighed_energy, expected * energy, rtol=1e-11, atol=0)
    expected = torch.linalg.det(output.forces.variance.detach()) ** (beta / 3)
    torch.testing.assert_close(weighed_forces, expected[:, None] * forces, rtol=1e-7, atol=1e-15)


def test_weighting_of_the_residual_leaves_the_determinant_alone(batch, generator) -> None:
    """½ (w rᵀΣ⁻¹r + ln det Σ), and ½ w (rᵀΣ⁻¹r + ln det Σ) by default."""
    graph, targets = batch
    output = with_variances(output_of(graph, generator), generator)
    paper = LIKELIHOOD.model_copy(update={"weighting": "residual"})
    ours, theirs = (
        total_loss(loss_terms(output, graph, targets, settings, IMPORTANCE), settings)
        for settings in (LIKELIHOOD, paper)
    )
    parts = {}
    for rule in ("mahalanobis", "log_determinant"):
        settings = LIKELIHOOD.model_copy(update={"energy_rule": rule, "forces_rule": rule})
        parts[rule] = loss_terms(output, graph, targets, settings, IMPORTANCE)
    expected = 0.5 * (
        total_loss(parts["mahalanobis"], LIKELIHOOD) + sum(parts["log_determinant"].values())
    )
    assert float(theirs) == pytest.approx(float(expected), rel=1e-12)
    constant = 0.5 * torch.tensor(2 * torch.pi).log() * (2 + 3 * 50)
    expected = 0.5 * sum(total_loss(part, LIKELIHOOD) for part in parts.values()) + constant
    assert float(ours) == pytest.approx(float(expected), rel=1e-6)


def test_warm_up_is_squared_errors_with_weights_of_its_own() -> None:
    settings = LIKELIHOOD.model_copy(
        update={"energy_power": 0.5, "warmup": Warmup(epochs=3, energy=7.0, forces=0.5)}
    )
    warm = LossSettings(energy=7.0, forces=0.5, energy_power=0.5)
    own = LIKELIHOOD.model_copy(update={"energy_power": 0.5})
    assert [settings.in_epoch(epoch) for epoch in range(5)] == [warm] * 3 + [own] * 2
    assert LIKELIHOOD.in_epoch(0) is LIKELIHOOD
    assert len({settings.in_epoch(epoch) for epoch in range(5)}) == 2  # one graph each


def test_weights_are_chosen_by_a_proper_score() -> None:
    """A β-NLL rewards small variances for nothing: it teaches, and the likelihood judges."""
    beta = LIKELIHOOD.model_copy(update={"energy_rule": "beta_nll", "forces_rule": "beta_nll"})
    assert beta.for_validation() == LIKELIHOOD
    assert SETTINGS.for_validation() is SETTINGS


CROSS = LossSettings(energy_rule="cross_entropy", forces_rule="cross_entropy")


def weights_of(head: Head) -> list[str]:
    """All of them, and one of the model."""
    weights = head.init(torch.Generator().manual_seed(0), (Width(values=4),))
    return ["model.embedding", *(f"head.{name}" for name in weights)]


@pytest.mark.parametrize(
    ("loss", "head", "sentence"),
    [
        (LossSettings(), MeanVariance(), "energy_rule: squared.*would leave its error bars"),
        (LIKELIHOOD, Scalar(), "energy_rule: nll.*set energy_rule to squared, absolute, huber"),
        (
            LIKELIHOOD.model_copy(update={"forces_rule": "squared"}),
            MeanVariance(),
            "forces_rule: squared.*set forces_rule to nll, beta_nll",
        ),
        (
            LIKELIHOOD,
            MeanVariance(covariance="none"),
            "forces_rule: nll.*set forces_rule to squared",
        ),
        (
            LIKELIHOOD.model_copy(update={"energy": 0.0}),
            MeanVariance(),
            "energy: 0.*give energy a weight",
        ),
        (LossSettings(forces=0.0), Categorical(forces="direct_lab"), "forces: 0.*give forces a"),
        (LossSettings(energy=0.0), Categorical(forces="direct_lab"), "energy: 0.*give energy a"),
        (LossSettings(energy=0.0), Categorical(), "energy: 0.*give energy a"),
        (
            LossSettings(stress=1.0),
            Sphere(forces="direct"),
            "stress: 1.*forces: direct.*give no stress; set it to 0",
        ),
        (
            LossSettings(warmup=Warmup(epochs=2, stress=3.0)),
            Sphere(forces="direct"),
            "stress: 3.*give no stress",
        ),
        (CROSS.model_copy(update={"energy_rule": "nll"}), ErrorHistograms(), "to cross_entropy,"),
        (CROSS, ErrorHistograms(), "set `start: {learn: judges}`"),
        (
            LIKELIHOOD.model_copy(update={"warmup": Warmup(epochs=5)}),
            MeanVariance(),
            "none of the 5 epochs",
        ),
    ],
)
def test_loss_and_head_must_go_together(loss, head, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        require_rules(loss, head, 5, weights_of(head))


def test_a_warm_up_of_what_judges_is_refused() -> None:
    """Squared errors teach it nothing."""
    loss = LIKELIHOOD.model_copy(update={"warmup": Warmup(epochs=2)})
    head = MeanVariance()
    judging = tuple(f"head.{prefix}" for prefix in head.judging())
    judges = [name for name in weights_of(head) if name.startswith(judging)]
    with pytest.raises(ValueError, match=r"epochs: 2.*leave the warm-up out"):
        require_rules(loss, head, 5, judges)
    require_rules(loss, head, 5, weights_of(head))
    require_rules(loss, head, 5, [])  # of a posterior that is made without a step
    require_rules(LIKELIHOOD, head, 5, judges)


@pytest.mark.parametrize(
    ("loss", "head"),
    [
        (LossSettings(forces_rule="norm"), Scalar()),
        (LossSettings(energy=0.0), Scalar()),
        (LIKELIHOOD, MeanVariance()),
        (
            LIKELIHOOD.model_copy(update={"energy_rule": "beta_nll", "warmup": Warmup(epochs=4)}),
            MeanVariance(covariance="isotropic"),
        ),
        (LossSettings(energy_rule="nll"), MeanVariance(covariance="none")),
    ],
)
def test_pairs_that_go_together(loss, head) -> None:
    require_rules(loss, head, 5, weights_of(head))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"weighting": "residual"}, "no rule is nll"),
        ({"warmup": {"epochs": 2, "energy": 0, "forces": 0}}, "warm-up are all 0"),
        ({"weighting": "none"}, "weighting"),
    ],
)
def test_settings_that_say_nothing(wrong, sentence) -> None:
    with pytest.raises(ValidationError, match=sentence):
        LossSettings(**wrong)
