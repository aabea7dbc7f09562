"""Tables as people see them: columns of text for a terminal, HTML for a notebook.

The HTML has inline styles only, for scripts and style sheets do not survive where notebooks are shown.
"""

from __future__ import annotations

import html as markup
from collections.abc import Collection, Sequence

__all__ = ["html", "text"]

_TABLE = "border-collapse:collapse;font:13px system-ui,sans-serif;font-variant-numeric:tabular-nums"
_CELL = "padding:2px 10px;border-bottom:1px solid #8884;text-align:"
_NO = "color:#c0392b;"


def text(lines: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Lines whose columns are as wide as their widest cells; `right` are the columns of figures."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def html(lines: Sequence[Sequence[str]], *, right: Collection[int] = (), no: Collection[int] = ()) -> str:
    """The first of `lines` is the head. `right` are the columns of figures; `no` the lines, by their place, that say no.

    Only the last column may wrap: sentences stand there.
    """
    rows = []
    for place, line in enumerate(lines):
        tag, colour = "td" if place else "th", _NO if place in no else ""
        cells = []
        for column, cell in enumerate(line):
            side = "right" if column in right else "left"
            kept = "" if column == len(line) - 1 else ";white-space:nowrap"
            cells.append(f'<{tag} style="{colour}{_CELL}{side}{kept}">{markup.escape(cell)}</{tag}>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<table style="{_TABLE}">{"".join(rows)}</table>'
