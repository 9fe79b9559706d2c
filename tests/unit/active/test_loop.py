"""A whole campaign on springs: what it learns, what it leaves, and what interruptions change."""

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from surefoot.active.campaign import Again, Campaign, Overlap, Told
from surefoot.active.choose import Acquire, NothingToChoose
from surefoot.active.explore import Molecular, Pool, Rattle
from surefoot.active.explore.explorer import Interrupted, Scene
from surefoot.active.folder import OtherCampaign, find_rounds, hold, read_json
from surefoot.active.loop import preview, run
from surefoot.active.rules import Rules
from surefoot.active.teach import hash_structures
from surefoot.blocks.conditioning import Conditioning
from surefoot.data.read import Frame, Keys, read_frames
from surefoot.label.labeler import LabelingFailed, NotSettled
from surefoot.posteriors.predictor import load_predictor
from surefoot.posteriors.start import StartSettings
from surefoot.posteriors.swag import SwagSettings


class Killed(BaseException):
    """What no one catches."""


def outcome(folder: Path) -> dict[str, Any]:
    """All that a campaign has decided, and the weights of each round."""
    rounds = {}
    for one in find_rounds(folder):
        weights = load_predictor(one.training / "potential.safetensors").weights
        rounds[one.number] = {
            "figures": read_json(one.figures),
            "weights": {name: value.tolist() for name, value in weights.items()},
            "choice": read_json(one.choice) if one.choice.exists() else None,
            "labels": one.labels.read_text() if one.labels.exists() else None,
        }
    return rounds


def test_rounds_learn_what_was_labelled(
    make: Callable[..., Campaign], springs: Callable[..., Any]
) -> None:
    campaign = make()
    found = run(campaign)
    assert found.ended == "2 rounds are done"
    assert [one["round"] for one in found.rounds] == [0, 1, 2]
    assert [one["labelled"] for one in found.rounds] == [6, 6, 0]
    assert found.potential is not None
    potential = load_predictor(found.potential)
    assert potential.learnt is not None
    labels = read_frames(
        [one.labels for one in find_rounds(campaign.folder) if one.labels.exists()]
    )
    seen = potential.learnt.find(hash_structures(labels)).any(0)
    # What is set aside judges, and the rest is learnt from.
    assert 0 < (~seen).sum() < 6
    assert seen.sum() >= 6
    assert not potential.learnt.find(hash_structures(campaign.splits.test)).any()
    hashes = hash_structures([*labels, *campaign.splits.train, *campaign.splits.test])
    assert len(set(hashes.tolist())) == len(hashes)
    for frame in labels:
        expected = springs().label(frame.atoms, 0, 1)
        assert frame.energy == pytest.approx(expected.energy, abs=1e-9)


@pytest.mark.slow
def test_interruptions_change_nothing(
    make: Callable[..., Campaign], tmp_path: Path, springs: Callable[..., Any]
) -> None:
    whole = make(folder=tmp_path / "whole", rules=Rules(rounds=1))
    run(whole)
    labeler = springs()
    broken = make(folder=tmp_path / "broken", rules=Rules(rounds=1), labeler=labeler)
    asked = 0

    def ask() -> bool:
        nonlocal asked
        asked += 1
        return asked % 4 == 0

    stopped = replace(broken, told=Told(asked=ask))
    turns = 0
    while run(stopped).ended is None:
        turns += 1
        assert turns < 100
    assert turns > 3
    assert outcome(broken.folder) == outcome(whole.folder)
    assert labeler.calls == 6  # nothing is calculated twice


def test_the_next_choice_is_shown_and_nothing_written(make: Callable[..., Campaign]) -> None:
    campaign = make()
    assert preview(campaign) is None
    steps = 0

    def stop_after_training() -> bool:
        nonlocal steps
        steps += 1
        return (campaign.folder / "rounds" / "000" / "figures.json").exists()

    assert run(replace(campaign, told=Told(asked=stop_after_training))).ended is None
    before = sorted(path for path in campaign.folder.rglob("*"))
    shown = preview(campaign)
    assert sorted(path for path in campaign.folder.rglob("*")) == before
    assert shown is not None
    run(campaign)
    choice = read_json(find_rounds(campaign.folder)[0].choice)
    assert [one["candidate"] for one in choice["chosen"]] == shown.chosen.indices.tolist()


