"""Every way to a posterior: trained, interrupted and resumed, saved, loaded, with other heads."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase.build import molecule

from surefoot.data.load import Splits
from surefoot.data.read import Frame
from surefoot.graph import collate
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.members import shares_model
from surefoot.models.schnet import Schnet
from surefoot.posteriors import METHODS, POSTERIORS
from surefoot.posteriors.calibrate import calibrate
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import EnsembleSettings
from surefoot.posteriors.ivon import IvonSettings
from surefoot.posteriors.laplace import LaplaceSettings
from surefoot.posteriors.points import pair_frames
from surefoot.posteriors.posterior import Method
from surefoot.posteriors.predictor import build_predictor, load_predictor
from surefoot.posteriors.restart import load_checkpoint, save_checkpoint
from surefoot.posteriors.shallow import ShallowSettings
from surefoot.posteriors.swag import SwagSettings
from surefoot.posteriors.training import Parts, Plan, finish, plan_training, start, to_predictor
from surefoot.train.checkpoint import RefusedFile, digest, read_tree, write_tree
from surefoot.train.fit import TrainSettings, fit
from surefoot.train.loss import LossSettings, Warmup
from surefoot.train.schedule import ScheduleSettings
from surefoot.train.state import State
from surefoot.train.step import loss_gradients

COUNT, VALID, EPOCHS = 12, 12, 6
MODEL = Schnet(cutoff=3.0, features=4, interactions=1, gaussians=5)
TRAINING = TrainSettings(
    epochs=EPOCHS,
    learning_rate=0.01,
    precision="float64",
    schedule=ScheduleSettings(name="cosine", warmup_steps=2),
).model_copy(update={"batch": TrainSettings().batch.model_copy(update={"graphs": 4})})
BATCHES = COUNT // 4
NLL = LossSettings(energy_rule="nll", forces_rule="nll")
METHOD: dict[str, Method] = {
    "ensemble": EnsembleSettings(members=3),
    "shallow": ShallowSettings(members=3),
    "swag": SwagSettings(start=0.3, rank=3, draws=4),
    "ivon": IvonSettings(noise=0.5, samples=2, draws=3),
    "laplace": LaplaceSettings(draws=3),
}
every_method = pytest.mark.parametrize("name", METHOD)


@pytest.fixture
def splits(rng) -> Splits:
    frames = [
        Frame(
            atoms=molecule("H2O"),
            energy=float(rng.normal()) - 11.0,
            forces=rng.normal(size=(3, 3)),
            group=f"g{index // 2}",
            config_type="c",
            file="f.xyz",
            index=index,
        )
        for index in range(COUNT + VALID)
    ]
    for frame in frames:
        frame.atoms.positions += 0.1 * rng.normal(size=(3, 3))
    return Splits(train=frames[:COUNT], valid=frames[COUNT:], test=[], isolated=[])


def parts_of(name: str, head: Scalar | None = None, **changes: object) -> Parts:
    parts = Parts(model=MODEL, head=head or Scalar(), train=TRAINING, posterior=METHOD[name])
    return replace(parts, **changes)


def stop_after(calls: int) -> Callable[[], bool]:
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count >= calls

    return stop


def run(plan: Plan, state: State | None = None) -> State:
    state = start(plan) if state is None else state
    assert fit(plan.task, state)
    return state


def variances(parts: torch.Tensor) -> torch.Tensor:
    """Of energies as they are, of forces the diagonal."""
    return parts.diagonal(dim1=-2, dim2=-1) if parts.dim() > 1 else parts


def test_every_method_is_under_test() -> None:
    assert METHOD.keys() == METHODS.keys()
    for name, method in METHOD.items():
        assert isinstance(method, Method)
        assert isinstance(method, METHODS[name])


@every_method
@pytest.mark.parametrize("head", [Scalar(), MeanVariance(width=4)])
def test_trained_calibrated_saved_and_loaded(name, head, splits, tmp_path) -> None:
    """With a head that says nothing of its error, and with one that does."""
    parts = parts_of(name, head)
    if isinstance(head, MeanVariance):
        method = METHOD[name].model_copy(update={"noise": None} if name == "ivon" else {})
        parts = replace(parts, loss=NLL, posterior=method)
    plan = plan_training(splits, parts)
    state = run(plan)
    best = to_predictor(plan, state)
    predictor, _ = finish(plan, state)
    assert predictor.posterior.name in POSTERIORS
    method = METHOD[name]
    natural = method.draws if hasattr(method, "draws") else method.members
    assert predictor.draws == natural
    predictor.save(tmp_path / "potential")
    again = load_predictor(tmp_path / "potential")
    graph = collate([sample.graph for sample in plan.task.samples[:3]])
    one, other = predictor(graph), again(graph)
    for quantity in ("energy", "forces"):
        before, after = getattr(one, quantity), getattr(other, quantity)
        assert torch.equal(before.mean, after.mean)
        assert torch.equal(before.total, after.total)
        assert bool((variances(before.epistemic) > 0).all())
        assert (before.aleatoric is None) == (type(head) is Scalar)
    assert predictor.calibration.energy is not None
    assert predictor.calibration.forces is not None
    # Where weights were chosen by validation, the interim file says what the point says.
    if name == "laplace":
        torch.testing.assert_close(one.energy.mean, best(graph).energy.mean, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("shallow", 2),
        ("ivon", 2),
        ("ivon", EPOCHS * BATCHES),
        ("swag", 4 * BATCHES),  # while it collects, at the end of an epoch
        ("swag", 4 * BATCHES + 2),  # and inside of one
    ],
)
def test_interrupted_and_resumed_to_the_bit(name, batches, splits, tmp_path: Path) -> None:
    plan = plan_training(splits, parts_of(name))
    whole = run(plan)
    state = start(plan)
    assert not fit(plan.task, state, stop=stop_after(batches))
    save_checkpoint(tmp_path / "run", plan, state)
    again = load_checkpoint(tmp_path / "run", plan)
    assert (again.epoch, again.batch) == (state.epoch, state.batch)
    run(plan, again)
    assert digest(again.tree()) == digest(whole.tree())
    one, other = (METHOD[name].posterior(plan.task, end).tree() for end in (again, whole))
    assert digest(one) == digest(other)


@every_method
@pytest.mark.parametrize("how", ["raised", "not a number"])
def test_a_failed_step_leaves_the_state_of_the_last_one(name, how, splits, monkeypatch) -> None:
    """A training that goes on after it is the undisturbed one to the bit."""
    plan = plan_training(splits, parts_of(name))
    whole, state = run(plan), start(plan)
    assert not fit(plan.task, state, stop=stop_after(4 * BATCHES + 1))
    before = digest(state.tree()), state.header() | {"history": None}
    calls = 0

    def fail(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        terms, gradients = loss_gradients(*given, **named)
        if calls == (2 if name == "ivon" else 1):  # after the first sample of its noise
            if how == "raised":
                raise FloatingPointError("the loss is not a number, says a test")
            terms = {key: value * torch.nan for key, value in terms.items()}
        return terms, gradients

    with monkeypatch.context() as patch:
        patch.setattr("surefoot.train.fit.loss_gradients", fail)
        with pytest.raises(FloatingPointError, match="the loss is not a number"):
            fit(plan.task, state)
    assert calls > 0
    assert (digest(state.tree()), state.header() | {"history": None}) == before
    assert digest(run(plan, state).tree()) == digest(whole.tree())


def test_a_run_of_another_posterior_is_not_resumed(splits, tmp_path) -> None:
    plan = plan_training(splits, parts_of("swag"))
    save_checkpoint(tmp_path / "run", plan, start(plan))
    other = parts_of("swag", posterior=METHOD["swag"].model_copy(update={"rank": 5}))
    with pytest.raises(RefusedFile, match=r"posterior\.rank was 3 and is now 5"):
        load_checkpoint(tmp_path / "run", plan_training(splits, other))
    longer = parts_of("swag", train=TRAINING.model_copy(update={"epochs": 9}))
    with pytest.raises(RefusedFile, match=r"train\.epochs was 6 and is now 9"):
        load_checkpoint(tmp_path / "run", plan_training(splits, longer))


@pytest.mark.usefixtures("unchecked")
def test_a_checkpoint_that_is_no_state_is_refused(splits, tmp_path) -> None:
    """With a checksum that fits: what a hand or another version has made."""
    plan = plan_training(splits, parts_of("ensemble"))
    path = tmp_path / "last"
    save_checkpoint(path, plan, start(plan))
    tree, header = read_tree(path, "checkpoint")
    kept = {name: value for name, value in header.items() if name not in ("format", "kind")}
    state, table = kept["state"], "weights.model.embedding"
    for wrong_tree, wrong in (
        (tree, {"state": {**state, "step": "x"}}),
        (tree, {"state": {**state, "epoch": -1}}),
        (tree, {"state": [state]}),
        (tree, {"state": {**state, "plateau": None}}),
        ({n: v for n, v in tree.items() if n != "best_scores"}, {}),
        ({n: v for n, v in tree.items() if n != table}, {}),
        (tree | {table: tree[table][:1]}, {}),
    ):
        write_tree(path, "checkpoint", wrong_tree, kept | wrong)
        with pytest.raises(RefusedFile, match="last: it is not the state of a training"):
            load_checkpoint(path, plan)
    write_tree(path, "checkpoint", tree, kept)
    assert load_checkpoint(path, plan).step == 0


def test_swag_collects_nothing_of_the_warm_up(splits) -> None:
    """Its weights make another loss small."""
    head, warm = MeanVariance(width=4), Warmup(epochs=2)
    loss = NLL.model_copy(update={"warmup": warm})
    text = r"after epoch 2, and loss: {warmup: {epochs: 2}} is about another loss"
    with pytest.raises(ValueError, match=text):
        plan_training(splits, parts_of("swag", head, loss=loss))
    later = METHOD["swag"].model_copy(update={"start": 0.34})
    plan = plan_training(splits, parts_of("swag", head, loss=loss, posterior=later))
    state = run(plan)
    assert int(state.collected["count"]) == 4  # after the third to the sixth


def test_what_the_posterior_makes_of_the_loss_is_said(splits) -> None:
    head, loss = MeanVariance(width=4), NLL.model_copy(update={"forces": 20.0})
    method = METHOD["ivon"].model_copy(update={"noise": None})
    (note,) = plan_training(splits, parts_of("ivon", head, loss=loss, posterior=method)).notes
    assert note.endswith(f"likelihood of {COUNT} energies and {20 * COUNT} forces on atoms")
    loss = LossSettings(forces=4.0)
    (note,) = plan_training(splits, parts_of("ivon", loss=loss)).notes
    assert note.endswith(f"{COUNT} structures with noise 0.5 of energy, 0.25 of forces")
    assert plan_training(splits, parts_of("laplace")).notes == ()


def test_swag_collects_weights_not_averages(splits) -> None:
    plan = plan_training(splits, parts_of("swag"))
    state, seen = start(plan), []
    fit(plan.task, state, observers=[lambda s: seen.append(s.weights["model.embedding"].clone())])
    late = torch.stack(seen[1:])  # 30 % of 6 epochs are over in the second
    assert int(state.collected["count"]) == len(late) == 5
    torch.testing.assert_close(state.collected["mean.model.embedding"], late.mean(0))
    assert not torch.allclose(late.mean(0), state.averages["model.embedding"])


def test_ivon_learns_from_forces_alone(splits) -> None:
    """Then the last bias has no gradient; and the loss becomes smaller."""
    loss = LossSettings(energy=0.0)
    method = IvonSettings(noise=0.5, initial=10.0)
    train = TRAINING.model_copy(update={"learning_rate": 0.3})
    plan = plan_training(splits, parts_of("ivon", loss=loss, posterior=method, train=train))
    state = run(plan)
    losses = [record["train_total"] for record in state.history]
    assert losses[-1] < losses[0]
    bias = state.moments["curvature"]["head.layer0.out.bias"]
    assert float(bias) < method.initial  # no gradient: it goes to zero
    predictor, _ = finish(plan, state)
    assert bool(torch.isfinite(predictor(plan.task.samples[0].graph).energy.total).all())


def test_closed_forms_are_calibrated_by_their_variances(splits) -> None:
    """Not by draws: with one draw of the last layer energies and differences have factors too."""
    plan = plan_training(splits, parts_of("laplace"))
    posterior = METHOD["laplace"].posterior(plan.task, run(plan))
    unseen = plan.unseen.all(0)
    group = {"group": "one"}  # each validation frame makes a pair with the one before it
    plan = replace(
        plan, task=replace(plan.task, samples=[replace(s, **group) for s in plan.task.samples])
    )
    samples = [s for s, held_out in zip(plan.task.samples, unseen, strict=True) if held_out]
    for draws in (1, 4):
        one = build_predictor(plan.task.potential, posterior, Calibration(), {}, draws=draws)
        calibration, _ = calibrate(one, plan.task.samples, unseen[None])
        assert (calibration.forces is None) == (draws == 1)
        assert calibration.shared_error == {}  # nothing follows for another number of draws
        assert calibration.for_draws(7, kept=("energy", "difference")).forces is None
        found = one(collate([sample.graph for sample in samples]))
        labels = torch.cat([sample.targets.energy for sample in samples])
        ratio = (labels - found.energy.mean) / found.energy.total.sqrt()
        assert calibration.energy == pytest.approx(float(ratio.square().mean().sqrt()), rel=1e-3)
        pairs = pair_frames(samples, [one.group for one in samples])
        z = found.energy_factor[pairs[:, 1]] - found.energy_factor[pairs[:, 0]]
        off = labels - found.energy.mean
        ratio = (off[pairs[:, 1]] - off[pairs[:, 0]]) / z.norm(dim=1)
        assert calibration.difference == pytest.approx(
            float(ratio.square().mean().sqrt()), rel=1e-3
        )


def test_heads_of_a_shallow_ensemble_share_the_gradient_of_the_model(splits) -> None:
    plan = plan_training(splits, parts_of("shallow"))
    weights = start(plan).weights
    assert shares_model(weights)
    sample = plan.task.samples[0]
    importance = torch.tensor([[1.0], [0.0], [2.0]], dtype=torch.float64)
    args = (sample.graph, sample.targets)
    _, found = loss_gradients(plan.task.potential, LossSettings(), weights, *args, importance)
    expected = {name: torch.zeros_like(value) for name, value in weights.items()}
    for head in range(3):
        one = {n: v[head] if n.startswith("head.") else v for n, v in weights.items()}
        _, part = loss_gradients(
            plan.task.potential, LossSettings(), one, *args, importance[head].clone()
        )
        for name, value in part.items():
            (expected[name][head] if name.startswith("head.") else expected[name]).add_(value)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)
