"""Active learning: label what the potential does not know, until it is good enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from surefoot.active.campaign import Campaign, Told
    from surefoot.active.loop import Outcome
    from surefoot.cli.learn_config import LearnConfig


def run(
    config: Annotated[
        Path | None, typer.Argument(help="YAML of the campaign; see --template.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder: the whole state, to go on from.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, such as rules.rounds=5.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the next choice and write nothing.")
    ] = False,
    template: Annotated[
        bool, typer.Option("--template", help="Print a commented config instead.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema for editors instead.")
    ] = False,
    model: Annotated[str, typer.Option(help="Of the template.")] = "schnet",
    head: Annotated[str, typer.Option(help="Of the template.")] = "scalar",
) -> None:
    from surefoot.cli.screen import (
        STATUS_INTERRUPTED,
        UserError,
        complain,
        interruption,
        say,
        suggest,
    )

    if template:
        from surefoot.cli.learn_config import write_learn_template

        typer.echo(write_learn_template(model, head), nl=False)
        return
    if schema:
        from surefoot.cli.learn_config import LEARN_CHOICES, LISTS, LearnConfig
        from surefoot.cli.schema import write_schema

        typer.echo(write_schema(LearnConfig, {**LEARN_CHOICES, **LISTS}), nl=False)
        return
    if config is None or output is None:
        raise UserError(
            "Name a config and a folder: `surefoot learn CONFIG -o FOLDER`; `surefoot learn "
            "--template` prints a config."
        )
    from surefoot.active.loop import preview
    from surefoot.active.loop import run as run_campaign
    from surefoot.active.report import PAGE
    from surefoot.cli.learn_config import load_learn_config

    settings = load_learn_config(config, overrides or ())
    with interruption() as asked, ExitStack() as stack:
        campaign = _campaign(settings, output, _told(stack, lambda: bool(asked)))
        if dry_run:
            _show_preview(campaign, preview(campaign))
            return
        found = run_campaign(campaign)
    _show_rounds(found)
    if found.ended is None:
        complain("surefoot: interrupted; the same command goes on.")
        raise typer.Exit(STATUS_INTERRUPTED)
    say(f"ended: {found.ended}")
    say(f"potential: {found.potential}; {output / PAGE} shows every round")
    suggest("surefoot", "evaluate", found.potential, "TEST.xyz")


def _campaign(settings: LearnConfig, folder: Path, told: Told) -> Campaign:
    """The campaign of a config, with its frames read and looked at by the data doctor."""
    from surefoot.active.campaign import Campaign
    from surefoot.cli.check import diagnose
    from surefoot.cli.screen import STATUS_REFUSED, say
    from surefoot.data.load import load_splits
    from surefoot.data.read import describe_labels
    from surefoot.wording import counted

    splits = load_splits(settings.data, settings.train.seed)
    for name, frames in splits.by_name().items():
        say(f"{name}: {counted(len(frames), 'frame')}; {describe_labels(frames)}")
    say(f"seeds: {settings.train.seed} of trainings, {settings.again.seed} of what is chosen")
    if diagnose(splits.by_name(), settings.data.accept, settings.conditioning):
        raise typer.Exit(STATUS_REFUSED)
    return Campaign(
        folder=folder,
        splits=splits,
        parts=settings.parts,
        again=settings.again,
        explorers=settings.explore,
        acquire=settings.acquire,
        labeler=settings.labeler,
        conduct=settings.conduct,
        engine=settings.engine,
        rules=settings.rules,
        references=settings.data.references,
        scale=settings.data.scale,
        config=settings.model_dump(mode="json"),
        told=told,
    )


def _told(stack: ExitStack, asked: Callable[[], bool]) -> Told:
    """Bars for trainings and labels, sentences for the rest."""
    from surefoot.active.campaign import Told
    from surefoot.cli.screen import Pace, progress_bar, say
    from surefoot.cli.train import epoch_note

    current: dict[str, Any] = {}

    def open_bar(title: str, total: int) -> Any:
        stack.close()
        current.clear()
        current[title] = (stack.enter_context(progress_bar(title, total)), Pace())
        return current[title]

    def epoch(state: Any, epochs: int) -> None:
        if state.epoch == 1 or "training" not in current:
            open_bar("training", epochs)
        bar, _ = current["training"]
        bar.move(state.epoch, epoch_note(state.history))

    def labels(done: int, total: int) -> None:
        if "labelling" not in current:
            open_bar("labelling", total)
        bar, pace = current["labelling"]
        bar.move(done, pace.note(done))

    def tell(line: str) -> None:
        stack.close()
        current.clear()
        say(line)

    return Told(say=tell, epoch=epoch, labels=labels, asked=asked)


COLUMNS = {
    "energy_rmse": "E RMSE, meV/atom",
    "forces_rmse": "F RMSE, meV/Å",
    "forces_std": "F σ, meV/Å",
    "forces_coverage": "in 90 % interval",
    "barrier_mae": "barrier MAE, kcal/mol",
}


def _show_rounds(found: Outcome) -> None:
    """The figures of each round beside the labels and the time they took."""
    from surefoot.active.summary import STAGES, share_of_choice
    from surefoot.cli.screen import show_table

    shown = [name for name in COLUMNS if any(name in one["figures"] for one in found.rounds)]
    total, rows = 0, []
    for one in found.rounds:
        figures, seconds = one["figures"], one["seconds"]
        cells = [f"{figures[name]:.3g}" if name in figures else "–" for name in shown]
        spent = " + ".join(f"{seconds.get(name, 0.0):.0f}" for name in STAGES)
        share = f"{share_of_choice(seconds):.1%}"
        rows.append([str(one["round"]), str(total), *cells, spent, share])
        total += one["labelled"]
    if rows:
        title = "Rounds: errors on the test frames, which nobody learns from"
        times = [f"{' + '.join(STAGES)}, s", "choice, share"]
        names = ["round", "new labels", *(COLUMNS[name] for name in shown), *times]
        show_table(title, names, rows)


def _show_preview(campaign: Campaign, shown: Any) -> None:
    """What the next round would label."""
    import numpy as np

    from surefoot.cli.screen import say, show_table

    if shown is None:
        say("a training comes first: nothing can be chosen before it")
        return
    chosen = shown.chosen
    rows = _rows_of(shown.candidates, chosen, np)
    names = list(chosen.scores)
    show_table(
        f"Round {shown.number} would label {len(rows)} of {len(shown.candidates)} candidates "
        f"with {campaign.labeler.describe()}",
        ["candidate", "found by", "formula", "chosen by", *names, "distance"],
        rows,
    )
    for reason, count in chosen.refused.items():
        say(f"not chosen, {count}: {reason}")


def _rows_of(candidates: Sequence[Any], chosen: Any, np: Any) -> list[list[str]]:
    rows = []
    for index, by in zip(chosen.indices, chosen.by, strict=True):
        atoms = candidates[index]
        scores = [f"{values[index]:.3g}" for values in chosen.scores.values()]
        far = chosen.distances[index]
        distance = f"{far:.2f}" if np.isfinite(far) else "–"
        found_by = str(atoms.info["config_type"])
        rows.append([str(index), found_by, atoms.get_chemical_formula(), by, *scores, distance])
    return rows
