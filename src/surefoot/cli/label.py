"""Calculate energies and forces of structures with a quantum-chemical method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.options import Files

if TYPE_CHECKING:
    from surefoot.label.labeler import Labeler
    from surefoot.label.run import Conduct

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
        f"{output}: {report.labelled} frames labelled with {source.describe()}, "
        f"{report.reused} known already, {len(report.failed)} failed"
    )
    for failure in report.failed[:SHOWN]:
        complain(f"{failure.file}, frame {failure.frame}: {failure.reason}")
    if len(report.failed) > SHOWN:
        complain(f"and {len(report.failed) - SHOWN} more; all are in {output}.failed.json")
    if report.failed:
        complain("failures are remembered; --retry calculates them again")
    suggest("surefoot", "check", output)


def load_labeler(
    config: Path | None, name: str | None, method: str | None, overrides: Sequence[str] = ()
) -> tuple[Labeler, Conduct]:
    """The source of labels, and what is taken as one, that a file and options name.

    Args:
        config: YAML with the sections `labeler` and `conduct`, or None.
        name: of the labeler; it takes the place of the file's.
        method: of the labeler, likewise.
        overrides: `section.key=value`.

    Raises:
        UserError: if there is no such labeler, or it does not have these settings.
    """
    from surefoot.cli.screen import UserError
    from surefoot.label import LABELERS
    from surefoot.label.run import Conduct

    place = "the command line" if config is None else str(config)
    content = {} if config is None else _read_sections(config)
    chosen_here = {"name": name, "method": method}
    content.setdefault("labeler", {}).update(
        {key: value for key, value in chosen_here.items() if value is not None}
    )
    for override in overrides:
        _override(content, override)
    unknown = [section for section in content if section not in ("labeler", "conduct")]
    if unknown:
        raise UserError(
            f"{place}: there is no section '{unknown[0]}'; there is `labeler` and `conduct`."
        )
    settings = content["labeler"]
    chosen = settings.get("name", "xtb")
    if not isinstance(chosen, str) or chosen not in LABELERS:
        said = f"--labeler {name}" if name is not None else f"{place}: labeler {chosen!r:.200}"
        raise UserError(f"{said}: not known; there is {', '.join(LABELERS)}.")
    if chosen == "ase" and method is not None:
        raise UserError(
            f"--method {method}: what a calculator of ASE calculates is said by its keywords, "
            "`labeler.parameters` in a config; `labeler.method` there is how it is called."
        )
    source = _validate(LABELERS[chosen], settings, f"{place}: labeler {chosen}")
    return source, _validate(Conduct, content.get("conduct", {}), f"{place}: conduct")


def _override(content: dict[str, Any], override: str) -> None:
    import yaml

    from surefoot.cli.screen import UserError
    from surefoot.cli.yaml_text import read_yaml

    name, found, value = override.partition("=")
    section, dot, key = name.partition(".")
    if not (found and dot):
        raise UserError(f"--set {override}: write section.key=value, such as labeler.grid=4.")
    try:
        content.setdefault(section, {})[key] = read_yaml(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not YAML ({error}).") from error


def _read_sections(path: Path) -> dict[str, Any]:
    import yaml

    from surefoot.cli.screen import UserError
    from surefoot.cli.yaml_text import read_yaml

    try:
        content = read_yaml(path.read_text())
    except IsADirectoryError as error:
        raise UserError(f"{path}: this is a folder; name a file with sections.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: can not be read as YAML ({error}).") from error
    if not isinstance(content, dict) or not all(isinstance(s, dict) for s in content.values()):
        raise UserError(
            f"{path}: write sections, for example `labeler: {{name: pyscf, method: BMK}}`."
        )
    return content


def _validate(settings: Any, content: dict[str, Any], place: str) -> Any:
    from pydantic import ValidationError

    from surefoot.cli.config import shorten
    from surefoot.cli.screen import UserError

    try:
        return settings.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        reason = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            reason = f"there is no such key; there is {', '.join(settings.model_fields)}"
        raise UserError(f"{place}: {key}: {reason} (found {shorten(problem['input'])}).") from error
