# SPDX-License-Identifier: GPL-3.0-or-later
"""What the section of KIMMDY's YAML file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from surefoot.barriers.rates import RateSettings
from surefoot.hat.cutouts import Caps
from surefoot.hat.endpoints import Cone
from surefoot.hat.frames import Search
from surefoot.settings import Settings

Policy = Literal["use", "skip", "upper_bound", "label_first"]
"""What becomes of an uncertain barrier."""


class Options(Settings):
    """Settings of the reaction; lengths in Å, energies in kcal/mol, temperature in K.

    Attributes:
        potential: file of a surefoot potential.
        trajectory_format: of the trajectory that is looked at.
        polling_rate: each so many frames are looked at.
        n_unique: frames of each radical and hydrogen, those with the shortest ways.
        radius: residues with any atom so near to a radical are cut out with it.
        points: of each rigid scan.
        caps: of cut peptide bonds.
        cone: end positions of radicals with one bond, see `surefoot.hat.endpoints.Cone`.
        charges: of residues that are not known, such as `L4Y=0, L5Y=0`.
        change_coords: whether the hydrogen is placed, or moved by slow growth.
        rate: form of the rate.
        temperature: of the rate.
        level: probability of the intervals.
        uncertain: what becomes of an uncertain barrier.
        interval_limit: a barrier with a wider interval is uncertain.
        ood_limit: one that is further from the training data is uncertain; 1 is their edge.
        together: scans that are evaluated at once.
    """

    potential: Path
    trajectory_format: Literal["trr", "xtc", "gro"] = "xtc"
    polling_rate: int = Field(default=10, ge=1)
    n_unique: int = Field(default=100, ge=1)
    radius: float = Field(default=10.0, ge=5.0)
    points: int = Field(default=11, ge=3)
    caps: Caps = "ace_nme"
    cone: Cone = "molecule"
    charges: str = ""
    change_coords: Literal["place", "lambda"] = "place"
    rate: Literal["arrhenius", "eyring"] = "arrhenius"
    temperature: float = Field(default=300.0, gt=0)
    level: float = Field(default=0.9, gt=0, lt=1)
    uncertain: Policy = "use"
    interval_limit: float = Field(default=5.0, gt=0)
    ood_limit: float = Field(default=1.0, gt=0)
    together: int = Field(default=16, ge=1)

    def search(self) -> Search:
        """What is looked for around each radical."""
        charges = {}
        for part in filter(None, (one.strip() for one in self.charges.split(","))):
            name, _, value = part.partition("=")
            try:
                charges[name.strip().upper()] = int(value)
            except ValueError as error:
                raise ValueError(
                    f"charges: '{part}' is none; write residues and whole numbers, such as L4Y=0."
                ) from error
        return Search(
            radius=self.radius, points=self.points, caps=self.caps, cone=self.cone,
            shortest=self.n_unique, charges=charges,
        )  # fmt: skip

    def rates(self) -> RateSettings:
        """How a barrier becomes a rate."""
        return RateSettings(method=self.rate, temperature=self.temperature)


def read_options(config: Any, section: str) -> Options:
    """The options in KIMMDY's configuration.

    Args:
        config: section of the reaction, an object with attributes.
        section: its name, for messages.

    Raises:
        ValueError: with the option, if one is missing or not allowed.
    """
    given = {name: getattr(config, name) for name in Options.model_fields if hasattr(config, name)}
    try:
        return Options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"reactions.{section}.{name}: {first['msg']}.") from error
