"""A pool: structures that others made, from files."""

from __future__ import annotations

from typing import Literal

from ase import Atoms
from pydantic import Field

from surefoot.active.explore.explorer import Scene, unlabelled
from surefoot.data.file_units import FileUnits
from surefoot.data.read import IGNORE, Frame, Keys, read_frames
from surefoot.data.statistics import is_isolated
from surefoot.settings import Settings


class Pool(Settings):
    """All structures of files; labels that stand in them are not looked at.

    Attributes:
        files: any that ASE reads.
        units: of the files; of these the one of `spin` counts, since positions are in Å.
    """

    name: Literal["pool"] = "pool"
    files: tuple[str, ...] = Field(min_length=1, description="any that ASE reads")
    units: FileUnits = Field(
        default=FileUnits(),
        description="as in `data`; that of spin counts, labels are not looked at",
    )

    def read(self) -> list[Frame]:
        """The structures, in the order of the files; free atoms are left out."""
        keys = Keys(energy=IGNORE, forces=IGNORE, stress=IGNORE)
        frames = read_frames(self.files, keys, self.units)
        return [frame for frame in frames if not is_isolated(frame)]

    def explore(self, scene: Scene) -> list[Atoms]:  # noqa: ARG002  the pool is what it is
        """The structures, in the order of the files."""
        return [unlabelled(frame) for frame in self.read()]
