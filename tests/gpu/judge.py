"""Judge: predicted against measured, and what a measurement says about the planner's constants. Plain arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

__all__ = ["bracket", "bytes_row", "cost_of_a_draft", "pace", "returned", "speeds"]

Row = dict[str, Any]

# The goals: bytes within 3 % or 300 MiB, the Engine at 98 % of the raw generator.
SHARE, ROOM, ENGINE = 0.03, 300 * 2**20, 0.98

# What may stay on a card after everything was freed: libraries loaded on first use, and their workspaces.
LEFT_BEHIND = 64 * 2**20


def bytes_row(term: str, predicted: int, actual: int) -> Row:
    """Within 3 % of what was measured, or within 300 MiB."""
    off = predicted - actual
    return {
        "term": term,
        "predicted_bytes": predicted,
        "actual_bytes": actual,
        "off_bytes": off,
        "within": abs(off) <= max(ROOM, SHARE * actual),
    }


def bracket(term: str, low: int, likely: int, high: int, actual: int) -> Row:
    """A range from measurements elsewhere: does this one lie in it?"""
    return {
        "term": term,
        "low_bytes": low,
        "predicted_bytes": likely,
        "high_bytes": high,
        "actual_bytes": actual,
        "off_bytes": likely - actual,
        "within": low <= actual <= high,
    }


def speeds(term: str, raw: Sequence[float], engine: Sequence[float]) -> Row:
    """Medians of tokens per second of the same work in turns, and their ratio."""
    ratio = median(engine) / median(raw)
    return {
        "term": term,
        "raw_tps": round(median(raw), 2),
        "engine_tps": round(median(engine), 2),
        "raw_spread": round(max(raw) / min(raw) - 1, 4),
        "ratio": round(ratio, 4),
        "within": ratio >= ENGINE,
    }


def returned(term: str, used: Sequence[int]) -> Row:
    """Bytes in use before the first load and after each unload: after the first one nothing may be added."""
    grown = max(used[1:]) - used[1] if len(used) > 1 else 0
    return {
        "term": term,
        "used_bytes": list(used),
        "kept_bytes": used[1] - used[0],
        "off_bytes": grown,
        "within": grown <= LEFT_BEHIND,
    }


def cost_of_a_draft(plain_tps: float, drafted_tps: float, tokens: int, acceptance: float) -> float:
    """What one drafted token costs in steps: the planner's speedup (1 + n a) / (1 + n c), solved for c."""
    gain = drafted_tps / plain_tps
    return ((1 + tokens * acceptance) / gain - 1) / tokens


def pace(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds per layer and share of the bandwidth that fit best: seconds = layers x fixed + bytes / (share x bandwidth).

    Least squares of the relative errors over rows with `seconds`, `layers`, `bytes` and `bandwidth` (bytes per second).
    """
    left = [(row["layers"] / row["seconds"], row["bytes"] / row["bandwidth"] / row["seconds"]) for row in rows]
    aa, ab, bb = (sum(one[i] * one[j] for one in left) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = sum(one[0] for one in left), sum(one[1] for one in left)
    determinant = aa * bb - ab * ab
    fixed, slowness = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
    worst = max(abs(fixed * one[0] + slowness * one[1] - 1) for one in left)
    return {"layer_s": fixed, "efficiency": 1 / slowness, "worst_off": worst}
