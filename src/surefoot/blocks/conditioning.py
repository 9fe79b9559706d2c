"""Charge and spin conditioning: an embedding that tells states of one composition apart.

Species and edge vectors do not determine an energy: Ag3 with charge +1 and −1, or CH2 as a singlet
and as a triplet, are two surfaces over the same positions. With conditioning each atom begins from
the row of its element plus the row of (state of its graph, element):

    x_i = embedding[Z_i] + conditioning[state(graph of i), Z_i]

so the state reaches every later layer, in every model that begins with `embed`. Source of the idea:
Unke et al., Nat. Commun. 12, 7273 (2021). Differs: a free row per state and element instead of an
attention over elements scaled by the charge, hence no state that was not trained on.

The state belongs to the whole structure, and each atom knows it: two fragments far apart are not
the sum of fragments of other states.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from surefoot.blocks.dense import Weights, lookup
from surefoot.graph import UNSTATED, Geometry, Graph
from surefoot.settings import Settings

INITIAL = 0.1  # standard deviation of fresh rows; those of the elements have 1


class UnknownState(ValueError):
    """A structure is in a state of charge and spin that the potential was not trained on."""


class Conditioning(Settings):
    """What a model is told of a structure besides elements and positions."""

    name: Literal["none", "charge_spin"] = Field(
        default="none",
        description="charge_spin tells states of one composition apart; with none, training "
        "refuses a composition in two of them",
    )


@dataclass(frozen=True)
class States:
    """The states that a potential tells apart: those of its training split.

    Attributes:
        pairs: (charge in e, multiplicity 2S+1 or `UNSTATED`) of each state, ascending; their
            positions are the rows of the table.
    """

    pairs: tuple[tuple[int, int], ...]

    def index(self, graph: Graph) -> Int[Tensor, " graphs"]:
        """Position of each graph's state in the table; −1 where it is not there."""
        table = torch.tensor(self.pairs, dtype=torch.int64, device=graph.charge.device)
        stated = torch.stack([graph.charge, graph.spin], dim=-1)
        same = (stated.unsqueeze(1) == table).all(-1)
        return torch.where(same.any(-1), same.long().argmax(-1), -1)

    def require(self, charge: int | None, spin: int | None, place: str) -> None:
        """Refuse a state that is not in the table; as in a graph, a charge not stated is 0.

        Args:
            charge: as the structure states it, or None.
            spin: multiplicity as the structure states it, or None.
            place: of the structure, for the message.

        Raises:
            UnknownState: naming the state, the place and what is known.
        """
        possible = spin is None or spin > UNSTATED
        if possible and (charge or 0, UNSTATED if spin is None else spin) in self.pairs:
            return
        found = f"charge {charge or 0}{' (not stated)' if charge is None else ''} and "
        found += "a spin that is not stated" if spin is None else f"spin {spin}"
        raise UnknownState(
            f"{place}: {found} is not among the states this potential was trained on "
            f"({self.describe()}); state `charge` and `spin` (2S+1) of one of them in info, or "
            "train on data of this state."
        )

    def describe(self) -> str:
        """All states in words."""
        return ", ".join(
            f"charge {charge} and spin {'not stated' if spin == UNSTATED else spin}"
            for charge, spin in self.pairs
        )


def require_learnt(
    learnt: Sequence[Sequence[int | None]], charge: int | None, spin: int | None, place: str
) -> None:
    """Refuse a state that a potential without conditioning has not learned.

    Charge and spin are judged one by one: what is not stated, on either side, fits anything.

    Args:
        learnt: [charge, spin] of the training data; None for what they did not all state.
        charge: as the structure states it, or None.
        spin: multiplicity as the structure states it, or None.
        place: of the structure, for the message.

    Raises:
        UnknownState: naming the state, the place and what is known.
    """
    fits = any(
        all(None in pair or pair[0] == pair[1] for pair in zip(state, (charge, spin), strict=True))
        for state in learnt
    )
    if fits or not learnt:
        return
    known = ", ".join(_name_stated(*state) for state in learnt)
    raise UnknownState(
        f"{place}: {_name_stated(charge, spin)} is stated, but this potential has only learned "
        f"{known} and can not tell states apart; train on data of this state, with "
        "`conditioning: {name: charge_spin}` where there are several."
    )


def _name_stated(charge: int | None, spin: int | None) -> str:
    """A state in words, without what is not stated."""
    named = {"charge": charge, "spin": spin}
    return " and ".join(f"{name} {value}" for name, value in named.items() if value is not None)


def find_states(graphs: Iterable[Graph]) -> States:
    """The table of all states that occur."""
    pairs = {
        (int(charge), int(spin))
        for graph in graphs
        for charge, spin in zip(graph.charge, graph.spin, strict=True)
    }
    return States(tuple(sorted(pairs)))


def init_conditioning(
    generator: torch.Generator, states: int, species: int, channels: int
) -> Float[Tensor, "states species channels"]:
    """Small normal entries: states begin almost alike, and rows that no data teach differ.

    The members of an ensemble then disagree on an element in a state in which it was never seen.
    """
    shape = (states, species, channels)
    return INITIAL * torch.randn(shape, generator=generator, dtype=torch.float64)


def embed(weights: Weights, geometry: Geometry) -> Float[Tensor, "*members atoms channels"]:
    """What each atom begins from: its element's row, plus that of its state where there is one.

    Args:
        weights: of the model: `embedding` (…, species, channels), and `conditioning`
            (…, states, species, channels) where the geometry carries states.
        geometry: whose `state` is None where the potential does not tell states apart.
    """
    atoms = lookup(weights["embedding"], geometry.species)
    if geometry.state is None:
        return atoms
    table = weights["conditioning"]
    row = geometry.state * table.shape[-2] + geometry.species
    return atoms + lookup(table.flatten(-3, -2), row)
