"""A small table as HTML: of pages, and of what notebooks show."""

from __future__ import annotations

import html
from collections.abc import Sequence

Rows = Sequence[dict[str, str]]
"""Lines of a table; the keys of the first are its head."""


def html_table(rows: Rows, caption: str = "", kind: str = "") -> str:
    """The table; nothing without rows.

    Args:
        rows: its lines; what stands in them is text.
        caption: what it shows; nothing where it is empty.
        kind: its class, for a style; none where it is empty.
    """
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in rows[0])
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) + "</tr>"
        for row in rows
    )
    told = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    of_kind = f' class="{html.escape(kind)}"' if kind else ""
    return f"<table{of_kind}>{told}<tr>{head}</tr>{lines}</table>"
