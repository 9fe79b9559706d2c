"""Make data sets of hydrogen transfers from amino acids, sequences and SMILES."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from surefoot.cli.sections import Choices
    from surefoot.hat.build import BuildSettings, Built

EXAMPLE: dict[str, dict[str, Any]] = {
    "train": {"residues": ["GLY", "ALA", "SER", "PRO"], "frames": 400},
    "test": {"residues": ["LEU"], "sequences": ["GPO"], "frames": 100, "paths": 60},
}
"""Splits of the template."""

MANIFEST = "manifest.json"


def run(
    config: Annotated[
        Path | None, typer.Argument(help="YAML that says what to make; see --template.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, such as seed=1.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one per core where not set.")
    ] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print a commented config instead.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema for editors instead.")
    ] = False,
) -> None:
    from concurrent.futures import BrokenExecutor

    from surefoot.cli.screen import UserError, complain, interruption

    if template:
        typer.echo(write_build_template(), nl=False)
        return
    if schema:
        from surefoot.cli.schema import write_schema
        from surefoot.hat.build import BuildSettings

        typer.echo(write_schema(BuildSettings, _choices()), nl=False)
        return
    if config is None or output is None:
        raise UserError(
            "Name a config and a folder: `surefoot hat build CONFIG -o FOLDER`; `surefoot hat "
            "build --template` prints a config."
        )
    from surefoot.hat.build import build
    from surefoot.label.workers import count_cores, worker_pool

    settings = load_build(config, overrides or ())
    require_new_folder(output)
    pool = worker_pool(workers or count_cores())
    with (
        interruption(pool.cut) as asked,
        pool,
        ExitStack() as stack,
    ):
        bars = Bars(stack)

        def follow(what: str, done: int, total: int) -> None:
            bars.move(what, done, total)
            if asked:
                complain("waiting for the calculations that run; Ctrl-C again ends them")
                raise KeyboardInterrupt("nothing was written")

        try:
            built = build(settings, pool, follow)
        except BrokenExecutor as error:
            if asked:  # the signal went to the processes, too
                raise KeyboardInterrupt("nothing was written") from error
            raise UserError(
                "A worker process died, perhaps for lack of memory; nothing was written. Start "
                "again with fewer `--workers`."
            ) from error
    write_folder(output, built, settings)
    tell(output, built, settings)


class Bars:
    """One progress bar after the other, each for one part of the work."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._what, self._total = stack, "", 0
        self._bar: Any = None

    def move(self, what: str, done: int, total: int) -> None:
        """Put the bar of this part where it is; a new part begins a new one."""
        from surefoot.cli.screen import progress_bar

        if (what, total) != (self._what, self._total):
            self._stack.close()
            self._bar = self._stack.enter_context(progress_bar(what, total))
            self._what, self._total = what, total
        self._bar.move(done)


def require_new_folder(folder: Path) -> None:
    """Refuse a folder that holds a data set, or can not be made.

    Raises:
        UserError: with the reason.
    """
    from surefoot.cli.screen import UserError, require_writable

    if folder.is_file():
        raise UserError(f"{folder}: this is a file; name a folder.")
    if (folder / MANIFEST).exists():
        raise UserError(f"{folder}: holds a data set; remove it or choose another name.")
    require_writable(folder / MANIFEST)


def write_folder(folder: Path, built: Built, settings: BuildSettings) -> None:
    """Write all frames, each file whole or not at all, and the manifest last.

    Args:
        folder: is made where it is not there.
        built: the data set.
        settings: what it was made by.
    """
    from surefoot.cli.predict import write_images
    from surefoot.hat.manifest import write_manifest
    from surefoot.train.checkpoint import write_atomically

    folder.mkdir(parents=True, exist_ok=True)
    for name, frames in built.frames.items():
        write_images(folder / f"{name}.xyz", frames)
    write_atomically(folder / MANIFEST, write_manifest(built, settings).encode())


def tell(folder: Path, built: Built, settings: BuildSettings) -> None:
    """Tables of what was made and what was rejected."""
    from surefoot.cli.screen import say, show_table, suggest
    from surefoot.hat.manifest import conformers_missing, count_frames

    counts = {name: count_frames(frames) for name, frames in built.frames.items()}
    rows = [["frames", *(str(found["frames"]) for found in counts.values())]]
    rows += [["transfers", *(str(found["transfers"]) for found in counts.values())]]
    for key, title in SHOWN.items():
        kinds = dict.fromkeys(kind for found in counts.values() for kind in found[key])
        rows += [
            [f"{title} {kind}", *(str(found[key].get(kind, "")) for found in counts.values())]
            for kind in kinds
            if any(found[key].get(kind) for found in counts.values())
        ]
    show_table("What was made (transfers, but for frames and positions)", ["", *counts], rows)
    reasons = dict.fromkeys(reason for found in built.rejected.values() for reason in found)
    if reasons:
        show_table(
            "Draws that were rejected",
            ["reason", *built.rejected],
            [
                [reason, *(str(found.get(reason, "")) for found in built.rejected.values())]
                for reason in reasons
            ],
        )
    fewer = conformers_missing(built, settings)
    if fewer:
        told = ", ".join(f"{name} {number}" for name, number in fewer.items())
        say(f"fewer than {settings.conformers.count} different conformers were found of: {told}")
    total = sum(len(frames) for frames in built.frames.values())
    files = ", ".join(f"{name}.xyz" for name in built.frames)
    seed = f"seed {settings.seed}"
    say(f"{folder}: {total} frames, doublets, in {files}, {seed}; {MANIFEST} says what they are")
    first = next(iter(built.frames))
    suggest("surefoot", "label", folder / f"{first}.xyz", "-o", folder / f"{first}_labelled.xyz")


SHOWN = {
    "config_type": "position",
    "transfer": "way",
    "charge": "charge",
    "elements": "elements",
    "donor_residue": "from",
    "acceptor_residue": "to",
    "translation": "moves, Å",
    "distance": "donor…acceptor, Å",
    "angle": "angle, °",
}
"""Counts that are told, and what they are called."""


def load_build(path: Path, overrides: Sequence[str] = ()) -> BuildSettings:
    """Read and validate a config; overrides are `section.key=value`, the value in YAML.

    Raises:
        UserError: one sentence per mistake, with file or override, key, and the nearest valid keys.
    """
    from surefoot.cli.sections import load_sections
    from surefoot.hat.build import BuildSettings

    advice = "`surefoot hat build --template` writes a config"
    return load_sections(BuildSettings, path, overrides, advice, _choices())


def _choices() -> Choices:
    """The section that is one of several classes."""
    from surefoot.label import LABELERS

    return {"labeler": (LABELERS, "name")}


def write_build_template() -> str:
    """A commented config with all keys, at their defaults but for the splits."""
    from surefoot.cli.commented import section_lines
    from surefoot.hat.build import BuildSettings

    lines = [
        "# surefoot hat build CONFIG -o FOLDER. Every key but those of `splits` is at its default.",
        "# A mistyped key is an error that names the nearest valid ones.",
        *section_lines(BuildSettings, {"splits": EXAMPLE}, 0),
    ]
    return "\n".join(lines) + "\n"
