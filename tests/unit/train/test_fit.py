import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from surefoot.blocks.dense import Weights, unstack
from surefoot.blocks.reference import Baseline
from surefoot.data.batches import BatchLimits, join, order_of_epoch, plan_batches
from surefoot.data.convert import Sample
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.train.adamw import BETAS, AdamW
from surefoot.train.checkpoint import read_tree, write_tree
from surefoot.train.fit import (
    WORTH_COMPILING,
    Roles,
    Task,
    TrainSettings,
    fit,
)
from surefoot.train.loss import LossSettings
from surefoot.train.schedule import ScheduleSettings
from surefoot.train.state import State, fresh_state, restore_state
from surefoot.train.step import clip_gradients, loss_gradients, usual_norm
from surefoot.train.validate import judge

POTENTIAL = Potential(
    model=Schnet(name="schnet", cutoff=3.0, features=5, interactions=1, gaussians=5),
    head=Scalar(),
    baseline=Baseline(elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=1.0, neighbors=6.0),
)
SETTINGS = TrainSettings(
    epochs=3,
    batch=BatchLimits(graphs=2),
    learning_rate=1e-2,
    weight_decay=1e-3,
    precision="float64",
    schedule=ScheduleSettings(warmup_steps=3),
    seed=7,
)
STEP = AdamW(weight_decay=1e-3, amsgrad=True, clip=10.0)
COUNT = 8


@pytest.fixture
def samples(make_samples) -> list[Sample]:
    return make_samples(names=("ethanol",), copies=COUNT, cutoff=3.0)


def stacked_roles(members: int = 3, seed: int = 0) -> Roles:
    """Every member learns from the first six by weights of its own, each judges others."""
    rng = np.random.default_rng(seed)
    learn = torch.tensor(rng.uniform(0.2, 2.0, (members, COUNT)))
    learn[:, 6:] = 0
    judge_table = torch.zeros((members, COUNT), dtype=torch.bool)
    judge_table[:, 6:] = True
    judge_table[0, 6] = False
    return Roles(learn=learn, judge=judge_table)


def single_roles() -> Roles:
    roles = stacked_roles()
    return Roles(learn=roles.learn[1], judge=roles.judge[1])


def make_task(samples: list[Sample], roles: Roles, **changes) -> Task:
    return Task(
        potential=POTENTIAL,
        loss=LossSettings(),
        settings=SETTINGS.model_copy(update=changes),
        samples=samples,
        roles=roles,
    )


def test_a_bound_of_adamw_is_refused_where_it_moves_nothing() -> None:
    """A posterior that brings its own step would leave it out without a word."""
    task = make_task([], single_roles(), clip_norm=3.0)
    with pytest.raises(ValueError, match=r"clip_norm: 3} bounds the steps of AdamW"):
        replace(task, step=task.mover)


def start(members: int | None = None, seed: int = 5) -> State:
    if members is None:
        weights = POTENTIAL.init(seed, torch.float64)
    else:
        weights = POTENTIAL.init_members(seed, members, torch.float64)
    return fresh_state(weights, moments=STEP.fresh(weights))


def largest_difference(one: Weights, other: Weights) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def assert_identical(one: State, other: State) -> None:
    left, right = one.tree(), other.tree()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    for state in (one, other):
        for record in state.history:
            record.pop("seconds", None)
    assert one.header() == other.header()


def test_stack_trains_as_its_members_would_alone(samples) -> None:
    roles = stacked_roles()
    together = start(members=3)
    assert fit(make_task(samples, roles), together)
    members = zip(
        unstack(together.weights), unstack(together.averages), unstack(together.best), strict=True
    )
    for index, trees in enumerate(members):
        alone = start(seed=5 + index)
        task = make_task(samples, Roles(learn=roles.learn[index], judge=roles.judge[index]))
        assert fit(task, alone)
        for found, expected in zip(trees, (alone.weights, alone.averages, alone.best), strict=True):
            assert largest_difference(found, expected) < 1e-10
        assert float(together.best_scores[index]) == pytest.approx(
            float(alone.best_scores), rel=1e-10
        )
    first, second = unstack(together.weights)[:2]
    assert largest_difference(first, second) > 0.1


