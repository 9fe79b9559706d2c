"""Write kimmdy_hat.npz: end positions and candidates of kimmdy-hat's rules for the parity test.

kimmdy-hat is GPL-3 and pins TensorFlow; its geometric rules need neither TensorFlow nor its trained
models, so it is installed without dependencies, in an environment of its own, and only run:

    python3.11 -m venv ENV
    ENV/bin/pip install kimmdy==8.3.1 certifi
    ENV/bin/pip install --no-deps kimmdy-hat==1.2.0
    ENV/bin/pip install rdkit==2026.9.1
    ENV/bin/python tests/science/oracles/kimmdy_hat_values.py [FOLDER]

Importing the package would download models; a stand-in for the package itself avoids that, and the
module with the rules is imported as it is. Structures are capped peptides in conformers of RDKit,
each beside its own copy shifted by SHIFT, which makes contacts and clashes. Radicals are made by
leaving out one hydrogen, that with the lowest index, of each heavy atom that has some; atoms of
carbon with three bonds count as they are, since they are flat.

Archive, in Å:

    cases: JSON, case name → index of the atom that holds the radical
    S/positions (float32, as MDAnalysis holds them), S/numbers, S/bonds (bonds, 2)
    C/removed: index of the hydrogen that is left out, −1 for none
    C/ends (ends, 3): what `find_radical_pos` says
    C/hydrogens, C/targets (candidates, 3): what `identify_hat_candidates` says, h_cutoff 3 Å

S is a structure, C is "S/index". Indices are those of S, the hydrogen that is left out counted.
"""

from __future__ import annotations

import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np

SHIFT = (3.0, 2.5, 1.0)
SEED = 7
PEPTIDES = {
    "Ace-Ser-Tyr-Met-NMe": "CC(=O)N[C@@H](CO)C(=O)N[C@@H](Cc1ccc(O)cc1)C(=O)N[C@@H](CCSC)C(=O)NC",
    "Ace-Arg-Cys-Thr-NMe": "CC(=O)N[C@@H](CCCNC(=N)N)C(=O)N[C@@H](CS)C(=O)N[C@@H](C(O)C)C(=O)NC",
}
SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O", 16: "S"}


def rules() -> types.ModuleType:
    """The module with the geometric rules, without the package's own start."""
    import importlib
    import site

    folder = Path(site.getsitepackages()[0]) / "kimmdy_hat"
    package = types.ModuleType("kimmdy_hat")
    package.__path__ = [str(folder)]
    sys.modules["kimmdy_hat"] = package
    return importlib.import_module("kimmdy_hat.utils.trajectory_utils")


def structure(smiles: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, positions (Å) and bonds of a molecule and its copy, which is not bonded to it."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(molecule, randomSeed=SEED)
    AllChem.MMFFOptimizeMolecule(molecule)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    positions = molecule.GetConformer().GetPositions()
    pairs = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()]
    bonds = np.sort(np.array(pairs), axis=1)
    both = np.vstack([positions, positions + np.array(SHIFT)]).astype(np.float32)
    return np.tile(numbers, 2), both, np.vstack([bonds, bonds + len(numbers)])


def universe(numbers: np.ndarray, positions: np.ndarray, pairs: np.ndarray):
    """The structure as MDAnalysis holds it, in a box so wide that no image is near."""
    import MDAnalysis

    made = MDAnalysis.Universe.empty(len(numbers), trajectory=True)
    symbols = [SYMBOLS[number] for number in numbers]
    for attribute in ("types", "elements", "names"):
        made.add_TopologyAttr(attribute, symbols)
    made.add_TopologyAttr("ids", list(range(1, len(numbers) + 1)))
    made.add_TopologyAttr("resnames", ["ALA"])
    made.add_TopologyAttr("resids", [1])
    made.atoms.positions = positions
    made.dimensions = [500.0, 500.0, 500.0, 90.0, 90.0, 90.0]
    made.add_TopologyAttr("bonds", [tuple(pair) for pair in pairs])
    return made


def radicals(numbers: np.ndarray, pairs: np.ndarray) -> list[tuple[int, int]]:
    """Atoms that are to be radicals, and the hydrogen each loses; −1 for none."""
    found = []
    for atom in np.flatnonzero(numbers > 1):
        partners = np.concatenate([pairs[pairs[:, 0] == atom, 1], pairs[pairs[:, 1] == atom, 0]])
        hydrogens = sorted(int(one) for one in partners if numbers[one] == 1)
        if hydrogens:
            found.append((int(atom), hydrogens[0]))
        elif numbers[atom] == 6 and len(partners) == 3:
            found.append((int(atom), -1))
    return found


def hydrogen_indices(found: list[dict], left: np.ndarray) -> np.ndarray:
    """Where the hydrogens of candidates stand in the whole structure; identities begin at 1."""
    return left[np.array([int(one["reaction_ids"][1]) - 1 for one in found], int)]


def main() -> None:
    warnings.simplefilter("ignore")
    module = rules()
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    values: dict[str, np.ndarray] = {}
    cases: dict[str, int] = {}
    for name, smiles in PEPTIDES.items():
        numbers, positions, pairs = structure(smiles)
        values |= {
            f"{name}/positions": positions,
            f"{name}/numbers": numbers,
            f"{name}/bonds": pairs,
        }
        for atom, removed in radicals(numbers, pairs):
            left = np.setdiff1d(np.arange(len(numbers)), [removed])
            new = {int(old): place for place, old in enumerate(left)}
            kept = [(new[int(a)], new[int(b)]) for a, b in pairs if removed not in (a, b)]
            held = universe(numbers[left], positions[left], np.array(kept))
            radical = held.select_atoms(f"index {new[int(atom)]}")
            bonded = radical[0].bonded_atoms
            found = module.identify_hat_candidates(held, 0, radical, bonded, h_cutoff=3)
            case = f"{name}/{atom}"
            cases[case] = int(atom)
            ends = np.array(module.find_radical_pos(radical[0], bonded), float).reshape(-1, 3)
            values |= {
                f"{case}/removed": np.array(removed),
                f"{case}/ends": ends,
                f"{case}/hydrogens": hydrogen_indices(found, left),
                f"{case}/targets": np.array([one["end_pos"] for one in found], float).reshape(
                    -1, 3
                ),
            }
    values["cases"] = np.array(json.dumps(cases))
    np.savez_compressed(output / "kimmdy_hat.npz", **values)


if __name__ == "__main__":
    main()
