"""Labels and failures on disk, one JSON record a line, safe against being killed at any moment."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ase import Atoms

from surefoot.label.labeler import Labels
from surefoot.lock import InUse, seize
from surefoot.sealed import seal, unseal


def content_hash(atoms: Atoms, charge: int, spin: int, settings: dict[str, Any]) -> str:
    """Hash of everything that decides the labels of a structure.

    Covers numbers, positions, cell, periodicity, charge, spin and the labeler's settings; the
    order of atoms counts, names and other info do not.

    Args:
        atoms: the structure.
        charge: total charge in e.
        spin: multiplicity 2S+1.
        settings: `Labeler.settings()`.
    """
    digest = hashlib.sha256(json.dumps([settings, charge, spin], sort_keys=True).encode())
    digest.update(np.asarray(atoms.numbers, "<i8").tobytes())
    digest.update(np.asarray(atoms.pbc, "<i8").tobytes())
    for values in (atoms.positions, np.array(atoms.cell)):
        digest.update((np.asarray(values, "<f8") + 0.0).tobytes())  # + 0.0 turns −0 into 0
    return digest.hexdigest()


class Journal:
    """Labels and failures by content hash, appended to a file and read back on the next run.

    A record is written by one system call and synchronised to the disk, so a killed run can leave
    at most one torn line at the end; it is cut off when the journal is opened again. Each line has
    a checksum, so that no other line is taken for what was calculated.
    """

    def __init__(self, path: Path) -> None:
        """Read what an earlier run left at `path`, if there was one, and open it for appending.

        Raises:
            InUse: if another run holds the journal.
            ValueError: if a line other than the last is damaged.
        """
        self.path = path
        self._labels: dict[str, Labels] = {}
        self._reasons: dict[str, str] = {}
        self._limits: dict[str, float] = {}
        self._deaths: dict[str, int] = {}
        self._unsettled: set[str] = set()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            self._lock()
            self._read()
        except ValueError:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def __contains__(self, key: str) -> bool:
        return key in self._labels

    def __getitem__(self, key: str) -> Labels:
        return self._labels[key]

    def __len__(self) -> int:
        return len(self._labels)

    def reason(self, key: str) -> str | None:
        """Why a calculation failed; None if it did not, or was never tried."""
        return self._reasons.get(key)

    def is_settled(self, key: str, limit: float | None) -> bool:
        """Whether calculating a structure again would find nothing new.

        Args:
            key: its content hash.
            limit: seconds it may take now; after a failure for lack of time more of it is news.
        """
        if key in self._labels:
            return True
        if key not in self._reasons or key in self._unsettled:
            return False
        return key not in self._limits or (limit is not None and limit <= self._limits[key])

    def append(self, key: str, labels: Labels, seconds: float | None = None) -> None:
        """Keep the labels of one structure; they are on the disk when this returns.

        Args:
            key: the structure's content hash.
            labels: what was calculated.
            seconds: processor time it took.
        """
        record: dict[str, Any] = {
            "key": key,
            "energy": labels.energy,
            "forces": labels.forces.tolist(),
        }
        if labels.spin_squared is not None:
            record["spin_squared"] = labels.spin_squared
        self._write(record, seconds)
        self._labels[key] = labels
        self._reasons.pop(key, None)

    def append_failure(
        self, key: str, reason: str, seconds: float | None = None, limit: float | None = None
    ) -> None:
        """Keep why a structure has no labels, so that a resumed run need not find out again.

        Args:
            key: the structure's content hash.
            reason: why.
            seconds: processor time it took.
            limit: seconds it was given, where that was too little.
        """
        record: dict[str, Any] = {"key": key, "failed": reason}
        if limit is not None:
            record["limit"] = limit
        self._write(record, seconds)
        self._take(record)

    def append_death(self, key: str, *, alone: bool) -> None:
        """Keep that a worker process died which may have been calculating a structure.

        Args:
            key: the structure's content hash.
            alone: whether no other one can have been the reason.
        """
        record = {"key": key, "died": "alone" if alone else "among others"}
        self._write(record, None)
        self._take(record)

    def deaths(self, key: str) -> int | None:
        """Times a worker died of a structure alone; None if it never was among the suspects."""
        return self._deaths.get(key)

    def note_failure(self, key: str, reason: str) -> None:
        """Know a reason until this run ends; the next one tries again."""
        self._reasons[key] = reason
        self._unsettled.add(key)

    def _write(self, record: dict[str, Any], seconds: float | None) -> None:
        if seconds is not None:
            record = {**record, "seconds": round(seconds, 3)}
        line, before = seal(record), os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(f"{self.path}: could not be written to the end; is the disk full?")
        except OSError:
            os.ftruncate(self._file, before)  # half of a line would hide the next one
            raise
        os.fsync(self._file)

    def _lock(self) -> None:
        # Two runs on one journal would calculate everything twice. The lock ends with the process.
        if not seize(self._file, self.path):
            raise InUse(
                f"{self.path}: another run is writing labels here; wait for it, or choose another "
                "output."
            )

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        checked = False  # lines of older versions have no checksum, and none follows one that has
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record, checked = unseal(line, required=checked)
                self._take(record)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.path}, line {number}: this is no record of a label or a failure "
                    f"({error}). Remove the line, or the file to label everything again."
                ) from error
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))

    def _take(self, record: dict[str, Any]) -> None:
        key = str(record["key"])
        if "died" in record:
            self._deaths[key] = self._deaths.get(key, 0) + (record["died"] == "alone")
            return
        if "failed" in record:
            self._reasons[key] = str(record["failed"])
            self._unsettled.discard(key)
            self._limits.pop(key, None)
            if "limit" in record:
                self._limits[key] = float(record["limit"])
            return
        forces = np.array(record["forces"], float).reshape(-1, 3)
        self._labels[key] = Labels(float(record["energy"]), forces, record.get("spin_squared"))
        self._reasons.pop(key, None)
