import math

import pytest

from surefoot.train.schedule import Plateau, ScheduleSettings, observe, rate_share


def share(step: int, plateau: Plateau | None = None, **settings) -> float:
    return rate_share(step, 100, plateau or Plateau(), ScheduleSettings(**settings))


@pytest.mark.parametrize("name", ["constant", "cosine", "plateau"])
def test_warmup_rises_in_equal_steps(name) -> None:
    settings = {"name": name, "final": 1.0, "warmup_steps": 4}
    shares = [share(step, **settings) for step in range(6)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_constant_stays() -> None:
    assert {share(step, name="constant", warmup_steps=0) for step in range(100)} == {1.0}


def test_cosine_falls_from_one_to_final() -> None:
    settings = {"name": "cosine", "warmup_steps": 0, "final": 0.1}
    shares = [share(step, **settings) for step in range(0, 101, 25)]
    quarter = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    assert shares == pytest.approx([1.0, quarter, 0.55, 1.1 - quarter, 0.1])
    assert share(500, **settings) == pytest.approx(0.1)


def test_plateau_uses_what_it_remembers() -> None:
    assert share(50, Plateau(share=0.3), name="plateau", warmup_steps=0) == 0.3


def run(losses: list[float], **settings) -> Plateau:
    plateau = Plateau()
    for loss in losses:
        plateau = observe(plateau, loss, ScheduleSettings(**settings))
    return plateau


def test_gain_keeps_the_share() -> None:
    plateau = run([3.0, 2.0, 1.0], name="plateau", patience=1)
    assert (plateau.share, plateau.best, plateau.stale) == (1.0, 1.0, 0)


def test_share_falls_after_patience_and_waits_anew() -> None:
    settings = {"name": "plateau", "patience": 2, "factor": 0.5, "final": 0.2}
    assert run([1.0] * 3, **settings).share == 1.0
    assert run([1.0] * 4, **settings).share == 0.5
    assert run([1.0] * 6, **settings).share == 0.5
    assert run([1.0] * 7, **settings).share == 0.25
    assert run([1.0] * 30, **settings).share == 0.2


@pytest.mark.parametrize("name", ["constant", "cosine", "plateau"])
def test_validations_without_gain_are_counted_whatever_the_schedule(name) -> None:
    """Early stopping reads this count, so a falling rate must not reset it."""
    assert run([1.0] + [2.0] * 25, name=name, patience=3).stale == 25
    assert run([1.0] + [2.0] * 25 + [0.5], name=name, patience=3).stale == 0


def test_other_schedules_keep_their_share() -> None:
    assert run([1.0] * 50, name="cosine", patience=1).share == 1.0


def test_steps_multiply_the_rate_from_each_milestone_on() -> None:
    """The warm-up of OC20's recipes begins at a fifth of the rate."""
    settings = {
        "name": "steps",
        "warmup_steps": 4,
        "warmup_from": 0.2,
        "milestones": [6, 9],
        "factor": 0.3,
    }
    shares = [share(step, **settings) for step in (0, 1, 2, 3, 5, 6, 8, 9, 1000)]
    assert shares == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0, 0.3, 0.3, 0.09, 0.09])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "steps"}, "belong together"),
        ({"milestones": [3]}, "belong together"),
        ({"name": "steps", "milestones": [3, 3]}, "rise from 1"),
        ({"name": "steps", "milestones": [5, 3]}, "rise from 1"),
        ({"name": "steps", "milestones": [0, 3]}, "rise from 1"),
    ],
)
def test_milestones_that_make_no_sense(settings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScheduleSettings(**settings)
