"""Structures of the DFT set: hydrogen transfers between two small molecules, 8 to 12 atoms.

    python benchmarks/hat/dft.py -o runs/dft/structures.xyz
    surefoot label runs/dft/structures.xyz -o runs/dft/dft.xyz --config benchmarks/hat/dft.yaml

writes the structures with a manifest beside them, and labels them; the second command is given
again after an interruption and goes on. For each pair of a donor's bond and a radical there is one
rigid scan of 9 points, whose hydrogen moves 1 to 3 Å, and 4 single configurations: a start, an end,
and two with the hydrogen in between and off the line. Molecules are relaxed with GFN2-xTB and
displaced by the heat of 300 K (scans) or 300 to 1000 K (single configurations); radicals keep the
geometry of the molecule that lost the hydrogen. One seed gives the same manifest to the byte.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tblite on two threads is many times slower
import numpy as np
from ase import Atoms

from surefoot.cli.predict import write_images
from surefoot.hat.modes import Thermal, relax, thermal
from surefoot.hat.molecules import molecule, molecule_sites
from surefoot.hat.peptides import embed, hydrogenated
from surefoot.hat.radicals import Acceptor, radical, take_hydrogen
from surefoot.hat.sample import describe_frame, hang_between, scan
from surefoot.hat.sites import Donor
from surefoot.hat.transfer import Placement, PlacementFailed, Transfer, place
from surefoot.label.journal import content_hash
from surefoot.label.xtb import Xtb

PAIRS = (
    ("methane", "C", "methyl"),
    ("methanol", "O", "methyl"),
    ("methylamine", "N", "methyl"),
    ("methanethiol", "S", "methyl"),
    ("formamide", "C", "methyl"),
    ("ethane", "C", "hydroxyl"),
    ("methanol", "C", "methoxy"),
    ("methylamine", "C", "methyl"),
    ("methanethiol", "S", "methoxy"),
    ("formamide", "N", "hydroxymethyl"),
    ("water", "O", "ethyl"),
    ("methane", "C", "methoxy"),
    ("methanol", "O", "hydroxymethyl"),
    ("methylamine", "N", "hydroxymethyl"),
    ("methanethiol", "C", "methyl"),
    ("formamide", "N", "methyl"),
    ("ethane", "C", "methyl"),
    ("ammonia", "N", "methoxy"),
    ("methane", "C", "methylthiyl"),
    ("methanol", "C", "methylthiyl"),
    ("methylamine", "C", "methoxy"),
    ("methanethiol", "S", "aminomethyl"),
    ("formamide", "C", "methoxy"),
    ("ethane", "C", "amidogen"),
    ("methanol", "O", "carbamoyl"),
    ("methane", "C", "aminomethyl"),
    ("methylamine", "N", "methylthiyl"),
    ("methanethiol", "S", "methylthiyl"),
    ("formamide", "N", "methylaminyl"),
    ("methanol", "C", "methyl"),
    ("methane", "C", "carbamoyl"),
    ("methanol", "O", "aminomethyl"),
)
"""Donor, element that holds the hydrogen, and radical, in the order in which they are labelled."""

SINGLES = ("start", "end", "between", "between")
POINTS = 9
SCANNED = (1.0, 3.0)  # Å; squared chance between them, as short transfers matter more
SINGLE = (0.4, 2.0)  # Å
COLD, HOT = 300.0, 1000.0  # K
DIGITS = 6  # of positions in Å: below them the last bits of two machines may differ
TRIES = 50  # displaced molecules tried before a pair is given up


@functools.cache
def warm(smiles_of: str, name: str) -> Thermal:
    """A donor or the parent of a radical, relaxed, with its modes."""
    atoms = molecule(name, 0) if smiles_of == "donor" else embed(radical(name).parent, 1, 0)[0]
    labeler = Xtb()
    return thermal(relax(atoms, labeler), labeler)


def take(pair: tuple[str, str, str], hot: float, generator: np.random.Generator) -> Transfer:
    """A transfer between displaced molecules; its distance is drawn with the rest."""
    donor, element, radical_name = pair
    parent = radical(radical_name)
    bonded = hydrogenated(parent.parent).GetAtomWithIdx(parent.acceptor).GetNeighbors()
    hydrogens = [atom.GetIdx() for atom in bonded if atom.GetAtomicNum() == 1]
    sites = molecule_sites(donor, element)
    for _ in range(TRIES):
        temperature = generator.uniform(COLD, hot)
        if hot > COLD:
            length = generator.uniform(*SINGLE)
        else:
            length = SCANNED[0] + (SCANNED[1] - SCANNED[0]) * generator.uniform() ** 2
        site = sites[generator.integers(len(sites))]
        giving = Donor(donor, warm("donor", donor).displaced(temperature, generator), site)
        taking = warm("radical", radical_name).displaced(temperature, generator)
        lost = hydrogens[generator.integers(len(hydrogens))]
        acceptor: Acceptor = take_hydrogen(radical_name, taking, parent.acceptor, lost)
        try:
            return place(giving, acceptor, placement(length), generator)
        except PlacementFailed:
            continue
    raise PlacementFailed(f"{'-'.join(pair)}: no place in {TRIES} tries")


def placement(length: float) -> Placement:
    """One distance; the molecules come displaced already."""
    return Placement(shortest=length, longest=length, rattle=0.0)


def make(seed: int) -> list[Atoms]:
    """All frames, pair after pair: a scan, then single configurations."""
    frames: list[Atoms] = []
    for number, pair in enumerate(PAIRS):
        generator = np.random.default_rng([seed, number])
        name = "-".join(pair)
        frames += scan(take(pair, COLD, generator), f"{name}-path", POINTS)
        for turn, kind in enumerate(SINGLES):
            transfer = take(pair, HOT, generator)
            position = transfer.start if kind == "start" else transfer.end
            if kind == "between":
                position = hang_between(transfer, placement(transfer.translation), generator)
            atoms = transfer.with_hydrogen_at(position)
            atoms.info |= describe_frame(transfer, f"{name}-{turn}", kind)
            frames.append(atoms)
    for atoms in frames:
        atoms.positions = np.round(atoms.positions, DIGITS)
        atoms.info["translation"] = round(atoms.info["translation"], DIGITS)
    return frames


def manifest(frames: list[Atoms], seed: int) -> str:
    """What is in the set, frame by frame, with a hash of each structure."""
    records = [
        {
            "frame": number,
            "formula": atoms.get_chemical_formula(),
            **{key: atoms.info[key] for key in ("system", "config_type", "translation")},
            "hash": content_hash(atoms, atoms.info["charge"], atoms.info["spin"], {})[:16],
        }
        for number, atoms in enumerate(frames)
    ]
    lines = ",\n".join(json.dumps(record) for record in records)
    return f'{{"seed": {seed}, "frames": [\n{lines}\n]}}\n'


def main() -> None:
    """Write structures and manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    frames = make(chosen.seed)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    write_images(chosen.output, frames)
    chosen.output.with_suffix(".json").write_text(manifest(frames, chosen.seed))
    print(f"{chosen.output}: {len(frames)} frames of {len(PAIRS)} pairs")


if __name__ == "__main__":
    main()
