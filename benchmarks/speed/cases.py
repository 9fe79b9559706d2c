"""What is measured: systems × work × sizes × precision × threads, each one row of the results."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from speed.structures import ELEMENTS, describe, molecules, water
from surefoot.neighbors import find_neighbors

CUTOFF = 5.0  # Å
MOLECULE = 27
WATER = {192: 4, 1029: 7, 2187: 9, 5184: 12, 10125: 15, 20577: 19}  # atoms → molecules in a row
SIZES = (MOLECULE, 192, 1029)
EXAMPLE = 192  # atoms
BATCHES = (5, 16)
MEMBERS = 5


@dataclass(frozen=True)
class System:
    """A model of ours and the same architecture of a peer.

    Attributes:
        family: our model.
        settings: what both are built from.
        peer: the module that builds the peer, or None.
        forms: of the peer, for energy and forces; the faster one counts.
        train_forms: of the peer, for a training step.
    """

    family: str
    settings: dict[str, int]
    peer: str
    forms: tuple[str, ...] = ("eager", "compile")
    train_forms: tuple[str, ...] = ("eager", "compile")


def mace(channels: int) -> System:
    settings = {"channels": channels, "max_ell": 3, "correlation": 3, "layers": 2}
    return System("mace", settings, "mace")


def allegro(tensors: int) -> System:
    settings = {"lmax": 2, "layers": 2, "tensors": tensors, "scalars": 64, "readout": 32}
    return System("allegro", settings, "nequip", ("aotinductor",), ("compile",))


SYSTEMS = {
    "mace64": mace(64),
    "mace128": mace(128),
    "allegro32": allegro(32),
    "allegro64": allegro(64),
    "schnet": System("schnet", {"features": 128, "layers": 6, "gaussians": 50}, "schnetpack"),
}
WORK = ("forces", "train", "peak", "members", "neighbors", "scaling")


@dataclass(frozen=True)
class Case:
    """One row of the results.

    Attributes:
        system: a key of `SYSTEMS`.
        work: one of `WORK`.
        size: atoms, or structures of a training batch.
        dtype: float32 or float64.
        threads: of every program.
    """

    system: str
    work: str
    size: int
    dtype: str
    threads: int

    @property
    def key(self) -> str:
        return f"{self.system}/{self.work}/{self.size}/{self.dtype}/{self.threads}"

    @property
    def forms(self) -> tuple[str, ...]:
        """Of the peer; none where only ours is measured."""
        if self.work in ("neighbors", "scaling"):
            return ()
        system = SYSTEMS[self.system]
        return system.train_forms if self.work == "train" else system.forms


def cases(systems: list[str], work: list[str], dtypes: list[str], threads: list[int]) -> list[Case]:
    """All of them, the quick ones first within a system and a kind of work."""
    sizes = {
        "forces": SIZES,
        "train": BATCHES,
        "peak": (1029,),
        "members": SIZES,
        "neighbors": (*SIZES, 5184),
        "scaling": tuple(n for n in WATER if n > 1000),
    }
    only_mace = ("members", "neighbors")
    return [
        Case(system, kind, size, dtype, count)
        for dtype in dtypes
        for count in threads
        for system in systems
        for kind in work
        if not (kind in only_mace and SYSTEMS[system].family != "mace")
        for size in sizes[kind]
    ]


def orders(case: Case, kind: str, members: int | None = None) -> dict[str, Any]:
    """What a worker is told of a case.

    Args:
        case: for system, size and precision.
        kind: forces, train or neighbors.
        members: of our ensemble; None for a single model.
    """
    system = SYSTEMS[case.system]
    structures, source, edges = inputs(case.work, case.size)
    rng = np.random.default_rng(7)
    count = sum(len(one["numbers"]) for one in structures)
    return {
        "work": kind,
        "family": system.family,
        "settings": system.settings,
        "members": members,
        "dtype": case.dtype,
        "cutoff": CUTOFF,
        "elements": list(ELEMENTS),
        "neighbors": edges / count,
        "structures": structures,
        # What a program is exported on, if its sizes may vary later: nothing is tied to it.
        "example": structures[0] if case.size < EXAMPLE else describe(water(WATER[EXAMPLE])),
        "energies": rng.normal(size=len(structures)).tolist(),
        "forces": rng.normal(size=(count, 3)).tolist(),
        "source": source,
        "name": case.system,
        "threads": case.threads,
    }


@functools.cache
def inputs(work: str, size: int) -> tuple[list[dict[str, Any]], str, int]:
    """Structures, where they are from, and their edges."""
    if work == "train":
        chosen, source = molecules(size)
    elif size == MOLECULE:
        chosen, source = molecules(1)
    else:
        chosen, source = [water(WATER[size])], "water"
    edges = sum(
        find_neighbors(a.positions, np.array(a.cell), a.pbc, CUTOFF)[0].shape[1] for a in chosen
    )
    return [describe(atoms) for atoms in chosen], source, edges
