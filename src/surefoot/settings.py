"""The one base of everything a user can configure: frozen, and closed to unknown keys."""

import functools
import operator
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of validated settings; unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def any_of(classes: Mapping[str, type[Settings]]) -> Any:
    """The type of a field that holds one of these; `choose_class` says which."""
    return functools.reduce(operator.or_, classes.values())


def choose_class(
    section: Any, classes: Mapping[str, type[Settings]], key: str, default: str
) -> Any:
    """The settings of a section whose class is named by one of its keys.

    Args:
        section: what stands in a file, or settings.
        classes: by name.
        key: whose value is the name.
        default: name where the key is missing.
    Raises:
        ValueError: if there is no class of that name, or it is no section.
    """
    if isinstance(section, Settings):
        return section
    if not isinstance(section, Mapping):
        raise ValueError(f"a section of keys is needed, such as {{{key}: {default or '…'}}}")
    name = section.get(key, default)
    if not isinstance(name, str) or name not in classes:
        raise ValueError(f"'{name}' is not known; there is {', '.join(classes)}")
    return classes[name].model_validate(dict(section))
