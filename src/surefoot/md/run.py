"""Beginning a run, and going on with one that was interrupted or killed."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from surefoot.data.read import read_state
from surefoot.md.checks import find_limits, say_momentless
from surefoot.md.integrator import Engine, conserved, draw_momenta
from surefoot.md.job import Job, Report
from surefoot.md.loop import Run
from surefoot.md.noise import Noise
from surefoot.md.saved import STATE, load, versions
from surefoot.md.state import State, kinetic_energy
from surefoot.md.timestep import fastest_periods, say_too_long
from surefoot.md.trajectory import HdfWriter, Writer, XyzWriter
from surefoot.motion.skin import NeighborLists
from surefoot.motion.systems import Systems, UnfitStructure, join_systems
from surefoot.train.checkpoint import RefusedFile
from surefoot.units import DALTON


class RunExists(ValueError):
    """A folder that holds another run, or nothing to go on from."""


def start(job: Job) -> Report:
    """Begin a run in a folder that holds none.

    Raises:
        RunExists: if the folder holds a trajectory or state already.
        UnfitStructure: if a structure can not be moved.
        ValueError: if settings contradict the structures.
    """
    held = [p.name for p in job.folder.iterdir()] if job.folder.is_dir() else []
    if held:
        raise RunExists(
            f"{job.folder}: it is not empty ({held[0]}) and nothing is written over another run; "
            "choose another folder, resume this run, or remove it."
        )
    _require(job)
    systems, configuration = join_systems(job.structures, job.places)
    _require_barostat(job, systems)
    run = _prepare(job, systems, torch.tensor(job.temperatures, dtype=torch.float64))
    momentless = ""
    if job.settings.dynamics.thermostat is not None:
        momentless = say_momentless(run.engine.modes, run.engine.temperatures, job.places)
    if momentless:
        raise ValueError(f"{momentless}.")
    for number, period in enumerate(
        fastest_periods(systems, configuration, job.surface, run.lists).tolist()
    ):
        sentence = say_too_long(period, job.settings.dynamics.timestep, job.places[number])
        if sentence:
            job.warn(sentence)
    nothing = torch.zeros(systems.count, dtype=torch.float64)
    graph = run.lists.graph(configuration)
    run.state = State(
        positions=configuration.positions,
        momenta=_first_momenta(job, run.engine),
        cell=configuration.cell,
        exchanged=nothing,
        unsure=torch.zeros(systems.count, dtype=torch.int64),
        anchor=nothing,
        bound=graph.receiver_offsets.diff() > 0,
        energy=nothing,
        forces=torch.zeros_like(configuration.positions),
        stress=torch.zeros_like(configuration.cell),
    )
    evaluation = job.surface(graph, stress=run.needs_stress, uncertainty=True)
    run.state = run.state.evaluated(evaluation)
    run.state = replace(run.state, anchor=conserved(run.state, run.engine))
    job.folder.mkdir(parents=True, exist_ok=True)
    run.finish_step(evaluation)
    return run.until_done()


def resume(job: Job) -> Report:
    """Go on with a run where its state on disk stands.

    Raises:
        RefusedFile: if there is no state, or it is of another run.
    """
    if not (job.folder / STATE).is_file():
        raise RefusedFile(f"{job.folder}: there is no {STATE} to go on from; begin a new run.")
    _require(job)
    saved = load(job.folder, job.identity)
    if saved.made_by != versions():
        job.warn(
            f"{job.folder}: it was begun with {saved.made_by} and goes on with {versions()}; the "
            "last bits of its numbers may differ from those of an uninterrupted run."
        )
    everything, _ = join_systems(job.structures, job.places)
    run = _prepare(job, everything, torch.tensor(job.temperatures, dtype=torch.float64))
    run.writer.cut(saved.marks)
    run.step, run.endings = saved.step, saved.endings
    if len(saved.ids) == 0:
        return run.report()
    run.leave(~torch.isin(everything.ids, saved.ids))
    run.state = saved.state
    run.lists.restore(saved.reference)
    run.first_step = saved.step
    return run.until_done()


def _require(job: Job) -> None:
    for atoms, place in zip(job.structures, job.places, strict=True):
        job.surface.require(atoms.numbers, *read_state(atoms.info), place)


def _require_barostat(job: Job, systems: Systems) -> None:
    if job.settings.dynamics.barostat is None:
        return
    held = systems.sum(systems.fixed.double()) > 0
    for number, place in enumerate(job.places):
        if not systems.pbc[number].all():
            raise UnfitStructure(
                f"{place}: constant pressure needs three periodic axes; leave the barostat out."
            )
        if held[number]:
            raise UnfitStructure(
                f"{place}: it has fixed atoms, which constant pressure would have to move; free "
                "them or leave the barostat out."
            )


def _first_momenta(job: Job, engine: Engine) -> Tensor:
    if job.settings.momenta == "drawn":
        return draw_momenta(engine)
    for atoms, place in zip(job.structures, job.places, strict=True):
        if not atoms.has("momenta"):
            raise UnfitStructure(
                f"{place}: it states no momenta; let them be drawn, or write them into the file."
            )
    given = torch.cat([torch.tensor(atoms.get_momenta()) for atoms in job.structures])
    momenta = torch.where(engine.systems.fixed[:, None], 0.0, given * DALTON**0.5)
    still = kinetic_energy(momenta, engine.systems) == 0
    if job.settings.dynamics.thermostat is not None and still.any():
        place = job.places[int(still.nonzero()[0, 0])]
        raise UnfitStructure(
            f"{place}: all of its momenta are zero, and a thermostat begins from motion; let them "
            "be drawn."
        )
    return momenta


def _prepare(job: Job, systems: Systems, temperatures: Tensor) -> Run:
    writer: Writer = XyzWriter(job.folder, job.structures, job.made_by)
    if job.settings.format == "h5":
        writer = HdfWriter(job.folder, systems, temperatures)
    return Run(
        job=job,
        engine=Engine(
            systems=systems,
            dynamics=job.settings.dynamics,
            temperatures=temperatures,
            noise=Noise(job.settings.seed, systems.ids.tolist()),
        ),
        lists=NeighborLists(systems, job.surface.cutoff, job.settings.skin),
        limits=find_limits(job.settings, temperatures),
        writer=writer,
    )
