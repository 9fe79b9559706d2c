"""The config of labels: their source, and what is taken as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import field_validator

from surefoot.cli.screen import UserError
from surefoot.cli.sections import Choices, apply_overrides, read_sections, validate
from surefoot.label import LABELERS
from surefoot.label.labeler import Labeler
from surefoot.label.run import Conduct
from surefoot.settings import Settings, any_of, choose_class

LABEL_CHOICES: Choices = {"labeler": (LABELERS, "name")}
ADVICE = "write sections, such as `labeler: {name: pyscf, method: BMK}`"


class LabelConfig(Settings):
    """Everything that decides labels."""

    labeler: any_of(LABELERS) = LABELERS["xtb"]()  # type: ignore[valid-type]
    conduct: Conduct = Conduct()

    @field_validator("labeler", mode="before")
    @classmethod
    def _choose_labeler(cls, section: Any) -> Any:
        return choose_class(section, *LABEL_CHOICES["labeler"], "xtb")


def load_labeler(
    config: Path | None, name: str | None, method: str | None, overrides: Sequence[str] = ()
) -> tuple[Labeler, Conduct]:
    """The source of labels, and what is taken as one, that a file and options name.

    Args:
        config: YAML with the sections `labeler` and `conduct`, or None.
        name: of the labeler; it takes the place of the file's.
        method: of the labeler, likewise.
        overrides: `section.key=value`.

    Raises:
        UserError: if there is no such labeler, or it does not have these settings.
    """
    content = {} if config is None else read_sections(config, ADVICE)
    if content.get("labeler") is None:  # not there, or without a key in it
        content["labeler"] = {}
    section, said = content["labeler"], {}
    for option, key, value in (("--labeler", "name", name), ("--method", "method", method)):
        if value is not None and isinstance(section, dict):  # what is no section is refused below
            section[key] = value
            said[f"labeler.{key}"] = f"{option} {value}"
    said |= apply_overrides(content, overrides)
    place = "the command line" if config is None else str(config)
    found = validate(LabelConfig, content, place, LABEL_CHOICES, said)
    if found.labeler.name == "ase" and method is not None:
        raise UserError(
            f"--method {method}: what a calculator of ASE calculates is said by its keywords, "
            "`labeler.parameters` in a config; `labeler.method` there is how it is called."
        )
    return found.labeler, found.conduct
