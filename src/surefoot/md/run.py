"""Beginning a run, and going on with one that was interrupted or killed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from surefoot.data.read import read_state
from surefoot.lock import LOCK, hold
from surefoot.md.checks import find_limits, say_momentless
from surefoot.md.folder import find_strangers, remove_run, sweep_run
from surefoot.md.integrator import Engine, conserved, draw_momenta, rest
from surefoot.md.job import Job, Report
from surefoot.md.loop import Run
from surefoot.md.noise import Noise
from surefoot.md.saved import STATE, load, versions
from surefoot.md.settings import Langevin
from surefoot.md.state import at_rest, kinetic_energy
from surefoot.md.timestep import fastest_periods, say_too_long
from surefoot.md.trajectory import HdfWriter, Writer
from surefoot.md.xyz import XyzWriter
from surefoot.motion.bias import Bias, NothingToPull
from surefoot.motion.guard import require_scores
from surefoot.motion.skin import NeighborLists
from surefoot.motion.surface import Evaluation, PredictorSurface, require_stress
from surefoot.motion.systems import Systems, UnfitStructure, join_systems
from surefoot.train.checkpoint import RefusedFile
from surefoot.units import BOLTZMANN, DALTON

AT_REST = 1e-12
"""Of the kinetic energy of given momenta: what is left of a translation after rounding."""
LET_GO = 0.99
"""Of its depth: where a bias pulls no more."""
TOLD = 1e-3
"""Of kT: kinetic energy of the whole that is taken out without a word."""


class RunExists(ValueError):
    """A folder that holds another run, or nothing to go on from."""


def start(job: Job, *, over: bool = False) -> Report:
    """Begin a run.

    Args:
        job: what is to be run.
        over: whether a run that the folder holds is removed, once it is certain that this one can
            begin.
    Raises:
        InUse: if another process works in the folder.
        RunExists: if the folder holds anything that may not be removed.
        UnfitStructure: if a structure can not be moved.
        NoUncertainty: if the guard has a limit on what the potential does not say.
        ValueError: if settings contradict the structures, or the surface them.
    """
    _require_room(job.folder, over=over)
    with _alone(job.folder):
        _require_room(job.folder, over=over)  # again: who was here before may have left something
        run, evaluation, asked = _begin(job)
        if over:
            remove_run(job.folder)
        run.keep()  # before anything else: what is killed from here on can go on, or be removed
        run.finish_step(evaluation, asked)
        return run.until_done()


def _alone(folder: Path) -> AbstractContextManager[None]:
    """The folder for this process."""
    return hold(
        folder / LOCK,
        f"{folder}: another process runs dynamics in this folder; wait for its end, or choose "
        "another one.",
    )


def _require_room(folder: Path, *, over: bool) -> None:
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    held = [name for name in held if name != LOCK]  # which a killed run has left
    if held and not over:
        raise RunExists(
            f"{folder}: it is not empty ({held[0]}) and nothing is written over another run; "
            "choose another folder, resume this run, or remove it."
        )
    strange = find_strangers(folder) if held else []
    if strange:
        raise RunExists(
            f"{folder}: only a run of molecular dynamics is removed, and {strange[0]} is no part "
            "of one; choose another folder."
        )


def _begin(job: Job) -> tuple[Run, Evaluation, Tensor]:
    """A run at its first step, with what the surface says there; nothing is on the disk yet."""
    _require_fit_job(job)
    systems, configuration = join_systems(job.structures, job.places)
    run = _prepare(job, systems, torch.tensor(job.temperatures, dtype=torch.float64))
    for number, period in enumerate(
        fastest_periods(systems, configuration, job.surface, run.lists).tolist()
    ):
        sentence = say_too_long(period, job.settings.dynamics.timestep, job.places[number])
        if sentence:
            job.warn(sentence)
    graph = run.lists.graph(configuration)
    momenta = _first_momenta(job, run.engine)
    run.state = replace(at_rest(configuration, graph.receiver_offsets.diff() > 0), momenta=momenta)
    if job.watch is not None:
        require_scores(job.watch.guard, job.surface, graph)
    evaluation, asked = run.evaluate(graph, 0)
    if evaluation.bias_energy is not None and job.bias is None:
        raise ValueError(
            "this surface pushes the atoms beside its forces, and its `bias` does not say by what; "
            "name it, so that the trajectory and a restart know."
        )
    run.state = run.state.evaluated(evaluation)
    run.state = replace(run.state, anchor=conserved(run.state, run.engine))
    _tell_translation(job, momenta, run.engine)
    _tell_loose(job, evaluation)
    _tell_direct(job)
    _tell_shortcut(job)
    return run, evaluation, asked


def resume(job: Job) -> Report:
    """Go on with a run where its state on disk stands.

    Raises:
        InUse: if another process works in the folder.
        RefusedFile: if there is no state, or it is of another run.
    """
    if not (job.folder / STATE).is_file():
        raise RefusedFile(
            f"{job.folder}: there is no {STATE} to go on from; begin a new run, in another folder "
            "or over what an interrupted one has left here."
        )
    with _alone(job.folder):
        return _go_on(job)


def _go_on(job: Job) -> Report:
    """What `resume` does in a folder of its own."""
    sweep_run(job.folder)
    require_known(job)
    saved = load(job.folder, job.identity)
    if saved.made_by != versions():
        job.warn(
            f"{job.folder}: it was begun with {saved.made_by} and goes on with {versions()}; the "
            "last bits of its numbers may differ from those of an uninterrupted run."
        )
    if saved.step == 0:  # nothing has moved, and the beginning is the same again
        run, evaluation, asked = _begin(job)
        run.writer.cut({}, {})
        run.finish_step(evaluation, asked)
        return run.until_done()
    everything, _ = join_systems(job.structures, job.places)
    run = _prepare(job, everything, torch.tensor(job.temperatures, dtype=torch.float64))
    run.writer.cut(saved.marks, saved.sums)
    run.step, run.endings = saved.step, saved.endings
    run.first_step = saved.step
    if len(saved.ids) == 0:
        return run.report()
    run.leave(~torch.isin(everything.ids, saved.ids))
    run.state = saved.state
    run.lists.restore(saved.reference)
    return run.until_done()


def require_known(job: Job) -> None:
    """Refuse structures of which the surface can know nothing."""
    for atoms, place in zip(job.structures, job.places, strict=True):
        job.surface.require(atoms.numbers, *read_state(atoms.info), place)


def _require_fit_job(job: Job) -> None:
    """Refuse a job that can not begin, before anything is calculated for it."""
    require_known(job)
    systems, _ = join_systems(job.structures, job.places)
    _require_barostat(job, systems)
    run = _prepare(job, systems, torch.tensor(job.temperatures, dtype=torch.float64))
    if job.settings.dynamics.thermostat is not None:
        momentless = say_momentless(run.engine.modes, run.engine.temperatures, job.places)
        if momentless:
            raise ValueError(f"{momentless}.")
    _first_momenta(job, run.engine)


def _require_barostat(job: Job, systems: Systems) -> None:
    if job.settings.dynamics.barostat is None:
        return
    require_stress(job.surface, "leave the barostat out")
    if isinstance(job.bias, Bias) and job.bias.of == "ood":
        raise NothingToPull(
            "a bias on ood gives no stress, which constant pressure needs; take the bias on energy "
            "or leave the barostat out."
        )
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
    momenta = _given(job, engine)
    if isinstance(job.settings.dynamics.thermostat, Langevin):
        return momenta
    # What keeps the total momentum counts no kinetic energy for it.
    whole = kinetic_energy(momenta, engine.systems)
    momenta = rest(momenta, engine.systems)
    still = kinetic_energy(momenta, engine.systems) <= AT_REST * whole
    if job.settings.dynamics.thermostat is not None and still.any():
        place = job.places[int(still.nonzero()[0, 0])]
        raise UnfitStructure(
            f"{place}: all of its momenta are zero beside that of the whole, and this thermostat "
            "begins from motion; let them be drawn."
        )
    return momenta


def _given(job: Job, engine: Engine) -> Tensor:
    """Momenta as the structures have them, eV·fs/Å; fixed atoms have none."""
    given = torch.cat([torch.tensor(atoms.get_momenta()) for atoms in job.structures])
    return torch.where(engine.systems.fixed[:, None], 0.0, given * DALTON**0.5)


def _tell_direct(job: Job) -> None:
    """Say where forces are no slope, and nothing takes out the motion of the whole they make."""
    if not isinstance(job.surface, PredictorSurface):
        return
    forces = job.surface.predictor.potential.head.forces
    if forces != "gradient" and not isinstance(job.settings.dynamics.thermostat, Langevin):
        job.warn(
            f"the forces of this potential are {forces} and no slope of its energy: they conserve "
            "neither energy nor momentum, so the whole will drift and heat up; use langevin."
        )


def _tell_loose(job: Job, evaluation: Evaluation) -> None:
    """Say where a bias pulls at nothing, since the uncertainty is beyond its width already."""
    if not isinstance(job.bias, Bias) or evaluation.bias_energy is None:
        return
    for number in (evaluation.bias_energy < -LET_GO * job.bias.depth).nonzero()[:, 0].tolist():
        job.warn(
            f"{job.places[number]}: the bias lets go at once, since its width of {job.bias.width} "
            f"is far below the uncertainty of {job.bias.of} at the start; make it wider."
        )


def _tell_shortcut(job: Job) -> None:
    """Say where all draws are asked at every check, whatever the guard looks at first."""
    if job.watch is None or not job.watch.guard.screens:
        return
    shown = job.settings.every * job.settings.uncertainty_every
    if shown > 0 and job.watch.guard.every % shown == 0:
        job.warn(
            "all draws are asked at every check anyway, for the frame that is written there, so "
            "that looking at what is cheap first saves nothing; make `uncertainty_every` 0 or "
            "higher."
        )


def _tell_translation(job: Job, momenta: Tensor, engine: Engine) -> None:
    """Say where a motion of the whole has been taken out of given momenta."""
    if job.settings.momenta == "drawn":
        return
    lost = kinetic_energy(_given(job, engine) - momenta, engine.systems)
    thermal = BOLTZMANN * engine.temperatures.clamp(min=1.0)
    for number in (lost > TOLD * thermal).nonzero()[:, 0].tolist():
        job.warn(
            f"{job.places[number]}: its centre of mass moved with a kinetic energy of "
            f"{float(lost[number]):.3g} eV; that has been taken out, since temperatures do not "
            "count it."
        )


def _prepare(job: Job, systems: Systems, temperatures: Tensor) -> Run:
    writer: Writer = XyzWriter(job.folder, job.structures, job.made_by)
    if job.settings.format == "h5":
        writer = HdfWriter(job.folder, systems, temperatures, job.bias_text)
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
