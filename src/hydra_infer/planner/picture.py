"""A plan as a picture for notebooks: one bar per card on a common scale, with its numbers; HTML with inline CSS only."""

from __future__ import annotations

import html as markup
from typing import TYPE_CHECKING

from ..units import GIB
from .usage import DeviceUse
from .verdict import remarks

if TYPE_CHECKING:
    from .report import Plan

__all__ = ["html"]

# Told apart in grey too, and by people who do not see red and green apart: weights dark, overhead light, in one order.
_COLOURS = {
    "weights": "#2f5d8a",
    "cache": "#57a0d3",
    "state": "#8c6bb1",
    "draft": "#e0a030",
    "transient": "#e8825a",
    "overhead": "#9aa4ad",
}
_YES, _NO = "#2e7d4f", "#c0392b"

# Segments narrower than this share of the widest bar have no room for their number; the table has it.
_ROOM_FOR_A_NUMBER = 7.0

_FONT = "font:13px/1.4 system-ui,-apple-system,'Segoe UI',sans-serif;font-variant-numeric:tabular-nums"
_TRACK = "position:relative;height:26px;background:#8882;border-radius:4px"


def html(plan: Plan) -> str:
    """Verdict, bars, legend, and the sentences. A bar that leaves its frame does not fit; a hatched end is the reserve."""
    request = plan.request
    colour, word = (_YES, "fits") if plan.fits else (_NO, "does not fit")
    facts = f"{request.spec.format}, context {request.context}, cache {request.rate.name}, split {plan.split}"
    head = (
        f'<div style="margin-bottom:8px"><strong style="font-size:15px">{markup.escape(request.spec.name)}</strong> '
        f'<span style="background:{colour};color:#fff;border-radius:9px;padding:1px 9px">{word}</span> '
        f'<span style="opacity:.7">{markup.escape(facts)}</span></div>'
    )
    widest = max((max(int(use.free), int(use.needed)) for use in plan.devices), default=1)
    bars = "".join(_bar(use, 100 / max(widest, 1)) for use in plan.devices)
    notes = "".join(f'<div style="opacity:.7">{markup.escape(note)}</div>' for note in plan.warnings)
    said = "".join(f'<div style="margin-top:4px">{markup.escape(line)}</div>' for line in (plan.why, *remarks(plan)))
    ram = f'<div style="margin-top:2px">system RAM: {plan.host}</div>'
    return f'<div style="{_FONT};max-width:820px">{head}{bars}{_legend(plan)}{said}{ram}{notes}</div>'


def _bar(use: DeviceUse, scale: float) -> str:
    """One card: a frame as wide as what is free, segments for what is needed, `scale` percent per byte."""
    name = f"<strong>{markup.escape(use.gpu.name)}</strong>"
    layers = f" &middot; {use.layers} layers" if use.layers else ""
    left = f"{use.left} left" if use.left >= 0 else f'<strong style="color:{_NO}">{-use.left} too little</strong>'
    numbers = f"{use.needed} of {use.free} free{layers} &middot; {left}" if use.used else f"not used, {use.free} free"
    line = f'<div style="display:flex;justify-content:space-between;margin-top:6px">{name}<span>{numbers}</span></div>'
    edge = "#888a" if use.fits else _NO
    reserve = (
        f'<div title="reserve {use.reserve}" style="position:absolute;right:0;width:{100 * use.reserve / max(use.free, 1):.2f}%;'
        'height:100%;background:repeating-linear-gradient(135deg,#8885 0 3px,#8880 3px 7px)"></div>'
        if use.reserve
        else ""
    )
    frame = (
        # It lies over the segments, whose titles must still be reached.
        '<div style="position:absolute;top:0;box-sizing:border-box;pointer-events:none;'
        f"border:2px solid {edge};border-radius:4px;height:100%;"
        f'width:{use.free * scale:.2f}%">{reserve}</div>'
    )
    parts = "".join(_segment(use, term, scale) for term in _COLOURS)
    return f'{line}<div style="{_TRACK}"><div style="display:flex;height:100%">{parts}</div>{frame}</div>'


def _segment(use: DeviceUse, term: str, scale: float) -> str:
    size = getattr(use, term)
    if not size:
        return ""
    width = size * scale
    number = f"{size.gib:.1f}" if width > _ROOM_FOR_A_NUMBER else ""
    style = f"width:{width:.2f}%;background:{_COLOURS[term]};color:#fff;text-align:center;line-height:26px;overflow:hidden"
    return f'<div title="{term} {size}" style="{style}">{number}</div>'


def _legend(plan: Plan) -> str:
    """The terms that occur, with their sums over all cards."""
    sums = {term: sum(getattr(use, term) for use in plan.devices) for term in _COLOURS}
    keys = "".join(
        f'<span style="margin-right:14px;white-space:nowrap"><span style="display:inline-block;width:10px;height:10px;'
        f'background:{_COLOURS[term]};border-radius:2px"></span> {term} {size / GIB:.1f}</span>'
        for term, size in sums.items()
        if size
    )
    return f'<div style="margin-top:8px;font-size:12px">{keys}GiB</div>' if keys else ""
