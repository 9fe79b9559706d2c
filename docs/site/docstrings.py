"""How the reference reads the docstrings of this package."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

SECTION = re.compile(r"\n( *(?:Args|Attributes|Raises|Returns|Yields):\n)")


class HouseStyle(griffe.Extension):
    """Sections without a blank line before them, and settings that describe their own fields."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """A blank line before each section, as the reader of docstrings wants it."""
        if obj.docstring is not None:
            obj.docstring.value = SECTION.sub(r"\n\n\1", obj.docstring.value)

    def on_attribute_instance(
        self, *, node: ast.AST | griffe.ObjectNode, attr: griffe.Attribute, **_: Any
    ) -> None:
        """`Field(description=…)` is what a key of the config means."""
        value = getattr(node, "value", None)
        if attr.docstring is not None or not isinstance(value, ast.Call):
            return
        for keyword in value.keywords:
            if keyword.arg == "description":
                attr.docstring = griffe.Docstring(read_text(keyword.value), parent=attr)


def read_text(node: ast.expr) -> str:
    """A string as it stands in the source; what is filled in is named."""
    if isinstance(node, ast.JoinedStr):
        return "".join(read_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"`{ast.unparse(node.value)}`"
    return str(ast.literal_eval(node))
