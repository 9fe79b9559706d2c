"""The `data` section of a config: which files train, judge and test, and how they are split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from surefoot.data.file_units import FileUnits
from surefoot.data.frame import Frame
from surefoot.data.images import hash_content
from surefoot.data.read import Keys, read_frames
from surefoot.data.splits import split_groups, split_random
from surefoot.data.statistics import References, is_isolated
from surefoot.data.store import keep_frames
from surefoot.settings import Settings


class DataSettings(Settings):
    """Files, where their labels stand, and how they are split."""

    train: list[str] = Field(min_length=1, description="files to learn from, any that ASE reads")
    valid: float | list[str] = Field(
        default=0.0,
        description="a share of the training data that nobody learns from, or files; it judges and "
        "calibrates. 0 where the ensemble leaves out folds",
    )
    test: list[str] = Field(
        default=[],
        description="files that will judge the potential; checked for frames that are in train too",
    )
    split: Literal["group", "random"] = Field(
        default="group",
        description="how a share is drawn: whole groups (`group` in info), or frames",
    )
    split_seed: int | None = Field(
        default=None,
        ge=0,
        description="of the share that is drawn; that of the training where not set",
    )
    keys: Keys = Field(default=Keys(), description="where labels stand; `none` ignores one")
    units: FileUnits = Field(
        default=FileUnits(),
        description="units of the labels in all these files; spin is multiplicity (2S+1), unpaired "
        "(electrons) or auto: unpaired where a file holds the spin 0 and all electrons fit",
    )
    references: References = Field(
        default="auto",
        description="energies of free atoms: auto, isolated, least_squares, zero (of energies that "
        "have a reference already) or {H: -13.6, …} in eV",
    )
    scale: float | None = Field(
        default=None,
        gt=0,
        description="what energies and forces of the potential are multiplied by, eV and eV/Å; "
        "measured (root mean square of force components) where not set",
    )
    store: str | None = Field(
        default=None,
        description="folder in which all these frames are kept, converted once, and from which "
        "they are read batch by batch; for data sets that do not fit into memory. The weights are "
        "the same. All frames are held in memory where not set",
    )
    accept: list[str] = Field(
        default=[],
        description="codes of findings of the data doctor that you have judged to be harmless",
    )


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Frames by their role; reference atoms are kept apart, nobody trains on them.

    Attributes:
        train, valid, test: structures; reference atoms of validation and test files are dropped.
        isolated: reference atoms found in the training files.
    """

    train: list[Frame]
    valid: list[Frame]
    test: list[Frame]
    isolated: list[Frame]

    def by_name(self) -> dict[str, Sequence[Frame]]:
        """The splits the doctor looks at."""
        named = {"train": self.train + self.isolated, "valid": self.valid, "test": self.test}
        return {name: frames for name, frames in named.items() if frames}


def load_splits(
    settings: DataSettings, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Splits:
    """Read all files of a config and split them.

    Args:
        settings: of the data.
        seed: of the share that is drawn, where the settings name none.
        tell: called with a line where something takes long.
    Raises:
        UnreadableFile, ValueError: with file and reason.
    """
    read = _read(settings.train, settings, tell)
    isolated = [frame for frame in read if is_isolated(frame)]
    train = [frame for frame in read if not is_isolated(frame)]
    valid: list[Frame] = []
    if isinstance(settings.valid, list):
        valid = _read_structures(settings.valid, settings, tell)
    elif settings.valid != 0:
        if not 0 < settings.valid < 1:
            raise ValueError(
                f"data: {{valid: {settings.valid}}} is a share; it must be from 0 to below 1."
            )
        splitter = split_groups if settings.split == "group" else split_random
        chosen = seed if settings.split_seed is None else settings.split_seed
        train, valid = splitter(train, settings.valid, chosen)
    test = _read_structures(settings.test, settings, tell)
    return Splits(train=train, valid=valid, test=test, isolated=isolated)


def _read(paths: Sequence[str], settings: DataSettings, tell: Callable[[str], None]) -> list[Frame]:
    if settings.store is None:
        return read_frames(paths, settings.keys, settings.units)
    return keep_frames(paths, settings.keys, settings.units, Path(settings.store), tell)


def _read_structures(
    paths: Sequence[str], settings: DataSettings, tell: Callable[[str], None]
) -> list[Frame]:
    """Frames of files that judge: a free atom says nothing of a potential that gives it E0."""
    if not paths:
        return []
    read = _read(paths, settings, tell)
    return [frame for frame in read if not is_isolated(frame)]


def hash_files(paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file, by the name of the file; a name that comes again is numbered."""
    hashes: dict[str, str] = {}
    for number, path in enumerate(paths, 1):
        name = Path(path).name
        name = f"{name} (file {number})" if name in hashes else name
        hashes[name] = hash_content(Path(path))
    return hashes