def test_a_member_knows_nothing_of_the_others(samples) -> None:
    """Also where it leaves out samples that others learn from."""
    roles = stacked_roles()
    roles.learn[0, 2] = 0.0
    first, second = start(members=3), start(members=3)
    for name, value in second.weights.items():
        second.weights[name] = value.clone()
        second.weights[name][1:] += 0.1
    fit(make_task(samples, roles), first)
    others = roles.learn.clone()
    others[1:, :6] = 1.0
    changed = list(samples)
    changed[2] = replace(
        samples[2], targets=replace(samples[2].targets, energy=samples[2].targets.energy + 50.0)
    )
    fit(make_task(changed, Roles(learn=others, judge=roles.judge)), second)
    one, other = unstack(first.best)[0], unstack(second.best)[0]
    assert largest_difference(one, other) < 1e-12
    assert largest_difference(unstack(first.best)[1], unstack(second.best)[1]) > 1e-3


def stop_after(calls: int) -> Callable[[], bool]:
    """A question that is answered with yes from the given call on."""
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count >= calls

    return stop


# Three batches and one end of epoch make four questions per epoch.
@pytest.mark.parametrize("calls", [1, 3, 4, 5, 6, 8], ids=lambda calls: f"after_{calls}")
@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_stopped_saved_and_finished_equals_uninterrupted(
    calls, schedule, samples, tmp_path
) -> None:
    changes = {"schedule": ScheduleSettings(name=schedule, warmup_steps=2, patience=1, factor=0.5)}
    task = make_task(samples, stacked_roles(), **changes)
    whole = start(members=3)
    assert fit(task, whole)
    part = start(members=3)
    assert not fit(task, part, stop=stop_after(calls))
    assert part.step == calls - calls // 4
    path = tmp_path / "run.ckpt"
    write_tree(path, "checkpoint", part.tree(), {"state": part.header()})
    tree, header = read_tree(path, "checkpoint")
    resumed = restore_state(tree, header["state"])
    assert fit(task, resumed)
    assert_identical(resumed, whole)


def test_single_set_of_weights_resumes_too(samples, tmp_path) -> None:
    task = make_task(samples, single_roles())
    whole, part = start(), start()
    assert fit(task, whole)
    assert not fit(task, part, stop=stop_after(2))
    write_tree(tmp_path / "a", "checkpoint", part.tree(), {"state": part.header()})
    tree, header = read_tree(tmp_path / "a", "checkpoint")
    resumed = restore_state(tree, header["state"])
    assert fit(task, resumed)
    assert_identical(resumed, whole)


def test_a_member_that_is_left_out_of_the_first_batches_learns_all_the_same(samples) -> None:
    learn = torch.zeros((COUNT, COUNT), dtype=torch.float64)
    learn.fill_diagonal_(1.0)  # each learns from one sample alone
    roles = Roles(learn=learn, judge=torch.zeros((COUNT, COUNT), dtype=torch.bool))
    state = start(members=COUNT)
    before = {name: value.detach().clone() for name, value in state.weights.items()}
    assert fit(make_task(samples, roles, batch=BatchLimits(graphs=1)), state)
    moved = sum(
        (state.weights[name] - value).abs().flatten(1).sum(1) for name, value in before.items()
    )
    assert float(torch.as_tensor(moved).min()) > 1e-3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.usefixtures("compiling")
def test_compiled_steps_resume_to_the_bit(samples, tmp_path) -> None:
    """And they are those of uncompiled ones up to rounding."""
    task = make_task(samples, stacked_roles(4), compile="on")
    whole, part, plain = start(members=4), start(members=4), start(members=4)
    workers = 2  # of two members each, at the same time
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a failure to compile
        assert fit(task, whole, workers=workers)
        assert not fit(task, part, stop=stop_after(2), workers=workers)
        write_tree(tmp_path / "a", "checkpoint", part.tree(), {"state": part.header()})
        tree, header = read_tree(tmp_path / "a", "checkpoint")
        resumed = restore_state(tree, header["state"])
        assert fit(task, resumed, workers=workers)
    assert_identical(resumed, whole)
    fit(make_task(samples, stacked_roles(4), compile="off"), plain)
    assert 0 < largest_difference(plain.weights, whole.weights) < 1e-10


