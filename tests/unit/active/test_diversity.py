import itertools

import numpy as np
import pytest

from surefoot.active.diversity import (
    determinantal_points,
    farthest_points,
    find_duplicates,
    nearest_distances,
    whiten,
)


def test_whitened_rows_have_a_typical_distance(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(500, 20)) * np.geomspace(1e-3, 1e3, 20) + 5.0
    rows[:, 3] = 0.7  # constant: it tells nothing apart
    white = whiten(rows)
    assert white.shape == (500, 19)
    first, second = white[::2], white[1::2]
    assert np.mean(((first - second) ** 2).sum(1)) == pytest.approx(2.0, rel=0.1)


def test_each_point_is_the_farthest(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(40, 3))
    known = rng.normal(size=(5, 3))
    distances = nearest_distances(rows, known)
    chosen = farthest_points(rows, 6, distances)
    assert len(set(chosen.tolist())) == 6
    for step in range(6):
        taken = np.vstack([known, rows[chosen[:step]]])
        away = np.linalg.norm(rows[:, None] - taken, axis=2).min(1)
        assert away[chosen[step]] == pytest.approx(away.max())
    assert farthest_points(rows, 3, distances, first=7)[0] == 7
    assert len(farthest_points(rows, 100, np.full(40, np.inf))) == 40


def test_the_determinant_is_the_largest_for_pairs(rng: np.random.Generator) -> None:
    """Of two points after the best one, greedy is exact: compare with all second choices."""
    rows, scores = rng.normal(size=(12, 2)), rng.uniform(0.2, 1.0, 12)
    chosen = determinantal_points(rows, scores, 2)
    assert chosen[0] == scores.argmax()
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(rows, 2)]
    length = np.median(pairs)
    best = int(chosen[0])

    def determinant(other: int) -> float:
        near = np.exp(-np.sum((rows[best] - rows[other]) ** 2) / (2 * length**2))
        return float(scores[best] ** 2 * scores[other] ** 2 * (1 - near**2))

    others = [index for index in range(12) if index != best]
    assert chosen[1] == max(others, key=determinant)


def test_determinants_go_down_one_by_one(rng: np.random.Generator) -> None:
    rows, scores = rng.normal(size=(30, 4)), np.ones(30)
    chosen = determinantal_points(rows, scores, 10)
    assert len(set(chosen.tolist())) == 10
    twins = np.vstack([rows[:3], rows[:3]])
    assert sorted(determinantal_points(twins, np.ones(6), 3) % 3) == [0, 1, 2]


def test_repeated_rows_are_found(rng: np.random.Generator) -> None:
    rows = whiten(rng.normal(size=(20, 5)))
    rows[7] = rows[2] + 1e-5
    rows[9] = rows[7]
    distances = np.full(20, 1.0)
    distances[4] = 1e-6  # known already
    assert np.flatnonzero(find_duplicates(rows, distances)).tolist() == [4, 7, 9]
    alike = np.zeros((3, 0))
    assert find_duplicates(alike, np.full(3, np.inf)).tolist() == [False, True, True]


def test_without_known_structures_all_are_far(rng: np.random.Generator) -> None:
    assert np.isinf(nearest_distances(rng.normal(size=(4, 2)), np.zeros((0, 2)))).all()


def test_distances_by_blocks_are_the_same(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, others = rng.normal(size=(23, 3)), rng.normal(size=(17, 3))
    expected = np.linalg.norm(rows[:, None] - others, axis=2).min(1)
    monkeypatch.setattr("surefoot.active.diversity.ROWS", 5)
    np.testing.assert_allclose(nearest_distances(rows, others), expected)


def test_repeated_rows_of_many_columns_are_found(rng: np.random.Generator) -> None:
    rows = whiten(rng.normal(size=(300, 60)))
    copies = rng.choice(300, 40, replace=False)
    rows = np.vstack([rows, rows[copies] + 1e-6, rows[:5] + 0.01])
    repeated = find_duplicates(rows, np.full(len(rows), np.inf))
    assert np.flatnonzero(repeated).tolist() == list(range(300, 340))


def test_a_determinant_of_zero_gives_no_fewer() -> None:
    rows = np.linspace(0.0, 1.0, 60)[:, None]  # a smooth kernel on a line has few eigenvalues
    chosen = determinantal_points(rows, np.linspace(0.5, 1.0, 60), 50)
    assert len(set(chosen.tolist())) == 50


def test_a_determinant_knows_what_is_in_it(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(20, 3))
    first = determinantal_points(rows, np.ones(20), 4)
    rest = np.setdiff1d(np.arange(20), first[:2])
    later = determinantal_points(rows[rest], np.ones(18), 2, rows[first[:2]])
    # The median distance is that of 18 instead of 20 rows.
    assert set(rest[later].tolist()) == set(first[2:].tolist())
    twin = determinantal_points(np.vstack([rows[0], rows[1]]), np.array([1.0, 0.9]), 1, rows[:1])
    assert twin.tolist() == [1]


def test_the_scale_of_features_is_that_of_what_is_measured(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(30, 4))
    far = np.vstack([rows, np.full((1, 4), 1e9)])
    np.testing.assert_allclose(whiten(far, far[:30])[:30], whiten(rows))
