"""Dynamics of the ensemble: at 310 K, and transfers that are steered over and then released."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, SupportsInt

import ase.io
import numpy as np
import torch
from ase import Atoms, units

from hat.peptides import ensemble_of
from hat.scores import whole_paths
from hat.work import CONFIG, Piece, Setting, label, need, surefoot
from surefoot.barriers.paths import TransferPath, other_bonds
from surefoot.graph import Graph
from surefoot.md.job import Job
from surefoot.md.run import resume, start
from surefoot.md.saved import STATE
from surefoot.md.settings import Dynamics, Langevin, Simulation
from surefoot.md.trajectory import read_trajectory
from surefoot.motion.surface import Evaluation, PredictorSurface, Surface
from surefoot.posteriors.predictor import load_predictor
from surefoot.settings import Settings

GROUPS = 4  # of steered starts; each is a piece
LASTING = 100.0  # fs that bonds are others before one counts as broken
SMALLEST = 4  # frames of a trajectory whose drift can be told


class Spring(Settings):
    """The bias ½ k (q − q₀)² on q = r(D–H) − r(H–A), for the trajectory and a restart."""

    atoms: tuple[int, int, int]
    spring: float
    target: float


@dataclass(frozen=True, kw_only=True)
class Steered:
    """A surface with a spring on the transfer of the one structure that is on it.

    Attributes:
        surface: the potential.
        bias: donor, hydrogen and acceptor; eV/Å² and Å.
    """

    surface: Surface
    bias: Spring

    @property
    def cutoff(self) -> float:
        return self.surface.cutoff

    def require(
        self, numbers: Iterable[SupportsInt], charge: int | None, spin: int | None, place: str
    ) -> None:
        self.surface.require(numbers, charge, spin, place)

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = self.surface(graph, stress=stress, uncertainty=uncertainty)
        donor, hydrogen, acceptor = self.bias.atoms
        here = graph.positions.double()
        first, second = here[hydrogen] - here[donor], here[acceptor] - here[hydrogen]
        off = first.norm() - second.norm() - self.bias.target
        one, other = first / first.norm(), second / second.norm()
        forces = torch.zeros_like(graph.positions)
        push = (self.bias.spring * off).to(forces.dtype)
        forces[hydrogen] -= push * (one + other).to(forces.dtype)
        forces[donor] += push * one.to(forces.dtype)
        forces[acceptor] += push * other.to(forces.dtype)
        energy = (0.5 * self.bias.spring * off**2).reshape(1)
        return replace(found, bias_energy=energy, bias_forces=forces)


def list_pieces(_: Setting) -> Iterator[tuple[str, Piece]]:
    yield "md", run_dynamics
    for group in range(GROUPS):
        yield f"reactive_{group}", partial(steer_group, group=group)
    yield "relabelled", relabel


def choose_starts(setting: Setting, count: int) -> list[TransferPath]:
    """Unseen transfers, evenly over residues."""
    need("ensemble", setting)
    paths = whole_paths(setting.work / CONFIG["main"] / "unseen_paths.xyz")
    donors = sorted({path.donor_name for path in paths})
    turns = {donor: [path for path in paths if path.donor_name == donor] for donor in donors}
    order = [
        turns[donor][turn] for turn in range(len(paths)) for donor in donors
        if turn < len(turns[donor])
    ]  # fmt: skip
    return order[:count]


def run_dynamics(setting: Setting) -> dict[str, Any]:
    """Langevin dynamics by the program, then constant energy from the same starts."""
    scale, dynamics = setting.scale["md"], CONFIG["dynamics"]
    paths, folder = choose_starts(setting, scale["starts"]), setting.folder("md")
    file = folder / "starts.xyz"
    if not file.exists():
        ase.io.write(file, [path.images[0] for path in paths], format="extxyz")
    common = (
        *("-T", dynamics["kelvin"], "--timestep", dynamics["timestep"], "--lost", "allow"),
        *("--every", scale["every"], "--drive", "first", "--uncertainty-every", 0),
        *("--hottest", 1e9, "--drift", 1e9),
    )
    runs = {
        "langevin": ("--steps", scale["steps"], "--time-constant", dynamics["friction"]),
        "nve": ("--steps", scale["nve"]),
    }
    for name, options in runs.items():
        made = folder / name
        again = ["--resume"] if (made / STATE).exists() else []
        surefoot(
            *("md", ensemble_of(setting), file, "-o", made, "--ensemble", name, *options),
            *(*common, *again),
            log=folder / "log.txt",
        )
    held = [read_trajectory(folder / "langevin", n) for n in range(len(paths))]
    free = [read_trajectory(folder / "nve", n) for n in range(len(paths))]
    last = scale["steps"] - scale["steps"] % scale["every"]
    return {
        "picoseconds": scale["steps"] * dynamics["timestep"] / 1000,
        "starts": [path.name for path in paths],
        "ended_early": sum(int(frames["step"][-1]) < last for frames in held),
        "bonds": [judge_bonds(*one) for one in zip(paths, held, strict=True)],
        "temperature": [round(float(frames["temperature"].mean()), 1) for frames in held],
        "drift_mev_per_atom_ps": [_drift(frames) for frames in free],
    }


def judge_bonds(path: TransferPath, frames: dict[str, np.ndarray]) -> str:
    """`whole`; `moved`, where hydrogens alone have other partners at last; or `broken`."""
    numbers = frames["numbers"]
    first = all_bonds(path.images[0])
    lasting, begun = None, 0.0
    for time, places in zip(frames["time"], frames["positions"], strict=True):
        changed = all_bonds(Atoms(numbers, places)) ^ first
        if not changed:
            lasting = None
        elif lasting is None:
            lasting, begun = changed, float(time)
        elif time - begun >= LASTING:
            return "moved" if _only_hydrogens(numbers, places) else "broken"
    return "whole"


def all_bonds(atoms: Atoms) -> set[tuple[int, int]]:
    """Bonds to carbon, nitrogen, oxygen and sulfur; hydrogens next to each other are none."""
    extra = atoms + Atoms("H", [atoms.positions.max(0) + 50.0])  # the atom that is left out
    found = other_bonds(extra, len(atoms))
    return {pair for pair in found if any(atoms.numbers[list(pair)] > 1)}


def _only_hydrogens(numbers: np.ndarray, places: np.ndarray) -> bool:
    """Whether every hydrogen has one partner."""
    partners = np.zeros(len(numbers), int)
    for one, other in all_bonds(Atoms(numbers, places)):
        partners[[one, other]] += 1
    return bool((partners[numbers == 1] == 1).all())


def _drift(frames: dict[str, np.ndarray]) -> float | None:
    """Slope of the energy that is conserved."""
    if len(frames["time"]) < SMALLEST:
        return None
    slope = np.polyfit(frames["time"] / 1000, frames["conserved"], 1)[0]
    return round(1000 * float(slope) / len(frames["numbers"]), 4)


def steer_group(setting: Setting, group: int) -> dict[str, Any]:
    """Some starts, each steered window by window and then let go."""
    scale = setting.scale["reactive"]
    paths = choose_starts(setting, scale["starts"])[group::GROUPS]
    surface = PredictorSurface(predictor=load_predictor(ensemble_of(setting)), drive="first")
    found = []
    for path in paths:
        folder = setting.folder(f"reactive/{path.name}")
        found.append(steer(path, surface, scale, folder))
    return {"transfers": found}


def steer(
    path: TransferPath, surface: Surface, scale: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """q pulled from where it is to the other side, in windows, then dynamics without a spring."""
    atoms = path.images[0].copy()
    first = coordinate(path, atoms.positions)
    last, spring = CONFIG["steering"]["last"], CONFIG["steering"]["spring"]
    ways = []
    for number, target in enumerate(np.linspace(first, last, scale["windows"] + 1)[1:]):
        bias = Spring(
            atoms=(path.donor, path.hydrogen, path.acceptor), spring=spring, target=float(target)
        )
        steered = Steered(surface=surface, bias=bias)
        frames = _run(atoms, steered, folder / f"window_{number}", scale["steps"], number, scale)
        atoms = _last(atoms, frames)
        ways.append(_coordinates(path, frames))
    over = ways[-1]
    seed = scale["windows"]
    free = _coordinates(
        path, _run(atoms, surface, folder / "released", scale["release"], seed, scale)
    )
    return {
        "path": path.name,
        "donor": path.donor_name,
        "start": round(first, 3),
        "transferred": bool(over[-1] > 0),
        "survived": bool(over[-1] > 0 and len(free) > 1 and (free > 0).all()),
        "q": [round(float(one), 3) for one in (*over[-1:], free.min(), free.max(), free[-1])],
    }


def coordinate(path: TransferPath, places: np.ndarray) -> float:
    """r(D–H) − r(H–A), Å."""
    to_donor, to_acceptor = (
        np.linalg.norm(places[path.hydrogen] - places[atom]) for atom in (path.donor, path.acceptor)
    )
    return float(to_donor - to_acceptor)


def _coordinates(path: TransferPath, frames: dict[str, np.ndarray]) -> np.ndarray:
    return np.array([coordinate(path, places) for places in frames["positions"]])


def _run(
    atoms: Atoms, surface: Surface, folder: Path, steps: int, seed: int, scale: dict[str, Any]
) -> dict[str, np.ndarray]:
    dynamics = CONFIG["dynamics"]
    settings = Simulation(
        dynamics=Dynamics(
            timestep=dynamics["timestep"], thermostat=Langevin(time=dynamics["friction"])
        ),
        steps=steps,
        seed=seed,
        momenta="given" if atoms.has("momenta") else "drawn",
        every=scale["every"],
        hottest=1e9,
        drift=1e9,
        lost="allow",
        uncertainty_every=0,
    )
    job = Job(
        structures=[atoms],
        temperatures=[dynamics["kelvin"]],
        surface=surface,
        settings=settings,
        folder=folder,
        places=[folder.name],
    )
    (resume if (folder / STATE).exists() else start)(job)
    return read_trajectory(folder, 0)


def _last(atoms: Atoms, frames: dict[str, np.ndarray]) -> Atoms:
    moved = Atoms(atoms.numbers, frames["positions"][-1], info=dict(atoms.info))
    moved.set_velocities(frames["velocities"][-1] / units.fs)
    return moved


def relabel(setting: Setting) -> dict[str, Any]:
    """Frames of the steered and released runs, evenly, beside their labels."""
    scale, folder = setting.scale["reactive"], setting.folder("relabelled")
    paths = choose_starts(setting, scale["starts"])
    for group in range(GROUPS):
        need(f"reactive_{group}", setting)
    frames = []
    for path in paths:
        runs = setting.work / "reactive" / path.name
        for run in sorted(runs.iterdir()):
            for places in read_trajectory(run, 0)["positions"]:
                atoms = path.images[0].copy()
                atoms.positions = places
                atoms.info = {name: atoms.info[name] for name in ("charge", "spin", "donor")}
                frames.append(atoms)
    chosen = np.linspace(0, len(frames) - 1, min(scale["relabelled"], len(frames))).round()
    structures, labelled = folder / "structures.xyz", folder / "labelled.xyz"
    if not structures.exists():
        ase.io.write(structures, [frames[int(n)] for n in chosen], format="extxyz")
    counts = label(structures, labelled, "--method", CONFIG["main"])
    surefoot(
        *("evaluate", ensemble_of(setting), labelled, "-o", folder / "report.json"),
        log=folder / "log.txt",
    )
    return {"frames_to_choose_from": len(frames), **counts, **summarize(folder / "report.json")}


def summarize(report: Path) -> dict[str, Any]:
    """Errors, and how often labels are inside the intervals, of a report of `evaluate`."""
    import json

    found = json.loads(report.read_text())
    kept: dict[str, Any] = {"accuracy": {}, "coverage": {}}
    for quantity in ("energy", "forces"):
        entry = found["accuracy"].get(quantity, {})
        kept["accuracy"][quantity] = {"unit": entry.get("unit"), **entry.get("all", {})}
        after = found["uncertainty"].get(quantity, {})
        kept["coverage"][quantity] = {
            when: {name: value for name, value in row.items() if name.startswith("coverage")}
            for when, row in after.items()
            if when in ("before", "after") and isinstance(row, dict)
        }
    return kept
