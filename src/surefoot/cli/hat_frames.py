"""Hydrogens that radicals of a protein may take in its frames: a table, and scans for barriers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from surefoot.hat.frames import Findings
    from surefoot.hat.proteins import Snapshot, Topology
    from surefoot.hat.valence import Radical

SHOWN = 8  # candidates on the screen


def run(
    structure: Annotated[
        Path, typer.Argument(help="PDB, GRO, or extended XYZ with names of residues and atoms.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    trajectory: Annotated[
        Path | None, typer.Argument(help="XTC, TRR, DCD, or a PDB with several models.")
    ] = None,
    radical: Annotated[
        list[str] | None,
        typer.Option(
            help="A:GLY30:CA, 30:CA or the atom's place in the file, from 0; A:GLY30:CA-HA2 takes "
            "HA2 away first. Several may be given. Without any, atoms that lack a bond are guessed."
        ),
    ] = None,
    radius: Annotated[float, typer.Option(min=5, help="Å; residues so near are cut out.")] = 8.0,
    points: Annotated[int, typer.Option(min=3, help="Points of each scan.")] = 11,
    every: Annotated[int, typer.Option(min=1, help="Frames: each so many.")] = 1,
    shortest: Annotated[
        int, typer.Option(min=1, help="Scans of each radical and hydrogen, over all frames.")
    ] = 100,
    caps: Annotated[
        str, typer.Option(help="Of cut peptide bonds: ace_nme or hydrogen.")
    ] = "ace_nme",
    cone: Annotated[
        str,
        typer.Option(
            help="End positions of radicals with one bond: molecule, or laboratory as published."
        ),
    ] = "molecule",
    water: Annotated[bool, typer.Option("--water", help="Water belongs to cut-outs, too.")] = False,
    altloc: Annotated[
        str | None, typer.Option(help="Letter of the alternate location to take.")
    ] = None,
    bonds_by_distance: Annotated[
        str, typer.Option(help="Residues whose bonds are guessed, e.g. L4Y,L5Y.")
    ] = "",
    charge: Annotated[
        list[str] | None, typer.Option(help="Charge of a residue that is not known, e.g. L4Y=0.")
    ] = None,
    rebuild_carbonyls: Annotated[
        bool,
        typer.Option(
            "--rebuild-carbonyls", help="Put backbone oxygens that are torn off in place."
        ),
    ] = False,
) -> None:
    from pydantic import ValidationError

    from surefoot.cli.screen import UserError, complain, progress_bar, suggest
    from surefoot.hat.candidate_files import prepare_folder, write_folder
    from surefoot.hat.frames import Search, search_frames
    from surefoot.hat.protein_files import count_frames, read_structure

    prepare_folder(output)
    try:
        search = Search.model_validate(
            {
                "radius": radius, "points": points, "shortest": shortest, "caps": caps,
                "cone": cone, "water": water, "charges": _charges(charge or []),
                "rebuild_carbonyls": rebuild_carbonyls,
            }
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--{first['loc'][0]}: {first['msg']}.") from error
    guessed = [name for name in bonds_by_distance.split(",") if name]
    topology, models = read_structure(structure, altloc, guessed)
    radicals = _radicals(topology, radical or [])
    for note in topology.notes:
        complain(f"{structure}: {note}.")
    total = len(models) if trajectory is None else count_frames(trajectory, topology)
    frames = _frames(topology, models, trajectory, every)
    with progress_bar("searching", -(-total // every)) as bar:
        findings = search_frames(topology, frames, radicals, search, bar.advance)
    kept = sum(row.cutout is not None for row in findings.rows)
    inputs = [structure] if trajectory is None else [structure, trajectory]
    with progress_bar("writing scans", kept) as bar:
        manifest = write_folder(
            output, topology, radicals, findings, search, inputs, bar.advance, every
        )
    _show(manifest, findings, output)
    barriers = f"{output}-barriers"
    suggest("surefoot", "barrier", "POTENTIAL", output / "scans.xyz", "-o", barriers)
    recipes = ("--frame-time", "PS", "-o", "recipes.csv")
    suggest("surefoot", "hat", "recipes", output, barriers, *recipes)


def _charges(stated: list[str]) -> dict[str, int]:
    from surefoot.cli.screen import UserError

    charges = {}
    for text in stated:
        name, _, value = text.partition("=")
        try:
            charges[name] = int(value)
        except ValueError as error:
            raise UserError(
                f"--charge {text}: write a residue and a whole number, such as L4Y=0."
            ) from error
    return charges


def _radicals(topology: Topology, named: list[str]) -> list[tuple[Radical, str | None]]:
    """The radicals that are named, or those that are guessed, which is said."""
    from surefoot.cli.screen import complain
    from surefoot.hat.valence import guess_radicals, read_radical

    if named:
        return [read_radical(topology, text) for text in named]
    found = guess_radicals(topology)
    if found:
        names = ", ".join(topology.label(one.atom) for one in found[:6])
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        complain(
            f"{topology.file}: {names}{more} guessed to be radicals, since each lacks a bond; name "
            "them with --radical to be sure."
        )
    return [(one, None) for one in found]


def _frames(
    topology: Topology, models: list[Snapshot], trajectory: Path | None, every: int
) -> Iterator[Snapshot]:
    from surefoot.hat.protein_files import read_trajectory

    frames = iter(models) if trajectory is None else read_trajectory(trajectory, topology)
    return (frame for frame in frames if frame.frame % every == 0)


def _show(manifest: dict[str, Any], findings: Findings, output: Path) -> None:
    """The shortest ways, and the counts."""
    from surefoot.cli.screen import say, show_table

    kept = sorted(
        (row for row in findings.rows if row.cutout is not None),
        key=lambda row: row.candidate.translation,
    )
    show_table(
        "Shortest ways of a hydrogen",
        ["frame", "hydrogen", "to", "H moves, Å", "D–H…A, °", "to a cap, Å"],
        [
            [
                str(row.frame),
                row.hydrogen,
                row.acceptor,
                f"{row.candidate.translation:.2f}",
                f"{row.candidate.angle:.0f}",
                f"{row.to_cap:.1f}" if row.to_cap < float("inf") else "–",
            ]
            for row in kept[:SHOWN]
        ],
    )
    say(
        f"{manifest['frames']} frames, {manifest['candidates']} candidates within 3 Å, "
        f"{manifest['clashes']} of them with an atom in the way"
    )
    cutouts = manifest["cutouts"]
    low, high = cutouts["atoms"]
    charges = ", ".join(f"{charge:+d}" for charge in cutouts["charges"])
    say(f"{cutouts['count']} cut-outs of {_range(low, high)} atoms, charges {charges}, doublets")
    for name, what in (
        ("hydrogens_added", "hydrogens added (as in water at pH 7; MMFF94, other atoms held)"),
        ("oxygens_put_in_place", "carbonyl oxygens put in place"),
    ):
        if manifest[name]:
            counts = sorted(int(number) for number in manifest[name])
            say(f"{_range(counts[0], counts[-1])} {what} around a radical")
    for skipped in manifest["skipped"]:
        say(f"left out {skipped['times']} times: {skipped['first']}")
    say(f"{output}: {manifest['scans']} scans of {manifest['points']} points, candidates.csv")


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"
