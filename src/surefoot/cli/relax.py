"""Relax structures in batches: positions, and cells where the potential has stress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.kept import PATH, RECORD, Files, given, identify
from surefoot.cli.motion import (
    GuardAction,
    GuardConsecutive,
    GuardEvery,
    GuardOod,
    GuardUncertainty,
    GuardUpper,
)
from surefoot.cli.options import Compile, PotentialFile, Precision, SpinUnit, Splines

if TYPE_CHECKING:
    from ase import Atoms

    from surefoot.data.read import Frame
    from surefoot.motion.guard import Guard
    from surefoot.motion.surface import Evaluation
    from surefoot.posteriors.predictor import Predictor
    from surefoot.relax.journal import Journal
    from surefoot.relax.settings import Relaxation, Relaxed

CHUNK = 50  # frames of a structure that are written at once
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
    pressure: Annotated[
        float | None, typer.Option(help="On free cells, GPa; 0 where not set.")
    ] = None,
    stress: Annotated[
        float | None,
        typer.Option(help="Largest component of stress + pressure left on free cells, GPa; 0.05."),
    ] = None,
    guard_uncertainty: GuardUncertainty = None,
    guard_ood: GuardOod = None,
    guard_upper: GuardUpper = None,
    guard_action: GuardAction = "stop",
    guard_every: GuardEvery = None,
    guard_consecutive: GuardConsecutive = None,
    record: Annotated[
        Path | None, typer.Option(help="Extended XYZ for frames that the guard finds unsure.")
    ] = None,
    trajectory: Annotated[
        Path | None, typer.Option(help="Extended XYZ for every step of every structure.")
    ] = None,
    together: Annotated[int, typer.Option(min=1, help="Structures in a batch.")] = 64,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what an interrupted one has left.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files, and what an interrupted one has left.")
    ] = False,
    precision: Precision = None,
    compile_first: Compile = False,
    splines: Splines = False,
    spin_unit: SpinUnit = "auto",
) -> None:
    from surefoot.cli.motion import open_inputs, read_guard, read_settings
    from surefoot.cli.screen import UserError
    from surefoot.relax.settings import Relaxation

    files = Files(output=output, record=record, trajectory=trajectory)
    if resume and force:
        raise UserError("--resume goes on with what is there and --force removes it; choose one.")
    moves = {"longest_step": longest_step, "memory": memory}
    on_cells = {"pressure": pressure, "stress": stress}
    for name, value in on_cells.items():
        if value is not None and cell == "fixed":
            raise UserError(
                f"--{name} {value}: fixed cells feel nothing of it; set --cell free, or leave it "
                "out."
            )
    settings = read_settings(
        Relaxation,
        optimizer={"name": optimizer, **given(moves)},
        fmax=fmax,
        steps=steps,
        cell=cell,
        **given(on_cells),
    )
    guard = read_guard(
        *(guard_uncertainty, guard_ood, guard_upper, guard_action, guard_every, guard_consecutive),
        usual=1,
    )
    files.require(structures, guard, resume=resume, force=force)
    speed: dict[str, Any] = {
        "precision": precision,
        "splines": splines,
        "compile_first": compile_first,
    }
    predictor, frames = open_inputs(potential, structures, **speed, spin_unit=spin_unit)
    identity = identify(potential, frames, settings, guard, {**speed, **files.asked})
    work = Work(files=files, identity=identity, frames=frames, guard=guard, settings=settings)
    with work.alone():
        work.go(predictor, together, resume=resume, force=force)


@dataclass(kw_only=True)
class Work:
    """A relaxation whose results are on the disk as soon as a structure has left the batch."""

    files: Files
    identity: dict[str, Any]
    frames: list[Frame]
    settings: Relaxation
    guard: Guard | None
    waiting: dict[int, list[Atoms]] = field(default_factory=dict)

    def alone(self) -> AbstractContextManager[None]:
        """The output for this process."""
        from surefoot.lock import hold

        output = self.files.output
        return hold(
            self.files.lock,
            f"{output}: another process relaxes into this file; wait for its end, or choose "
            "another output.",
        )

    def go(self, predictor: Predictor, together: int, *, resume: bool, force: bool) -> None:
        """Relax what is left, and write everything where it belongs."""
        from surefoot.cli.screen import complain
        from surefoot.relax.journal import begin_journal, open_journal

        journal = self.files.journal
        if resume:
            kept, over = open_journal(journal, self.identity)
            if not over:
                self.files.require_new()
        else:
            if not force:  # again: who was here before may have left something
                self.files.require_fresh()
            kept = begin_journal(journal, self.identity, over=force)
        try:
            self.relax(kept, predictor, together)
        except (KeyboardInterrupt, OSError):
            complain(
                f"surefoot: {journal}: {len(kept.done)} of {len(self.frames)} structures are done; "
                "the same command with --resume goes on."
            )
            raise
        except Exception:
            if not kept.lines:
                journal.unlink()  # it could not begin, so that there is nothing to go on with
            raise
        self.write(kept, predictor.calibration.describe())

    def relax(self, kept: Journal, predictor: Predictor, together: int) -> None:
        """Relax the structures that the journal has no result of."""
        from surefoot.cli.motion import tell
        from surefoot.cli.screen import interruption, progress_bar
        from surefoot.motion.guard import Watch
        from surefoot.motion.surface import PredictorSurface
        from surefoot.relax.journal import RESULT
        from surefoot.relax.run import Keeper, relax
        from surefoot.relax.settings import LIMITS, NUMBER

        done = len(kept.done)
        left = [number for number in range(len(self.frames)) if number not in kept.done]
        structures = [self.frames[number].atoms.copy() for number in left]
        for number, atoms in zip(left, structures, strict=True):
            atoms.info[NUMBER] = number

        def record(atoms: Atoms) -> None:
            kept.add(RECORD, atoms.info[NUMBER], as_text([atoms]))

        def finished(place: int, one: Relaxed) -> None:
            self.flush(kept, left[place])
            if one.reason:
                tell(one.reason)
            kept.add(RESULT, left[place], as_text([describe(one)]))

        with progress_bar("relaxing", len(self.frames), done) as bar, interruption() as asked:

            def progress(here: int, taken: int) -> None:
                bar.move(done + here, f"step {taken}")
                if asked:
                    raise KeyboardInterrupt

            relax(
                structures,
                PredictorSurface(predictor=predictor),
                self.settings,
                places=[self.frames[number].place for number in left],
                watch=None
                if self.guard is None
                else Watch(guard=self.guard, warn=tell, record=record),
                limits=LIMITS.model_copy(update={"graphs": together}),
                progress=progress,
                keeper=Keeper(
                    finished=finished,
                    follow=None if self.files.trajectory is None else self.follow(kept),
                ),
            )

    def follow(self, kept: Journal) -> Callable[[int, int, Atoms, Evaluation], None]:
        """Keeps the frames of trajectories, in chunks."""
        from surefoot import __version__
        from surefoot.motion.frames import with_results
        from surefoot.relax.settings import NUMBER

        def keep(_: int, step: int, atoms: Atoms, evaluation: Evaluation) -> None:
            frame = with_results(atoms, evaluation, f"surefoot {__version__}")
            frame.info["relax_step"] = step
            number = frame.info[NUMBER]
            self.waiting.setdefault(number, []).append(frame)
            if len(self.waiting[number]) >= CHUNK:
                self.flush(kept, number)

        return keep

    def flush(self, kept: Journal, number: int) -> None:
        """Write the frames of a structure that wait."""
        frames = self.waiting.pop(number, [])
        if frames:
            kept.add(PATH, number, as_text(frames))

    def write(self, kept: Journal, calibrated: str) -> None:
        """Everything that counts from the journal to its files, and a table of it."""
        import io

        import ase.io

        from surefoot.cli.screen import say
        from surefoot.relax.journal import RESULT
        from surefoot.train.checkpoint import write_atomically
        from surefoot.wording import counted

        files = self.files
        kept.begin_outputs()
        for path, kind in (
            (files.trajectory, PATH),
            (files.record, RECORD),
            (files.output, RESULT),
        ):
            if path is not None and any(line[0] == kind for line in kept.lines):
                write_atomically(path, (text.encode() for text in kept.texts(kind)))
        texts = kept.texts(RESULT)
        results = [next(ase.io.iread(io.StringIO(text), format="extxyz")) for text in texts]
        show(self.frames, results)
        found = [atoms.info["relax_status"] for atoms in results]
        counts = {name: found.count(name) for name in STATUSES}
        told = ", ".join(f"{count} {STATUSES[name]}" for name, count in counts.items() if count)
        say(f"{files.output}: {counted(len(results), 'structure')}: {told}; {calibrated}")
        count = sum(1 for _ in kept.texts(RECORD))
        if count:
            say(f"{files.record}: {count} frames that are worth labelling")
        kept.path.unlink()


def as_text(frames: list[Atoms]) -> str:
    """Frames as extended XYZ."""
    import io

    import ase.io

    text = io.StringIO()
    ase.io.write(text, frames, format="extxyz")
    return text.getvalue()


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


def show(frames: list[Frame], results: list[Atoms]) -> None:
    """The table: every structure, or those that need a look where there are many."""
    from surefoot.cli.screen import show_table

    rows = []
    for frame, atoms in zip(frames, results, strict=True):
        info = atoms.info
        if len(results) > MOST_ROWS and info["relax_status"] == "converged":
            continue
        energy, sigma = atoms.get_potential_energy(), info.get("energy_uncertainty")
        rows.append(
            [
                f"{frame.index} {frame.atoms.get_chemical_formula()}",
                STATUSES[info["relax_status"]],
                str(info["relax_steps"]),
                f"{info['relax_energy_change']:.4f}",
                f"{info['relax_fmax']:.4f}",
                f"{energy:.4f}" + ("" if sigma is None else f" ± {sigma:.4f}"),
                f"{info['ood']:.2f}" if "ood" in info else "–",
            ]
        )
    if rows:
        show_table(
            "Relaxed structures" if len(results) <= MOST_ROWS else "Structures to look at",
            ["structure", "status", "steps", "change, eV", "fmax, eV/Å", "energy ± σ, eV", "ood"],
            rows[:MOST_ROWS],
        )
