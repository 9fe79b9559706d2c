import numpy as np
import pytest

from surefoot.evaluate.failures import PERCENTILE, detect_failures


@pytest.fixture
def frames() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    outside = np.repeat([False, True], [300, 100])
    return {
        "errors": generator.lognormal(size=400) * (1.0 + 2.0 * outside),
        "outside": outside,
        "groups": np.arange(400) // 4,
    }


def detect(frames, scores):
    return detect_failures(frames["errors"], scores, frames["outside"], frames["groups"],
                           np.random.default_rng(1), draws=100)  # fmt: skip


def test_the_error_itself_is_perfect_and_noise_is_chance(frames) -> None:
    noise = np.random.default_rng(2).normal(size=400)
    found = detect(frames, {"errors": frames["errors"], "noise": noise})
    assert found.scores["errors"].failures.value == 1.0
    chance = found.scores["noise"]
    for estimate in (chance.failures, chance.strangers):
        assert estimate.value == pytest.approx(0.5, abs=0.1)
        assert 0.05 < estimate.interval.high - estimate.interval.low < 0.4
    assert 0.5 < found.scores["errors"].strangers.value < 1.0


def test_the_mixture_is_one_to_one(frames) -> None:
    found = detect(frames, {"errors": frames["errors"]})
    assert (found.inside, found.outside) == (100, 100)
    threshold = np.quantile(frames["errors"][:300], PERCENTILE)
    assert found.threshold == pytest.approx(threshold)
    assert found.failed_outside == np.sum(frames["errors"][300:] > threshold)
    assert found.failed_inside <= 15  # of the 100 that are taken 5 % are expected


def test_a_score_that_tells_kinds_apart_may_not_know_failures() -> None:
    """Errors of both kinds are alike, so knowing the kind is worth nothing."""
    generator = np.random.default_rng(3)
    outside = np.repeat([False, True], 500)
    found = detect_failures(
        generator.lognormal(size=1000),
        {"kind": outside + 0.1 * generator.normal(size=1000)},
        outside,
        np.arange(1000),
        generator,
        draws=50,
    )
    assert found.scores["kind"].strangers.value > 0.99
    assert found.scores["kind"].failures.value == pytest.approx(0.5, abs=0.1)


def test_one_part_alone_is_refused(frames) -> None:
    with pytest.raises(ValueError, match="400 structures in distribution and 0 out of it"):
        detect({**frames, "outside": np.zeros(400, bool)}, {"errors": frames["errors"]})


def test_a_lead_is_that_of_the_same_draws(frames) -> None:
    """Two scores that mistake the same structures: the lead is known better than either AUROC."""
    generator = np.random.default_rng(4)
    blurred = np.log(frames["errors"]) + generator.normal(size=400)
    worse = blurred + 0.3 * generator.normal(size=400)
    found = detect_failures(
        frames["errors"],
        {"score": blurred, "plain": worse, "same": blurred},
        frames["outside"],
        frames["groups"],
        np.random.default_rng(1),
        plain=("plain", "same", "absent"),
    ).scores
    lead = found["score"].over["plain"]
    assert lead.value == pytest.approx(
        found["score"].failures.value - found["plain"].failures.value
    )
    alone = found["score"].failures.interval
    assert lead.interval.high - lead.interval.low < 0.8 * (alone.high - alone.low)
    nothing = found["score"].over["same"]
    assert (nothing.value, nothing.interval.low, nothing.interval.high) == (0.0, 0.0, 0.0)
    assert found["score"].over.keys() == {"plain", "same"}
    assert found["plain"].over == {}
