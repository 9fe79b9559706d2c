"""A pool: structures that others made, from files."""

from __future__ import annotations

from typing import Literal

from ase import Atoms
from pydantic import Field

from surefoot.active.explore.explorer import Scene, unlabelled
from surefoot.data.read import IGNORE, Keys, read_frames
from surefoot.data.statistics import is_isolated
from surefoot.settings import Settings


class Pool(Settings):
    """All structures of files; labels that stand in them are not looked at.

    Attributes:
        files: any that ASE reads.
    """

    name: Literal["pool"] = "pool"
    files: tuple[str, ...] = Field(min_length=1, description="any that ASE reads")

    def explore(self, scene: Scene) -> list[Atoms]:  # noqa: ARG002  the pool is what it is
        """The structures, in the order of the files."""
        frames = read_frames(self.files, Keys(energy=IGNORE, forces=IGNORE, stress=IGNORE))
        return [unlabelled(frame) for frame in frames if not is_isolated(frame)]
