import pytest
import torch

from surefoot.blocks.dense import unstack
from surefoot.blocks.reference import Baseline
from surefoot.data.batches import join
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.train.loss import LossSettings, loss_terms, total_loss
from surefoot.train.validate import judge

POTENTIAL = Potential(
    model=Schnet(name="schnet", cutoff=3.0, features=5, interactions=1, gaussians=5),
    head=Scalar(),
    baseline=Baseline(elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=1.0, neighbors=6.0),
)
LOSS = LossSettings(energy=1.0, forces=2.0)


@pytest.fixture
def samples(make_samples):
    return make_samples(names=("ethanol",), copies=5, cutoff=3.0)


JUDGES = torch.tensor(
    [[True, True, False, False, False], [False, True, True, False, False]], dtype=torch.bool
)


def test_every_member_is_judged_by_its_own_samples(samples) -> None:
    members = POTENTIAL.init_members(0, 2, torch.float64)
    verdict = judge(POTENTIAL, LOSS, members, samples, JUDGES)
    assert verdict is not None
    energy_errors, force_errors = [], []
    for index, weights in enumerate(unstack(members)):
        batch = join(samples, torch.nonzero(JUDGES[index]).flatten().numpy())
        output = POTENTIAL(weights, batch.graph)
        assert output.forces is not None
        terms = loss_terms(
            output, batch.graph, batch.targets, LOSS, torch.ones(2, dtype=torch.float64)
        )
        expected = float(total_loss(terms, LOSS).detach())
        assert float(verdict.scores[index]) == pytest.approx(expected, rel=1e-12)
        energy = output.energy.mean.detach()
        energy_errors.append((energy - batch.targets.energy).abs() / 9)
        force_errors.append((output.forces.mean - batch.targets.forces).abs())
        alone = judge(POTENTIAL, LOSS, weights, samples, JUDGES[index])
        assert alone is not None
        assert alone.scores.shape == ()
        assert float(alone.scores) == pytest.approx(expected, rel=1e-12)
    assert verdict.errors == pytest.approx(
        {
            "valid_energy_mae": float(torch.stack(energy_errors).mean()),
            "valid_forces_mae": float(torch.stack(force_errors).mean()),
        }
    )


def test_member_without_judges_has_no_verdict(samples) -> None:
    members = POTENTIAL.init_members(0, 2, torch.float64)
    table = JUDGES.clone()
    table[1] = False
    assert judge(POTENTIAL, LOSS, members, samples, table) is None


def test_energies_alone_can_judge(samples) -> None:
    verdict = judge(
        POTENTIAL, LossSettings(forces=0.0), POTENTIAL.init(0, torch.float64), samples, JUDGES[0]
    )
    assert verdict is not None
    assert set(verdict.errors) == {"valid_energy_mae"}