def test_a_folder_belongs_to_one_process(make: Callable[..., Campaign]) -> None:
    campaign = make()
    with hold(campaign.folder), pytest.raises(OtherCampaign, match="another process"):
        run(campaign)


def test_what_may_not_change_is_refused(make: Callable[..., Campaign]) -> None:
    campaign = make(rules=Rules(rounds=1))
    run(campaign)
    with pytest.raises(OtherCampaign, match="`acquire` differs"):
        run(replace(campaign, acquire=Acquire(by=("random",), count=6)))
    more = run(replace(campaign, rules=Rules(rounds=5)))
    assert more.ended == "1 rounds are done"  # what has ended stays so


def test_a_folder_of_something_else_is_refused(make: Callable[..., Campaign]) -> None:
    campaign = make()
    campaign.folder.mkdir()
    (campaign.folder / "thesis.tex").write_text("…")
    with pytest.raises(OtherCampaign, match=r"it holds thesis\.tex"):
        run(campaign)


def test_test_frames_in_the_pool_are_refused(make: Callable[..., Campaign], tmp_path: Path) -> None:
    pool = Pool(files=(str(tmp_path / "pool.xyz"), str(tmp_path / "test.xyz")))
    with pytest.raises(
        Overlap, match=r"the pool and the test frames share 6 structures, .*test\.xyz"
    ):
        run(make(explorers=(pool,)))
    splits = make().splits
    with pytest.raises(Overlap, match="the first frames and the test frames share 1"):
        run(make(splits=replace(splits, test=[splits.train[0]])))
    with pytest.raises(ValueError, match="needs frames that judge"):
        run(make(splits=replace(splits, test=[])))


def test_a_labeler_that_fails_always_ends_with_the_commonest_reason(
    make: Callable[..., Campaign], springs: Callable[..., Any]
) -> None:
    labeler = springs(fails=lambda atoms: "no licence" if atoms.positions[0, 0] > -1 else None)
    campaign = make(labeler=labeler)
    with pytest.raises(LabelingFailed, match=r"none of the 6 structures of round 0 .* no licence"):
        run(campaign)
    labeler.fails = lambda _: None
    # The reason lay in the structures, as far as a labeler can tell: it is remembered.
    with pytest.raises(LabelingFailed, match="no licence"):
        run(campaign)


def test_what_fails_is_not_chosen_again(
    make: Callable[..., Campaign], springs: Callable[..., Any]
) -> None:
    labeler = springs(fails=lambda atoms: "odd" if atoms.positions[0, 0] > 0 else None)
    campaign = make(labeler=labeler)
    found = run(campaign)
    assert found.ended == "2 rounds are done"
    chosen = [one.chosen for one in find_rounds(campaign.folder) if one.chosen.exists()]
    frames = read_frames(chosen, Keys(energy="none", forces="none"))
    hashes = hash_structures(frames).tolist()
    assert len(hashes) == len(set(hashes)) == 12
    assert 0 < sum(one["labelled"] for one in found.rounds) < 12


def test_accidents_are_tried_again(
    make: Callable[..., Campaign], springs: Callable[..., Any]
) -> None:
    labeler = springs(accidents={2: NotSettled("the node went away")})
    found = run(make(labeler=labeler, rules=Rules(rounds=1)))
    assert [one["labelled"] for one in found.rounds] == [6, 0]
    assert labeler.calls == 7


def test_an_exhausted_pool_ends_it(make: Callable[..., Campaign], tmp_path: Path) -> None:
    pool = Pool(files=(str(tmp_path / "pool.xyz"),))
    campaign = make(
        explorers=(pool,), acquire=Acquire(by="random", count=25), rules=Rules(rounds=9)
    )
    found = run(campaign)
    assert [one["labelled"] for one in found.rounds] == [25, 15, 0]
    assert found.ended is not None
    assert found.ended.startswith("nothing is left to be labelled: none of 40 candidates is left")
    with pytest.raises(NothingToChoose):
        preview(campaign)


@pytest.mark.slow
def test_dynamics_find_new_structures(make: Callable[..., Campaign]) -> None:
    runs = Molecular(runs=3, steps=40, every=10, guard=None, temperatures=(200.0,))
    campaign = make(explorers=(runs,), rules=Rules(rounds=1), acquire=Acquire(by="random", count=4))
    found = run(campaign)
    assert [one["labelled"] for one in found.rounds] == [4, 0]
    first = find_rounds(campaign.folder)[0]
    assert read_json(first.choice)["found_by"] == {"dynamics": 12}
    assert not first.exploration.exists()


