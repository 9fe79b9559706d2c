"""Barriers and rates as records: one per path and direction, what fails among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from surefoot.barriers.heights import Barrier, Curve, rise
from surefoot.barriers.judgement import SaddleSettings, Search
from surefoot.barriers.paths import TransferPath
from surefoot.barriers.rates import RateSettings
from surefoot.barriers.scans import Scan
from surefoot.barriers.tunnelling import Tunnelling, log_transmission
from surefoot.settings import Settings
from surefoot.units import KCAL_PER_MOL

Record = dict[str, str | float]
"""Column → value; empty where there is none."""


class ReportSettings(Settings):
    """What is made of barriers.

    Attributes:
        level: probability of the intervals.
        rates: form and temperature.
        tunnelling: correction of rates over saddle points.
        energy: what rates over saddle points are made of: differences of energy alone, with
            zero-point energies, or of harmonic free energies.
    """

    level: float = Field(default=0.9, gt=0, lt=1)
    rates: RateSettings = RateSettings()
    tunnelling: Tunnelling = "none"
    energy: Literal["electronic", "zero-point", "free"] = "electronic"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A search beside what a potential says of the errors of its energies.

    Attributes:
        search: what was found.
        settings: of the search.
        curve: of the images of the band, the end and the saddle point last; None where there is no
            saddle point or no posterior.
    """

    search: Search
    settings: SaddleSettings
    curve: Curve | None = None

    def barriers(self) -> dict[str, Barrier]:
        """Of the saddle point above either end; none where none was found."""
        if not self.search.found:
            return {}
        first, top, last = self.search.energies()
        curve = self.curve
        if curve is None:
            curve = Curve(energies=np.array([first, last, top]))
        return {"forward": rise(curve, 0, -1), "reverse": rise(curve, -2, -1)}


def record_scan(scan: Scan, settings: ReportSettings) -> list[Record]:
    """Both directions of a scan."""
    records = []
    for direction, barrier in scan.barriers.items():
        flags = [_say_top(barrier.top, direction)] if barrier.top != "inside" else []
        if barrier.reference_top not in (None, "inside"):
            flags.append(f"reference: {_say_top(str(barrier.reference_top), direction)}")
        flags += _say_ood(scan.curve)
        records.append(
            _name(scan.path, direction)
            | _record_barrier(barrier, settings.level)
            | {"top": barrier.top, "reference_top": barrier.reference_top or ""}
            | {"ood": _furthest(scan.curve)}
            | _record_rate(barrier, settings, known=barrier.top == "inside")
            | {"flags": "; ".join(flags)}
        )
    return records


def record_search(judged: Judged, settings: ReportSettings) -> list[Record]:
    """Both directions of a search; of one that has failed, the reason."""
    search, barriers = judged.search, judged.barriers()
    donor, acceptor = search.lengths
    records = []
    for direction in ("forward", "reverse"):
        barrier = barriers.get(direction)
        record = _name(search.path, direction) | {
            "status": "saddle" if search.found else "no saddle",
            "reason": search.reason,
        }
        record |= _record_barrier(barrier, settings.level)
        record |= _record_vibrations(judged, direction, settings)
        record |= {
            "band_kcal": _kcal(_band_barrier(search, direction)),
            "donor_hydrogen_A": _round(donor),
            "hydrogen_acceptor_A": _round(acceptor),
            "ood": _furthest(judged.curve),
        }
        correction = record[CORRECTIONS[settings.energy]] if settings.energy in CORRECTIONS else 0.0
        shift = float(correction) * KCAL_PER_MOL if barrier is not None else 0.0
        opposite = barriers.get("reverse" if direction == "forward" else "forward")
        record |= _record_rate(
            barrier,
            settings,
            known=search.found,
            shift=shift,
            frequency=float(record["imaginary_cm"] or 0.0),
            opposite=None if opposite is None else opposite.value,
        )
        notes = search.notes(judged.settings) + _say_ood(judged.curve)
        records.append(record | {"flags": "; ".join(notes)})
    return records


CORRECTIONS = {"zero-point": "zero_point_kcal", "free": "free_energy_kcal"}


def _name(path: TransferPath, direction: str) -> Record:
    return {
        "path": path.name,
        "donor": path.donor_name,
        "acceptor": path.acceptor_name,
        "donor_atom": path.label(path.donor),
        "acceptor_atom": path.label(path.acceptor),
        "translation_A": round(path.translation, 4),
        "direction": direction,
    }


