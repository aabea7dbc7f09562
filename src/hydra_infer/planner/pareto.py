"""What a survey trades: the rows that no other row beats in two things at once, and a picture of them as SVG."""

from __future__ import annotations

import html as markup
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import table
from ..errors import ConfigError
from ..units import GIB

__all__ = ["MEASURES", "Pareto"]

Row = Mapping[str, Any]

# Columns of a survey that one may want much of, as they are written at an axis; of needed_bytes one wants little.
MEASURES = {
    "max_context": "longest context, tokens",
    "context": "context, tokens",
    "bpw": "bits per weight",
    "decode_tps": "tokens per second",
    "left_bytes": "free on the fullest card, GiB",
    "needed_bytes": "needed, GiB",
}
_LITTLE = ("needed_bytes",)
_TOKENS = ("max_context", "context")

# Pixels: the picture, and what is around the field of dots for the axes' words.
_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 24, 46
# Told apart by people who do not see red and green apart, and repeated after six.
_COLOURS = ("#2f5d8a", "#e0a030", "#8c6bb1", "#57a0d3", "#e8825a", "#5d6a73")


@dataclass(frozen=True, slots=True, repr=False)
class Pareto:
    """Two columns of a survey against each other. `every` are the rows that fit, `rows` those of them that none beats in both."""

    x: str
    y: str
    every: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]], x: str, y: str) -> Pareto:
        """Raises ConfigError for a column that is none of MEASURES."""
        for name in (x, y):
            if name not in MEASURES:
                raise ConfigError(f"{name!r} is nothing to trade", hint=f"it is one of {', '.join(MEASURES)}")
        return cls(x, y, tuple(row for row in rows if row["fits"] and None not in (row[x], row[y])))

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """From the least of x to the most; rows that are equal in both stay together."""
        kept = [row for row in self.every if not any(self._beats(other, row) for other in self.every)]
        return tuple(sorted(kept, key=lambda row: (row[self.x], row[self.y])))

    def _beats(self, other: Row, row: Row) -> bool:
        gains: list[float] = [(other[name] - row[name]) * (-1 if name in _LITTLE else 1) for name in (self.x, self.y)]
        return min(gains) >= 0 and max(gains) > 0

    def __repr__(self) -> str:
        return f"<Pareto of {self.x} and {self.y}: {len(self.rows)} of {len(self.every)} rows>"

    def __str__(self) -> str:
        head = (self.x.removesuffix("_bytes"), self.y.removesuffix("_bytes"), "")
        lines = [head, *((_figure(self.x, row[self.x]), _figure(self.y, row[self.y]), _name(row)) for row in self.rows)]
        return table.text(lines, right=range(2))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": str(self), "image/svg+xml": self.svg()}

    def svg(self) -> str:
        """A dot for each row, coloured by model and cache; those that none beats are filled, named, and joined."""
        across = _scale([row[self.x] for row in self.every], _LEFT, _WIDTH - _RIGHT)
        up = _scale([row[self.y] for row in self.every], _HEIGHT - _BOTTOM, _TOP)
        kinds = enumerate(dict.fromkeys((row["model"], row["cache"]) for row in self.every))
        colours = {kind: _COLOURS[place % len(_COLOURS)] for place, kind in kinds}
        best = self.rows
        taken: set[tuple[float, float]] = set()  # where a name stands already: rows may be equal in both
        dots = []
        for row in self.every:
            x, y, colour = across(row[self.x]), up(row[self.y]), colours[row["model"], row["cache"]]
            dots.append(_dot(x, y, colour, _name(row), filled=row in best, named=row in best and (x, y) not in taken))
            taken.add((x, y))
        axes = _axes(self.x, self.y, [row[self.x] for row in self.every], [row[self.y] for row in self.every], across, up)
        steps = " ".join(f"{across(row[self.x]):.1f},{up(row[self.y]):.1f}" for row in best)
        line = f'<polyline points="{steps}" fill="none" stroke="#8888" stroke-dasharray="4 3"/>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" role="img" '
            f'font-family="system-ui,-apple-system,\'Segoe UI\',sans-serif" font-size="12" fill="#555">'
            f"{axes}{line}{''.join(dots)}</svg>"
        )


def _name(row: Row) -> str:
    bits = "" if row["bpw"] is None else f" {row['bpw']:g} bpw"
    return f"{row['model']}{bits}, {row['cache']}"


def _figure(column: str, value: float) -> str:
    if column.endswith("_bytes"):
        return f"{value / GIB:.1f}"
    if column in _TOKENS:
        return f"{value:.0f}" if value % 1024 else f"{value / 1024:.0f}k"
    return f"{value:g}"


def _scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    """From the values to pixels, with a little room on both sides; a single value stands in the middle."""
    low, high = min(values, default=0), max(values, default=1)
    room = (high - low) * 0.06 or 1.0
    return lambda value: start + (end - start) * (value - low + room) / (high - low + 2 * room)


def _ticks(values: Sequence[float], column: str) -> list[float]:
    """About five round numbers within the values; tokens are round in binary."""
    low, high = min(values, default=0), max(values, default=1)
    rough = (high - low) / 4 or 1.0
    if column in _TOKENS:
        step = float(2 ** round(math.log2(max(rough, 1))))
    else:
        unit = GIB if column.endswith("_bytes") else 1
        power = 10 ** math.floor(math.log10(rough / unit))
        step = unit * power * min((1, 2, 5, 10), key=lambda one: abs(one * power - rough / unit))
    return [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _axes(
    x: str, y: str, xs: Sequence[float], ys: Sequence[float], across: Callable[[float], float], up: Callable[[float], float]
) -> str:
    base, parts = _HEIGHT - _BOTTOM, []
    for value in _ticks(xs, x):
        at = across(value)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{base}" stroke="#8883"/>')
        parts.append(f'<text x="{at:.1f}" y="{base + 16}" text-anchor="middle">{_figure(x, value)}</text>')
    for value in _ticks(ys, y):
        at = up(value)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#8883"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_figure(y, value)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:g}" y="{_HEIGHT - 8}" text-anchor="middle" font-weight="600">{MEASURES[x]}</text>')
    beside = f'x="14" y="{(_TOP + base) / 2:g}" transform="rotate(-90 14 {(_TOP + base) / 2:g})"'
    parts.append(f'<text {beside} text-anchor="middle" font-weight="600">{MEASURES[y]}</text>')
    return "".join(parts)


def _dot(x: float, y: float, colour: str, name: str, *, filled: bool, named: bool) -> str:
    title = f"<title>{markup.escape(name)}</title>"
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour if filled else "none"}" stroke="{colour}">{title}</circle>'
    if not named:
        return dot
    # Towards the middle, so that a long name stays in the picture, and on the side of its dot where no line passes.
    if x > (_LEFT + _WIDTH - _RIGHT) / 2:
        place = f'x="{x - 7:.1f}" y="{y + 14:.1f}" text-anchor="end"'
    else:
        place = f'x="{x + 7:.1f}" y="{y - 7:.1f}"'
    return f'{dot}<text {place} font-size="11">{markup.escape(name)}</text>'
