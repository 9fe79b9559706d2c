"""Recipes of hydrogen transfers as KIMMDY reads them: a table with one row for each.

Columns are index, picked, recipe_steps (joined by <>), timespans and rates. A transfer is three
steps: the bond to the donor breaks, the hydrogen is placed at its end, and binds to the radical.
Only this form is known here; nothing of KIMMDY is imported.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from surefoot.barriers.paths import TransferPath
from surefoot.barriers.records import Record
from surefoot.settings import Settings
from surefoot.train.checkpoint import write_atomically

COLUMNS = ("index", "picked", "recipe_steps", "timespans", "rates")
PLACES = ("hydrogen_index", "donor_index", "acceptor_index")  # columns of candidates.csv


@dataclass(frozen=True, kw_only=True)
class HydrogenRecipe:
    """One transfer at one rate.

    Attributes:
        hydrogen, donor, acceptor: places of the atoms in the file of the structure, from 0.
        end: where the hydrogen is placed, Å.
        rate: 1/ps.
        span: from when to when the rate is valid, ps.
    """

    hydrogen: int
    donor: int
    acceptor: int
    end: tuple[float, float, float]
    rate: float
    span: tuple[float, float]

    def __post_init__(self) -> None:
        if min(self.hydrogen, self.donor, self.acceptor) < 0:
            raise ValueError(
                f"hydrogen {self.hydrogen}, donor {self.donor}, acceptor {self.acceptor}: a recipe "
                "names atoms by their places in the file, from 0; hydrogens that were added have "
                "none, so start from a structure that has them."
            )
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise ValueError(f"a rate is {self.rate} / ps; a finite one, not below 0, is needed.")
        if self.span[1] < self.span[0]:
            raise ValueError(f"a span of time ends at {self.span[1]} ps before it has begun.")

    def steps(self) -> str:
        """The three steps as they stand in the table."""
        x, y, z = self.end
        return "<>".join(
            [
                f"Break(atom_ix_1={self.donor}, atom_ix_2={self.hydrogen})",
                f"Place(ix_to_place={self.hydrogen}, new_coords=({x!r}, {y!r}, {z!r}))",
                f"Bind(atom_ix_1={self.hydrogen}, atom_ix_2={self.acceptor})",
            ]
        )


def format_recipes(recipes: Iterable[HydrogenRecipe]) -> str:
    """The table as CSV; none of the recipes is picked."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, one in enumerate(recipes):
        begin, end = one.span
        writer.writerow([number, False, one.steps(), f"[({begin!r}, {end!r})]", f"[{one.rate!r}]"])
    return text.getvalue()


def write_recipes(path: str | Path, recipes: Iterable[HydrogenRecipe]) -> None:
    """Write the table, whole or not at all."""
    write_atomically(Path(path), format_recipes(recipes).encode())


class Policy(Settings):
    """What becomes of rates whose barriers are uncertain."""

    uncertain: Literal["use", "skip", "upper_bound"] = Field(
        default="use",
        description="the rate as it is, none, or the rate at the lower end of the interval",
    )
    interval_limit: float = Field(
        default=5.0, gt=0, description="a wider interval of a barrier is uncertain, kcal/mol"
    )
    ood_limit: float = Field(
        default=1.0, gt=0, description="as is one further from the training data; 1 is their edge"
    )

    def is_uncertain(self, record: Record) -> bool:
        """Whether a barrier has no interval, a wide one, or is far from the training data."""
        low, high, ood = (record[name] for name in ("low_kcal", "high_kcal", "ood"))
        if isinstance(low, str) or isinstance(high, str):
            return True
        far = not isinstance(ood, str) and ood > self.ood_limit
        return far or high - low > self.interval_limit

    def rate(self, record: Record) -> float | None:
        """The rate of a record, 1/ps; None where it is to have none.

        Raises:
            ValueError: if an upper bound is wanted and the record has no interval.
        """
        rate, fastest = record["rate_per_ps"], record["log10_rate_high"]
        if isinstance(rate, str):
            return None
        if self.uncertain == "use" or not self.is_uncertain(record):
            return float(rate)
        if self.uncertain == "skip":
            return None
        if isinstance(fastest, str):
            raise ValueError(
                f"{record['path']}: its barrier has no interval, so that its rate has no upper "
                "bound; use a potential with error bars, or take such rates as they are, or none."
            )
        return float(10.0**fastest)


def make_recipes(
    records: Iterable[Record],
    paths: Sequence[TransferPath],
    table: str | Path,
    spans: Mapping[int, tuple[float, float]],
    policy: Policy = Policy(),
) -> list[HydrogenRecipe]:
    """Recipes of the forward barriers that have a rate.

    Args:
        records: of `barriers.json`, or of `record_scan`.
        paths: the scans that the records are of, as `search_frames` found them.
        table: `candidates.csv` of the same search, which knows the atoms' places in the file.
        spans: frame → from when to when its rates are valid, ps.
        policy: of uncertain barriers.

    Raises:
        ValueError: if a record belongs to no path, no row of the table or no span, or its hydrogen
            was added.
    """
    with Path(table).open(newline="") as file:
        rows = {row["scan"]: row for row in csv.DictReader(file) if row["scan"]}
    by_name = {path.name: path for path in paths}
    recipes = []
    for record in records:
        name = str(record["path"])
        rate = policy.rate(record) if record["direction"] == "forward" else None
        if rate is None:
            continue
        if name not in rows or name not in by_name:
            missing = str(table) if name not in rows else "the paths"
            raise ValueError(f"{name}: not in {missing}; give the files of one search.")
        frame = int(rows[name]["frame"])
        if frame not in spans:
            raise ValueError(f"{name}: there is no span of time for frame {frame}; add it.")
        hydrogen, donor, acceptor = (int(rows[name][key] or -1) for key in PLACES)
        path = by_name[name]
        x, y, z = path.images[-1].positions[path.hydrogen].tolist()
        recipes.append(
            HydrogenRecipe(hydrogen=hydrogen, donor=donor, acceptor=acceptor, end=(x, y, z),
                           rate=rate, span=spans[frame])
        )  # fmt: skip
    return recipes
