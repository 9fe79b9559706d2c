"""Values to begin with for models and heads: what `surefoot template --model --head` writes.

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

HEADS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "categorical": {
        "loss": {"energy": 1.0, "forces": 100.0, "energy_rule": "cross_entropy"},
    },
    "histogram": {
        "data": {"valid": 0.2},
        "loss": {
            "energy": 1.0,
            "forces": 1.0,
            "energy_rule": "cross_entropy",
            "forces_rule": "cross_entropy",
        },
        "train": {
            "epochs": 40,
            "learning_rate": 0.003,
            "weight_decay": 0.01,
            "average": 0.99,
            "batch": {"graphs": 16},
        },
        "posterior": {"members": 1, "left_out": 0},
        "start": {"potential": "potential.safetensors", "learn": "judges"},
    },
    "mean_variance": {
        "loss": {"energy": 1.0, "forces": 20.0, "energy_rule": "nll", "forces_rule": "nll"},
    },
}
"""Head → section → key → value, over those of the model."""

RECIPES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "mace": EQUIVARIANT,
    "race": EQUIVARIANT,
    "allegro": EQUIVARIANT,
}
"""Model → section → key → value."""


def recipe(model: str, head: str) -> dict[str, dict[str, Any]]:
    """What to begin with for this model with this head: section → key → value."""
    found: dict[str, dict[str, Any]] = {}
    for part in (RECIPES.get(model, {}), HEADS.get(head, {})):
        for section, values in part.items():
            found[section] = {**found.get(section, {}), **values}
    return found
