"""When a campaign ends: an error that was reached, a budget that is spent, or no further gain."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from surefoot.active.judge import Figures
from surefoot.settings import Settings

UNITS = {"energy": "meV/atom", "forces": "meV/Å", "barrier": "kcal/mol"}


class Rules(Settings):
    """What ends a campaign; whichever comes first.

    Attributes:
        rounds: of labelling, at most.
        labels: structures labelled in all rounds, at most.
        hours: of all rounds.
        energy_rmse, forces_rmse, barrier_mae: on the test frames; all that are set must be reached.
        forces_std: root mean square of the calibrated standard deviations on the test frames.
        patience: rounds in a row that may go by without gain.
        gain: share by which a figure has to fall to count as a gain.
    """

    rounds: int = Field(default=10, ge=1, description="of labelling, at most")
    labels: int | None = Field(default=None, ge=1, description="structures labelled, at most")
    hours: float | None = Field(default=None, gt=0, description="of all rounds, at most")
    energy_rmse: float | None = Field(default=None, gt=0, description="to be reached, meV/atom")
    forces_rmse: float | None = Field(default=None, gt=0, description="to be reached, meV/Å")
    barrier_mae: float | None = Field(
        default=None, gt=0, description="of scans among the test frames, to be reached, kcal/mol"
    )
    forces_std: float | None = Field(
        default=None, gt=0, description="calibrated, on the test frames, to be reached, meV/Å"
    )
    patience: int | None = Field(
        default=None, ge=1, description="rounds in a row without gain in the forces"
    )
    gain: float = Field(default=0.02, ge=0, lt=1, description="share that counts as a gain")

    @property
    def goals(self) -> dict[str, float]:
        """Figures to be reached."""
        names = ("energy_rmse", "forces_rmse", "barrier_mae", "forces_std")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class MissingFigure(ValueError):
    """A goal that the test frames can not judge."""


def why_end(rules: Rules, history: Sequence[Figures], labelled: int, seconds: float) -> str | None:
    """The sentence that ends a campaign; None if it goes on.

    Args:
        rules: what ends it.
        history: figures of each round, the last of them new.
        labelled: structures labelled so far.
        seconds: spent so far.
    Raises:
        MissingFigure: if a goal is set on what the test frames do not show.
    """
    figures, goals = history[-1], rules.goals
    for name in goals:
        if name not in figures:
            raise MissingFigure(
                f"`{name}` is to be reached, but the test frames show no such figure (they show "
                f"{', '.join(figures) or 'none'}); name test frames with these labels, or leave "
                "the goal out."
            )
    if goals and all(figures[name] <= value for name, value in goals.items()):
        reached = ", ".join(
            f"{name} {figures[name]:.3g} {UNITS[name.split('_')[0]]} (asked for {value:g})"
            for name, value in goals.items()
        )
        return f"reached: {reached}"
    if len(history) > rules.rounds:
        return f"{rules.rounds} rounds are done"
    if rules.labels is not None and labelled >= rules.labels:
        return f"{labelled} structures are labelled, the budget is {rules.labels}"
    if rules.hours is not None and seconds >= 3600 * rules.hours:
        return f"{seconds / 3600:.2g} hours are spent, the budget is {rules.hours:g}"
    if rules.patience is not None and _is_stale(rules, history):
        return f"no gain of {rules.gain:.0%} in the forces in {rules.patience} rounds"
    return None


def _is_stale(rules: Rules, history: Sequence[Figures]) -> bool:
    errors = [figures["forces_rmse"] for figures in history if "forces_rmse" in figures]
    patience = rules.patience or 0
    if len(errors) <= patience:
        return False
    before = min(errors[:-patience])
    return min(errors[-patience:]) > (1 - rules.gain) * before
