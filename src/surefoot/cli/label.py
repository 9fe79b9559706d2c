"""Calculate energies and forces of structures with a quantum-chemical method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surefoot.cli.options import Files


def run(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ to write.")],
    method: Annotated[str, typer.Option(help="GFN2-xTB or GFN1-xTB.")] = "GFN2-xTB",
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

    from surefoot.cli.screen import complain, progress_bar, say
    from surefoot.data.read import IGNORE, Keys, read_frames
    from surefoot.label import LABELERS
    from surefoot.label.run import label_frames, worker_pool

    labeler = LABELERS["xtb"].model_validate({"method": method})
    frames = read_frames(files, Keys(energy=IGNORE, forces=IGNORE, stress=IGNORE))
    count = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])
    with worker_pool(count) as pool, progress_bar("labelling", len(frames)) as bar:
        report = label_frames(
            frames,
            labeler,
            output,
            executor=pool,
            progress=lambda done, _: bar.move(done),
            charge=charge,
            spin=spin,
        )
    say(
        f"{output}: {report.labelled} frames labelled with {method}, {report.reused} known "
        f"already, {len(report.failed)} failed"
    )
    for failure in report.failed[:5]:
        complain(f"{failure.file}, frame {failure.frame}: {failure.reason}")
