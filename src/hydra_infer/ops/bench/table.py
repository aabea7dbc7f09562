"""Cells as lines of text in columns. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["aligned", "span"]


def aligned(lines: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Lines as wide as their widest cells; `sides` has a "<" or ">" for each column, left or right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()
        for line in lines
    ]


def span(low: float | None, high: float | None) -> str:
    """An interval; empty where there is none."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
