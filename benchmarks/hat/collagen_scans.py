"""Collagen: thermal frames of a Gly-Pro-Hyp stretch, scans in them, and KIMMDY's recipes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from hat.collagen import Stretch, find_stretch
from hat.peptides import ensemble_of
from hat.scores import Barriers, judge_paths, whole_paths
from hat.work import CONFIG, Piece, Setting, label, need, surefoot
from surefoot.data.read import read_frames
from surefoot.hat.cutouts import Cutout, cut_out
from surefoot.hat.frames import Search
from surefoot.hat.proteins import Snapshot
from surefoot.hat.regions import displacements, residues_within
from surefoot.md.saved import STATE
from surefoot.posteriors.predictor import load_predictor

PICOSECONDS = 1e-3  # per fs


def list_pieces(_: Setting) -> Iterator[tuple[str, Piece]]:
    yield "collagen_frames", make_frames
    yield "collagen_scans", make_scans


def make_frames(setting: Setting) -> dict[str, Any]:
    """Dynamics at 310 K of what is near each radical; caps and all beyond stand still."""
    need("ensemble", setting)
    return {
        "sites": [_frames_of(setting, site) for site in range(setting.scale["collagen"]["sites"])]
    }


def _stretch(setting: Setting, site: int) -> Stretch:
    """With room for the mobile part."""
    return find_stretch(Search(radius=setting.scale["collagen"]["mobile"]), site)


def _frames_of(setting: Setting, site: int) -> dict[str, Any]:
    scale, folder = setting.scale["collagen"], setting.folder(f"collagen/{site}")
    stretch, dynamics = _stretch(setting, site), CONFIG["dynamics"]
    cutout = mobile_part(stretch, scale["mobile"])
    if not (folder / "cutout.xyz").exists():
        atoms = cutout.atoms.copy()
        atoms.set_constraint(FixAtoms(mask=cutout.caps))
        ase.io.write(folder / "cutout.xyz", atoms, format="extxyz", columns=COLUMNS)
    potential, log = ensemble_of(setting), folder / "log.txt"
    if not (folder / "relaxed.xyz").exists():
        surefoot(
            *("relax", potential, folder / "cutout.xyz", "-o", folder / "relaxed.xyz"),
            *("--steps", scale["relax"]),
            log=log,
        )
    steps = scale["settle"] + scale["frames"] * scale["apart"]
    run = folder / "md"
    again = ["--resume"] if (run / STATE).exists() else []
    surefoot(
        *("md", potential, folder / "relaxed.xyz", "-o", run, "-T", dynamics["kelvin"]),
        *("--timestep", dynamics["timestep"], "--steps", steps, "--every", scale["apart"]),
        *("--drive", "first", "--trajectory", "xyz", "--drift", 1e9, *again),
        log=log,
    )
    moved = [atoms for file in sorted(run.rglob("*.xyz")) for atoms in ase.io.read(file, ":")]
    settled = [atoms for atoms in moved if atoms.info.get("step", 0) > scale["settle"]]
    frames = [_put_back(stretch, cutout, atoms) for atoms in settled[: scale["frames"]]]
    if not frames:
        raise SystemExit(f"{run}: the dynamics have ended before they had settled.")
    ase.io.write(folder / "stretch.xyz", stretch.as_atoms(), format="extxyz")  # knows the bonds
    ase.io.write(folder / "frames.xyz", frames, format="extxyz")
    ood = [float(atoms.info["ood"]) for atoms in settled if "ood" in atoms.info]
    return {
        "radical": stretch.name, "atoms": len(cutout.atoms), "frames": len(frames),
        "plain": round(stretch.plain, 3), "ood": [round(one, 3) for one in ood],
    }  # fmt: skip


COLUMNS = ["symbols", "positions", "move_mask"]


def mobile_part(stretch: Stretch, radius: float) -> Cutout:
    """Whole residues near the radical, capped."""
    alone = Snapshot(0, stretch.positions, None)
    radical = stretch.radical.atom
    near = residues_within(stretch.topology, displacements(alone, radical), radius)
    return cut_out(stretch.topology, stretch.positions, radical, near)


def _put_back(stretch: Stretch, cutout: Cutout, moved: Atoms) -> Atoms:
    """The stretch with the mobile part where it has gone."""
    atoms = stretch.as_atoms()
    inside = cutout.place >= 0
    atoms.positions[cutout.place[inside]] = moved.positions[inside]
    return atoms


def make_scans(setting: Setting) -> dict[str, Any]:
    """Scans with intervals, some of them labelled, and recipes; the program does it all."""
    need("collagen_frames", setting)
    scale, apart = setting.scale["collagen"], CONFIG["dynamics"]["timestep"] * PICOSECONDS
    found = []
    for site in range(scale["sites"]):
        folder = setting.work / "collagen" / str(site)
        stretch = _stretch(setting, site)
        out, heights, log = folder / "out", folder / "barriers", folder / "log.txt"
        if not out.exists():
            surefoot(
                *("hat", "candidates", folder / "stretch.xyz", folder / "frames.xyz", "-o", out),
                *("--radical", stretch.radical.atom, "--radius", scale["radius"]),
                *("--points", CONFIG["points"]),
                log=log,
            )
        images = _shortest(out / "scans.xyz", -(-scale["scans"] // scale["sites"]))
        ase.io.write(folder / "scans.xyz", images, format="extxyz")
        if not heights.exists():
            surefoot(
                *("barrier", ensemble_of(setting), folder / "scans.xyz", "-o", heights),
                *("--method", "arrhenius", "-T", CONFIG["dynamics"]["kelvin"]),
                *("--level", CONFIG["level"]),
                log=log,
            )
        recipes = setting.kept.parent / f"collagen_recipes_{site}.csv"
        surefoot(
            *("hat", "recipes", out, heights, "-o", recipes),
            *("--frame-time", scale["apart"] * apart, "--uncertain", "upper_bound"),
            log=log,
        )
        found.append(_describe(setting, folder, stretch, images))
    return {"sites": found}


def _shortest(file: Path, count: int) -> list[Atoms]:
    """The scans with the shortest ways."""
    groups: dict[str, list[Atoms]] = {}
    for atoms in ase.io.read(file, ":"):
        groups.setdefault(atoms.info["system"], []).append(atoms)
    order = sorted(groups.values(), key=lambda images: images[0].info["translation"])
    return [atoms for images in order[:count] for atoms in images]


def _describe(
    setting: Setting, folder: Path, stretch: Stretch, images: list[Atoms]
) -> dict[str, Any]:
    """What was predicted, and errors on scans that are labelled, from low to high barriers."""
    scale = setting.scale["collagen"]
    records = json.loads((folder / "barriers" / "barriers.json").read_text())["records"]
    forward = [one for one in records if one["direction"] == "forward"]
    count = min(len(forward), -(-scale["relabelled"] // scale["sites"]))
    order = sorted(forward, key=lambda one: one["predicted_kcal"])
    places = np.linspace(0, len(order) - 1, count).round().astype(int)
    chosen = {order[place]["path"] for place in places}
    structures, labelled = folder / "to_label.xyz", folder / "labelled.xyz"
    if not structures.exists():
        some = [atoms for atoms in images if atoms.info["system"] in chosen]
        ase.io.write(structures, some, format="extxyz")
    counts = label(structures, labelled, "--method", CONFIG["main"])
    predictor = load_predictor(ensemble_of(setting))
    rows = judge_paths(predictor, whole_paths(labelled), CONFIG["level"])
    for row in rows:
        row["donor"] = ".".join(row["path"].split("-")[-2].split(".")[:2])  # chain and residue
    frames = read_frames([str(labelled)])
    keys = ("predicted_kcal", "low_kcal", "high_kcal", "ood", "log10_rate", "flags", "path")
    return {
        "radical": stretch.name,
        "atoms": [min(len(f.atoms) for f in frames), max(len(f.atoms) for f in frames)],
        "scans": [{key: one[key] for key in keys} for one in forward],
        "labels": counts,
        "labelled": rows,
        "mae": Barriers(rows).mae() if rows else None,
    }
