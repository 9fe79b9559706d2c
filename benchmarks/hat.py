"""Hydrogen atom transfers in peptides: potentials, dynamics, DFT, collagen and public barriers.

Usage: SUREFOOT_DATA=… python benchmarks/hat.py [PIECE …] [--minutes 100] [--scale full]
           [--work FOLDER] [--kept FOLDER]
       python benchmarks/hat.py list | table

Pieces, each one JSON file in benchmarks/hat/figures/, those that others need first:

    structures, labels_…, cost_…, tune_…, curve_…, member_…, ensemble
        SchNet, Allegro and MACE at GFN2-xTB and spGFN2-xTB, each at its own rate, at equal
        processor time; scans of residues that nobody has learned from; an ensemble of the best
    md, reactive_…, relabelled
        dynamics of it at 310 K, and transfers that are steered and then released
    saddles_…
        saddle points of unseen transfers on it, and bands over them
    dft_pretrain, dft_…
        the DFT set (hat/dft.py): from scratch, fine-tuned and delta-learned, four folds of donors
    collagen_frames, collagen_scans
        a Gly-Pro-Hyp stretch: thermal frames, scans, some of them labelled, KIMMDY's recipes
    bh9_…
        hydrogen transfers of BH9 with every labeler and every kept potential

What is there is not made again, an interrupted piece goes on, and after --minutes none begins.
`table` writes benchmarks/hat/README.md. --scale tiny tries every piece in seconds.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from hat import bh9, collagen_scans, motion, page, peptides, saddles, small
from hat.work import CONFIG, HERE, Piece, Setting, file_of, keep


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pieces", nargs="*", help="names of pieces, `list` or `table`; all if none")
    parser.add_argument("--minutes", type=float, default=100.0, help="after which none begins")
    parser.add_argument("--scale", default="full", choices=CONFIG["scales"])
    parser.add_argument("--work", type=Path, default=Path("runs/hat"))
    parser.add_argument("--kept", type=Path, help="folder of the JSON files and the page")
    chosen = parser.parse_args()
    work = chosen.work.resolve() / chosen.scale
    kept = chosen.kept or (HERE if chosen.scale == "full" else work)
    setting = Setting(
        scale=CONFIG["scales"][chosen.scale], work=work, kept=kept.resolve() / "figures"
    )
    every = dict(list_pieces(setting))
    if chosen.pieces == ["table"]:
        page.write_page(kept / "README.md", setting)
        return
    if chosen.pieces == ["list"]:
        for name in every:
            print(name, "done" if file_of(name, setting).exists() else "")
        return
    unknown = [name for name in chosen.pieces if name not in every]
    if unknown:
        parser.error(f"there is no piece {unknown[0]}; `list` names all.")
    end = time.monotonic() + 60 * chosen.minutes
    for name in chosen.pieces or every:
        if file_of(name, setting).exists():
            continue
        if time.monotonic() > end:
            print(f"{chosen.minutes:g} minutes are over; the same command goes on with {name}")
            return
        keep(name, every[name], setting)


def list_pieces(setting: Setting) -> Iterator[tuple[str, Piece]]:
    rooms = (peptides, motion, saddles, small, collagen_scans, bh9)
    return chain.from_iterable(room.list_pieces(setting) for room in rooms)


if __name__ == "__main__":
    main()
