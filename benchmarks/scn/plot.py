"""Plots on logarithmic axes as SVG, without a library."""

import math
from collections.abc import Sequence

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 460, 80, 60, 20, 210
COLOURS = (
    *("#1b6ca8", "#d1495b", "#2e933c", "#8e6c8a", "#edae49", "#30638e", "#7f4f24"),
    *("#00798c", "#b5179e", "#606c38", "#bc4749", "#3a0ca3", "#9c6644", "#52796f", "#e36414"),
)
SHAPES = ("circle", "square", "diamond")


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone where there are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if len(powers) > 4 else (1, 2, 5)
    return [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]


class Axes:
    """Two logarithmic axes about some points."""

    def __init__(self, x: Sequence[float], y: Sequence[float], titles: tuple[str, str]) -> None:
        self.x, self.y = ((min(v) / 1.3, max(v) * 1.3) for v in (x, y))
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        ]
        for value in ticks(*self.x):
            self.line(value, self.y[0], value, self.y[1])
            self.text(self.right(value), HEIGHT - BOTTOM + 18, f"{value:g}", "middle")
        for value in ticks(*self.y):
            self.line(self.x[0], value, self.x[1], value)
            self.text(LEFT - 8, self.up(value) + 4, f"{value:g}", "end")
        middle = (LEFT + WIDTH - RIGHT) / 2
        self.text(middle, HEIGHT - 18, titles[0], "middle")
        height = (TOP + HEIGHT - BOTTOM) / 2
        self.lines.append(
            f'<text x="20" y="{height}" text-anchor="middle" '
            f'transform="rotate(-90 20 {height})">{titles[1]}</text>'
        )

    def right(self, value: float) -> float:
        share = math.log(value / self.x[0]) / math.log(self.x[1] / self.x[0])
        return round(LEFT + share * (WIDTH - RIGHT - LEFT), 1)

    def up(self, value: float) -> float:
        share = math.log(value / self.y[0]) / math.log(self.y[1] / self.y[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    def line(self, x0: float, y0: float, x1: float, y1: float) -> None:
        ends = (self.right(x0), self.up(y0), self.right(x1), self.up(y1))
        self.lines.append('<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="#ddd"/>'.format(*ends))

    def text(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        self.lines.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>')

    def mark(self, x: float, y: float, number: int) -> None:
        """A point in the window, at places in pixels."""
        colour = COLOURS[number % len(COLOURS)]
        if SHAPES[number // len(COLOURS) % len(SHAPES)] == "circle":
            self.lines.append(f'<circle cx="{x}" cy="{y}" r="4.5" fill="{colour}"/>')
        else:
            self.lines.append(
                f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" fill="{colour}"/>'
            )

    def legend(self, place: int, name: str) -> None:
        y = TOP + 14 + 18 * place
        self.mark(WIDTH - RIGHT + 22, y - 4, place)
        self.text(WIDTH - RIGHT + 34, y, name)

    def svg(self) -> str:
        return "\n".join([*self.lines, "</svg>"]) + "\n"


def scatter(points: Sequence[tuple[str, float, float]], x_title: str, y_title: str) -> str:
    """A cloud for each name; a value of zero stands at the left edge."""
    least = min((x for _, x, _ in points if x > 1e-9), default=1e-6)
    kept = [(name, max(x, least / 3), y) for name, x, y in points]
    axes = Axes([x for _, x, _ in kept], [y for _, _, y in kept], (x_title, y_title))
    names = list(dict.fromkeys(name for name, _, _ in kept))
    for name, x, y in kept:
        axes.mark(axes.right(x), axes.up(y), names.index(name))
    for place, name in enumerate(names):
        axes.legend(place, name)
    return axes.svg()


def lines(curves: dict[str, Sequence[tuple[float, float]]], x_title: str, y_title: str) -> str:
    """A curve for each name."""
    x = [point[0] for curve in curves.values() for point in curve]
    y = [point[1] for curve in curves.values() for point in curve]
    axes = Axes(x, y, (x_title, y_title))
    for place, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{axes.right(a)},{axes.up(b)}" for a, b in curve)
        colour = COLOURS[place % len(COLOURS)]
        axes.lines.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        for a, b in curve:
            axes.mark(axes.right(a), axes.up(b), place)
        axes.legend(place, name)
    return axes.svg()
