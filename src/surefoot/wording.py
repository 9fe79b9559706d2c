"""Words of messages: counts with their noun, and texts cut where they are too long to read."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as `1 frame` or `2 frames`.

    Args:
        number: how many.
        noun: in the singular; its plural ends in s.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def cut(text: str, length: int) -> str:
    """A text, or so many characters of it and a sign that there are more."""
    return text if len(text) <= length else f"{text[:length]}…"
