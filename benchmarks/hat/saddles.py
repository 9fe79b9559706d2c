"""Saddle points of unseen transfers on the ensemble: refined ones beside bands over them."""

import json
from collections.abc import Iterator
from typing import Any

import ase.io
import numpy as np

from hat.motion import choose_starts
from hat.peptides import ensemble_of
from hat.work import CONFIG, Piece, Setting, surefoot

PER_PIECE = 10  # transfers
KEPT = ("path", "direction", "status", "reason", "predicted_kcal", "uncertainty_kcal", "band_kcal",
        "imaginary_cm", "hydrogen_share", "donor_hydrogen_A", "hydrogen_acceptor_A", "ood",
        "flags")  # fmt: skip


def list_pieces(setting: Setting) -> Iterator[tuple[str, Piece]]:
    for number in range(-(-setting.scale["saddles"] // PER_PIECE)):
        yield f"saddles_{number}", lambda s, n=number: search(s, n)


def search(setting: Setting, number: int) -> dict[str, Any]:
    """By the program: searches from scans, with bands as a check; a killed one begins anew."""
    chosen = choose_starts(setting, setting.scale["saddles"])
    paths = chosen[number * PER_PIECE : (number + 1) * PER_PIECE]
    folder = setting.folder(f"saddles/{number}")
    images = [image for path in paths for image in path.images]
    ase.io.write(folder / "paths.xyz", images, format="extxyz")
    attempts = sum(1 for one in folder.iterdir() if one.is_dir())
    made = folder / f"attempt_{attempts}"
    surefoot(
        *("barrier", ensemble_of(setting), folder / "paths.xyz", "-o", made, "--saddle"),
        *("--check", "band", "--precision", "float64", "--level", CONFIG["level"]),
        log=folder / "log.txt",
    )
    records = json.loads((made / "barriers.json").read_text())["records"]
    return {"records": [{key: one[key] for key in KEPT} for one in records]}


def differences(records: list[dict[str, Any]]) -> np.ndarray:
    """Band less saddle point of the barriers that have both, kcal/mol, forward."""
    return np.array(
        [
            one["band_kcal"] - one["predicted_kcal"]
            for one in records
            if one["status"] == "saddle" and one["direction"] == "forward"
            and "" not in (one["band_kcal"], one["predicted_kcal"])
        ],
        float,
    )  # fmt: skip
