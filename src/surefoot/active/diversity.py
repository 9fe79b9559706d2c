"""Structures that differ: batches by distance in the space of a model's invariant features.

A structure is the mean of its atoms' features by element, each column in units of its standard
deviation over what is compared, so that no distance grows with the size of a structure. What is
chosen by score alone is often the same structure many times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from surefoot.blocks.gate import atom_features
from surefoot.data.batches import EVALUATION, join, plan_batches
from surefoot.data.convert import Sample
from surefoot.posteriors.gate import first_draw
from surefoot.posteriors.predictor import Predictor
from surefoot.segments import group, segment_sum

SAME = 1e-3
"""Distance in standard deviations per root column below which two structures are one."""
VARIES = 1e-4  # of the largest value: what varies less in float32 is rounding
ROWS = 1000  # of a block of distances
AXES = 6  # in which pairs of equal rows are looked for
ROUNDING = 1e-12  # of its score: what is left of a row in a determinant that is zero


def describe_structures(
    predictor: Predictor,
    samples: Sequence[Sample],
    progress: Callable[[int], None] = lambda _: None,
) -> Float[np.ndarray, "samples width"]:
    """Means over atoms of the first draw's invariants, element by element, with the composition.

    Args:
        predictor: whose first draw gives the features.
        samples: structures.
        progress: called with the number of samples done since the last call.
    """
    weights, rows = first_draw(predictor.weights), []
    elements = len(predictor.potential.baseline.elements)
    for indices in plan_batches(samples, np.arange(len(samples)), EVALUATION):
        graph = join(samples, indices).graph
        with torch.no_grad():
            features = predictor.potential(weights, graph, forces=False).features
        if features is None:
            raise ValueError("the potential keeps no features; describe structures uncompiled.")
        values, species = atom_features(features), features.geometry.species
        kind = graph.graph_index * elements + species
        segments = group(kind, len(indices) * elements)
        counts = segments.offsets.diff()[:, None].double()
        means = segment_sum(values, segments) / counts.clamp(min=1.0)
        shares = counts.reshape(len(indices), elements)
        shares = shares / shares.sum(1, keepdim=True)
        rows.append(torch.cat([means.reshape(len(indices), -1), shares], 1))
        progress(len(indices))
    return torch.cat(rows).numpy()


def whiten(
    features: Float[np.ndarray, "rows width"],
    measured: Float[np.ndarray, "some width"] | None = None,
) -> Float[np.ndarray, "rows columns"]:
    """Columns in units of their standard deviation times √columns; constant ones are left out.

    The mean square distance of two rows is then 2.

    Args:
        features: finite.
        measured: rows that give mean and standard deviation; these ones where not given.
    """
    measured = features if measured is None else measured
    if not len(measured):
        return features[:, :0]
    spread, scale = measured.std(0), np.abs(measured).max(0)
    varies = spread > VARIES * np.maximum(scale, 1e-30)
    return (features[:, varies] - measured[:, varies].mean(0)) / (
        spread[varies] * np.sqrt(max(1, int(varies.sum())))
    )


def nearest_distances(
    rows: Float[np.ndarray, "rows width"], others: Float[np.ndarray, "others width"]
) -> Float[np.ndarray, " rows"]:
    """Distance of each row to the nearest of the others; infinite where there are none."""
    if not len(others):
        return np.full(len(rows), np.inf)
    from scipy.spatial.distance import cdist

    distances = np.full(len(rows), np.inf)
    for at in range(0, len(rows), ROWS):
        block = slice(at, at + ROWS)
        for other in range(0, len(others), ROWS):
            found = cdist(rows[block], others[other : other + ROWS]).min(1)
            distances[block] = np.minimum(distances[block], found)
    return distances


def find_duplicates(
    rows: Float[np.ndarray, "rows width"], distances: Float[np.ndarray, " rows"]
) -> np.ndarray:
    """Which rows repeat an earlier row, or what the distances are measured to.

    Args:
        rows: whitened.
        distances: of each to the nearest structure that is known already.
    """
    from scipy.spatial import KDTree

    repeated = distances < SAME
    if rows.shape[1] == 0 or not len(rows):
        return repeated | (np.arange(len(rows)) > 0)
    # A tree of all columns would look at every pair. No distance grows by a projection.
    axes = np.linalg.eigh(rows.T @ rows)[1][:, -AXES:]
    tree = KDTree(rows @ axes)
    for first in range(len(rows)):
        if repeated[first]:
            continue
        near = np.array(tree.query_ball_point(rows[first] @ axes, SAME))
        later = near[near > first]
        repeated[later[np.linalg.norm(rows[later] - rows[first], axis=1) < SAME]] = True
    return repeated


def farthest_points(
    rows: Float[np.ndarray, "rows width"],
    count: int,
    distances: Float[np.ndarray, " rows"],
    first: int | None = None,
) -> Int[np.ndarray, " chosen"]:
    """Rows chosen one by one, each the farthest from all that are known or chosen.

    Args:
        rows: whitened.
        count: how many.
        distances: of each to the nearest structure that is known already.
        first: the row to begin with; the farthest where not given.
    """
    distances = distances.copy()
    chosen: list[int] = []
    for _ in range(min(count, len(rows))):
        new = int(np.argmax(distances)) if chosen or first is None else first
        chosen.append(new)
        distances = np.minimum(distances, np.linalg.norm(rows - rows[new], axis=1))
        distances[chosen] = -1.0
    return np.array(chosen, int)


def determinantal_points(
    rows: Float[np.ndarray, "rows width"],
    scores: Float[np.ndarray, " rows"],
    count: int,
    taken: Float[np.ndarray, "taken width"] | None = None,
) -> Int[np.ndarray, " chosen"]:
    """The greedy largest determinant of a kernel of scores and similarity.

        L_ab = s_a s_b exp(−|x_a − x_b|² / 2ℓ²)

    with scores s between 0 and 1 and the median distance ℓ. Once the determinant is zero to
    rounding, the highest scores follow. Source: Chen, Zhang and Zhou 2018 (greedy maximum a
    posteriori of a determinantal point process, by one Cholesky row for each choice).

    Args:
        rows: whitened.
        scores: not negative.
        count: how many.
        taken: rows that are in the determinant already.
    """
    from scipy.spatial.distance import pdist

    if len(rows) < 2:
        return np.arange(min(count, len(rows)))
    length = float(np.median(pdist(rows[:: max(1, len(rows) // 1000)]))) or 1.0
    before = 0 if taken is None else len(taken)
    everything = rows if taken is None else np.vstack([taken, rows])
    share = np.maximum(scores / max(float(scores.max()), 1e-300), 1e-12)
    quality = np.concatenate([np.ones(before), share])
    left = quality**2
    factors = np.zeros((0, len(everything)))
    chosen: list[int] = []
    for turn in range(before + min(count, len(rows))):
        new = turn if turn < before else before + int(np.argmax(left[before:]))
        if left[new] <= ROUNDING * quality[new] ** 2:
            if turn < before:
                continue
            break
        chosen.append(new)
        near = np.exp(-((everything - everything[new]) ** 2).sum(1) / (2 * length**2))
        kernel = quality * quality[new] * near
        factor = (kernel - factors[:, new] @ factors) / np.sqrt(left[new])
        factors = np.vstack([factors, factor])
        left = left - factor**2
        left[chosen] = -1.0
    found = [new - before for new in chosen if new >= before]
    rest = np.setdiff1d(np.arange(len(rows)), found)
    rest = rest[np.argsort(-scores[rest], kind="stable")][: min(count, len(rows)) - len(found)]
    return np.concatenate([np.array(found, int), rest])