@pytest.mark.usefixtures("compiling")
def test_a_run_that_could_not_be_compiled_goes_on_uncompiled(samples, monkeypatch) -> None:
    """Also where a compiler is there by then: its steps round differently."""

    def fail(*_: object) -> None:
        raise RuntimeError("no compiler")

    calls = []
    monkeypatch.setattr("surefoot.compilation._compile", fail)
    task = make_task(samples, stacked_roles(), compile="on")
    whole, part = start(members=3), start(members=3)
    with pytest.warns(RuntimeWarning, match="no compiler"):
        assert not fit(task, part, stop=stop_after(2))
    assert part.uncompiled
    monkeypatch.setattr("surefoot.compilation._compile", lambda *given: calls.append(given))
    resumed = restore_state(part.tree(), part.header())
    assert fit(task, resumed)
    assert not calls
    fit(make_task(samples, stacked_roles(), compile="off"), whole)
    assert_identical(replace(resumed, uncompiled=False), whole)


def test_compiling_follows_from_the_task_alone(samples) -> None:
    few = make_task(samples, single_roles())  # 9 steps
    assert not few.compiles
    assert make_task(samples, single_roles(), epochs=WORTH_COMPILING // 3 + 1).compiles
    assert make_task(samples, single_roles(), compile="on").compiles
    many = make_task(samples, single_roles(), epochs=WORTH_COMPILING, compile="off")
    assert not many.compiles
    words = {"on": "on", "off": "off", "auto": "auto", True: "on", False: "off"}  # of YAML
    for given, read in words.items():
        assert TrainSettings.model_validate({"compile": given}).compile == read


def test_weights_do_not_depend_on_the_workers(samples) -> None:
    alone, shared = start(3), start(3)
    task = make_task(samples, stacked_roles())
    fit(task, alone)
    fit(task, shared, workers=2)
    assert largest_difference(alone.weights, shared.weights) < 1e-12
    again = start(3)
    fit(task, again, workers=2)
    assert_identical(shared, again)


def test_finished_run_does_nothing_more(samples) -> None:
    task = make_task(samples, single_roles())
    state = start()
    assert fit(task, state)
    before = {name: value.clone() for name, value in state.tree().items()}
    assert fit(task, state)
    assert all(torch.equal(value, before[name]) for name, value in state.tree().items())


def test_same_seed_same_weights_and_the_seed_orders_the_data(samples) -> None:
    first, second, other = start(), start(), start()
    fit(make_task(samples, single_roles()), first)
    fit(make_task(samples, single_roles()), second)
    fit(make_task(samples, single_roles(), seed=8), other)
    assert_identical(first, second)
    assert largest_difference(first.weights, other.weights) > 1e-6


def test_nobody_touches_the_global_generators(samples) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit(make_task(samples, single_roles()), start())
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_steps_are_those_of_adamw(samples) -> None:
    """Against torch's optimiser with decay on matrices only, and the running average by hand."""
    task = make_task(samples, single_roles(), schedule=ScheduleSettings(name="constant"), epochs=2)
    state = start()
    fit(task, state)
    weights = {
        name: torch.nn.Parameter(value) for name, value in POTENTIAL.init(5, torch.float64).items()
    }
    averages = {name: value.detach().clone() for name, value in weights.items()}
    optimiser = torch.optim.AdamW(
        [
            {"params": [v for v in weights.values() if v.dim() >= 2], "weight_decay": 1e-3},
            {"params": [v for v in weights.values() if v.dim() < 2], "weight_decay": 0.0},
        ],
        amsgrad=True,
        foreach=False,
    )
    step = 0
    for epoch in range(2):
        order = np.arange(6)[order_of_epoch(6, SETTINGS.seed, epoch)]
        for indices in plan_batches(samples, order, SETTINGS.batch):
            batch = join(samples, indices)
            importance = task.roles.learn[torch.as_tensor(indices)]
            _, gradients = loss_gradients(
                POTENTIAL, task.loss, dict(weights), batch.graph, batch.targets, importance
            )
            squares = {
                name: optimiser.state[value].get("exp_avg_sq", torch.zeros_like(value))
                for name, value in weights.items()
            }
            usual = usual_norm(squares, step, BETAS[1], stacked=False)
            gradients = clip_gradients(gradients, usual, SETTINGS.clip, stacked=False)
            for name, parameter in weights.items():
                parameter.grad = gradients[name]
            for group in optimiser.param_groups:
                group["lr"] = SETTINGS.learning_rate * min(1.0, (step + 1) / 100)
            optimiser.step()
            step += 1
            decay = min(SETTINGS.average, step / (9 + step))
            for name, parameter in weights.items():
                averages[name] = decay * averages[name] + (1 - decay) * parameter.detach()
    moved = {name: parameter.detach() for name, parameter in weights.items()}
    assert largest_difference(state.weights, moved) < 1e-12
    assert largest_difference(state.averages, averages) < 1e-12


def test_best_weights_are_kept_per_member(samples) -> None:
    task = make_task(samples, stacked_roles(), learning_rate=0.2, epochs=6)
    state = start(members=3)
    seen: list[tuple[torch.Tensor, Weights]] = []

    def watch(now: State) -> None:
        verdict = judge(POTENTIAL, task.loss, now.averages, samples, task.roles.judge)
        assert verdict is not None
        seen.append((verdict.scores, {n: v.clone() for n, v in now.averages.items()}))

    fit(task, state, observers=[watch])
    scores = torch.stack([score for score, _ in seen])
    best = scores.min(0)
    assert torch.equal(state.best_scores, best.values)
    assert len(set(best.indices.tolist())) > 1  # otherwise this run shows nothing
    for member, epoch in enumerate(best.indices.tolist()):
        for name, value in seen[epoch][1].items():
            assert torch.equal(state.best[name][member], value[member])
    assert [r["valid_total"] for r in state.history] == pytest.approx(scores.mean(1).tolist())


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_patience_ends_a_run_that_gains_nothing(schedule, samples) -> None:
    """Also where the plateau schedule itself loses patience sooner."""
    changes = {
        "epochs": 50,
        "patience": 4,
        "learning_rate": 1e-300,
        "weight_decay": 0.0,
        "schedule": ScheduleSettings(name=schedule, warmup_steps=0, patience=1),
    }
    state = start()
    assert fit(make_task(samples, single_roles(), **changes), state)
    assert state.epoch == 5


def test_validation_every_so_many_epochs_and_at_the_end(samples) -> None:
    state = start()
    fit(make_task(samples, single_roles(), validate_every=2, epochs=5), state)
    validated = [record["epoch"] for record in state.history if "valid_total" in record]
    assert validated == [2, 4, 5]
    assert all("train_total" in record for record in state.history)


def test_without_judges_the_last_averages_are_kept(samples) -> None:
    roles = replace(single_roles(), judge=torch.zeros(COUNT, dtype=torch.bool))
    state = start()
    fit(make_task(samples, roles), state)
    assert largest_difference(state.best, state.averages) == 0
    assert bool(torch.isinf(state.best_scores))


def test_observers_see_every_epoch(samples) -> None:
    epochs = []
    fit(
        make_task(samples, single_roles()),
        start(),
        observers=[lambda state: epochs.append((state.epoch, state.batch, state.step))],
    )
    assert epochs == [(1, 0, 3), (2, 0, 6), (3, 0, 9)]


def test_loss_that_is_not_a_number_ends_the_run(samples) -> None:
    samples[0] = replace(
        samples[0],
        targets=replace(samples[0].targets, energy=torch.tensor([torch.nan]).double()),
    )
    state = start()
    before = {name: value.clone() for name, value in state.best.items()}
    with pytest.raises(FloatingPointError, match=r"not a number in step \d.*learning_rate"):
        fit(make_task(samples, single_roles()), state)
    assert largest_difference(state.best, before) == 0


def test_a_student_learns_from_a_teacher(samples) -> None:
    """Labels from other weights of the same kind: the validation error falls."""
    teacher = POTENTIAL.init(99, torch.float64)
    labelled = []
    for sample in samples:
        output = POTENTIAL(teacher, sample.graph)
        assert output.forces is not None
        targets = replace(
            sample.targets,
            energy=output.energy.mean.detach(),
            forces=output.forces.mean.detach(),
        )
        labelled.append(replace(sample, targets=targets))
    state = start()
    changes = {"epochs": 40, "weight_decay": 0.0, "average": 0.5}
    fit(make_task(labelled, single_roles(), **changes), state)
    assert float(state.best_scores) < 0.1 * state.history[0]["train_total"]