def _record_barrier(barrier: Barrier | None, level: float) -> Record:
    """Barrier, error bars and intervals with and without calibration."""
    names = ("reference_kcal", "predicted_kcal", "uncertainty_kcal", "low_kcal", "high_kcal",
             "uncalibrated_kcal", "uncalibrated_low_kcal", "uncalibrated_high_kcal", "predicted_eV",
             "low_eV", "high_eV")  # fmt: skip
    if barrier is None:
        return dict.fromkeys(names, "")
    low, high = barrier.interval(level) or (None, None)
    below, above = barrier.interval(level, calibrated=False) or (None, None)
    values = (barrier.reference, barrier.value, barrier.std, low, high, barrier.uncalibrated,
              below, above)  # fmt: skip
    in_kcal = dict(zip(names[:8], map(_kcal, values), strict=True))
    in_ev = zip(names[8:], (barrier.value, low, high), strict=True)
    return in_kcal | {name: "" if v is None else round(v, 6) for name, v in in_ev}


def _record_rate(
    barrier: Barrier | None,
    settings: ReportSettings,
    *,
    known: bool,
    shift: float = 0.0,
    frequency: float = 0.0,
    opposite: float | None = None,
) -> Record:
    """The rate and the interval of its logarithm; nothing where there is no maximum.

    Args:
        barrier: in one direction.
        settings: how it becomes a rate.
        known: whether there is a maximum.
        shift: what vibrations add to the barrier, eV.
        frequency: magnitude of the imaginary one, cm⁻¹; 0 where there is none.
        opposite: the barrier in the other direction, eV, without the shift.
    """
    names = ("rate_per_ps", "log10_rate", "log10_rate_low", "log10_rate_high",
             "log10_transmission")  # fmt: skip
    if barrier is None or not known:
        return dict.fromkeys(names, "")

    def log_rate(height: float) -> tuple[float, float]:
        """With the saddle as much higher as the barrier is."""
        back = (opposite or 0.0) + height - barrier.value
        passed = 0.0
        if frequency > 0:
            temperature = settings.rates.temperature
            passed = log_transmission(settings.tunnelling, frequency, height, back, temperature)
        return settings.rates.log_rate(height + shift, passed), passed

    value, passed = log_rate(barrier.value)
    low, high = barrier.interval(settings.level) or (None, None)
    slowest = "" if high is None else round(log_rate(high)[0], 4)
    fastest = "" if low is None else round(log_rate(low)[0], 4)
    rate = float(f"{10.0**value:.5g}")
    return dict(
        zip(
            names,
            (rate, round(value, 4), slowest, fastest, round(passed / math.log(10.0), 4)),
            strict=True,
        )
    )


def _record_vibrations(judged: Judged, direction: str, settings: ReportSettings) -> Record:
    """What vibrations say of a saddle point and add to its barrier."""
    search = judged.search
    record: Record = dict.fromkeys(
        ("imaginary_cm", "imaginary_count", "hydrogen_share", *CORRECTIONS.values()), ""
    )
    if search.vibrations is None:
        return record
    frequencies = search.vibrations.frequencies
    record["imaginary_count"] = int((frequencies < -judged.settings.negligible).sum())
    if frequencies[0] < 0:
        record["imaginary_cm"] = round(float(-frequencies[0]), 1)
    record["hydrogen_share"] = round(search.vibrations.share(0, search.path.hydrogen), 3)
    if search.end_vibrations is None or not search.found:
        return record
    end = search.end_vibrations[0 if direction == "forward" else 1]
    temperature = settings.rates.temperature
    record["zero_point_kcal"] = _kcal(search.vibrations.zero_point(1) - end.zero_point())
    record["free_energy_kcal"] = _kcal(
        search.vibrations.free_energy(temperature, 1) - end.free_energy(temperature)
    )
    return record


def _band_barrier(search: Search, direction: str) -> float | None:
    """Highest image of the band above either end, eV."""
    if search.band is None or search.band.status == "broken":
        return None
    energies = search.band.energies
    return float(energies.max() - energies[0 if direction == "forward" else -1])


def _say_top(top: str, direction: str) -> str:
    starts = (top == "first") == (direction == "forward")
    return "highest at its start" if starts else "highest at its end"


def _say_ood(curve: Curve | None) -> list[str]:
    value = _furthest(curve)
    return [f"ood {value:.1f}"] if isinstance(value, float) and value > 1 else []


def _furthest(curve: Curve | None) -> str | float:
    """Largest `ood` of the images."""
    return "" if curve is None or curve.ood is None else round(float(curve.ood.max()), 4)


def _kcal(value: float | None) -> str | float:
    return "" if value is None else round(value / KCAL_PER_MOL, 4)


def _round(value: float) -> str | float:
    return "" if math.isnan(value) else round(value, 4)
