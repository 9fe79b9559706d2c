"""A run from splits to a Predictor: roles, what is measured, checkpoints, the log."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from surefoot.blocks.conditioning import Conditioning, States, UnknownState
from surefoot.blocks.native import kernels, plain_only
from surefoot.blocks.reference import UnknownElement
from surefoot.data.convert import to_graph
from surefoot.data.load import Splits
from surefoot.data.read import Frame
from surefoot.heads.scalar import Scalar
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.posteriors.ensemble import EnsembleSettings
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import load_predictor
from surefoot.posteriors.restart import load_checkpoint, save_checkpoint
from surefoot.posteriors.training import (
    Parts,
    Plan,
    finish,
    plan_training,
    start,
    to_predictor,
    write_log,
)
from surefoot.train.checkpoint import RefusedFile, digest, read_tree, write_tree
from surefoot.train.fit import TrainSettings, fit
from surefoot.train.loss import LossSettings
from surefoot.train.schedule import ScheduleSettings
from surefoot.train.state import State

TRAIN, VALID = 12, 3
MEMBERS = 4
MODEL = Schnet(cutoff=3.0, features=4, interactions=1, gaussians=5)
CONSTANT = ScheduleSettings(name="constant", warmup_steps=2)
TRAINING = TrainSettings(epochs=2, learning_rate=0.01, precision="float64", schedule=CONSTANT)
PARTS = Parts(
    model=MODEL, head=Scalar(), train=TRAINING, posterior=EnsembleSettings(members=MEMBERS)
)
SINGLE = replace(PARTS, posterior=EnsembleSettings(members=1))
ORIGIN = {"config": {"data": {"train": ["train.xyz"]}}, "files": {"train.xyz": "abc"}}


def frame(index: int, kind: str = "H2O", file: str = "train.xyz", **absent: None) -> Frame:
    rng = np.random.default_rng((index, len(file)))
    atoms = molecule(kind)
    atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
    labels = {
        "energy": float(rng.normal()) - 20.0,
        "forces": rng.normal(size=atoms.positions.shape),
    }
    return Frame(
        atoms=atoms,
        **{**labels, **absent},
        group=f"{file} {index // 2}",
        config_type="Default",
        file=file,
        index=index,
    )


def isolated(symbol: str, energy: float) -> Frame:
    return Frame(
        atoms=Atoms(symbol),
        energy=energy,
        group=symbol,
        config_type="IsolatedAtom",
        file="train.xyz",
        index=99,
    )


def make_splits(**parts: list[Frame]) -> Splits:
    frames = {
        "train": [frame(index) for index in range(TRAIN)],
        "valid": [frame(index, file="valid.xyz") for index in range(VALID)],
        "test": [],
        "isolated": [],
    }
    return Splits(**{**frames, **parts})


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits()


def run(plan: Plan, state: State | None = None) -> State:
    state = start(plan) if state is None else state
    assert fit(plan.task, state)
    return state


@pytest.fixture(scope="module")
def trained(splits) -> tuple[Plan, State]:
    plan = plan_training(splits, PARTS, provenance=ORIGIN)
    return plan, run(plan)


# --- roles ----------------------------------------------------------------------------------


def test_members_learn_what_does_not_judge_them(splits) -> None:
    plan = plan_training(splits, PARTS)
    roles = plan.task.roles
    assert roles.learn.shape == roles.judge.shape == (MEMBERS, TRAIN + VALID)
    assert torch.equal(roles.learn, 1.0 - roles.judge.double())
    np.testing.assert_array_equal(plan.unseen, roles.judge.numpy())
    # Two of four members leave out each training frame, all are judged by each validation frame.
    assert plan.unseen.sum(0).tolist() == [2] * TRAIN + [MEMBERS] * VALID
    for first, second in zip(range(0, TRAIN, 2), range(1, TRAIN, 2), strict=True):
        assert (plan.unseen[:, first] == plan.unseen[:, second]).all()  # one group


def test_without_folds_only_the_validation_split_judges(splits) -> None:
    parts = replace(PARTS, posterior=EnsembleSettings(members=3, left_out=0))
    roles = plan_training(splits, parts).task.roles
    assert roles.judge[:, :TRAIN].sum() == 0
    assert roles.judge[:, TRAIN:].all()


def test_roles_of_one_member(splits) -> None:
    plan = plan_training(splits, SINGLE)
    assert plan.task.roles.learn.tolist() == [1.0] * TRAIN + [0.0] * VALID
    assert plan.task.roles.judge.tolist() == [False] * TRAIN + [True] * VALID
    assert plan.unseen.shape == (1, TRAIN + VALID)


def test_samples_are_train_then_valid_with_groups_across_both() -> None:
    shared = [replace(frame(index, file="valid.xyz"), group="train.xyz 0") for index in range(2)]
    plan = plan_training(make_splits(valid=shared), PARTS)
    places = [sample.place for sample in plan.task.samples]
    assert places[0] == "train.xyz, frame 0"
    assert places[TRAIN:] == ["valid.xyz, frame 0", "valid.xyz, frame 1"]
    numbers = [int(sample.targets.group) for sample in plan.task.samples]
    assert numbers == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0, 0]


# --- what is measured -----------------------------------------------------------------------


def test_baseline_comes_from_the_training_split() -> None:
    """Isolated atoms give energies, and neither they nor the validation split give the rest."""
    atoms = [isolated("H", -5.0), isolated("O", -9.0), isolated("C", -7.0)]
    valid = [frame(index, "CH4", "valid.xyz") for index in range(VALID)]
    splits = make_splits(isolated=atoms, valid=valid)
    plan = plan_training(splits, PARTS)
    baseline = plan.task.potential.baseline
    assert baseline.elements == (1, 6, 8)
    assert baseline.energies == (-5.0, -7.0, -9.0)
    forces = np.concatenate([f.forces for f in splits.train if f.forces is not None])
    assert baseline.scale == pytest.approx(np.sqrt(np.mean(forces**2)))
    edges = sum(to_graph(f.atoms, 3.0).edge_index.shape[1] for f in splits.train)
    assert baseline.neighbors == pytest.approx(edges / (3 * TRAIN))
    assert len(plan.task.samples) == TRAIN + VALID  # nobody trains on atoms
    mapped = plan_training(splits, PARTS, {"H": -1.0, "C": -2.0, "O": -3.0})
    assert mapped.task.potential.baseline.energies == (-1.0, -2.0, -3.0)
    assert plan_training(splits, PARTS, "zero", None, 2.5).task.potential.baseline.scale == 2.5


def test_a_cutoff_below_all_distances_is_refused(splits) -> None:
    short = replace(PARTS, model=PARTS.model.model_copy(update={"cutoff": 0.5}))
    with pytest.raises(ValueError, match=r"within the cutoff of 0\.5 Å, .* raise model\.cutoff"):
        plan_training(splits, short)


def test_provenance_holds_what_was_given_and_the_versions(splits) -> None:
    plan = plan_training(splits, PARTS, provenance=ORIGIN)
    assert plan.provenance["files"] == ORIGIN["files"]
    assert plan.provenance["config"] == ORIGIN["config"]
    assert plan.provenance["versions"]["torch"] == torch.__version__
    assert {"surefoot", "python", "numpy", "ase"} <= plan.provenance["versions"].keys()
    assert "versions" not in ORIGIN


def test_provenance_holds_the_stated_states_of_the_training_split() -> None:
    train = [
        replace(frame(index), charge=charge, spin=spin)
        for index, (charge, spin) in enumerate([(0, 2), (0, 2), (-1, 1)] * 4)
    ]
    valid = [replace(frame(0, file="valid.xyz"), charge=5, spin=4)]
    plan = plan_training(make_splits(train=train, valid=valid), PARTS)
    assert plan.provenance["states"] == [[-1, 1], [0, 2]]
    for absent, known in (
        ({"charge": None}, [[None, 1], [None, 2]]),
        ({"spin": None}, [[-1, None], [0, None]]),
        ({"charge": None, "spin": None}, []),
    ):
        partly = [replace(train[0], **absent), *train[1:]]
        plan = plan_training(make_splits(train=partly), PARTS)
        assert plan.provenance["states"] == known


def stated(count: int = 12) -> list[Frame]:
    """Frames in two states, and some that state nothing."""
    states = [(0, 1), (-1, 2), (None, None)]
    return [
        replace(frame(index), charge=states[index % 3][0], spin=states[index % 3][1])
        for index in range(count)
    ]


CONDITIONED = replace(PARTS, conditioning=Conditioning(name="charge_spin"))


def test_states_of_the_training_split_are_told_apart_where_asked() -> None:
    train = stated()
    valid = [replace(frame(0, file="valid.xyz"), charge=0, spin=1)]
    assert plan_training(make_splits(train=train), PARTS).task.potential.states is None
    plan = plan_training(make_splits(train=train, valid=valid), CONDITIONED)
    assert plan.task.potential.states == States(((-1, 2), (0, 0), (0, 1)))
    state = run(plan)
    assert state.weights["model.conditioning"].shape == (MEMBERS, 3, 2, 4)
    assert not torch.equal(
        state.weights["model.conditioning"], start(plan).weights["model.conditioning"]
    )
    predictor, _ = finish(plan, state)
    graphs = [to_graph(molecule("H2O"), 3.0, *pair) for pair in ((0, 1), (-1, 2))]
    energies = [float(predictor(graph).energy.mean) for graph in graphs]
    assert abs(energies[0] - energies[1]) > 1e-6


# --- what is refused ------------------------------------------------------------------------


UNJUDGED = (EnsembleSettings(members=3, left_out=0), EnsembleSettings(members=1))
WAITING = (
    ({"patience": 5}, r"patience: 5\}"),
    ({"schedule": ScheduleSettings(name="plateau")}, r"name: plateau\}"),
)


@pytest.mark.parametrize("posterior", UNJUDGED)
@pytest.mark.parametrize(("changes", "text"), WAITING)
def test_settings_that_wait_for_validations_need_some(posterior, changes, text, splits) -> None:
    parts = replace(PARTS, train=TRAINING.model_copy(update=changes), posterior=posterior)
    with pytest.raises(ValueError, match=rf"{text}.* no frame judges member 0.*left_out"):
        plan_training(make_splits(valid=[]), parts)
    assert plan_training(splits, parts).unseen.any(axis=1).all()
    folds = replace(parts, posterior=PARTS.posterior)
    assert plan_training(make_splits(valid=[]), folds).unseen.any(axis=1).all()


def test_an_element_that_only_the_validation_split_holds() -> None:
    splits = make_splits(valid=[frame(0, file="valid.xyz"), frame(1, "NH3", "valid.xyz")])
    with pytest.raises(UnknownElement, match=r"valid\.xyz, frame 1: element N "):
        plan_training(splits, PARTS)


def test_a_state_that_only_the_validation_split_holds() -> None:
    valid = [replace(frame(0, file="valid.xyz"), charge=2, spin=1)]
    splits = make_splits(train=stated(), valid=valid)
    plan_training(splits, PARTS)
    with pytest.raises(UnknownState, match=r"valid\.xyz, frame 0: charge 2 and spin 1"):
        plan_training(splits, CONDITIONED)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("energy", LossSettings(forces=0.0)),
        ("forces", LossSettings(forces=2.5)),
        ("stress", LossSettings(stress=0.1)),
    ],
)
def test_labels_that_the_loss_asks_for_and_nobody_has(name, loss) -> None:
    """A validation split that has them does not help."""
    absent = {name: None} if name != "stress" else {}
    splits = make_splits(train=[frame(index, **absent) for index in range(TRAIN)])
    weight = getattr(loss, name)
    with pytest.raises(ValueError, match=rf"{{{name}: {weight}}} asks for {name}, but no training"):
        plan_training(splits, replace(PARTS, loss=loss))


def test_labels_that_some_frames_have_are_enough() -> None:
    train = [frame(0), *(frame(index, forces=None) for index in range(1, TRAIN))]
    plan = plan_training(make_splits(train=train), PARTS)
    assert sum(bool(s.targets.has_forces.all()) for s in plan.task.samples) == 1 + VALID


def test_labels_with_weight_zero_may_be_absent() -> None:
    train = [frame(index, forces=None) for index in range(TRAIN)]
    parts = replace(PARTS, loss=LossSettings(forces=0.0))
    assert plan_training(make_splits(train=train), parts).unseen.shape[0] == MEMBERS


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="no structures besides isolated atoms"):
        plan_training(make_splits(train=[], isolated=[isolated("O", -1.0)]), PARTS)


def test_too_few_groups() -> None:
    train = [replace(frame(index), group="one") for index in range(TRAIN)]
    with pytest.raises(ValueError, match="at least 4 groups"):
        plan_training(make_splits(train=train), PARTS)


# --- from the first weights to a Predictor --------------------------------------------------


def test_first_weights_of_members_follow_the_seed(splits) -> None:
    seeded = replace(PARTS, train=TRAINING.model_copy(update={"seed": 7}))
    plan = plan_training(splits, seeded)
    state = start(plan)
    assert state.best_scores.shape == (MEMBERS,)
    for member in range(MEMBERS):
        alone = plan.task.potential.init(7 + member, torch.float64)
        for name, value in alone.items():
            assert torch.equal(state.weights[name][member], value)
    single = start(plan_training(splits, replace(seeded, posterior=SINGLE.posterior)))
    assert digest(single.weights) == digest(plan.task.potential.init(7, torch.float64))


def test_finished_run_is_calibrated_and_keeps_the_best(trained, tmp_path) -> None:
    plan, state = trained
    predictor, factors = finish(plan, state)
    assert {"energy", "forces"} <= factors.keys()
    assert predictor.calibration.energy == factors["energy"].value
    assert predictor.calibration.source.startswith(f"{TRAIN + VALID} frames")
    assert digest(predictor.weights) == digest(state.best) != digest(state.weights)
    assert predictor.draws == MEMBERS
    assert predictor.provenance["epochs"] == 2
    assert predictor.provenance["references"] == plan.statistics.source
    assert predictor.provenance["files"] == ORIGIN["files"]
    predictor.save(tmp_path / "model.safetensors")
    assert load_predictor(tmp_path / "model.safetensors").calibration == predictor.calibration


def test_run_of_one_member_is_not_calibrated(splits) -> None:
    plan = plan_training(splits, SINGLE)
    predictor, factors = finish(plan, run(plan))
    assert isinstance(predictor.posterior, Single)
    assert predictor.draws == 1
    assert predictor.calibration.source.startswith("not calibrated")
    assert factors == {}


def test_predictor_before_the_end_says_that_it_is_not_calibrated(trained) -> None:
    predictor = to_predictor(*trained)
    assert predictor.calibration.source == "not calibrated"
    assert predictor.calibration.energy is None


# --- checkpoints ----------------------------------------------------------------------------


def same_state(one: State, other: State) -> bool:
    def numbers(state: State) -> dict:
        header = state.header()
        history = [{k: v for k, v in record.items() if k != "seconds"} for record in state.history]
        return header | {"history": history}

    return digest(one.tree()) == digest(other.tree()) and numbers(one) == numbers(other)


@pytest.mark.parametrize("parts", [PARTS, SINGLE])
def test_round_trip(splits, parts, tmp_path) -> None:
    plan = plan_training(splits, parts, provenance=ORIGIN)
    for state in (start(plan), run(plan)):
        save_checkpoint(tmp_path / "last.safetensors", plan, state)
        again = load_checkpoint(tmp_path / "last.safetensors", plan)
        assert same_state(state, again)
        assert state.header() == again.header()


def test_resumed_run_equals_the_uninterrupted_one(splits, tmp_path) -> None:
    """Stopped between two batches; the plan is made anew, as another process would."""
    settings = TRAINING.model_copy(
        update={"batch": TRAINING.batch.model_copy(update={"graphs": 4})}
    )
    parts = replace(PARTS, train=settings)
    plan = plan_training(splits, parts, provenance=ORIGIN)
    whole = run(plan)
    state = start(plan)
    assert not fit(plan.task, state, stop=lambda: state.step == 4)
    assert (state.epoch, state.batch) == (1, 1)
    save_checkpoint(tmp_path / "last.safetensors", plan, state)
    again = plan_training(make_splits(), parts, provenance=ORIGIN)
    resumed = run(again, load_checkpoint(tmp_path / "last.safetensors", again))
    assert same_state(resumed, whole)


def with_train(**changes: object) -> Parts:
    return replace(PARTS, train=TRAINING.model_copy(update=changes))


CHANGES: dict[str, Callable[[], tuple[Parts, dict]]] = {
    "files.train.xyz": lambda: (PARTS, {**ORIGIN, "files": {"train.xyz": "abd"}}),
    "files.more.xyz": lambda: (PARTS, {**ORIGIN, "files": {**ORIGIN["files"], "more.xyz": "0"}}),
    "data.train": lambda: (PARTS, {**ORIGIN, "config": {"data": {"train": ["other.xyz"]}}}),
    "loss.forces": lambda: (replace(PARTS, loss=LossSettings(forces=3.0)), ORIGIN),
    "model.cutoff": lambda: (
        replace(PARTS, model=MODEL.model_copy(update={"cutoff": 3.5})),
        ORIGIN,
    ),
    "head.hidden": lambda: (replace(PARTS, head=Scalar(hidden=3)), ORIGIN),
    "conditioning.name": lambda: (CONDITIONED, ORIGIN),
    "posterior.left_out": lambda: (
        replace(PARTS, posterior=EnsembleSettings(members=MEMBERS, left_out=3)),
        ORIGIN,
    ),
    "train.seed": lambda: (with_train(seed=1), ORIGIN),
    "train.learning_rate": lambda: (with_train(learning_rate=0.02), ORIGIN),
    "train.batch.graphs": lambda: (
        with_train(batch=TRAINING.batch.model_copy(update={"graphs": 3})),
        ORIGIN,
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_checkpoint_of_another_run_is_refused(trained, splits, name, tmp_path) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, *trained)
    parts, origin = CHANGES[name]()
    other = plan_training(splits, parts, provenance=origin)
    with pytest.raises(RefusedFile, match=rf"another run: {name} was .* and is now"):
        load_checkpoint(path, other)


def test_checkpoint_of_other_versions_is_refused(trained, tmp_path) -> None:
    plan, state = trained
    save_checkpoint(tmp_path / "last.safetensors", plan, state)
    versions = {**plan.provenance["versions"], "torch": "1.0"}
    newer = replace(plan, provenance={**plan.provenance, "versions": versions})
    with pytest.raises(RefusedFile, match=r"versions\.torch was .* and is now 1\.0"):
        load_checkpoint(tmp_path / "last.safetensors", newer)


def test_checkpoint_of_another_number_of_threads_is_refused(trained, tmp_path, monkeypatch) -> None:
    """Threads change the order of sums."""
    plan, state = trained
    threads = torch.get_num_threads()
    save_checkpoint(tmp_path / "last.safetensors", plan, state)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(RefusedFile, match=rf"threads was {threads} and is now {threads + 1}"):
        load_checkpoint(tmp_path / "last.safetensors", plan)


def test_checkpoint_of_another_form_is_refused(splits, tmp_path) -> None:
    """Kernels round differently; a model that uses none does not ask."""
    if kernels(torch.zeros(1)) is None:
        pytest.skip("there is no C compiler, hence no kernels to tell apart.")
    path = tmp_path / "last.safetensors"
    model = Race(cutoff=3.0, irreps="2x0e", channels=2, max_ell=0, interactions=1, radial=())
    plan = plan_training(splits, replace(SINGLE, model=model), provenance=ORIGIN)
    save_checkpoint(path, plan, start(plan))
    load_checkpoint(path, plan)
    with plain_only():
        with pytest.raises(
            RefusedFile, match=r"computed_by was kernels \w+ and is now plain torch"
        ):
            load_checkpoint(path, plan)
        save_checkpoint(path, plan, start(plan))
    with pytest.raises(RefusedFile, match=r"computed_by was plain torch and is now kernels \w+"):
        load_checkpoint(path, plan)
    # Older checkpoints do not say it.
    tree, header = read_tree(path, "checkpoint")
    del header["identity"]["computed_by"], header["format"], header["kind"]
    write_tree(path, "checkpoint", tree, header)
    with pytest.raises(RefusedFile, match="computed_by was nothing and is now kernels"):
        load_checkpoint(path, plan)
    schnet = plan_training(splits, SINGLE, provenance=ORIGIN)
    save_checkpoint(path, schnet, start(schnet))
    with plain_only():
        load_checkpoint(path, schnet)


def test_other_kinds_of_files_are_refused(trained, tmp_path) -> None:
    plan, state = trained
    to_predictor(plan, state).save(tmp_path / "model.safetensors")
    with pytest.raises(RefusedFile, match="this is a predictor; a checkpoint is needed"):
        load_checkpoint(tmp_path / "model.safetensors", plan)
    write_tree(tmp_path / "foreign", "something", {"a": torch.zeros(1)}, {})
    with pytest.raises(RefusedFile, match="something"):
        load_checkpoint(tmp_path / "foreign", plan)
    with pytest.raises(RefusedFile, match="no such file"):
        load_checkpoint(tmp_path / "absent", plan)


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_epochs_may_be_added_where_the_schedule_does_not_know_the_end(
    splits, name, tmp_path
) -> None:
    path = tmp_path / "last.safetensors"
    schedule = ScheduleSettings(name=name, warmup_steps=2)
    short, long = (
        plan_training(splits, with_train(schedule=schedule, epochs=epochs), provenance=ORIGIN)
        for epochs in (2, 4)
    )
    save_checkpoint(path, short, run(short))
    extended = run(long, load_checkpoint(path, long))
    assert extended.epoch == 4
    assert same_state(extended, run(long))


def test_epochs_may_not_be_added_to_a_cosine(splits, tmp_path) -> None:
    path = tmp_path / "last.safetensors"
    schedule = ScheduleSettings(name="cosine")
    short, long = (
        plan_training(splits, with_train(schedule=schedule, epochs=epochs)) for epochs in (2, 4)
    )
    save_checkpoint(path, short, start(short))
    with pytest.raises(RefusedFile, match=r"train\.epochs was 2 and is now 4"):
        load_checkpoint(path, long)
    load_checkpoint(path, short)


def test_epochs_may_not_be_added_after_an_extra_validation(splits, tmp_path) -> None:
    """Epoch 3 is validated because it is the last; a run of 5 would not have looked at it."""
    path = tmp_path / "last.safetensors"
    short, even, long = (
        plan_training(splits, with_train(validate_every=2, epochs=epochs)) for epochs in (3, 4, 5)
    )
    save_checkpoint(path, short, start(short))
    with pytest.raises(RefusedFile, match=r"train\.epochs was 3 and is now 5"):
        load_checkpoint(path, long)
    longer = plan_training(splits, with_train(validate_every=2, epochs=6))
    save_checkpoint(path, even, start(even))
    load_checkpoint(path, longer)


# --- the log --------------------------------------------------------------------------------


def read_log(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_log_has_a_row_per_epoch_and_a_column_per_number(tmp_path) -> None:
    history = [
        {"epoch": 1.0, "train_energy": 0.5},
        {"epoch": 2.0, "train_energy": 0.25, "valid_total": 1e-7},
    ]
    write_log(tmp_path / "log.csv", history)
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines == ["epoch,train_energy,valid_total", "1.0,0.5,", "2.0,0.25,1e-07"]


def test_log_of_a_run(trained, tmp_path) -> None:
    _, state = trained
    write_log(tmp_path / "log.csv", state.history)
    rows = read_log(tmp_path / "log.csv")
    assert [float(row["epoch"]) for row in rows] == [1.0, 2.0]
    assert {"seconds", "train_energy", "train_forces", "valid_total"} <= rows[0].keys()
    assert float(rows[1]["valid_forces_mae"]) == state.history[1]["valid_forces_mae"]


def test_log_of_nothing(tmp_path) -> None:
    write_log(tmp_path / "log.csv", [])
    assert read_log(tmp_path / "log.csv") == []
