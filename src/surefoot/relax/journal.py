"""What a relaxation has done so far, on disk: a killed one goes on with what is left.

One line of JSON with a checksum for each thing that was done, synchronised as it is written; a line
that a kill has torn is cut off. The first line says what is relaxed and how. Structures that had
not left the batch begin anew, so that what was recorded of them counts only in the session in which
they left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot.sealed import seal, unseal
from surefoot.train.checkpoint import RefusedFile, refuse_difference, write_atomically

RESULT = "result"
"""The kind of a line with which a structure has left."""
OUTPUTS = "outputs"
"""The kind of the line after which the outputs are written: those that are there are our own."""


@dataclass
class Journal:
    """Lines by kind and number of the structure.

    Attributes:
        path: of the file.
        session: how often it has been opened before.
        lines: kind, number, session and place in the file of each.
    """

    path: Path
    session: int = 0
    lines: list[tuple[str, int, int, int]] = field(default_factory=list)

    def begin_outputs(self) -> None:
        """From here on the outputs may be there, and a restart writes over them."""
        self.add(OUTPUTS, -1, "")

    @property
    def done(self) -> set[int]:
        """Numbers of the structures that have left."""
        return {number for kind, number, _, _ in self.lines if kind == RESULT}

    def add(self, kind: str, number: int, text: str) -> None:
        """Put a line on the disk.

        Args:
            kind: `RESULT`, or what else is kept.
            number: of the structure.
            text: any; it comes back as it is.
        """
        place = self.path.stat().st_size
        line = {"kind": kind, "number": number, "session": self.session, "text": text}
        try:
            _append(self.path, line)
        except OSError:  # half of a line would hide those after it
            os.truncate(self.path, place)
            raise
        self.lines.append((kind, number, self.session, place))

    def texts(self, kind: str) -> Iterator[str]:
        """What counts of a kind, by number of the structure and then as it was written."""
        left = {number: session for what, number, session, _ in self.lines if what == RESULT}
        chosen = [
            (number, place)
            for what, number, session, place in self.lines
            if what == kind and left.get(number) == session
        ]
        with self.path.open("rb") as file:
            for _, place in sorted(chosen):
                file.seek(place)
                yield json.loads(file.readline())["text"]


def begin_journal(path: Path, identity: Mapping[str, Any], *, over: bool) -> Journal:
    """A journal without lines.

    Args:
        path: of the file; one that is there is replaced.
        identity: what makes two relaxations the same, anything JSON can hold.
        over: whether files that are there are to be replaced at the end.
    """
    head = {"identity": identity, "over": over}
    write_atomically(path, seal(head))
    return Journal(path)


def open_journal(path: Path, identity: Mapping[str, Any]) -> tuple[Journal, bool]:
    """The journal of a relaxation that was interrupted, and whether it may replace its outputs.

    Raises:
        RefusedFile: if there is none, or it is of another relaxation.
    """
    if not path.is_file():
        raise RefusedFile(f"{path}: there is nothing to go on from; leave out --resume.")
    journal, place = Journal(path), 0
    with path.open("rb") as file:
        try:
            # Lines of older versions have no checksum, and none follows one that has.
            head, checked = unseal(file.readline(), required=False)
            before, over = head["identity"], bool(head["over"])
            known = json.loads(json.dumps(identity))
        except (KeyError, TypeError, ValueError) as error:
            raise RefusedFile(f"{path}: it is no journal of a relaxation ({error}).") from error
        refuse_difference(before, known, path)
        place = file.tell()
        while (line := file.readline()).endswith(b"\n"):
            number = len(journal.lines) + 2
            journal.lines.append((*_read_line(line, path, number, checked=checked), place))
            place = file.tell()
    os.truncate(path, place)
    journal.session = 1 + max((session for _, _, session, _ in journal.lines), default=-1)
    return journal, over or any(kind == OUTPUTS for kind, *_ in journal.lines)


def _read_line(line: bytes, path: Path, number: int, *, checked: bool) -> tuple[str, int, int]:
    """Kind, number of the structure and session.

    Raises:
        RefusedFile: if the line is not as it was written.
    """
    try:
        found, _ = unseal(line, required=checked)
        structure, session = found["number"], found["session"]
        if type(structure) is not int or type(session) is not int or type(found["text"]) is not str:
            raise ValueError("it says nothing of a structure")
        return str(found["kind"]), structure, session
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedFile(
            f"{path}, line {number}: it is damaged ({error}). Put the file back, remove all from "
            "this line on, or begin anew with --force."
        ) from error


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(seal(line))
        file.flush()
        os.fsync(file.fileno())
