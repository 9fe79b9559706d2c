import pytest

from surefoot.active.rules import MissingFigure, Rules, why_end

FIGURES = {"energy_rmse": 2.0, "forces_rmse": 40.0, "forces_std": 50.0}


@pytest.mark.parametrize(
    ("rules", "labelled", "seconds", "sentence"),
    [
        (Rules(forces_rmse=41.0), 0, 0, "reached: forces_rmse 40 meV/Å"),
        (Rules(forces_rmse=41.0, energy_rmse=1.0), 0, 0, None),
        (Rules(forces_std=60.0), 0, 0, "reached: forces_std"),
        (Rules(labels=30), 30, 0, "30 structures are labelled"),
        (Rules(labels=30), 29, 0, None),
        (Rules(hours=1.0), 0, 3600, "hours are spent"),
        (Rules(rounds=1), 0, 0, None),
    ],
)
def test_what_ends_a_campaign(
    rules: Rules, labelled: int, seconds: int, sentence: str | None
) -> None:
    found = why_end(rules, [FIGURES], labelled, float(seconds))
    if sentence is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(sentence) or sentence in found


def test_rounds_are_counted() -> None:
    assert why_end(Rules(rounds=2), [FIGURES] * 2, 0, 0.0) is None
    assert why_end(Rules(rounds=2), [FIGURES] * 3, 0, 0.0) == "2 rounds are done"


def test_patience_waits_for_a_gain() -> None:
    rules = Rules(rounds=100, patience=2, gain=0.05)

    def history(*errors: float) -> list[dict[str, float]]:
        return [{"forces_rmse": float(error)} for error in errors]

    assert why_end(rules, history(100, 99, 98), 0, 0.0) == (
        "no gain of 5% in the forces in 2 rounds"
    )
    assert why_end(rules, history(100, 99, 94), 0, 0.0) is None
    assert why_end(rules, history(100, 80), 0, 0.0) is None


def test_a_goal_that_nothing_shows_is_a_sentence() -> None:
    with pytest.raises(MissingFigure, match="`barrier_mae` is to be reached"):
        why_end(Rules(barrier_mae=1.0), [FIGURES], 0, 0.0)
