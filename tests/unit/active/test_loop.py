"""A whole campaign on springs: what it learns, and what it leaves."""

from collections.abc import Callable
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
from surefoot.active.explore.explorer import Scene
from surefoot.active.folder import OtherCampaign, find_rounds, hold, read_json
from surefoot.active.loop import preview, run
from surefoot.active.rules import Rules
from surefoot.active.teach import hash_structures
from surefoot.blocks.conditioning import Conditioning
from surefoot.data.read import Frame, read_frames
from surefoot.lock import InUse
from surefoot.posteriors.predictor import load_predictor
from surefoot.posteriors.start import StartSettings
from surefoot.posteriors.swag import SwagSettings

from .conftest import Watched, outcome


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
    with hold(campaign.folder), pytest.raises(InUse, match="another process"):
        run(campaign)


def test_what_may_not_change_is_refused(make: Callable[..., Campaign]) -> None:
    campaign = make(rules=Rules(rounds=1))
    run(campaign)
    with pytest.raises(OtherCampaign, match="`acquire` differs"):
        run(replace(campaign, acquire=Acquire(by=("random",), count=6)))


def test_what_has_ended_goes_on_where_the_rules_allow_more(
    make: Callable[..., Campaign], springs: Callable[..., Any], tmp_path: Path
) -> None:
    labeler = springs()
    campaign = make(rules=Rules(rounds=1), labeler=labeler)
    assert run(campaign).ended == "1 rounds are done"
    before = outcome(campaign.folder)
    assert run(campaign).ended == "1 rounds are done"
    assert outcome(campaign.folder) == before
    more = run(replace(campaign, rules=Rules(rounds=2)))
    assert more.ended == "2 rounds are done"
    assert [one["labelled"] for one in more.rounds] == [6, 6, 0]
    assert labeler.calls == 12
    whole = make(folder=tmp_path / "whole", rules=Rules(rounds=2))
    run(whole)
    assert outcome(campaign.folder) == outcome(whole.folder)


def test_the_page_is_written_once_when_a_campaign_goes_on(
    make: Callable[..., Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make(rules=Rules(rounds=2))
    run(campaign)
    written: list[str | None] = []
    monkeypatch.setattr("surefoot.active.loop.write_report", lambda _, ended: written.append(ended))
    run(campaign)
    assert written == ["2 rounds are done"]


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
