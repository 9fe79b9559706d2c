"""Calculate energies and forces of structures with a quantum-chemical method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surefoot.cli.options import Files

SHOWN = 5  # failures told on the screen; the file has them all


def run(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ to write.")],
    labeler: Annotated[str | None, typer.Option(help="Source of the labels; xtb if unset.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Of the labeler, such as spGFN2-xTB of xtb or B3LYP of pyscf."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML with the sections `labeler` and `conduct`.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, such as labeler.grid=4.")
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
    retry: Annotated[
        bool, typer.Option("--retry", help="Calculate again what failed in an earlier run.")
    ] = False,
) -> None:
    from surefoot.cli.label_config import load_labeler
    from surefoot.cli.screen import (
        Pace,
        complain,
        interruption,
        progress_bar,
        require_writable,
        say,
        suggest,
    )
    from surefoot.data.read import IGNORE, Keys, check_output, read_frames
    from surefoot.label.run import label_frames
    from surefoot.label.workers import count_cores, worker_pool
    from surefoot.wording import counted

    require_writable(output)
    check_output(output, files)
    source, conduct = load_labeler(config, labeler, method, overrides or ())
    if retry:
        conduct = conduct.model_copy(update={"retry": True})
    frames = read_frames(files, Keys(energy=IGNORE, forces=IGNORE, stress=IGNORE))
    pool = worker_pool(workers or count_cores())
    with (
        interruption(pool.cut) as asked,
        pool,
        progress_bar("labelling", len(frames)) as bar,
    ):
        pace = Pace()

        def follow(done: int, _total: int) -> None:
            bar.move(done, pace.note(done))
            if asked:  # between two results: the journal is whole and the pool can close
                complain("waiting for the calculations that run; Ctrl-C again ends them")
                raise KeyboardInterrupt("the same command goes on with what is left")

        report = label_frames(
            frames,
            source,
            output,
            executor=pool,
            progress=follow,
            state=(charge, spin),
            conduct=conduct,
        )
    say(
        f"{output}: {counted(report.labelled, 'frame')} labelled with {source.describe()}, "
        f"{report.reused} known already, {len(report.failed)} failed"
    )
    for failure in report.failed[:SHOWN]:
        complain(f"{failure.file}, frame {failure.frame}: {failure.reason}")
    if len(report.failed) > SHOWN:
        complain(f"and {len(report.failed) - SHOWN} more; all are in {output}.failed.json")
    if report.failed:
        complain("failures are remembered; --retry calculates them again")
    suggest("surefoot", "check", output)
