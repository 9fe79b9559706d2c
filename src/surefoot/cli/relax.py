"""Relax structures in batches: positions, and cells where the potential has stress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.cli.motion import (
    GuardAction,
    GuardEvery,
    GuardOod,
    GuardUncertainty,
    GuardUpper,
)
from surefoot.cli.options import Compile, PotentialFile, Precision, SpinUnit, Splines

if TYPE_CHECKING:
    from ase import Atoms

    from surefoot.data.read import Frame
    from surefoot.relax.run import Relaxed

MOST_ROWS = 40  # of the table; of more structures only those that need a look are shown


def run(
    potential: PotentialFile,
    structures: Annotated[str, typer.Argument(help="Structures, any file that ASE reads.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ to write.")],
    optimizer: Annotated[str, typer.Option(help="lbfgs or fire.")] = "lbfgs",
    fmax: Annotated[float, typer.Option(help="Longest force left on an atom, eV/Å.")] = 0.02,
    steps: Annotated[int, typer.Option(min=0, help="At most, for each structure.")] = 300,
    longest_step: Annotated[
        float | None, typer.Option(help="Å: of an atom (lbfgs), of all together (fire); 0.2.")
    ] = None,
    memory: Annotated[int | None, typer.Option(help="Steps that lbfgs remembers; 100.")] = None,
    cell: Annotated[str, typer.Option(help="fixed or free.")] = "fixed",
    pressure: Annotated[float, typer.Option(help="On free cells, GPa.")] = 0.0,
    guard_uncertainty: GuardUncertainty = None,
    guard_ood: GuardOod = None,
    guard_upper: GuardUpper = None,
    guard_action: GuardAction = "stop",
    guard_every: GuardEvery = None,
    record: Annotated[
        Path | None, typer.Option(help="Extended XYZ for frames that the guard finds unsure.")
    ] = None,
    together: Annotated[int, typer.Option(min=1, help="Structures in a batch.")] = 64,
    precision: Precision = None,
    compile_first: Compile = False,
    splines: Splines = False,
    spin_unit: SpinUnit = "auto",
) -> None:
    from surefoot.cli.motion import open_inputs, read_guard, read_settings, tell
    from surefoot.cli.predict import write_images
    from surefoot.cli.screen import UserError, progress_bar, require_writable, say
    from surefoot.data.read import check_output
    from surefoot.motion.guard import Watch
    from surefoot.motion.surface import PredictorSurface
    from surefoot.relax.run import LIMITS, Relaxation, relax

    for path in (output, record):
        if path is not None:
            require_writable(path)
            check_output(path, [structures])
    moves = {"longest_step": longest_step, "memory": memory}
    settings = read_settings(
        Relaxation,
        optimizer={
            "name": optimizer,
            **{name: value for name, value in moves.items() if value is not None},
        },
        fmax=fmax,
        steps=steps,
        cell=cell,
        pressure=pressure,
    )
    guard = read_guard(
        guard_uncertainty, guard_ood, guard_upper, guard_action, guard_every, usual=1
    )
    if guard is not None and guard.action == "record" and record is None:
        raise UserError("--guard-action record: it has nowhere to put frames; set --record FILE.")
    if record is not None and (guard is None or guard.action == "warn"):
        raise UserError(
            f"--record {record}: nothing would be written to it; set --guard-uncertainty or "
            "--guard-ood, and another --guard-action than warn."
        )
    if record is not None and record.resolve() == output.resolve():
        raise UserError(f"--record {record}: this is the output too; name another file.")
    predictor, frames = open_inputs(
        potential,
        structures,
        precision=precision,
        splines=splines,
        compile_first=compile_first,
        spin_unit=spin_unit,
    )
    kept: list[Atoms] = []
    with progress_bar("relaxing", len(frames)) as bar:
        results = relax(
            [frame.atoms for frame in frames],
            PredictorSurface(predictor=predictor),
            settings,
            places=[frame.place for frame in frames],
            watch=None if guard is None else Watch(guard=guard, warn=tell, record=kept.append),
            limits=LIMITS.model_copy(update={"graphs": together}),
            progress=lambda done, taken: bar.move(done, f"step {taken}"),
        )
    write_images(output, [describe(one) for one in results])
    show(frames, results)
    for one in results:
        if one.reason:
            tell(one.reason)
    counts = {name: sum(one.status == name for one in results) for name in STATUSES}
    told = ", ".join(f"{count} {STATUSES[name]}" for name, count in counts.items() if count)
    say(f"{output}: {len(results)} structures: {told}; {predictor.calibration.describe()}")
    if record is not None and kept:
        write_images(record, kept)
        say(f"{record}: {len(kept)} frames that are worth labelling")


STATUSES = {
    "converged": "converged",
    "exhausted": "out of steps",
    "unsure": "stopped by the guard",
    "broken": "broken",
}


def describe(relaxed: Relaxed) -> Atoms:
    """The structure with results, and what became of it in info."""
    from surefoot import __version__
    from surefoot.motion.frames import with_results

    atoms = with_results(relaxed.atoms, relaxed.evaluation, f"surefoot {__version__}")
    atoms.info |= {
        "relax_status": relaxed.status,
        "relax_steps": relaxed.steps,
        "relax_fmax": relaxed.fmax,
        "relax_energy_change": float(relaxed.evaluation.energy[0]) - relaxed.first_energy,
    }
    if relaxed.score is not None:
        atoms.info["guard_score"] = relaxed.score
    return atoms


def show(frames: list[Frame], results: list[Relaxed]) -> None:
    """The table: every structure, or those that need a look where there are many."""
    from surefoot.cli.screen import show_table

    rows = []
    for frame, one in zip(frames, results, strict=True):
        if len(results) > MOST_ROWS and one.status == "converged":
            continue
        energy, sigma = float(one.evaluation.energy[0]), one.evaluation.energy_uncertainty
        ood = one.evaluation.ood
        rows.append(
            [
                f"{frame.index} {frame.atoms.get_chemical_formula()}",
                STATUSES[one.status],
                str(one.steps),
                f"{energy - one.first_energy:.4f}",
                f"{one.fmax:.4f}",
                f"{energy:.4f}" + ("" if sigma is None else f" ± {float(sigma[0]):.4f}"),
                "–" if ood is None else f"{float(ood[0]):.2f}",
            ]
        )
    if rows:
        show_table(
            "Relaxed structures" if len(results) <= MOST_ROWS else "Structures to look at",
            ["structure", "status", "steps", "change, eV", "fmax, eV/Å", "energy ± σ, eV", "ood"],
            rows[:MOST_ROWS],
        )
