"""A report as a picture: for every measure a dot where b stands against a, with its interval; HTML with an inline SVG."""

from __future__ import annotations

import html as markup
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .comparison import Comparison

if TYPE_CHECKING:
    from .report import Report

__all__ = ["html"]

_BETTER, _WORSE, _EVEN = "#2e7d4f", "#c0392b", "#7a8791"
_FONT = "font:13px/1.4 system-ui,-apple-system,'Segoe UI',sans-serif;font-variant-numeric:tabular-nums"
# Pixels: names, the scale, figures; and a line's height.
_NAMES, _SCALE, _FIGURES, _LINE = 230, 280, 330, 22
# Ratios marked on the scale, by how far it reaches to either side.
_TICKS = {1.7: (0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5), 4: (0.33, 0.5, 0.8, 1, 1.25, 2, 3), 15: (0.1, 0.2, 0.5, 1, 2, 5, 10)}
_SECONDS = ("ttft", "itl_p95")
_DECADES = (0.001, 0.01, 0.1, 1, 10, 100, 1000)


def html(report: Report) -> str:
    """The sides, the verdict, the figures, and what is said of the answers."""
    setup = report.setup
    sides = "".join(
        f"<div><strong>{letter}</strong> {markup.escape(f'{name} · {model}')}</div>"
        for letter, name, model in (("a", setup.a, setup.model_a), ("b", setup.b, setup.model_b))
    )
    verdict = f'<div style="margin:6px 0;font-size:15px"><strong>{markup.escape(report.verdict)}</strong></div>'
    said = "".join(f"<div>{markup.escape(line)}</div>" for line in report.quality_lines())
    notes = "".join(f'<div style="opacity:.7">{markup.escape(line)}</div>' for line in report.warnings)
    picture = _svg(report.comparisons, report.minimum) if report.comparisons else ""
    return f'<div style="{_FONT};max-width:{_NAMES + _SCALE + _FIGURES}px">{sides}{verdict}{picture}{said}{notes}</div>'


def _svg(rows: Sequence[Comparison], minimum: float) -> str:
    ends = [end for row in rows for end in (row.ratio, row.low, row.high) if end is not None]
    reach = max(math.log(1.25), *(abs(math.log(end)) for end in ends)) * 1.05
    height = _LINE * (len(rows) + 1) + 6
    width = _NAMES + _SCALE + _FIGURES

    def x(ratio: float) -> float:
        return _NAMES + _SCALE / 2 * (1 + math.log(ratio) / reach)

    low, high = x(1 / (1 + minimum)), x(1 + minimum)
    band = f'<rect x="{low:.1f}" y="0" width="{high - low:.1f}" height="{height - _LINE}" fill="#8883"/>'
    marks = next((marks for end, marks in _TICKS.items() if reach <= math.log(end)), _DECADES)
    ticks = "".join(_tick(mark, x(mark), height) for mark in marks if abs(math.log(mark)) <= reach)
    axis = f'<text x="{_NAMES - 12}" y="{height - 6}" text-anchor="end" opacity=".7">b over a</text>'
    lines = "".join(_row(row, x, at * _LINE + _LINE // 2) for at, row in enumerate(rows))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="100%" role="img" '
        f'font-size="12" fill="currentColor">{band}{ticks}{axis}{lines}</svg>'
    )


def _tick(value: float, x: float, height: int) -> str:
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - _LINE}" stroke="#8886"/>'
    return f'{line}<text x="{x:.1f}" y="{height - 6}" text-anchor="middle" opacity=".7">{value:g}</text>'


def _row(row: Comparison, x: Callable[[float], float], y: int) -> str:
    """Name, interval and dot, figures; what the verdict looks at is bold."""
    colour = {"b": _BETTER, "a": _WORSE, None: _EVEN}[row.better]
    weight = ' font-weight="bold"' if row.judged else ""
    name = f'<text x="0" y="{y + 4}"{weight}>{markup.escape(f"{row.measure}, {row.where}")}</text>'
    span = ""
    if row.low is not None and row.high is not None:
        span = f'<line x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
    dot = f'<circle cx="{x(row.ratio):.1f}" cy="{y}" r="4.5" fill="{colour}"/>'
    better = f", {row.better} is better" if row.better else ""
    figures = f"{row.ratio:.2f} (a {_figure(row.measure, row.a)}, b {_figure(row.measure, row.b)}){better}"
    return f'<g>{name}{span}{dot}<text x="{_NAMES + _SCALE + 12}" y="{y + 4}"{weight}>{figures}</text></g>'


def _figure(measure: str, value: float) -> str:
    """Seconds as milliseconds, which is what they are about."""
    return f"{value * 1000:.3g} ms" if measure in _SECONDS else f"{value:.3g}"
