"""A small ensemble with a gate, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from surefoot.blocks.reference import Baseline
from surefoot.heads import Scalar
from surefoot.models import Schnet
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.gate import fit_gate
from surefoot.posteriors.predictor import Calibration, Predictor, build_predictor
from surefoot.potential import Potential

CUTOFF = 4.0


@pytest.fixture
def gated(make_samples) -> Predictor:
    """Three members of random weights; its gate knows rattled copies of the small structures."""
    potential = Potential(
        model=Schnet(features=8, interactions=1, gaussians=10, cutoff=CUTOFF),
        head=Scalar(),
        baseline=Baseline(
            elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=0.3, neighbors=10.0
        ),
    )
    weights = potential.init_members(0, 3, torch.float64)
    calibration = Calibration(energy=1.7, forces=2.0, source="a test")
    predictor = build_predictor(potential, Ensemble(weights), calibration, {})
    samples = make_samples(names=("ethanol", "skewed_cell", "slab"), copies=8)
    aside = np.arange(len(samples)) % 2 == 0
    return replace(predictor, gate=fit_gate(predictor, samples, aside))