def test_from_scratch_begins_anew(make: Callable[..., Campaign]) -> None:
    campaign = make(again=Again(begin="scratch"), rules=Rules(rounds=1))
    found = run(campaign)
    assert found.potential is not None
    assert "began_from" not in load_predictor(found.potential).provenance
    warm = make(folder=campaign.folder.with_name("warm"), rules=Rules(rounds=1))
    found = run(warm)
    assert found.potential is not None
    assert "began_from" in load_predictor(found.potential).provenance


@dataclass
class Watched:
    """An explorer that notes how it is called, and may be interrupted."""

    interrupted: bool = False
    threads: int = 0
    starts: int = 0
    name: str = "watched"

    def explore(self, scene: Scene) -> list[Atoms]:
        if self.interrupted:
            raise Interrupted
        self.threads, self.starts = torch.get_num_threads(), len(scene.starts)
        return Rattle(count=8).explore(scene)


def test_an_interrupted_exploration_goes_on(make: Callable[..., Campaign]) -> None:
    explorer = Watched(interrupted=True)
    campaign = make(explorers=(explorer,), rules=Rules(rounds=1))
    assert run(campaign).ended is None
    explorer.interrupted = False
    assert run(campaign).ended == "1 rounds are done"


def test_a_finished_training_leaves_the_same_threads(make: Callable[..., Campaign]) -> None:
    threads, explorer = torch.get_num_threads(), Watched(interrupted=True)
    campaign = make(explorers=(explorer,), rules=Rules(rounds=1))
    try:
        run(campaign)
        torch.set_num_threads(2)  # a new process begins with its own number
        explorer.interrupted = False
        run(campaign)
    finally:
        torch.set_num_threads(threads)
    assert explorer.threads == 1


def test_explorations_do_not_begin_from_what_judges(make: Callable[..., Campaign]) -> None:
    explorer = Watched()
    run(make(explorers=(explorer,), rules=Rules(rounds=1)))
    assert explorer.starts == 9


def test_what_a_killed_process_left_is_no_stranger(make: Callable[..., Campaign]) -> None:
    campaign = make(rules=Rules(rounds=1))
    campaign.folder.mkdir()
    (campaign.folder / ".campaign.json.x1y2").write_text("{")
    assert run(campaign).ended == "1 rounds are done"


def test_a_kill_between_two_tries_loses_no_label(
    make: Callable[..., Campaign], springs: Callable[..., Any]
) -> None:
    labeler = springs(accidents={2: NotSettled("the node went away"), 7: Killed()})
    campaign = make(labeler=labeler, rules=Rules(rounds=1))
    with pytest.raises(Killed):
        run(campaign)
    assert [one["labelled"] for one in run(campaign).rounds] == [6, 0]
    assert labeler.calls == 8


