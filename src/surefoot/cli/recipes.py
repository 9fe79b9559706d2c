"""Values to begin with for each model: what `surefoot template --model` writes.

Every key can be changed in the written file. Those of the equivariant models are of
`benchmarks/accuracy/acac_mace.yaml`, whose errors stand in the table beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EQUIVARIANT: dict[str, dict[str, Any]] = {
    "head": {"activation": "silu", "hidden": 16, "scaling": "normal"},
    "loss": {"energy": 10.0, "forces": 1.0},
    "train": {
        "epochs": 400,
        "learning_rate": 0.015,
        "amsgrad": False,
        "average": 0.999,
        "clip": 2.0,
        "batch": {"graphs": 4},
    },
}

RECIPES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "mace": EQUIVARIANT,
    "race": EQUIVARIANT,
    "allegro": EQUIVARIANT,
}
"""Model → section → key → value."""
