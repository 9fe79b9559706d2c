"""What happens to a campaign on its way: kills, failures, broken engines, requests to stop."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms

from surefoot.active.campaign import Again, Campaign, Told
from surefoot.active.folder import (
    SUMS,
    OtherCampaign,
    find_rounds,
    open_round,
    read_json,
    read_structures,
)
from surefoot.active.loop import preview, run
from surefoot.active.rules import Rules
from surefoot.active.summary import SECONDS, count_seconds
from surefoot.active.teach import POTENTIAL, hash_structures
from surefoot.data.read import Keys, read_frames
from surefoot.label.labeler import LabelingFailed, NotSettled

from .conftest import Watched, outcome


class Killed(BaseException):
    """What no one catches."""


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


def test_labels_count_from_the_round_that_learns_from_them(
    make: Callable[..., Campaign], tmp_path: Path
) -> None:
    """A kill between the last label of a round and its end does not end it before its lesson."""
    campaign = make(rules=Rules(rounds=5, labels=6))
    whole = run(campaign)
    assert [one["labelled"] for one in whole.rounds] == [6, 0]
    shutil.rmtree(find_rounds(campaign.folder)[1].folder)
    find_rounds(campaign.folder)[0].summary.unlink()
    again = run(campaign)
    assert [one["labelled"] for one in again.rounds] == [6, 0]
    assert again.ended == whole.ended


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


def test_an_interrupted_exploration_goes_on(make: Callable[..., Campaign]) -> None:
    explorer = Watched(interrupted=True)
    campaign = make(explorers=(explorer,), rules=Rules(rounds=1))
    assert run(campaign).ended is None
    explorer.interrupted = False
    assert run(campaign).ended == "1 rounds are done"


def test_what_a_killed_process_left_is_no_stranger(make: Callable[..., Campaign]) -> None:
    campaign = make(rules=Rules(rounds=1))
    campaign.folder.mkdir()
    (campaign.folder / ".campaign.json.x1y2").write_text("{")
    assert run(campaign).ended == "1 rounds are done"


@pytest.mark.usefixtures("unchecked")
def test_what_is_not_as_it_was_written_is_refused(make: Callable[..., Campaign]) -> None:
    """A changed digit in a file of an earlier round would be learnt from."""
    campaign = make(rules=Rules(rounds=1))
    expected = run(campaign)
    first = find_rounds(campaign.folder)[0]
    files = (first.figures, first.candidates, first.choice, first.chosen, first.labels)
    for file in (*files, first.summary, first.training / POTENTIAL):
        content = file.read_bytes()
        file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        with pytest.raises(OtherCampaign, match=f"{file.name}: it is not as this campaign wrote"):
            run(campaign)
        file.unlink()
        if file != first.summary:
            with pytest.raises(OtherCampaign, match=f"{file.name}: it is missing"):
                preview(campaign)
        file.write_bytes(content)
    sums = first.folder / SUMS
    content = sums.read_bytes()
    sums.write_bytes(content[:-20])
    with pytest.raises(OtherCampaign, match=r"sums\.json: damaged"):
        run(campaign)
    sums.unlink()  # as in a campaign of an older version
    assert run(campaign).ended == expected.ended


@pytest.mark.usefixtures("unchecked")
def test_what_is_missing_in_a_round_that_goes_on_is_made_again(
    make: Callable[..., Campaign],
) -> None:
    campaign = make(rules=Rules(rounds=1))
    run(campaign)
    before = outcome(campaign.folder)
    first = find_rounds(campaign.folder)[0]
    candidates = first.candidates.read_bytes()
    for file in (first.figures, first.candidates, first.choice, first.summary):
        file.unlink()
    run(campaign)
    assert outcome(campaign.folder) == before
    assert first.candidates.read_bytes() == candidates


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


class Mortal(Executor):
    """Dies of some structures, and of all that it holds then."""

    def __init__(self, kills: Callable[[Atoms], bool]) -> None:
        self.kills, self.dead = kills, False

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.dead = self.dead or self.kills(args[0].atoms)
        if self.dead:
            future.set_exception(BrokenExecutor("a process died"))
        else:
            future.set_result(function(*args, **kwargs))
        return future


@dataclass
class Deadly:
    """An engine whose executors die of some structures."""

    kills: Callable[[Atoms], bool]
    name: str = "deadly"

    @contextmanager
    def open(self, folder: Path) -> Iterator[Executor]:  # noqa: ARG002
        yield Mortal(self.kills)


def test_what_kills_its_worker_is_given_up(
    make: Callable[..., Campaign], springs: Callable[..., Any]
) -> None:
    labeler = springs()
    engine = Deadly(lambda atoms: atoms.positions[0, 0] > 0)
    campaign = make(engine=engine, rules=Rules(rounds=1), labeler=labeler)
    found = run(campaign)
    first = find_rounds(campaign.folder)[0]
    chosen, labels = read_structures(first.chosen), read_structures(first.labels)
    assert len(chosen) == 6
    assert 0 < len(labels) == sum(atoms.positions[0, 0] <= 0 for atoms in chosen) < 6
    assert labeler.calls == len(labels)
    assert [one["labelled"] for one in found.rounds] == [len(labels), 0]
    reasons = {one["reason"] for one in read_json(first.labels.with_name("labels.xyz.failed.json"))}
    assert reasons == {"its worker process died, 2 times while nothing else was calculated"}


def test_workers_that_always_die_end_it(make: Callable[..., Campaign]) -> None:
    with pytest.raises(LabelingFailed, match="3 structures of round 0 have each ended several"):
        run(make(engine=Deadly(lambda _: True)))


def test_trainings_run_in_the_engine(make: Callable[..., Campaign]) -> None:
    again = Again(train_on="engine", valid=0.2, epochs=1)
    campaign = make(again=again, rules=Rules(rounds=1), engine=Fragile(broken=1))
    with pytest.raises(OSError, match="the process of this training died"):
        run(campaign)
    assert run(campaign).ended == "1 rounds are done"
    engine = Fragile(broken=0)
    other = make(folder=campaign.folder.with_name("asked"), again=again, engine=engine)
    assert run(replace(other, told=Told(asked=lambda: engine.opened > 0))).ended is None


@pytest.mark.parametrize(
    "text",
    ['{"train": null}', '{"train": [1]}', "[1]", '{"train": NaN}', f'{{"train": {10**400}}}'],
)
def test_seconds_that_are_none_are_refused_with_their_file(tmp_path: Path, text: str) -> None:
    file = open_round(tmp_path, 0).folder / SECONDS
    file.write_text(text)
    with pytest.raises(OtherCampaign, match="damaged") as caught:
        count_seconds(tmp_path)
    assert str(file) in str(caught.value)
