"""Runs on frames that stay on disk: the same bits as on frames in memory, whatever is combined."""

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from surefoot.blocks.conditioning import Conditioning
from surefoot.data.load import DataSettings, Splits, load_splits
from surefoot.heads.categorical import Categorical
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.posteriors import calibrate as calibration_module
from surefoot.posteriors.ensemble import EnsembleSettings
from surefoot.posteriors.laplace import LaplaceSettings
from surefoot.posteriors.restart import fingerprint, load_checkpoint, save_checkpoint
from surefoot.posteriors.training import Parts, finish, plan_training, start
from surefoot.train.checkpoint import digest
from surefoot.train.distributed import Team, take_part
from surefoot.train.fit import TrainSettings, fit
from surefoot.train.loss import LossSettings

FRAMES, SEED = 36, 5
TRAINING = TrainSettings(epochs=2, learning_rate=0.01, precision="float64", seed=SEED)
PARTS = Parts(
    model=Schnet(cutoff=3.0, features=4, interactions=1, gaussians=5),
    head=Scalar(),
    train=TRAINING,
    posterior=EnsembleSettings(members=3, left_out=2),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    rng = np.random.default_rng(SEED)
    images = [
        Atoms(symbol, info={"REF_energy": -1.0, "config_type": "IsolatedAtom"}) for symbol in "HO"
    ]
    for index in range(FRAMES):
        atoms = molecule("H2O" if index % 3 else "H2O2")
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        atoms.info |= {"REF_energy": -10.0 + rng.normal(), "group": f"g{index // 2}", "charge": 0}
        if index % 5:
            atoms.arrays["REF_forces"] = rng.normal(size=atoms.positions.shape)
        images.append(atoms)
    path = tmp_path_factory.mktemp("data") / "water.xyz"
    ase.io.write(path, images)
    return path


@pytest.fixture(scope="module")
def held_and_stored(path) -> tuple[Splits, Splits]:
    settings = DataSettings(train=[str(path)], valid=0.3)
    kept = settings.model_copy(update={"store": str(path.parent / "stores")})
    return load_splits(settings, SEED), load_splits(kept, SEED)


COMBINATIONS = {
    "variances": replace(
        PARTS,
        head=MeanVariance(width=4),
        loss=LossSettings(energy_rule="nll", forces_rule="nll"),
    ),
    "laplace": replace(PARTS, posterior=LaplaceSettings(draws=3)),
    "categorical": replace(
        PARTS,
        head=Categorical(bins=8),
        loss=LossSettings(energy_rule="cross_entropy", forces=0.0),
        posterior=EnsembleSettings(members=1),
    ),
    "states": replace(PARTS, conditioning=Conditioning(name="charge_spin")),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_same_potential_to_the_bit(held_and_stored, name) -> None:
    ended = []
    for splits in held_and_stored:
        plan = plan_training(splits, COMBINATIONS[name])
        state = start(plan)
        assert fit(plan.task, state)
        predictor, _ = finish(plan, state)
        assert predictor.gate is not None
        tree = state.tree() | predictor.posterior.tree() | predictor.gate.tree
        ended.append(
            (digest(tree | predictor.learnt.tree()), predictor.calibration, plan.statistics)
        )
    assert ended[0] == ended[1]


@pytest.mark.usefixtures("unchecked")
def test_a_run_goes_on_from_memory_to_disk(held_and_stored, path, tmp_path) -> None:
    """Where frames are is no part of what a run is."""
    settings = {"train": [str(path)], "valid": 0.3}
    origins = [{"config": {"data": settings | {"store": folder}}} for folder in (None, "stores")]
    plans = [
        plan_training(splits, PARTS, provenance=origin)
        for splits, origin in zip(held_and_stored, origins, strict=True)
    ]
    whole = start(plans[0])
    assert fit(plans[0].task, whole)
    asked = iter([False] * 3 + [True])
    state = start(plans[0])
    assert not fit(plans[0].task, state, stop=lambda: next(asked))
    save_checkpoint(tmp_path / "run", plans[0], state)
    again = load_checkpoint(tmp_path / "run", plans[1])
    assert fingerprint(plans[1], again) == fingerprint(plans[0], state)
    assert fit(plans[1].task, again)
    assert digest(again.tree()) == digest(whole.tree())


def test_processes_get_the_same_parts(held_and_stored) -> None:
    tasks = [plan_training(splits, PARTS).task for splits in held_and_stored]
    chosen = np.array([3, 9, 1, 20, 12])
    for rank in range(2):
        one, other = (
            take_part(Team(rank=rank, count=2), task.samples, chosen, torch.ones(3, 5))
            for task in tasks
        )
        assert torch.equal(one.batch.graph.edge_index, other.batch.graph.edge_index)
        assert torch.equal(one.batch.targets.forces, other.batch.targets.forces)
        assert all(torch.equal(one.counts[name], other.counts[name]) for name in one.counts)


def test_calibration_looks_at_whole_groups_of_so_many_atoms(held_and_stored, monkeypatch) -> None:
    monkeypatch.setattr(calibration_module, "MOST", 30)
    for splits in held_and_stored:
        plan = plan_training(splits, PARTS)
        predictor, _ = finish(plan, start(plan))
        samples = plan.task.samples
        used = calibration_module._bound(samples, np.ones(len(samples), bool))
        groups = {sample.group for sample, use in zip(samples, used, strict=True) if use}
        assert 0 < used.sum() < len(samples) / 3
        assert all(use == (s.group in groups) for s, use in zip(samples, used, strict=True))
        assert f"{used.sum()} frames" in predictor.calibration.source
