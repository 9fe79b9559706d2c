"""Noise of known size in labels is what minimising the joint likelihood finds."""

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.blocks.reference import Baseline
from surefoot.blocks.tensors import exponential, to_matrix
from surefoot.data.convert import to_graph
from surefoot.distributions.densities import Normal, VectorNormal
from surefoot.graph import Graph, Targets, collate
from surefoot.heads.mean_variance import MeanVariance
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.prediction import Output
from surefoot.train.loss import LossSettings, loss_terms, total_loss
from surefoot.train.step import differentiate

NOISE = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)  # eV/Å, along three axes
ENERGY_NOISE = 0.7  # eV
CUTOFF = 4.0


def whitened(rng: np.random.Generator, count: int, size: int) -> Tensor:
    """Vectors whose second moments are those of a standard normal exactly, not on average."""
    values = rng.normal(size=(count, size))
    moments = values.T @ values / count
    return torch.as_tensor(values @ np.linalg.inv(np.linalg.cholesky(moments)).T)


def label(graph: Graph, energy: Tensor, forces: Tensor) -> Targets:
    count = graph.charge.shape[0]
    every = torch.ones(count, dtype=torch.bool)
    return Targets(
        energy=energy,
        forces=forces,
        stress=torch.zeros((count, 3, 3), dtype=torch.float64),
        has_energy=every,
        has_forces=every,
        has_stress=~every,
        weight=torch.ones(count, dtype=torch.float64),
        fixed=torch.zeros(graph.numbers.shape[0], dtype=torch.bool),
        group=torch.arange(count),
    )


@pytest.mark.parametrize(
    ("weight", "weighting", "ratio"),
    [(1.0, "likelihood", 1.0), (100.0, "likelihood", 1.0), (100.0, "residual", 10.0)],
)
def test_known_noise_is_recovered_at_any_weight(weight, weighting, ratio, rng) -> None:
    """Within 1 %; with the weight on the residual alone σ is √weight too large, as published.

    The covariance stands in a frame of its own; its free numbers are those the head has.
    """
    count = 100
    graph = collate([to_graph(Atoms("O"), CUTOFF)] * count)
    frame = torch.as_tensor(Rotation.random(random_state=rng).as_matrix())
    forces = whitened(rng, count, 3) * NOISE @ frame.T
    energy = ENERGY_NOISE * whitened(rng, count, 1)[:, 0]
    targets = label(graph, energy, forces)
    settings = LossSettings(
        energy=weight,
        forces=weight,
        energy_rule="nll",
        forces_rule="nll",
        weighting=weighting,
    )
    # ln σ_E², s and the five components of Q
    free = torch.zeros(7, dtype=torch.float64, requires_grad=True)

    def output() -> Output:
        whitening = (-0.5 * free[1]).exp() * exponential(-0.5 * to_matrix(free[2:]))
        return Output(
            energy=Normal(torch.zeros(count).double(), free[0].expand(count)),
            forces=VectorNormal(
                torch.zeros((count, 3), dtype=torch.float64),
                whitening.expand(count, 3, 3),
                (3 * free[1]).expand(count),
            ),
            stress=None,
            features=None,
        )

    def closure() -> Tensor:
        minimiser.zero_grad()
        terms = loss_terms(output(), graph, targets, settings, torch.ones(count).double())
        loss = total_loss(terms, settings)
        loss.backward()
        return loss

    minimiser = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")
    minimiser.step(closure)  # type: ignore[arg-type]
    found = output()
    assert isinstance(found.forces, VectorNormal)
    sizes = torch.linalg.eigvalsh(found.forces.variance[0].detach()).sqrt()
    assert (sizes / NOISE).tolist() == pytest.approx([ratio] * 3, rel=0.01)
    energy_size = float(found.energy.variance[0].detach().sqrt())
    assert energy_size / ENERGY_NOISE == pytest.approx(ratio, rel=0.01)
    expected = ratio**2 * frame @ torch.diag(NOISE**2) @ frame.T
    torch.testing.assert_close(found.forces.variance[0].detach(), expected, rtol=0.02, atol=1e-3)


def noisy_molecules(
    potential: Potential, weights: Weights, rng: np.random.Generator
) -> tuple[Graph, Targets, Tensor]:
    """Carbon monoxide in random orientations, forces with more noise along the bond than across."""
    axis = Rotation.random(300, random_state=rng).apply([0.0, 0.0, 1.0])
    graph = collate([to_graph(Atoms("CO", positions=[[0, 0, 0], 1.15 * v]), CUTOFF) for v in axis])
    output = potential(weights, graph)
    assert output.forces is not None
    bonds = torch.as_tensor(axis).repeat_interleave(2, 0)
    noise = whitened(rng, len(axis), 6).reshape(-1, 3)
    along = (noise * bonds).sum(-1, keepdim=True) * bonds
    forces = output.forces.mean.detach() + 0.1 * noise + 0.2 * along
    energy = output.energy.mean.detach() + ENERGY_NOISE * whitened(rng, len(axis), 1)[:, 0]
    return graph, label(graph, energy, forces), bonds


@pytest.mark.parametrize("weight", [1.0, 100.0])
@pytest.mark.parametrize(
    ("covariance", "along_bond", "across_bond"),
    [("equivariant", 0.3, 0.1), ("isotropic", *[(0.11 / 3) ** 0.5] * 2)],
)
def test_noise_along_a_bond_is_found_in_any_orientation(
    covariance, along_bond, across_bond, weight, rng
) -> None:
    """Weights that judge are fitted to a frozen potential: σ = 0.3 along, 0.1 across the bond.

    At any weight of the likelihoods; what can not tell directions finds the root mean square.
    """
    potential = Potential(
        model=Schnet(name="schnet", cutoff=CUTOFF, features=6, interactions=1, gaussians=6),
        head=MeanVariance(width=4, covariance=covariance),
        baseline=Baseline(elements=(6, 8), energies=(0.0, 0.0), scale=2.0, neighbors=1.0),
    )
    weights = potential.init(1, torch.float64)
    graph, targets, bonds = noisy_molecules(potential, weights, rng)
    settings = LossSettings(energy_rule="nll", forces_rule="nll", energy=weight, forces=weight)
    typed, importance = potential.assign(graph), torch.ones(300, dtype=torch.float64)
    judges = {
        name: value.requires_grad_()
        for name, value in weights.items()
        if name.startswith(("head.variance.", "head.covariance."))
    }
    fixed = {name: value for name, value in weights.items() if name not in judges}

    def closure() -> float:
        terms, gradients = differentiate(
            potential, settings, judges, typed, targets, importance, fixed=fixed
        )
        for name, gradient in gradients.items():
            judges[name].grad = gradient
        return float(terms["total"])

    minimiser = torch.optim.LBFGS(list(judges.values()), max_iter=60, line_search_fn="strong_wolfe")
    minimiser.step(closure)
    found = potential(fixed | judges, graph)
    assert isinstance(found.forces, VectorNormal)
    matrices = found.forces.variance.detach()
    along = (bonds.unsqueeze(-2) @ matrices @ bonds.unsqueeze(-1)).flatten()
    across = (matrices.diagonal(dim1=-2, dim2=-1).sum(-1) - along) / 2
    # 300 vectors per atom are whitened as a whole, and seen along their own bonds each.
    assert float(along.sqrt().mean()) == pytest.approx(along_bond, rel=0.06)
    assert float(across.sqrt().mean()) == pytest.approx(across_bond, rel=0.06)
    sizes = found.energy.variance.detach().sqrt()
    assert sizes.tolist() == pytest.approx([ENERGY_NOISE] * 300, rel=0.01)
