"""Values to begin with for models and heads: what `surefoot template --model --head` writes.

Every key can be changed in the written file. Those of MACE, RACE and Allegro are what
`benchmarks/accuracy/acac_mace.yaml`, `acac_race.yaml` and `acac_allegro.yaml` train with; their
errors stand in the table beside them.
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

ROBUST: dict[str, dict[str, Any]] = {
    **EQUIVARIANT,
    "loss": {"energy": 1.0, "forces": 1.0, "energy_rule": "absolute", "forces_rule": "norm"},
    "train": {**EQUIVARIANT["train"], "epochs": 200},
}
"""With |ΔE| and |ΔF| instead of their squares, which few large errors do not rule."""

HEADS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "categorical": {
        "loss": {
            "energy": 1.0,
            "forces": 100.0,
            "energy_rule": "cross_entropy",
            "forces_rule": "squared",
        },
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
        "data": {"valid": 0.1},
        "loss": {"energy": 1.0, "forces": 20.0, "energy_rule": "nll", "forces_rule": "nll"},
        "posterior": {"members": 3, "left_out": 0},
    },
}
"""Head → section → key → value, over those of the model."""

RECIPES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "mace": EQUIVARIANT,
    "race": {
        **ROBUST,
        "model": {
            "irreps": "30x0e + 30x1o + 30x2e",
            "channels": 64,
            "max_ell": 2,
            "interactions": 5,
            "radial": [32, 32],
        },
    },
    "allegro": {
        **ROBUST,
        "model": {
            "lmax": 2,
            "layers": 2,
            "scalars": 128,
            "tensors": 32,
            "latent_width": 128,
            "latent_depth": 2,
        },
        "head": {**EQUIVARIANT["head"], "hidden": 32},
        "train": {**ROBUST["train"], "learning_rate": 0.01},
    },
    "scn": {
        "head": {"activation": "silu"},
        "loss": {"energy": 10.0, "forces": 1.0},
        "train": {
            "epochs": 400,
            "learning_rate": 0.002,
            "average": 0.999,
            "clip": 2.0,
            "batch": {"graphs": 4},
        },
    },
}
"""Model → section → key → value."""


def recipe(model: str, head: str) -> dict[str, dict[str, Any]]:
    """What to begin with for this model with this head: section → key → value."""
    found: dict[str, dict[str, Any]] = {}
    for part in (RECIPES.get(model, {}), HEADS.get(head, {})):
        for section, values in part.items():
            found[section] = {**found.get(section, {}), **values}
    return found
