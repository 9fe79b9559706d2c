"""What a data set holds: frame by frame with hashes, and in short tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from ase import Atoms

from surefoot.hat.build import BuildSettings, Built
from surefoot.hat.compounds import formula
from surefoot.label.journal import content_hash
from surefoot.label.labeler import Labeler

KEPT = ("system", "group", "config_type", "transfer", "charge", "spin", "translation")
BINS = {
    "translation": np.arange(0.0, 3.6, 0.5),
    "distance": np.arange(1.0, 6.1, 0.5),
    "angle": np.arange(0.0, 181.0, 30.0),
}
"""Edges of histograms: Å, Å and degrees."""


def write_manifest(built: Built, settings: BuildSettings) -> str:
    """The manifest as JSON, one line for each molecule and each frame.

    It holds settings, versions, molecules with the conformers that were found, rejections by
    reason, counts, and for each frame its names and a hash of its structure.

    Args:
        built: the data set.
        settings: what it was made by.
    """
    labeler: Labeler = settings.labeler
    head = {
        "seed": settings.seed,
        "labeler": labeler.describe(),
        "rdkit": version("rdkit"),
        "settings": settings.model_dump(mode="json"),
        "splits": built.molecules,
        "rejected": {name: dict(sorted(found.items())) for name, found in built.rejected.items()},
        "counts": {name: count_frames(frames) for name, frames in built.frames.items()},
    }
    sections = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    sections.append(f'"molecules": [\n{_lines(_molecules(built, settings))}\n]')
    files = [
        f"{json.dumps(f'{name}.xyz')}: [\n{_lines(_records(frames))}\n]"
        for name, frames in built.frames.items()
    ]
    joined = ",\n".join(files)
    sections.append(f'"files": {{\n{joined}\n}}')
    return "{\n" + ",\n".join(sections) + "\n}\n"


def count_frames(frames: Sequence[Atoms]) -> dict[str, Any]:
    """Numbers of frames and transfers by kind, elements, residues, and histograms of geometry.

    All but `frames` and `config_type` count transfers, of which each has one frame or more.

    Args:
        frames: as `build` makes them.
    """
    first = list({atoms.info["system"]: atoms for atoms in reversed(frames)}.values())[::-1]
    infos = [atoms.info for atoms in first]
    pairs = [
        f"{atoms.symbols[atoms.info['donor_index']]}>{atoms.symbols[atoms.info['acceptor_index']]}"
        for atoms in first
    ]
    return {
        "frames": len(frames),
        "transfers": len(first),
        "config_type": _count(atoms.info["config_type"] for atoms in frames),
        "transfer": _count(info["transfer"] for info in infos),
        "charge": _count(info["charge"] for info in infos),
        "elements": _count(pairs),
        "donor_residue": _count(info["donor_residue"] for info in infos),
        "acceptor_residue": _count(info["acceptor_residue"] for info in infos),
        **{name: _histogram(infos, name, edges) for name, edges in BINS.items()},
    }


def conformers_missing(built: Built, settings: BuildSettings) -> dict[str, int]:
    """Molecules with fewer conformers than were asked for, and how many they have."""
    found = {name: len(ensemble.shapes) for name, ensemble in built.ensembles.items()}
    return {name: number for name, number in found.items() if number < settings.conformers.count}


def _molecules(built: Built, settings: BuildSettings) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "smiles": ensemble.compound.smiles,
            "formula": formula(ensemble.compound),
            "charge": ensemble.compound.charge,
            "atoms": len(ensemble.apart),
            "conformers": len(ensemble.shapes),
            "asked": settings.conformers.count,
            "snapshots": sum(len(shape.snapshots) for shape in ensemble.shapes),
        }
        for name, ensemble in built.ensembles.items()
    ]


def _records(frames: Sequence[Atoms]) -> list[dict[str, Any]]:
    return [
        {
            "frame": number,
            "formula": atoms.get_chemical_formula(),
            **{key: atoms.info[key] for key in KEPT},
            "hash": content_hash(atoms, atoms.info["charge"], atoms.info["spin"], {})[:16],
        }
        for number, atoms in enumerate(frames)
    ]


def _lines(records: Sequence[dict[str, Any]]) -> str:
    return ",\n".join(json.dumps(record) for record in records)


def _count(values: Any) -> dict[str, int]:
    return {str(key): number for key, number in sorted(Counter(values).items())}


def _histogram(infos: Sequence[dict[str, Any]], name: str, edges: np.ndarray) -> dict[str, int]:
    """Transfers by bin; what lies beyond the last edge is in the last one."""
    inside = np.clip([info[name] for info in infos], edges[0], edges[-1])
    counts = np.histogram(inside, edges)[0]
    return {
        f"{low:g}-{high:g}": int(number)
        for low, high, number in zip(edges[:-1], edges[1:], counts, strict=True)
    }
