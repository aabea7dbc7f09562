"""A plan as a picture: one bar per card, for notebooks."""

from __future__ import annotations

import html as markup
from collections.abc import Sequence

from .usage import DeviceUse

__all__ = ["html"]

_COLOURS = {
    "weights": "#4878a8",
    "cache": "#6aa56a",
    "state": "#8f7fb0",
    "draft": "#c0a050",
    "transient": "#d08a4e",
    "overhead": "#999999",
}


def html(text: str, devices: Sequence[DeviceUse]) -> str:
    """Bars over the text table; a bar that leaves its frame does not fit."""
    bars = "".join(_bar(use) for use in devices)
    key = " ".join(f'<span style="color:{colour}">&#9632;</span> {term}' for term, colour in _COLOURS.items())
    legend = f'<div style="font-size:80%">{key}</div>' if devices else ""
    return f"<div>{bars}{legend}<pre>{markup.escape(text)}</pre></div>"


def _bar(use: DeviceUse) -> str:
    scale = 100 / max(use.free, use.needed, 1)
    parts = "".join(
        f'<div title="{term} {getattr(use, term)}" '
        f'style="width:{getattr(use, term) * scale:.2f}%;background:{colour};height:1.2em"></div>'
        for term, colour in _COLOURS.items()
        if getattr(use, term)
    )
    frame = f"border:1px solid {'#333' if use.fits else '#c00'};width:{use.free * scale:.2f}%;height:1.2em"
    inner = f'<div style="display:flex;position:absolute;width:100%">{parts}</div><div style="{frame}"></div>'
    name = markup.escape(f"{use.gpu.name}: {use.needed} of {use.free}")
    return f'<div style="max-width:40em">{name}<div style="position:relative">{inner}</div></div>'
