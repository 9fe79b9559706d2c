"""Limits from one half of the quiet trajectories, figures from the other and all driven ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, chi2

Trajectory = dict[str, Any]
NEAR = 2  # of QUANTILES: the 90th percentile of ood at 300 K
ALLOWED = 1.0  # false stops per 10 ps × 100 atoms
UNIT = 1000.0  # ps × atoms


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the guard would stop at; inf is no limit.

    Attributes:
        norm: of forces_uncertainty_norm, eV/Å.
        ood_atoms: of ood_atoms.
        near: ood from which the uncertainty of forces is looked at.
        near_energy: the same of the energy's standard deviation over √atoms, eV. Where neither is
            set it is looked at always.
    """

    norm: float = np.inf
    ood_atoms: float = np.inf
    near: float | None = None
    near_energy: float | None = None


def halves(trajectories: Sequence[Trajectory]) -> tuple[list[Trajectory], list[Trajectory]]:
    """To choose by, and to report."""
    return list(trajectories[::2]), list(trajectories[1::2])


def find_near(quiet: Sequence[Trajectory], name: str = "ood") -> float:
    """The 90th percentile at 300 K of `ood` or `energy`, in the half by which limits are chosen."""
    return float(np.median([one[f"{name}_quantiles"][NEAR] for one in halves(quiet)[0]]))


def quiet_stop(one: Trajectory, limits: Limits) -> tuple[int, bool] | None:
    """Check at which a guard without a shortcut stops a quiet trajectory, and whether rightly."""
    stops = []
    for name in ("norm", "ood_atoms"):
        record = one[name]
        above = np.flatnonzero(np.array(record["score"]) >= getattr(limits, name))
        if len(above):
            stops.append((record["check"][above[0]], record["failed"][above[0]]))
    return min(stops) if stops else None


def false_stops(
    quiet: Sequence[Trajectory], checks: Sequence[int], limits: Limits, fs: float, atoms: int
) -> tuple[int, int, float]:
    """Stops, those of them where the error had not passed the limit, and ps × atoms / 1000."""
    stops = [quiet_stop(one, limits) for one in quiet]
    lasted = [count if stop is None else stop[0] for stop, count in zip(stops, checks, strict=True)]
    exposed = sum(lasted) * fs / 1000 * atoms / UNIT
    found = [stop for stop in stops if stop is not None]
    return len(found), sum(not failed for _, failed in found), exposed


def driven_stop(one: Trajectory, limits: Limits) -> int | None:
    near = np.full(len(one["ood"]), limits.near is None and limits.near_energy is None)
    if limits.near is not None:
        near |= np.array(one["ood"]) >= limits.near
    if limits.near_energy is not None:
        near |= np.array(one["energy"]) >= limits.near_energy
    stops = (np.array(one["norm"]) >= limits.norm) & near
    stops |= np.array(one["ood_atoms"]) >= limits.ood_atoms
    # A score that is no number stops too.
    stops |= ~np.isfinite(np.array(one["norm"], float))
    return int(stops.argmax()) if stops.any() else None


def passed(one: Trajectory, limit: float) -> int | None:
    """Check at which the true error passes the limit first; no answer of the labeler is none."""
    above = np.array([value is None or value > limit for value in one["error"]])
    return int(above.argmax()) if above.any() else None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a guard did to driven trajectories.

    Attributes:
        passed: of which the true error passed the limit.
        before: of these, stopped at an earlier check; by: or at the same one.
        delays: fs from passing to stop, negative where the stop came first.
        missed: passed and not stopped within what was relabelled.
        early: not passed, but stopped.
        total: all.
    """

    passed: int
    before: int
    by: int
    delays: list[float]
    missed: int
    early: int
    total: int


def outcome(driven: Sequence[Trajectory], limits: Limits, limit: float, fs: float) -> Outcome:
    pairs = [(passed(one, limit), driven_stop(one, limits)) for one in driven]
    failing = [(at, stop) for at, stop in pairs if at is not None]
    stopped = [(at, stop) for at, stop in failing if stop is not None]
    return Outcome(
        passed=len(failing),
        before=sum(stop < at for at, stop in stopped),
        by=sum(stop <= at for at, stop in stopped),
        delays=[(stop - at) * fs for at, stop in stopped],
        missed=len(failing) - len(stopped),
        early=sum(at is None and stop is not None for at, stop in pairs),
        total=len(pairs),
    )


def choose(
    quiet: Sequence[Trajectory],
    checks: Sequence[int],
    fs: float,
    atoms: int,
    near: float,
    near_energy: float | None = None,
) -> dict[str, Limits]:
    """The lowest limits with at most half of the false stops that are allowed.

    Of the two together each has a quarter.
    """

    def lowest(name: str, share: float) -> float:
        scores = sorted({score for one in quiet for score in one[name]["score"]})
        for score in scores:
            limits = Limits(**{name: score})
            _, false, exposed = false_stops(quiet, checks, limits, fs, atoms)
            if false <= share * ALLOWED * exposed:
                return score
        return 1.001 * scores[-1]

    norm, ood = lowest("norm", 0.5), lowest("ood_atoms", 0.5)
    both = {"norm": lowest("norm", 0.25), "ood_atoms": lowest("ood_atoms", 0.25)}
    rules = {
        "σ of forces": Limits(norm=norm),
        "ood": Limits(ood_atoms=ood),
        "both": Limits(**both),
        "both, with the shortcut": Limits(**both, near=near),
    }
    if near_energy is not None:
        rules["both, with the shortcut on energies"] = Limits(**both, near_energy=near_energy)
    return rules


def share_interval(part: int, whole: int) -> tuple[float, float]:
    """Where the share lies with 95 %, by Clopper and Pearson."""
    found = binomtest(part, whole).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


def rate_interval(count: int, exposed: float) -> tuple[float, float]:
    """Where the rate of a Poisson process lies with 95 %, exactly."""
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return float(low / exposed), float(chi2.ppf(0.975, 2 * count + 2) / 2 / exposed)
