"""What runs leave: potentials, checkpoints, states, journals, trajectories, campaigns.

Half of the potentials, checkpoints and states have a checksum that fits their changed content, as
no accident makes them: then the checks behind it have to hold.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from safetensors.torch import save

from fuzz.mutate import change_text, change_tree
from fuzz.targets import Make, Target, of_bytes, of_text
from surefoot.train.checkpoint import METADATA, Tree, digest, read_tree

DTYPES = (torch.float64, torch.float32, torch.float16, torch.int64, torch.bool, torch.bfloat16)
IDENTITY = {"settings": {"fmax": 0.02}, "potential": "x"}


def list_targets(work: Path) -> list[Target]:
    """All that is read again."""
    return [*potentials(work), *checkpoints(work), *motions(work), *journals(work), campaign(work)]


def potentials(work: Path) -> list[Target]:
    """SchNet, MACE and RACE with every posterior's file; what loads has to predict or to refuse."""
    from surefoot.data.convert import to_graph
    from surefoot.posteriors.predictor import load_predictor

    files = make_potentials(work)
    seeds, water = [path.read_bytes() for path in files], molecule("H2O")

    def read(path: Path) -> Any:
        predictor = load_predictor(path)
        predictor.require(water.numbers, 0, 1, str(path))
        if not 0 < predictor.cutoff < 50:
            raise ValueError(f"{path}: not tried, since its cutoff is {predictor.cutoff}")
        try:
            return predictor(to_graph(water, predictor.cutoff), stress=predictor.gives_stress)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    return [
        Target(name="potential, bytes", file="p.safetensors", make=of_bytes(seeds), read=read,
               share=2.0),
        Target(name="potential, signed", file="p.safetensors",
               make=signed(work / "potentials", "predictor"), read=read, share=3.0),
    ]  # fmt: skip


def make_potentials(work: Path) -> list[Path]:
    """Files of small potentials that were never trained."""
    from surefoot.blocks.conditioning import States
    from surefoot.blocks.dense import stack
    from surefoot.blocks.reference import Baseline
    from surefoot.data.convert import to_samples
    from surefoot.heads.mean_variance import MeanVariance
    from surefoot.heads.scalar import Scalar
    from surefoot.models.mace import Mace
    from surefoot.models.race import Race
    from surefoot.models.schnet import Schnet
    from surefoot.posteriors.calibration import Calibration
    from surefoot.posteriors.ensemble import Ensemble
    from surefoot.posteriors.learnt import remember
    from surefoot.posteriors.posterior import Single
    from surefoot.posteriors.predictor import build_predictor, with_gate
    from surefoot.potential import Potential

    folder = work / "potentials"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    baseline = Baseline(elements=(1, 8), energies=(-1.0, -2.0), scale=0.5, neighbors=2.0)
    schnet = Schnet(cutoff=3.0, features=4, interactions=1, gaussians=5)
    mace = Mace(cutoff=3.0, irreps="2x0e + 2x1o", max_ell=1, correlation=2, radial=(4,))
    race = Race(cutoff=3.0, irreps="2x0e + 2x1o", channels=2)
    states = States(((0, 1), (1, 2)))
    parts: list[tuple[Any, Any, Any]] = [
        (schnet, Scalar(), None),
        (schnet, MeanVariance(width=3), states),
        (mace, Scalar(), None),
        (race, Scalar(), None),
    ]
    found, aside = [], np.arange(24) % 2 == 0
    samples = to_samples(label_water(24), 3.0)
    for number, (model, head, known) in enumerate(parts):
        potential = Potential(model=model, head=head, baseline=baseline, states=known)
        drawn = [potential.init(seed, torch.float32) for seed in (0, 1)]
        posterior = Ensemble(stack(drawn)) if number % 2 == 0 else Single(drawn[0])
        factors = Calibration(energy=1.2, forces=0.8, source="made up")
        provenance = {"states": [[0, 1]], "config": {"train": {"epochs": 3}}}
        path = folder / f"{number}.safetensors"
        predictor = build_predictor(potential, posterior, factors, provenance)
        predictor = with_gate(predictor, samples, aside)
        replace(predictor, learnt=remember(samples, ~aside[None])).save(path)
        found.append(path)
    return found


def signed(folder: Path, kind: str) -> Make:
    """Changed headers and tensors with a checksum that fits."""
    seeds = [read_tree(path, kind) for path in sorted(folder.glob("*.safetensors"))]

    def make(random: Random) -> bytes:
        tree, header = random.choice(seeds)
        header = change_tree(header, random) if random.random() < 0.7 else header
        tree = change_tensors(tree, random) if random.random() < 0.5 else tree
        return sign(tree, header)

    return make


def sign(tree: Tree, header: Any) -> bytes:
    """The bytes of a file whose checksum fits; a header that is no dict stays as it is."""
    if isinstance(header, dict):
        try:
            text = json.dumps({**header, "digest": digest(tree, json.dumps(header))})
        except UnicodeEncodeError:
            text = "{}"
    else:
        text = json.dumps(header)
    return save(tree, metadata={METADATA: text})


