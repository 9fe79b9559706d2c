"""One HTML page: text, tables, plots and figures to take away, for light and dark screens."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

Rows = Sequence[dict[str, str]]
"""Lines of a table; the keys of the first are its head."""

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --soft: #555; --line: #ddd; --back: #fff }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --soft: #aaa; --line: #444; --back: #16181b } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 82em; padding: 0 1em;
  color: var(--text); background: var(--back) }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em } h3 { font-size: 1em }
table { border-collapse: collapse; margin: 0.6em 0 1.2em; font-variant-numeric: tabular-nums }
th, td { padding: 0.25em 0.7em; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left }
.scroll { overflow-x: auto } .plots { display: flex; flex-wrap: wrap; gap: 1em }
.plots svg { width: 380px; max-width: 100%; background: #fff; color: #1b1b1b; border-radius: 4px }
svg .title { font: 600 13px system-ui, sans-serif } svg .label { font: 12px system-ui, sans-serif }
svg .tick { font: 10px system-ui, sans-serif; fill: #444 } svg .mid { text-anchor: middle }
svg .end { text-anchor: end } svg .grid { stroke: #eee } svg .box { fill: none; stroke: #888 }
svg polyline { stroke-width: 1.7 } p.note { color: var(--soft); max-width: 60em }
pre { white-space: pre-wrap; font-size: 12px } details { margin: 0.6em 0 }
summary { cursor: pointer }
@media print { details { display: none } .plots svg { break-inside: avoid } }
"""


def document(title: str, body: Iterable[str]) -> str:
    """The whole page.

    Args:
        title: in the window, without marks of HTML.
        body: its parts, which are HTML.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """A heading; the page has one of level 1."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A few sentences."""
    return f'<p class="note">{html.escape(text)}</p>'


def table(rows: Rows) -> str:
    """A table that scrolls by itself where the screen is narrow; nothing without rows."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in rows[0])
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><tr>{head}</tr>{lines}</table></div>'


def plots(drawings: Iterable[str]) -> str:
    """Plots beside each other, as `svg.plot` draws them."""
    return f'<div class="plots">{"".join(drawings)}</div>'


def folded(title: str, parts: Iterable[str]) -> str:
    """What is seen after a click."""
    return f"<details><summary>{html.escape(title)}</summary>{''.join(parts)}</details>"


def verbatim(text: str) -> str:
    """Text as it is."""
    return f"<pre>{html.escape(text)}</pre>"


def download(name: str, figures: Any) -> str:
    """A link that saves these figures, which lie in the page, as JSON."""
    text = base64.b64encode(json.dumps(figures, indent=1).encode()).decode()
    return (
        f'<p><a download="{html.escape(name)}" href="data:application/json;base64,{text}">'
        f"{html.escape(name)}</a>: the figures of this page</p>"
    )
