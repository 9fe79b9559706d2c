"""Which transfers are drawn: who gives to whom, from which site, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import lcm
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from surefoot.hat.ensembles import Ensemble
from surefoot.hat.sites import Site
from surefoot.settings import Settings

Kind = Literal["frames", "paths"]


class Pairing(Settings):
    """Who gives to whom, and from where."""

    radical: float = Field(default=1.0, ge=0, description="share of transfers to small radicals")
    molecule: float = Field(
        default=1.0,
        ge=0,
        description="share of transfers to radicals made of the split's molecules",
    )
    intramolecular: float = Field(
        default=1.0, ge=0, description="share of transfers within one molecule"
    )
    cone: float = Field(
        default=60.0,
        ge=0,
        le=180,
        description="degrees; largest angle of the way with the donor-hydrogen bond, and of the "
        "new bond with the way",
    )
    reach: float = Field(
        default=2.65, gt=0, description="Å; largest distance of two hydrogens of one molecule"
    )
    fewest_bonds: int = Field(
        default=1, ge=1, description="between two atoms of one molecule; 1 lets neighbours exchange"
    )

    @model_validator(mode="after")
    def _some(self) -> Pairing:
        if self.radical + self.molecule + self.intramolecular == 0:
            raise ValueError("all shares are 0; at least one has to be larger")
        return self


@dataclass(frozen=True)
class Member:
    """A molecule that takes part, or the parent of a radical.

    Attributes:
        name: of the molecule, or of the radical where it has one of its own.
        ensemble: its shapes.
        sites: hydrogens that it may lose.
    """

    name: str
    ensemble: Ensemble
    sites: tuple[Site, ...]

    def heavy(self) -> list[int]:
        """Atoms that hold these hydrogens, in their order."""
        return list(dict.fromkeys(site.donor for site in self.sites))

    def pick(self, atom: int, generator: np.random.Generator) -> Site:
        """One of the hydrogens of a heavy atom."""
        held = [site for site in self.sites if site.donor == atom]
        return held[generator.integers(len(held))]

    def label(self, site: Site) -> str:
        """Name of a site, with its amino acid where there are several."""
        several = len({r for r in self.ensemble.compound.residues if r}) > 1
        return f"{site.residue}-{site.name}" if several and site.residue else site.name


@dataclass(frozen=True)
class Request:
    """One transfer to be drawn.

    Attributes:
        split: name of the data set.
        kind: frames, or one path.
        number: among those of the split and the kind.
        donor: what gives the hydrogen, or also takes it where there is no acceptor.
        giving: heavy atom to begin with; any where None.
        acceptor: parent of the radical that takes it, or None.
        taking: heavy atom of the acceptor to begin with.
    """

    split: str
    kind: Kind
    number: int
    donor: Member
    giving: int | None = None
    acceptor: Member | None = None
    taking: int | None = None


def plan(
    split: str,
    kind: Kind,
    members: Sequence[Member],
    small: Sequence[Member],
    pairing: Pairing,
) -> Iterator[Request]:
    """Transfers without end, spread evenly over ways, donors, sites and acceptors.

    Args:
        split: name of the data set.
        kind: frames or paths.
        members: its molecules, which give, and whose radicals take.
        small: radicals of all splits.
        pairing: shares of the three ways.

    Raises:
        ValueError: if a way with a share has no pair of sites.
    """
    two = [member for member in members if len(member.heavy()) > 1]
    ways = {
        "radical": (pairing.radical, members, _takers(small)),
        "molecule": (pairing.molecule, members, _takers(members)),
        "intramolecular": (pairing.intramolecular, two, []),
    }
    ways = {name: way for name, way in ways.items() if way[0] > 0}
    if "intramolecular" in ways and not two:
        raise ValueError(
            f"Split '{split}': no molecule has abstractable hydrogens on two atoms; set `pairing: "
            "{intramolecular: 0}` or add a molecule."
        )
    total = sum(share for share, *_ in ways.values())
    done = dict.fromkeys(ways, 0)
    for number in count():
        way = max(ways, key=lambda name: ways[name][0] / total * (number + 1) - done[name])
        _, donors, takers = ways[way]
        turn, which = divmod(done[way], len(donors))
        done[way] += 1
        donor = donors[which]
        if not takers:
            yield Request(split, kind, number, donor)
            continue
        heavy = donor.heavy()
        # One step further after each common period, so that every pair is met.
        step = which + turn + turn // lcm(len(heavy), len(takers))
        acceptor, taking = takers[step % len(takers)]
        giving = heavy[(turn + which) % len(heavy)]
        yield Request(split, kind, number, donor, giving, acceptor, taking)


def _takers(members: Sequence[Member]) -> list[tuple[Member, int]]:
    return [(member, atom) for member in members for atom in member.heavy()]
