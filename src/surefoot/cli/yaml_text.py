"""YAML of configs: nothing is made but plain values, and no text may stand for far more of them."""

from __future__ import annotations

from typing import Any

import yaml

MOST = 100_000
"""Values that a text may stand for, each alias counted as what it stands for."""
BROKEN = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)
"""What PyYAML raises for a tag whose value is none of its kind, such as `!!bool x`."""


def read_yaml(text: str) -> Any:
    """The values of a text; aliases of aliases are counted before any is followed.

    Raises:
        yaml.YAMLError: if it is no YAML, nested too deeply, an alias contains itself, or it stands
            for more than `MOST` values.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, set())
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except BROKEN as error:
        raise yaml.YAMLError(f"a value is not of the kind it is marked as: {error}") from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, counts: dict[int, int], inside: set[int]) -> int:
    """Values that a node stands for.

    Args:
        node: of the text.
        counts: of the nodes that were counted before.
        inside: nodes that this one is in.
    """
    if id(node) in counts:
        return counts[id(node)]
    if id(node) in inside:
        raise yaml.YAMLError("an alias contains itself")
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.ScalarNode) and not node.value.isprintable():
        _require_text(node.value)
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    inside.add(id(node))
    count = 1 + sum(_count(part, counts, inside) for part in parts)
    inside.remove(id(node))
    if count > MOST:
        raise yaml.YAMLError(f"its aliases stand for more than {MOST} values")
    counts[id(node)] = count
    return count


def _require_text(value: str) -> None:
    """Refuse halves of characters, which an escape can make and no file and no message can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise yaml.YAMLError(f"it holds a character that is none ({error.reason})") from error
