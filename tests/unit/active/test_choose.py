from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from pydantic import ValidationError

from surefoot.active.acquisition import NoScore
from surefoot.active.choose import (
    WAYS,
    Acquire,
    NothingToChoose,
    _refuse,
    _segments,
    choose,
)
from surefoot.active.diversity import SAME, describe_structures, nearest_distances, whiten
from surefoot.data.convert import Sample
from surefoot.posteriors.judge import predict_samples
from surefoot.posteriors.predictor import Predictor, with_gate


@pytest.mark.parametrize("diversity", ["farthest_point", "determinantal", "none"])
@pytest.mark.parametrize("way", sorted(set(WAYS) - {"categorical_bald"}))
def test_every_way_chooses_different_structures(
    predictor: Predictor,
    rattled: Callable[[int, float], list[Sample]],
    rng: np.random.Generator,
    way: str,
    diversity: str,
) -> None:
    known, pool = rattled(24, 0.02), rattled(12, 0.1)
    aside = np.arange(24) < 10
    settings = Acquire(by=(way,), count=5, diversity=diversity)
    chosen = choose(with_gate(predictor, known, aside), pool, known, settings, rng)
    assert len(set(chosen.indices.tolist())) == 5
    assert chosen.by == [way] * 5
    if way in chosen.scores:
        assert np.isfinite(chosen.scores[way]).all()
        if diversity == "none":
            order = np.sort(chosen.scores[way])[::-1][:5]
            np.testing.assert_allclose(chosen.scores[way][chosen.indices], order)


def test_ways_take_turns(
    predictor: Predictor, rattled: Callable[[int, float], list[Sample]], rng: np.random.Generator
) -> None:
    settings = Acquire(by=("bald_energy", "bald_forces", "random"), count=8)
    chosen = choose(predictor, rattled(30, 0.1), rattled(5, 0.02), settings, rng)
    assert chosen.by == ["bald_energy"] * 3 + ["bald_forces"] * 3 + ["random"] * 2
    assert len(set(chosen.indices.tolist())) == 8


def test_what_is_known_or_repeated_is_never_chosen(
    predictor: Predictor,
    rattled: Callable[[int, float], list[Sample]],
    to_sample: Callable[[Atoms], Sample],
    rng: np.random.Generator,
) -> None:
    known, fresh = rattled(6, 0.05), rattled(4, 0.1)
    turned = []
    for sample in fresh:  # the same structure elsewhere in space is no other one
        atoms = Atoms(sample.graph.numbers.numpy(), sample.graph.positions.numpy())
        atoms.rotate(50, (1, 2, 3))
        atoms.translate((1.0, -2.0, 0.5))
        turned.append(to_sample(atoms))
    pool = [*known, *fresh, *fresh, *turned]
    chosen = choose(predictor, pool, known, Acquire(by=("random",), count=16), rng)
    assert sorted(chosen.indices.tolist()) == [6, 7, 8, 9]
    assert chosen.refused == {"known already, or the same as another candidate": 14}
    assert np.isnan(chosen.scores["random"][:6]).all()


def test_trust_has_a_lower_and_an_upper_limit(
    predictor: Predictor, rattled: Callable[[int, float], list[Sample]], rng: np.random.Generator
) -> None:
    pool = rattled(30, 0.1)
    everything = choose(predictor, pool, [], Acquire(by=("forces_variance",), count=30), rng)
    worst = np.sqrt(everything.scores["forces_variance"])
    low, high = np.quantile(worst, [0.2, 0.7])
    settings = Acquire(by=("random",), count=30, lowest=low, highest=high)
    chosen = choose(predictor, pool, [], settings, rng)
    inside = (worst >= low) & (worst <= high)
    assert set(chosen.indices.tolist()) == set(np.flatnonzero(inside).tolist())
    assert sum(chosen.refused.values()) == (~inside).sum()
    with pytest.raises(NothingToChoose, match="30: nothing to learn"):
        choose(predictor, pool, [], Acquire(by=("random",), lowest=1e6), rng)
    with pytest.raises(NoScore, match="no gate"):
        choose(predictor, pool, [], Acquire(by=("random",), highest_ood=3.0), rng)


