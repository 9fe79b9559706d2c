"""Hydrogen atom transfer in capped amino acids: structures, scans and barriers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surefoot.cli import hat_build, hat_frames, hat_recipes

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.command(name="build", help=hat_build.__doc__)(hat_build.run)
app.command(name="candidates", help=hat_frames.__doc__)(hat_frames.run)
app.command(name="recipes", help=hat_recipes.__doc__)(hat_recipes.run)

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
    from surefoot.cli.screen import require_writable, say, suggest
    from surefoot.data.read import check_output
    from surefoot.hat.sample import sample_configurations
    from surefoot.hat.transfer import Placement

    require_writable(output)
    check_output(output, [])
    placement = Placement(shortest=shortest, longest=longest)
    images = sample_configurations(donors.split(","), radicals.split(","), count, seed, placement)
    write_images(output, images)
    say(f"{output}: {len(images)} configurations, charge 0, spin 2 (doublets), seed {seed}")
    suggest("surefoot", "label", output, "-o", output.with_stem(f"{output.stem}_labelled"))


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
    from surefoot.cli.screen import require_writable, say, suggest
    from surefoot.data.read import check_output
    from surefoot.hat.sample import sample_paths
    from surefoot.hat.transfer import Placement

    require_writable(output)
    check_output(output, [])
    placement = Placement(shortest=shortest, longest=longest)
    images = sample_paths(donors.split(","), radicals.split(","), paths, seed, points, placement)
    write_images(output, images)
    say(f"{output}: {paths} paths of {points} points, charge 0, spin 2 (doublets), seed {seed}")
    suggest("surefoot", "label", output, "-o", output.with_stem(f"{output.stem}_labelled"))
