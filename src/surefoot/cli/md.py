"""Molecular dynamics of many structures, replicas and temperatures at once, with a guard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.motion import (
    BiasDepth,
    BiasOf,
    BiasWidth,
    GuardAction,
    GuardConsecutive,
    GuardEvery,
    GuardNearEnergy,
    GuardNearOod,
    GuardOod,
    GuardUncertainty,
    GuardUpper,
)
from surefoot.cli.options import Compile, PotentialFile, Precision, SpinUnit, Splines

if TYPE_CHECKING:
    from surefoot.md.job import Job, Report
    from surefoot.md.settings import Simulation


def run(
    potential: PotentialFile,
    structures: Annotated[str, typer.Argument(help="Structures, any file that ASE reads.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for trajectory and state.")
    ],
    temperature: Annotated[
        list[float] | None,
        typer.Option("-T", "--temperature", help="K; several give a replica at each. 300."),
    ] = None,
    ensemble: Annotated[str, typer.Option(help="nve, langevin, bussi or npt.")] = "langevin",
    steps: Annotated[int, typer.Option(min=0, help="In all; a resumed run may have more.")] = 1000,
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    time_constant: Annotated[
        float | None, typer.Option(help="Of the thermostat, fs; 100 where not set.")
    ] = None,
    pressure: Annotated[float | None, typer.Option(help="GPa, for npt; 0 where not set.")] = None,
    pressure_time: Annotated[
        float | None, typer.Option(help="Of the barostat, fs; 1000 where not set.")
    ] = None,
    compressibility: Annotated[
        float | None, typer.Option(help="A rough guess, 1/GPa; 0.5 where not set.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Of each structure and temperature.")] = 1,
    momenta: Annotated[str, typer.Option(help="drawn or given (by the file).")] = "drawn",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same run.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Steps from frame to frame.")] = 10,
    uncertainty_every: Annotated[
        int,
        typer.Option(
            min=0,
            help="Frames from one with uncertainties of all members to the next; 0: only where "
            "the guard asks. With --drive first.",
        ),
    ] = 1,
    chunk: Annotated[int, typer.Option(min=1, help="Frames that are written at once.")] = 100,
    trajectory: Annotated[str, typer.Option(help="h5 (HDF5) or xyz (extended XYZ).")] = "h5",
    skin: Annotated[float, typer.Option(help="Of neighbour lists, Å.")] = 1.0,
    hottest: Annotated[
        float | None, typer.Option(help="Temperature that ends a system, K.")
    ] = None,
    drift: Annotated[
        float, typer.Option(help="Energy drift that ends a system, eV/atom/ps.")
    ] = 0.1,
    lost: Annotated[str, typer.Option(help="stop or allow: atoms that leave all others.")] = "stop",
    drive: Annotated[
        str, typer.Option(help="mean (of all members) or first: whose forces move the atoms.")
    ] = "mean",
    guard_uncertainty: GuardUncertainty = None,
    guard_ood: GuardOod = None,
    guard_upper: GuardUpper = None,
    guard_action: GuardAction = "stop",
    guard_every: GuardEvery = None,
    guard_consecutive: GuardConsecutive = None,
    guard_near_ood: GuardNearOod = None,
    guard_near_energy: GuardNearEnergy = None,
    bias: BiasOf = None,
    bias_depth: BiasDepth = None,
    bias_width: BiasWidth = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Remove the run in the folder and begin anew.")
    ] = False,
    precision: Precision = None,
    compile_first: Compile = False,
    splines: Splines = False,
    spin_unit: SpinUnit = "auto",
) -> None:
    from surefoot.cli.motion import read_bias, read_guard, read_settings
    from surefoot.cli.screen import UserError
    from surefoot.md.settings import Simulation

    if resume and force:
        raise UserError("--resume goes on with a run and --force removes it; choose one.")
    if drive == "mean":
        sparing = {
            "guard-near-ood": guard_near_ood,
            "guard-near-energy": guard_near_energy,
            "uncertainty-every": None if uncertainty_every == 1 else uncertainty_every,
        }
        for name, value in sparing.items():
            if value is not None:
                raise UserError(
                    f"--{name} {value}: with --drive mean all members are asked at every "
                    "step anyway; leave it out, or set --drive first."
                )
    thermal = {"time_constant": time_constant}
    volume = {
        "pressure": pressure,
        "pressure_time": pressure_time,
        "compressibility": compressibility,
    }
    settings = read_settings(
        Simulation,
        dynamics={"timestep": timestep, **choose_baths(ensemble, thermal, volume)},
        steps=steps,
        seed=seed,
        momenta=momenta,
        every=every,
        uncertainty_every=uncertainty_every,
        chunk=chunk,
        format=trajectory,
        skin=skin,
        hottest=hottest,
        drift=drift,
        lost=lost,
    )
    guard = read_guard(
        *(guard_uncertainty, guard_ood, guard_upper, guard_action, guard_every, guard_consecutive),
        *(guard_near_ood, guard_near_energy),
    )
    job = prepare(
        potential,
        structures,
        output,
        settings,
        temperatures=temperature or [300.0],
        replicas=replicas,
        drive=drive,
        guard=guard,
        bias=read_bias(bias, bias_depth, bias_width),
        speed={"precision": precision, "compile_first": compile_first, "splines": splines},
        spin_unit=spin_unit,
    )
    finish(go(job, resume=resume, force=force), job)


def choose_baths(
    ensemble: str, thermal: dict[str, float | None], volume: dict[str, float | None]
) -> dict[str, Any]:
    """Thermostat and barostat of an ensemble; options that contradict it are refused.

    Raises:
        UserError: naming the option.
    """
    from surefoot.cli.screen import UserError

    known = ("nve", "langevin", "bussi", "npt")
    if ensemble not in known:
        raise UserError(f"--ensemble {ensemble}: not known; there is {', '.join(known)}.")
    idle = {**({} if ensemble != "nve" else thermal), **({} if ensemble == "npt" else volume)}
    for name, value in idle.items():
        if value is not None:
            raise UserError(
                f"--{name.replace('_', '-')} {value}: {ensemble} has nothing that it could set; "
                "leave it out or choose another --ensemble."
            )
    if ensemble == "nve":
        return {}
    bath: dict[str, Any] = {"name": "langevin" if ensemble == "langevin" else "bussi"}
    if thermal["time_constant"] is not None:
        bath["time"] = thermal["time_constant"]
    if ensemble != "npt":
        return {"thermostat": bath}
    named = {
        "pressure": volume["pressure"],
        "time": volume["pressure_time"],
        "compressibility": volume["compressibility"],
    }
    barostat = {name: value for name, value in named.items() if value is not None}
    return {"thermostat": bath, "barostat": barostat}


def prepare(
    potential: Path,
    structures: str,
    output: Path,
    settings: Simulation,
    *,
    temperatures: list[float],
    replicas: int,
    drive: str,
    guard: Any,
    bias: Any,
    speed: dict[str, Any],
    spin_unit: str,
) -> Job:
    """Everything that a run needs, read and checked."""
    import hashlib
    import math

    from surefoot import __version__
    from surefoot.cli.motion import open_inputs, tell
    from surefoot.cli.screen import UserError
    from surefoot.md.job import Job
    from surefoot.motion.guard import Watch
    from surefoot.motion.surface import DRIVES, PredictorSurface

    if drive not in DRIVES:
        raise UserError(f"--drive {drive}: not known; there is {', '.join(DRIVES)}.")
    for kelvin in temperatures:
        if not 0 <= kelvin < math.inf:
            raise UserError(f"--temperature {kelvin}: it must be 0 K or more, and finite.")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: this is a file; name a folder.")
    predictor, frames = open_inputs(potential, structures, **speed, spin_unit=spin_unit)
    copies = [
        (frame.atoms, kelvin, _place(frame.place, kelvin, number, temperatures, replicas))
        for frame in frames
        for kelvin in temperatures
        for number in range(replicas)
    ]
    way = [drive, speed["precision"], speed["compile_first"], speed["splines"]]
    return Job(
        structures=[atoms for atoms, _, _ in copies],
        temperatures=[kelvin for _, kelvin, _ in copies],
        surface=PredictorSurface(
            predictor=predictor, drive="first" if drive == "first" else "mean", bias=bias
        ),
        settings=settings,
        folder=output,
        places=[place for _, _, place in copies],
        potential=hashlib.sha256(potential.read_bytes()).hexdigest() + f" {way}",
        watch=None if guard is None else Watch(guard=guard, warn=tell),
        made_by=f"surefoot {__version__}",
        warn=tell,
    )


def _place(place: str, kelvin: float, number: int, temperatures: list[float], replicas: int) -> str:
    parts = [place]
    parts += [f"{kelvin:g} K"] if len(temperatures) > 1 else []
    parts += [f"replica {number}"] if replicas > 1 else []
    return ", ".join(parts)


def go(job: Job, *, resume: bool, force: bool) -> Report:
    """Run with a bar, and stop between two steps when asked to."""
    from dataclasses import replace

    from surefoot.cli.screen import interruption, progress_bar
    from surefoot.md import run as runs

    with progress_bar("moving", job.settings.steps) as bar, interruption() as asked:
        watched = replace(
            job,
            asked=lambda: bool(asked),
            progress=lambda at: bar.move(
                at.step,
                f"{at.temperature:.0f} K, {at.pace:.3g} ns/day, {at.moving} moving",
            ),
        )
        report = runs.resume(watched) if resume else runs.start(watched, over=force)
    if asked:
        raise KeyboardInterrupt("the same command with --resume goes on")
    return report


def finish(report: Report, job: Job) -> None:
    """Say what was done; a system that broke makes the exit status 1.

    Raises:
        Exit: with status 1.
    """
    from surefoot.cli.screen import STATUS_REFUSED, say
    from surefoot.motion.bias import Bias

    count = len(job.structures)
    broken = sum(one.status == "broken" for one in report.endings.values())
    unsure = len(report.endings) - broken
    time = report.step * job.settings.dynamics.timestep / 1000
    parts = [f"{count} systems to step {report.step} ({time:g} ps)"]
    if report.last is not None:
        heat = report.last.measured["temperature"]
        parts.append(f"{float(heat.mean()):.0f} K at the end")
    parts.append(f"{report.pace:.3g} ns/day each")
    parts += [f"{unsure} stopped by the guard"] if unsure else []
    parts += [f"{broken} broken"] if broken else []
    if isinstance(job.bias, Bias):
        parts.append(f"pulled by a bias on {job.bias.of}: no sample of the ensemble")
    say(f"{job.folder}: {'; '.join(parts)}; seed {job.settings.seed}")
    if broken:
        raise typer.Exit(STATUS_REFUSED)
