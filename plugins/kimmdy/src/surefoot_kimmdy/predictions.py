# SPDX-License-Identifier: GPL-3.0-or-later
"""Barriers of candidates with their error bars, and what becomes of the uncertain ones."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms
from surefoot.barriers.curves import predict_curves
from surefoot.barriers.heights import Barrier, Top
from surefoot.barriers.paths import TransferPath
from surefoot.barriers.scans import Scan, judge_scan
from surefoot.blocks.conditioning import UnknownState
from surefoot.blocks.reference import UnknownElement
from surefoot.data.read import read_state
from surefoot.hat.frames import Findings, Row, scans
from surefoot.hat.proteins import Topology
from surefoot.posteriors.predictor import Predictor
from surefoot.units import KCAL_PER_MOL

from surefoot_kimmdy.options import Options

COLUMNS = ("frame", "donor", "hydrogen", "acceptor", "donor_id", "hydrogen_id", "acceptor_id",
           "translation_A", "barrier_kcal", "std_kcal", "low_kcal", "high_kcal", "top", "ood",
           "rate_per_ps", "decision", "doubts")  # fmt: skip

Decision = Literal["use", "skip", "upper_bound", "label_first", "unknown"]
"""What becomes of a barrier; `unknown` where the potential can know nothing of the molecule."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """A candidate, its barrier and what becomes of it.

    Attributes:
        row: the candidate; atoms by their places in the file, in `row.source`.
        images: its scan.
        barrier: eV; None where the potential can know nothing of the molecule.
        ood: the largest of the images; None without a gate.
        rate: that the recipe gets, 1/ps; None where there is no recipe.
        decision: what becomes of it.
        doubts: why it is uncertain.
        level: probability of intervals.
    """

    row: Row
    images: tuple[Atoms, ...]
    barrier: Barrier | None
    ood: float | None
    rate: float | None
    decision: Decision
    doubts: tuple[str, ...]
    level: float

    def cells(self) -> list[str]:
        """A row of the table."""
        row, barrier = self.row, self.barrier
        low, high = (barrier and barrier.interval(self.level)) or (None, None)
        energies = (barrier and barrier.value, barrier and barrier.std, low, high)
        hydrogen, donor, acceptor = (place + 1 for place in row.source)
        return [
            *map(
                str, (row.frame, row.donor, row.hydrogen, row.acceptor, donor, hydrogen, acceptor)
            ),
            f"{row.candidate.translation:.4f}",
            *("" if one is None else f"{one / KCAL_PER_MOL:.4f}" for one in energies),
            "" if barrier is None else barrier.top,
            "" if self.ood is None else f"{self.ood:.4f}",
            "" if self.rate is None else f"{self.rate:.6g}",
            self.decision,
            "; ".join(self.doubts),
        ]


def find_doubts(barrier: Barrier, ood: float | None, options: Options) -> tuple[str, ...]:
    """Why a barrier is uncertain; nothing where it is not."""
    doubts = []
    found = barrier.interval(options.level)
    if found is None:
        doubts.append("no error bar")
    elif (width := (found[1] - found[0]) / KCAL_PER_MOL) > options.interval_limit:
        doubts.append(f"interval {width:.1f} kcal/mol wide")
    if ood is not None and ood > options.ood_limit:
        doubts.append(f"ood {ood:.1f}")
    told: dict[Top, str] = {"first": "highest at its start", "last": "highest at its end"}
    if barrier.top in told:
        doubts.append(told[barrier.top])
    return tuple(doubts)


def decide(
    barrier: Barrier, doubts: tuple[str, ...], options: Options
) -> tuple[Decision, float | None]:
    """What becomes of a barrier, and the rate of its recipe in 1/ps; None without a recipe.

    Args:
        barrier: eV.
        doubts: of `find_doubts`.
        options: the policy and the form of the rate.

    Raises:
        ValueError: if an upper bound is wanted and there is no interval.
    """
    rates = options.rates()
    if not doubts or options.uncertain == "use":
        return "use", 10.0 ** rates.log_rate(barrier.value)
    if options.uncertain != "upper_bound":
        return options.uncertain, None
    found = barrier.interval(options.level)
    if found is None:
        raise ValueError(
            "uncertain: upper_bound needs error bars, which this potential does not have; take an "
            "ensemble, or use, skip or label_first."
        )
    return "upper_bound", 10.0 ** rates.log_rate(found[0])


def predict(
    topology: Topology, findings: Findings, predictor: Predictor, options: Options
) -> Iterator[Prediction]:
    """Barriers of all candidates that have a scan, in batches.

    Args:
        topology: of the structure.
        findings: of `search_frames`.
        predictor: of the potential.
        options: settings.

    Raises:
        ValueError: as `decide`.
    """
    rows = [row for row in findings.rows if row.cutout is not None]
    pairs = zip(rows, scans(topology, findings, options.search()), strict=True)
    for some in _batches(pairs, options.together):
        reasons = [_why_unknown(predictor, images) for _, images in some]
        known = [images for (_, images), reason in zip(some, reasons, strict=True) if not reason]
        curves = iter(predict_curves(predictor, known))
        for (row, images), reason in zip(some, reasons, strict=True):
            if reason:
                yield Prediction(
                    row=row, images=tuple(images), barrier=None, ood=None, rate=None,
                    decision="unknown", doubts=(reason,), level=options.level,
                )  # fmt: skip
                continue
            scan = judge_scan(_path(images), next(curves))
            yield _judge(row, scan, options)


def _batches(
    pairs: Iterable[tuple[Row, list[Atoms]]], size: int
) -> Iterator[list[tuple[Row, list[Atoms]]]]:
    pairs = iter(pairs)
    while some := list(islice(pairs, size)):
        yield some


def _why_unknown(predictor: Predictor, images: list[Atoms]) -> str:
    """Why a potential can know nothing of a molecule; empty where it can."""
    first = images[0]
    try:
        predictor.require(first.numbers, *read_state(first.info), str(first.info["system"]))
    except (UnknownElement, UnknownState) as error:
        return str(error)
    return ""


def _path(images: list[Atoms]) -> TransferPath:
    info = images[0].info
    return TransferPath(
        name=str(info["system"]), images=tuple(images), hydrogen=int(info["moving_h"]),
        donor=int(info["donor_index"]), acceptor=int(info["acceptor_index"]), reference=None,
        method="the potential", place=str(info["system"]),
    )  # fmt: skip


def _judge(row: Row, scan: Scan, options: Options) -> Prediction:
    barrier = scan.forward
    ood = None if scan.curve.ood is None else float(np.max(scan.curve.ood))
    doubts = find_doubts(barrier, ood, options)
    decision, rate = decide(barrier, doubts, options)
    return Prediction(row=row, images=scan.path.images, barrier=barrier, ood=ood, rate=rate,
                      decision=decision, doubts=doubts, level=options.level)  # fmt: skip


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """The table of predictions as CSV; ids count atoms from 1, as KIMMDY does."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(one.cells() for one in predictions)
