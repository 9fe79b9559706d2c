"""Sections of a YAML file, changed by `--set` and validated: each mistake is a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from surefoot.cli.screen import UserError
from surefoot.cli.yaml_text import read_yaml
from surefoot.settings import Settings
from surefoot.wording import cut

SHOWN = 200  # characters of a value in a message
REASON = 600  # of what is wrong with it
TOLD = 8  # mistakes that are told at once

Whole = TypeVar("Whole", bound=Settings)
Choices = Mapping[str, tuple[Mapping[str, type[Settings]], str]]
"""Sections that are one of several classes, and the key whose value says which."""


def load_sections(
    root: type[Whole], path: Path, overrides: Sequence[str], advice: str, choices: Choices
) -> Whole:
    """The settings that a file and overrides hold.

    Args:
        root: their class.
        path: the file.
        overrides: `section.key=value`, the value in YAML.
        advice: how such a file is written, for messages.
        choices: sections that are one of several classes.

    Raises:
        UserError: one sentence per mistake, with file or override, key, and the nearest valid keys.
    """
    content = read_sections(path, advice)
    said = apply_overrides(content, overrides)
    return validate(root, content, str(path), choices, said)


def read_sections(path: Path, advice: str) -> dict[str, Any]:
    """Sections of a YAML file, not yet validated.

    Args:
        path: the file.
        advice: how such a file is written, for messages.

    Raises:
        UserError: if it is not there or is no YAML.
    """
    try:
        content = read_yaml(path.read_text())
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "this is a folder" if path.is_dir() else "there is no such file"
        raise UserError(f"{path}: {what}; {advice}.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: can not be read as YAML ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a config is made of sections; {advice}.")
    return content


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Change sections in place.

    Args:
        content: sections.
        overrides: `section.key=value`, the value in YAML.

    Returns:
        What the user has typed, by key, for `validate`.

    Raises:
        UserError: if one does not fit.
    """
    for override in overrides:
        _apply(content, override)
    return {override.partition("=")[0]: f"--set {override}" for override in overrides}


def validate(
    root: type[Whole],
    content: Mapping[str, Any],
    place: str,
    choices: Choices,
    said: Mapping[str, str],
) -> Whole:
    """The settings that sections hold.

    Args:
        root: their class.
        content: the sections.
        place: where they stand, for messages.
        choices: sections that are one of several classes.
        said: of the keys that were given on the command line, what the user has typed there.

    Raises:
        UserError: one sentence per mistake, with place and key, and the nearest valid keys.
    """
    fields = root.model_fields
    given = {  # a section without a key in it is as none
        name: value
        for name, value in content.items()
        if value is not None
        or name not in fields
        or section_class(name, fields[name], content, choices) is None
    }
    try:
        return root.model_validate(given)
    except ValidationError as error:
        problems = error.errors()
        lines = [
            f"{_blame(one, place, choices, said)}: {_explain(one, content, root, choices)}"
            for one in problems[:TOLD]
        ]
        lines += [f"{place}: and {len(problems) - TOLD} more."] * (len(problems) > TOLD)
        raise UserError("\n".join(lines)) from error


def _apply(content: dict[str, Any], override: str) -> None:
    name, found, value = override.partition("=")
    if not found:
        raise UserError(f"--set {override}: write section.key=value, for example train.epochs=50.")
    *sections, key = name.split(".")
    place = content
    for section in sections:
        if place.get(section) is None:  # a section without a key in it
            place[section] = {}
        place = place[section]
        if not isinstance(place, dict):
            raise UserError(f"--set {override}: '{section}' is a value, not a section.")
    try:
        place[key] = read_yaml(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not YAML ({error}).") from error


def _blame(problem: Any, place: str, choices: Choices, said: Mapping[str, str]) -> str:
    """What the user has typed where a mistake is in it, else the place of the sections.

    A mistake of a whole section, such as two keys that do not fit, is of the place and of what was
    typed there.
    """
    name = ".".join(map(str, problem["loc"]))
    inside = [text for key, text in said.items() if f"{key}.".startswith(f"{name}.")]
    around = [text for key, text in said.items() if f"{name}.".startswith(f"{key}.")]
    if (
        name in choices
        and f"{name}.{choices[name][1]}" in said
        and "is not known" in problem["msg"]
    ):
        around.append(said[f"{name}.{choices[name][1]}"])
    if around:
        return around[0]
    if inside and problem["type"] == "extra_forbidden":  # a section made by what was typed
        return inside[0]
    return " with ".join([place, *inside])


def _explain(
    problem: Any, content: Mapping[str, Any], root: type[Settings], choices: Choices
) -> str:
    location = [part for part in problem["loc"] if isinstance(part, str)]
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = _valid_keys(location[:-1], content, root, choices)
        near = difflib.get_close_matches(location[-1], valid, n=3, cutoff=0.4) or valid
        return f"there is no key '{name}'; near it there is {', '.join(near)}."
    if problem["type"] == "missing":
        return f"the key '{name}' is missing; it has no default."
    if problem["type"] == "model_type":
        return f"{name}: a section of keys is needed (found {cut(repr(problem['input']), SHOWN)})."
    reason = cut(problem["msg"].removeprefix("Value error, ").rstrip("."), REASON)
    value = problem["input"]
    if problem["type"] == "less_than_equal" and location[0] == "model":
        # Models end where their products are built and tested.
        reason = f"more than {problem['ctx']['le']} is not built"
    shown = "" if isinstance(value, (dict, BaseModel)) else f" (found {cut(repr(value), SHOWN)})"
    return f"{name + ': ' if name else ''}{reason}{shown}."


def _valid_keys(
    location: Sequence[str], content: Mapping[str, Any], root: type[Settings], choices: Choices
) -> list[str]:
    """The keys of the section at this place of a config with this content."""
    section: type[BaseModel] = root
    for part in location:
        field = section.model_fields.get(part)
        if field is None:
            continue  # the name that a file gives to one of many, as the splits of `hat build`
        inner = section_class(part, field, content, choices)
        if inner is None:
            break
        section = inner
    return list(section.model_fields)


def section_class(
    name: str, field: FieldInfo, content: Mapping[str, Any], choices: Choices
) -> type[Settings] | None:
    """The settings class of a section: where there are several, the one the content names."""
    if name not in choices:
        return settings_class(field.annotation)
    classes, key = choices[name]
    section = content.get(name)
    chosen = section.get(key) if isinstance(section, Mapping) else None
    return classes[chosen] if isinstance(chosen, str) else type(field.default)


def settings_class(annotation: Any) -> type[Settings] | None:
    """The settings class an annotation names, or the first of several."""
    candidates = getattr(annotation, "__args__", (annotation,))
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, Settings):
            return candidate
    return None
