"""Whole recipes: what `surefoot template --task` writes, published trainings among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

_BOTH_TO_2 = "64x0e + 64x0o + 64x1o + 64x1e + 64x2e + 64x2o"
_BOTH_TO_3 = _BOTH_TO_2 + " + 64x3o + 64x3e"
_NARROWER = "32x0e + 32x0o + 16x1o + 16x1e + 8x2e + 8x2o"


def _race(
    cutoff: float,
    irreps: str,
    channels: int,
    max_ell: int,
    *,
    forces: float,
    graphs: int,
    epochs: int,
    learning_rate: float = 0.01,
) -> dict[str, dict[str, Any]]:
    """A published training of RACE; `forces` is its λ_F, which weighs |ΔF|², three components."""
    return {
        "data": {"valid": 0.05},
        "model": {
            "name": "race",
            "cutoff": cutoff,
            "irreps": irreps,
            "channels": channels,
            "normalisation": "neighbors",
            "max_ell": max_ell,
            "interactions": 5,
        },
        "head": {"activation": "silu", "hidden": 32, "scaling": "normal"},
        "loss": {"energy": 1.0, "forces": 3 * forces, "energy_power": 0.0},
        "train": {
            "epochs": epochs,
            "batch": {"graphs": graphs},
            "learning_rate": learning_rate,
            "amsgrad": True,
            "average": 0.99,
            "schedule": {
                "name": "plateau",
                "factor": 0.9,
                "patience": 50,
                "warmup_steps": 0,
                "final": 1e-6,
            },
        },
        "posterior": ONE_MEMBER,
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
    "race_qm9": _race(5.0, _BOTH_TO_2, 128, 2, forces=1.0, graphs=64, epochs=2000),
    "race_psb3": _race(6.0, _BOTH_TO_2, 64, 2, forces=50.0, graphs=5, epochs=2000),
    "race_rmd17": _race(5.0, _BOTH_TO_3, 128, 3, forces=1000.0, graphs=5, epochs=10000),
    "race_3bpa": _race(6.0, _BOTH_TO_2, 128, 2, forces=100.0, graphs=2, epochs=5000),
    "race_obn25": _race(
        3.0, _NARROWER, 32, 2, forces=1.0, graphs=2, epochs=1000, learning_rate=0.05
    ),
}
"""Task → section → key → value: whole configs, in place of those of a model and a head.

`oc20_s2ef` is the published training of SCN with four taps and two bands on OC20 2M: the loss is
2 |ΔE| + 100 |ΔF| of labels in units of 2.8873 eV, so the weights here are divided by that; the mean
of the energies is the head's offset, in the same units. Weight decay spares biases here. Of the two
million structures 5 % are kept to judge by, so an epoch has 39 583 steps, and the milestones are
after 5, 7, 9 and 11 epochs of as many; where the cap of atoms makes smaller batches, sooner.

`race_…` are the published trainings of RACE (Willow et al., 2025) on their sets. Gradients are
clipped by their usual norm here, not by value, and energies are not shifted by the mean error of a
batch as the torch code does. For oBN25 the code has 32 scalars F, the paper 128. Nobody has run
them here.

| recipe | species | weights | of them the mix | a mix of all products a ⊗ A takes |
|---|---|---|---|---|
| race_qm9 | 5 | 1 379 456 | 348 160 | 15 728 640 |
| race_psb3 | 3 | 1 067 712 | 208 896 | 7 864 320 |
| race_rmd17 | 3 (aspirin) | 1 936 256 | 282 624 | 20 971 520 |
| race_3bpa | 4 | 1 252 352 | 278 528 | 15 728 640 |
| race_obn25 | 2 | 160 448 | 14 080 | 430 080 |

The last column is layers × F × Σ_irreps channels², most of the weights of the originals. Of F
scalars per species only as many combinations as there are species can act, so species take the
place of F; and irreps without a part in the energy, such as 0o below 6 layers, have none.
"""
