"""What is to be run, whom it tells, and what it reports."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from surefoot.md.saved import Ending, identify
from surefoot.md.settings import Simulation
from surefoot.md.trajectory import Frame
from surefoot.motion.guard import Watch
from surefoot.motion.surface import Surface
from surefoot.settings import Settings
from surefoot.train.checkpoint import write_atomically

GUARD = "guard"
"""The folder of frames that the guard finds worth labelling, in that of the run."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        step: done.
        temperature: K, mean over the systems that move.
        pace: ns/day of each system.
        moving: systems that have not left.
    """

    step: int
    temperature: float
    pace: float
    moving: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run has done.

    Attributes:
        step: reached.
        endings: of systems that left before, by number.
        last: the last whole frame of the systems that still move; None where all have left.
        pace: ns/day of each system.
        builds: neighbour lists that were made.
    """

    step: int
    endings: dict[int, Ending]
    last: Frame | None
    pace: float
    builds: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be run, and whom it tells.

    Attributes:
        structures: that move, replicas one by one.
        temperatures: (structures) K.
        surface: what they move on.
        settings: of the run.
        folder: for the trajectory and the state.
        places: how messages name the structures.
        potential: what names the surface in the state, such as the hash of its file.
        watch: a guard.
        made_by: goes into `predicted_by` of extended XYZ.
        warn: called with a sentence.
        progress: called now and then, at the end of a run at the latest.
        asked: whether the run shall stop, keep what it has done, and go on later.
    """

    structures: Sequence[Atoms]
    temperatures: Sequence[float]
    surface: Surface
    settings: Simulation
    folder: Path
    places: Sequence[str]
    potential: str = ""
    watch: Watch | None = None
    made_by: str = "surefoot"
    warn: Callable[[str], None] = lambda _: None
    progress: Callable[[Progress], None] = lambda _: None
    asked: Callable[[], bool] = lambda: False

    @property
    def bias(self) -> Settings | None:
        """What pulls the atoms beside the potential."""
        return self.surface.bias

    @property
    def bias_text(self) -> str:
        """The same as JSON; empty where nothing does."""
        return "" if self.bias is None else self.bias.model_dump_json()

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same."""
        guard = None if self.watch is None else self.watch.guard.model_dump()
        bias = None if self.bias is None else self.bias.model_dump()
        whole = identify(self.structures, self.temperatures, self.settings, self.potential)
        return {**whole, "guard": guard, "bias": bias}


def write_frame(path: Path, atoms: Atoms) -> None:
    """One structure as extended XYZ, whole or not at all."""
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    write_atomically(path, text.getvalue().encode())
