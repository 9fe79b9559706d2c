"""Calculate energies and forces of structures with a quantum-chemical method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.cli.options import Files

if TYPE_CHECKING:
    from surefoot.label.labeler import Labeler


def run(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ to write.")],
    labeler: Annotated[str, typer.Option(help="Source of the labels.")] = "xtb",
    method: Annotated[
        str | None, typer.Option(help="Of the labeler; of xtb GFN2-xTB (its default) or GFN1-xTB.")
    ] = None,
    charge: Annotated[
        int | None, typer.Option(help="Total charge of frames that state none.")
    ] = None,
    spin: Annotated[
        int | None, typer.Option(help="Multiplicity 2S+1 of frames that state none.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one per core where not set.")
    ] = None,
) -> None:
    import os

    from surefoot.cli.screen import complain, interruption, progress_bar, require_writable, say
    from surefoot.data.read import IGNORE, Keys, check_output, read_frames
    from surefoot.label.run import label_frames, worker_pool

    require_writable(output)
    check_output(output, files)
    source = make_labeler(labeler, method)
    frames = read_frames(files, Keys(energy=IGNORE, forces=IGNORE, stress=IGNORE))
    count = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])
    with (
        interruption() as asked,
        worker_pool(count) as pool,
        progress_bar("labelling", len(frames)) as bar,
    ):

        def follow(done: int, _: int) -> None:
            bar.move(done)
            if asked:  # between two results: the journal is whole and the pool can close
                raise KeyboardInterrupt

        report = label_frames(
            frames,
            source,
            output,
            executor=pool,
            progress=follow,
            charge=charge,
            spin=spin,
        )
    say(
        f"{output}: {report.labelled} frames labelled with {source.describe()}, "
        f"{report.reused} known already, {len(report.failed)} failed"
    )
    for failure in report.failed[:5]:
        complain(f"{failure.file}, frame {failure.frame}: {failure.reason}")


def make_labeler(name: str, method: str | None) -> Labeler:
    """The source of labels that options name.

    Raises:
        UserError: if there is no such labeler, or it has no such method.
    """
    from pydantic import ValidationError

    from surefoot.cli.screen import UserError
    from surefoot.label import LABELERS

    if name not in LABELERS:
        raise UserError(f"--labeler {name}: not known; there is {', '.join(LABELERS)}.")
    try:
        return LABELERS[name].model_validate({} if method is None else {"method": method})
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(f"--method {method}: the labeler {name} refuses it: {reason}.") from error