def change_tensors(tree: Tree, random: Random) -> Tree:
    """One to three other tensors: of another shape, kind or name, not finite, or gone."""
    found = dict(tree)
    for _ in range(random.choice((1, 1, 2, 3))):
        name = random.choice(list(found))
        found[name] = _change_tensor(found[name], random).contiguous().clone()
        way = random.random()
        if way < 0.1:
            del found[name]
        elif way < 0.2:
            found[random.choice(("x", "model.x", name + ".x", "gate.x", "", "é"))] = found[
                name
            ].clone()
        found = found or {"x": torch.zeros(1)}
    return found


def _change_tensor(value: torch.Tensor, random: Random) -> torch.Tensor:
    number = random.choice((float("nan"), float("inf"), 1e30, 0.0, -1.0))
    ways: list[Callable[[], torch.Tensor]] = [
        lambda: value.to(random.choice(DTYPES)),
        lambda: value.reshape(-1)[: random.randint(0, value.numel())],
        lambda: value[None].expand(random.randint(1, 3), *value.shape),
        lambda: value.reshape(-1) if value.dim() != 1 else value[:, None],
        lambda: value * number if value.is_floating_point() else torch.zeros_like(value),
        lambda: torch.full_like(value, random.choice((0, 1, 100))),
        lambda: value.transpose(0, -1) if value.dim() > 1 else value[:0],
    ]
    return random.choice(ways)()


def label_water(count: int) -> list[Any]:
    """Frames of shaken water with labels drawn at random."""
    from surefoot.data.read import Frame

    generator, frames = np.random.default_rng(0), []
    for index in range(count):
        atoms = molecule("H2O")
        atoms.positions += 0.1 * generator.normal(size=(3, 3))
        frame = Frame(
            atoms=atoms,
            energy=float(generator.normal()),
            forces=generator.normal(size=(3, 3)),
            charge=0,
            spin=1,
            group=f"g{index}",
            config_type="c",
            file="f",
            index=index,
        )
        frames.append(frame)
    return frames


def checkpoints(work: Path) -> list[Target]:
    """The checkpoint of a training, read for the run that it belongs to."""
    from surefoot.data.load import Splits
    from surefoot.heads.scalar import Scalar
    from surefoot.models.schnet import Schnet
    from surefoot.posteriors.ensemble import EnsembleSettings
    from surefoot.posteriors.restart import load_checkpoint, save_checkpoint
    from surefoot.posteriors.training import Parts, plan_training, start
    from surefoot.train.fit import TrainSettings, fit

    frames = label_water(8)
    parts = Parts(
        model=Schnet(cutoff=3.0, features=4, interactions=1, gaussians=5),
        head=Scalar(),
        train=TrainSettings(epochs=2, threads=1, compile="off"),
        posterior=EnsembleSettings(members=2, left_out=0),
    )
    plan = plan_training(Splits(train=frames[:6], valid=frames[6:], test=[], isolated=[]), parts)
    state = start(plan)
    fit(plan.task, state)
    folder = work / "checkpoints"
    save_checkpoint(folder / "last.safetensors", plan, state)
    seeds = [(folder / "last.safetensors").read_bytes()]

    def read(path: Path) -> Any:
        return load_checkpoint(path, plan)

    return [
        Target(name="checkpoint, bytes", file="last.safetensors", make=of_bytes(seeds), read=read),
        Target(name="checkpoint, signed", file="last.safetensors",
               make=signed(folder, "checkpoint"), read=read, share=2.0),
    ]  # fmt: skip


def make_motion(folder: Path) -> Any:
    """A short run of two crystals of argon on a Lennard-Jones surface, as HDF5."""
    from surefoot.md.job import Job
    from surefoot.md.run import start
    from surefoot.md.settings import Dynamics, Langevin, Simulation
    from surefoot.motion.lennard_jones import LennardJones

    crystals = [bulk("Ar", "fcc", 5.4, cubic=True), bulk("Ar", "fcc", 5.3, cubic=True)]
    dynamics = Dynamics(timestep=5.0, thermostat=Langevin(time=50))
    job = Job(
        structures=crystals,
        temperatures=[30.0, 60.0],
        surface=LennardJones(cutoff=5.0, onset=4.0),
        settings=Simulation(dynamics=dynamics, steps=12, every=2, chunk=2, skin=0.15, seed=4),
        folder=folder,
        places=["one", "two"],
    )
    shutil.rmtree(folder, ignore_errors=True)
    start(job)
    return job


