"""Look for what would make training wrong: the data doctor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.cli.options import (
    Files,
    LabelOptions,
)

if TYPE_CHECKING:
    from surefoot.blocks.conditioning import Conditioning
    from surefoot.data.findings import Finding
    from surefoot.data.read import Frame


def run(
    files: Files,
    test: Annotated[
        list[str] | None,
        typer.Option("--test", help="A file that must not share frames with the others."),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", help="Code of a finding that you have judged to be harmless."),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option("--fix", help="Write what needs no guess to mend, FILE.xyz."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the findings as JSON, and nothing else.")
    ] = False,
    *,
    labels: LabelOptions,
) -> None:
    from surefoot.cli.screen import STATUS_REFUSED, complain, require_writable, say, suggest
    from surefoot.data.read import check_output, describe_labels, read_frames
    from surefoot.wording import counted

    if fix is not None:
        require_writable(fix)
        check_output(fix, [*files, *(test or ())])
    keys, units = labels.keys(), labels.units()
    splits = {"train": read_frames(files, keys, units)}
    if test:
        splits["test"] = read_frames(test, keys, units)
    if as_json:
        fatal = _write_json(splits, accept or ())
    else:
        for name, frames in splits.items():
            what = name if test else "found"
            say(f"{what}: {counted(len(frames), 'frame')}; {describe_labels(frames)}")
        fatal = bool(diagnose(splits, accept or ()))
        if not fatal and fix is None:
            suggest("surefoot", "template", *files, "-o", "config.yaml")
    if fix is not None:
        _mend(splits["train"], fix, complain if as_json else say)
    if fatal:
        raise typer.Exit(STATUS_REFUSED)


def _write_json(splits: Mapping[str, Sequence[Frame]], accept: Sequence[str]) -> bool:
    """The findings as JSON on stdout; whether training would be wrong."""
    import json
    from dataclasses import asdict

    from surefoot.data.check import check_frames

    held = [
        asdict(one) | {"severity": one.severity.value, "accepted": one.code in accept}
        for one in check_frames(splits)
    ]
    counts = {name: len(frames) for name, frames in splits.items()}
    typer.echo(json.dumps({"frames": counts, "findings": held}, indent=1, ensure_ascii=False))
    return any(one["severity"] == "error" and not one["accepted"] for one in held)


def _mend(frames: Sequence[Frame], output: Path, say: Callable[[str], None]) -> None:
    """Write the frames with what can be mended without a guess, and say what remains."""
    from surefoot.cli.predict import write_images
    from surefoot.cli.screen import UserError
    from surefoot.data.check import check_frames
    from surefoot.data.mend import mend, to_images

    mended = mend(frames, check_frames({"train": frames}))
    if not mended.frames:
        raise UserError(f"{output}: not written, since no frame is left.")
    write_images(output, to_images(mended.frames))
    for sentence in mended.done or ["nothing that can be mended without a guess"]:
        say(f"mended: {sentence}")
    remaining = [one.code for one in check_frames({"train": mended.frames})]
    say(f"wrote {output}; what remains: {', '.join(remaining) or 'nothing'}")


def diagnose(
    splits: Mapping[str, Sequence[Frame]],
    accept: Sequence[str] = (),
    conditioning: Conditioning | None = None,
) -> list[Finding]:
    """Show all findings and return those with which training would be wrong.

    Args:
        splits: frames by the name of their split.
        accept: codes of findings that forbid nothing.
        conditioning: of the model that is to be trained; none where not set.
    """
    from surefoot.blocks.conditioning import Conditioning
    from surefoot.cli.screen import say
    from surefoot.data.check import check_frames
    from surefoot.data.findings import Severity
    from surefoot.wording import counted

    findings = check_frames(splits, conditioning or Conditioning())
    codes = {finding.code for finding in findings}
    for code in accept:
        if code not in codes:
            say(f"nothing to accept under [{code}]")
    fatal = [f for f in findings if f.severity is Severity.ERROR and f.code not in accept]
    for finding in findings:
        mark = " (accepted)" if finding.code in accept else ""
        say(f"{finding.severity.value} [{finding.code}]{mark} {finding.message}")
    accepted = [f for f in findings if f.severity is Severity.ERROR and f not in fatal]
    warnings = len(findings) - len(fatal) - len(accepted)
    verdict = "training would be wrong" if fatal else "nothing that forbids training"
    also = f", {len(accepted)} accepted" if accepted else ""
    say(f"checked: {counted(len(fatal), 'error')}, {counted(warnings, 'warning')}{also}; {verdict}")
    return fatal


def refuse_unsound(frames: Sequence[Frame]) -> None:
    """Refuse frames with which nothing can be calculated: numbers not finite, broken cells.

    Raises:
        UserError: with the first finding.
    """
    from surefoot.cli.screen import UserError
    from surefoot.data.check import check_numbers

    findings = check_numbers(frames)
    if findings:
        raise UserError(findings[0].message)
