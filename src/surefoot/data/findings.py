"""What the data doctor says: one finding per kind of trouble, with its place and its count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from surefoot.data.read import Frame
from surefoot.wording import counted


class Severity(Enum):
    """How bad a finding is: with an ERROR training would be wrong, a WARNING needs a look."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One kind of trouble in a data set, told at its worst or first frame.

    Attributes:
        code: short name of the kind, for scripts.
        severity: whether training would be wrong.
        message: one sentence with place, value, what is allowed and what to do.
        file: the file as the user gave it.
        frame: number of the frame in its file, from 0; None where a whole file is meant.
        atom: number of the atom in its frame, from 0; None where no single atom is meant.
        value: the offending number, in eV, Å or as the message says.
        count: frames with this trouble.
    """

    code: str
    severity: Severity
    message: str
    file: str
    frame: int | None = None
    atom: int | None = None
    value: float | None = None
    count: int = 1


@dataclass(frozen=True)
class Suspect:
    """One frame with a trouble, before frames with the same trouble are put together."""

    frame: Frame
    text: str
    atom: int | None = None
    value: float | None = None
    badness: float = 0.0


def gather(
    code: str, severity: Severity, suspects: Sequence[Suspect], advice: str
) -> list[Finding]:
    """Put frames with the same trouble into one finding that names the worst of them.

    Args:
        code: the kind of trouble.
        severity: of the finding.
        suspects: one for each frame; none gives no finding. Of equal badness the first is named.
        advice: what is allowed and what to do, the end of the sentence.
    """
    if not suspects:
        return []
    worst = max(suspects, key=lambda suspect: suspect.badness)
    return [
        Finding(
            code,
            severity,
            f"{worst.frame.place}: {worst.text}{_more(len(suspects) - 1)}; {advice}.",
            worst.frame.file,
            worst.frame.index,
            worst.atom,
            worst.value,
            len(suspects),
        )
    ]


def _more(count: int) -> str:
    if count == 0:
        return ""
    return f" (and {counted(count, 'more frame')})"


def name_files(frames: Sequence[Frame]) -> str:
    """The files of these frames as a message names them, at most three of them."""
    files = list(dict.fromkeys(frame.file for frame in frames))
    more = f" and {len(files) - 3} more files" if len(files) > 3 else ""
    return ", ".join(files[:3]) + more
