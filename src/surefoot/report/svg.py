"""Plots as SVG text for reports: no library, nothing that has to be loaded."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b3a800")
"""Told apart by people who see few colours (Okabe and Ito)."""
WIDTH, HEIGHT = 380, 300
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 28.0, 44.0
LETTER = 5.6  # width of one in a legend, about


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a plot.

    Attributes:
        name: in the legend; none where it is empty.
        x, y: points; those that are not numbers are left out.
        colour: as SVG spells it.
        dashed: whether it is dashed.
        points: whether the points are marked.
        joined: whether there is a line from each to the next.
    """

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    colour: str
    dashed: bool = False
    points: bool = False
    joined: bool = True


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis shows.

    Attributes:
        label: quantity and unit.
        logarithmic: whether its steps are powers of ten.
        limits: ends; those of the data where not given.
    """

    label: str
    logarithmic: bool = False
    limits: tuple[float, float] | None = None


def colour(number: int) -> str:
    """The colour of the line of this number."""
    return COLOURS[number % len(COLOURS)]


def plot(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Lines in a frame with axes and a legend, as one <svg> element."""
    across = _Scale(x, [line.x for line in lines], LEFT, WIDTH - RIGHT)
    upward = _Scale(y, [line.y for line in lines], HEIGHT - BOTTOM, TOP)
    parts = [_frame(title, x, y, across, upward)]
    parts += [_draw(line, across, upward) for line in lines]
    parts.append(_legend(lines, across, upward))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


class _Scale:
    """From the values of an axis to places in the picture."""

    def __init__(
        self, axis: Axis, values: Sequence[Sequence[float | None]], start: float, end: float
    ) -> None:
        self._log, self._start, self._end = axis.logarithmic, start, end
        found = [v for row in values for v in row if self._has(v)]
        low, high = axis.limits or (min(found, default=0.0), max(found, default=1.0))  # type: ignore[type-var]
        if not axis.limits:
            low, high = self._widen(float(low), float(high))  # type: ignore[arg-type]
        self.low, self.high = low, high

    def _has(self, value: float | None) -> bool:
        return value is not None and math.isfinite(value) and (value > 0 or not self._log)

    def _widen(self, low: float, high: float) -> tuple[float, float]:
        if self._log:
            low, high = max(low, 1e-300), max(high, 1e-299)
            return low / 1.3, high * 1.3
        margin = 0.05 * (high - low) or 0.5
        return (0.0 if 0.0 <= low < 0.5 * high else low - margin), high + margin

    def __call__(self, value: float | None) -> float | None:
        if value is None or not self._has(value):
            return None
        low, high, at = self.low, self.high, value
        if self._log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self._start + (self._end - self._start) * (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values along the axis."""
        if not self._log:
            return self._even_ticks()
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = (1, 2, 5) if math.log10(self.high / self.low) < 3 else (1,)
        found = [factor * 10.0**power for power in powers for factor in every]
        inside = [value for value in found if self.low <= value <= self.high]
        return inside if len(inside) > 2 else self._even_ticks()

    def _even_ticks(self) -> list[float]:
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _round_step(width: float) -> float:
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width * 0.999)


def _frame(title: str, x: Axis, y: Axis, across: _Scale, upward: _Scale) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<text x="{LEFT}" y="16" class="title">{html.escape(title)}</text>']
    for tick in across.ticks():
        at = across(tick)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}" class="grid"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 14}" class="tick mid">{tick:g}</text>')
    for tick in upward.ticks():
        at = upward(tick)
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 3:.1f}" class="tick end">{tick:g}</text>')  # type: ignore[operator]
    middle, height = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(
        f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" class="box"/>'
        f'<text x="{middle}" y="{HEIGHT - 10}" class="label mid">{html.escape(x.label)}</text>'
        f'<text transform="translate(14 {height}) rotate(-90)" class="label mid">'
        f"{html.escape(y.label)}</text>"
    )
    return "".join(parts)


def _places(line: Line, across: _Scale, upward: _Scale) -> list[tuple[float, float]]:
    places = [(across(a), upward(b)) for a, b in zip(line.x, line.y, strict=True)]
    return [(a, b) for a, b in places if a is not None and b is not None]


def _draw(line: Line, across: _Scale, upward: _Scale) -> str:
    seen = _places(line, across, upward)
    text = " ".join(f"{a:.1f},{b:.1f}" for a, b in seen)
    dash = ' stroke-dasharray="4 3"' if line.dashed else ""
    drawn = ""
    if line.joined:
        drawn = f'<polyline points="{text}" fill="none" stroke="{line.colour}"{dash}/>'
    if line.points:
        drawn += "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.2" fill="{line.colour}"/>' for a, b in seen
        )
    return drawn


def _legend(lines: Sequence[Line], across: _Scale, upward: _Scale) -> str:
    """Names of the lines, in the corner where least is drawn."""
    named = [line for line in lines if line.name]
    high = 13 * len(named) + 6
    wide = 31 + LETTER * max((len(line.name) for line in named), default=0)
    corners = [
        (x, y)
        for y in (TOP, max(TOP, HEIGHT - BOTTOM - high))
        for x in (LEFT, max(LEFT, WIDTH - RIGHT - wide))
    ]
    drawn = [place for line in lines for place in _fill(line, across, upward)]
    left, top = min(
        corners,
        key=lambda at: sum(0 <= x - at[0] <= wide and 0 <= y - at[1] <= high for x, y in drawn),
    )
    parts = []
    for number, line in enumerate(named):
        y = top + 12 + 13 * number
        dash = ' stroke-dasharray="4 3"' if line.dashed else ""
        parts.append(
            f'<line x1="{left + 8:.1f}" y1="{y - 3:.1f}" x2="{left + 26:.1f}" y2="{y - 3:.1f}" '
            f'stroke="{line.colour}" stroke-width="2"{dash}/>'
            f'<text x="{left + 31:.1f}" y="{y:.1f}" class="tick">{html.escape(line.name)}</text>'
        )
    return "".join(parts)


def _fill(line: Line, across: _Scale, upward: _Scale) -> list[tuple[float, float]]:
    """Places that a line covers: its points, and some between them where it is joined."""
    seen = _places(line, across, upward)
    if not line.joined:
        return seen
    between = [
        (a[0] + step * (b[0] - a[0]), a[1] + step * (b[1] - a[1]))
        for a, b in pairwise(seen)
        for step in (0.2, 0.4, 0.6, 0.8)
    ]
    return seen + between
