"""The folder of a campaign: all it knows stands in plain files, and one process works on it.

    FOLDER/
      campaign.json        what may not change, and with what it was begun
      rounds/000/          train/ (checkpoint, log, potential), figures.json, candidates.xyz,
                           choice.json and chosen.xyz, labels.xyz (with its journal), round.json,
                           sums.json (what tells that these are as they were written)
      rounds/001/ …
      potential.safetensors   that of the last round that has one

A file appears whole or not at all, so that what is there is done, and a campaign goes on with what
is not.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from surefoot.lock import LOCK
from surefoot.lock import hold as locked
from surefoot.sealed import seal, sum_up, unseal
from surefoot.train.checkpoint import write_atomically

CAMPAIGN, SUMS = "campaign.json", "sums.json"
KIND = "surefoot campaign"
FORMAT = 1


class OtherCampaign(ValueError):
    """A folder that another campaign is in."""


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
        InUse: if another process has it.
    """
    sentence = f"{folder}: another process works on this campaign; wait for its end, or stop it."
    with locked(folder / LOCK, sentence):
        yield


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
        own = (LOCK, f".{CAMPAIGN}.")
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
    found = found if isinstance(found, dict) else {}
    known = found.get("kind") == KIND and found.get("format") == FORMAT
    if not known or not isinstance(found.get("fixed"), dict):
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


def put(this: Round, file: Path, content: bytes) -> None:
    """Write a file of a round, whole or not at all; its sum is noted before it is there.

    Args:
        this: the round.
        file: one of its files.
        content: of the file.
    """
    _note(this, file, hashlib.sha256(content).hexdigest())
    write_atomically(file, content)


def note_sum(this: Round, file: Path) -> None:
    """Note the sum of a file that something else has just written."""
    _note(this, file, sum_up(file).hexdigest())


def is_noted(this: Round, file: Path) -> bool:
    """Whether there is a sum of the file, and it is that of what stands there."""
    known = _read_sums(this).get(str(file.relative_to(this.folder)), [])
    return bool(known) and file.is_file() and sum_up(file).hexdigest() in known


def require_whole(folder: Path) -> None:
    """Refuse files that are not as the campaign wrote them: further rounds would rest on them.

    Args:
        folder: of the campaign. Rounds of older versions have no sums and are taken as they are.
    Raises:
        OtherCampaign: naming the first such file.
    """
    for one in find_rounds(folder):
        for name, known in _read_sums(one).items():
            file = one.folder / name
            if file == one.labels and not one.summary.exists():
                continue  # made again from the journal, whatever stands there
            if not file.exists():
                if one.summary.exists():
                    raise OtherCampaign(
                        f"{file}: it is missing, and its round is over; put it back."
                    )
            elif not file.is_file() or sum_up(file).hexdigest() not in known:
                raise OtherCampaign(
                    f"{file}: it is not as this campaign wrote it; put it back, or remove it to "
                    "have it made again where its round is not over."
                )


def _note(this: Round, file: Path, total: str) -> None:
    sums, name = _read_sums(this), str(file.relative_to(this.folder))
    known = sums.get(name, [])
    if known[-1:] != [total]:
        # The sum before is that of the file until the new one has its place.
        write_atomically(this.folder / SUMS, seal({**sums, name: [*known, total][-2:]}))


def _read_sums(this: Round) -> dict[str, list[str]]:
    file = this.folder / SUMS
    if not file.exists():
        return {}
    try:
        return unseal(file.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise OtherCampaign(
            f"{file}: damaged ({error}); put it back, or remove it, and the files of this round "
            "are taken as they are."
        ) from error


def write_json(file: Path, content: Any) -> None:
    """Whole or not at all."""
    write_atomically(file, as_json(content))


def as_json(content: Any) -> bytes:
    """What `read_json` reads."""
    return (json.dumps(content, indent=1) + "\n").encode()


def read_json(file: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        OtherCampaign: if the file is damaged.
    """
    try:
        return json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise OtherCampaign(
            f"{file}: damaged ({error}); remove it, and what it stood for is done again."
        ) from error


def as_xyz(structures: Sequence[Atoms]) -> bytes:
    """Extended XYZ; nothing where there is no structure."""
    text = io.StringIO()
    if structures:
        ase.io.write(text, list(structures), format="extxyz")
    return text.getvalue().encode()


def read_structures(file: Path) -> list[Atoms]:
    """What `as_xyz` made.

    Raises:
        OtherCampaign: if the file is damaged.
    """
    try:
        return list(ase.io.iread(file, ":", format="extxyz")) if file.stat().st_size else []
    except OSError:
        raise
    except Exception as error:  # ASE's readers raise whatever their parsers meet
        raise OtherCampaign(
            f"{file}: damaged ({error}); remove it, and what it stood for is done again."
        ) from error
