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
        "loss": {"energy": 1.0, "forces": 20.0, "energy_rule": "nll", "forces_rule": "nll"},
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


OC20_SCALE, OC20_MEAN = 2.8873, -0.7554  # eV; of the adsorption energies of OC20 2M
OC20_TRAIN: dict[str, Any] = {
    "learning_rate": 4e-4,
    "weight_decay": 0.01,
    "amsgrad": True,
    "average": 0.999,
    "clip": 1e6,
    "clip_norm": 100.0,
}
OC20_LOSS: dict[str, Any] = {
    "energy": round(2.0 / OC20_SCALE, 6),
    "forces": round(100.0 / OC20_SCALE, 6),
    "energy_rule": "absolute",
    "forces_rule": "norm",
    "energy_power": 0.0,
}
OC20_DATA: dict[str, Any] = {"valid": 0.05, "references": "zero", "scale": OC20_SCALE}
OC20_HEAD: dict[str, Any] = {
    "energy": "sphere",
    "forces": "direct",
    "offset": round(OC20_MEAN / OC20_SCALE, 6),
}
OC20_TRAIN_SMALL: dict[str, Any] = {
    **OC20_TRAIN,
    "learning_rate": 2e-3,
    "average": 0.99,
    "epochs": 60,
    "batch": {"graphs": 8, "atoms": 400, "edges": None},
    "schedule": {
        "name": "steps",
        "warmup_steps": 20,
        "warmup_from": 0.2,
        "factor": 0.3,
        "milestones": [400, 600, 700],
    },
}
ONE_MEMBER: dict[str, Any] = {"members": 1, "left_out": 0}
SCN_SMALL: dict[str, Any] = {
    "name": "scn",
    "cutoff": 6.0,
    "layers": 2,
    "lmax": 3,
    "messages": "so2",
    "mmax": 1,
    "channels": 16,
    "hidden": 32,
    "edge": 32,
    "gaussians": 32,
    "samples": 32,
}

TASKS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "oc20_s2ef": {
        "data": OC20_DATA,
        "model": {
            "name": "scn",
            "form": "published",
            "cutoff": 8.0,
            "limit": 40,
            "layers": 12,
            "lmax": 6,
            "mmax": 1,
            "taps": 4,
            "mirrors": "one",
            "bands": 2,
            "resolutions": 2,
            "channels": 128,
            "hidden": 1024,
            "edge": 128,
            "gaussians": 400,
            "width": 2.0,
            "samples": 128,
        },
        "head": OC20_HEAD,
        "loss": OC20_LOSS,
        "train": {
            **OC20_TRAIN,
            "epochs": 12,
            "batch": {"graphs": 48, "atoms": 4800, "edges": None},
            "schedule": {
                "name": "steps",
                "warmup_steps": 100,
                "warmup_from": 0.2,
                "factor": 0.3,
                "milestones": [197917, 277083, 356250, 435417],
            },
        },
        "posterior": ONE_MEMBER,
    },
    "oc20_s2ef_small": {
        "data": {**OC20_DATA, "valid": 0.15},
        "model": SCN_SMALL,
        "head": OC20_HEAD,
        "loss": OC20_LOSS,
        "train": OC20_TRAIN_SMALL,
        "posterior": ONE_MEMBER,
    },
    "oc20_is2re_small": {
        "data": {
            **OC20_DATA,
            "valid": 0.15,
            "keys": {"energy": "y_relaxed", "forces": "none"},
        },
        "model": SCN_SMALL,
        "head": {**OC20_HEAD, "forces": "gradient"},
        "loss": {**OC20_LOSS, "forces": 0.0, "forces_rule": "squared"},
        "train": OC20_TRAIN_SMALL,
        "posterior": ONE_MEMBER,
    },
}
"""Task → section → key → value: whole configs, in place of those of a model and a head.

`oc20_s2ef` is the published training of SCN with four taps and two bands on OC20 2M: the loss is
2 |ΔE| + 100 |ΔF| of labels in units of 2.8873 eV, so the weights here are divided by that; the mean
of the energies is the head's offset, in the same units. Weight decay spares biases here. Of the two
million structures 5 % are kept to judge by, so an epoch has 39 583 steps, and the milestones are
after 5, 7, 9 and 11 epochs of as many; where the cap of atoms makes smaller batches, sooner.
"""


def recipe(model: str, head: str) -> dict[str, dict[str, Any]]:
    """What to begin with for this model with this head: section → key → value."""
    found: dict[str, dict[str, Any]] = {}
    for part in (RECIPES.get(model, {}), HEADS.get(head, {})):
        for section, values in part.items():
            found[section] = {**found.get(section, {}), **values}
    return found