class Broken(Executor):
    """Whose process has died."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ARG002
        raise BrokenExecutor("a process died")


@dataclass
class Fragile:
    """An engine whose first executors are broken."""

    broken: int
    opened: int = 0
    name: str = "fragile"

    @contextmanager
    def open(self, folder: Path) -> Iterator[Executor]:  # noqa: ARG002
        self.opened += 1
        with ThreadPoolExecutor(1) as pool:
            yield Broken() if self.opened <= self.broken else pool


def test_a_broken_engine_is_opened_again(make: Callable[..., Campaign]) -> None:
    engine = Fragile(broken=1)
    found = run(make(engine=engine, rules=Rules(rounds=1)))
    assert [one["labelled"] for one in found.rounds] == [6, 0]
    assert engine.opened == 2
    other = make(folder=make().folder.with_name("other"), engine=Fragile(broken=9))
    with pytest.raises(LabelingFailed, match="A worker process died"):
        run(other)


def test_trainings_run_in_the_engine(make: Callable[..., Campaign]) -> None:
    again = Again(train_on="engine", valid=0.2, epochs=1)
    campaign = make(again=again, rules=Rules(rounds=1), engine=Fragile(broken=1))
    with pytest.raises(OSError, match="the process of this training died"):
        run(campaign)
    assert run(campaign).ended == "1 rounds are done"
    engine = Fragile(broken=0)
    other = make(folder=campaign.folder.with_name("asked"), again=again, engine=engine)
    assert run(replace(other, told=Told(asked=lambda: engine.opened > 0))).ended is None


def unstated(frames: list[Frame]) -> list[Frame]:
    return [replace(frame, charge=None, spin=None) for frame in frames]


def test_states_that_nobody_states_are_those_of_the_config(make: Callable[..., Campaign]) -> None:
    campaign = make(rules=Rules(rounds=1), explorers=(Rattle(count=8),))
    splits = campaign.splits
    splits = replace(splits, train=unstated(splits.train), valid=unstated(splits.valid))
    parts = replace(campaign.parts, conditioning=Conditioning(name="charge_spin"))
    campaign = replace(campaign, splits=splits, parts=parts)
    with pytest.raises(ValueError, match=r"the charge is not stated, .* `again: \{charge: 0"):
        run(campaign)
    with pytest.raises(ValueError, match="spin 2"):
        run(replace(campaign, again=Again(charge=0, spin=2)))
    found = run(replace(campaign, again=Again(charge=0, spin=1, epochs=1)))
    assert found.ended == "1 rounds are done"


def test_test_frames_are_found_whatever_states_they_state(make: Callable[..., Campaign]) -> None:
    splits = make().splits
    hidden = replace(splits, train=[*splits.train, *unstated(splits.test[:1])])
    with pytest.raises(Overlap, match="share 1"):
        run(make(splits=hidden))
    charged = [replace(splits.test[0], charge=1, spin=2)]
    other = replace(splits, train=[*splits.train, *charged])
    assert run(make(splits=other, rules=Rules(rounds=1))).ended is not None


def test_a_budget_of_labels_is_kept(make: Callable[..., Campaign]) -> None:
    found = run(make(rules=Rules(rounds=5, labels=8)))
    assert [one["labelled"] for one in found.rounds] == [6, 2, 0]


def test_what_no_round_can_go_on_from_is_refused_at_once(make: Callable[..., Campaign]) -> None:
    campaign = make()
    parts = replace(campaign.parts, posterior=SwagSettings())
    with pytest.raises(ValueError, match=r"posterior: \{name: swag\} keeps none"):
        run(replace(campaign, parts=parts))
    for change in (
        {"acquire": Acquire(by=("latent_distance",))},
        {"acquire": Acquire(highest_ood=3.0)},
        {"explorers": (Molecular(),)},
    ):
        with pytest.raises(ValueError, match="10 frames that are set aside, and there are 3"):
            run(make(**change))
    assert not campaign.folder.exists()


def test_a_beginning_that_has_learnt_from_test_frames_is_refused(
    make: Callable[..., Campaign],
) -> None:
    first = make(rules=Rules(rounds=1))
    found = run(first)
    splits = replace(first.splits, test=first.splits.train[:4], train=first.splits.test)
    parts = replace(first.parts, start=StartSettings(potential=str(found.potential)))
    with pytest.raises(Overlap, match="has learnt from 4 of the test frames"):
        run(make(folder=first.folder.with_name("second"), splits=splits, parts=parts))


def test_other_forces_are_another_campaign(make: Callable[..., Campaign]) -> None:
    campaign = make(rules=Rules(rounds=1))
    run(campaign)
    splits = campaign.splits
    changed = [replace(one, forces=2 * np.asarray(one.forces)) for one in splits.train]
    with pytest.raises(OtherCampaign, match="`data` differs"):
        run(replace(campaign, splits=replace(splits, train=changed)))
    with pytest.raises(OtherCampaign, match="`scale` differs"):
        run(replace(campaign, scale=2.0))


def test_structures_that_have_exploded_are_left_out(make: Callable[..., Campaign]) -> None:
    @dataclass
    class Bursting(Watched):
        def explore(self, scene: Scene) -> list[Atoms]:
            lost, met = scene.starts[0].copy(), scene.starts[1].copy()
            lost.positions[0] = np.nan
            met.positions[1] = met.positions[0]
            return [lost, met, *super().explore(scene)]

    said: list[str] = []
    told = Told(say=said.append)
    campaign = make(explorers=(Bursting(),), rules=Rules(rounds=1), told=told)
    assert run(campaign).ended == "1 rounds are done"
    assert any(line.startswith("2 structures of watched have exploded") for line in said)
