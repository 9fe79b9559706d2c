"""Errors of potentials on frames and scans, by molecule, and intervals that draw molecules."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.barriers.curves import predict_curves
from surefoot.barriers.heights import Barrier, Curve
from surefoot.barriers.paths import TransferPath, read_paths
from surefoot.barriers.scans import Scan, judge_scan
from surefoot.calculator import predict_atoms
from surefoot.data.read import Frame, read_frames
from surefoot.evaluate.intervals import block_bootstrap_counts
from surefoot.posteriors.predictor import Predictor
from surefoot.units import KCAL_PER_MOL

DRAWS = 1000
BATCH = 16  # scans


def frame_errors(predictor: Predictor, file: Path) -> dict[str, Any]:
    """Sums of absolute errors by donor: meV/atom, meV/Å; and CPU seconds of a frame."""
    frames = read_frames([str(file)])
    began = time.process_time()
    results = predict_atoms(predictor, [frame.atoms for frame in frames])
    spent = time.process_time() - began
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4))
    for frame, result in zip(frames, results, strict=True):
        energy, forces = _require(frame)
        wrong = 1000 * abs(result["energy"] - energy) / len(frame.atoms)
        force = 1000 * np.abs(result["forces"] - forces)
        donor = str(frame.atoms.info["donor"])
        sums[donor] += [wrong, 1, force.sum(), force.size]
    return {
        "energy": {name: one[:2].round(4).tolist() for name, one in sums.items()},
        "forces": {name: one[2:].round(4).tolist() for name, one in sums.items()},
        "cpu_s_per_frame": round(spent / len(frames), 5),
    }


def _require(frame: Frame) -> tuple[float, np.ndarray]:
    if frame.energy is None or frame.forces is None:
        raise SystemExit(f"{frame.place}: it has no labels.")
    return frame.energy, frame.forces


def whole_paths(file: Path) -> list[TransferPath]:
    """The paths of a file of which every point has a label."""
    frames = read_frames([str(file)])
    counts: dict[str, int] = defaultdict(int)
    for frame in frames:
        counts[str(frame.atoms.info["system"])] += 1
    return read_paths(
        [
            frame
            for frame in frames
            if counts[str(frame.atoms.info["system"])] == frame.atoms.info["path_length"]
        ]
    )


def judge_paths(
    predictor: Predictor,
    paths: Sequence[TransferPath],
    level: float,
    change: Callable[[TransferPath, Curve], Curve] = lambda _, curve: curve,
) -> list[dict[str, Any]]:
    """A row for each scan.

    Args:
        predictor: of the potential.
        paths: with labels.
        level: of the intervals.
        change: what is made of each curve, such as another surface added to it.
    """
    rows = []
    for at in range(0, len(paths), BATCH):
        some = paths[at : at + BATCH]
        curves = predict_curves(predictor, [path.images for path in some])
        for path, curve in zip(some, curves, strict=True):
            rows.append(describe_scan(judge_scan(path, change(path, curve)), level))
    return rows


def describe_scan(scan: Scan, level: float) -> dict[str, Any]:
    """Barriers in kcal/mol: label, prediction, σ, whether the label is in the interval."""
    path = scan.path
    symbols = [path.images[0].symbols[atom] for atom in (path.donor, path.acceptor)]
    ood = None if scan.curve.ood is None else round(float(scan.curve.ood.max()), 3)
    return {
        "path": path.name,
        "donor": path.donor_name,
        "pair": "–".join(symbols),
        "translation": round(path.translation, 4),
        "top": scan.forward.top,
        "label_top": scan.forward.reference_top,
        "ood": ood,
        **{name: _describe(one, level) for name, one in scan.barriers.items()},
    }


def _describe(barrier: Barrier, level: float) -> list[float | bool | None]:
    values = (barrier.reference, barrier.value, barrier.std)
    found: list[float | bool | None] = [
        None if value is None else round(value / KCAL_PER_MOL, 4) for value in values
    ]
    return [*found, barrier.holds(level) if barrier.std is not None else None]


class Barriers:
    """All barriers of some rows, both directions one behind the other; kcal/mol."""

    def __init__(self, rows: Sequence[dict[str, Any]], directions: Sequence[str] = ()) -> None:
        chosen = directions or ("forward", "reverse")
        both = [(row, direction) for direction in chosen for row in rows]
        columns = np.array([row[direction][:2] for row, direction in both], float)
        self.label, self.value = columns.reshape(-1, 2).T
        self.donor = np.array([row["donor"] for row, _ in both])
        self.inside = [row[direction][3] for row, direction in both]
        self.translation = np.array([row["translation"] for row, _ in both])
        # A barrier back is one of the opposite pair.
        self.pair = np.array([f"{direction} {row['pair']}" for row, direction in both])

    @property
    def errors(self) -> np.ndarray:
        return np.abs(self.value - self.label)

    def mae(self) -> list[float | None]:
        """Mean absolute error and its interval over molecules."""
        return with_interval(mean_of(self.errors), self.donor)

    def r_squared(self) -> list[float | None]:
        """1 − Σ(error²) / Σ(label − mean)² and its interval over molecules."""

        def share(counts: np.ndarray) -> float:
            mean = counts @ self.label / counts.sum()
            spread = counts @ (self.label - mean) ** 2
            return float(1 - (counts @ self.errors**2) / spread) if spread else float("nan")

        return with_interval(share, self.donor)

    def coverage(self) -> list[float | None] | None:
        """Share of labels in their intervals, and its interval; None without error bars."""
        if any(one is None for one in self.inside):
            return None
        return with_interval(mean_of(np.array(self.inside, float)), self.donor)

    def regression(self) -> list[float | None]:
        """Mean absolute error of a line of the distance for each pair of elements.

        Each molecule is predicted from all others; a barrier is never predicted below zero.
        """
        errors = np.zeros(len(self.label))
        pairs = np.unique(self.pair)
        own = (self.pair[:, None] == pairs).astype(float)
        design = np.hstack([own, own * self.translation[:, None]])
        for donor in np.unique(self.donor):
            out = self.donor == donor
            fit, *_ = np.linalg.lstsq(design[~out], self.label[~out], rcond=None)
            errors[out] = np.abs(np.maximum(design[out] @ fit, 0.0) - self.label[out])
        return with_interval(mean_of(errors), self.donor)


def mean_of(values: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda counts: float(counts @ values / counts.sum())


def with_interval(
    statistic: Callable[[np.ndarray], float], groups: np.ndarray
) -> list[float | None]:
    """A statistic of counts, and its 95 % interval from groups drawn again; None where none is."""
    value = statistic(np.ones(len(groups)))
    found = block_bootstrap_counts(statistic, groups, np.random.default_rng(0), DRAWS)
    return [
        round(float(one), 4) if np.isfinite(one) else None for one in (value, found.low, found.high)
    ]


def exponent(
    sizes: Sequence[int], sums: Sequence[dict[str, Sequence[float]]]
) -> list[float | None]:
    """b of error ∝ sizeᵇ and its interval over molecules.

    Args:
        sizes: of the training sets.
        sums: for each, molecule → sum of errors and their count.
    """
    donors = sorted(sums[0])
    table = np.array([[one[donor] for donor in donors] for one in sums], float)

    def slope(counts: np.ndarray) -> float:
        errors = (counts @ table[:, :, 0].T) / (counts @ table[:, :, 1].T)
        return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])

    return with_interval(slope, np.array(donors))


def by_donor(barriers: Barriers) -> dict[str, list[float]]:
    """Molecule → sum of absolute errors of barriers, and their count."""
    return {
        str(donor): [float(barriers.errors[own].sum()), int(own.sum())]
        for donor in np.unique(barriers.donor)
        for own in [barriers.donor == donor]
    }
