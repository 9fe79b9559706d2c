"""What every way to find new structures has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from ase import Atoms

from surefoot.data.convert import to_graph
from surefoot.data.read import Frame
from surefoot.neighbors import CoincidentAtoms
from surefoot.posteriors.predictor import Predictor

CLOSE = 1.0  # Å; finds few pairs, and cells of a grid are not many more than atoms


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where an exploration begins.

    Attributes:
        predictor: the potential of the round.
        potential: its file.
        number: of the round.
        starts: structures learnt from so far, with `charge` and `spin` in info where they are
            known.
        folder: for what it needs on the way; it is its own.
        generator: source of all random numbers, anew in each round.
        seed: of the campaign, for what goes on from round to round.
        warn: called with a sentence.
        asked: whether to stop.
    """

    predictor: Predictor
    potential: Path
    number: int
    starts: Sequence[Atoms]
    folder: Path
    generator: np.random.Generator
    seed: int = 0
    warn: Callable[[str], None] = lambda _: None
    asked: Callable[[], bool] = lambda: False


@runtime_checkable
class Explorer(Protocol):
    """A way to find structures; its fields are its settings."""

    @property
    def name(self) -> str:
        """Its key in `EXPLORERS`."""
        ...

    def explore(self, scene: Scene) -> list[Atoms]:
        """New structures without labels; the same scene gives the same ones.

        Args:
            scene: where it begins.
        Raises:
            ValueError: if it can not begin.
        """
        ...


class Interrupted(Exception):
    """An exploration that was asked to stop; it begins again."""


def draw_starts(scene: Scene, count: int) -> list[Atoms]:
    """Structures to begin from, each once before one comes again; copies, without results.

    Args:
        scene: whose generator draws.
        count: how many.
    Raises:
        ValueError: if there is none.
    """
    if not scene.starts:
        raise ValueError("there is no labelled structure that an exploration could begin from.")
    total = len(scene.starts)
    order = np.concatenate([scene.generator.permutation(total) for _ in range(-(-count // total))])[
        :count
    ]
    return [bare(scene.starts[index]) for index in order]


KEPT = ("charge", "spin", "group")


def bare(atoms: Atoms) -> Atoms:
    """The structure, its cell, constraints, charge, spin and group, and nothing that was found."""
    copy = Atoms(
        atoms.numbers,
        atoms.positions,
        cell=atoms.cell,
        pbc=atoms.pbc,
        constraint=atoms.constraints,
    )
    copy.info = {name: atoms.info[name] for name in KEPT if name in atoms.info}
    return copy


def unlabelled(frame: Frame) -> Atoms:
    """The structure of a frame with its charge, spin and group, as `bare` leaves it."""
    atoms = bare(frame.atoms)
    return note(atoms, charge=frame.charge, spin=frame.spin, group=frame.group)


def note(atoms: Atoms, **known: int | str | None) -> Atoms:
    """The same structure, where what is known is written into its info."""
    atoms.info |= {name: value for name, value in known.items() if value is not None}
    return atoms


def is_whole(atoms: Atoms) -> bool:
    """Whether each atom has a place, and a place of its own."""
    if not np.isfinite(atoms.positions).all():
        return False
    try:
        to_graph(atoms, CLOSE)
    except CoincidentAtoms:
        return False
    return True