def test_the_same_seed_chooses_the_same(
    predictor: Predictor, rattled: Callable[[int, float], list[Sample]]
) -> None:
    pool = rattled(20, 0.1)
    settings = Acquire(by=("random", "bald_forces"), count=7)
    both = [choose(predictor, pool, pool[:2], settings, np.random.default_rng(5)) for _ in range(2)]
    assert both[0].indices.tolist() == both[1].indices.tolist()


def test_turned_structures_have_the_same_features(
    predictor: Predictor,
    rattled: Callable[[int, float], list[Sample]],
    to_sample: Callable[[Atoms], Sample],
) -> None:
    samples = rattled(5, 0.1)
    atoms = Atoms(samples[0].graph.numbers.numpy(), samples[0].graph.positions.numpy())
    atoms.rotate(40, (1, 1, 0))
    rows = whiten(describe_structures(predictor, [*samples, to_sample(atoms)]))
    assert nearest_distances(rows[5:], rows[:1])[0] < SAME
    assert nearest_distances(rows[1:5], rows[:1]).min() > 10 * SAME


def test_an_empty_pool_is_a_sentence(predictor: Predictor, rng: np.random.Generator) -> None:
    with pytest.raises(NothingToChoose, match="no candidates"):
        choose(predictor, [], [], Acquire(), rng)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"by": "bold"}, "there is no way 'bold'"),
        ({"by": []}, "names nothing"),
        ({"lowest": 2.0, "highest": 1.0}, "not above"),
    ],
)
def test_settings_that_can_not_be(content: dict, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Acquire.model_validate(content)


def test_what_judges_keeps_nothing_away(
    predictor: Predictor, rattled: Callable[[int, float], list[Sample]], rng: np.random.Generator
) -> None:
    known, pool, test = rattled(5, 0.05), rattled(15, 0.1), rattled(5, 0.1)
    settings = Acquire(by=("farthest_point",), count=6)
    alone = choose(predictor, pool, known, settings, rng)
    beside = choose(predictor, pool, known, settings, rng, forbidden=test)
    np.testing.assert_allclose(beside.distances, alone.distances, rtol=1e-5)
    assert beside.indices.tolist() == alone.indices.tolist()
    among = choose(predictor, [*pool, *test], known, settings, rng, forbidden=test)
    assert among.refused == {"known already, or the same as another candidate": 5}
    assert max(among.indices) < len(pool)


def test_unknown_elements_are_refused(
    predictor: Predictor,
    rattled: Callable[[int, float], list[Sample]],
    to_sample: Callable[[Atoms], Sample],
    rng: np.random.Generator,
) -> None:
    pool = [to_sample(molecule("CH3Cl")), *rattled(3, 0.1)]
    chosen = choose(predictor, pool, [], Acquire(count=2), rng)
    assert chosen.refused == {"element Cl is unknown to the potential": 1}
    assert 0 not in chosen.indices
    assert np.isnan(chosen.distances[0])
    with pytest.raises(NothingToChoose, match="1: element Cl is unknown"):
        choose(predictor, pool[:1], [], Acquire(), rng)


def test_what_has_exploded_does_not_make_others_alike(
    predictor: Predictor,
    rattled: Callable[[int, float], list[Sample]],
    to_sample: Callable[[Atoms], Sample],
    rng: np.random.Generator,
) -> None:
    pool = rattled(8, 0.1)
    atoms = Atoms(pool[0].graph.numbers.numpy(), pool[0].graph.positions.numpy() * 0.2)
    settings = Acquire(by=("forces_variance",), count=4)
    alone = choose(predictor, pool, [], settings, rng)
    limit = 1.01 * np.sqrt(alone.scores["forces_variance"].max())
    limited = settings.model_copy(update={"highest": float(limit)})
    beside = choose(predictor, [to_sample(atoms), *pool], [], limited, rng)
    assert sum(beside.refused.values()) == 1
    assert (beside.indices - 1).tolist() == alone.indices.tolist()


def test_a_variance_that_is_no_number_is_refused(
    predictor: Predictor, rattled: Callable[[int, float], list[Sample]]
) -> None:
    judged = predict_samples(predictor, rattled(3, 0.1))
    forces = judged.prediction.forces
    assert forces is not None
    assert forces.aleatoric is not None
    forces.aleatoric[10, 0, 0] = np.inf  # an atom of the second structure
    reasons = _refuse(judged.prediction, _segments(judged.sizes), Acquire())
    assert [bool(reason) for reason in reasons] == [False, True, False]
