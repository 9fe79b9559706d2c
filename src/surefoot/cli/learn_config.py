"""The config of a campaign: that of a training, and what is explored, chosen and labelled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from surefoot.active.campaign import Again
from surefoot.active.choose import Acquire
from surefoot.active.engines import ENGINES
from surefoot.active.explore import EXPLORERS
from surefoot.active.rules import Rules
from surefoot.cli.commented import section_lines, write_template
from surefoot.cli.config import CHOICES, Config
from surefoot.cli.screen import UserError
from surefoot.cli.sections import Choices, load_sections
from surefoot.label import LABELERS
from surefoot.label.run import Conduct
from surefoot.settings import any_of, choose_class

LEARN_CHOICES: Choices = {**CHOICES, "labeler": (LABELERS, "name"), "engine": (ENGINES, "name")}
LISTS: Choices = {"explore": (EXPLORERS, "name")}
"""Lists of sections, each of which is one of several classes."""


class LearnConfig(Config):
    """Everything that decides a campaign."""

    labeler: any_of(LABELERS) = LABELERS["xtb"]()  # type: ignore[valid-type]
    conduct: Conduct = Conduct()
    explore: tuple[any_of(EXPLORERS), ...] = Field(  # type: ignore[valid-type]
        default=(EXPLORERS["dynamics"](), EXPLORERS["rattle"]()), min_length=1
    )
    acquire: Acquire = Acquire()
    again: Again = Again()
    rules: Rules = Rules()
    engine: any_of(ENGINES) = ENGINES["processes"]()  # type: ignore[valid-type]

    @field_validator("labeler", mode="before")
    @classmethod
    def _choose_labeler(cls, section: Any) -> Any:
        return choose_class(section, *LEARN_CHOICES["labeler"], "xtb")

    @field_validator("engine", mode="before")
    @classmethod
    def _choose_engine(cls, section: Any) -> Any:
        return choose_class(section, *LEARN_CHOICES["engine"], "processes")

    @field_validator("explore", mode="before")
    @classmethod
    def _choose_explorers(cls, section: Any) -> Any:
        if not isinstance(section, Sequence) or isinstance(section, str):
            raise ValueError("a list, such as `[{name: pool, files: [pool.xyz]}]`")
        return tuple(choose_class(one, EXPLORERS, "name", "") for one in section)


def load_learn_config(path: Path, overrides: Sequence[str] = ()) -> LearnConfig:
    """Read and validate the config of a campaign.

    Raises:
        UserError: one sentence per mistake, with file or override, key, and the nearest valid keys.
    """
    advice = f"`surefoot learn --template > {path}` writes a config"
    found = load_sections(LearnConfig, path, overrides, advice, LEARN_CHOICES)
    if found.train.log != "csv":
        raise UserError(
            f"{path}: train.log: a campaign shows its trainings in report.html; leave it out."
        )
    if (
        found.posterior.name == "ensemble"
        and found.posterior.left_out
        and found.again.begin == "warm"
    ):
        raise UserError(
            f"{path}: posterior.left_out: folds that change as frames come would be frames that "
            "warm weights have learnt from; set `posterior: {left_out: 0}` and a share "
            "`data: {valid: 0.1}`, or `again: {begin: scratch}`."
        )
    if found.data.store is not None:
        raise UserError(
            f"{path}: data.store: a campaign hands its frames to other processes and keeps them in "
            "memory; leave it out."
        )
    return found


OWN = {"valid": "0.1", "test": "[test.xyz]", "left_out": "0"}
"""Keys of a training whose value in a campaign is another one."""
EXPLORE = """
explore:
  # Where structures come from: any number of these, in turn.
  # A pool of structures, labels in the files are not looked at:
  # - name: pool
  #   files: [pool.xyz]
"""


def write_learn_template(model: str, head: str) -> str:
    """A commented config of a campaign.

    Args:
        model: whose keys are written, with its recipe.
        head: likewise.
    """
    text = write_template(["first.xyz"], model=model, head=head, posterior="ensemble")
    for key, value in OWN.items():
        text = re.sub(rf"^  {key}: .*$", f"  {key}: {value}", text, count=1, flags=re.MULTILINE)
    lines = ["", "# What follows is the campaign's own.", "", "labeler:"]
    lines += section_lines(LABELERS["xtb"], {}, 1)
    lines += ["", "conduct:", *section_lines(Conduct, {}, 1), *EXPLORE.rstrip().splitlines()]
    for name in ("dynamics", "rattle"):
        first, *rest = section_lines(EXPLORERS[name], {}, 2)
        lines += [f"  - {first.strip()}", *rest]
    for name, settings in (("acquire", Acquire), ("again", Again), ("rules", Rules)):
        lines += ["", f"{name}:", *section_lines(settings, {}, 1)]
    lines += ["", "engine:", *section_lines(ENGINES["processes"], {}, 1)]
    return text + "\n".join(lines) + "\n"
