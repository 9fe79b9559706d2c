"""Where a run begins: fine-tuning, heads or judges on a frozen potential, nothing at all."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from pydantic import ValidationError

from surefoot.blocks.conditioning import Conditioning
from surefoot.blocks.dense import Weights
from surefoot.blocks.reference import Baseline, UnknownElement
from surefoot.data.convert import to_samples
from surefoot.data.load import Splits
from surefoot.data.read import Frame
from surefoot.heads.histogram import ErrorHistograms
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.members import shares_model
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import Ensemble, EnsembleSettings
from surefoot.posteriors.ivon import IvonSettings
from surefoot.posteriors.laplace import LaplaceSettings
from surefoot.posteriors.posterior import Posterior, Single
from surefoot.posteriors.predictor import Predictor, build_predictor, load_predictor
from surefoot.posteriors.restart import load_checkpoint, save_checkpoint
from surefoot.posteriors.shallow import ShallowSettings
from surefoot.posteriors.start import StartSettings
from surefoot.posteriors.swag import SwagSettings
from surefoot.posteriors.training import Parts, Plan, finish, plan_training, start
from surefoot.potential import Potential
from surefoot.train.checkpoint import digest
from surefoot.train.fit import TrainSettings, fit
from surefoot.train.loss import LossSettings
from surefoot.train.schedule import ScheduleSettings
from surefoot.train.state import State

COUNT, VALID, MEMBERS = 12, 12, 4
MODEL = Schnet(cutoff=3.0, features=4, interactions=1, gaussians=5)
POTENTIAL = Potential(
    model=MODEL,
    head=Scalar(),
    baseline=Baseline(elements=(1, 8), energies=(-1.0, -9.0), scale=1.3, neighbors=2.5),
)
TRAINING = TrainSettings(
    epochs=6,
    learning_rate=0.01,
    precision="float64",
    schedule=ScheduleSettings(name="constant", warmup_steps=2),
)
NLL = LossSettings(energy_rule="nll", forces_rule="nll")
JUDGING = {"head": MeanVariance(width=4), "loss": NLL}


@pytest.fixture
def splits(rng) -> Splits:
    frames = []
    for index in range(COUNT + VALID):
        atoms = molecule("H2O")
        atoms.positions += 0.1 * rng.normal(size=(3, 3))
        frames.append(
            Frame(
                atoms=atoms,
                energy=float(rng.normal()) - 11.0,
                forces=rng.normal(size=(3, 3)),
                group=f"g{index // 2}",
                config_type="c",
                file="f.xyz",
                index=index,
            )
        )
    return Splits(train=frames[:COUNT], valid=frames[COUNT:], test=[], isolated=[])


@pytest.fixture
def saved(tmp_path) -> Callable[[Posterior], str]:
    def save(posterior: Posterior) -> str:
        path = tmp_path / f"{posterior.name}.safetensors"
        build_predictor(POTENTIAL, posterior, Calibration(), {}).save(path)
        return str(path)

    return save


@pytest.fixture
def single(saved) -> str:
    return saved(Single(POTENTIAL.init(0, torch.float64)))


def parts_of(file: str, learn: str, **changes: object) -> Parts:
    begun = StartSettings(potential=file, learn=learn)
    parts = Parts(model=MODEL, head=Scalar(), train=TRAINING, start=begun)
    return replace(parts, **{"posterior": EnsembleSettings(members=1), **changes})


def run(splits: Splits, parts: Parts) -> tuple[Plan, State, Predictor]:
    plan = plan_training(splits, parts)
    state = start(plan)
    assert fit(plan.task, state)
    return plan, state, finish(plan, state)[0]


def own(weights: Weights) -> Weights:
    return {n: value for n, value in weights.items() if n.startswith(("model.", "head."))}


# --- what moves and what stays --------------------------------------------------------------


def test_fine_tuning_goes_on_from_the_weights(splits, single) -> None:
    plan = plan_training(splits, parts_of(single, "everything"))
    fresh = POTENTIAL.init(0, torch.float64)
    assert not plan.task.fixed
    assert all(torch.equal(value, fresh[name]) for name, value in plan.learned.items())
    assert plan.task.potential == POTENTIAL  # its references too, whatever the new data say
    _, state, _ = run(splits, parts_of(single, "everything"))
    assert all(not torch.equal(value, fresh[name]) for name, value in state.weights.items())


JUDGES = {
    "mean_variance": (MeanVariance(width=4), NLL),
    "isotropic": (MeanVariance(width=4, covariance="isotropic"), NLL),
    "histogram": (
        ErrorHistograms(system_bins=8, atom_bins=8),
        LossSettings(energy_rule="cross_entropy", forces_rule="cross_entropy"),
    ),
}


@pytest.mark.parametrize("name", JUDGES)
def test_judges_are_fitted_and_energies_and_forces_stay_to_the_bit(name, splits, single) -> None:
    head, loss = JUDGES[name]
    plan, state, predictor = run(splits, parts_of(single, "judges", head=head, loss=loss))
    before = build_predictor(POTENTIAL, Single(POTENTIAL.init(0, torch.float64)), Calibration(), {})
    begun = start(plan)
    assert state.weights.keys() == begun.weights.keys() == plan.learned.keys()
    prefixes = tuple(f"head.{prefix}" for prefix in head.judging())
    assert all(weight.startswith(prefixes) for weight in state.weights)
    assert any(not torch.equal(v, begun.weights[n]) for n, v in state.weights.items())
    for sample in plan.task.samples:
        old, new = before(sample.graph), predictor(sample.graph)
        assert torch.equal(old.energy.mean, new.energy.mean)
        assert old.forces is not None
        assert new.forces is not None
        assert torch.equal(old.forces.mean, new.forces.mean)
        assert old.energy.total is None
        assert new.energy.total is not None
        assert bool((new.energy.total > 0).all())


def test_a_fit_of_judges_builds_no_second_derivative(splits, single, monkeypatch) -> None:
    asked = []
    evaluate = Potential.evaluate

    def remember(self: Potential, *args: object, **options: object) -> object:
        asked.append(options["differentiable"])
        return evaluate(self, *args, **options)

    monkeypatch.setattr(Potential, "evaluate", remember)
    for learn, head, loss in (
        ("judges", *JUDGES["mean_variance"]),
        ("heads", Scalar(), LossSettings()),
    ):
        asked.clear()
        plan = plan_training(splits, parts_of(single, learn, head=head, loss=loss))
        assert fit(plan.task, start(plan))
        assert any(asked) == (learn == "heads")


def test_heads_move_and_the_model_stays(splits, single) -> None:
    _, state, predictor = run(splits, parts_of(single, "heads"))
    fresh = POTENTIAL.init(0, torch.float64)
    assert set(state.weights) == {name for name in fresh if name.startswith("head.")}
    for name, value in own(predictor.weights).items():
        assert torch.equal(value[0], fresh[name]) == name.startswith("model.")


@pytest.mark.parametrize("learn", ["heads", "everything"])
def test_a_shallow_ensemble_on_a_trained_model(learn, splits, single) -> None:
    """Heads begin from seeds of their own, and the model is one."""
    method = ShallowSettings(members=MEMBERS)
    plan, state, predictor = run(splits, parts_of(single, learn, posterior=method))
    fresh = POTENTIAL.init(0, torch.float64)
    weights = own(predictor.weights)
    assert shares_model(weights)
    for name, value in weights.items():
        if name.startswith("model."):
            assert torch.equal(value, fresh[name]) == (learn == "heads")
        elif name.endswith("weight"):
            assert len({tuple(head.reshape(-1).tolist()) for head in value}) == MEMBERS
    assert state.best_scores.shape == ()
    assert plan.task.roles.learn[:, :COUNT].sum(0).tolist() == [MEMBERS - 2] * COUNT
    assert predictor.calibration.source == f"{VALID} frames in {VALID // 2} groups set aside"
    prediction = predictor(plan.task.samples[0].graph)
    assert prediction.energy.total is not None
    assert float(prediction.energy.total) > 0


def test_nothing_is_learned_and_a_posterior_is_made(splits, single) -> None:
    method = LaplaceSettings(draws=3)
    plan, state, predictor = run(splits, parts_of(single, "nothing", posterior=method))
    assert (state.step, state.epoch, len(state.weights)) == (0, 0, 0)
    graph = plan.task.samples[0].graph
    plain = POTENTIAL(POTENTIAL.init(0, torch.float64), graph)
    found = predictor(graph)
    torch.testing.assert_close(found.energy.mean, plain.energy.mean.detach(), rtol=1e-12, atol=0)
    assert found.energy.total is not None
    assert predictor.posterior.name == "laplace"


def test_an_ensemble_goes_on_as_one(splits, saved) -> None:
    members = POTENTIAL.init_members(5, MEMBERS, torch.float64)
    file = saved(Ensemble(members))
    method = EnsembleSettings(members=MEMBERS)
    plan = plan_training(splits, parts_of(file, "everything", posterior=method))
    assert all(torch.equal(value, members[name]) for name, value in plan.learned.items())
    judges = parts_of(file, "judges", posterior=method, head=MeanVariance(width=4), loss=NLL)
    plan, state, predictor = run(splits, judges)
    assert all(torch.equal(plan.task.fixed[name], value) for name, value in members.items())
    assert {value.shape[0] for value in state.weights.values()} == {MEMBERS}
    assert predictor.draws == MEMBERS


def test_one_set_of_weights_for_every_member(splits, single) -> None:
    method = EnsembleSettings(members=MEMBERS)
    plan = plan_training(splits, parts_of(single, "everything", posterior=method))
    fresh = POTENTIAL.init(0, torch.float64)
    for name, value in plan.learned.items():
        assert torch.equal(value, fresh[name].expand_as(value))


@pytest.mark.parametrize(
    ("learn", "changes"),
    [
        ("heads", {}),
        ("judges", JUDGING),
        ("everything", {"posterior": LaplaceSettings(draws=3)}),
    ],
)
def test_interrupted_and_resumed_to_the_bit(learn, changes, splits, single, tmp_path) -> None:
    plan = plan_training(splits, parts_of(single, learn, **changes))
    whole = start(plan)
    assert fit(plan.task, whole)
    calls = iter(range(100))
    state = start(plan)
    assert not fit(plan.task, state, stop=lambda: next(calls) == 3)
    save_checkpoint(tmp_path / "run", plan, state)
    again = load_checkpoint(tmp_path / "run", plan)
    assert fit(plan.task, again)
    assert digest(again.tree()) == digest(whole.tree())
    one, other = (finish(plan, end)[0] for end in (again, whole))
    assert digest(one.posterior.tree()) == digest(other.posterior.tree())
    assert one.calibration == other.calibration


# --- who has learnt from what ---------------------------------------------------------------

FILES = {"files": {"a.xyz": "hash"}, "config": {"data": {"train": ["a.xyz"], "valid": 0.5},
                                                "train": {"seed": 0}}}  # fmt: skip


def trained(splits: Splits, path: Path, **changes: object) -> str:
    """A potential trained on these splits, with all that training writes."""
    parts = Parts(model=MODEL, head=Scalar(), train=TRAINING, posterior=EnsembleSettings(members=1))
    plan = plan_training(splits, replace(parts, **changes), provenance=FILES)
    state = start(plan)
    assert fit(plan.task, state)
    finish(plan, state)[0].save(path)
    return str(path)


def test_frames_the_foundation_has_learnt_from_calibrate_nothing(splits, tmp_path) -> None:
    """Another split of the same file, for a posterior about the same weights."""
    file = trained(splits, tmp_path / "one")
    swapped = replace(splits, train=splits.valid, valid=splits.train)
    parts = parts_of(file, "nothing", posterior=LaplaceSettings(draws=3))
    plan, _, predictor = run(swapped, parts)
    assert not plan.unseen.any()
    assert predictor.calibration.source == "not calibrated: no frame set aside"
    assert predictor.gate is None or predictor.gate.source == load_predictor(file).gate.source
    assert f"{VALID} of {VALID} frames that are set aside were learnt from" in plan.notes[-1]
    _, _, kept = run(splits, parts)
    assert kept.calibration.source.startswith(f"{VALID} frames")


def test_members_that_go_on_judge_what_they_had_not_seen_then(splits, tmp_path) -> None:
    """Folds at another seed: a frame is unseen by a member if it was left out in both runs."""
    method = EnsembleSettings(members=MEMBERS)
    file = trained(splits, tmp_path / "four", posterior=method)
    other = TRAINING.model_copy(update={"seed": 3})
    parts = parts_of(file, "everything", posterior=method, train=other)
    first = plan_training(splits, replace(parts, train=TRAINING)).unseen
    fresh = Parts(model=MODEL, head=Scalar(), train=other, posterior=method)
    second = plan_training(splits, fresh).unseen
    found = plan_training(splits, parts).unseen
    assert (found == (first & second)).all()
    assert (found != second).any()
    learnt = load_predictor(file).learnt
    assert learnt is not None
    samples = plan_training(splits, parts).task.samples
    assert (learnt.seen(samples) == ~first).all()


def test_judges_on_frames_that_were_learnt_from_are_not_judged_by_them(splits, tmp_path) -> None:
    file = trained(replace(splits, train=splits.train + splits.valid, valid=[]), tmp_path / "all")
    _, _, predictor = run(splits, parts_of(file, "judges", **JUDGING))
    assert predictor.calibration.source == "not calibrated: no frame set aside"
    head, loss = JUDGES["histogram"]
    parts = parts_of(file, "judges", head=head, loss=loss)
    refuse(f"has learnt from {COUNT} of the {COUNT} frames.*held out", splits, parts)


def test_what_was_learnt_goes_from_file_to_file(splits, tmp_path) -> None:
    """Also what the foundation of a foundation had seen, and frames that are not given now."""
    file = trained(splits, tmp_path / "one")
    later = replace(splits, train=splits.valid[:6], valid=splits.valid[6:])
    _, _, second = run(later, parts_of(file, "everything"))
    second.save(tmp_path / "two")
    learnt = load_predictor(tmp_path / "two").learnt
    assert learnt is not None
    samples = to_samples(splits.train + splits.valid, MODEL.cutoff)
    assert learnt.seen(samples).tolist() == [[True] * (COUNT + 6) + [False] * (VALID - 6)]
    moved = samples[0].graph.positions + 0.1
    other = replace(samples[0], graph=replace(samples[0].graph, positions=moved))
    assert not learnt.seen([other]).any()
    assert second.provenance["began_from"]["files"] == FILES["files"]
    assert second.provenance["seconds"] > 0


def test_an_older_foundation_does_not_say_what_it_has_seen(splits, tmp_path) -> None:
    file = trained(splits, tmp_path / "one")
    replace(load_predictor(file), learnt=None).save(Path(file))
    parts = parts_of(file, "nothing", posterior=LaplaceSettings(draws=3))

    def plan(**changes: object) -> Plan:
        config = {**FILES["config"], "train": {"seed": changes.pop("seed", 0)}}
        return plan_training(splits, parts, provenance={**FILES, "config": config, **changes})

    same = plan()
    assert same.unseen.all(0).tolist() == [False] * COUNT + [True] * VALID
    assert finish(same, start(same))[0].learnt is None
    with pytest.raises(ValueError, match="does not say which frames it has learnt from"):
        plan(seed=7)
    assert plan(seed=7, files={"b.xyz": "other"}).unseen.all(0).sum() == VALID


# --- what is refused ------------------------------------------------------------------------


def refuse(text: str, splits: Splits, parts: Parts, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=text):
        plan_training(splits, parts)


def test_another_potential_is_refused(splits, single) -> None:
    other = MODEL.model_copy(update={"gaussians": 7})
    refuse(r"gaussians: 5.*run has 7", splits, parts_of(single, "everything", model=other))
    head = Scalar(activation="tanh")
    refuse(r"activation: shifted_softplus.*tanh", splits, parts_of(single, "nothing", head=head))
    judge = MeanVariance(hidden=3)
    refuse(r"head: {hidden: None}.*3", splits, parts_of(single, "judges", head=judge, loss=NLL))
    states = Conditioning(name="charge_spin")
    refuse("conditioning", splits, parts_of(single, "everything", conditioning=states))


def test_an_element_it_has_not_learned_is_refused(splits, single) -> None:
    ammonia = replace(splits.train[0], atoms=molecule("NH3"), forces=None)
    more = replace(splits, train=[*splits.train, ammonia])
    refuse("element N ", more, parts_of(single, "everything"), UnknownElement)


@pytest.mark.parametrize(
    ("learn", "changes", "text"),
    [
        ("judges", {}, "scalar head has no weights that judge"),
        ("nothing", {"posterior": SwagSettings(start=0.3)}, "SWAG collects weights while"),
        ("nothing", {"posterior": IvonSettings(noise=1.0)}, "IVON is a way to train"),
        ("nothing", {"posterior": ShallowSettings(members=MEMBERS)}, "fits no heads"),
        ("nothing", {"posterior": EnsembleSettings(members=MEMBERS)}, "4 members .* no spread"),
        ("judges", {"posterior": EnsembleSettings(members=MEMBERS), **JUDGING}, "no spread"),
    ],
)
def test_posteriors_that_have_nothing_to_work_on(learn, changes, text, splits, single) -> None:
    refuse(text, splits, parts_of(single, learn, **changes))


def test_other_sets_of_weights_are_refused(splits, saved) -> None:
    file = saved(Ensemble(POTENTIAL.init_members(0, 3, torch.float64)))
    refuse(r"holds 3 sets.*starts from one\.", splits, parts_of(file, "everything"))
    method = EnsembleSettings(members=MEMBERS)
    refuse(r"3 sets.*one, or 4", splits, parts_of(file, "everything", posterior=method))


def test_bins_need_errors_to_be_laid_over(splits) -> None:
    head, loss = JUDGES["histogram"]
    one = EnsembleSettings(members=1)
    fresh = Parts(model=MODEL, head=head, loss=loss, train=TRAINING, posterior=one)
    refuse(r"judges the errors of a trained potential.*learn: judges", splits, fresh)


@pytest.mark.parametrize("learn", ["everything", "heads"])
def test_a_histogram_of_errors_moves_nothing_but_itself(learn, splits, single) -> None:
    head, loss = JUDGES["histogram"]
    refuse("learn: judges", splits, parts_of(single, learn, head=head, loss=loss))


def test_histograms_of_errors_are_those_of_one_set_of_weights(splits, saved, single) -> None:
    """The mean of several errs less than each of them, and no member learns about the mean."""
    head, loss = JUDGES["histogram"]
    file = saved(Ensemble(POTENTIAL.init_members(0, MEMBERS, torch.float64)))
    method = EnsembleSettings(members=MEMBERS)
    parts = parts_of(file, "judges", head=head, loss=loss, posterior=method)
    refuse(f"has {MEMBERS}, whose mean errs less", splits, parts)
    parts = parts_of(single, "judges", head=head, loss=loss, posterior=method)
    assert plan_training(splits, parts).learned


def test_histograms_of_errors_of_energies_alone(splits, single) -> None:
    head, loss = JUDGES["histogram"]
    loss = loss.model_copy(update={"forces": 0.0})
    bare = replace(splits, train=[replace(frame, forces=None) for frame in splits.train])
    plan, state, _ = run(bare, parts_of(single, "judges", head=head, loss=loss))
    begun = start(plan)
    moved = {n for n, v in state.weights.items() if not torch.equal(v, begun.weights[n])}
    assert moved == {n for n in state.weights if n.startswith("head.system.")}


def test_fresh_weights_can_not_be_kept() -> None:
    with pytest.raises(ValidationError, match="name the file of a trained potential"):
        StartSettings(learn="judges")


def test_a_file_that_is_no_potential(splits, tmp_path: Path) -> None:
    refuse("no such file", splits, parts_of(str(tmp_path / "absent"), "everything"))
