"""Train an ensemble, calibrate its error bars, and leave one potential file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from surefoot.cli.config import Config
    from surefoot.data.load import Splits
    from surefoot.evaluate.recalibrate import Factor
    from surefoot.posteriors.calibration import Calibration
    from surefoot.posteriors.predictor import Predictor
    from surefoot.posteriors.training import Plan
    from surefoot.train.distributed import Team
    from surefoot.train.state import State


MANY = 50_000  # frames; with their neighbours they take about 2 GiB where they have 20 atoms


def run(
    config: Annotated[Path, typer.Argument(help="A config; see `surefoot template`.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for potential, log and checkpoint.")
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the folder.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override the file, e.g. --set train.epochs=50."),
    ] = None,
) -> None:
    from surefoot.cli.screen import require_writable
    from surefoot.lock import LOCK, hold
    from surefoot.posteriors.restart import CHECKPOINT, WRITTEN
    from surefoot.train.checkpoint import sweep
    from surefoot.train.distributed import open_team

    with open_team() as team, _only_first_speaks(team), ExitStack() as stack:

        def prepare() -> tuple[Plan, State]:
            require_writable(output / CHECKPOINT)
            if team.leads:
                stack.enter_context(hold(output / LOCK, _say_in_use(output)))
                sweep(output, WRITTEN)
            return _prepare(config, overrides or (), output, resume, team.count)

        _train(prepare, output, team)


def _say_in_use(folder: Path) -> str:
    return (
        f"{folder}: another process trains in this folder; wait for its end, or choose another "
        "folder."
    )


def _train(prepare: Callable[[], tuple[Plan, State]], output: Path, team: Team) -> None:
    """The run itself: fit, with a whole checkpoint wherever it is stopped, then calibrate."""
    import torch

    from surefoot.cli.screen import STATUS_INTERRUPTED, complain, interruption, say, suggest
    from surefoot.posteriors.restart import BEST, CHECKPOINT, Keeper, fingerprint
    from surefoot.posteriors.training import finish
    from surefoot.train.distributed import any_of, require_same, together, wait_for_all
    from surefoot.train.fit import fit

    plan, state = together(team, prepare)
    require_same(team, "the data or the config", fingerprint(plan, state))
    checkpoint = output / CHECKPOINT
    threads = plan.parts.train.threads or 1
    keeper = Keeper(plan, state, checkpoint, team)
    with interruption() as asked, _events(plan, state, output, team) as events:
        try:
            compiling = plan.task.compiles and not state.uncompiled
            with epoch_bar(plan.parts.train.epochs, state, compiling) as show:
                finished = fit(
                    plan.task,
                    state,
                    observers=[keeper.close_epoch, *events, show],
                    stop=lambda: any_of(team, keeper.look() or bool(asked)),
                    workers=threads,
                    team=team,
                )
        except FloatingPointError:
            keeper.save()
            if state.history:
                complain(f"{output / BEST} holds the best weights before that.")
            raise
        if not finished:
            # Here still, since another process may have been interrupted before this one.
            keeper.save_checkpoint()
            complain(
                f"stopped in epoch {state.epoch + 1}; {checkpoint} is whole, --resume goes on."
            )
            # torchrun ends all processes when one has ended; the first may be writing.
            wait_for_all(team)
            raise typer.Exit(STATUS_INTERRUPTED)
    if not team.leads:
        return
    keeper.save()
    torch.set_num_threads(threads)
    predictor, factors = finish(plan, state)
    predictor.save(output / "potential.safetensors")
    log = f" and {output / 'log.csv'}" if state.history else ""
    show_calibration(predictor.calibration, factors)
    say(describe_gate(predictor))
    say(f"wrote {output / 'potential.safetensors'}{log}")
    suggest("surefoot", "evaluate", output / "potential.safetensors", "TEST.xyz")


@contextmanager
def _events(plan: Plan, state: State, output: Path, team: Team) -> Iterator[list[Any]]:
    """The observer that writes for TensorBoard, where it is asked for; one process writes."""
    if plan.parts.train.log != "tensorboard" or not team.leads:
        yield []
        return
    from surefoot.train.events import FOLDER, open_events

    with open_events(output / FOLDER, state.epoch) as write:
        yield [write]


@contextmanager
def _only_first_speaks(team: Team) -> Iterator[None]:
    """The other processes find the same and make the same mistakes, in silence."""
    from surefoot.cli import screen

    if team.leads:
        yield
        return
    screen.out.quiet = screen.err.quiet = True
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(screen.STATUS_INTERRUPTED) from None
    except Exception as error:
        if screen.is_users(error):
            raise typer.Exit(screen.STATUS_REFUSED) from error
        raise
    finally:
        screen.out.quiet = screen.err.quiet = False


def _prepare(
    config: Path, overrides: Sequence[str], output: Path, resume: bool, processes: int
) -> tuple[Plan, State]:
    """All that can be refused before the first step."""
    from importlib import import_module

    from surefoot.cli.check import diagnose
    from surefoot.cli.config import load_config
    from surefoot.cli.screen import STATUS_REFUSED, say
    from surefoot.data.load import load_splits
    from surefoot.data.read import describe_labels
    from surefoot.posteriors.restart import CHECKPOINT, take_threads
    from surefoot.wording import counted

    settings = _adopt_start(load_config(config, overrides))
    if settings.train.log == "tensorboard":
        import_module("tensorboard")  # or the sentence that names its extra, before any work
    # Resolved here, so that a restart knows what the weights depend on.
    train = take_threads(settings.train, settings.posterior)
    settings = settings.model_copy(update={"train": train})
    checkpoint = output / CHECKPOINT
    _refuse_mixing(checkpoint, resume)
    splits = load_splits(settings.data, settings.train.seed, say)
    for name, frames in splits.by_name().items():
        say(f"{name}: {counted(len(frames), 'frame')}; {describe_labels(frames)}")
    count = sum(map(len, splits.by_name().values()))
    if count > MANY and settings.data.store is None:
        say(f"all {count} frames are held in memory; `data: {{store: FOLDER}}` keeps them on disk")
    if diagnose(splits.by_name(), settings.data.accept, settings.conditioning):
        raise typer.Exit(STATUS_REFUSED)
    plan = _plan(settings, splits)
    state = _begin(plan, checkpoint, resume, processes)
    if plan.learned and plan.task.compiles and not state.uncompiled:
        say(
            "the training step is compiled first: a minute or two, longer on a busy machine, less "
            "when it was seen before"
        )
    if processes > 1:
        say(f"{processes} processes share each batch")
    return plan, state


def _adopt_start(settings: Config) -> Config:
    """Sections that a config leaves out are those of the potential it starts from."""
    from surefoot.blocks.conditioning import Conditioning
    from surefoot.posteriors.start import load_foundation

    foundation = load_foundation(settings.start)
    if foundation is None:
        return settings
    potential = foundation.potential
    found = {"model": potential.model, "head": potential.head}
    if potential.states is not None:
        found["conditioning"] = Conditioning(name="charge_spin")
    given = settings.model_fields_set
    return settings.model_copy(update={n: v for n, v in found.items() if n not in given})


def _refuse_mixing(checkpoint: Path, resume: bool) -> None:
    from surefoot.cli.screen import UserError

    if checkpoint.exists() and not resume:
        raise UserError(
            f"{checkpoint}: a run is there already; add --resume to go on with it, or choose "
            "another folder."
        )
    if resume and not checkpoint.exists():
        raise UserError(f"{checkpoint}: there is no checkpoint to resume from.")


def _plan(settings: Config, splits: Splits) -> Plan:
    """Everything but the weights, and a few lines about it on the screen."""
    from surefoot.cli.screen import say
    from surefoot.data.load import hash_files
    from surefoot.heads.categorical import Categorical
    from surefoot.heads.histogram import ErrorHistograms
    from surefoot.posteriors.training import plan_training
    from surefoot.wording import counted

    data = settings.data
    valid = data.valid if isinstance(data.valid, list) else []
    begun = [settings.start.potential] if settings.start.potential else []
    plan = plan_training(
        splits,
        settings.parts,
        data.references,
        {"config": settings.model_dump(), "files": hash_files([*data.train, *valid, *begun])},
        data.scale,
    )
    statistics = plan.statistics
    from ase.data import chemical_symbols

    energies = ", ".join(
        f"{chemical_symbols[z]} {energy:.3f}"
        for z, energy in zip(statistics.elements, statistics.energies, strict=True)
    )
    say(f"reference energies in eV from {statistics.source}: {energies}")
    learn = (plan.task.roles.learn > 0).reshape(-1, len(plan.task.samples))
    members, frames = learn.shape
    seen = float(learn.sum(1).double().mean())
    say(
        f"{counted(members, 'member')} of {_parameter_count(plan)} parameters; "
        f"{'it' if members == 1 else 'each'} learns from "
        f"{seen:.0f} of {counted(frames, 'frame')}; scale {statistics.scale:.3f}, "
        f"{plan.task.potential.baseline.neighbors:.1f} neighbours per atom; "
        f"seed {settings.train.seed} of weights and data order"
    )
    for note in plan.notes:
        say(note)
    if plan.task.potential.states is not None:
        say(f"told apart: {plan.task.potential.states.describe()}")
    head = plan.task.potential.head
    if isinstance(head, Categorical | ErrorHistograms) and head.measured is not None:
        say(head.measured.describe(statistics.scale))
    return plan


def _parameter_count(plan: Plan) -> int:
    import torch

    weights = plan.task.potential.init(0, torch.float32)
    return sum(value.numel() for value in weights.values())


def _begin(plan: Plan, checkpoint: Path, resume: bool, processes: int) -> State:
    from surefoot.cli.screen import say
    from surefoot.posteriors.restart import load_checkpoint
    from surefoot.posteriors.training import start

    if not resume:
        return start(plan)
    state = load_checkpoint(checkpoint, plan, processes)
    say(f"resumed after {state.epoch} epochs and {state.batch} batches ({state.step} steps)")
    return state


@contextmanager
def epoch_bar(epochs: int, state: State, compiling: bool) -> Iterator[Any]:
    """An observer that shows epochs and validation errors; the first epoch may hold compilation."""
    from surefoot.cli.screen import progress_bar

    with progress_bar("training", epochs, state.epoch, slow_start=compiling) as bar:
        yield lambda state: bar.move(state.epoch, epoch_note(state.history))


def epoch_note(history: Sequence[Mapping[str, float]]) -> str:
    """What a bar says after an epoch: the newest errors of frames set aside, or the loss.

    Args:
        history: records of epochs; not each of them has been validated.
    """
    for record in reversed(history):
        parts = [
            f"{short} {1000 * record[name]:.{digits}f} {unit}"
            for name, short, digits, unit in SHOWN_ERRORS
            if name in record
        ]
        if parts:
            return f"unseen: {', '.join(parts)}"
    return f"loss {history[-1]['train_total']:.3g}"


SHOWN_ERRORS = (("valid_energy_mae", "E", 2, "meV/atom"), ("valid_forces_mae", "F", 1, "meV/Å"))
"""Keys of records, and what they are called."""


def show_calibration(calibration: Calibration, factors: dict[str, Factor]) -> None:
    """The factors on the error bars and what they rest on."""
    from surefoot.cli.screen import say, show_table

    if not factors:
        say(f"error bars {calibration.source}")
        return
    rows = [
        [name, f"{factor.value:.2f}", _show_shared(factor.shared_error), str(factor.points)]
        for name, factor in factors.items()
    ]
    show_table(
        f"Calibration from {calibration.source}",
        ["quantity", "factor on σ", "shared error / spread", "points"],
        rows,
    )


def describe_gate(predictor: Predictor) -> str:
    """Where the distance to the training data comes from, or why there is none."""
    from surefoot.posteriors.gate import FEWEST

    if predictor.gate is None:
        return (
            f"ood: none, since its edge needs {FEWEST} frames set aside and some that were learnt "
            "from; `surefoot calibrate POTENTIAL --train FILE --held-out FILE -o NEW` adds it"
        )
    return f"ood from {predictor.gate.source}"


def _show_shared(shared_error: float | None) -> str:
    return "–" if shared_error is None else f"{shared_error:.2f}"
