"""A picture of curves, as SVG. Pure.

Three small panels with lines need a hundred lines of text and no dependency; the plotting
libraries would be the largest that an installation of kbroker has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 34, 44
_LEGEND_LINE = 15
_TICKS = 5
# Told apart by all kinds of sight: https://personal.sron.nl/~pault/
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777")


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram.

    Attributes:
        title: above it.
        x: what its x axis shows, with the unit.
        y: likewise.
        lines: name → points.
        log_x: whether the x axis is logarithmic; its values are then above 0.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Points]
    log_x: bool = False


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._of(self.low), self._of(self.high)
        part = (self._of(value) - low) / (high - low) if high > low else 0.5
        return self.start + part * (self.end - self.start)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> list[float]:
        """Round values along the axis."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**n for n in range(first, last + 1)]
        step = round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below this; 1 for nothing."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999999)


def svg(panels: Sequence[Panel]) -> str:
    """The panels beside each other; those without points are left out."""
    drawn = [panel for panel in panels if any(panel.lines.values())]
    width = max(1, len(drawn)) * _WIDTH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}" '
        f'viewBox="0 0 {width} {_HEIGHT}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, panel in enumerate(drawn):
        parts += [f'<g transform="translate({number * _WIDTH} 0)">', *_drawn(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _drawn(panel: Panel) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    lowest = min(x for x, _ in points) if panel.log_x else min(0.0, *(x for x, _ in points))
    x = _Scale(lowest, max(x for x, _ in points), _LEFT, _WIDTH - _RIGHT, panel.log_x)
    y = _Scale(0.0, max(y for _, y in points) * 1.05 or 1.0, _HEIGHT - _BOTTOM, _TOP)
    parts = [_text(_WIDTH / 2, 18, panel.title, "middle", 'font-weight="bold"')]
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, panel.x, "middle"))
    turned = f'transform="rotate(-90 14 {_HEIGHT / 2:g})"'
    parts.append(_text(14, _HEIGHT / 2, panel.y, "middle", turned))
    for tick in x.ticks():
        parts.append(_line(x(tick), y.start, x(tick), y.end))
        parts.append(_text(x(tick), y.start + 14, f"{tick:g}", "middle"))
    for tick in y.ticks():
        parts.append(_line(x.start, y(tick), x.end, y(tick)))
        parts.append(_text(x.start - 4, y(tick) + 4, f"{tick:g}", "end"))
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        drawing = 'fill="none" stroke-width="1.6"'
        parts.append(f'<polyline points="{path}" stroke="{colour}" {drawing}/>')
        where = _TOP + 12 + number * _LEGEND_LINE
        parts.append(_text(_LEFT + 8, where, name, "start", f'fill="{colour}"'))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'
