"""Files of a relaxation: what is refused before it begins, and what makes two of them the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot.lock import LOCK

if TYPE_CHECKING:
    from surefoot.data.read import Frame
    from surefoot.motion.guard import Guard
    from surefoot.relax.settings import Relaxation

RECORD, PATH = "record", "path"
"""Kinds of lines in the journal: frames worth labelling, and those of trajectories."""


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Options that are set."""
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Files:
    """What is written, and where work in progress is kept until then."""

    output: Path
    record: Path | None
    trajectory: Path | None

    @property
    def journal(self) -> Path:
        """Beside the output."""
        return self.output.with_name(f"{self.output.name}.journal")

    @property
    def lock(self) -> Path:
        """Beside the output, too: two relaxations would write over each other's journal."""
        return self.output.with_name(f".{self.output.name}{LOCK}")

    @property
    def named(self) -> dict[str, Path]:
        """Files by option."""
        return given({"-o": self.output, "--record": self.record, "--trajectory": self.trajectory})

    @property
    def asked(self) -> dict[str, bool]:
        """What else than results is kept."""
        return {RECORD: self.record is not None, PATH: self.trajectory is not None}

    def require(self, structures: str, guard: Guard | None, *, resume: bool, force: bool) -> None:
        """Refuse files that can not be written, that nothing would go to, or that are there."""
        from surefoot.cli.screen import UserError, require_writable
        from surefoot.data.read import check_output

        for path in self.named.values():
            require_writable(path)
            check_output(path, [structures])
        seen: dict[Path, str] = {}
        for option, path in self.named.items():
            if path.resolve() in seen:
                is_output = seen[path.resolve()] == "-o"
                other = "the output" if is_output else seen[path.resolve()]
                raise UserError(f"{option} {path}: this is {other} too; name another file.")
            seen[path.resolve()] = option
        action = None if guard is None else guard.action
        if action == "record" and self.record is None:
            raise UserError(
                "--guard-action record: it has nowhere to put frames; set --record FILE."
            )
        if self.record is not None and action in (None, "warn"):
            raise UserError(
                f"--record {self.record}: nothing would be written to it; set --guard-uncertainty "
                "or --guard-ood, and another --guard-action than warn."
            )
        if not (resume or force):
            self.require_fresh()

    def require_fresh(self) -> None:
        """Refuse to write over anything, and to leave what an interrupted relaxation has done."""
        from surefoot.cli.screen import UserError

        self.require_new()
        if self.journal.exists():
            raise UserError(
                f"{self.journal}: an interrupted relaxation has left this; go on with --resume, or "
                "begin anew with --force."
            )

    def require_new(self) -> None:
        """Refuse to write over anything."""
        from surefoot.cli.screen import UserError

        for path in self.named.values():
            if path.exists():
                raise UserError(
                    f"{path}: it is there already, and nothing is written over without --force; "
                    "choose another name."
                )


def identify(
    potential: Path,
    frames: list[Frame],
    settings: Relaxation,
    guard: Guard | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """What makes two relaxations the same: potential, structures, settings, guard and options."""
    import hashlib

    from surefoot.data.read import read_state
    from surefoot.motion.systems import find_fixed

    structures = hashlib.sha256()
    for frame in frames:
        atoms = frame.atoms
        arrays = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, find_fixed(atoms))
        for array in arrays:
            structures.update(array.tobytes())
        structures.update(str(read_state(atoms.info)).encode())
    return {
        "potential": hashlib.sha256(potential.read_bytes()).hexdigest(),
        "structures": structures.hexdigest(),
        "settings": settings.model_dump(),
        "guard": None if guard is None else guard.model_dump(),
        "options": options,
    }
