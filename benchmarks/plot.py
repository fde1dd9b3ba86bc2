"""A plot of dots, written as SVG: for each panel lines of several marks each, on one scale."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_LINE = 24
_LABELS = 150
_GAP = 28
_WIDTH = 1040
_INK = "#1f2328"
_FAINT = "#d0d7de"


class Mark(NamedTuple):
    """How a series is drawn: its shape (one of ``dot``, ``ring``, ``square``, ``triangle``, ``diamond``, ``cross``)."""

    name: str
    shape: str
    colour: str


class Panel(NamedTuple):
    """Values by line and series; a series may lack some. Values beyond the scale are drawn at its end."""

    title: str
    values: Mapping[tuple[str, str], float]


class Scale(NamedTuple):
    """What the values are, and where they lie between the least and the most that is shown."""

    title: str
    least: float
    most: float
    ticks: Mapping[float, str]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, from 0 to 1."""
        bend: Callable[[float], float] = math.log if self.logarithmic else float
        low, high = bend(self.least), bend(self.most)
        return min(1.0, max(0.0, (bend(max(value, self.least)) - low) / (high - low)))


def dots(title: str, marks: Sequence[Mark], lines: Sequence[str], rows: Sequence[tuple[Scale, Sequence[Panel]]]) -> str:
    """Return a plot: each row of panels has its scale, each panel all lines, each line a mark for every series."""
    columns = max(len(panels) for _, panels in rows)
    width = (_WIDTH - _LABELS - _GAP * columns) / columns
    tall = _LINE * len(lines)
    height = 78 + len(rows) * (tall + 84)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" fill="{_INK}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for place, mark in enumerate(marks):
        x = 20 + place * 130
        parts.append(_shape(mark, x, 48))
        parts.append(f'<text x="{x + 12}" y="52">{escape(mark.name)}</text>')
    for number, (scale, panels) in enumerate(rows):
        top = 100 + number * (tall + 84)
        for column, panel in enumerate(panels):
            left = _LABELS + column * (width + _GAP)
            parts += _frame(scale, panel, left, top, width, tall)
            for line, name in enumerate(lines):
                y = top + _LINE * (line + 0.5)
                parts.append(f'<path d="M{left:.1f} {y:.1f}h{width:.1f}" stroke="{_FAINT}" stroke-width="0.5"/>')
                if column == 0:
                    parts.append(f'<text x="{_LABELS - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
                for mark in marks:
                    if (value := panel.values.get((name, mark.name))) is not None:
                        parts.append(_shape(mark, left + width * scale.place(value), y))
    return "\n".join([*parts, "</svg>", ""])


def _frame(scale: Scale, panel: Panel, left: float, top: float, width: float, tall: float) -> list[str]:
    middle = left + width / 2
    parts = [
        f'<text x="{middle:.1f}" y="{top - 10}" text-anchor="middle" font-weight="bold">{escape(panel.title)}</text>',
        f'<text x="{middle:.1f}" y="{top + tall + 36}" text-anchor="middle">{escape(scale.title)}</text>',
    ]
    for value, words in scale.ticks.items():
        x = left + width * scale.place(value)
        parts.append(f'<path d="M{x:.1f} {top}v{tall}" stroke="{_FAINT}"/>')
        parts.append(f'<text x="{x:.1f}" y="{top + tall + 17}" text-anchor="middle">{escape(words)}</text>')
    return parts


def _shape(mark: Mark, x: float, y: float) -> str:
    colour = mark.colour
    line = f'fill="none" stroke="{colour}" stroke-width="1.6"'
    match mark.shape:
        case "dot":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
        case "ring":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" {line}/>'
        case "square":
            return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>'
        case "triangle":
            return f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" {line}/>'
        case "diamond":
            return f'<path d="M{x:.1f} {y - 6:.1f}l5 6l-5 6l-5 -6z" {line}/>'
        case _:
            return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" {line}/>'
