"""Look for what would make training wrong: the data doctor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    *,
    labels: LabelOptions,
) -> None:
    from surefoot.cli.screen import STATUS_REFUSED, say
    from surefoot.data.read import describe_labels, read_frames

    keys, units = labels.keys(), labels.units()
    splits = {"train": read_frames(files, keys, units)}
    if test:
        splits["test"] = read_frames(test, keys, units)
    for name, frames in splits.items():
        say(f"{name if test else 'found'}: {len(frames)} frames; {describe_labels(frames)}")
    if diagnose(splits, accept or ()):
        raise typer.Exit(STATUS_REFUSED)


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
    say(f"checked: {len(fatal)} errors, {warnings} warnings{also}; {verdict}")
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
