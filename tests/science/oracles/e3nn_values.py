"""Write e3nn_VERSION.npz: harmonics of fixed vectors and couplings by e3nn, for angular blocks.

Run once in an environment with e3nn 0.4.4, on which MACE's models rest, and once in one with e3nn
0.6.0, on which Allegro's do: they differ in the signs of some couplings. Both had torch 2.13.0.

    python tests/science/oracles/e3nn_values.py [FOLDER]

With a folder the values go there.

e3nn 0.4.4 reads its own tables by pickle; newer versions of torch have to be told that this file,
which comes with the package, may be read: the script does so for the import alone.

The archive holds, with lengths and directions without a unit:

    vectors     (20, 3) float64, the six half axes first, then directions at random, of any length
    harmonics   (20, 144) float64, degrees 0 to 11, normalised by component, rounded to 13 decimals
    triples     (triples, 3) l1, l2, l3: all couplings with degrees up to 4
    counts      (triples) number of entries of each coupling that are not zero
    places      (entries) place of each such entry in the flattened coupling
    values      (entries) float64, rounded to 15 decimals
    high_triples, high_places, high_values
                of every coupling l1 <= l2 <= l3 up to degree 11 the entry of largest magnitude
    e3nn_version, torch_version
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
LMAX = 11
LMAX_COUPLINGS = 4
SEED = 7
ZERO = 1e-12  # entries below are zero by symmetry


def load() -> Any:
    """e3nn, imported here so that what is asked of it can be had without."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # read by torch.load, called by the import
    import e3nn
    import e3nn.o3

    del os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"]
    return e3nn


def vectors() -> np.ndarray:
    rng = np.random.default_rng(SEED)
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    anywhere = rng.normal(size=(14, 3)) * rng.uniform(0.1, 10.0, size=(14, 1))
    return np.round(np.concatenate([axes, anywhere]), 6)


def triples() -> np.ndarray:
    """All couplings of low degrees."""
    degrees = range(LMAX_COUPLINGS + 1)
    listed = [
        (l1, l2, l3)
        for l1 in degrees
        for l2 in degrees
        for l3 in range(abs(l1 - l2), min(l1 + l2, LMAX_COUPLINGS) + 1)
    ]
    return np.array(listed, dtype=np.uint8)


def high_triples() -> np.ndarray:
    """Couplings up to the highest degree, each in one order."""
    listed = [
        (l1, l2, l3)
        for l1 in range(LMAX + 1)
        for l2 in range(l1, LMAX + 1)
        for l3 in range(l2, min(l1 + l2, LMAX) + 1)
    ]
    return np.array(listed, dtype=np.uint8)


def coupling(e3nn: Any, triple: list[int]) -> np.ndarray:
    import torch

    return e3nn.o3.wigner_3j(*triple, dtype=torch.float64).flatten().numpy()


def couplings(e3nn: Any) -> dict[str, np.ndarray]:
    counts, places, values = [], [], []
    for triple in triples().tolist():
        flat = coupling(e3nn, triple)
        (filled,) = np.nonzero(np.abs(flat) > ZERO)
        counts.append(filled.size)
        places.append(filled)
        values.append(np.round(flat[filled], 15))
    return {
        "triples": triples(),
        "counts": np.array(counts, dtype=np.uint16),
        "places": np.concatenate(places).astype(np.uint16),
        "values": np.concatenate(values),
    }


def high_couplings(e3nn: Any) -> dict[str, np.ndarray]:
    places, values = [], []
    for triple in high_triples().tolist():
        flat = coupling(e3nn, triple)
        places.append(int(np.argmax(np.abs(flat))))
        values.append(flat[places[-1]])
    return {
        "high_triples": high_triples(),
        "high_places": np.array(places, dtype=np.uint16),
        "high_values": np.round(np.array(values), 15),
    }


def main() -> None:
    import torch

    e3nn = load()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    fixed = vectors()
    values = e3nn.o3.spherical_harmonics(
        list(range(LMAX + 1)), torch.tensor(fixed), normalize=True, normalization="component"
    )
    np.savez_compressed(
        folder / f"e3nn_{e3nn.__version__}.npz",
        vectors=fixed,
        harmonics=np.round(values.numpy(), 13),
        e3nn_version=e3nn.__version__,
        torch_version=torch.__version__,
        **couplings(e3nn),
        **high_couplings(e3nn),
    )


if __name__ == "__main__":
    main()
