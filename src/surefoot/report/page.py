"""One HTML page: text, tables, plots and figures to take away, for light and dark screens."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

from surefoot.tables import Rows, html_table

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --soft: #555; --line: #ddd; --back: #fff;
  --card: #fff; --link: #0b57d0; --error: #b3261e }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8e8; --soft: #aaa; --line: #444;
  --back: #16181b; --card: #1e2125; --link: #8ab4f8; --error: #f2b8b5 } }
@media print { :root { --text: #000; --soft: #333; --line: #bbb; --back: #fff; --card: #fff;
  --link: #000; --error: #000 } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 82em; padding: 0 1em;
  color: var(--text); background: var(--back); overflow-wrap: anywhere }
a { color: var(--link) } :focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em } h3 { font-size: 1em }
table { border-collapse: collapse; margin: 0.6em 0 1.2em; font-variant-numeric: tabular-nums;
  overflow-wrap: normal }
th, td { padding: 0.25em 0.7em; text-align: right; border-bottom: 1px solid var(--line) }
td { white-space: nowrap } th:first-child, td:first-child { text-align: left }
caption { text-align: left; color: var(--soft); padding-bottom: 0.3em }
table.text th, table.text td { text-align: left; vertical-align: top; min-width: 4.5em;
  white-space: normal }
table.text td:last-child { min-width: 20em }
.scroll { overflow-x: auto } .plots { display: flex; flex-wrap: wrap; gap: 1em }
.plots svg { width: 380px; max-width: 100%; background: var(--card); border-radius: 4px }
figure { margin: 0; max-width: 100%; break-inside: avoid } figcaption { font-size: 12px }
svg text { fill: var(--text) } svg [stroke="#000000"] { stroke: var(--text) }
svg [fill="#000000"] { fill: var(--text) }
svg .title { font: 600 13px system-ui, sans-serif } svg .label { font: 12px system-ui, sans-serif }
svg text.tick { font: 10px system-ui, sans-serif; fill: var(--soft); paint-order: stroke;
  stroke: var(--card); stroke-width: 3px }
svg .mid { text-anchor: middle } svg .end { text-anchor: end }
svg .grid { stroke: var(--line); stroke-width: 0.6 } svg .box { fill: none; stroke: #888 }
svg circle { stroke: #888; stroke-width: 0.3 } svg polyline { stroke-width: 1.7 }
p.note { color: var(--soft); max-width: 60em }
pre { white-space: pre-wrap; font-size: 12px } details { margin: 0.6em 0 }
summary { cursor: pointer } nav ul { display: flex; flex-wrap: wrap; gap: 0.2em 1.2em; padding: 0;
  list-style: none }
@media print { details, nav { display: none } .plots svg { break-inside: avoid }
  .scroll { overflow: visible } h2, h3 { break-after: avoid } }
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
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def heading(text: str, level: int = 2, place: str = "") -> str:
    """A heading; the page has one of level 1.

    Args:
        text: without marks of HTML.
        level: 1 to 6.
        place: what links of this page call it; nothing where it is empty.
    """
    named = f' id="{html.escape(place)}"' if place else ""
    return f"<h{level}{named}>{html.escape(text)}</h{level}>"


def contents(places: dict[str, str]) -> str:
    """Links to the headings of this page, by place → text."""
    links = (
        f'<li><a href="#{html.escape(at)}">{html.escape(t)}</a></li>' for at, t in places.items()
    )
    return f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>'


def paragraph(text: str) -> str:
    """A few sentences."""
    return f'<p class="note">{html.escape(text)}</p>'


def table(rows: Rows, caption: str = "", *, text: bool = False) -> str:
    """A table that scrolls by itself where the screen is narrow; nothing without rows.

    Args:
        rows: its lines.
        caption: what it shows; nothing where it is empty.
        text: whether its columns hold sentences, not numbers.
    """
    if not rows:
        return ""
    label = html.escape(caption or f"table of {next(iter(rows[0]))}")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"{html_table(rows, caption, 'text' if text else '')}</div>"
    )


def plots(drawings: Iterable[str]) -> str:
    """Plots beside each other, as `svg.plot` draws them."""
    return f'<div class="plots">{"".join(drawings)}</div>'


def folded(title: str, parts: Iterable[str]) -> str:
    """What is seen after a click."""
    return f"<details><summary>{html.escape(title)}</summary>{''.join(parts)}</details>"


def verbatim(text: str) -> str:
    """Text as it is."""
    return f"<pre>{html.escape(text)}</pre>"


def figure(drawn: str, name: str, columns: Mapping[str, Iterable[Any]]) -> str:
    """A plot with a link that saves the numbers in it as CSV.

    Args:
        drawn: as `svg.plot` draws it.
        name: of the file.
        columns: its head and what stands below; where one is shorter, cells are empty.
    """
    return f"<figure>{drawn}<figcaption>{link_csv(name, columns)}</figcaption></figure>"


def link_csv(name: str, columns: Mapping[str, Iterable[Any]]) -> str:
    """A link that saves these columns, which lie in the page, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip_longest(*columns.values(), fillvalue=""))
    return _link(name, "text/csv", text.getvalue())


def download(name: str, figures: Any) -> str:
    """A link that saves these figures, which lie in the page, as JSON."""
    saved = _link(name, "application/json", json.dumps(figures, indent=1))
    return f"<p>{saved}: the figures of this page</p>"


def _link(name: str, kind: str, text: str) -> str:
    held, shown = base64.b64encode(text.encode()).decode(), html.escape(name)
    return f'<a download="{shown}" href="data:{kind};base64,{held}">{shown}</a>'
