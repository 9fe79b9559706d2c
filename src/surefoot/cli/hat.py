"""Hydrogen atom transfer in capped amino acids: structures, scans and barriers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Donors = Annotated[str, typer.Option(help="Residues that give a hydrogen, e.g. GLY,ALA,SER.")]
Radicals = Annotated[str, typer.Option(help="Radicals that take it, e.g. methyl,methoxy.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ to write.")]
Shortest = Annotated[float, typer.Option(help="Smallest distance the hydrogen moves, in Å.")]
Longest = Annotated[float, typer.Option(help="Largest distance the hydrogen moves, in Å.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same structures.")]


@app.command()
def sample(
    output: Output,
    donors: Donors,
    radicals: Radicals = "methyl,methoxy,hydroxymethyl",
    count: Annotated[int, typer.Option(min=1, help="Configurations to make.")] = 400,
    seed: Seed = 0,
    shortest: Shortest = 0.4,
    longest: Longest = 1.2,
) -> None:
    """Make transfer configurations to train on: start, in between and end."""
    from surefoot.cli.predict import write_images
    from surefoot.cli.screen import require_writable, say
    from surefoot.data.read import check_output
    from surefoot.hat.sample import sample_configurations
    from surefoot.hat.transfer import Placement

    require_writable(output)
    check_output(output, [])
    placement = Placement(shortest=shortest, longest=longest)
    images = sample_configurations(donors.split(","), radicals.split(","), count, seed, placement)
    write_images(output, images)
    say(f"{output}: {len(images)} configurations, charge 0, spin 2 (doublets)")


@app.command()
def scan(
    output: Output,
    donors: Donors,
    radicals: Radicals = "methyl,methoxy,hydroxymethyl",
    paths: Annotated[int, typer.Option(min=1, help="Transfer paths to make.")] = 60,
    points: Annotated[int, typer.Option(min=3, help="Equidistant points of each path.")] = 11,
    seed: Seed = 0,
    shortest: Shortest = 0.4,
    longest: Longest = 1.2,
) -> None:
    """Make straight transfer paths: the hydrogen moves, all else stands still."""
    from surefoot.cli.predict import write_images
    from surefoot.cli.screen import require_writable, say
    from surefoot.data.read import check_output
    from surefoot.hat.sample import sample_paths
    from surefoot.hat.transfer import Placement

    require_writable(output)
    check_output(output, [])
    placement = Placement(shortest=shortest, longest=longest)
    images = sample_paths(donors.split(","), radicals.split(","), paths, seed, points, placement)
    write_images(output, images)
    say(f"{output}: {paths} paths of {points} points, charge 0, spin 2 (doublets)")


@app.command()
def barriers(
    predictions: Annotated[
        str, typer.Argument(help="Scans that `surefoot predict --members` wrote.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="CSV with one row per path.")
    ] = None,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.9,
) -> None:
    """Barriers of scans with error bars, beside the reference and a regression on distance."""
    from surefoot.cli.screen import require_writable, say, show_table
    from surefoot.data.read import refuse_overwriting
    from surefoot.hat.barriers import describe, format_csv, read_scans, summarize, to_records
    from surefoot.train.checkpoint import write_atomically

    if output is not None:
        require_writable(output)
        refuse_overwriting(output, [predictions])
    summary = summarize(read_scans(predictions), level)
    rows = []
    for record, found in zip(to_records(summary)[::2], summary.forward, strict=True):
        reference = record["reference_kcal"]
        rows.append(
            [
                str(record["path"]).replace("-path-", " "),
                f"{record['translation_A']:.2f}",
                "–" if reference == "" else f"{reference:.1f}",
                f"{record['predicted_kcal']:.1f} ± {record['uncertainty_kcal']:.1f}",
                f"{record['low_kcal']:.1f} … {record['high_kcal']:.1f}",
                "–" if reference == "" else ("yes" if found.holds(level) else "no"),
            ]
        )
    show_table(
        f"Forward barriers in kcal/mol on the {summary.method} surface (not true barriers)",
        ["path", "H moves, Å", "reference", "predicted ± σ", f"{level:.0%} interval", "in it"],
        rows,
    )
    for line in describe(summary):
        say(line)
    if output is not None:
        write_atomically(output, format_csv(summary).encode())
        say(f"wrote {output}")
