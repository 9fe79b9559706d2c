"""What calibration found: factors on standard deviations, and the widths of intervals.

It is part of a Predictor and of its file, as JSON.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surefoot.evaluate.quantiles import Conformal, Grouped, Isotonic
from surefoot.evaluate.recalibrate import ensemble_factor
from surefoot.graph import Graph
from surefoot.prediction import Bounds

QUANTITIES = ("energy", "forces", "stress", "difference")


@dataclass(frozen=True)
class Levels:
    """Widths of intervals from calibration points, in place of those of a normal.

    Attributes:
        isotonic: monotone map of levels over all points.
        conformal: by kind: compositions and sizes for energies, elements for forces.
    """

    isotonic: Isotonic
    conformal: Grouped


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Factors on every standard deviation, one per quantity, and where they come from.

    All of it holds for one number of draws: the spread of few says less than that of many.

    Attributes:
        energy, forces, stress: what the spread of the draws is multiplied by; None where nothing
            was there to calibrate on, and the spread is then left as it is.
        difference: the same for differences between energies of one composition, where errors
            that all structures of a composition share cancel: barriers, paths, relaxations.
        source: in words, for reports.
        levels: what `Prediction.interval` uses, by quantity: energy and forces; where there is
            none, intervals are those of a normal.
        draws: number of draws it holds for; None where nothing is calibrated, and in older files.
        shared_error: by quantity c, the variance of what the draws' errors have in common over that
            of their deviations, where the error bar is their spread: what gives the factor for
            another number of draws.
    """

    energy: float | None = None
    forces: float | None = None
    stress: float | None = None
    difference: float | None = None
    source: str = "not calibrated"
    levels: Mapping[str, Levels] = field(default_factory=dict)
    draws: int | None = None
    shared_error: Mapping[str, float] = field(default_factory=dict)

    def for_draws(self, draws: int, *, kept: Container[str] = ()) -> Calibration:
        """What holds for another number of draws: factors that follow from c, and no levels.

        Args:
            draws: how many there are.
            kept: quantities whose error bars do not come from the draws.
        """
        factors: dict[str, float | None] = {}
        for name in QUANTITIES:
            value = getattr(self, name)
            if value is None or name in kept:
                factors[name] = value
            elif name in self.shared_error and draws > 1:
                factors[name] = ensemble_factor(self.shared_error[name], draws)
            else:
                factors[name] = None
        source = self.source
        calibrated = any(getattr(self, name) is not None for name in QUANTITIES)
        if calibrated and all(factor is None for factor in factors.values()):
            source = f"not calibrated for {draws} draws: the factors of the file are for others"
        levels = {name: held for name, held in self.levels.items() if name in kept}
        return replace(self, source=source, levels=levels, draws=draws, **factors)

    def describe(self) -> str:
        """What is calibrated on what, in words."""
        missing = [name for name in QUANTITIES if getattr(self, name) is None]
        if not missing or len(missing) == len(QUANTITIES):
            return self.source
        return f"{self.source}; not calibrated: {', '.join(missing)}"

    def bounds(self, graph: Graph) -> dict[str, Bounds]:
        """Interval widths of the rows of a batch, for `Prediction`."""
        found = {}
        if "energy" in self.levels:
            grouped = self.levels["energy"].conformal
            kinds = choose_kinds(compositions(graph), sizes(graph), set(grouped.maps))
            found["energy"] = _bind(grouped, kinds)
        if "forces" in self.levels:
            grouped = self.levels["forces"].conformal
            found["forces"] = _bind(grouped, elements(graph))
        return found

    def header(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)


def read_calibration(header: Mapping[str, Any]) -> Calibration:
    """What `Calibration.header` gave.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if it is of another form.
    """
    factors = {n: float(header[n]) for n in QUANTITIES if header.get(n) is not None}
    if not all(0 < factor < math.inf for factor in factors.values()):
        raise ValueError("a factor of its calibration is not positive")
    draws = header.get("draws")
    if draws is not None and (type(draws) is not int or draws < 1):
        raise ValueError("the number of draws that it is calibrated for is none")
    if not all(0 <= share < math.inf for share in header.get("shared_error", {}).values()):
        raise ValueError("a shared error of its calibration is no share")
    levels = {
        name: Levels(
            isotonic=Isotonic(
                **{key: tuple(map(float, value)) for key, value in held["isotonic"].items()}
            ),
            conformal=Grouped(
                maps={kind: _read_conformal(own) for kind, own in held["conformal"]["maps"].items()}
            ),
        )
        for name, held in header["levels"].items()
    }
    return Calibration(**{**header, **factors, "levels": levels})


def _read_conformal(held: Mapping[str, Any]) -> Conformal:
    """The quantiles of one kind; in older files each point counted as a group."""
    count, scores = int(held["count"]), tuple(map(float, held["scores"]))
    if "ranks" in held:
        ranks = held["ranks"] or range(1, count + 1)
        return Conformal(scores=scores, shares=tuple(r / count for r in ranks), count=count)
    return Conformal(scores=scores, shares=tuple(map(float, held["shares"])), count=count)


def _bind(conformal: Grouped, kinds: np.ndarray) -> Bounds:
    def bounds(level: float) -> tuple[Tensor, Tensor]:
        low, high = conformal.bounds(level, kinds)
        return torch.tensor(low), torch.tensor(high)

    return bounds


def join_bounds(parts: Sequence[Mapping[str, Bounds]]) -> dict[str, Bounds]:
    """Widths of the rows of consecutive batches as one."""

    def join(name: str) -> Bounds:
        def bounds(level: float) -> tuple[Tensor, Tensor]:
            found = [part[name](level) for part in parts]
            low, high = (torch.cat(side) for side in zip(*found, strict=True))
            return low, high

        return bounds

    return {name: join(name) for name in (parts[0] if parts else {})}


def compositions(graph: Graph) -> np.ndarray:
    """(graphs) The composition of each structure, such as `1:4 6:1`."""
    counts = graph.atom_counts.tolist()
    return np.array(
        [
            " ".join(f"{z}:{n}" for z, n in sorted(Counter(part.tolist()).items()))
            for part in graph.numbers.split(counts)
        ],
        dtype=str,
    )


def sizes(graph: Graph) -> np.ndarray:
    """(graphs) The class of the number of atoms: `atoms 16` is 16 to 31."""
    powers = np.floor(np.log2(graph.atom_counts.numpy())).astype(int)
    return np.array([f"atoms {2**power}" for power in powers], dtype=str)


def elements(graph: Graph) -> np.ndarray:
    """(atoms) The atomic number of each atom."""
    return graph.numbers.numpy().astype(str)


def choose_kinds(fine: np.ndarray, coarse: np.ndarray, known: Container[str]) -> np.ndarray:
    """The fine kind where it is known, else the coarse one."""
    return np.array([f if f in known else c for f, c in zip(fine, coarse, strict=True)], dtype=str)
