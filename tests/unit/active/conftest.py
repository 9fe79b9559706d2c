"""A potential that was never trained with structures of ethanol; a campaign on springs in water."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from surefoot.active.campaign import Again, Campaign
from surefoot.active.choose import Acquire
from surefoot.active.explore import Pool, Rattle
from surefoot.active.explore.explorer import Interrupted, Scene
from surefoot.active.folder import find_rounds, read_json
from surefoot.active.rules import Rules
from surefoot.blocks.dense import stack
from surefoot.blocks.reference import Baseline
from surefoot.data.batches import BatchLimits
from surefoot.data.convert import Sample, to_samples
from surefoot.data.load import Splits
from surefoot.data.read import Frame, read_frames
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.label.labeler import LabelingFailed, Labels
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import Ensemble, EnsembleSettings
from surefoot.posteriors.predictor import Predictor, build_predictor, load_predictor
from surefoot.posteriors.training import Parts
from surefoot.potential import Potential
from surefoot.train.fit import TrainSettings

CUTOFF = 4.0
EQUILIBRIUM = molecule("H2O").get_all_distances()


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


@dataclass
class Springs:
    """Springs between all atoms of water; some structures may fail, some calls meet an accident."""

    fails: Callable[[Atoms], str | None] = lambda _: None
    accidents: dict[int, BaseException] = field(default_factory=dict)
    calls: int = 0
    name: str = "springs"

    def settings(self) -> dict[str, Any]:
        return {"name": self.name}

    def describe(self) -> str:
        return "springs (test)"

    def label(self, atoms: Atoms, charge: int, spin: int) -> Labels:  # noqa: ARG002
        self.calls += 1
        if self.calls in self.accidents:
            raise self.accidents[self.calls]
        if reason := self.fails(atoms):
            raise LabelingFailed(reason)
        vectors = atoms.positions[None] - atoms.positions[:, None]
        lengths = np.linalg.norm(vectors, axis=-1) + np.eye(3)
        away = (lengths - EQUILIBRIUM - np.eye(3)) * 5.0
        forces = (away[..., None] * vectors / lengths[..., None]).sum(1)
        return Labels(0.25 * float((away**2).sum()) / 5.0, forces)


@dataclass(frozen=True)
class OneThread:
    name: str = "one thread"

    @contextmanager
    def open(self, folder: Path) -> Iterator[Executor]:  # noqa: ARG002
        with ThreadPoolExecutor(1) as pool:
            yield pool


def make_frames(rng: np.random.Generator, count: int, width: float, file: Path) -> list[Frame]:
    images = []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0.0, width, (3, 3))
        labels = Springs().label(atoms, 0, 1)
        atoms.info |= {"REF_energy": labels.energy, "charge": 0, "spin": 1}
        atoms.arrays["REF_forces"] = labels.forces
        images.append(atoms)
    ase.io.write(file, images)
    return read_frames([file])


@pytest.fixture
def springs() -> type[Springs]:
    return Springs


@pytest.fixture
def make(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Campaign]:
    first = make_frames(rng, 12, 0.05, tmp_path / "first.xyz")
    test = make_frames(rng, 6, 0.15, tmp_path / "test.xyz")
    make_frames(rng, 40, 0.15, tmp_path / "pool.xyz")
    campaign = Campaign(
        folder=tmp_path / "campaign",
        splits=Splits(train=first[:9], valid=first[9:], test=test, isolated=[]),
        parts=Parts(
            model=Schnet(cutoff=3.0, features=4, interactions=1, gaussians=6),
            head=Scalar(),
            train=TrainSettings(epochs=2, batch=BatchLimits(graphs=4), threads=1, compile="off"),
            posterior=EnsembleSettings(members=2, left_out=0),
        ),
        again=Again(valid=0.2, epochs=1),
        explorers=(Pool(files=(str(tmp_path / "pool.xyz"),)), Rattle(count=5)),
        acquire=Acquire(by=("bald_energy", "bald_forces"), count=6),
        labeler=Springs(),
        engine=OneThread(),
        rules=Rules(rounds=2),
        config={},
    )

    def change(**fields: Any) -> Campaign:
        return replace(campaign, **fields)

    return change


def outcome(folder: Path) -> dict[str, Any]:
    """All that a campaign has decided, and the weights of each round."""
    rounds = {}
    for one in find_rounds(folder):
        weights = load_predictor(one.training / "potential.safetensors").weights
        rounds[one.number] = {
            "figures": read_json(one.figures),
            "weights": {name: value.tolist() for name, value in weights.items()},
            "choice": read_json(one.choice) if one.choice.exists() else None,
            "labels": one.labels.read_text() if one.labels.exists() else None,
        }
    return rounds


@dataclass
class Watched:
    """An explorer that notes how it is called, and may be interrupted."""

    interrupted: bool = False
    threads: int = 0
    starts: int = 0
    name: str = "watched"

    def explore(self, scene: Scene) -> list[Atoms]:
        if self.interrupted:
            raise Interrupted
        self.threads, self.starts = torch.get_num_threads(), len(scene.starts)
        return Rattle(count=8).explore(scene)
