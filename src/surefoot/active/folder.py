"""The folder of a campaign: all it knows stands in plain files, and one process works on it.

    FOLDER/
      campaign.json        what may not change, and with what it was begun
      rounds/000/          train/ (checkpoint, log, potential), figures.json, candidates.xyz,
                           choice.json and chosen.xyz, labels.xyz (with its journal), round.json
      rounds/001/ …
      potential.safetensors   that of the last round that has one

A file appears whole or not at all, so that what is there is done, and a campaign goes on with what
is not.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from surefoot.train.checkpoint import write_atomically

CAMPAIGN = "campaign.json"
KIND = "surefoot campaign"
FORMAT = 1


class OtherCampaign(ValueError):
    """A folder that another campaign, or another process, is in."""


@dataclass(frozen=True)
class Round:
    """The files of one round.

    Attributes:
        number: from 0.
        folder: its own.
    """

    number: int
    folder: Path

    @property
    def training(self) -> Path:
        """Folder of the training."""
        return self.folder / "train"

    @property
    def exploration(self) -> Path:
        """Folder that explorers may use; nothing in it is looked for later."""
        return self.folder / "explore"

    @property
    def figures(self) -> Path:
        """What the potential is worth on the test frames."""
        return self.folder / "figures.json"

    @property
    def candidates(self) -> Path:
        """What exploration found."""
        return self.folder / "candidates.xyz"

    @property
    def choice(self) -> Path:
        """Which of them, with all scores, and why not others."""
        return self.folder / "choice.json"

    @property
    def chosen(self) -> Path:
        """Structures to be labelled."""
        return self.folder / "chosen.xyz"

    @property
    def labels(self) -> Path:
        """The same with labels."""
        return self.folder / "labels.xyz"

    @property
    def summary(self) -> Path:
        """Counts and seconds; where it is, the round is whole."""
        return self.folder / "round.json"


def open_round(folder: Path, number: int) -> Round:
    """The round of a number, with its folder."""
    place = folder / "rounds" / f"{number:03d}"
    place.mkdir(parents=True, exist_ok=True)
    return Round(number, place)


def find_rounds(folder: Path) -> list[Round]:
    """Rounds that have begun, in order."""
    places = sorted((folder / "rounds").glob("[0-9][0-9][0-9]"))
    return [Round(int(place.name), place) for place in places]


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """The folder for this process alone, as long as it lives.

    Raises:
        OtherCampaign: if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OtherCampaign(
                f"{folder}: another process works on this campaign; wait for its end, or stop it."
            ) from error
        yield
    finally:
        os.close(handle)


def agree(folder: Path, fixed: dict[str, Any], *, write: bool) -> None:
    """Keep what may not change between rounds, or compare it with what was kept.

    Args:
        folder: of the campaign.
        fixed: by name, in values of JSON.
        write: whether it is kept where nothing is there yet.
    Raises:
        OtherCampaign: if the folder is that of another campaign, with what differs.
    """
    file = folder / CAMPAIGN
    if not file.exists():
        # What a killed process has left of `CAMPAIGN` is no stranger.
        own = (".lock", f".{CAMPAIGN}.")
        strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith(own))
        if strangers:
            raise OtherCampaign(
                f"{folder}: it holds {strangers[0]} and no {CAMPAIGN}, so it is no campaign; "
                "choose an empty folder."
            )
        if write:
            write_json(file, {"kind": KIND, "format": FORMAT, "fixed": fixed})
        return
    found = read_json(file)
    if found.get("kind") != KIND or found.get("format") != FORMAT:
        raise OtherCampaign(f"{file}: not a campaign that this version of surefoot knows.")
    before, now = found["fixed"], json.loads(json.dumps(fixed))
    differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if differing:
        raise OtherCampaign(
            f"{folder}: `{differing[0]}` differs from what this campaign was begun with, so its "
            "rounds would not be comparable; put it back, or choose another folder. What may "
            "change is `rules`, `engine`, `conduct`, `again: {retries, train_on}` and "
            "`train: {threads, compile}`."
        )


def write_json(file: Path, content: Any) -> None:
    """Whole or not at all."""
    write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())


def read_json(file: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        OtherCampaign: if the file is damaged.
    """
    try:
        return json.loads(file.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise OtherCampaign(
            f"{file}: damaged ({error}); remove it, and what it stood for is done again."
        ) from error


def write_structures(file: Path, structures: Sequence[Atoms]) -> None:
    """Extended XYZ, whole or not at all."""
    text = io.StringIO()
    if structures:
        ase.io.write(text, list(structures), format="extxyz")
    write_atomically(file, text.getvalue().encode())


def read_structures(file: Path) -> list[Atoms]:
    """What `write_structures` wrote."""
    return list(ase.io.iread(file, ":", format="extxyz")) if file.stat().st_size else []
