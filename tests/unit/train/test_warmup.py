"""Squared errors first: what is forgotten at the change of the loss, and what a restart keeps."""

from dataclasses import replace

import pytest
import torch

from surefoot.blocks.reference import Baseline
from surefoot.data.batches import BatchLimits
from surefoot.heads.mean_variance import MeanVariance
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.train import fit as room
from surefoot.train.adamw import AdamW
from surefoot.train.fit import Roles, Task, TrainSettings, fit
from surefoot.train.loss import LossSettings, Warmup
from surefoot.train.schedule import Plateau, ScheduleSettings
from surefoot.train.state import State, fresh_state, restore_state

POTENTIAL = Potential(
    model=Schnet(name="schnet", cutoff=3.0, features=5, interactions=1, gaussians=5),
    head=MeanVariance(),
    baseline=Baseline(elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=1.0, neighbors=6.0),
)
WARM = 2
LOSS = LossSettings(
    energy_rule="nll", forces_rule="nll", forces=5.0, warmup=Warmup(epochs=WARM, energy=3.0)
)
SQUARED = LossSettings(energy=3.0)


@pytest.fixture
def task(make_samples) -> Task:
    learn = torch.ones((2, 6), dtype=torch.float64)
    learn[:, 4:] = 0
    return Task(
        potential=POTENTIAL,
        loss=LOSS,
        settings=TrainSettings(
            epochs=4,
            batch=BatchLimits(graphs=4),
            learning_rate=1e-2,
            precision="float64",
            schedule=ScheduleSettings(name="plateau", warmup_steps=3, patience=1),
        ),
        samples=make_samples(names=("ethanol",), copies=6, cutoff=3.0),
        roles=Roles(learn=learn, judge=learn == 0),
    )


def begin() -> State:
    weights = POTENTIAL.init_members(0, 2, torch.float64)
    step = AdamW(weight_decay=0.0, amsgrad=True, clip=10.0)
    return fresh_state(weights, moments=step.fresh(weights))


def run(task: Task, state: State, epochs: int) -> None:
    settings = task.settings.model_copy(update={"epochs": epochs})
    assert fit(replace(task, settings=settings), state)


def test_the_warm_up_is_a_training_with_squared_errors(task) -> None:
    warm, plain = begin(), begin()
    run(task, warm, WARM)
    run(replace(task, loss=SQUARED), plain, WARM)
    for name, value in plain.averages.items():
        assert torch.equal(warm.averages[name], value)
        assert torch.equal(warm.best[name], plain.best[name])
    judges = [n for n in plain.weights if n.startswith(("head.variance", "head.covariance"))]
    fresh = begin().weights
    assert judges
    assert all(torch.equal(warm.weights[name], fresh[name]) for name in judges)


def test_scores_and_slopes_of_the_warm_up_are_forgotten(task) -> None:
    state = begin()
    run(task, state, WARM)
    assert bool(state.best_scores.isinf().all())
    assert state.plateau == Plateau()
    assert state.began == state.step == WARM
    assert not any(bool(value.any()) for kind in state.moments.values() for value in kind.values())
    before = {name: value.clone() for name, value in state.weights.items()}
    best = {name: value.clone() for name, value in state.best.items()}
    run(task, state, WARM + 1)
    # One step, the first of a new warm-up of the rate: AdamW moves each weight by that much.
    moved = max(float((state.weights[n] - before[n]).abs().max()) for n in before)
    assert moved == pytest.approx(1e-2 / 3, rel=1e-3)
    assert bool(state.best_scores.isfinite().all())
    assert not all(torch.equal(state.best[name], best[name]) for name in best)
    assert float(state.history[-1]["train_forces"]) != float(state.history[-2]["train_forces"])


def test_patience_waits_for_the_loss_itself(task, monkeypatch) -> None:
    """Whatever validations of squared errors say; afterwards it ends the run."""
    monkeypatch.setattr(room, "observe", lambda plateau, *_: replace(plateau, stale=1))
    settings = task.settings.model_copy(update={"patience": 1, "epochs": 9})
    loss = LOSS.model_copy(update={"warmup": Warmup(epochs=4)})
    state = begin()
    assert fit(replace(task, settings=settings, loss=loss), state)
    assert state.epoch == 5


@pytest.mark.parametrize("epochs", [1, WARM, 3])
def test_a_restart_is_the_uninterrupted_run(epochs, task) -> None:
    whole, state = begin(), begin()
    run(task, whole, 4)
    run(task, state, epochs)
    again = restore_state(state.tree(), state.header())
    run(task, again, 4)
    for name, value in whole.tree().items():
        assert torch.equal(again.tree()[name], value), name
    assert again.plateau == whole.plateau
