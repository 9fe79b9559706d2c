"""The folder of a search for hydrogen transfers: a table, scans and a manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from surefoot import __version__
from surefoot.hat.frames import Findings, Search, scans
from surefoot.hat.proteins import Topology
from surefoot.hat.valence import Radical

TABLE, SCANS, MANIFEST = "candidates.csv", "scans.xyz", "manifest.json"
COLUMNS = ("frame", "donor", "hydrogen", "acceptor", "end", "translation_A", "angle_deg", "clash",
           "relation", "degeneracy", "cap_distance_A", "missing_distance_A", "hydrogen_index",
           "donor_index", "acceptor_index", "scan")  # fmt: skip


def prepare_folder(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ValueError: if it is a file or not empty.
    """
    if folder.is_file():
        raise ValueError(f"{folder}: this is a file; name a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: this folder is not empty; name another, or remove it.")


def write_folder(
    folder: Path,
    topology: Topology,
    radicals: Sequence[tuple[Radical, str | None]],
    findings: Findings,
    search: Search,
    inputs: Sequence[Path],
    progress: Callable[[], None] = lambda: None,
    every: int = 1,
) -> dict[str, Any]:
    """Write table, scans and manifest: the folder is there with all of them, or not at all.

    Args:
        folder: new, or empty.
        topology: of the structure.
        radicals: that were searched around.
        findings: of `search_frames`.
        search: its settings.
        inputs: files that were read.
        progress: called after each scan.
        every: so many frames of the trajectory stand for one that was looked at.

    Returns:
        The manifest.

    Raises:
        ValueError: if the folder holds something.
    """
    prepare_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        (temporary / TABLE).write_text(format_table(topology, findings))
        with (temporary / SCANS).open("w") as file:
            for images in scans(topology, findings, search):
                file.write(scan_text(images))
                progress()
        manifest = describe(topology, radicals, findings, search, inputs, every)
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def format_table(topology: Topology, findings: Findings) -> str:
    """All candidates as CSV; indices are places in the file, empty for what was added."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in findings.rows:
        one = row.candidate
        writer.writerow(
            [
                row.frame,
                row.donor,
                row.hydrogen,
                row.acceptor,
                one.end_index,
                f"{one.translation:.4f}",
                f"{one.angle:.2f}",
                "yes" if one.clash else "no",
                "intra" if row.same_residue else "inter",
                one.degeneracy,
                *(f"{far:.3f}" if np.isfinite(far) else "" for far in (row.to_cap, row.to_missing)),
                *(place if place >= 0 else "" for place in row.source),
                row.system(topology.file) if row.cutout is not None else "",
            ]
        )
    return text.getvalue()


def scan_text(images: Sequence[Atoms]) -> str:
    """A scan as extended XYZ, as ASE writes it.

    Only the line of the moving hydrogen and the number of the point differ between its frames, so
    that ASE is asked once.
    """
    first = io.StringIO()
    ase.io.write(first, images[0], format="extxyz")
    lines = first.getvalue().splitlines()
    hydrogen = int(images[0].info["moving_h"])
    symbol = lines[2 + hydrogen].split()[0]
    header, mark = lines[1], "path_point=0"
    if header.count(mark) != 1:
        raise RuntimeError("the number of the point stands elsewhere in the line of the frame")
    parts = []
    for point, atoms in enumerate(images):
        lines[1] = header.replace(mark, f"path_point={point}")
        x, y, z = atoms.positions[hydrogen]
        lines[2 + hydrogen] = f"{symbol:<2} {x:16.8f} {y:16.8f} {z:16.8f}"
        parts.append("\n".join(lines))
    return "\n".join(parts) + "\n"


def describe(
    topology: Topology,
    radicals: Sequence[tuple[Radical, str | None]],
    findings: Findings,
    search: Search,
    inputs: Sequence[Path],
    every: int = 1,
) -> dict[str, Any]:
    """What was read, how it was searched and what came out; the same input gives the same text."""
    kept = [row for row in findings.rows if row.cutout is not None]
    cutouts = {id(row.cutout): row.cutout for row in kept if row.cutout is not None}.values()
    sizes = [len(cutout.atoms) for cutout in cutouts]
    return {
        "made_by": f"surefoot {__version__}",
        "inputs": [{"file": path.name, "sha256": _hash(path)} for path in inputs],
        "settings": search.model_dump(mode="json"),
        "notes": list(topology.notes),
        "radicals": [
            {
                "atom": topology.label(radical.atom),
                "index": int(topology.source[radical.atom]),
                "hydrogen_removed": hydrogen
                or (None if radical.hydrogen is None else topology.names[radical.hydrogen]),
                "guessed": radical.guessed,
            }
            for radical, hydrogen in radicals
        ],
        "frames": findings.frames,
        "every": every,
        "candidates": len(findings.rows),
        "clashes": sum(row.candidate.clash for row in findings.rows),
        "scans": len(kept),
        "points": search.points,
        "cutouts": {
            "count": len(sizes),
            "atoms": [min(sizes), max(sizes)],
            "charges": sorted({cutout.charge for cutout in cutouts}),
            "spin": 2,
        },
        "hydrogens_added": _counts(findings.hydrogens.items()),
        "oxygens_put_in_place": _counts(findings.oxygens.items()),
        "skipped": [
            {"times": count, "first": findings.reasons[kind]}
            for kind, count in sorted(findings.skipped.items())
        ],
    }


def _counts(items: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Number around one radical in one frame → how often; nothing where it is always none."""
    return {str(number): times for number, times in sorted(items) if number}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
