"""A potential that was never trained, and structures of ethanol for it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from surefoot.blocks.dense import stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import Sample, to_samples
from surefoot.data.read import Frame
from surefoot.heads.mean_variance import MeanVariance
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.predictor import Predictor, build_predictor
from surefoot.potential import Potential

CUTOFF = 4.0


@pytest.fixture
def to_sample() -> Callable[[Atoms], Sample]:
    def convert(atoms: Atoms) -> Sample:
        frame = Frame(
            atoms=atoms, energy=0.0, group="one", config_type="Default", file="f", index=0
        )
        return to_samples([frame], CUTOFF)[0]

    return convert


@pytest.fixture
def rattled(
    rng: np.random.Generator, to_sample: Callable[[Atoms], Sample]
) -> Callable[[int, float], list[Sample]]:
    def make(count: int, width: float) -> list[Sample]:
        samples = []
        for _ in range(count):
            atoms = molecule("CH3CH2OH")
            atoms.positions += rng.normal(0.0, width, atoms.positions.shape)
            samples.append(to_sample(atoms))
        return samples

    return make


@pytest.fixture
def predictor() -> Predictor:
    potential = Potential(
        model=Schnet(cutoff=CUTOFF, features=8, interactions=2, gaussians=8),
        head=MeanVariance(),
        baseline=Baseline(
            elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=1.0, neighbors=8.0
        ),
    )
    members = stack([potential.init(seed, torch.float32) for seed in range(3)])
    return build_predictor(potential, Ensemble(members), Calibration(), {})
