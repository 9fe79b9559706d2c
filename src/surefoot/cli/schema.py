"""The JSON schema of a config, for editors: what may stand there, and what each key means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from surefoot.settings import Settings

DIALECT = "http://json-schema.org/draft-07/schema#"  # that which editors of YAML know

Named = Mapping[str, type[Settings]]


def write_schema(root: type[Settings], choices: Mapping[str, tuple[Named, str]]) -> str:
    """The schema as text.

    A section that is one of several classes is judged by the class that its key names, and by that
    of its default where the key is missing, as `choose_class` does. An editor then tells what is
    wrong with *this* class, and not that none of all fits.

    Args:
        root: class of the whole config.
        choices: sections, or lists of them, that are one of several classes: the classes by name,
            and the key that holds the name.
    """
    schema = root.model_json_schema()
    for section, (classes, key) in choices.items():
        place = schema["properties"].get(section)
        if place is None:
            continue
        if place.get("type") == "array":
            place["items"] = _one_of(classes, key, None)
            continue
        usual = root.model_fields[section].default
        schema["properties"][section] = {
            "title": place.get("title", section.title()),
            "default": place["default"],
            **_one_of(classes, key, getattr(usual, key)),
        }
    return json.dumps({"$schema": DIALECT, **schema}, indent=2) + "\n"


def _one_of(classes: Named, key: str, usual: str | None) -> dict[str, Any]:
    """One of these classes, as its key says; the usual one without the key, or a refusal."""
    named: dict[str, Any] = {"enum": list(classes)}
    rules = [
        {
            "if": {"required": [key], "properties": {key: {"const": name}}},
            "then": {"$ref": f"#/$defs/{held.__name__}"},
        }
        for name, held in classes.items()
    ]
    found: dict[str, Any] = {"type": "object", "properties": {key: named}}
    if usual is None:
        return {**found, "required": [key], "allOf": rules}
    named["default"] = usual
    without = {"$ref": f"#/$defs/{classes[usual].__name__}"}
    rules.append({"if": {"not": {"required": [key]}}, "then": without})
    return {**found, "allOf": rules}