def motions(work: Path) -> list[Target]:
    """State, index and parts of dynamics."""
    from surefoot.md.saved import KIND, load
    from surefoot.md.trajectory import HdfWriter, read_trajectory
    from surefoot.motion.systems import join_systems

    folder = work / "motion"
    job = make_motion(folder)
    state = (folder / "state.safetensors").read_bytes()
    (folder / "states").mkdir(exist_ok=True)
    (folder / "states" / "0.safetensors").write_bytes(state)
    part = (folder / "parts" / "000000.h5").read_bytes()
    index = (folder / "trajectory.h5").read_bytes()
    others = [(str(p.relative_to(folder)), p.read_bytes()) for p in (folder / "parts").iterdir()]
    systems, _ = join_systems(job.structures, job.places)

    def take_parts(path: Path) -> Any:
        writer = HdfWriter(path.parent.parent, systems, torch.tensor([30.0, 60.0]))
        writer._take(path)  # noqa: SLF001  one part alone

    return [
        Target(name="state of dynamics, bytes", file="state.safetensors", make=of_bytes([state]),
               read=lambda path: load(path.parent, job.identity), share=0.7),
        Target(name="state of dynamics, signed", file="state.safetensors",
               make=signed(folder / "states", KIND),
               read=lambda path: load(path.parent, job.identity), share=1.5),
        Target(name="trajectory, index", file="trajectory.h5", make=of_bytes([index]),
               read=lambda path: read_trajectory(path.parent, 0), beside=tuple(others), share=1.5),
        Target(name="trajectory, part", file="parts/000000.h5", make=of_bytes([part]),
               read=take_parts, share=1.5),
        Target(name="trajectory, part that is read", file="parts/000000.h5", make=of_bytes([part]),
               read=lambda path: read_trajectory(path.parent.parent, 0),
               beside=(("trajectory.h5", index), *others), share=0.7),
    ]  # fmt: skip


def journals(work: Path) -> list[Target]:
    """Lines of labels and of relaxations."""
    from surefoot.label.journal import Journal
    from surefoot.label.labeler import Labels
    from surefoot.relax.journal import RESULT, begin_journal, open_journal
    from surefoot.sealed import seal

    path = work / "labels.jsonl"
    path.unlink(missing_ok=True)
    with Journal(path) as journal:
        journal.append("a", Labels(-1.5, np.ones((3, 3)), 0.75), 1.0)
        journal.append_failure("b", "no way", 1.0, 5.0)
        journal.append_death("c", alone=True)
    labels = path.read_bytes()
    path.unlink()
    kept = begin_journal(path, IDENTITY, over=False)
    kept.add(RESULT, 0, "text\n")
    kept.add("path", 1, "é")
    relaxed = path.read_bytes()

    def open_labels(path: Path) -> None:
        with Journal(path) as journal:
            for key in ("a", "b", "c"):
                journal.reason(key)
                journal.deaths(key)
                journal.is_settled(key, 3.0)

    def open_relaxed(path: Path) -> None:
        journal, _ = open_journal(path, IDENTITY)
        list(journal.texts(RESULT))

    def resealed(content: bytes) -> Callable[[Random], bytes]:
        lines = [json.loads(line) for line in content.splitlines()]

        def make(random: Random) -> bytes:
            changed = [one if random.random() < 0.5 else change_tree(one, random) for one in lines]
            whole = [{k: v for k, v in one.items() if k != "check"} for one in changed]
            return b"".join(seal(one or {"x": 0}) for one in whole)

        return make

    return [
        Target(name="journal of labels", file="a.jsonl", make=of_text([labels]), read=open_labels,
               share=2.0),
        Target(name="journal of labels, sealed", file="a.jsonl", make=resealed(labels),
               read=open_labels, share=2.0),
        Target(name="journal of a relaxation", file="a.journal", make=of_text([relaxed]),
               read=open_relaxed, share=2.0),
        Target(name="journal of a relaxation, sealed", file="a.journal", make=resealed(relaxed),
               read=open_relaxed, share=2.0),
    ]  # fmt: skip


def campaign(work: Path) -> Target:
    """The folder of a campaign whose files are changed, one at a time."""
    from surefoot.active import folder as rounds
    from surefoot.active.summary import count_labels, count_seconds, count_whole

    place = work / "campaign"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    fixed = {"data": "x", "acquire": {"count": 3}}
    rounds.agree(place, fixed, write=True)
    this = rounds.open_round(place, 0)
    water = Atoms("OH2", positions=np.eye(3), info={"config_type": "rattle"})
    rounds.put(this, this.summary, rounds.as_json({"ended": None, "labelled": 2}))
    rounds.put(this, this.labels, rounds.as_xyz([water, water]))
    rounds.write_json(this.folder / "seconds.json", {"train": 1.5})
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    names = [str(path.relative_to(place)) for path in files]
    contents = [path.read_bytes() for path in files]

    def make(random: Random) -> bytes:
        number = random.randrange(len(names))
        changed = change_text(contents[number], random, contents)
        return names[number].encode() + b"\0" + changed

    def read(path: Path) -> Any:
        name, _, content = path.read_bytes().partition(b"\0")
        folder = path.parent / "campaign"
        target = folder / name.decode()
        before = target.read_bytes()
        target.write_bytes(content)
        try:
            rounds.agree(folder, fixed, write=False)
            rounds.require_whole(folder)
            return count_whole(folder), count_labels(folder, 1), count_seconds(folder)
        finally:
            target.write_bytes(before)

    beside = tuple((f"campaign/{n}", c) for n, c in zip(names, contents, strict=True))
    return Target(
        name="files of a campaign", file="case", make=make, read=read, beside=beside, share=2.0
    )
