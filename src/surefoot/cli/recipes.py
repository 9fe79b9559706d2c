"""Values to begin with for each model: what `surefoot template --model` writes.

Every key can be changed in the written file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EQUIVARIANT: dict[str, dict[str, Any]] = {
    "head": {"activation": "silu", "hidden": 16, "scaling": "normal"},
    "loss": {"energy": 40.0, "forces": 1.0},
    "train": {
        "learning_rate": 0.01,
        "amsgrad": False,
        "average": 0.999,
        "batch": {"graphs": 5},
    },
}

RECIPES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "mace": EQUIVARIANT,
    "race": EQUIVARIANT,
    "allegro": EQUIVARIANT,
}
"""Model → section → key → value."""
